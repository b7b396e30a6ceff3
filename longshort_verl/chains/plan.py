# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Where the next rollouts of a trace go: a pure function of what was seen so far, so that a run resumes by counting.

``fixed`` makes the same number at every boundary between thoughts, as others do. ``adaptive`` begins at both ends of
the trace and at the largest jump of the gold answer's likelihood (where there is one), divides a stretch only while its
ends disagree, and stops at a boundary as soon as its value is known well enough. Estimates stay honest under any such
rule, because their intervals hold at every number of rollouts at once (:func:`longshort_verl.importance.anytime`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from longshort_verl.types import Counts


class Plan(str, Enum):
    """How rollouts are spread over a trace."""

    FIXED = "fixed"
    """The same number at every boundary."""
    ADAPTIVE = "adaptive"
    """Where they tell most."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How many rollouts, and where. No defaults here: they live in ``longshort_verl/config``."""

    plan: Plan
    """Which plan."""
    num_rollouts: int
    """``fixed``: rollouts at every boundary."""
    min_rollouts: int
    """``adaptive``: first rollouts at a visited boundary, and how many are added at a time."""
    max_rollouts: int
    """``adaptive``: most rollouts at one boundary."""
    spread: float
    """``adaptive``: a boundary has enough when the posterior's standard deviation of its value is at most this."""
    resolution: float
    """``adaptive``: a stretch is divided while the values of its ends differ by more than this."""
    prescreen: bool
    """``adaptive``: read where values change off the gold answer's likelihood, which needs no rollout."""

    def __post_init__(self) -> None:
        for name in ("num_rollouts", "min_rollouts"):
            if getattr(self, name) < 1:
                raise ValueError(f"importance: {name} is {getattr(self, name)!r}; give at least 1")
        if self.max_rollouts < self.min_rollouts:
            raise ValueError(
                f"importance: max_rollouts is {self.max_rollouts!r}; give at least min_rollouts, {self.min_rollouts}"
            )
        for name in ("spread", "resolution"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"importance: {name} is {getattr(self, name)!r}; give a number between 0 and 1")


def next_rollouts(
    counts: Sequence[Counts], places: Sequence[float], settings: PlanSettings, likelihoods: Sequence[float] | None
) -> dict[int, int]:
    """Boundaries that need more rollouts and how many, the longest prefix first; empty when the trace is done.

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
        found = {
            middle
            for left, right in itertools.pairwise(visited)
            if (middle := _divide(left, right, counts, places, settings, likelihoods)) is not None
        }
        if not found:
            return {}
        wanted |= found


def _missing(counts: Counts, settings: PlanSettings) -> int:
    if counts.num_rollouts < settings.min_rollouts:
        return settings.min_rollouts - counts.num_rollouts
    if counts.spread <= settings.spread:
        return 0
    # A run that goes on under a lower limit has more already.
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
    """Where to look next between two visited boundaries; None where they tell enough."""
    inside = range(left + 1, right)
    if not inside:
        return None
    differ = abs(counts[right].mean - counts[left].mean) > settings.resolution
    if likelihoods is None:
        middle = (places[left] + places[right]) / 2
        return min(inside, key=lambda i: abs(places[i] - middle)) if differ else None
    low, high = sorted((likelihoods[left], likelihoods[right]))

    def outside(i: int) -> float:
        return max(low - likelihoods[i], likelihoods[i] - high)

    # Between its ends the likelihood leaves their range: the value may do so too.
    strayed = max(inside, key=outside)
    if outside(strayed) > settings.resolution:
        return strayed
    if differ and high - low <= settings.resolution:
        # The values disagree and the likelihood does not say where.
        middle = (places[left] + places[right]) / 2
        return min(inside, key=lambda i: abs(places[i] - middle))
    return None
