# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Values of the prefixes of a chain of thought, by rollouts of a model, and the importance of each thought from them.

A rollout is what a model writes after a prefix, and is graded. ``free`` is the paper's (arXiv 2505.11827, section 3):
the base model, not the writer of the chain, reads the problem and the thoughts and writes its own response, whose
accuracy and length count; the wording of the request is ours. ``forced`` ends the thinking after the prefix and asks
for the answer, which costs few tokens; ``continued`` lets the writer of the chain continue. Both are ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Annotated, Any, cast

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.chains.plan import Plan, PlanSettings, next_candidates, next_rollouts
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator, LikelihoodGenerator
from longshort_verl.importance import MetricSettings, anytime, hoeffding, importance, interpolate, pool, value_alpha
from longshort_verl.types import Chain, ChainOutcome, Cost, Counts, Decision, FinishReason, Message, Sampling, Value


class Elicitation(str, Enum):
    """What a rollout is."""

    FREE = "free"
    """The model reads problem and prefix and writes a response of its own."""
    FORCED = "forced"
    """The thinking ends after the prefix, and the model must answer."""
    CONTINUED = "continued"
    """The model continues to think."""


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How a prefix is rolled out. The defaults are in ``config/longshort_importance.yaml``."""

    elicitation: Elicitation
    end_of_thinking: str
    """Text at which a chain's thinking ends; the rest is its answer and is not scored. ``""`` for none."""
    forcing_text: str
    """``forced``: the text after the prefix, up to the beginning of the answer."""
    free_prompt: str
    """``free``: the user's message, with ``{problem}`` and perhaps ``{thoughts}``."""
    free_prefix: str
    """``free``: the beginning of the model's reply, perhaps with ``{thoughts}``."""
    free_answer: str
    """``free``: added to a response without ``\\boxed``, which the model then ends; ``""`` for none."""
    max_tokens: Annotated[int, Field(ge=1)]
    """Token limit of one rollout."""
    temperature: Annotated[float, Field(gt=0)]
    """Above 0: at 0 all rollouts of a prefix would be the same."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    stop: tuple[str, ...]
    """Stop strings of a rollout, beside the model's end of turn."""
    seed: int
    """Each rollout has its own seed, derived from this one, its chain, its boundary and its number."""
    restart_rollouts: Annotated[int, Field(ge=0)]
    """Rollouts of the restart control at each visited boundary, 0 for none: the model thinks from scratch for as many
    tokens as the prefix has, and is then rolled out. A value that does not exceed it owes its rise to the number of
    tokens, not to the thoughts."""
    max_answer_tokens: int
    """Pre-screen: longest gold answer whose likelihood is computed; each of its tokens costs one generated token.
    ``free_answer``: token limit of what follows it."""

    def __post_init__(self) -> None:
        if self.elicitation is Elicitation.FORCED and not self.forcing_text:
            raise ValueError(
                "rollouts.forcing_text is empty; set it to the text that ends a thought, or set "
                "rollouts.elicitation=continued"
            )
        if self.elicitation is Elicitation.FREE:
            if "{problem}" not in self.free_prompt:
                raise ValueError(f"rollouts.free_prompt is {self.free_prompt!r}, without {{problem}}; add it")
            if "{thoughts}" not in self.free_prompt + self.free_prefix:
                raise ValueError(
                    "neither rollouts.free_prompt nor rollouts.free_prefix has {thoughts}: all rollouts of a chain "
                    "would be the same; add it to one of them"
                )


class _EngineFailed(Exception):
    """A request failed in the engine."""


async def score_chain(
    chain: Chain,
    generator: Generator,
    is_right: Callable[[str, str], bool],
    journal: Journal,
    *,
    rollouts: RolloutSettings,
    plan: PlanSettings,
    metric: MetricSettings,
    on_cost: Callable[[Cost], None] = lambda cost: None,
) -> Chain:
    """The chain with values, scores and cost, or with the engine error that ended it.

    Args:
        chain: with a problem, at least one thought, and their lengths; its gold answer can be graded.
        generator: the model that is rolled out; with ``plan.prescreen`` it computes likelihoods.
        is_right: of a reply's text and the gold answer; called in a thread.
        journal: holds finished rollouts; new ones are added.
        rollouts, plan, metric: the settings.
        on_cost: called with the cost of each rollout.
    """
    run = _Run(chain, generator, is_right, journal, rollouts, on_cost)
    counts, restarts = run.counts["rollout"], run.counts["restart"]
    places = [0, *itertools.accumulate(chain.lengths)]
    likelihoods, decisions = None, list[Decision]()
    try:
        if plan.plan is Plan.PRUNED:
            missing, decisions = next_candidates(counts, chain.lengths, plan, metric)
            while missing:
                await run.roll_out("rollout", missing)
                missing, decisions = next_candidates(counts, chain.lengths, plan, metric)
        elif plan.plan is Plan.ADAPTIVE and plan.prescreen:
            likelihoods = await run.likelihoods(cast(LikelihoodGenerator, generator))
        while plan.plan is not Plan.PRUNED and (missing := next_rollouts(counts, places, plan, likelihoods)):
            await run.roll_out("rollout", missing)
        visited = [i for i, count in enumerate(counts) if i and count.num_rollouts]
        await run.roll_out("restart", {i: rollouts.restart_rollouts - restarts[i].num_rollouts for i in visited})
    except _EngineFailed as error:
        return replace(chain, outcome=ChainOutcome.ENGINE_ERROR, detail=str(error), cost=run.cost)
    alpha = value_alpha(metric, len(chain.thoughts))
    # Both need the number of rollouts of a visited boundary in advance.
    in_advance = plan.plan is Plan.FIXED or (plan.plan is Plan.PRUNED and not plan.early_stop)
    seen = [_value(c, hoeffding if in_advance else anytime, alpha) if c.num_rollouts else None for c in counts]
    if likelihoods is not None:
        seen = pool(seen, likelihoods)
    values = carry(seen) if plan.plan is Plan.PRUNED else interpolate(seen, chain.lengths, likelihoods)
    return replace(
        chain,
        outcome=ChainOutcome.SCORED,
        detail="",
        values=tuple(values),
        likelihoods=tuple(likelihoods or ()),
        restarts={i: count for i, count in enumerate(restarts) if count.num_rollouts},
        scores=tuple(importance(values, chain.lengths, metric)),
        decisions=tuple(decisions),
        cost=run.cost,
    )


def _value(counts: Counts, interval: Callable[[int, int, float], Value], alpha: float) -> Value:
    value = interval(counts.num_right, counts.num_rollouts, alpha)
    return replace(value, response_tokens=counts.num_tokens / counts.num_rollouts)


def carry(values: Sequence[Value | None]) -> list[Value]:
    """Values with the unknown ones filled in: the estimate of the one before, anywhere in [0, 1]."""
    filled: list[Value] = []
    mean = next((value.mean for value in values if value is not None), 0.0)
    for value in values:
        mean = mean if value is None else value.mean
        filled.append(value or Value(num_right=0, num_rollouts=0, mean=mean, low=0.0, high=1.0))
    return filled


class _Run:
    """The rollouts of one chain: requested, graded, written to the journal, counted."""

    def __init__(
        self,
        chain: Chain,
        generator: Generator,
        is_right: Callable[[str, str], bool],
        journal: Journal,
        settings: RolloutSettings,
        on_cost: Callable[[Cost], None],
    ) -> None:
        assert chain.problem is not None
        self._key_of_chain, self._problem, self._lengths = chain.key, chain.problem, chain.lengths
        self._generator, self._is_right = generator, is_right
        self._journal, self._settings, self._on_cost = journal, settings, on_cost
        self._text = "".join(thought.text for thought in chain.thoughts)
        self._ends = [0, *itertools.accumulate(len(thought.text) for thought in chain.thoughts)]
        self.cost = Cost()
        boundaries = range(len(self._ends))
        self.counts = {kind: [self._recall(kind, i) for i in boundaries] for kind in ("rollout", "restart")}
        """Of each boundary, of rollouts and of the restart control."""

    def _recall(self, kind: str, boundary: int) -> Counts:
        """Counts of the journal, up to the first missing number: an interrupted run may leave gaps."""
        counts = Counts()
        while (row := self._journal.get(self._key(kind, boundary, counts.num_rollouts))) is not None:
            self.cost += Cost(**row["cost"])
            counts = _with(counts, row)
        return counts

    def _key(self, kind: str, boundary: int, number: int = 0) -> str:
        return f"{self._key_of_chain}/{kind}/{boundary}/{number}"

    async def likelihoods(self, generator: LikelihoodGenerator) -> list[float]:
        """Of the gold answer after each prefix, in [0, 1]."""
        order = range(len(self._ends) - 1, -1, -1)
        likelihoods = await _all([self._likelihood(generator, boundary) for boundary in order])
        return likelihoods[::-1]

    async def _likelihood(self, generator: LikelihoodGenerator, boundary: int) -> float:
        key = self._key("likelihood", boundary)
        row = self._journal.get(key)
        if row is None:
            messages = self._messages(self._prefix(boundary) + self._settings.forcing_text)
            answer = await generator.likelihood(messages, self._problem.answer)
            if answer.error:
                raise _EngineFailed(f"likelihood after thought {boundary}: {answer.error}")
            cost = Cost(
                num_tokens=answer.num_tokens,
                num_prompt_tokens=answer.num_prompt_tokens,
                num_cached_tokens=answer.num_cached_tokens,
            )
            row = self._write(key, {"likelihood": math.exp(min(0.0, answer.log_prob))}, cost)
        self.cost += Cost(**row["cost"])
        return row["likelihood"]

    async def roll_out(self, kind: str, missing: Mapping[int, int]) -> None:
        """Make ``missing`` rollouts or restarts by boundary; raises if one of them failed."""
        jobs = [
            self._rollout(kind, boundary, self.counts[kind][boundary].num_rollouts + extra)
            for boundary, number in missing.items()
            for extra in range(number)
        ]
        for boundary, row in await _all(jobs):
            self.counts[kind][boundary] = _with(self.counts[kind][boundary], row)
            self.cost += Cost(**row["cost"])

    async def _rollout(self, kind: str, boundary: int, number: int) -> tuple[int, dict[str, Any]]:
        key = self._key(kind, boundary, number)
        row = self._journal.get(key)
        if row is None:
            sampling = self._sampling(key)
            if kind == "restart":
                where, budget = f"restart of thought {boundary}", sum(self._lengths[:boundary])
                prefix, cost = await self._ask(self._messages(""), replace(sampling, max_tokens=budget), where)
            else:
                where, prefix, cost = f"rollout after thought {boundary}", self._prefix(boundary), Cost()
            text, more = await self._reply(prefix, sampling, where)
            right = await asyncio.to_thread(self._is_right, text, self._problem.answer)
            row = self._write(key, {"right": right}, replace(cost + more, num_rollouts=1))
        return boundary, row

    async def _reply(self, prefix: str, sampling: Sampling, where: str) -> tuple[str, Cost]:
        """The text to grade: the response, the answer, or with ``continued`` the whole chain."""
        if self._settings.elicitation is Elicitation.FREE:
            return await self._respond(self._free_messages(prefix), sampling, where)
        if self._settings.elicitation is Elicitation.FORCED:
            opening = self._settings.forcing_text
            text, cost = await self._ask(self._messages(prefix + opening), sampling, where)
            return opening + text, cost
        text, cost = await self._ask(self._messages(prefix), sampling, where)
        return prefix + text, cost

    async def _respond(self, messages: list[Message], sampling: Sampling, where: str) -> tuple[str, Cost]:
        """A response of the model's own; one without an answer is continued by ``free_answer``."""
        text, cost = await self._ask(messages, sampling, where)
        added = self._settings.free_answer
        if not added or "\\boxed" in text:
            return text, cost
        opening = messages.pop().content if messages[-1].role == "assistant" else ""
        messages = [*messages, Message(role="assistant", content=opening + text + added)]
        sampling = replace(sampling, max_tokens=self._settings.max_answer_tokens)
        answer, more = await self._ask(messages, sampling, where)
        return text + added + answer, cost + more

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

    def _write(self, key: str, result: Mapping[str, Any], cost: Cost) -> dict[str, Any]:
        row = {**result, "cost": {name: value for name, value in vars(cost).items() if value}}
        self._journal.add(key, row)
        self._on_cost(cost)
        return row

    def _prefix(self, boundary: int) -> str:
        # Not cached: all prefixes of a chain of 10,000 steps together take gigabytes.
        return self._text[: self._ends[boundary]]

    def _messages(self, prefix: str) -> list[Message]:
        question = [Message(role="user", content=self._problem.prompt)]
        return [*question, Message(role="assistant", content=prefix)] if prefix else question

    def _free_messages(self, prefix: str) -> list[Message]:
        texts = {"{problem}": self._problem.prompt, "{thoughts}": prefix.strip().removeprefix("<think>").strip()}
        # In one pass, because either text may contain braces of its own.
        prompt, opening = (
            re.sub(r"\{problem\}|\{thoughts\}", lambda name: texts[name[0]], template)
            for template in (self._settings.free_prompt, self._settings.free_prefix)
        )
        messages = [Message(role="user", content=prompt.strip())]
        return [*messages, Message(role="assistant", content=opening)] if opening else messages

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
    """Results of all jobs; if one failed, raises its error after all have ended and are in the journal."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _with(counts: Counts, row: Mapping[str, Any]) -> Counts:
    """The counts with one more rollout, from its row of the journal."""
    return Counts(
        num_right=counts.num_right + row["right"],
        num_rollouts=counts.num_rollouts + 1,
        num_tokens=counts.num_tokens + row["cost"].get("num_tokens", 0),
    )
