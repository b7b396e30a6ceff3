# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The importance metric, for the thoughts of a chain and for the long role's turns in a dialogue.

``paper``, the default, is Eq. 1 of the paper (arXiv 2505.11827, section 3.2). With p_i the probability of a right
answer after the problem and the thoughts y_1 … y_i, ℓ_i the tokens of y_i, C_i those of y_1 … y_i and n thoughts::

    M_i = log2(1 + T1_i · T2_i · p_i) − δ_i ,      T1_i = (C_n − C_i) / C_n ,      T2_i = (C_n − ℓ_i) / C_n

with δ_i = δ where p_i ≤ p_{i−1}, else 0. Therefore −δ ≤ M_i ≤ 1, and the last thought has M_n = 0 or −δ.

``gain_decay`` is ours. It rewards the gain of a thought, where the paper rewards the accuracy after it::

    M_i = γ_i · (p_i − p_{i−1}) − λ · ℓ_i / C_n ,      γ_i = exp(−γ · C_{i−1} / C_n)

Therefore −1 − λ ≤ M_i ≤ 1, and with γ = 0 the sum over i is p_n − p_0 − λ.

Rollouts estimate the p_i; every estimate has an interval, and the interval of M_i follows from those of p_i and
p_{i−1}. The paper's own bound (Eq. 2–5), |M − M_opt| ≤ ε / ln 2 for |p̂_i − p_i| ≤ ε, holds where estimate and truth
switch δ alike. Our interval is wider by δ where the intervals leave the sign of p_i − p_{i−1} open.

To add a metric, register a function in a module of your own::

    from longshort_verl.importance import METRICS
    METRICS["mine"] = lambda values, lengths, settings: [...]   # one Importance per thought

Then set ``metric.metric=mine`` (``long_short.importance.metric.metric=mine`` in RL) and the environment variable
``VERL_USE_EXTERNAL_MODULES=your_module``: verl imports these modules in every process, and the commands of this package
import them when they meet an unknown metric.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from dataclasses import dataclass as plain_dataclass
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from scipy.optimize import root_scalar
from scipy.special import betaln, xlog1py, xlogy

from longshort_verl.types import Counts, Importance, Value


def _known_metric(name: str) -> str:
    if name not in METRICS:
        for module in filter(None, os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")):
            importlib.import_module(module.strip())
    if name not in METRICS:
        raise ValueError(
            f"unknown metric {name!r}; known metrics are {', '.join(sorted(METRICS))}. To use another, register it in "
            "a module (see longshort_verl.importance) and set VERL_USE_EXTERNAL_MODULES to the module"
        )
    return name


class First(str, Enum):
    """With what Eq. 1 compares thought 1, which the paper does not say."""

    COMPARE = "compare"
    """With the rollouts after no thought."""
    NEVER_PENALISED = "never_penalised"
    """With nothing: its δ is 0."""


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """Form and constants of the metric. The defaults are in ``config/longshort_metric.yaml``."""

    metric: Annotated[str, AfterValidator(_known_metric)]
    """Name in ``METRICS``."""
    penalty: Annotated[float, Field(ge=0, lt=1)]
    """δ of Eq. 1: subtracted where a thought does not raise the accuracy. Used by ``paper``."""
    first: First
    """Whether thought 1 can be penalised. Used by ``paper``."""
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """γ: how fast the gain of later thoughts is discounted. Used by ``gain_decay``."""
    length_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """λ: the cost of a thought as long as the whole chain. Used by ``gain_decay`` and ``no_decay``."""
    alpha: Annotated[float, Field(gt=0, lt=1)]
    """All intervals of a chain hold together with probability at least 1 − α."""


# --- values ---------------------------------------------------------------------------------------------------------


def value_alpha(settings: MetricSettings, num_thoughts: int) -> float:
    """Each value's share of α, so that the intervals of a chain's n + 1 values hold together (union bound)."""
    return settings.alpha / (num_thoughts + 1)


def hoeffding(num_right: int, num_rollouts: int, alpha: float) -> Value:
    """Estimate from a number of rollouts fixed in advance: p̂ ± sqrt(ln(2/α) / 2N), cut to [0, 1]."""
    _check_counts(num_right, num_rollouts)
    mean = num_right / num_rollouts
    half = math.sqrt(math.log(2 / alpha) / (2 * num_rollouts))
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return Value(num_right=num_right, num_rollouts=num_rollouts, mean=mean, low=low, high=high)


def anytime(num_right: int, num_rollouts: int, alpha: float) -> Value:
    """Estimate with an interval that holds at every N at once, so that sampling may stop at any time.

    The interval is the set of p with (N + 1) · P(k | N, p) > α, for k right rollouts of N. Under p, the uniform mixture
    over its likelihood is a martingale with mean 1, so it ever reaches 1/α with probability at most α (Ville's
    inequality; Robbins 1970).
    """
    _check_counts(num_right, num_rollouts)
    mean, low = num_right / num_rollouts, _lower(num_right, num_rollouts, alpha)
    high = 1.0 - _lower(num_rollouts - num_right, num_rollouts, alpha)
    return Value(num_right=num_right, num_rollouts=num_rollouts, mean=mean, low=low, high=high)


@functools.lru_cache(maxsize=1 << 16)  # a run has few different counts
def _lower(num_right: int, num_rollouts: int, alpha: float) -> float:
    if num_right == 0:
        return 0.0
    wrong = num_rollouts - num_right

    def excess(p: float) -> float:
        """ln of the mixture ∫ q^k (1−q)^(N−k) dq over the likelihood at p, minus ln 1/α."""
        return betaln(num_right + 1, wrong + 1) - xlogy(num_right, p) - xlog1py(wrong, -p) + math.log(alpha)

    return float(root_scalar(excess, bracket=(1e-300, num_right / num_rollouts), method="brentq").root)


def _check_counts(num_right: int, num_rollouts: int) -> None:
    if not 0 <= num_right <= num_rollouts or num_rollouts < 1:
        raise ValueError(f"{num_right} right of {num_rollouts} rollouts; give at least 1 rollout, and no more right")


def pool(values: Sequence[Value | None], likelihoods: Sequence[float]) -> list[Value | None]:
    """Values shrunk towards the gold answer's likelihood, as far as the chain's own rollouts support it.

    A forced rollout draws an answer from the model, so the likelihood of the gold answer predicts the share of right
    rollouts (from below, if the answer has several spellings). Beta-binomial shrinkage: at likelihood L the prior of a
    value is Beta(κL, κ(1 − L)), with the κ that maximises the likelihood of the chain's rollouts. If a uniform prior
    explains the rollouts better, the values are unchanged. Counts and intervals stay those of the rollouts, and an
    estimate stays in its interval.

    Args:
        values: after 0, 1, …, n thoughts; None without rollouts.
        likelihoods: of the gold answer after each prefix, in [0, 1].
    """
    priors = [min(_SURE, max(1 - _SURE, likelihood)) for likelihood in likelihoods]
    seen = [(value, prior) for value, prior in zip(values, priors, strict=True) if value is not None]

    def evidence(concentration: float) -> float:
        """ln of the probability of all counts, up to a constant."""
        total = 0.0
        for value, prior in seen:
            a, b = concentration * prior, concentration * (1 - prior)
            total += betaln(value.num_right + a, value.num_rollouts - value.num_right + b) - betaln(a, b)
        return total

    best = max(_CONCENTRATIONS, key=evidence)
    uniform = sum(betaln(value.num_right + 1, value.num_rollouts - value.num_right + 1) for value, _ in seen)
    if evidence(best) <= uniform:
        return list(values)

    def shrunk(value: Value, prior: float) -> Value:
        mean = (value.num_right + best * prior) / (value.num_rollouts + best)
        return replace(value, mean=min(value.high, max(value.low, mean)))

    return [value and shrunk(value, prior) for value, prior in zip(values, priors, strict=True)]


_CONCENTRATIONS = (1.0, 4.0, 16.0, 64.0, 256.0)
_SURE = 0.999
"""Likelihoods are cut to [1 − _SURE, _SURE]: beyond, one odd rollout would outweigh all others."""


def interpolate(
    values: Sequence[Value | None], lengths: Sequence[int], likelihoods: Sequence[float] | None = None
) -> list[Value]:
    """Values of all prefixes of a chain, the unvisited ones interpolated between their visited neighbours.

    Interpolation follows the likelihood of the gold answer if it is known and differs between the two neighbours, else
    the tokens. The interval of an unvisited value is the union of its neighbours' intervals, which is right if the
    value is monotonous between them.

    Args:
        values: after 0, 1, …, n thoughts; None without rollouts.
        lengths: tokens of the n thoughts.
        likelihoods: as in :func:`pool`.

    Raises:
        ValueError: the first or the last value is missing, or there are not n + 1 values.
    """
    _check_lengths(values, lengths)
    if values[0] is None or values[-1] is None:
        raise ValueError("the first and the last value of a chain must be known")
    places = [0, *itertools.accumulate(lengths)]
    visited = [(i, value) for i, value in enumerate(values) if value is not None]
    filled = [value for _, value in visited[:1]]
    for (before, old), (after, new) in itertools.pairwise(visited):
        scale = places
        if likelihoods is not None and abs(likelihoods[after] - likelihoods[before]) > _FLAT:
            scale = likelihoods
        for i in range(before + 1, after):
            way = (scale[i] - scale[before]) / (scale[after] - scale[before])
            mean = old.mean + (new.mean - old.mean) * min(1.0, max(0.0, way))
            low, high = min(old.low, new.low), max(old.high, new.high)
            filled.append(Value(num_right=0, num_rollouts=0, mean=mean, low=low, high=high))
        filled.append(new)
    return filled


_FLAT = 1e-3
"""A smaller difference of likelihoods does not locate a change of the value."""


def _check_lengths(values: Sequence[Value | None], lengths: Sequence[int]) -> None:
    if len(values) != len(lengths) + 1:
        raise ValueError(f"{len(values)} values for {len(lengths)} thoughts; give one more value than thoughts")


# --- the metric -----------------------------------------------------------------------------------------------------


def importance(values: Sequence[Value], lengths: Sequence[int], settings: MetricSettings) -> list[Importance]:
    """The importance of each of n thoughts, by their tokens and the n + 1 values (see :func:`interpolate`).

    Raises:
        ValueError: the number of values does not fit the number of thoughts, or a thought has no token.
    """
    _check_lengths(values, lengths)
    if any(length < 1 for length in lengths):
        raise ValueError(f"thought lengths are {list(lengths)}; each thought has at least 1 token")
    return METRICS[settings.metric](values, lengths, settings)


def length_factors(lengths: Sequence[int]) -> list[float]:
    """T1 · T2 of each thought (Eq. 1): falls with the tokens up to its end, and with its own tokens."""
    total = sum(lengths)
    ends = itertools.accumulate(lengths)
    return [(total - end) / total * ((total - length) / total) for end, length in zip(ends, lengths, strict=True)]


def effectiveness(factor: float, accuracy: float) -> float:
    """log2(1 + T1 · T2 · p), Eq. 1 without its penalty; with ``accuracy`` 1 the bound of a thought's importance."""
    return math.log2(1 + factor * accuracy)


def _paper(values: Sequence[Value], lengths: Sequence[int], settings: MetricSettings) -> list[Importance]:
    """Eq. 1; the interval is wider by δ where those of the values leave open whether δ is on."""
    total, scores = sum(lengths), []
    rows = zip(lengths, length_factors(lengths), itertools.pairwise(values), strict=True)
    for number, (length, factor, (old, new)) in enumerate(rows):
        free = number == 0 and settings.first is First.NEVER_PENALISED
        penalty = 0.0 if free else settings.penalty
        scores.append(
            Importance(
                score=effectiveness(factor, new.mean) - penalty * (new.mean <= old.mean),
                low=effectiveness(factor, new.low) - penalty * (new.low <= old.high),
                high=effectiveness(factor, new.high) - penalty * (new.high <= old.low),
                gain=new.mean - old.mean,
                decay=factor,
                length_share=length / total,
            )
        )
    return scores


def _gains(
    values: Sequence[Value],
    lengths: Sequence[int],
    decay: float = 0.0,
    length_weight: float = 0.0,
    per_token: bool = False,
) -> list[Importance]:
    """γ_i · (p_i − p_{i−1}) − λ · ℓ_i / C_n, or the same with the first term per token."""
    total, before, scores = sum(lengths), 0, []
    for length, (old, new) in zip(lengths, itertools.pairwise(values), strict=True):
        factor = math.exp(-decay * before / total)
        share = length / total
        scale = factor / length if per_token else factor
        cost = length_weight * share
        scores.append(
            Importance(
                score=scale * (new.mean - old.mean) - cost,
                low=scale * (new.low - old.high) - cost,
                high=scale * (new.high - old.low) - cost,
                gain=new.mean - old.mean,
                decay=factor,
                length_share=share,
            )
        )
        before += length
    return scores


Metric = Callable[[Sequence[Value], Sequence[int], MetricSettings], list[Importance]]
"""From the values after 0, 1, …, n thoughts and the tokens of the n thoughts to the importance of each thought."""

METRICS: dict[str, Metric] = {
    # Eq. 1.
    "paper": _paper,
    # Ours, as above.
    "gain_decay": lambda values, lengths, s: _gains(values, lengths, decay=s.decay, length_weight=s.length_weight),
    # γ = 0: the position of a thought does not matter.
    "no_decay": lambda values, lengths, s: _gains(values, lengths, length_weight=s.length_weight),
    # p_i − p_{i−1}.
    "gain": lambda values, lengths, s: _gains(values, lengths),
    # (p_i − p_{i−1}) / ℓ_i.
    "gain_per_token": lambda values, lengths, s: _gains(values, lengths, per_token=True),
}
"""Metrics by name; all except the first are ours, and ablations."""


# --- turns of a dialogue --------------------------------------------------------------------------------------------


class Credit(str, Enum):
    """Where the importance of turns is credited."""

    ROW = "row"
    """Summed over the turns, in the row's reward."""
    TURN = "turn"
    """In the advantages of each turn's own tokens."""


@dataclass(frozen=True, kw_only=True)
class ImportanceRewardSettings:
    """How turns are measured; ``config/longshort_rl.yaml`` documents every setting."""

    group_share: Annotated[float, Field(gt=0, le=1)]
    num_rollouts: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    max_dialogue_tokens: int
    forcing_text: Annotated[str, Field(min_length=1)]
    stop: tuple[str, ...]
    credit: Credit
    metric: MetricSettings

    def __post_init__(self) -> None:
        if self.max_boundaries < 2:
            raise ValueError(
                f"long_short.importance.max_dialogue_tokens is {self.max_dialogue_tokens}, less than "
                f"{self.num_rollouts} rollouts of {self.max_tokens} tokens before a turn and as many after it; no turn "
                f"could be measured. Raise it to at least {2 * self.num_rollouts * self.max_tokens}"
            )

    @property
    def max_boundaries(self) -> int:
        """Boundaries whose rollouts fit in ``max_dialogue_tokens``."""
        return self.max_dialogue_tokens // (self.num_rollouts * self.max_tokens)


@plain_dataclass(frozen=True, kw_only=True)
class MeasuredTurns:
    """What was measured of the long role's turns in one dialogue, on its way from rollout to reward to trainer."""

    lengths: tuple[int, ...] = ()
    """Tokens of each long turn."""
    ends_with_long: bool = False
    """Whether the dialogue ended with a long turn that no answer could follow."""
    replies: tuple[tuple[str, ...], ...] = ()
    """Texts of the rollouts before the first long turn, after it, after the second, …; empty once graded."""
    num_tokens: int = 0
    """Generated tokens of the rollouts."""
    wait_s: float = 0.0
    """Seconds that the dialogue waited for its rollouts after its last turn."""
    importances: tuple[Importance, ...] = ()
    """Of the first long turns, as far as measured; empty until graded."""

    def graded(self, right: Mapping[str, bool], settings: MetricSettings) -> MeasuredTurns:
        """With the importance in place of the replies; ``right`` maps each of their texts to whether it is right."""
        counts = [
            Counts(num_right=sum(right[text] for text in texts), num_rollouts=len(texts)) for texts in self.replies
        ]
        found = turn_importances(counts, self.lengths, ends_with_long=self.ends_with_long, settings=settings)
        return replace(self, replies=(), importances=tuple(found))

    @property
    def score(self) -> float:
        """Sum of the turns' importance."""
        return sum(importance.score for importance in self.importances)

    def to_json(self) -> str:
        """As text, which verl's batches and validation accept as a value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MeasuredTurns:
        """The inverse of :meth:`to_json`."""
        fields = json.loads(text)
        fields["lengths"] = tuple(fields["lengths"])
        fields["replies"] = tuple(map(tuple, fields["replies"]))
        fields["importances"] = tuple(Importance(**importance) for importance in fields["importances"])
        return cls(**fields)


def is_measured(name: str, share: float) -> bool:
    """Whether the group of that name belongs to the measured share; deterministic."""
    return zlib.crc32(name.encode()) < share * 2**32


def turn_importances(
    counts: Sequence[Counts], lengths: Sequence[int], *, ends_with_long: bool, settings: MetricSettings
) -> list[Importance]:
    """The importance of the long role's first turns, as far as boundaries were measured.

    The value before and after a turn is the share of right answers when the short model must answer at once.

    Args:
        counts: rollouts before the first turn, and after the first, second, …; none of them empty.
        lengths: tokens of each long turn; fewer turns are returned if ``counts`` ends early.
        ends_with_long: whether no answer can follow the last turn. Its value is then 0, without rollouts.
    """
    alpha = value_alpha(settings, len(lengths))
    values = [hoeffding(count.num_right, count.num_rollouts, alpha) for count in counts]
    if ends_with_long and len(values) == len(lengths):
        values.append(Value(num_right=0, num_rollouts=0, mean=0.0, low=0.0, high=0.0))
    known = len(values) - 1
    if known < 1:
        return []
    # Later values are unknown and cut off again; the lengths of all turns count, as in a chain of thought.
    values += [values[-1]] * (len(lengths) - known)
    return importance(values, lengths, settings)[:known]
