# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort problems | traces | chunk | importance | cold-start | inspect``: arguments only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.common import OVERRIDES, user_errors
from longshort_verl.types import Role

_TRACES = Annotated[Path, typer.Argument(help="JSONL or JSON with problem, answer and trace.")]
_RECIPE = Annotated[Path | None, typer.Option(help="YAML that inherits longshort_importance.")]


def problems(
    given: Annotated[
        str,
        typer.Argument(
            help="JSON, JSONL, CSV or Parquet with the columns problem and answer; or a public set by name "
            "(gsm8k_train, math_train; of one to evaluate on, such as math500, val.parquet alone is written), or "
            "NAME=COPY for a local copy of it."
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

    with user_errors():
        lines = make_training_files(given, out, num_val=num_val, seed=seed, suffix=suffix)
    typer.echo("\n".join(lines))


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    from longshort_verl.report.progress import open_progress

    with open_progress() as progress:
        yield progress.bar(label, total)


def traces(
    file: Annotated[Path, typer.Argument(help="Problems: JSON, JSONL, CSV or Parquet, plain or in verl's schema.")],
    out: Annotated[Path, typer.Option(help="JSONL to write. An interrupted run resumes from the journal beside it.")],
    overrides: OVERRIDES = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_traces.")] = None,
) -> None:
    """Sample chains of thought of a model, and keep those with a correct answer."""
    from longshort_verl.chains.config import read_traces_config
    from longshort_verl.chains.sample import run_traces

    with user_errors(out):
        outcomes = run_traces(read_traces_config(recipe, overrides or []), file, out, _progress)
    for outcome, number in (outcomes or {}).items():
        typer.echo(f"{outcome}: {number}")
    _done(out, outcomes)


def chunk(
    traces: _TRACES,
    out: Annotated[Path, typer.Option(help="JSONL to write: each input row with its thoughts.")],
    overrides: OVERRIDES = None,
    recipe: _RECIPE = None,
) -> None:
    """Split chains of thought into thoughts."""
    from collections import Counter

    from longshort_verl.chains.config import read_importance
    from longshort_verl.chains.score import run_chunk

    with user_errors():
        chains = run_chunk(read_importance(recipe, overrides or []), traces, out, _progress)
    for outcome, number in sorted(Counter(chain.outcome.value for chain in chains or []).items()):
        typer.echo(f"{outcome}: {number}")
    scores = [chain.agreement for chain in chains or [] if chain.agreement is not None]
    if scores:
        f1 = sum(scores) / len(scores)
        typer.echo(f"boundaries against those in the file: F1 {f1:.2f} within one step, chains: {len(scores)}")
    _done(out, chains)


def importance(
    traces: _TRACES,
    out: Annotated[Path, typer.Option(help="Folder to write. An interrupted run resumes from its journal.")],
    overrides: OVERRIDES = None,
    recipe: _RECIPE = None,
) -> None:
    """Score the importance of each thought in chains of thought by Monte-Carlo rollouts."""
    from longshort_verl.chains.config import read_importance
    from longshort_verl.chains.score import run_importance
    from longshort_verl.report.chains import results_table
    from longshort_verl.report.follow import rollout_progress

    with user_errors(out):
        summary = run_importance(read_importance(recipe, overrides or []), traces, out, rollout_progress)
    if summary is not None:
        Console().print(results_table(summary))
    _done(out, summary)


def cold_start(
    scored: Annotated[Path, typer.Argument(help="Folder of `longshort importance`, or its importance.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    overrides: OVERRIDES = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_cold_start.")] = None,
) -> None:
    """Turn scored chains of thought into SFT transcripts of both roles."""
    from longshort_verl.cold_start.config import read_cold_start
    from longshort_verl.cold_start.run import run_cold_start
    from longshort_verl.report.chains import cold_start_table

    with user_errors(out):
        counts = run_cold_start(read_cold_start(recipe, overrides or []), scored, out, _progress)
    if counts is not None:
        Console().print(cold_start_table(counts))
    _done(out, counts)


def _done(out: Path, result: object | None) -> None:
    typer.echo(f"{out} is finished: nothing to do" if result is None else f"written to {out}")


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Parquet in verl's messages schema.")],
    role: Annotated[Role, typer.Option(help="Role of the transcripts.")],
    number: Annotated[int, typer.Option(help="Transcripts to print.")] = 3,
    tokenizer: Annotated[str | None, typer.Option(help="Counts lengths in tokens; without it, in characters.")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG of the histograms, with an HTML page beside it.")] = None,
) -> None:
    """Show transcripts of a role in colour, and histograms of their lengths."""
    from longshort_verl.cold_start.transcripts import read_role_rows
    from longshort_verl.generation.base import load_tokenizer
    from longshort_verl.report.transcripts import lengths, lengths_table, plot_lengths, transcript_text, write_page

    with user_errors():
        rows = read_role_rows(files, role)
        counter = load_tokenizer(tokenizer) if tokenizer else None
    count = (lambda text: len(counter.encode(text, add_special_tokens=False))) if counter else len
    console = Console()
    for row in rows[:number]:
        console.print(transcript_text(row, role))
    sizes = lengths(rows, count)
    unit = "tokens" if counter else "characters"
    console.print(lengths_table(sizes, unit))
    if out is not None:
        plot_lengths(sizes, unit, out)
        write_page(rows[:number], role, out)
        typer.echo(f"{out}, {out.with_suffix('.html')}")
