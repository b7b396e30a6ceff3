# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Long chains of thought to begin with: what one model writes of each problem, graded; resumable to the reply.

In:  problems in any form that :func:`longshort_verl.problems.read.read_problems` reads.
Out: JSONL with ``key``, ``problem``, ``answer``, ``trace`` for `longshort importance`, and a count of the rest.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from longshort_verl.files.atomic import write_atomically
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator
from longshort_verl.types import FinishReason, Grade, Message, Problem, Sampling


class ReplyOutcome(str, Enum):
    """What became of one reply."""

    RIGHT = "right"
    """It ended and boxes the right answer."""
    WRONG = "wrong"
    """It ended and does not."""
    TRUNCATED = "truncated"
    """It reached its token limit."""
    ENGINE_ERROR = "engine error"
    """The engine failed; another run asks again."""


@dataclass(frozen=True, kw_only=True)
class TraceSampling:
    """How chains are sampled. No defaults here: they live in ``longshort_verl/config``."""

    num_samples: int
    """Chains of each problem."""
    max_tokens: int
    """Most tokens of one."""
    temperature: float
    """0 is greedy."""
    top_p: float
    """Nucleus mass."""
    seed: int
    """Each chain's own seed follows from this one, its problem and its number."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"sampling: {name} is {getattr(self, name)!r}; give at least 1")
        if self.temperature < 0 or (self.temperature == 0 and self.num_samples > 1):
            raise ValueError(
                f"sampling: temperature is {self.temperature!r} for {self.num_samples} samples; give one above 0, or "
                "one sample"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling: top_p is {self.top_p!r}; give a number above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One chain."""

    key: str
    """``<row of the problem>/<number>``."""
    problem: Problem
    """What was asked."""
    outcome: ReplyOutcome
    """What became of it."""
    text: str
    """What was written."""
    num_tokens: int
    """Its tokens."""


async def sample_traces(
    problems: Sequence[Problem],
    generator: Generator,
    sampling: TraceSampling,
    journal: Journal,
    grade: Callable[[str, str], Grade],
    *,
    max_requests: int,
    on_done: Callable[[Reply], None],
) -> list[Reply]:
    """Ask for all chains that the journal does not have; in the order of the problems.

    Args:
        problems: what is asked, as a user's message.
        generator: who is asked.
        sampling: how.
        journal: replies are in it before they count.
        grade: of a text and the gold answer; called in a thread.
        max_requests: most requests in flight.
        on_done: told of each reply.
    """
    slots = asyncio.Semaphore(max_requests)

    async def one(problem: Problem, number: int) -> Reply:
        key = f"{problem.index}/{number}"
        row = journal.get(key)
        if row is None:
            seed = random.Random(f"{sampling.seed}/{key}").randrange(2**31)
            request = Sampling(
                max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p, seed=seed
            )
            async with slots:
                reply = await generator.generate([Message(role="user", content=problem.prompt)], request)
            if reply.finish is FinishReason.ERROR:
                found = Reply(
                    key=key, problem=problem, outcome=ReplyOutcome.ENGINE_ERROR, text=reply.error, num_tokens=0
                )
                on_done(found)
                return found
            outcome = ReplyOutcome.TRUNCATED
            if reply.finish is FinishReason.STOP:
                right = (await asyncio.to_thread(grade, reply.text, problem.answer)).correct
                outcome = ReplyOutcome.RIGHT if right else ReplyOutcome.WRONG
            row = {"outcome": outcome.value, "text": reply.text, "num_tokens": reply.num_tokens}
            journal.add(key, row)
        found = Reply(
            key=key,
            problem=problem,
            outcome=ReplyOutcome(row["outcome"]),
            text=row["text"],
            num_tokens=row["num_tokens"],
        )
        on_done(found)
        return found

    jobs = [one(problem, number) for problem in problems for number in range(sampling.num_samples)]
    return list(await asyncio.gather(*jobs))


def write_traces(replies: Sequence[Reply], out: Path) -> dict[str, int]:
    """Write the right ones; returns the number of each outcome.

    Raises:
        ValueError: there is no right one.
    """
    found = dict(sorted(Counter(reply.outcome.value for reply in replies).items()))
    right = [reply for reply in replies if reply.outcome is ReplyOutcome.RIGHT]
    if not right:
        raise ValueError(f"no chain is right ({found}): there is nothing to learn from")
    rows = [
        {"key": reply.key, "problem": reply.problem.prompt, "answer": reply.problem.answer, "trace": reply.text}
        for reply in right
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
    return found
