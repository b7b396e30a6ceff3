# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The systems of the single model: asked plainly, made to answer early, or prompted to be brief.

Chain of Draft (arXiv 2502.18600) and TALE-EP (arXiv 2412.18547) are baselines of the paper (Tables 2 to 4). Both are
prompts alone. Their content is that of those papers, their wording is ours and a setting.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as settings_class

from longshort_verl.generation.base import Generator
from longshort_verl.types import FinishReason, Generation, Message, Sampling

Ask = Callable[[Generator, str, Sampling], Awaitable[tuple[Generation, Mapping[str, Any]]]]
"""Asks a problem. Returns the reply, with the tokens of all its requests, and further fields of its record."""

BUDGET = "{budget}"
"""Stands for the budget in ``budget_suffix``."""
_ESTIMATE = re.compile(r"\[\[\s*([0-9]{1,9})\s*\]\]")


@settings_class(frozen=True, kw_only=True)
class EarlyExit:
    """Where the single model is forced to answer early; ``longshort_evaluate.yaml`` describes each setting."""

    max_tokens: tuple[Annotated[int, Field(ge=0)], ...]
    forcing_text: str
    answer_tokens: Annotated[int, Field(ge=1)]
    stop: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.max_tokens)) < len(self.max_tokens):
            raise ValueError(f"early_exit: max_tokens is {list(self.max_tokens)}; give different numbers")
        if self.max_tokens and not self.forcing_text:
            raise ValueError("early_exit: forcing_text is empty; give the text that ends the thinking")


class Baseline(str, Enum):
    """A prompting of the single model; the value is the name of its system."""

    CHAIN_OF_DRAFT = "chain_of_draft"
    """Each step of reasoning is a draft of a few words."""
    TALE_EP = "tale_ep"
    """The model estimates the tokens that the problem needs, and is then asked to answer within them."""


class EstimateOutcome(str, Enum):
    """What became of TALE-EP's estimate. Without a budget the problem is asked as for ``solo``."""

    GIVEN = "given"
    TRUNCATED = "truncated"
    """The request's token limit ended the reply."""
    UNREADABLE = "unreadable"
    """The reply holds no number in double brackets."""
    OUT_OF_RANGE = "out_of_range"
    """The number is 0, or above the most tokens of a reply."""
    ENGINE_ERROR = "engine_error"
    """The engine lost the request, and with it the whole reply."""


@settings_class(frozen=True, kw_only=True)
class Baselines:
    """Which baselines run, and their prompts; ``longshort_evaluate.yaml`` describes each setting."""

    run: tuple[Baseline, ...]
    draft_suffix: str
    estimate_suffix: str
    estimate_max_tokens: Annotated[int, Field(ge=1)]
    budget_suffix: str

    def __post_init__(self) -> None:
        if len(set(self.run)) < len(self.run):
            raise ValueError(f"baselines: run is {[one.value for one in self.run]}; give different names")
        if BUDGET not in self.budget_suffix:
            raise ValueError(f"baselines: budget_suffix is {self.budget_suffix!r}; it must hold {BUDGET}")


def solo_systems(suffix: str, early_exit: EarlyExit, baselines: Baselines) -> dict[str, Ask]:
    """How each system of the single model asks, by name: ``solo``, ``exit_<n>``, and the baselines that run.

    ``suffix`` follows the problem in the prompt of ``solo`` and of the early exits.
    """
    asks = {
        Baseline.CHAIN_OF_DRAFT: ask_plainly(baselines.draft_suffix),
        Baseline.TALE_EP: _ask_within_estimate(suffix, baselines),
    }
    return {
        "solo": ask_plainly(suffix),
        **{f"exit_{n}": _ask_early(suffix, n, early_exit) for n in early_exit.max_tokens},
        **{baseline.value: asks[baseline] for baseline in baselines.run},
    }


def ask_plainly(suffix: str) -> Ask:
    """One request: the problem and ``suffix``."""

    async def ask(generator: Generator, problem: str, request: Sampling) -> tuple[Generation, Mapping[str, Any]]:
        return await generator.generate(_question(problem + suffix), request), {}

    return ask


def _ask_early(suffix: str, exit_after: int, settings: EarlyExit) -> Ask:
    """The model must answer after ``exit_after`` tokens of thinking, unless it ended before.

    The forcing text does not count as its tokens.
    """

    async def ask(generator: Generator, problem: str, request: Sampling) -> tuple[Generation, Mapping[str, Any]]:
        question = _question(problem + suffix)
        thoughts = Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=0, num_tokens=0)
        if exit_after:
            thoughts = await generator.generate(question, replace(request, max_tokens=exit_after))
            if thoughts.finish is not FinishReason.LENGTH:
                return thoughts, {}
        forced = thoughts.text + settings.forcing_text
        answer = await generator.generate(
            [*question, Message(role="assistant", content=forced)],
            replace(request, max_tokens=settings.answer_tokens, stop=settings.stop),
        )
        return replace(answer, text=forced + answer.text, num_tokens=thoughts.num_tokens + answer.num_tokens), {}

    return ask


def _ask_within_estimate(suffix: str, settings: Baselines) -> Ask:
    """TALE-EP: two requests, whose tokens are summed. The record holds the estimate, its tokens and its outcome."""

    async def ask(generator: Generator, problem: str, request: Sampling) -> tuple[Generation, Mapping[str, Any]]:
        first = await generator.generate(
            _question(problem + settings.estimate_suffix), replace(request, max_tokens=settings.estimate_max_tokens)
        )
        outcome, budget = read_estimate(first, request.max_tokens)
        estimate = {"outcome": outcome.value, "budget": budget, "text": first.text, "num_tokens": first.num_tokens}
        if outcome is EstimateOutcome.ENGINE_ERROR:
            return first, {"estimate": estimate}
        asked = suffix if budget is None else settings.budget_suffix.replace(BUDGET, str(budget))
        reply = await generator.generate(_question(problem + asked), request)
        summed = replace(
            reply,
            num_tokens=first.num_tokens + reply.num_tokens,
            num_prompt_tokens=first.num_prompt_tokens + reply.num_prompt_tokens,
        )
        return summed, {"estimate": estimate}

    return ask


def read_estimate(reply: Generation, most: int) -> tuple[EstimateOutcome, int | None]:
    """The budget in a reply to the estimation, from 1 to ``most``: the last number in double brackets."""
    if reply.finish is FinishReason.ERROR:
        return EstimateOutcome.ENGINE_ERROR, None
    if reply.finish is FinishReason.LENGTH:
        return EstimateOutcome.TRUNCATED, None
    found = _ESTIMATE.findall(reply.text)
    if not found:
        return EstimateOutcome.UNREADABLE, None
    budget = int(found[-1])
    return (EstimateOutcome.GIVEN, budget) if 1 <= budget <= most else (EstimateOutcome.OUT_OF_RANGE, None)


def _question(text: str) -> list[Message]:
    return [Message(role="user", content=text)]
