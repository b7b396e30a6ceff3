# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Which systems an evaluation has, with their engines and journals: the config's side of :mod:`.run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from longshort_verl.chat_template import control_tokens
from longshort_verl.evaluation.config import EvaluateConfig, journal_settings
from longshort_verl.evaluation.run import Attempt, EvaluationSampling, run_pair, run_solo
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import load_tokenizer
from longshort_verl.generation.open import open_generator, open_pair
from longshort_verl.grading import grade
from longshort_verl.problems.read import check_answers
from longshort_verl.problems.sets import ProblemSet
from longshort_verl.types import Grade


def read_attempts(sets: Sequence[ProblemSet], sampling: EvaluationSampling) -> list[Attempt]:
    """Everything that is asked, set by set, sample by sample.

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
    """Records of each system; no engine starts for what the journals in ``out`` hold whole.

    Args:
        config: the systems are those whose models it names.
        attempts: of all sets.
        out: folder of the journals.
        bar: makes a progress bar of a name, and what advances it.
    """
    first = [(a.problem_set, a.problem.prompt, a.problem.answer) for a in attempts if a.sample == 0]
    with ExitStack() as stack:

        def journal_of(system: str) -> Journal:
            # Not .jsonl, which is for what is whole.
            path = out / f"{system}.journal"
            return stack.enter_context(Journal(path, journal_settings(config, system, first)))

        def graded(text: str, gold: str) -> Grade:
            return grade(text, gold, config.grading)

        found: dict[str, list[dict[str, Any]]] = {}
        if config.solo.path:
            exits: dict[str, int | None] = {"solo": None, **{f"exit_{n}": n for n in config.early_exit.max_tokens}}
            journals = {system: journal_of(system) for system in exits}
            kept = {system: _kept(attempts, journal) for system, journal in journals.items()}
            if any(records is None for records in kept.values()):
                async with open_generator(config.solo) as generator:
                    for system, exit_after in exits.items():
                        kept[system] = await run_solo(
                            attempts,
                            generator,
                            config.sampling,
                            graded,
                            journal=journals[system],
                            max_requests=config.max_requests,
                            on_done=bar(system),
                            exit_after=exit_after,
                            early_exit=config.early_exit,
                        )
            found |= {system: records for system, records in kept.items() if records is not None}
        if config.long.path and config.short.path:
            journal = journal_of("pair")
            records = _kept(attempts, journal)
            if records is None:
                models = (config.long, config.short)
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
                        on_done=bar("pair"),
                    )
            found["pair"] = records
        return found


def _kept(attempts: Sequence[Attempt], journal: Journal) -> list[dict[str, Any]] | None:
    records = [journal.get(attempt.key) for attempt in attempts]
    whole = [record for record in records if record is not None]
    return whole if len(whole) == len(records) else None
