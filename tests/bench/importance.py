# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Compares our sampling plan with eight rollouts at every boundary: tokens, time and agreement with the true values.

The tiny solo model writes the chains, and one vLLM engine runs all measurements in turn. The true values come from 128
rollouts at every boundary. Every measurement begins with an empty prefix cache.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from statistics import mean

from scipy.stats import kendalltau

from longshort_verl.chains.config import ImportanceConfig, read_importance, read_traces_config
from longshort_verl.chains.plan import Plan
from longshort_verl.chains.sample import sample_chains
from longshort_verl.chains.score import score_chains
from longshort_verl.files.journal import Journal
from longshort_verl.generation.open import token_counter
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.grading import grade
from longshort_verl.report.progress import open_progress
from longshort_verl.types import Chain, ChainOutcome, Cost, Problem
from tests.bench.results import Result, result
from tests.support.configs import ROOT
from tests.support.engines import engine_environment

COMMAND = "make bench"
NUM_TRACES, REPETITIONS, TRUTH, TOP = 16, 5, 128, 2
RECIPE = ROOT / "recipes" / "tiny_cpu" / "importance.yaml"


@dataclass(frozen=True)
class Measured:
    """One pass over all chains."""

    chains: list[Chain]
    cost: Cost
    seconds: float

    @property
    def scores(self) -> list[list[float]]:
        """Importance by chain and thought."""
        return [[importance.score for importance in chain.scores] for chain in self.chains if chain.scores]


def run() -> list[Result]:
    """Measure and compute the ratios."""
    config = read_importance(RECIPE, [f"model.path={ROOT}/recipes/tiny_cpu/models/solo"])
    with engine_environment():
        return asyncio.run(_run(config))


async def own_traces(generator: VLLMGenerator, number: int, seed: int) -> list[Chain]:
    """Chains that the model writes, each with the right answer and at least one check."""
    from make_traces import write_traces

    rows = await write_traces(generator, number, seed)
    problems = [
        Problem(prompt=row["problem"], answer=row["answer"], source="tiny", index=i) for i, row in enumerate(rows)
    ]
    return [
        Chain(key=str(problem.index), outcome=ChainOutcome.READ, problem=problem, text=row["trace"])
        for problem, row in zip(problems, rows, strict=True)
    ]


async def sampled_traces(generator: VLLMGenerator, number: int) -> list[Chain]:
    """Right chains on ``number`` problems of the pipeline's task, as `longshort traces` samples them."""
    import random

    from task import THINKER_STEPS, distinct_problems, solve

    texts = distinct_problems(random.Random(1), number, THINKER_STEPS, THINKER_STEPS)
    problems = [Problem(prompt=text, answer=solve(text).answer, source="tiny", index=i) for i, text in enumerate(texts)]
    traces = read_traces_config(RECIPE.with_name("traces.yaml"), [])
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl", {}) as journal:
        chains = await sample_chains(
            problems,
            generator,
            traces.sampling,
            journal,
            lambda text, gold: grade(text, gold, traces.grading),
            max_requests=traces.max_requests,
            on_done=lambda: None,
        )
    return [chain for chain in chains if chain.outcome is ChainOutcome.RIGHT]


async def measure(
    generator: VLLMGenerator, config: ImportanceConfig, traces: Sequence[Chain], *, one_by_one: bool = False
) -> Measured:
    """Score ``traces`` from an empty cache."""
    await generator._engine.reset_prefix_cache()
    costs: list[Cost] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl", {}) as journal:
        chains = await score_chains(
            traces,
            config,
            _OneByOne(generator) if one_by_one else generator,
            journal,
            token_counter(config.model),
            on_cost=costs.append,
        )
    return Measured(chains=chains, cost=sum(costs, Cost()), seconds=time.perf_counter() - started)


class _OneByOne:
    """Sends one request after another, as the reference code does."""

    def __init__(self, generator: VLLMGenerator) -> None:
        self._generator, self._turn = generator, asyncio.Lock()

    async def generate(self, messages, sampling):
        async with self._turn:
            return await self._generator.generate(messages, sampling)


async def _run(config: ImportanceConfig) -> list[Result]:
    fixed = replace(config, plan=replace(config.plan, plan=Plan.FIXED))
    exact = replace(config, plan=replace(fixed.plan, num_rollouts=TRUTH))
    fewer, agree_ours, agree_fixed, top_ours, top_fixed = [], [], [], [], []
    hits, faster, slower, aucs, per_trace = [], [], [], [], []
    async with VLLMGenerator(str(config.model.path), config.model.vllm) as generator:
        traces = await own_traces(generator, NUM_TRACES, seed=1)
        with open_progress() as progress:
            bar = progress.add_task("importance", total=1 + 3 * REPETITIONS)
            truth = (await measure(generator, exact, traces)).scores
            progress.advance(bar)
            for repetition in range(1, REPETITIONS + 1):
                seeded = [replace(one, rollouts=replace(one.rollouts, seed=repetition)) for one in (config, fixed)]
                ours = await measure(generator, seeded[0], traces)
                progress.advance(bar)
                others = await measure(generator, seeded[1], traces)
                progress.advance(bar)
                alone = await measure(generator, seeded[1], traces[:4], one_by_one=True)
                together = await measure(generator, seeded[1], traces[:4])
                progress.advance(bar)
                fewer.append(others.cost.num_tokens / ours.cost.num_tokens)
                faster.append(others.seconds / ours.seconds)
                slower.append(alone.seconds / together.seconds)
                hits.append(ours.cost.hit_rate or 0.0)
                agree_ours.append(tau(ours.scores, truth))
                agree_fixed.append(tau(others.scores, truth))
                top_ours.append(overlap(ours.scores, truth))
                top_fixed.append(overlap(others.scores, truth))
                aucs.append(_auc(ours.chains))
                per_trace.append(ours.cost.num_rollouts / len(traces))
    return [
        result("generated tokens, 8 rollouts everywhere over ours", fewer, at_least=4.0, command=COMMAND),
        result("Kendall tau with 128 rollouts, ours", agree_ours, command=COMMAND),
        result("Kendall tau with 128 rollouts, 8 everywhere", agree_fixed, command=COMMAND),
        result(
            "Kendall tau, ours less 8 everywhere",
            [a - b for a, b in zip(agree_ours, agree_fixed, strict=True)],
            at_least=0.0,
            command=COMMAND,
        ),
        result(f"top-{TOP} overlap with 128 rollouts, ours", top_ours, command=COMMAND),
        result(f"top-{TOP} overlap with 128 rollouts, 8 everywhere", top_fixed, command=COMMAND),
        result("prefill hit rate, ours", hits, at_least=0.95, command=COMMAND),
        result("time, 8 everywhere over ours", faster, command=COMMAND),
        result("time, one request after another over all at once", slower, command=COMMAND),
        result("AUC of working steps over checks, ours", aucs, at_least=0.95, command=COMMAND),
        result("rollouts per trace, ours", per_trace, command=COMMAND),
    ]


def tau(scores: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> float:
    """Mean over traces; a trace whose scores are all equal counts 0."""
    found = [kendalltau(a, b).statistic for a, b in zip(scores, truth, strict=True)]
    return float(mean(0.0 if isnan(one) else one for one in found))


def overlap(scores: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> float:
    """Share of each trace's highest thoughts that are among the truth's highest; mean over traces."""

    def top(values: Sequence[float]) -> set[int]:
        return set(sorted(range(len(values)), key=lambda i: -values[i])[:TOP])

    return mean(len(top(a) & top(b)) / min(TOP, len(a)) for a, b in zip(scores, truth, strict=True))


def _auc(chains: Sequence[Chain]) -> float:
    return auc(
        [
            (is_step(thought.text), importance.score)
            for chain in chains
            if chain.scores
            for thought, importance in zip(chain.thoughts, chain.scores, strict=True)
        ]
    )


def is_step(thought: str) -> bool:
    """Whether a thought of the solo model is a working step: an expression. Any other thought is a check or garbled."""
    return re.fullmatch(r"\d([-+*]\d)*", thought.removeprefix("<think>").strip()) is not None


def auc(scored: Sequence[tuple[bool, float]]) -> float:
    """Chance that a working step of any trace outranks a check of any trace; ties count half.

    Args:
        scored: whether it is a working step, and its importance.
    """
    works = [score for is_step, score in scored if is_step]
    checks = [score for is_step, score in scored if not is_step]
    wins = sum((work > check) + 0.5 * (work == check) for work in works for check in checks)
    return wins / (len(works) * len(checks))
