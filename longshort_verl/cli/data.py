# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort problems | traces | chunk | importance | cold-start | inspect``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.common import OVERRIDES, failure

_TRACES = Annotated[Path, typer.Argument(help="JSONL or JSON with problem, answer and trace.")]
_RECIPE = Annotated[Path | None, typer.Option(help="YAML that inherits longshort_importance.")]


def problems(
    given: Annotated[
        str,
        typer.Argument(
            help="JSON, JSONL or Parquet with the columns problem and answer; or a public set by name (gsm8k_train, "
            "math_train), or NAME=COPY for a local copy of it."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    num_val: Annotated[
        int | None, typer.Option(help="Problems held out for validation. Default: a quarter, at most 64.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    suffix: Annotated[
        str, typer.Option(help="Text added to each problem, for a single model without a system prompt.")
    ] = "",
) -> None:
    """Check problems row by row and write them as training and validation files in verl's schema."""
    from longshort_verl.problems.write import make_training_files

    try:
        lines = make_training_files(given, out, num_val=num_val, seed=seed, suffix=suffix)
    except ValueError as error:
        raise failure(error) from error
    typer.echo("\n".join(lines))


def traces(
    file: Annotated[Path, typer.Argument(help="Problems: JSON, JSONL or Parquet, plain or in verl's schema.")],
    out: Annotated[Path, typer.Option(help="JSONL to write. An interrupted run resumes from the journal beside it.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, for example model.path=PATH.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_traces.")] = None,
) -> None:
    """Sample chains of thought of a model, and keep those with a correct answer."""
    import asyncio
    import dataclasses
    import hashlib

    from rich.progress import Progress

    from longshort_verl.chains.sample import Reply, sample_traces, write_traces
    from longshort_verl.chains.traces_config import read_traces_config
    from longshort_verl.files.journal import Journal
    from longshort_verl.files.manifest import Artefact
    from longshort_verl.generation.open import open_generator
    from longshort_verl.grading import grade
    from longshort_verl.problems.read import check_answers, read_problems

    async def run() -> list[Reply]:
        async with open_generator(config.model) as generator:
            with Progress(console=Console(stderr=True)) as progress:
                bar = progress.add_task("thinking", total=len(rows) * config.sampling.num_samples)
                return await sample_traces(
                    rows,
                    generator,
                    config.sampling,
                    journal,
                    lambda text, gold: grade(text, gold, config.grading),
                    max_requests=config.max_requests,
                    on_done=lambda reply: progress.advance(bar),
                )

    try:
        config, rows = read_traces_config(recipe, overrides or []), read_problems(file)
        check_answers(rows, path=file)
        settings = {
            "model": config.model.path,
            "sampling": {**dataclasses.asdict(config.sampling), "num_samples": None},
            "problems": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        with Journal(out.with_name(f"{out.name}.journal"), settings) as journal:
            replies = asyncio.run(run())
        found = write_traces(replies, out)
    except ValueError as error:
        raise failure(error) from error
    with Artefact(out, config=config, inputs={"problems": file}, anew=True) as artefact:
        artefact.finish(counts=found)
    for outcome, number in found.items():
        typer.echo(f"{outcome}: {number}")
    typer.echo(f"written to {out}")


def chunk(
    traces: _TRACES,
    out: Annotated[Path, typer.Option(help="JSONL to write: each input row with its thoughts.")],
    overrides: OVERRIDES = None,
    recipe: _RECIPE = None,
) -> None:
    """Split chains of thought into thoughts."""
    import asyncio
    from collections import Counter
    from contextlib import AsyncExitStack

    from rich.progress import Progress

    from longshort_verl.chains.chunk import Chunker
    from longshort_verl.chains.files import read_traces
    from longshort_verl.chains.importance_config import read_importance
    from longshort_verl.chains.score import Result, chunk_rows, write_results
    from longshort_verl.generation.open import open_generator

    async def run() -> list[Result]:
        async with AsyncExitStack() as stack:
            generator = None
            if config.chunk.chunker is Chunker.LLM:
                generator = await stack.enter_async_context(open_generator(config.model))
            with Progress(console=Console(stderr=True)) as progress:
                bar = progress.add_task("chunking", total=len(rows))
                return await chunk_rows(rows, config, generator, lambda: progress.advance(bar))

    try:
        config, rows = read_importance(recipe, overrides or []), read_traces(traces)
        results = asyncio.run(run())
    except ValueError as error:
        raise failure(error) from error
    write_results(results, out)
    for outcome, number in sorted(Counter(result.outcome for result in results).items()):
        typer.echo(f"{outcome}: {number}")
    agreements = [result.agreement for result in results if result.agreement is not None]
    if agreements:
        score = sum(agreements) / len(agreements)
        typer.echo(f"boundaries against those in the file: F1 {score:.2f} within one step, traces: {len(agreements)}")
    typer.echo(f"written to {out}")


def importance(
    traces: _TRACES,
    out: Annotated[Path, typer.Option(help="Folder to write. An interrupted run resumes from its journal.")],
    overrides: OVERRIDES = None,
    recipe: _RECIPE = None,
) -> None:
    """Score the importance of each thought in chains of thought by Monte-Carlo rollouts."""
    import asyncio
    import dataclasses
    import json

    from longshort_verl.chains.files import read_traces
    from longshort_verl.chains.importance_config import read_importance
    from longshort_verl.chains.score import Result, journal_settings, score_rows, summary, write_results
    from longshort_verl.files.journal import Journal
    from longshort_verl.generation.open import open_generator, token_counter
    from longshort_verl.report.chains import results_table
    from longshort_verl.report.follow import RolloutProgress

    async def run() -> list[Result]:
        async with open_generator(config.model) as generator:
            with RolloutProgress(len(rows)) as progress:
                return await score_rows(
                    rows,
                    config,
                    generator,
                    journal,
                    count_tokens,
                    on_cost=progress.spent,
                    on_done=lambda result: progress.done(),
                )

    try:
        config, rows = read_importance(recipe, overrides or []), read_traces(traces)
        count_tokens = token_counter(config.model)
        with Journal(out / "journal.jsonl", journal_settings(config, traces)) as journal:
            results = asyncio.run(run())
    except ValueError as error:
        raise failure(error) from error
    write_results(results, out / "importance.jsonl")
    found = summary(results)
    (out / "summary.json").write_text(json.dumps({**found, "settings": dataclasses.asdict(config)}, indent=2) + "\n")
    Console().print(results_table(found))
    typer.echo(f"written to {out}")


def cold_start(
    scored: Annotated[Path, typer.Argument(help="Folder of `longshort importance`, or its importance.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    overrides: OVERRIDES = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_cold_start.")] = None,
) -> None:
    """Turn scored chains of thought into SFT transcripts of both roles."""
    import asyncio
    import dataclasses
    import json
    from contextlib import AsyncExitStack

    from rich.progress import Progress

    from longshort_verl.chains.scored_files import read_scored_traces
    from longshort_verl.chat_template import control_tokens
    from longshort_verl.cold_start.config import read_cold_start
    from longshort_verl.cold_start.dialogues import ColdDialogue, Writer, WriterKind, make_dialogues
    from longshort_verl.cold_start.files import write_cold_start
    from longshort_verl.cold_start.table import cold_start_table
    from longshort_verl.files.journal import Journal
    from longshort_verl.generation.base import load_tokenizer
    from longshort_verl.generation.open import open_generator
    from longshort_verl.grading import grade

    async def run() -> list[ColdDialogue]:
        async with AsyncExitStack() as stack:
            writer = None
            if config.writer.kind is WriterKind.MODEL:
                settings = {"model": config.writer_model.path, "writer": dataclasses.asdict(config.writer)}
                journal = stack.enter_context(Journal(out / "writer.jsonl", settings))
                writer = Writer(
                    await stack.enter_async_context(open_generator(config.writer_model)), journal, config.writer
                )
            progress = stack.enter_context(Progress(console=Console(stderr=True)))
            bar = progress.add_task("cold start", total=len(rows))
            return await make_dialogues(
                rows,
                config.select,
                writer=writer,
                rethink_text=config.rethink_text,
                dialogue=config.dialogue,
                grade=lambda text, gold: grade(text, gold, config.grading),
                count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False)),
                forbidden=control_tokens([tokenizer]),
                max_traces=config.max_traces,
                on_done=lambda dialogue: progress.advance(bar),
            )

    try:
        config, rows = read_cold_start(recipe, overrides or []), read_scored_traces(scored)
        tokenizer = load_tokenizer(config.tokenizer or "")
        dialogues = asyncio.run(run())
        found = write_cold_start(
            dialogues,
            out,
            config.dialogue,
            val_share=config.val_share,
            seed=config.seed,
            inputs={"scored": scored / "importance.jsonl" if scored.is_dir() else scored},
            config=json.loads(json.dumps(dataclasses.asdict(config))),
        )
    except ValueError as error:
        raise failure(error) from error
    Console().print(cold_start_table(found))
    typer.echo(f"written to {out}")


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Parquet in verl's messages schema.")],
    role: Annotated[str, typer.Option(help="Role of the transcripts: long or short.")],
    number: Annotated[int, typer.Option(help="Transcripts to print.")] = 3,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer that counts lengths in tokens. Default: lengths in characters.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG of the histograms to write, with an HTML page beside it.")
    ] = None,
) -> None:
    """Show transcripts of a role in colour, and histograms of their lengths."""
    from longshort_verl.cold_start.transcripts import read_role_rows
    from longshort_verl.generation.base import load_tokenizer
    from longshort_verl.report.transcripts import lengths, lengths_table, plot_lengths, transcript_text, write_page
    from longshort_verl.types import Role

    try:
        rows = read_role_rows(files, Role(role))
        counter = load_tokenizer(tokenizer) if tokenizer else None
    except ValueError as error:
        raise failure(error) from error
    count = (lambda text: len(counter.encode(text, add_special_tokens=False))) if counter else len
    console = Console()
    for row in rows[:number]:
        console.print(transcript_text(row, Role(role)))
    found = lengths(rows, count)
    unit = "tokens" if counter else "characters"
    console.print(lengths_table(found, unit))
    if out is not None:
        plot_lengths(found, unit, out)
        write_page(rows[:number], Role(role), out)
        typer.echo(f"{out}, {out.with_suffix('.html')}")
