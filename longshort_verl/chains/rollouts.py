# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Values of the prefixes of a chain of thought, by rollouts of a model, and the importance of each thought from them.

A rollout continues a prefix and is graded. What that means is a setting: ``forced`` ends the thinking after the prefix
and asks for the answer, ``continued`` lets the model think on. The paper (arXiv 2505.11827) does not say which it used.
Traces are independent of each other: whatever happens to one has a name in its result, and the others go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, cast

from longshort_verl.chains.chunk import Thought
from longshort_verl.chains.plan import Plan, PlanSettings, next_rollouts
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator, LikelihoodGenerator
from longshort_verl.importance import (
    MetricSettings,
    anytime,
    hoeffding,
    importance,
    interpolate,
    pool,
    value_alpha,
)
from longshort_verl.types import Cost, Counts, FinishReason, Importance, Message, Problem, Sampling, Value


class Elicitation(str, Enum):
    """What a rollout is."""

    FORCED = "forced"
    """The thinking ends after the prefix and the model is made to answer."""
    CONTINUED = "continued"
    """The model goes on thinking as it likes."""


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How a prefix is rolled out. No defaults here: they live in ``longshort_verl/config``."""

    elicitation: Elicitation
    """What a rollout is."""
    end_of_thinking: str
    """Where a chain's thinking ends; what follows in a trace is its answer and is not scored. ``""`` for none."""
    forcing_text: str
    """``forced``: what follows the prefix, up to where the answer begins."""
    max_tokens: int
    """Most tokens of one rollout."""
    temperature: float
    """Above 0, or all rollouts of a prefix are the same."""
    top_p: float
    """Nucleus mass."""
    stop: tuple[str, ...]
    """What ends a rollout, beside the model's own end of turn."""
    seed: int
    """Each rollout's own seed follows from this one, its trace, its boundary and its number."""
    restart_rollouts: int
    """Rollouts of the restart control at each visited boundary: the model thinks from nothing for as many tokens as the
    prefix has, and is rolled out then. A value that does not rise above it owes its rise to the tokens, not to the
    thought. 0 for none."""
    max_answer_tokens: int
    """Pre-screen: longest gold answer whose likelihood is asked for, which costs a token for each of its own."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"importance: max_tokens is {self.max_tokens!r}; give at least 1")
        if not self.temperature > 0:
            raise ValueError(f"importance: temperature is {self.temperature!r}; give a number above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"importance: top_p is {self.top_p!r}; give a number above 0, at most 1")
        if self.restart_rollouts < 0:
            raise ValueError(f"importance: restart_rollouts is {self.restart_rollouts!r}; give at least 0")
        if self.elicitation is Elicitation.FORCED and not self.forcing_text:
            raise ValueError("importance: forcing_text is empty; say how a thought is cut off, or set continued")


class TraceOutcome(str, Enum):
    """How the scoring of a trace ended."""

    SCORED = "scored"
    """Every thought has an importance."""
    NO_THOUGHT = "no thought"
    """Its thinking ends before it begins; where the chunker found none, the outcome is the chunker's."""
    BAD_GOLD = "bad gold answer"
    """The gold answer cannot be parsed, so that no rollout could be right."""
    TOO_LONG = "too long"
    """The trace leaves no room for a rollout in the model's context."""
    ENGINE_ERROR = "engine error"
    """The engine failed; rollouts that were made are kept, and another run goes on from them."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A problem with a chain of thought in parts."""

    key: str
    """Its name, unique in a run."""
    problem: Problem
    """What is asked."""
    thoughts: tuple[Thought, ...]
    """Its thoughts, which concatenate to the chain."""
    lengths: tuple[int, ...]
    """Tokens of each thought."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What came of a trace."""

    trace: Trace
    """What was scored."""
    outcome: TraceOutcome
    """How it ended."""
    detail: str = ""
    """What was the matter, for people."""
    values: tuple[Value, ...] = ()
    """Of the prefixes of 0, 1, …, n thoughts."""
    likelihoods: tuple[float, ...] = ()
    """Of the gold answer after each prefix; empty without pre-screen."""
    restarts: Mapping[int, Counts] = field(default_factory=dict)
    """Restart control by boundary."""
    importances: tuple[Importance, ...] = ()
    """Of the n thoughts."""
    cost: Cost = field(default_factory=Cost)
    """What it cost."""


class _EngineFailed(Exception):
    """The engine answered with an error."""


async def score_trace(
    trace: Trace,
    generator: Generator,
    is_right: Callable[[str, str], bool],
    journal: Journal,
    *,
    rollouts: RolloutSettings,
    plan: PlanSettings,
    metric: MetricSettings,
    on_cost: Callable[[Cost], None] = lambda cost: None,
) -> Scored:
    """The importance of each thought of one trace.

    Args:
        trace: with at least one thought, and a gold answer that can be graded.
        generator: the model that is rolled out; with ``plan.prescreen`` one that tells likelihoods.
        is_right: of a reply's text and the gold answer; called in a thread.
        journal: what was done before is read from it, what is done is written to it.
        rollouts: what a rollout is.
        plan: how many, and where.
        metric: the metric.
        on_cost: told what was spent, rollout by rollout.
    """
    run = _Run(trace, generator, is_right, journal, rollouts, on_cost)
    places = [0, *itertools.accumulate(trace.lengths)]
    likelihoods = None
    try:
        if plan.plan is Plan.ADAPTIVE and plan.prescreen:
            likelihoods = await run.likelihoods(cast(LikelihoodGenerator, generator))
        while needed := next_rollouts(run.counts, places, plan, likelihoods):
            await run.roll_out(needed)
        if rollouts.restart_rollouts:
            await run.restart({i: places[i] for i, count in enumerate(run.counts) if i and count.num_rollouts})
    except _EngineFailed as error:
        return Scored(trace=trace, outcome=TraceOutcome.ENGINE_ERROR, detail=str(error), cost=run.cost)
    alpha = value_alpha(metric, len(trace.thoughts))
    # The number is fixed before, or it follows from what was seen.
    interval = hoeffding if plan.plan is Plan.FIXED else anytime
    seen = [interval(c.num_right, c.num_rollouts, alpha) if c.num_rollouts else None for c in run.counts]
    if likelihoods is not None:
        seen = pool(seen, likelihoods)
    values = interpolate(seen, trace.lengths, likelihoods)
    return Scored(
        trace=trace,
        outcome=TraceOutcome.SCORED,
        values=tuple(values),
        likelihoods=tuple(likelihoods or ()),
        restarts=run.restarts,
        importances=tuple(importance(values, trace.lengths, metric)),
        cost=run.cost,
    )


class _Run:
    """One trace's rollouts: asked for, graded, written down, counted."""

    def __init__(
        self,
        trace: Trace,
        generator: Generator,
        is_right: Callable[[str, str], bool],
        journal: Journal,
        settings: RolloutSettings,
        on_cost: Callable[[Cost], None],
    ) -> None:
        self._trace, self._generator, self._is_right = trace, generator, is_right
        self._journal, self._settings, self._on_cost = journal, settings, on_cost
        self._text = "".join(thought.text for thought in trace.thoughts)
        self._ends = [0, *itertools.accumulate(len(thought.text) for thought in trace.thoughts)]
        self.counts = [Counts() for _ in self._ends]
        self.restarts: dict[int, Counts] = {}
        self.cost = Cost()
        for boundary in range(len(self._ends)):
            self.counts[boundary] = self._recall("rollout", boundary)
            restarts = self._recall("restart", boundary)
            if restarts.num_rollouts:
                self.restarts[boundary] = restarts

    def _recall(self, kind: str, boundary: int) -> Counts:
        """What the journal knows; numbers may be missing, where a run ended while several were under way."""
        counts = Counts()
        while (row := self._journal.get(self._key(kind, boundary, counts.num_rollouts))) is not None:
            self.cost += Cost(**row["cost"])
            counts = _with(counts, row["right"])
        return counts

    def _key(self, kind: str, boundary: int, number: int = 0) -> str:
        return f"{self._trace.key}/{kind}/{boundary}/{number}"

    # ---------------------------------------------------------------- likelihoods

    async def likelihoods(self, generator: LikelihoodGenerator) -> list[float]:
        """Of the gold answer after each prefix, in [0, 1]."""
        order = range(len(self._ends) - 1, -1, -1)
        found = await _all([self._likelihood(generator, boundary) for boundary in order])
        return found[::-1]

    async def _likelihood(self, generator: LikelihoodGenerator, boundary: int) -> float:
        key = self._key("likelihood", boundary)
        row = self._journal.get(key)
        if row is None:
            messages = self._messages(self._prefix(boundary) + self._settings.forcing_text)
            answer = await generator.likelihood(messages, self._trace.problem.answer)
            if answer.error:
                raise _EngineFailed(f"likelihood after thought {boundary}: {answer.error}")
            cost = Cost(
                num_tokens=answer.num_tokens,
                num_prompt_tokens=answer.num_prompt_tokens,
                num_cached_tokens=answer.num_cached_tokens,
            )
            row = {"likelihood": math.exp(min(0.0, answer.log_prob)), "cost": _cost_row(cost)}
            self._journal.add(key, row)
            self._on_cost(cost)
        self.cost += Cost(**row["cost"])
        return row["likelihood"]

    # ---------------------------------------------------------------- rollouts

    async def roll_out(self, needed: Mapping[int, int]) -> None:
        """Make ``needed`` rollouts by boundary; all are counted, or an error says which one failed."""
        jobs = [
            self._one(boundary, self.counts[boundary].num_rollouts + extra)
            for boundary, number in needed.items()
            for extra in range(number)
        ]
        for boundary, right, cost in await _all(jobs):
            self.counts[boundary] = _with(self.counts[boundary], right)
            self.cost += cost

    async def _one(self, boundary: int, number: int) -> tuple[int, bool, Cost]:
        key = self._key("rollout", boundary, number)
        row = self._journal.get(key)
        if row is None:
            sampling = self._sampling(key)
            text, cost = await self._reply(self._prefix(boundary), sampling, f"rollout after thought {boundary}")
            row = await self._write(key, text, replace(cost, num_rollouts=1))
        return boundary, row["right"], Cost(**row["cost"])

    async def restart(self, boundaries: Mapping[int, int]) -> None:
        """The control at ``boundaries``, with the tokens of their prefixes."""
        jobs = [
            self._one_restart(boundary, tokens, number)
            for boundary, tokens in boundaries.items()
            for number in range(self.restarts.get(boundary, Counts()).num_rollouts, self._settings.restart_rollouts)
        ]
        for boundary, right, cost in await _all(jobs):
            self.restarts[boundary] = _with(self.restarts.get(boundary, Counts()), right)
            self.cost += cost

    async def _one_restart(self, boundary: int, tokens: int, number: int) -> tuple[int, bool, Cost]:
        key = self._key("restart", boundary, number)
        row = self._journal.get(key)
        if row is None:
            where = f"restart of thought {boundary}"
            sampling = replace(self._sampling(key), max_tokens=tokens)
            reply = await self._ask(self._messages(""), sampling, where)
            text, cost = reply
            rest, more = await self._reply(text, self._sampling(key), where)
            row = await self._write(key, rest, replace(cost + more, num_rollouts=1))
        return boundary, row["right"], Cost(**row["cost"])

    async def _reply(self, prefix: str, sampling: Sampling, where: str) -> tuple[str, Cost]:
        """What is graded: the answer, or the whole chain where the model thinks on."""
        if self._settings.elicitation is Elicitation.FORCED:
            opening = self._settings.forcing_text
            text, cost = await self._ask(self._messages(prefix + opening), sampling, where)
            return opening + text, cost
        text, cost = await self._ask(self._messages(prefix), sampling, where)
        return prefix + text, cost

    async def _ask(self, messages: Sequence[Message], sampling: Sampling, where: str) -> tuple[str, Cost]:
        reply = await self._generator.generate(messages, sampling)
        if reply.finish is FinishReason.ERROR:
            raise _EngineFailed(f"{where}: {reply.error}")
        return reply.text, Cost(
            num_tokens=reply.num_tokens,
            num_prompt_tokens=reply.num_prompt_tokens,
            num_cached_tokens=reply.num_cached_tokens or 0,
            num_uncounted=int(reply.num_cached_tokens is None),
        )

    async def _write(self, key: str, text: str, cost: Cost) -> dict[str, Any]:
        right = await asyncio.to_thread(self._is_right, text, self._trace.problem.answer)
        row = {"right": right, "cost": _cost_row(cost)}
        self._journal.add(key, row)
        self._on_cost(cost)
        return row

    def _prefix(self, boundary: int) -> str:
        # Not kept: all prefixes of a trace of 10,000 steps together are gigabytes.
        return self._text[: self._ends[boundary]]

    def _messages(self, prefix: str) -> list[Message]:
        question = [Message(role="user", content=self._trace.problem.prompt)]
        return [*question, Message(role="assistant", content=prefix)] if prefix else question

    def _sampling(self, key: str) -> Sampling:
        digest = hashlib.sha256(f"{self._settings.seed}/{key}".encode()).digest()
        return Sampling(
            max_tokens=self._settings.max_tokens,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            stop=self._settings.stop,
            seed=int.from_bytes(digest[:4], "big") >> 1,
        )


async def _all(jobs: Sequence[Any]) -> list[Any]:
    """Results of all; where one failed, its error, once the others have ended and are written down."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _with(counts: Counts, right: bool) -> Counts:
    return Counts(num_right=counts.num_right + right, num_rollouts=counts.num_rollouts + 1)


def _cost_row(cost: Cost) -> dict[str, int]:
    return {name: value for name, value in vars(cost).items() if value}
