# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the systems of a config with their engines and journals, and writes the evaluation; regrades a stored one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from longshort_verl.chat_template import control_tokens
from longshort_verl.evaluation.config import MAY_CHANGE, EvaluateConfig
from longshort_verl.evaluation.records import evaluation_results, grade_again, part_name, read_records, write_evaluation
from longshort_verl.evaluation.run import Attempt, EvaluationSampling, run_pair, run_solo
from longshort_verl.evaluation.solo import solo_systems
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import Artefact
from longshort_verl.generation.base import load_tokenizer
from longshort_verl.generation.model_files import require_model
from longshort_verl.generation.open import open_generator, open_pair
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.problems.read import check_answers
from longshort_verl.problems.sets import ProblemSet, read_problem_set
from longshort_verl.types import Grade


def evaluate(
    sets: Sequence[str], config: EvaluateConfig, out: Path, bar: Callable[[str, int], Callable[[], None]]
) -> dict[str, dict[str, Any]] | None:
    """Run an evaluation, or what is missing of it, and write it. Returns results by system; None if it was finished.

    An evaluation that lost replies to an engine is not finished: the next run asks for them again. ``sets`` are names
    or files; ``bar`` starts a progress bar of a name and a total, and returns what advances it.

    Raises:
        ValueError: a set cannot be read, or ``out`` holds an evaluation with other settings or models.
    """
    attempts = read_attempts([first_problems(read_problem_set(name), config.limit) for name in sets], config.sampling)
    models = {name: getattr(config, name).path for name in ("long", "short", "solo")}
    inputs = {name: path for name, path in models.items() if path}
    inputs |= {f"set {name}": name.partition("=")[2] or name for name in sets}
    with Artefact(out, config=config, inputs=inputs, may_change=MAY_CHANGE) as artefact:
        if artefact.finished:
            print(artefact.nothing_to_do)
            return None
        records = asyncio.run(run_systems(config, attempts, out, lambda name: bar(name, len(attempts))))
        results = {name: evaluation_results(of_system, config.budgets) for name, of_system in records.items()}
        write_evaluation(out, records, results, artefact.manifest["config"])
        if not any(of_system["engine_error"] for of_system in results.values()):
            tokens = {name: sum(record["num_tokens"] for record in of) for name, of in records.items()}
            artefact.finish(counts={name: len(of) for name, of in records.items()}, tokens=tokens)
    return results


def score(
    folder: Path, out: Path | None, track: Callable[[Sequence[Any], str], Any]
) -> tuple[dict[str, dict[str, Any]], Counter[tuple[bool, bool]]]:
    """Grade stored replies again. Returns the new results, and the number of changed grades by (old, new).

    ``out`` is a folder for the new records (None writes nothing); ``track`` shows the progress over a sequence.

    Raises:
        ValueError: the folder holds no evaluation, or ``out`` holds another one.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths or not (folder / "results.json").is_file():
        raise ValueError(f"{folder} holds no evaluation; give a folder of `longshort evaluate`")
    settings = json.loads((folder / "results.json").read_text())["settings"]
    grading = GradingSettings(**settings["grading"])
    old = {path.stem: read_records(path) for path in paths}
    new = {
        system: [grade_again(record, lambda text, gold: grade(text, gold, grading)) for record in track(of, system)]
        for system, of in old.items()
    }
    results = {system: evaluation_results(of, settings["budgets"]) for system, of in new.items()}
    if out is not None:
        with Artefact(out, config=settings, inputs={"evaluation": folder}) as artefact:
            write_evaluation(out, new, results, settings)
            artefact.finish()
    pairs = [(a["correct"], b["correct"]) for system in old for a, b in zip(old[system], new[system], strict=True)]
    return results, Counter(pair for pair in pairs if pair[0] is not pair[1])


def first_problems(of: ProblemSet, limit: int | None) -> ProblemSet:
    """The first ``limit`` problems of a set, named as a part of it; the set itself if it is no larger, or None."""
    size = len(of.problems_of(0))
    if limit is None or limit >= size:
        return of
    return replace(of, name=part_name(of.name, limit, size), problems_of=lambda sample: of.problems_of(sample)[:limit])


def read_attempts(sets: Sequence[ProblemSet], sampling: EvaluationSampling) -> list[Attempt]:
    """All attempts, set by set and sample by sample.

    Raises:
        ValueError: two sets have the same name, or an answer cannot be graded.
    """
    names = [one.name for one in sets]
    if len(set(names)) < len(names):
        raise ValueError(f"two sets have the same name: {', '.join(names)}; rename a file")
    attempts = []
    for one in sets:
        for sample in range(sampling.num_samples(one.num_samples)):
            problems = one.problems_of(sample)
            check_answers(problems, path=one.name)
            attempts += [Attempt(problem_set=one.name, problem=problem, sample=sample) for problem in problems]
    return attempts


async def run_systems(
    config: EvaluateConfig, attempts: Sequence[Attempt], out: Path, bar: Callable[[str], Callable[[], None]]
) -> dict[str, list[dict[str, Any]]]:
    """Records by system; the journals are in ``out``. No engine starts for a system whose journal is complete."""
    first = [(a.problem_set, a.problem.prompt, a.problem.answer) for a in attempts if a.sample == 0]
    problems = hashlib.sha256(repr(first).encode()).hexdigest()
    with ExitStack() as stack:

        def journal_of(system: str) -> Journal:
            return stack.enter_context(Journal(out / f"{system}.journal", {"problems": problems}))

        def graded(text: str, gold: str) -> Grade:
            return grade(text, gold, config.grading)

        by_system: dict[str, list[dict[str, Any]]] = {}
        if config.solo.path:
            asks = solo_systems(config.sampling.solo_suffix, config.early_exit, config.baselines)
            asks = {system: ask for system, ask in asks.items() if config.runs(system)}
            journals = {system: journal_of(system) for system in asks}
            records_of = {system: _from_journal(attempts, journal) for system, journal in journals.items()}
            if any(records is None for records in records_of.values()):
                require_model(config.solo)
                bars = {system: bar(system) for system in asks}  # before the engine, whose start takes minutes
                async with open_generator(config.solo) as generator:
                    for system, ask in asks.items():
                        records_of[system] = await run_solo(
                            attempts,
                            generator,
                            ask,
                            config.sampling,
                            graded,
                            journal=journals[system],
                            max_requests=config.max_requests,
                            on_done=bars[system],
                        )
            by_system |= {system: records for system, records in records_of.items() if records is not None}
        if config.long.path and config.short.path and config.runs("pair"):
            journal = journal_of("pair")
            records = _from_journal(attempts, journal)
            if records is None:
                models = config.long, config.short
                for model in models:
                    require_model(model)
                on_done = bar("pair")
                tokenizers = [load_tokenizer(model.tokenizer or model.path or "") for model in models]
                async with open_pair(*models) as generators:
                    records = await run_pair(
                        attempts,
                        generators,
                        config.dialogue,
                        config.sampling,
                        graded,
                        forbidden=control_tokens(tokenizers),
                        journal=journal,
                        max_requests=config.max_requests,
                        on_done=on_done,
                    )
            by_system["pair"] = records
        return by_system


def _from_journal(attempts: Sequence[Attempt], journal: Journal) -> list[dict[str, Any]] | None:
    records = [journal.get(attempt.key) for attempt in attempts]
    complete = [record for record in records if record is not None]
    return complete if len(complete) == len(records) else None
