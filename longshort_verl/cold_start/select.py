# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Which thoughts of a scored chain become the long role's turns, and which ones the baselines keep instead."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from longshort_verl.chains.scored_files import ScoredTrace


class Selection(str, Enum):
    """Which thoughts count as important."""

    SHARE = "share"
    """The fewest that carry a share of their trace's gain."""
    THRESHOLD = "threshold"
    """Those whose importance is high enough."""
    QUANTILE = "quantile"
    """Those above a quantile of all thoughts of the file."""


class Keep(str, Enum):
    """Which thoughts become long turns; all but the first are baselines to compare with."""

    IMPORTANT = "important"
    """The important ones."""
    RANDOM = "random"
    """Any, of at least as many tokens as the important ones of the same trace."""
    FIRST = "first"
    """The first ones, of at least as many tokens."""
    ALL = "all"
    """The whole chain, as one turn; it need not be shorter than its trace."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Which thoughts become long turns. No defaults here: they live in ``longshort_verl/config``."""

    keep: Keep
    """What is kept."""
    by: Selection
    """What counts as important."""
    share: float
    """``share``: ρ, of the gain p_n − p_0 of a trace, in (0, 1]."""
    threshold: float
    """``threshold``: least importance."""
    quantile: float
    """``quantile``: in [0, 1); 0.9 keeps the highest tenth of the file's thoughts."""
    seed: int
    """``random``: of the draw, which is each trace's own."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"select: share is {self.share!r}; give a number above 0, at most 1")
        if not 0 <= self.quantile < 1:
            raise ValueError(f"select: quantile is {self.quantile!r}; give a number from 0 to below 1")


def file_threshold(traces: Sequence[ScoredTrace], settings: SelectionSettings) -> float:
    """Least importance of what is kept, where it is one for the whole file; else not used."""
    scores = sorted(score for trace in traces for score in trace.scores)
    if settings.by is Selection.QUANTILE and scores:
        return scores[min(len(scores) - 1, int(settings.quantile * len(scores)))]
    return settings.threshold


def select(trace: ScoredTrace, settings: SelectionSettings, threshold: float) -> frozenset[int]:
    """Numbers, from 0, of the thoughts of one trace that become long turns.

    Args:
        trace: scored.
        settings: which ones.
        threshold: see :func:`file_threshold`.
    """
    everything = frozenset(range(len(trace.thoughts)))
    if settings.keep is Keep.ALL:
        return everything
    if settings.by is Selection.SHARE:
        important = _fewest(trace.gains, settings.share)
    else:
        important = frozenset(i for i, score in enumerate(trace.scores) if score >= threshold)
    if settings.keep is Keep.IMPORTANT:
        return important
    order = sorted(everything)
    if settings.keep is Keep.RANDOM:
        random.Random(f"{settings.seed}/{trace.key}").shuffle(order)
    budget, chosen = sum(trace.lengths[i] for i in important), set[int]()
    for i in order:
        if budget <= 0:
            break
        chosen.add(i)
        budget -= trace.lengths[i]
    return frozenset(chosen)


def _fewest(gains: Sequence[float], share: float) -> frozenset[int]:
    """The fewest thoughts whose gains add up to a share of the whole; none where the whole is not positive."""
    wanted = share * sum(gains)
    if wanted <= 0:
        return frozenset()
    chosen, carried = set[int](), 0.0
    for i in sorted(range(len(gains)), key=lambda i: -gains[i]):
        chosen.add(i)
        carried += gains[i]
        if carried >= wanted - 1e-9:  # the last of them all may miss by rounding
            break
    return frozenset(chosen)
