# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Selects the thoughts of a scored chain that become the long role's turns (paper, section 4.1), or a baseline's."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from enum import Enum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.grading.answers import last_boxed
from longshort_verl.types import Chain


class Selection(str, Enum):
    """Which thoughts are important."""

    RUNNING_MAX = "running_max"
    """The first, and those with more importance than all before them (paper, section 4.1)."""
    SHARE = "share"
    """The fewest that carry a share of their chain's gain."""
    THRESHOLD = "threshold"
    """Those with at least a given importance."""
    QUANTILE = "quantile"
    """Those above a quantile of all thoughts of the file."""


class Keep(str, Enum):
    """Which thoughts become long turns; all except the first are baselines."""

    IMPORTANT = "important"
    RANDOM_SCORES = "random_scores"
    """The running maximum of scores drawn at random (paper, section 5.3)."""
    RANDOM = "random"
    """Random ones, with at least as many tokens as the important ones of the same chain."""
    FIRST = "first"
    """The first ones, with at least as many tokens."""
    ALL = "all"
    """The whole chain as one turn; it need not be shorter than its chain."""


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Which thoughts become long turns. The defaults are in ``config/longshort_cold_start.yaml``."""

    keep: Keep
    by: Selection
    share: Annotated[float, Field(gt=0, le=1)]
    """``share``: ρ, of the gain p_n − p_0 of a chain."""
    threshold: float
    """``threshold``: least importance."""
    quantile: Annotated[float, Field(ge=0, lt=1)]
    """``quantile``: 0.9 keeps the highest tenth of the file's thoughts."""
    answers: bool
    """Whether a thought that boxes the answer, and those after it, can be kept, unless all are."""
    seed: int
    """``random``, ``random_scores``: seed; each chain has its own draw."""


def file_threshold(chains: Sequence[Chain], settings: SelectionSettings) -> float:
    """Least importance of an important thought in a file, by ``threshold`` or ``quantile``."""
    scores = sorted(importance.score for chain in chains for importance in chain.scores)
    if settings.by is Selection.QUANTILE and scores:
        return scores[min(len(scores) - 1, int(settings.quantile * len(scores)))]
    return settings.threshold


def select(chain: Chain, settings: SelectionSettings, threshold: float) -> frozenset[int]:
    """Numbers, from 0, of the thoughts of a scored chain that become long turns.

    ``threshold`` is that of :func:`file_threshold`.

    Raises:
        ValueError: the chain was scored by the pruned plan, which knows the importance of few thoughts, and is not
            selected by the running maximum.
    """
    draw = random.Random(f"{settings.seed}/{chain.key}")
    boxed = (i for i, thought in enumerate(chain.thoughts) if not settings.answers and last_boxed(thought.text))
    before_answer = frozenset(range(next(boxed, len(chain.thoughts))))
    if settings.keep is Keep.RANDOM_SCORES:
        return running_max([draw.random() for _ in chain.thoughts]) & before_answer
    if chain.decisions and settings.keep is not Keep.ALL and settings.by is not Selection.RUNNING_MAX:
        raise ValueError(
            f"select.by is {settings.by.value!r}, but chain {chain.key} was scored with plan.plan=pruned, which leaves "
            "most thoughts without rollouts; set select.by=running_max, or score the chains with another plan"
        )
    if settings.keep is Keep.ALL:
        return frozenset(range(len(chain.thoughts)))
    if settings.by is Selection.RUNNING_MAX:
        important = running_max([importance.score for importance in chain.scores])
    elif settings.by is Selection.SHARE:
        important = _fewest([importance.gain for importance in chain.scores], settings.share)
    else:
        important = frozenset(i for i, importance in enumerate(chain.scores) if importance.score >= threshold)
    important &= before_answer
    if settings.keep is Keep.IMPORTANT:
        return important
    order = sorted(before_answer)
    if settings.keep is Keep.RANDOM:
        draw.shuffle(order)
    budget = sum(chain.lengths[i] for i in important)
    before = itertools.accumulate((chain.lengths[i] for i in order), initial=0)
    return frozenset(i for i, num_tokens in zip(order, before, strict=False) if num_tokens < budget)


def running_max(scores: Sequence[float]) -> frozenset[int]:
    """The first thought, and every thought whose importance exceeds that of all thoughts before it (paper, 4.1)."""
    before = itertools.accumulate(scores, max, initial=-math.inf)
    return frozenset(i for i, (score, best) in enumerate(zip(scores, before, strict=False)) if score > best)


def _fewest(gains: Sequence[float], share: float) -> frozenset[int]:
    """The fewest thoughts whose gains sum to a share of the total gain; none if the total is not positive."""
    wanted = share * sum(gains)
    if wanted <= 0:
        return frozenset()
    order = sorted(range(len(gains)), key=lambda i: -gains[i])
    carried = itertools.accumulate(gains[i] for i in order)
    # Rounding may keep the sum of all below the total.
    return frozenset(order[: 1 + sum(total < wanted - 1e-9 for total in carried)])
