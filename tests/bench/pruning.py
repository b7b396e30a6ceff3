# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the pruned plan with the same number of rollouts at every boundary: tokens, and the selected thoughts.

The metric is the paper's, a rollout is a free response of the tiny thinker, and the chains are its own. Two measures
count only chains after whose first thought more than half of the rollouts are right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from longshort_verl.chains.config import ImportanceConfig, read_importance
from longshort_verl.chains.plan import Plan
from longshort_verl.cold_start.select import running_max
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.report.progress import open_progress
from longshort_verl.types import Chain, Decision
from tests.bench.importance import RECIPE, measure, sampled_traces
from tests.bench.results import Result, result
from tests.support.configs import ROOT
from tests.support.engines import engine_environment

COMMAND = "python -m tests.bench pruning"
NUM_PROBLEMS, REPETITIONS = 32, 3
SETTINGS = (
    f"model.path={ROOT}/recipes/tiny_cpu/models/thinker",
    "metric.metric=paper",
    "plan.plan=pruned",
    "plan.min_rollouts=2",
    "rollouts.elicitation=free",
    "rollouts.free_prompt='{problem}'",
    "rollouts.free_prefix='{thoughts}'",
    "rollouts.max_tokens=1024",
    "rollouts.stop=[]",
)


def run() -> list[Result]:
    """Measure and compute the ratios."""
    config = read_importance(RECIPE, SETTINGS)
    with engine_environment():
        return asyncio.run(_run(config))


async def _run(config: ImportanceConfig) -> list[Result]:
    plans = {
        "every": replace(config.plan, plan=Plan.FIXED),
        "bound": replace(config.plan, plan=Plan.PRUNED),
        "stop": replace(config.plan, plan=Plan.PRUNED, early_stop=True),
    }
    tokens: dict[str, list[float]] = {"bound": [], "stop": [], "bound, right": [], "stop, right": []}
    same: dict[str, list[float]] = {"bound": [], "stop": []}
    decided: dict[Decision, list[float]] = {decision: [] for decision in Decision}
    async with VLLMGenerator(str(config.model.path), config.model.vllm) as generator:
        traces = await sampled_traces(generator, NUM_PROBLEMS)
        with open_progress() as progress:
            bar = progress.add_task("pruning", total=len(plans) * REPETITIONS)
            for seed in range(1, REPETITIONS + 1):
                scored: dict[str, list[Chain]] = {}
                for name, plan in plans.items():
                    seeded = replace(config, plan=plan, rollouts=replace(config.rollouts, seed=seed))
                    scored[name] = (await measure(generator, seeded, traces)).chains
                    progress.advance(bar)
                right = [chain.values[1].mean > 0.5 for chain in scored["every"]]
                for name in same:
                    tokens[name].append(_tokens(scored[name]) / _tokens(scored["every"]))
                    tokens[f"{name}, right"].append(
                        _tokens(_where(scored[name], right)) / _tokens(_where(scored["every"], right))
                    )
                    pairs = zip(scored[name], scored["every"], strict=True)
                    same[name].append(sum(_selected(a) == _selected(b) for a, b in pairs) / len(traces))
                decisions = [decision for chain in scored["stop"] for decision in chain.decisions]
                for decision in Decision:
                    decided[decision].append(decisions.count(decision) / len(decisions))
    of_every = "generated tokens, pruned {} over 8 rollouts everywhere"
    where = ", right after thought 1 in over half"
    return [
        result(of_every.format("by the bound"), tokens["bound"], command=COMMAND),
        result(of_every.format("by the bound") + where, tokens["bound, right"], at_most=1 / 3, command=COMMAND),
        result(of_every.format("with early stops"), tokens["stop"], command=COMMAND),
        result(of_every.format("with early stops") + where, tokens["stop, right"], at_most=0.1, command=COMMAND),
        result("chains selected as with 8 everywhere, by the bound", same["bound"], at_least=1.0, command=COMMAND),
        result("chains selected as with 8 everywhere, early stops", same["stop"], at_least=0.95, command=COMMAND),
        *(result(f"thoughts decided by {d.value}, early stops", decided[d], command=COMMAND) for d in Decision),
    ]


def _where(chains: Sequence[Chain], chosen: Sequence[bool]) -> list[Chain]:
    return [chain for chain, is_chosen in zip(chains, chosen, strict=True) if is_chosen]


def _tokens(chains: Sequence[Chain]) -> int:
    return sum(chain.cost.num_tokens for chain in chains if chain.cost is not None)


def _selected(chain: Chain) -> frozenset[int]:
    return running_max([importance.score for importance in chain.scores])
