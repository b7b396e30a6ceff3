# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort traces``: a model writes chains of thought on problems; those with the right answer are kept."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from longshort_verl.chains.config import NOT_IN_RESULTS, TraceSampling, TracesConfig
from longshort_verl.chains.files import ChainFileError, write_chains
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import Artefact
from longshort_verl.generation.base import Generator
from longshort_verl.generation.model_files import require_model
from longshort_verl.generation.open import open_generator
from longshort_verl.grading import grade
from longshort_verl.problems.read import check_answers, read_problems
from longshort_verl.types import (
    Chain,
    ChainOutcome,
    Cost,
    FinishReason,
    Grade,
    Message,
    OpenProgress,
    Problem,
    Sampling,
)


async def sample_chains(
    problems: Sequence[Problem],
    generator: Generator,
    sampling: TraceSampling,
    journal: Journal,
    grade: Callable[[str, str], Grade],
    *,
    max_requests: int,
    on_done: Callable[[], None],
) -> list[Chain]:
    """Sample all chains that the journal lacks; returns all chains in the order of the problems.

    ``grade`` takes a text and the gold answer and is called in a thread; ``on_done`` is called after each chain.
    """
    slots = asyncio.Semaphore(max_requests)

    async def sample(problem: Problem, number: int) -> Chain:
        key = f"{problem.index}/{number}"
        row = journal.get(key)
        if row is None:
            seed = random.Random(f"{sampling.seed}/{key}").randrange(2**31)
            request = Sampling(
                max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p, seed=seed
            )
            async with slots:
                prompt = sampling.prompt.replace("{problem}", problem.prompt)
                reply = await generator.generate([Message(role="user", content=prompt)], request)
            if reply.finish is FinishReason.ERROR:
                on_done()
                return Chain(key=key, problem=problem, outcome=ChainOutcome.ENGINE_ERROR, detail=reply.error)
            outcome = ChainOutcome.TRUNCATED
            if reply.finish is FinishReason.STOP:
                right = (await asyncio.to_thread(grade, reply.text, problem.answer)).correct
                outcome = ChainOutcome.RIGHT if right else ChainOutcome.WRONG
            row = {"outcome": outcome.value, "text": reply.text, "num_tokens": reply.num_tokens}
            journal.add(key, row)
        on_done()
        outcome, cost = ChainOutcome(row["outcome"]), Cost(num_tokens=row["num_tokens"])
        return Chain(key=key, problem=problem, outcome=outcome, text=row["text"], cost=cost)

    jobs = [sample(problem, number) for problem in problems for number in range(sampling.num_samples)]
    return list(await asyncio.gather(*jobs))


def write_right_chains(chains: Sequence[Chain], out: Path) -> dict[str, int]:
    """Write the chains with the right answer; returns the number of chains by outcome.

    Raises:
        ChainFileError: no chain is right.
    """
    counts = dict(sorted(Counter(chain.outcome.value for chain in chains).items()))
    right = [chain for chain in chains if chain.outcome is ChainOutcome.RIGHT]
    if not right:
        raise ChainFileError(f"no chain is right ({counts}): there is nothing to learn from")
    write_chains(out, right)
    return counts


def run_traces(config: TracesConfig, file: Path, out: Path, progress: OpenProgress) -> dict[str, int] | None:
    """``longshort traces``: sample chains on the problems of ``file``; resumes from the journal beside ``out``.

    Writes the right chains to the JSONL ``out``. Returns the number of chains by outcome; None if ``out`` is finished.

    Raises:
        ValueError: the problems are unusable, ``out`` was begun with other settings, or no chain is right.
    """
    free = ("max_requests", "sampling.num_samples", *NOT_IN_RESULTS)
    with Artefact(out, config=config, inputs={"problems": file}, may_change=free) as artefact:
        if artefact.finished:
            return None
        problems = read_problems(file)
        check_answers(problems, path=file)
        require_model(config.model)
        journal_settings = {
            "model": config.model.path,
            "sampling": {**dataclasses.asdict(config.sampling), "num_samples": None},
            "problems": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        with Journal(out.with_name(f"{out.name}.journal"), journal_settings) as journal:

            async def sample() -> list[Chain]:
                async with open_generator(config.model) as generator:
                    with progress("sampling", len(problems) * config.sampling.num_samples) as on_done:
                        return await sample_chains(
                            problems,
                            generator,
                            config.sampling,
                            journal,
                            lambda text, gold: grade(text, gold, config.grading),
                            max_requests=config.max_requests,
                            on_done=on_done,
                        )

            chains = asyncio.run(sample())
        counts = write_right_chains(chains, out)
        if ChainOutcome.ENGINE_ERROR.value not in counts:
            tokens = sum(chain.cost.num_tokens for chain in chains if chain.cost)
            artefact.finish(counts=counts, tokens={"chains": tokens})
    return counts
