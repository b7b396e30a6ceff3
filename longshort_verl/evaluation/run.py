# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the pair, or a system of the single model, on problems and records each reply with its grade and tokens.

Each reply is journaled as it was generated, so that it can be graded again and a killed run resumes. A hard cap on
tokens needs no run of its own: a reply under a cap is the beginning of the reply of the same seed without one, so the
accuracy under a cap is that of the replies that end within it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as settings_class

from longshort_verl.dialogue import DialogueSettings, run_dialogue
from longshort_verl.evaluation.solo import Ask
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator
from longshort_verl.types import Dialogue, FinishReason, Grade, Problem, Role, Sampling, StopReason

Grader = Callable[[str, str], Grade]
"""Grades an answer text against a gold answer."""


@settings_class(frozen=True, kw_only=True)
class EvaluationSampling:
    """How replies are sampled; ``longshort_evaluate.yaml`` describes each setting."""

    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: int
    samples: Annotated[int, Field(ge=1)] | None
    solo_max_tokens: Annotated[int, Field(ge=1)]
    solo_suffix: str

    def __post_init__(self) -> None:
        if self.samples not in (None, 1) and self.temperature == 0:
            raise ValueError(
                f"sampling: temperature is 0 and samples {self.samples}: greedy replies are all the same; set "
                "sampling.samples=1, or a temperature above 0"
            )

    def num_samples(self, of_set: int) -> int:
        """Replies to each problem of a set whose field has ``of_set``; greedy, there is but one."""
        return self.samples or (of_set if self.temperature else 1)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One reply to generate."""

    problem_set: str
    problem: Problem
    sample: int
    """Number of the reply among those to the problem, from 0."""

    @property
    def key(self) -> str:
        """A key that is unique among the attempts of a system."""
        return f"{self.problem_set}/{self.problem.index}/{self.sample}"

    def seed(self, seed: int) -> int:
        """Seed of the first request, from the run's seed; the same for all systems, in any order."""
        sample = f"/{self.sample}" if self.sample else ""
        return random.Random(f"{seed}/{self.problem.index}{sample}").randrange(2**30)


async def run_pair(
    attempts: Sequence[Attempt],
    generators: Mapping[Role, Generator],
    dialogue: DialogueSettings,
    sampling: EvaluationSampling,
    grade: Grader,
    *,
    forbidden: Sequence[str],
    journal: Journal,
    max_requests: int,
    on_done: Callable[[], None],
) -> list[dict[str, Any]]:
    """One record per attempt, in their order: answer, grade, tokens and turns.

    Attempts in the journal are skipped. Replies lost to an engine are not journaled.
    """

    async def ask(attempt: Attempt) -> dict[str, Any]:
        result = await run_dialogue(
            attempt.problem,
            generators,
            dialogue,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=attempt.seed(sampling.seed),
            forbidden=forbidden,
        )
        graded = await _graded(attempt, result.answer_text, result.stop_reason, result.detail, grade)
        return graded | dialogue_record(result)

    return await _all(attempts, ask, journal=journal, max_requests=max_requests, on_done=on_done)


def dialogue_record(dialogue: Dialogue) -> dict[str, Any]:
    """Tokens (generated, by role, and of prompts) and turns, as JSON values.

    ``num_tokens_reprefilled`` counts the prompt tokens that the role's engine read or generated in an earlier turn: the
    tokens that a prefix cache saves.
    """
    seen: dict[Role, int] = dict.fromkeys(Role, 0)
    reprefilled = 0
    for turn in dialogue.turns:
        reprefilled += min(turn.num_prompt_tokens, seen[turn.role])
        seen[turn.role] = turn.num_prompt_tokens + turn.num_tokens
    return {
        "num_tokens": dialogue.num_tokens(),
        **{f"num_tokens_{role.value}": dialogue.num_tokens(role) for role in Role},
        "num_tokens_prompts": sum(turn.num_prompt_tokens for turn in dialogue.turns),
        "num_tokens_reprefilled": reprefilled,
        "turns": [
            {
                "role": turn.role.value,
                "text": turn.raw,
                "well_formed": turn.parsed.kind is not None,
                "num_tokens": turn.num_tokens,
                "num_prompt_tokens": turn.num_prompt_tokens,
            }
            for turn in dialogue.turns
        ],
    }


async def run_solo(
    attempts: Sequence[Attempt],
    generator: Generator,
    ask: Ask,
    sampling: EvaluationSampling,
    grade: Grader,
    *,
    journal: Journal,
    max_requests: int,
    on_done: Callable[[], None],
) -> list[dict[str, Any]]:
    """One record per attempt of a single model in their order; the journal as in :func:`run_pair`."""

    async def record(attempt: Attempt) -> dict[str, Any]:
        request = Sampling(
            max_tokens=sampling.solo_max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=attempt.seed(sampling.seed),
        )
        reply, fields = await ask(generator, attempt.problem.prompt, request)
        stop = {
            FinishReason.STOP: StopReason.ANSWERED,
            FinishReason.LENGTH: StopReason.TRUNCATED,
            FinishReason.ERROR: StopReason.ENGINE_ERROR,
        }[reply.finish]
        text = reply.text if stop is StopReason.ANSWERED else ""
        graded = await _graded(attempt, text, stop, reply.error, grade)
        counts = {"num_tokens": reply.num_tokens, "num_tokens_prompts": reply.num_prompt_tokens}
        return graded | counts | {"text": reply.text, **fields}

    return await _all(attempts, record, journal=journal, max_requests=max_requests, on_done=on_done)


async def _all(
    attempts: Sequence[Attempt],
    ask: Callable[[Attempt], Awaitable[dict[str, Any]]],
    *,
    journal: Journal,
    max_requests: int,
    on_done: Callable[[], None],
) -> list[dict[str, Any]]:
    slots = asyncio.Semaphore(max_requests)

    async def from_journal(attempt: Attempt) -> dict[str, Any]:
        record = journal.get(attempt.key)
        if record is None:
            async with slots:
                record = await ask(attempt)
            if record["stop_reason"] != StopReason.ENGINE_ERROR.value:
                journal.add(attempt.key, record)
        on_done()
        return record

    return list(await asyncio.gather(*map(from_journal, attempts)))


async def _graded(attempt: Attempt, text: str, stop: StopReason, detail: str, grade: Grader) -> dict[str, Any]:
    verdict = await asyncio.to_thread(grade, text, attempt.problem.answer)
    return {
        "set": attempt.problem_set,
        "index": attempt.problem.index,
        "sample": attempt.sample,
        "problem": attempt.problem.prompt,
        "gold": attempt.problem.answer,
        **grade_record(verdict, stop),
        "stop_reason": stop.value,
        "detail": detail,
    }


def grade_record(verdict: Grade, stop: StopReason) -> dict[str, Any]:
    """A grade as JSON values; ``fault`` is the grader's reason for a reply that ended by itself."""
    return {
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "fault": verdict.reason if stop is StopReason.ANSWERED else "",
    }
