# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The pair, or one model by itself, on a file of problems: what it answers, in how many tokens.

Every dialogue is kept as it was written, so that it can be graded again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from longshort_verl.dialogue import DialogueSettings, run_dialogue
from longshort_verl.generation import Generator
from longshort_verl.types import FinishReason, Generation, Grade, Message, Problem, Role, Sampling, StopReason


@dataclass(frozen=True, kw_only=True)
class EvaluationSampling:
    """How replies are sampled. No defaults here: they live in ``longshort_verl/config``."""

    temperature: float
    """0 is greedy."""
    top_p: float
    """Nucleus mass."""
    seed: int
    """Each problem's own seed follows from this one and its row."""
    solo_max_tokens: int
    """Most tokens of a model by itself; one that does not end within them counts as wrong, at all of them."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"sampling: temperature is {self.temperature!r}; give at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling: top_p is {self.top_p!r}; give a number above 0, at most 1")
        if self.solo_max_tokens < 1:
            raise ValueError(f"sampling: solo_max_tokens is {self.solo_max_tokens!r}; give at least 1")

    def seed_of(self, problem: Problem) -> int:
        """Of all requests on one problem."""
        return random.Random(f"{self.seed}/{problem.index}").randrange(2**30)


@dataclass(frozen=True, kw_only=True)
class EarlyExit:
    """Where the model by itself is made to answer early. No defaults here: they live in ``longshort_verl/config``."""

    max_tokens: tuple[int, ...]
    """Tokens of thinking, a system for each; 0 is at once."""
    forcing_text: str
    """What follows the thoughts, up to where the answer begins."""
    answer_tokens: int
    """Most tokens of the answer."""
    stop: tuple[str, ...]
    """What ends it, beside the model's own end of turn."""

    def __post_init__(self) -> None:
        if any(number < 0 for number in self.max_tokens) or len(set(self.max_tokens)) < len(self.max_tokens):
            raise ValueError(f"early_exit: max_tokens is {list(self.max_tokens)}; give different numbers of at least 0")
        if self.max_tokens and not self.forcing_text:
            raise ValueError("early_exit: forcing_text is empty; say how thinking is cut off")
        if self.answer_tokens < 1:
            raise ValueError(f"early_exit: answer_tokens is {self.answer_tokens}; give at least 1")


async def run_pair(
    problems: Sequence[Problem],
    generators: Mapping[Role, Generator],
    dialogue: DialogueSettings,
    sampling: EvaluationSampling,
    grade: Callable[[str, str], Grade],
    *,
    forbidden: Sequence[str],
    max_requests: int,
    on_done: Callable[[], None],
) -> list[dict[str, Any]]:
    """A record a problem, in their order: its answer, grade, tokens and turns."""
    slots = asyncio.Semaphore(max_requests)

    async def one(problem: Problem) -> dict[str, Any]:
        async with slots:
            found = await run_dialogue(
                problem,
                generators,
                dialogue,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling.seed_of(problem),
                forbidden=forbidden,
            )
        verdict = await asyncio.to_thread(grade, found.answer_text, problem.answer)
        on_done()
        return {
            "index": problem.index,
            "problem": problem.prompt,
            "gold": problem.answer,
            "correct": verdict.correct,
            "extracted": verdict.extracted,
            "stop_reason": found.stop_reason.value,
            "detail": found.detail,
            "num_tokens": found.num_tokens(),
            **{f"num_tokens_{role.value}": found.num_tokens(role) for role in Role},
            "turns": [
                {
                    "role": turn.role.value,
                    "text": turn.raw,
                    "well_formed": turn.parsed.kind is not None,
                    "num_tokens": turn.num_tokens,
                }
                for turn in found.turns
            ],
        }

    return list(await asyncio.gather(*map(one, problems)))


async def run_solo(
    problems: Sequence[Problem],
    generator: Generator,
    sampling: EvaluationSampling,
    grade: Callable[[str, str], Grade],
    *,
    max_requests: int,
    on_done: Callable[[], None],
    exit_after: int | None = None,
    early_exit: EarlyExit | None = None,
) -> list[dict[str, Any]]:
    """A record a problem, in their order, of one model by itself.

    With ``exit_after`` it is made to answer after so many tokens of thinking, where it has not ended before; what it is
    made to say is none of its tokens.
    """
    slots = asyncio.Semaphore(max_requests)

    async def one(problem: Problem) -> dict[str, Any]:
        request = Sampling(
            max_tokens=sampling.solo_max_tokens if exit_after is None else max(1, exit_after),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed_of(problem),
        )
        async with slots:
            if exit_after is None or early_exit is None:
                reply = await generator.generate([Message(role="user", content=problem.prompt)], request)
            else:
                reply = await _answer_early(generator, problem, request, exit_after, early_exit)
        stop = {
            FinishReason.STOP: StopReason.ANSWERED,
            FinishReason.LENGTH: StopReason.TRUNCATED,
            FinishReason.ERROR: StopReason.ENGINE_ERROR,
        }[reply.finish]
        text = reply.text if stop is StopReason.ANSWERED else ""
        verdict = await asyncio.to_thread(grade, text, problem.answer)
        on_done()
        return {
            "index": problem.index,
            "problem": problem.prompt,
            "gold": problem.answer,
            "correct": verdict.correct,
            "extracted": verdict.extracted,
            "stop_reason": stop.value,
            "detail": reply.error,
            "num_tokens": reply.num_tokens,
            "text": reply.text,
        }

    return list(await asyncio.gather(*map(one, problems)))


async def _answer_early(
    generator: Generator, problem: Problem, request: Sampling, exit_after: int, settings: EarlyExit
) -> Generation:
    question = [Message(role="user", content=problem.prompt)]
    thoughts = Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=0, num_tokens=0)
    if exit_after:
        thoughts = await generator.generate(question, request)
        if thoughts.finish is not FinishReason.LENGTH:
            return thoughts
    said = thoughts.text + settings.forcing_text
    answer = await generator.generate(
        [*question, Message(role="assistant", content=said)],
        replace(request, max_tokens=settings.answer_tokens, stop=settings.stop),
    )
    return replace(answer, text=said + answer.text, num_tokens=thoughts.num_tokens + answer.num_tokens)


def summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over all problems; a problem that an engine failed on counts as wrong, and ``engine_error`` says how many.

    ``accuracy``, ``num_tokens`` (and by role), ``num_rethinks``, and of each role ``well_formed_<role>``, the share of
    its turns that follow the protocol.
    """
    found = {
        "num_problems": float(len(records)),
        "accuracy": fmean(record["correct"] for record in records),
        "num_tokens": fmean(record["num_tokens"] for record in records),
        "truncated": fmean(
            record["stop_reason"] in (StopReason.TRUNCATED.value, StopReason.TOKEN_BUDGET.value) for record in records
        ),
        "engine_error": fmean(record["stop_reason"] == StopReason.ENGINE_ERROR.value for record in records),
    }
    if "turns" not in records[0]:
        return found
    for role in Role:
        found[f"num_tokens_{role.value}"] = fmean(record[f"num_tokens_{role.value}"] for record in records)
        formed = [turn["well_formed"] for record in records for turn in record["turns"] if turn["role"] == role.value]
        if formed:
            found[f"well_formed_{role.value}"] = fmean(formed)
    found["num_rethinks"] = fmean(
        sum(turn["text"].endswith("</rethink>") and turn["well_formed"] for turn in record["turns"])
        for record in records
    )
    return found
