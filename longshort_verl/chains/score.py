# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A file of traces to a file of scored thoughts; see :mod:`longshort_verl.chains.rollouts` for one trace."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longshort_verl.chains.chunk import Chunked, ChunkOutcome, Thought, boundary_f1, chunk
from longshort_verl.chains.files import Row, RowOutcome, thought_rows
from longshort_verl.chains.importance_config import ImportanceConfig
from longshort_verl.chains.rollouts import Scored, Trace, TraceOutcome, score_trace
from longshort_verl.files.atomic import write_atomically
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator
from longshort_verl.grading import check_gold, grade
from longshort_verl.types import Cost

CONTEXT_MARGIN = 64
"""Tokens kept free for the chat template, when a trace is held against the model's context."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the output."""

    row: Row
    """What was read."""
    outcome: str
    """A :class:`RowOutcome`, :class:`ChunkOutcome` or :class:`TraceOutcome`."""
    detail: str = ""
    """What was the matter."""
    scored: Scored | None = None
    """What came of it, where it was scored."""
    agreement: float | None = None
    """Of its boundaries with those that the file had (:func:`boundary_f1`)."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; thoughts carry their importance, values their counts and intervals."""
        found: dict[str, Any] = {"key": self.row.key, "outcome": self.outcome, "detail": self.detail}
        if self.agreement is not None:
            found["agreement"] = self.agreement
        if self.row.problem is not None:
            found |= {"problem": self.row.problem.prompt, "answer": self.row.problem.answer, "trace": self.row.trace}
        if self.scored is None:
            return {**found, "thoughts": thought_rows(self.row.thoughts)} if self.row.thoughts else found
        trace = self.scored.trace
        found["cost"] = vars(self.scored.cost)
        thoughts = [
            {**thought, "num_tokens": length}
            for thought, length in zip(thought_rows(trace.thoughts), trace.lengths, strict=True)
        ]
        if self.scored.outcome is TraceOutcome.SCORED:
            for thought, importance in zip(thoughts, self.scored.importances, strict=True):
                thought["importance"] = vars(importance)
            found["values"] = [vars(value) for value in self.scored.values]
            found["likelihoods"] = list(self.scored.likelihoods)
            found["rest"] = self.row.trace[sum(len(thought.text) for thought in trace.thoughts) :]
            found["restarts"] = {str(i): vars(counts) for i, counts in sorted(self.scored.restarts.items())}
        return {**found, "thoughts": thoughts}


async def chunk_rows(
    rows: Sequence[Row], config: ImportanceConfig, generator: Generator | None, on_done: Callable[[], None]
) -> list[Result]:
    """Thoughts of all rows, in their order; those that the file had are compared with them and dropped."""
    slots = asyncio.Semaphore(config.max_traces)

    async def one(row: Row) -> Result:
        async with slots:
            result, new = await _chunk(replace(row, thoughts=()), config, generator)
        on_done()
        if row.thoughts and new.thoughts:
            result = replace(result, agreement=boundary_f1(_boundaries(new.thoughts), _boundaries(row.thoughts)))
        return result

    return list(await asyncio.gather(*map(one, rows)))


def _boundaries(thoughts: Sequence[Thought]) -> list[int]:
    """Steps after which a thought ends, the last one left out."""
    return list(itertools.accumulate(thought.num_steps for thought in thoughts))[:-1]


async def _chunk(row: Row, config: ImportanceConfig, generator: Generator | None) -> tuple[Result, Row]:
    if row.problem is None:
        return Result(row=row, outcome=row.outcome.value, detail=row.detail), row
    if row.thoughts:
        return Result(row=row, outcome=ChunkOutcome.CHUNKED.value), row
    found: Chunked = await chunk(row.trace, config.chunk, problem=row.problem.prompt, generator=generator)
    row = replace(row, thoughts=found.thoughts)
    return Result(row=row, outcome=found.outcome.value, detail=found.detail), row


async def score_rows(
    rows: Sequence[Row],
    config: ImportanceConfig,
    generator: Generator,
    journal: Journal,
    count_tokens: Callable[[str], int],
    *,
    on_cost: Callable[[Cost], None],
    on_done: Callable[[Result], None],
) -> list[Result]:
    """Importance of the thoughts of all rows, in their order; whatever happens to one row, the others go on."""
    slots = asyncio.Semaphore(config.max_traces)

    async def one(row: Row) -> Result:
        async with slots:
            result = await _score(row, config, generator, journal, count_tokens, on_cost)
        on_done(result)
        return result

    return list(await asyncio.gather(*map(one, rows)))


async def _score(
    row: Row,
    config: ImportanceConfig,
    generator: Generator,
    journal: Journal,
    count_tokens: Callable[[str], int],
    on_cost: Callable[[Cost], None],
) -> Result:
    if row.outcome is not RowOutcome.READ or row.problem is None:
        return Result(row=row, outcome=row.outcome.value, detail=row.detail)
    try:
        check_gold(row.problem.answer)
    except ValueError as error:
        return Result(row=row, outcome=TraceOutcome.BAD_GOLD.value, detail=str(error))
    problem = row.problem
    chunked, row = await _chunk(row, config, generator)
    if not row.thoughts:
        return chunked
    thoughts = thinking(row.thoughts, config.rollouts.end_of_thinking)
    if not thoughts:
        return Result(row=row, outcome=TraceOutcome.NO_THOUGHT.value, detail="the thinking ends before it begins")
    # In a thread: a trace of 10,000 steps takes seconds.
    lengths = await asyncio.to_thread(lambda: [max(1, count_tokens(thought.text)) for thought in thoughts])
    settings, plan = config.rollouts, config.plan
    needed = sum(lengths) + count_tokens(problem.prompt + settings.forcing_text) + settings.max_tokens
    room = config.model.vllm.max_model_len
    if needed + CONTEXT_MARGIN > room:
        detail = f"{needed} tokens with a rollout, but model.vllm.max_model_len is {room}"
        return Result(row=row, outcome=TraceOutcome.TOO_LONG.value, detail=detail)
    detail = ""
    num_answer = count_tokens(problem.answer)
    if plan.prescreen and num_answer > settings.max_answer_tokens:
        plan = replace(plan, prescreen=False)
        detail = f"no pre-screen: its answer has {num_answer} tokens"
    scored = await score_trace(
        Trace(key=row.key, problem=problem, thoughts=thoughts, lengths=tuple(lengths)),
        generator,
        lambda text, gold: grade(text, gold, config.grading).correct,
        journal,
        rollouts=settings,
        plan=plan,
        metric=config.metric,
        on_cost=on_cost,
    )
    return Result(row=row, outcome=scored.outcome.value, detail=scored.detail or detail, scored=scored)


def thinking(thoughts: Sequence[Thought], end: str) -> tuple[Thought, ...]:
    """The thoughts up to the first ``end``, the last one cut there; all of them where there is none."""
    place = "".join(thought.text for thought in thoughts).find(end) if end else -1
    if place < 0:
        return tuple(thoughts)
    kept, left = [], place
    for thought in thoughts:
        text = thought.text[:left]
        left -= len(text)
        if text.strip():
            kept.append(replace(thought, text=text))
    return tuple(kept)


def journal_settings(config: ImportanceConfig, traces: Path) -> dict[str, Any]:
    """All that a rollout depends on: who makes it, how, and of what. Where rollouts go may change between runs."""
    rollouts = dataclasses.asdict(config.rollouts)
    del rollouts["restart_rollouts"]
    return {
        "model": config.model.path,
        "rollouts": rollouts,
        "chunk": dataclasses.asdict(config.chunk),
        "grading": {"max_answer_chars": config.grading.max_answer_chars},
        "traces": hashlib.sha256(traces.read_bytes()).hexdigest(),
    }


def write_results(results: Sequence[Result], out: Path) -> None:
    """One line a row, in place at once."""
    text = "".join(json.dumps(result.as_dict(), ensure_ascii=False) + "\n" for result in results)
    write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))


def summary(results: Sequence[Result]) -> Mapping[str, Any]:
    """Outcomes, costs and widths of a run."""
    scored = [result.scored for result in results if result.scored is not None]
    cost = sum((one.cost for one in scored), Cost())
    widths = sorted(value.high - value.low for one in scored for value in one.values if value.num_rollouts)
    return {
        "outcomes": dict(Counter(result.outcome for result in results)),
        "num_thoughts": sum(len(one.importances) for one in scored),
        "num_rollouts": cost.num_rollouts,
        "num_tokens": cost.num_tokens,
        "num_prompt_tokens": cost.num_prompt_tokens,
        "hit_rate": cost.hit_rate,
        "median_interval_width": widths[len(widths) // 2] if widths else None,
    }
