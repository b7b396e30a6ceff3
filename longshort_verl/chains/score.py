# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort chunk`` and ``longshort importance``: a file of chains to a file of thoughts, and of scored thoughts.

:mod:`longshort_verl.chains.chunk` and :mod:`longshort_verl.chains.rollouts` process one chain.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from longshort_verl.chains.chunk import Chunker, boundaries, boundary_f1, chunk
from longshort_verl.chains.config import NOT_IN_RESULTS, ImportanceConfig
from longshort_verl.chains.files import ChainFileError, shown_outcomes, usable_chains, write_chains
from longshort_verl.chains.rollouts import Elicitation, score_chain
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import Artefact
from longshort_verl.generation.base import Generator
from longshort_verl.generation.model_files import require_model
from longshort_verl.generation.open import open_generator, token_counter
from longshort_verl.grading import check_gold, grade
from longshort_verl.types import Chain, ChainOutcome, Cost, OpenProgress, Thought

CONTEXT_MARGIN = 64
"""Tokens reserved for the chat template when a chain is compared with the model's context."""


OpenCostProgress = Callable[[int], AbstractContextManager[tuple[Callable[[Cost], None], Callable[[], None]]]]
"""Opens a progress bar for a number of chains; gives the functions that add a cost and that count a finished chain."""


async def chunk_chains(
    chains: Sequence[Chain], config: ImportanceConfig, generator: Generator | None, on_done: Callable[[], None]
) -> list[Chain]:
    """The chains with thoughts; thoughts from the file are compared with the new ones and replaced."""
    slots = asyncio.Semaphore(config.max_traces)

    async def chunk_one(chain: Chain) -> Chain:
        old = chain.thoughts
        async with slots:
            if chain.problem is not None:
                chain = await chunk(replace(_without_results(chain), thoughts=()), config.chunk, generator)
        on_done()
        if old and chain.thoughts:
            chain = replace(chain, agreement=boundary_f1(boundaries(chain.thoughts), boundaries(old)))
        return chain

    return list(await asyncio.gather(*map(chunk_one, chains)))


def _without_results(chain: Chain) -> Chain:
    """The chain and its thoughts, without the outcome and the scores that its file may hold."""
    return Chain(
        key=chain.key, outcome=ChainOutcome.READ, problem=chain.problem, text=chain.text, thoughts=chain.thoughts
    )


async def score_chains(
    chains: Sequence[Chain],
    config: ImportanceConfig,
    generator: Generator,
    journal: Journal,
    count_tokens: Callable[[str], int],
    *,
    on_cost: Callable[[Cost], None] = lambda cost: None,
    on_done: Callable[[], None] = lambda: None,
) -> list[Chain]:
    """The chains with the importance of their thoughts, in order; a failure of one does not affect the others."""
    slots = asyncio.Semaphore(config.max_traces)

    async def score(chain: Chain) -> Chain:
        async with slots:
            chain = await _with_lengths(chain, config, generator, count_tokens)
            if chain.problem is not None and chain.lengths:
                plan, detail = config.plan, ""
                num_answer = count_tokens(chain.problem.answer)
                if plan.prescreen and num_answer > config.rollouts.max_answer_tokens:
                    plan = replace(plan, prescreen=False)
                    detail = f"no pre-screen: its answer has {num_answer} tokens"
                chain = await score_chain(
                    chain,
                    generator,
                    lambda text, gold: grade(text, gold, config.grading).correct,
                    journal,
                    rollouts=config.rollouts,
                    plan=plan,
                    metric=config.metric,
                    on_cost=on_cost,
                )
                chain = replace(chain, detail=chain.detail or detail)
        on_done()
        return chain

    return list(await asyncio.gather(*map(score, chains)))


async def _with_lengths(
    chain: Chain, config: ImportanceConfig, generator: Generator, count_tokens: Callable[[str], int]
) -> Chain:
    """The chain with the thoughts to score and their lengths; without lengths if it cannot be scored."""
    problem = chain.problem
    if problem is None:
        return chain
    chain = _without_results(chain)
    try:
        check_gold(problem.answer)
    except ValueError as error:
        return replace(chain, outcome=ChainOutcome.BAD_GOLD, detail=str(error))
    if not chain.thoughts:
        chain = await chunk(chain, config.chunk, generator)
    if not chain.thoughts:
        return chain
    thoughts = thinking(chain.thoughts, config.rollouts.end_of_thinking)
    if not thoughts:
        detail = "the thinking ends before the first thought"
        return replace(chain, outcome=ChainOutcome.NO_THOUGHT, detail=detail)
    # In a thread: a chain of 10,000 steps takes seconds.
    lengths = await asyncio.to_thread(lambda: [max(1, count_tokens(thought.text)) for thought in thoughts])
    frame = count_tokens(problem.prompt + config.rollouts.forcing_text) + config.rollouts.max_tokens
    needed, room = sum(lengths) + frame, config.model.vllm.max_model_len
    if needed + CONTEXT_MARGIN > room:
        detail = f"{needed} tokens with a rollout, but model.vllm.max_model_len is {room}"
        return replace(chain, outcome=ChainOutcome.TOO_LONG, detail=detail)
    return replace(chain, thoughts=thoughts, lengths=tuple(lengths))


def thinking(thoughts: Sequence[Thought], end: str) -> tuple[Thought, ...]:
    """The thoughts before the first ``end``, the last one cut there; all thoughts if there is no ``end``."""
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


def summary(chains: Sequence[Chain]) -> dict[str, Any]:
    """Number of chains by outcome, costs and interval widths of ``longshort importance``."""
    costs = [chain.cost for chain in chains if chain.cost is not None and chain.lengths]
    cost = sum(costs, Cost())
    widths = sorted(value.high - value.low for chain in chains for value in chain.values if value.num_rollouts)
    return {
        "outcomes": dict(Counter(chain.outcome.value for chain in chains)),
        "num_thoughts": sum(len(chain.scores) for chain in chains),
        "num_rollouts": cost.num_rollouts,
        "num_tokens": cost.num_tokens,
        "num_prompt_tokens": cost.num_prompt_tokens,
        "hit_rate": cost.hit_rate,
        "decisions": dict(Counter(decision.value for chain in chains for decision in chain.decisions)),
        "median_interval_width": widths[len(widths) // 2] if widths else None,
    }


# --- commands -------------------------------------------------------------------------------------------------------


def run_chunk(config: ImportanceConfig, file: Path, out: Path, progress: OpenProgress) -> list[Chain] | None:
    """``longshort chunk``: write the chains of ``file`` with their thoughts to the JSONL ``out``, and return them.

    Returns None if ``out`` is finished. Raises ValueError if the file is unreadable or the settings differ.
    """
    asks = config.chunk.chunker is Chunker.LLM
    settings = {"chunk": config.chunk, "model": config.model.path if asks else None}
    with Artefact(out, config=settings, inputs={"traces": file}) as artefact:
        if artefact.finished:
            return None
        chains = usable_chains(file)
        if asks:
            require_model(config.model)

        async def chunk_all() -> list[Chain]:
            async with AsyncExitStack() as stack:
                generator = await stack.enter_async_context(open_generator(config.model)) if asks else None
                with progress("chunking", len(chains)) as on_done:
                    return await chunk_chains(chains, config, generator, on_done)

        chains = asyncio.run(chunk_all())
        write_chains(out, chains)
        outcomes = Counter(chain.outcome.value for chain in chains)
        if not outcomes[ChainOutcome.ENGINE_ERROR.value]:
            tokens = sum(chain.cost.num_tokens for chain in chains if chain.cost)
            artefact.finish(counts=outcomes, tokens={"chunking": tokens})
    return chains


def run_importance(
    config: ImportanceConfig, file: Path, out: Path, progress: OpenCostProgress
) -> dict[str, Any] | None:
    """``longshort importance``: score the chains of ``file`` into the folder ``out``; resumes from its journal.

    Returns :func:`summary`; None if ``out`` is finished. Raises ValueError as :func:`run_chunk`.
    """
    free = ("max_traces", "plan.*", "metric.*", "rollouts.restart_rollouts", *NOT_IN_RESULTS)
    with Artefact(out, config=config, inputs={"traces": file}, may_change=free) as artefact:
        if artefact.finished:
            return None
        chains = usable_chains(file)
        require_model(config.model)
        count_tokens = token_counter(config.model)
        with Journal(out / "journal.jsonl", journal_settings(config, file)) as journal:

            async def score_all() -> list[Chain]:
                async with open_generator(config.model) as generator:
                    with progress(len(chains)) as (on_cost, on_done):
                        return await score_chains(
                            chains, config, generator, journal, count_tokens, on_cost=on_cost, on_done=on_done
                        )

            chains = asyncio.run(score_all())
        write_chains(out / "importance.jsonl", chains)
        counts = summary(chains)
        engine_failed = ChainOutcome.ENGINE_ERROR.value in counts["outcomes"]
        if not counts["num_thoughts"] and not engine_failed:
            raise ChainFileError(
                f"no chain of {file} could be scored: {shown_outcomes(chains)}; see {out}/importance.jsonl"
            )
        if not engine_failed:
            artefact.finish(counts=counts, tokens={"rollouts": counts["num_tokens"]})
    return counts


def journal_settings(config: ImportanceConfig, traces: Path) -> dict[str, Any]:
    """Everything that a rollout depends on. The plan, the metric and the machine may change between runs."""
    rollouts = dataclasses.asdict(config.rollouts)
    of_free = ("free_prompt", "free_prefix", "free_answer")
    unused = ("forcing_text",) if config.rollouts.elicitation is Elicitation.FREE else of_free
    for name in ("restart_rollouts", *unused):
        del rollouts[name]
    return {
        "model": config.model.path,
        "rollouts": rollouts,
        "chunk": dataclasses.asdict(config.chunk),
        "grading": {"max_answer_chars": config.grading.max_answer_chars},
        "traces": hashlib.sha256(traces.read_bytes()).hexdigest(),
    }
