# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reward terms and their weighted sum, per role: accuracy, format, length.

The paper names a hybrid reward of accuracy, format and length; the authors' code weighs the three 1/1/1. Length is
group-relative (Kimi k1.5, arXiv 2501.12599, section 2.3.3), so it is computed where a prompt's group is known: the
trainer. Lengths are in tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from longshort_verl.types import Dialogue, Reward, Role


@dataclass(frozen=True, kw_only=True)
class RewardWeights:
    """Weight of each term; the defaults live in ``config/longshort_rl.yaml``. A weight of 0 leaves its term out."""

    accuracy: float
    """Of 1 for a correct final answer, else 0; shared by both roles."""
    format: float
    """Of the share of the role's own turns that follow the protocol."""
    length: float
    """Of the group-relative length term, in [−0.5, 0.5]."""
    importance: float
    """Of the importance metric of the long role's turns."""

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"long_short.reward.{name} is {value}; set it to a finite number of at least 0")
        if not any(self.as_dict().values()):
            raise ValueError("all weights of long_short.reward are 0; give at least one a positive weight")

    def as_dict(self) -> dict[str, float]:
        """Weights by name of their term."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one role's row of one dialogue is judged by."""

    group: Hashable
    """Rows that share it answer the same prompt."""
    role: Role
    """Whose row it is."""
    accuracy: float
    """1 for a correct final answer, else 0."""
    format: float
    """Share of well-formed own turns, in [0, 1]."""
    num_tokens: int
    """Tokens that the role generated in the dialogue."""
    importance: float = 0.0
    """Importance of the role's turns, summed; 0 where it was not measured."""
    failed: bool = False
    """Whether an engine failed in the dialogue: nobody's fault, so nobody learns from it."""

    @property
    def live(self) -> bool:
        """Whether the row can teach: the role spoke and no engine failed."""
        return self.num_tokens > 0 and not self.failed


def format_term(dialogue: Dialogue, role: Role) -> float:
    """Share of the role's own turns that follow the protocol, in [0, 1]; 0 when it wrote none."""
    own = [turn.parsed.kind is not None for turn in dialogue.turns if turn.role is role]
    return sum(own) / len(own) if own else 0.0


def length_terms(num_tokens: Sequence[int], correct: Sequence[bool]) -> list[float]:
    r"""Group-relative length term of each row of one group, in [−0.5, 0.5].

    .. math:: \lambda_i = 0.5 - \frac{\ell_i - \ell_{\min}}{\ell_{\max} - \ell_{\min}}

    A correct row gets :math:`\lambda_i`, a wrong one :math:`\min(0, \lambda_i)`: brevity is never rewarded where the
    answer is wrong. All get 0 where all lengths are equal (Kimi k1.5, arXiv 2501.12599, section 2.3.3).
    """
    shortest, longest = min(num_tokens), max(num_tokens)
    if shortest == longest:
        return [0.0] * len(num_tokens)
    terms = [0.5 - (tokens - shortest) / (longest - shortest) for tokens in num_tokens]
    return [term if right else min(0.0, term) for term, right in zip(terms, correct, strict=True)]


def weighted_sum(terms: Mapping[str, float], weights: RewardWeights) -> Reward:
    """Weighted sum of the terms with its breakdown.

    Raises:
        ValueError: a term of positive weight is missing or not finite. A run must stop rather than learn from less
            than it was told to.
    """
    used = {name: weight for name, weight in weights.as_dict().items() if weight}
    for name in used:
        if name not in terms or not math.isfinite(terms[name]):
            raise ValueError(f"reward term {name!r} is {terms.get(name, 'missing')}; it has weight {used[name]}")
    return Reward(total=sum(weight * terms[name] for name, weight in used.items()), terms=dict(terms))


def group_rewards(outcomes: Sequence[Outcome], weights: RewardWeights) -> list[Reward]:
    """Reward of every row, in order; the length term is relative to the rows of the same group and role.

    Every row must be live: a role that never spoke has nothing to be judged by, and would set the shortest length of
    its group.
    """
    groups: dict[tuple[Hashable, Role], list[int]] = defaultdict(list)
    for i, outcome in enumerate(outcomes):
        assert outcome.live, "rows without a turn and failed ones are left out of the groups"
        groups[outcome.group, outcome.role].append(i)
    length: dict[int, float] = {}
    for rows in groups.values():
        terms = length_terms([outcomes[i].num_tokens for i in rows], [outcomes[i].accuracy > 0 for i in rows])
        length.update(zip(rows, terms, strict=True))
    return [
        weighted_sum(
            {
                "accuracy": outcome.accuracy,
                "format": outcome.format,
                "length": length[i],
                **({"importance": outcome.importance} if weights.importance else {}),
            },
            weights,
        )
        for i, outcome in enumerate(outcomes)
    ]


def turn_advantages(
    scores: Mapping[Hashable, Sequence[float]], groups: Mapping[Hashable, Hashable]
) -> dict[Hashable, list[float]]:
    """What each measured turn of each row is better than the mean of its group's measured turns.

    Args:
        scores: by row, of its first turns, as far as they were measured.
        groups: by row; rows that share one answer the same prompt.

    Returns:
        By row, as many numbers as it has scores. A turn that was not measured gets nothing, which is the group's mean.
    """
    of_group: dict[Hashable, list[float]] = defaultdict(list)
    for row, values in scores.items():
        of_group[groups[row]] += values
    means = {group: sum(values) / len(values) for group, values in of_group.items() if values}
    return {row: [value - means[groups[row]] for value in values] for row, values in scores.items()}
