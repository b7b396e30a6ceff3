# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort evaluate | score``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.common import failure, user_errors

_PROBLEMS = Annotated[
    list[str],
    typer.Argument(
        help="Sets by name (math500, aime_2024, aime_2025, amc_2023, gpqa_diamond, gsm8k), NAME=COPY for a local copy, "
        "or files of problems: JSON, JSONL, CSV or Parquet, plain or in verl's schema. Settings as key=value are "
        "allowed among them."
    ),
]
_LIMIT = Annotated[
    int | None, typer.Option(help="The first N problems of each set alone; results name the part of the set.")
]
_SYSTEMS = Annotated[
    list[str] | None,
    typer.Option(help="A system to run: solo, exit_<n>, chain_of_draft, tale_ep, pair. Can be repeated."),
]


def evaluate(
    problems: _PROBLEMS,
    out: Annotated[Path, typer.Option(help="Folder to write. An interrupted evaluation resumes.")],
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_evaluate.")] = None,
    limit: _LIMIT = None,
    system: _SYSTEMS = None,
) -> None:
    """Evaluate the pair, a single model, or both on problem sets: accuracy and tokens."""
    from longshort_verl.evaluation import systems
    from longshort_verl.evaluation.config import read_evaluate
    from longshort_verl.report.evaluation import evaluation_table
    from longshort_verl.report.progress import open_progress

    with user_errors(out):
        sets, overrides = _sets_and_settings(problems)
        overrides += [f"limit={limit}"] if limit is not None else []
        overrides += [f"systems=[{','.join(system)}]"] if system else []
        config, left_out = read_evaluate(recipe, overrides).within_reach()
        if left_out:
            typer.echo(f"budgets left out: {left_out}; sampling.solo_max_tokens is {config.sampling.solo_max_tokens}")
        with open_progress() as progress:
            results = systems.evaluate(sets, config, out, progress.bar)
    if results is None:
        return
    Console().print(evaluation_table(results))
    if any(of_system["engine_error"] for of_system in results.values()):
        typer.echo("replies lost to an engine count as wrong; the same command asks for them again")
    typer.echo(f"written to {out}")


def _sets_and_settings(given: list[str]) -> tuple[list[str], list[str]]:
    """Split a mixed list into problem sets and settings as key=value; ``math500=copy.json`` is a set."""
    from longshort_verl.problems.sets import PUBLISHED

    settings = [
        one for one in given if "=" in one and one.partition("=")[0] not in PUBLISHED and not Path(one).exists()
    ]
    sets = [one for one in given if one not in settings]
    if not sets:
        raise ValueError(f"there is no problem set among {given}; give a file, or one of {', '.join(PUBLISHED)}")
    return sets, settings


def score(
    folder: Annotated[Path, typer.Argument(help="Folder of `longshort evaluate`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the new grades to. Default: only print what changed.")
    ] = None,
) -> None:
    """Grade stored replies again without a model, and show what changed."""
    from longshort_verl.evaluation import systems
    from longshort_verl.report.evaluation import evaluation_table
    from longshort_verl.report.progress import open_progress

    try:
        with open_progress() as progress:
            results, changed = systems.score(
                folder, out, lambda records, system: progress.track(records, description=system)
            )
    except (ValueError, KeyError, TypeError) as error:
        raise failure(error) from error
    Console().print(evaluation_table(results))
    typer.echo(f"now right and was wrong: {changed[False, True]}; now wrong and was right: {changed[True, False]}")
    if out is not None:
        typer.echo(f"written to {out}")
