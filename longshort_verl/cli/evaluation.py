# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort evaluate | score``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.common import failure


def evaluate(
    problems: Annotated[
        list[str],
        typer.Argument(
            help="Sets by name (math500, aime_2024, aime_2025, amc_2023, gpqa_diamond, gsm8k), NAME=COPY for a local "
            "copy, or files of problems: JSON, JSONL or Parquet, plain or in verl's schema. Settings as key=value "
            "are allowed among them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write. An interrupted evaluation resumes.")],
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_evaluate.")] = None,
    command: Annotated[
        str | None, typer.Option(help="What made the models, for reports; this command where not given.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="That it took until now, for reports.")] = 0.0,
) -> None:
    """Evaluate the pair, a single model, or both on problem sets: accuracy and tokens."""
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
        raise failure(error) from error
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
    """Split a mixed list into problem sets and settings as key=value; ``math500=copy.json`` is a set."""
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

    from longshort_verl.files.atomic import write_atomically

    for system, records in found.items():
        text = "".join(json.dumps({"system": system, **record}, ensure_ascii=False) + "\n" for record in records)
        write_atomically(out / f"{system}.jsonl", lambda path, text=text: path.write_text(text, encoding="utf-8"))
    (out / "results.json").write_text(json.dumps({"systems": results, "settings": settings}, indent=2) + "\n")


def score(
    folder: Annotated[Path, typer.Argument(help="Folder of `longshort evaluate`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the new grades to. Default: only print what changed.")
    ] = None,
) -> None:
    """Grade stored replies again without a model, and show what changed."""
    import json
    from collections import Counter

    from rich.progress import track

    from longshort_verl.evaluation.records import grade_again, read_records
    from longshort_verl.grading import GradingSettings, grade
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
        raise failure(error) from error
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
