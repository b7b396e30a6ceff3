# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The importance metric of the long role's turns in a dialogue, as a term of the reward.

A turn's value before and after is how often the short model, made to answer at once, is right. Before a later turn it
is made to answer instead of asking for that turn. The metric is that of chains of thought
(:mod:`longshort_verl.importance`), with turns for thoughts; our reconstruction, as there.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from longshort_verl.chains.plan import Counts
from longshort_verl.importance import Importance, MetricSettings, Value, hoeffding, importance, value_alpha


class Credit(str, Enum):
    """Where the importance of turns goes."""

    ROW = "row"
    """Summed over the turns, into the row's reward."""
    TURN = "turn"
    """Onto the advantages of each turn's own tokens."""


@dataclass(frozen=True, kw_only=True)
class ImportanceRewardSettings:
    """How turns are measured. No defaults here: they live in ``config/longshort_rl.yaml``."""

    group_share: float
    """Share of the prompts whose groups are measured, in [0, 1]."""
    num_rollouts: int
    """Rollouts before the first long turn, and after each."""
    max_tokens: int
    """Most tokens of one rollout."""
    max_dialogue_tokens: int
    """Most tokens of all rollouts of one dialogue."""
    forcing_text: str
    """What the short role is made to begin with."""
    stop: tuple[str, ...]
    """What ends a rollout, beside the model's own end of turn."""
    credit: Credit
    """Where the credit goes."""
    metric: MetricSettings
    """The metric."""

    def __post_init__(self) -> None:
        where = "long_short.importance"
        if not 0 < self.group_share <= 1:
            raise ValueError(
                f"{where}.group_share is {self.group_share}; give a number above 0, at most 1. To measure nothing, set "
                "long_short.reward.importance=0"
            )
        for name in ("num_rollouts", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{where}.{name} is {getattr(self, name)}; set it to at least 1")
        if self.max_boundaries < 2:
            raise ValueError(
                f"{where}.max_dialogue_tokens is {self.max_dialogue_tokens}, less than {self.num_rollouts} rollouts of "
                f"{self.max_tokens} tokens before a turn and as many after it; no turn could be measured. Raise it to "
                f"at least {2 * self.num_rollouts * self.max_tokens}"
            )
        if not self.forcing_text:
            raise ValueError(f"{where}.forcing_text is empty; say how an answer begins")

    @property
    def max_boundaries(self) -> int:
        """Boundaries whose rollouts fit in ``max_dialogue_tokens``."""
        return self.max_dialogue_tokens // (self.num_rollouts * self.max_tokens)


def is_measured(name: str, share: float) -> bool:
    """Whether a group of that name is among the share that is measured; the same for the same name."""
    return zlib.crc32(name.encode()) < share * 2**32


def turn_importances(
    counts: Sequence[Counts], lengths: Sequence[int], *, broke: bool, settings: MetricSettings
) -> list[Importance]:
    """The importance of the first turns of the long role, as far as boundaries were measured.

    Args:
        counts: right and all rollouts before the first turn, and after the first, second, …; none of them empty.
        lengths: tokens of each of the role's turns.
        broke: whether the last of these turns broke the protocol. Nobody can answer after it, so that its value is 0,
            without rollouts.
        settings: the metric.

    Returns:
        One for each turn whose two values are known; fewer than there are turns where ``counts`` ends early.
    """
    alpha = value_alpha(settings, len(lengths))
    values = [hoeffding(count.num_right, count.num_rollouts, alpha) for count in counts]
    if broke and len(values) == len(lengths):
        values.append(Value(num_right=0, num_rollouts=0, mean=0.0, low=0.0, high=0.0))
    known = len(values) - 1
    if known < 1:
        return []
    # What comes later is unknown and cut off again; the lengths of all turns count, as in a chain of thought.
    values += [values[-1]] * (len(lengths) - known)
    return importance(values, lengths, settings)[:known]
