# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Where the next rollouts of a chain go: a pure function of the counts so far, so that a run resumes by counting.

``fixed`` makes the same number of rollouts at every boundary between thoughts. ``adaptive`` begins at both ends of the
chain and at the largest jump of the gold answer's likelihood (with pre-screen), divides a stretch while its ends
disagree, and stops at a boundary once its value is known well enough. The intervals stay valid under any such rule,
because they hold at every number of rollouts at once (:func:`longshort_verl.importance.anytime`).

``pruned`` makes the rollouts that the running maximum of the paper's metric needs, and no others. A probability is at
most 1, so M_i ≤ log2(1 + T1_i · T2_i) ≤ log2(1 + T1_i), which falls with i: a thought whose bound does not exceed the
maximum so far cannot raise it, and needs no rollout. The selection equals that of ``fixed``. The pruning is ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from enum import Enum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.importance import First, MetricSettings, anytime, effectiveness, length_factors, value_alpha
from longshort_verl.types import Counts, Decision


class Plan(str, Enum):
    """How rollouts are spread over a chain."""

    FIXED = "fixed"
    """The same number at every boundary."""
    ADAPTIVE = "adaptive"
    """More where the value changes or is uncertain."""
    PRUNED = "pruned"
    """The same number, but only at thoughts that may raise the running maximum of the paper's metric."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How many rollouts, and where. The defaults are in ``config/longshort_importance.yaml``."""

    plan: Plan
    num_rollouts: Annotated[int, Field(ge=1)]
    """``fixed`` and ``pruned``: rollouts at every visited boundary."""
    early_stop: bool
    """``pruned``: stop the rollouts of a thought as soon as its interval lies at or below the running maximum."""
    min_rollouts: Annotated[int, Field(ge=1)]
    """``adaptive`` and ``early_stop``: first rollouts at a visited boundary, and the number added at a time."""
    max_rollouts: int
    """``adaptive``: most rollouts at one boundary."""
    spread: Annotated[float, Field(gt=0, lt=1)]
    """``adaptive``: a boundary is done when the posterior's standard deviation of its value is at most this."""
    resolution: Annotated[float, Field(gt=0, lt=1)]
    """``adaptive``: a stretch is divided while the values of its ends differ by more than this."""
    prescreen: bool
    """``adaptive``: locate changes of the value by the gold answer's likelihood, which needs no rollout."""

    def __post_init__(self) -> None:
        if self.max_rollouts < self.min_rollouts:
            raise ValueError(
                f"plan.max_rollouts is {self.max_rollouts}; set it to at least plan.min_rollouts, {self.min_rollouts}"
            )


def next_rollouts(
    counts: Sequence[Counts], places: Sequence[float], settings: PlanSettings, likelihoods: Sequence[float] | None
) -> dict[int, int]:
    """Number of missing rollouts by boundary, the longest prefix first; empty when the chain is done.

    Args:
        counts: of the boundaries 0 (no thought) to n (all).
        places: tokens before each boundary.
        settings: the plan.
        likelihoods: of the gold answer at each boundary, in [0, 1]; None without pre-screen.
    """
    last = len(counts) - 1
    if settings.plan is Plan.FIXED:
        missing = {i: settings.num_rollouts - counts[i].num_rollouts for i in range(last, -1, -1)}
        return {i: number for i, number in missing.items() if number > 0}
    wanted = {0, last} | _jump(likelihoods)
    while True:
        needed = {i: number for i in sorted(wanted, reverse=True) if (number := _missing(counts[i], settings))}
        if needed:
            return needed
        visited = sorted(wanted)
        middles = {
            middle
            for left, right in itertools.pairwise(visited)
            if (middle := _divide(left, right, counts, places, settings, likelihoods)) is not None
        }
        if not middles:
            return {}
        wanted |= middles


def next_candidates(
    counts: Sequence[Counts], lengths: Sequence[int], settings: PlanSettings, metric: MetricSettings
) -> tuple[dict[int, int], list[Decision]]:
    """``pruned``: number of missing rollouts by boundary, empty when the chain is done, and how thoughts were decided.

    Args:
        counts: of the boundaries 0 (no thought) to n (all).
        lengths: tokens of the n thoughts.
        settings: the plan.
        metric: the settings of the metric ``paper``.
    """
    alpha, best = value_alpha(metric, len(lengths)), -math.inf
    decisions: list[Decision] = []

    def full(boundary: int) -> bool:
        return counts[boundary].num_rollouts >= settings.num_rollouts

    def ends(boundary: int) -> tuple[float, float]:
        return _ends(counts[boundary], settings.num_rollouts, alpha) if settings.early_stop else (0.0, 1.0)

    def more(boundary: int) -> dict[int, int]:
        left = settings.num_rollouts - counts[boundary].num_rollouts
        return {boundary: min(left, settings.min_rollouts) if settings.early_stop else left}

    for i, factor in enumerate(length_factors(lengths), start=1):
        if effectiveness(factor, 1.0) <= best:
            decisions.append(Decision.BOUND)
            continue
        if not full(i):
            if effectiveness(factor, ends(i)[1]) > best:
                return more(i), decisions
            decisions.append(Decision.INTERVAL)
            continue
        mean = counts[i].mean
        score = effectiveness(factor, mean)
        # Whether δ is on matters only here; the thought before may have no rollouts yet.
        if score > best and (i > 1 or metric.first is First.COMPARE):
            low, high = ends(i - 1)
            if not full(i - 1) and low < mean <= high:
                return more(i - 1), decisions
            score -= metric.penalty * (mean <= counts[i - 1].mean)
        decisions.append(Decision.ROLLOUTS)
        best = max(best, score)
    return {}, decisions


def _ends(counts: Counts, num_rollouts: int, alpha: float) -> tuple[float, float]:
    """Least and greatest share of right rollouts that a boundary may end with: certain ends, cut by its interval."""
    low, high = counts.num_right / num_rollouts, 1 - (counts.num_rollouts - counts.num_right) / num_rollouts
    if not counts.num_rollouts:
        return low, high
    value = anytime(counts.num_right, counts.num_rollouts, alpha)
    return max(low, value.low), min(high, value.high)


def _missing(counts: Counts, settings: PlanSettings) -> int:
    if counts.num_rollouts < settings.min_rollouts:
        return settings.min_rollouts - counts.num_rollouts
    if counts.spread <= settings.spread:
        return 0
    # A run that resumes under a lower limit may have more already.
    return max(0, min(settings.min_rollouts, settings.max_rollouts - counts.num_rollouts))


def _jump(likelihoods: Sequence[float] | None) -> set[int]:
    """Both sides of the largest change."""
    if likelihoods is None or len(likelihoods) < 2:
        return set()
    steps = [abs(new - old) for old, new in itertools.pairwise(likelihoods)]
    place = max(range(len(steps)), key=steps.__getitem__)
    return {place, place + 1}


def _divide(
    left: int,
    right: int,
    counts: Sequence[Counts],
    places: Sequence[float],
    settings: PlanSettings,
    likelihoods: Sequence[float] | None,
) -> int | None:
    """The next boundary to visit between two visited ones; None if no more is needed."""
    inside = range(left + 1, right)
    if not inside:
        return None
    differ = abs(counts[right].mean - counts[left].mean) > settings.resolution
    if likelihoods is not None:
        low, high = sorted((likelihoods[left], likelihoods[right]))
        outside = {i: max(low - likelihoods[i], likelihoods[i] - high) for i in inside}
        # Where the likelihood leaves the range of its ends, the value may do so too.
        strayed = max(inside, key=outside.__getitem__)
        if outside[strayed] > settings.resolution:
            return strayed
        # Otherwise divide only if the likelihood does not show where the values change.
        differ = differ and high - low <= settings.resolution
    middle = (places[left] + places[right]) / 2
    return min(inside, key=lambda i: abs(places[i] - middle)) if differ else None
