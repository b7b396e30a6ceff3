# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reward terms by name, and their weighted sum per role.

The paper's reward is η·EM + λ·FM + µ·LM: accuracy, format and length, µ being 0 at first and raised gradually (section
4.2; it gives none of the three weights, nor the course of µ). The authors' code weighs the three 1/1/1. Group-relative
terms are computed in the trainer, which knows the rows of a prompt. Lengths are in tokens.

To add a term, add an entry to :data:`TERMS`, here or in a module of your own that ``VERL_USE_EXTERNAL_MODULES`` names,
and set the weight of the same name in ``long_short.reward``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass as settings_class

from longshort_verl.types import Dialogue, Reward, Role


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The facts by which one role's row of one dialogue is rewarded."""

    group: Hashable
    """Rows of the same group answer the same prompt."""
    role: Role
    accuracy: float
    """1 for a correct final answer, else 0."""
    format: float
    """Share of the role's turns that are well-formed, in [0, 1]."""
    num_tokens: int
    """Tokens that the role generated in the dialogue."""
    length: int | None = None
    """Tokens that the length term counts (:class:`LengthOf`); None for ``num_tokens``."""
    importance: float = 0.0
    """Sum of the importance of the role's turns; 0 if not measured."""
    failed: bool = False
    """Whether an engine failed in the dialogue; such rows are not trained on."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Everything that rollout and reward manager recorded of the dialogue, for terms of your own: answer, stop reason,
    turns and tokens per role, rethinks, …"""

    @property
    def live(self) -> bool:
        """Whether the row is trained on: the role spoke and no engine failed."""
        return self.num_tokens > 0 and not self.failed


class LengthOf(str, Enum):
    """Whose tokens the length term counts. The paper does not say; the authors' code counts the role's own reply."""

    OWN = "own"
    """The role's own tokens."""
    DIALOGUE = "dialogue"
    """The tokens of both roles."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A reward term: a function of a row's facts or, if group-relative, of the facts of a group's rows of one role."""

    of_row: Callable[[Outcome], float] | None = None
    """Value of the term for one row."""
    of_group: Callable[[Sequence[Outcome]], Sequence[float]] | None = None
    """Values of a group-relative term, one per row."""
    always_logged: bool = False
    """Whether the term is computed and logged even without a weight."""

    def __post_init__(self) -> None:
        if (self.of_row is None) == (self.of_group is None):
            raise ValueError("a term has exactly one function: give of_row, or of_group for a group-relative term")

    def values(self, rows: Sequence[Outcome]) -> list[float]:
        """Values of the term for the rows of one group and role."""
        if self.of_group is not None:
            return list(self.of_group(rows))
        assert self.of_row is not None  # __post_init__
        return [self.of_row(row) for row in rows]


def length_terms(num_tokens: Sequence[int], correct: Sequence[bool]) -> list[float]:
    r"""Group-relative length term of each row of one group, in [−0.5, 0.5].

    .. math:: \lambda_i = 0.5 - \frac{\ell_i - \ell_{\min}}{\ell_{\max} - \ell_{\min}}

    A correct row gets :math:`\lambda_i`, a wrong row :math:`\min(0, \lambda_i)`: a wrong answer is never rewarded for
    brevity. All rows get 0 if all lengths are equal (Kimi k1.5, arXiv 2501.12599, section 2.3.3).
    """
    shortest, longest = min(num_tokens), max(num_tokens)
    if shortest == longest:
        return [0.0] * len(num_tokens)
    terms = [0.5 - (tokens - shortest) / (longest - shortest) for tokens in num_tokens]
    return [term if right else min(0.0, term) for term, right in zip(terms, correct, strict=True)]


TERMS: dict[str, Term] = {
    "accuracy": Term(of_row=lambda row: row.accuracy, always_logged=True),
    "format": Term(of_row=lambda row: row.format, always_logged=True),
    "length": Term(
        of_group=lambda rows: length_terms(
            [row.num_tokens if row.length is None else row.length for row in rows], [row.accuracy > 0 for row in rows]
        ),
        always_logged=True,
    ),
    "importance": Term(of_row=lambda row: row.importance),
}
"""Reward terms by name."""


_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@settings_class(frozen=True, kw_only=True, config={"extra": "forbid"})
class Ramp:
    """A weight that changes linearly with the training step from ``start`` to ``end``, and is constant outside.

    The paper raises µ, the weight of length, gradually from 0 (section 4.2); a linear course is ours.
    """

    from_: Annotated[_Weight, Field(alias="from")]
    to: _Weight
    start: Annotated[int, Field(ge=0)]
    end: int

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(
                f"end is {self.end} and start {self.start}; set end to a later step, start + 1 for a change at once"
            )

    def at(self, step: int) -> float:
        """The weight at a training step; steps count from 1."""
        share = min(1.0, max(0.0, (step - self.start) / (self.end - self.start)))
        return self.from_ + (self.to - self.from_) * share


Weight = Annotated[
    Annotated[_Weight, Tag("[number]")] | Annotated[Ramp, Tag("[ramp]")],
    Discriminator(lambda value: "[ramp]" if isinstance(value, Mapping | Ramp) else "[number]"),
]
"""A weight, or its course over the steps."""


def weights_at(weights: Mapping[str, float | Ramp], step: int) -> dict[str, float]:
    """The weights in force at a training step: a function of the step alone, so that a resumed run repeats them."""
    return {name: weight.at(step) if isinstance(weight, Ramp) else weight for name, weight in weights.items()}


def final_weights(weights: Mapping[str, float | Ramp]) -> dict[str, float]:
    """The weights at the end of all ramps: those of validation, whose scores are compared between steps."""
    return {name: weight.to if isinstance(weight, Ramp) else weight for name, weight in weights.items()}


def is_ever_positive(weight: float | Ramp) -> bool:
    """Whether a weight is positive at some step."""
    return bool(weight.from_ or weight.to if isinstance(weight, Ramp) else weight)


def _all_weights(weights: Mapping[str, float | Ramp]) -> dict[str, float | Ramp]:
    """The weights of all terms; 0 for terms without one."""
    for name in weights:
        if name not in TERMS:
            raise ValueError(
                f"long_short.reward.{name} is no reward term; known terms are {', '.join(TERMS)}. Add a term to "
                "longshort_verl.rewards.TERMS in a module that VERL_USE_EXTERNAL_MODULES names"
            )
    if not any(map(is_ever_positive, weights.values())):
        raise ValueError("long_short.reward: all weights are 0; give at least one term a positive weight")
    return {name: weights.get(name, 0.0) for name in TERMS}


RewardWeights = Annotated[dict[str, Weight], AfterValidator(_all_weights)]
"""Weight of each term by name, a number or a :class:`Ramp`; the defaults are in ``config/longshort_rl.yaml``. Weight 0
leaves a term out."""


def format_term(dialogue: Dialogue, role: Role) -> float:
    """Share of the role's turns that are well-formed, in [0, 1]; 0 if it wrote none."""
    well_formed = [turn.parsed.kind is not None for turn in dialogue.turns if turn.role is role]
    return sum(well_formed) / len(well_formed) if well_formed else 0.0


def weighted_sum(terms: Mapping[str, float], weights: Mapping[str, float]) -> Reward:
    """Weighted sum of the terms with its breakdown.

    Raises:
        ValueError: a term of positive weight is missing or not finite. The run stops, because it would otherwise learn
            from another reward than configured.
    """
    used = {name: weight for name, weight in weights.items() if weight}
    for name in used:
        if terms.get(name) is None or not math.isfinite(terms[name]):
            raise ValueError(f"reward term {name!r} is {terms.get(name, 'missing')}; it has weight {used[name]}")
    return Reward(total=sum(weight * terms[name] for name, weight in used.items()), terms=dict(terms))


def group_rewards(outcomes: Sequence[Outcome], weights: Mapping[str, float]) -> list[Reward]:
    """Reward of every row, in order; group-relative terms compare rows of the same group and role.

    All rows must be live: a role that never spoke has nothing to reward, and would be the shortest row of its group.
    """
    groups: dict[tuple[Hashable, Role], list[int]] = defaultdict(list)
    for i, outcome in enumerate(outcomes):
        assert outcome.live, "rows without a turn and failed rows are left out of the groups"
        groups[outcome.group, outcome.role].append(i)
    terms: list[dict[str, float]] = [{} for _ in outcomes]
    for name, term in TERMS.items():
        if not (weights.get(name) or term.always_logged):
            continue
        for rows in groups.values():
            values = term.values([outcomes[i] for i in rows])
            if len(values) != len(rows):
                raise ValueError(f"reward term {name!r} has {len(values)} values for a group of {len(rows)} rows")
            for i, value in zip(rows, values, strict=True):
                terms[i][name] = value
    return [weighted_sum(row, weights) for row in terms]


def turn_advantages(scores: Mapping[str, Sequence[float]], groups: Mapping[str, Hashable]) -> dict[str, list[float]]:
    """Score of each measured turn minus the mean of its group's measured turns, by row.

    An unmeasured turn gets nothing, which equals the group's mean.
    """
    of_group: dict[Hashable, list[float]] = defaultdict(list)
    for row, values in scores.items():
        of_group[groups[row]] += values
    means = {group: sum(values) / len(values) for group, values in of_group.items() if values}
    return {row: [value - means[groups[row]] for value in values] for row, values in scores.items()}
