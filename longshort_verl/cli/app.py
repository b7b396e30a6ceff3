# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The command ``longshort``: one subcommand a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.ops import doctor, plan

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Long⊗Short for verl.")
report_app = typer.Typer(no_args_is_help=True, help="Tables and pictures of what was run.")
app.add_typer(report_app, name="report")
data_app = typer.Typer(no_args_is_help=True, help="Look at data.")
app.add_typer(data_app, name="data")


@app.command()
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
        int | None, typer.Option(help="Problems held out for validation; a quarter, 64 at most, where not set.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    suffix: Annotated[
        str | None, typer.Option(help="Added to each problem: what a model that learns by itself is told.")
    ] = None,
) -> None:
    """Check problems, row by row, and split them into verl's own format."""
    import dataclasses

    from longshort_verl.problems.read import split_problems, write_problems
    from longshort_verl.problems.sets import read_training_problems

    try:
        found = read_training_problems(given)
        rows = [dataclasses.replace(problem, prompt=problem.prompt + (suffix or "")) for problem in found.problems]
        held_out = min(64, max(1, len(rows) // 4)) if num_val is None else num_val
        train, val = split_problems(rows, num_validation=held_out, seed=seed)
    except ValueError as error:
        raise _failure(error) from error
    settings = {"given": given, "num_val": held_out, "seed": seed, "suffix": suffix}
    inputs = {"file": Path(given)} if Path(given).is_file() else {}
    for line in found.left_out:
        typer.echo(f"left out: {line}")
    for split, part in (("train", train), ("val", val)):
        path = write_problems(part, out / f"{split}.parquet", split=split, inputs=inputs, settings=settings)
        typer.echo(f"{len(part)} problems in {path}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder global_step_<n> of a run.")],
    out: Annotated[Path, typer.Option(help="Folder for long and short, or for shared.")],
) -> None:
    """Write a checkpoint's models as Hugging Face folders, which transformers and `vllm serve` load."""
    from longshort_verl.adapters.export import ExportError, export_pair

    try:
        folders = export_pair(checkpoint, out)
    except ExportError as error:
        raise _failure(error) from error
    for folder in folders:
        typer.echo(f"{folder.name}: {folder}")


@app.command()
def traces(
    file: Annotated[Path, typer.Argument(help="Problems: JSON, JSONL or Parquet, plain or in verl's schema.")],
    out: Annotated[Path, typer.Option(help="JSONL to write; a run that broke off goes on from the journal beside it.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value, such as model.path=….")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_traces.")] = None,
) -> None:
    """Let a model think about problems, and keep its chains of thought that end right."""
    import asyncio
    import dataclasses
    import hashlib
    import json

    from rich.progress import Progress

    from longshort_verl.chains.sample import Reply, sample_traces, write_traces
    from longshort_verl.chains.traces_config import read_traces_config
    from longshort_verl.files.journal import Journal
    from longshort_verl.generation.open import open_generator
    from longshort_verl.grading.answers import check_gold, grade
    from longshort_verl.problems.read import check_answers, read_problems, write_manifest

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
        check_answers(rows, check_gold, path=file)
        settings = {
            "model": config.model.path,
            "sampling": {**dataclasses.asdict(config.sampling), "num_samples": None},
            "problems": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        with Journal(out.with_name(f"{out.name}.journal"), settings) as journal:
            replies = asyncio.run(run())
        found = write_traces(replies, out)
    except ValueError as error:
        raise _failure(error) from error
    write_manifest(
        out, inputs={"problems": file}, counts=found, settings=json.loads(json.dumps(dataclasses.asdict(config)))
    )
    for outcome, number in found.items():
        typer.echo(f"{outcome}: {number}")
    typer.echo(f"written to {out}")


_TRACES = Annotated[Path, typer.Argument(help="JSONL or JSON with problem, answer and trace.")]
_RECIPE = Annotated[Path | None, typer.Option(help="YAML that inherits longshort_importance.")]
_OVERRIDES = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, such as model.path=….")]


@app.command()
def chunk(
    traces: _TRACES,
    out: Annotated[Path, typer.Option(help="JSONL to write: each row with its thoughts.")],
    overrides: _OVERRIDES = None,
    recipe: _RECIPE = None,
) -> None:
    """Cut chains of thought into thoughts."""
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
        raise _failure(error) from error
    write_results(results, out)
    for outcome, number in sorted(Counter(result.outcome for result in results).items()):
        typer.echo(f"{outcome}: {number}")
    agreements = [result.agreement for result in results if result.agreement is not None]
    if agreements:
        score = sum(agreements) / len(agreements)
        typer.echo(f"boundaries against those in the file: F1 {score:.2f} within one step, traces: {len(agreements)}")
    typer.echo(f"written to {out}")


@app.command()
def importance(
    traces: _TRACES,
    out: Annotated[Path, typer.Option(help="Folder to write; a run that broke off goes on from what is in it.")],
    overrides: _OVERRIDES = None,
    recipe: _RECIPE = None,
) -> None:
    """Score the thoughts of chains of thought by Monte-Carlo rollouts."""
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
        raise _failure(error) from error
    write_results(results, out / "importance.jsonl")
    found = summary(results)
    (out / "summary.json").write_text(json.dumps({**found, "settings": dataclasses.asdict(config)}, indent=2) + "\n")
    Console().print(results_table(found))
    typer.echo(f"written to {out}")


@app.command("cold-start")
def cold_start(
    scored: Annotated[Path, typer.Argument(help="Folder of `longshort importance`, or its importance.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    overrides: _OVERRIDES = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_cold_start.")] = None,
) -> None:
    """Turn scored chains of thought into dialogues that teach each role its style."""
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
    from longshort_verl.generation.open import load_tokenizer, open_generator
    from longshort_verl.grading.answers import grade

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
        raise _failure(error) from error
    Console().print(cold_start_table(found))
    typer.echo(f"written to {out}")


@app.command()
def evaluate(
    problems: Annotated[
        list[str],
        typer.Argument(
            help="Sets by name (math500, aime_2024, aime_2025, amc_2023, gpqa_diamond, gsm8k), NAME=COPY for a local "
            "copy, or files of problems: JSON, JSONL or Parquet, plain or in verl's schema. Settings may stand among "
            "them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; what is there already is gone on with.")],
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_evaluate.")] = None,
    command: Annotated[
        str | None, typer.Option(help="What made the models, for reports; this command where not given.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="That it took until now, for reports.")] = 0.0,
) -> None:
    """Measure the pair, or a model by itself, on problem sets: accuracy and tokens."""
    import asyncio
    import dataclasses
    import json
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from longshort_verl.evaluation.config import read_evaluate
    from longshort_verl.evaluation.systems import read_attempts, run_systems
    from longshort_verl.files.manifest import write_provenance
    from longshort_verl.problems.sets import PUBLISHED, read_problem_set
    from longshort_verl.report.tables import evaluation_results, evaluation_table

    def bar(name: str):
        task = progress.add_task(name, total=len(attempts))
        return lambda: progress.advance(task)

    try:
        sets, overrides = _sets_and_settings(problems)
        config = read_evaluate(recipe, overrides)
        attempts = read_attempts([read_problem_set(name) for name in sets], config.sampling)
        begun = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            found = asyncio.run(run_systems(config, attempts, out, bar))
    except ValueError as error:
        raise _failure(error) from error
    took = seconds + time.monotonic() - begun
    write_provenance(out, command=command, seed=config.sampling.seed, seconds=took)
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    choices = [name for name, of in PUBLISHED.items() if of.choices]
    results = {name: evaluation_results(records, config.budgets, choices) for name, records in found.items()}
    _write_evaluation(out, found, results, settings)
    Console().print(evaluation_table(results))
    lost = sum(record["stop_reason"] == "engine_error" for records in found.values() for record in records)
    if lost:
        typer.echo(f"{lost} replies were lost to an engine and count as wrong; the same command asks for them again")
    typer.echo(f"written to {out}")


def _sets_and_settings(given: list[str]) -> tuple[list[str], list[str]]:
    """Problem sets, and settings in Hydra's form, of a mixed list; ``math500=copy.json`` is a set."""
    from longshort_verl.problems.sets import PUBLISHED

    settings = [
        one for one in given if "=" in one and one.partition("=")[0] not in PUBLISHED and not Path(one).exists()
    ]
    sets = [one for one in given if one not in settings]
    if not sets:
        raise ValueError(f"there is no problem set among {given}; give a file, or one of {', '.join(PUBLISHED)}")
    return sets, settings


def _write_evaluation(out: Path, found: dict, results: dict, settings: dict) -> None:
    import json

    from longshort_verl.problems.read import write_atomically

    for system, records in found.items():
        text = "".join(json.dumps({"system": system, **record}, ensure_ascii=False) + "\n" for record in records)
        write_atomically(out / f"{system}.jsonl", lambda path, text=text: path.write_text(text, encoding="utf-8"))
    (out / "results.json").write_text(json.dumps({"systems": results, "settings": settings}, indent=2) + "\n")


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Folder of `longshort evaluate`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the new grades to; else they are only told.")
    ] = None,
) -> None:
    """Grade kept replies again, without any model, and say what changed."""
    import json
    from collections import Counter

    from rich.progress import track

    from longshort_verl.evaluation.records import grade_again, read_records
    from longshort_verl.grading.answers import GradingSettings, grade
    from longshort_verl.problems.sets import PUBLISHED
    from longshort_verl.report.tables import evaluation_results, evaluation_table

    try:
        paths = sorted(folder.glob("*.jsonl"))
        if not paths or not (folder / "results.json").is_file():
            raise ValueError(f"{folder} holds no evaluation; give a folder of `longshort evaluate`")
        settings = json.loads((folder / "results.json").read_text())["settings"]
        grading = GradingSettings(**settings["grading"])
        kept = {path.stem: read_records(path) for path in paths}
        console = Console(stderr=True)
        found = {
            system: [
                grade_again(record, lambda text, gold: grade(text, gold, grading))
                for record in track(records, description=system, console=console)
            ]
            for system, records in kept.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise _failure(error) from error
    choices = [name for name, of in PUBLISHED.items() if of.choices]
    results = {name: evaluation_results(of, settings["budgets"], choices) for name, of in found.items()}
    Console().print(evaluation_table(results))
    changed = Counter(
        (old["correct"], new["correct"])
        for system in kept
        for old, new in zip(kept[system], found[system], strict=True)
        if old["correct"] is not new["correct"]
    )
    typer.echo(f"now right and was wrong: {changed[False, True]}; now wrong and was right: {changed[True, False]}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write_evaluation(out, found, results, settings)
        if (folder / "run.json").is_file():
            (out / "run.json").write_bytes((folder / "run.json").read_bytes())
        typer.echo(f"written to {out}")


@app.command()
def serve(
    overrides: _OVERRIDES = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_serve.")] = None,
) -> None:
    """Serve the pair as one chat model over HTTP, to any client of OpenAI's chat completions."""
    import asyncio
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "prometheus_client")):
        raise _failure(ValueError("serving needs more packages: pip install 'longshort-verl[serve]'"))

    from longshort_verl.chat_template import control_tokens
    from longshort_verl.generation.open import load_tokenizer, open_pair
    from longshort_verl.serving.app import Pair, bind, build_app, run_app
    from longshort_verl.serving.config import read_serve

    async def run() -> None:
        async with open_pair(*models) as generators:
            pair = Pair(generators=generators, forbidden=forbidden)
            app = build_app(pair, config.dialogue, config.sampling, config.server, api_key=key)
            typer.echo(f"{config.server.name} answers at {address}/v1 (metrics: {address}/metrics)")
            await run_app(app, config.server, listening)

    try:
        config, key = read_serve(recipe, overrides or [])
        models = (config.long, config.short)
        forbidden = control_tokens([load_tokenizer(model.tokenizer or model.path or "") for model in models])
        # Now, so that a port that is taken is known before models load.
        listening = bind(config.server)
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        asyncio.run(run())
    except ValueError as error:
        raise _failure(error) from error


@data_app.command("inspect")
def inspect(
    files: Annotated[list[Path], typer.Argument(help="Parquet in verl's messages schema.")],
    role: Annotated[str, typer.Option(help="Whose transcripts they are: long or short.")],
    number: Annotated[int, typer.Option(help="Transcripts to print.")] = 3,
    tokenizer: Annotated[str | None, typer.Option(help="Counts tokens; characters are counted without.")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG of the histograms, an HTML page beside it.")] = None,
) -> None:
    """Show transcripts of a role in colour, and how long they are."""
    from longshort_verl.cold_start.transcripts import read_role_rows
    from longshort_verl.generation.open import load_tokenizer
    from longshort_verl.report.transcripts import lengths, lengths_table, plot_lengths, transcript_text, write_page
    from longshort_verl.types import Role

    try:
        rows = read_role_rows(files, Role(role))
        counter = load_tokenizer(tokenizer) if tokenizer else None
    except ValueError as error:
        raise _failure(error) from error
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


@report_app.command("importance")
def report_importance(
    folder: Annotated[Path, typer.Argument(help="Folder of `longshort importance`.")],
    trace: Annotated[str | None, typer.Option(help="Key of the trace to show in full; else the first.")] = None,
) -> None:
    """Show scored thoughts: a table, a PNG and an HTML page with one trace annotated."""
    from longshort_verl.report.chains import plot_importance, read_scored, thoughts_table, write_page

    try:
        scored = read_scored(folder / "importance.jsonl")
        shown = scored.find(trace)
    except (ValueError, FileNotFoundError) as error:
        raise _failure(error) from error
    Console().print(thoughts_table(shown))
    plot_importance(scored, shown, folder / "importance.png")
    write_page(scored, shown, folder / "importance.html")
    for name in ("importance.png", "importance.html"):
        typer.echo(f"{folder / name}")


@report_app.command("rl")
def report_rl(
    metrics: Annotated[
        list[str], typer.Argument(help="metrics.jsonl of verl's file logger; several for seeds, LABEL=PATH to compare.")
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
    follow: Annotated[int | None, typer.Option(help="Process id of the run: show its progress until it ends.")] = None,
    log: Annotated[Path | None, typer.Option(help="What the run prints; its end is shown where the run fails.")] = None,
) -> None:
    """Show a training run: first and last validation as a table, all curves as a PNG."""
    from longshort_verl.report.curves import comparison_table, plot_curves, read_run, summary_table
    from longshort_verl.report.follow import follow_run

    named = _labelled(metrics)
    if follow is not None and not follow_run(named[0][1], follow, log):
        raise typer.Exit(1)
    try:
        runs = [(label, read_run(path)) for label, path in named]
        several = len({label for label, _ in runs}) > 1
        Console().print(comparison_table(runs) if several else summary_table([run for _, run in runs]))
    except (ValueError, FileNotFoundError) as error:
        raise _failure(error) from error
    plot_curves(runs, out, title=title)
    typer.echo(f"curves: {out}")


@report_app.command("evaluation")
def report_evaluation(
    folders: Annotated[
        list[str],
        typer.Argument(help="Folders of `longshort evaluate`; LABEL=FOLDER names the pair, several for seeds."),
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
    results: Annotated[Path | None, typer.Option(help="JSON to write: an object a run.")] = None,
    page: Annotated[Path | None, typer.Option(help="Markdown to write: all systems, all runs, the picture.")] = None,
    note: Annotated[Path | None, typer.Option(help="Markdown to put under the page's title.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A system that all are held against as well, in the Markdown and the terminal.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="HTML to write: all of it and the dialogues, in one file for a browser.")
    ] = None,
    dialogues: Annotated[int, typer.Option(help="Most dialogues of a system in the HTML.")] = 200,
) -> None:
    """Compare evaluations on the same problems with the model by itself: a table, and accuracy and tokens as a PNG."""
    import json
    import os
    import tempfile

    from longshort_verl.evaluation.compare import (
        colours,
        compare,
        compare_sets,
        comparison_table,
        plot_comparison,
    )
    from longshort_verl.evaluation.records import read_evaluations
    from longshort_verl.report.evaluation import markdown, run_rows
    from longshort_verl.report.page import plot_turns, turn_counts, write_page

    try:
        evaluated = read_evaluations(_labelled(folders))
        found, rows = compare(evaluated), run_rows(evaluated)
        sets = compare_sets(evaluated)
        other = _compare_against(evaluated, against)
        said = note.read_text(encoding="utf-8") if note else ""
    except (ValueError, FileNotFoundError) as error:
        raise _failure(error) from error
    for name, of_set in sets.items() if len(sets) > 1 else ():
        Console().print(comparison_table(of_set, name))
    Console().print(comparison_table(found, "mean of the sets" if len(sets) > 1 else ""))
    if other:
        Console().print(comparison_table(other, f"against {against}"))
    plot_comparison(found, out, title=title)
    typer.echo(f"accuracy and tokens: {out}")
    if results is not None:
        results.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(f"runs: {results}")
    if page is not None:
        picture = os.path.relpath(out.resolve(), page.resolve().parent)
        page.write_text(
            markdown(found, rows, picture, title=title or "Results", note=said, against=other), encoding="utf-8"
        )
        typer.echo(f"page: {page}")
    if html is not None:
        with tempfile.TemporaryDirectory() as folder:
            pictures = [("accuracy against tokens, and under a budget of tokens", out)]
            if counts := turn_counts(evaluated):
                pictures.append(("share of dialogues by number of turns", Path(folder) / "turns.png"))
                plot_turns(counts, colours(found), pictures[-1][1])
            write_page(
                evaluated, found, sets, rows, pictures, html, title=title or "Results", num_dialogues=max(1, dialogues)
            )
        typer.echo(f"page for a browser: {html}")


app.command()(plan)
app.command()(doctor)


def _compare_against(evaluated: list, against: str | None) -> list:
    """Against a system other than the model by itself, on the seeds that both have."""
    from longshort_verl.evaluation.compare import compare
    from longshort_verl.evaluation.records import REFERENCE

    if against is None:
        return []
    seeds = {one.seed for one in evaluated if one.system == against}
    if not seeds:
        systems = ", ".join(dict.fromkeys(one.system for one in evaluated))
        raise ValueError(f"there is no system {against!r} to hold the others against, but {systems}")
    return compare([one for one in evaluated if one.seed in seeds and one.system != REFERENCE], against)


def _labelled(names: list[str]) -> list[tuple[str, Path]]:
    """LABEL=PATH, or a path alone."""
    # A path may hold "=" itself, as Hydra's folders do.
    parts = [("", "", name) if Path(name).exists() else name.partition("=") for name in names]
    return [(label, Path(path)) if path else ("", Path(label)) for label, _, path in parts]


def _failure(error: Exception) -> typer.Exit:
    Console(stderr=True, soft_wrap=True).print(f"longshort: {error}", markup=False, highlight=False)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
