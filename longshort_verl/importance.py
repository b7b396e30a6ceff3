# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""How much each thought of a chain matters: a bounded metric over Monte-Carlo values of its prefixes.

Our reconstruction. The paper (arXiv 2505.11827) describes its metric, which joins effectiveness and efficiency and
decays with the length of the context, and says that it is bounded; its formula is not public. With p_i the probability
that a model answers correctly after the problem and the thoughts y_1 … y_i, ℓ_i the tokens of y_i, C_i those of
y_1 … y_i and n thoughts::

    M_i = δ_i · (p_i − p_{i−1}) − λ · ℓ_i / C_n ,      δ_i = exp(−γ · C_{i−1} / C_n)

so that −1 − λ ≤ M_i ≤ 1, and for γ = 0 the sum over i is p_n − p_0 − λ. The p_i are estimated by rollouts; every
estimate here comes with an interval, and M_i with the interval that follows from its two.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from scipy.optimize import root_scalar
from scipy.special import betaln, xlog1py, xlogy


class Metric(str, Enum):
    """Which form of the metric; all but the first are ablations."""

    LONG_SHORT = "long_short"
    """M_i as above."""
    NO_DECAY = "no_decay"
    """γ = 0: the place of a thought counts for nothing."""
    GAIN = "gain"
    """p_i − p_{i−1}."""
    GAIN_PER_TOKEN = "gain_per_token"
    """(p_i − p_{i−1}) / ℓ_i."""


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """Form and constants of the metric. No defaults here: they live in ``longshort_verl/config``."""

    metric: Metric
    """Which form."""
    decay: float
    """γ ≥ 0: how fast the gain of later thoughts is discounted. Used by ``long_short`` alone."""
    length_weight: float
    """λ ≥ 0: what a thought as long as the whole chain costs. Used by ``long_short`` and ``no_decay``."""
    alpha: float
    """All intervals of a trace hold together with probability at least 1 − α."""

    def __post_init__(self) -> None:
        for name in ("decay", "length_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"importance: {name} is {value!r}; give a number of at least 0")
        if not 0 < self.alpha < 1:
            raise ValueError(f"importance: alpha is {self.alpha!r}; give a number between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Value:
    """Estimate of one p_i."""

    num_right: int
    """Rollouts that ended in the right answer."""
    num_rollouts: int
    """Rollouts in all; 0 where none were made, and the value is read off its neighbours."""
    mean: float
    """The estimate; the share of right rollouts, but where :func:`pool` or :func:`interpolate` say otherwise."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What one thought is worth."""

    score: float
    """M_i, in the form of ``MetricSettings.metric``."""
    low: float
    """Lower end of the interval of ``score``."""
    high: float
    """Upper end of the interval of ``score``."""
    gain: float
    """p_i − p_{i−1}."""
    decay: float
    """δ_i; 1 where the form has none."""
    length_share: float
    """ℓ_i / C_n."""


def hoeffding(num_right: int, num_rollouts: int, alpha: float) -> Value:
    """Estimate from a number of rollouts that was fixed before: p̂ ± sqrt(ln(2/α) / 2N), cut to [0, 1]."""
    _check_counts(num_right, num_rollouts)
    mean = num_right / num_rollouts
    half = math.sqrt(math.log(2 / alpha) / (2 * num_rollouts))
    return Value(
        num_right=num_right,
        num_rollouts=num_rollouts,
        mean=mean,
        low=max(0.0, mean - half),
        high=min(1.0, mean + half),
    )


def anytime(num_right: int, num_rollouts: int, alpha: float) -> Value:
    """Estimate whose interval holds at every N at once, so that sampling may stop as soon as it pleases.

    With k right of N, the p for which (N + 1) · P(k | N, p) > α. Under p, the uniform mixture over its likelihood is a
    martingale with mean 1, so that the chance of it ever reaching 1/α is at most α (Ville's inequality; Robbins 1970).
    """
    _check_counts(num_right, num_rollouts)
    return Value(
        num_right=num_right,
        num_rollouts=num_rollouts,
        mean=num_right / num_rollouts,
        low=_lower(num_right, num_rollouts, alpha),
        high=1.0 - _lower(num_rollouts - num_right, num_rollouts, alpha),
    )


@functools.lru_cache(maxsize=1 << 16)  # a run sees few different counts
def _lower(num_right: int, num_rollouts: int, alpha: float) -> float:
    if num_right == 0:
        return 0.0
    wrong = num_rollouts - num_right

    def excess(p: float) -> float:
        """ln of the mixture ∫ q^k (1−q)^(N−k) dq over the likelihood at p, less ln 1/α."""
        return betaln(num_right + 1, wrong + 1) - xlogy(num_right, p) - xlog1py(wrong, -p) + math.log(alpha)

    return float(root_scalar(excess, bracket=(1e-300, num_right / num_rollouts), method="brentq").root)


def pool(values: Sequence[Value | None], likelihoods: Sequence[float]) -> list[Value | None]:
    """Values whose estimates borrow from the gold answer's likelihood, as far as it proves itself on this trace.

    A forced rollout draws an answer from the model, so how likely the gold answer is says nearly how often rollouts are
    right: more often, where an answer has several spellings. Beta-binomial shrinkage: at likelihood L the prior of a
    value is Beta(κL, κ(1 − L)), with the κ under which the trace's own rollouts are most likely; where a uniform prior
    explains them better, nothing is borrowed. Counts and intervals stay those of the rollouts alone, and an estimate
    never leaves its interval.

    Args:
        values: of the prefixes of 0, 1, …, n thoughts; None where there were no rollouts.
        likelihoods: of the gold answer after each prefix, in [0, 1].
    """
    priors = [min(_SURE, max(1 - _SURE, likelihood)) for likelihood in likelihoods]
    seen = [(value, prior) for value, prior in zip(values, priors, strict=True) if value is not None]

    def evidence(concentration: float) -> float:
        """ln of the chance of all counts, but for a constant."""
        return sum(
            betaln(
                value.num_right + concentration * prior,
                value.num_rollouts - value.num_right + concentration * (1 - prior),
            )
            - betaln(concentration * prior, concentration * (1 - prior))
            for value, prior in seen
        )

    best = max(_CONCENTRATIONS, key=evidence)
    uniform = sum(betaln(value.num_right + 1, value.num_rollouts - value.num_right + 1) for value, _ in seen)
    if evidence(best) <= uniform:
        return list(values)
    pooled: list[Value | None] = []
    for value, prior in zip(values, priors, strict=True):
        if value is not None:
            mean = (value.num_right + best * prior) / (value.num_rollouts + best)
            value = replace(value, mean=min(value.high, max(value.low, mean)))
        pooled.append(value)
    return pooled


_CONCENTRATIONS = (1.0, 4.0, 16.0, 64.0, 256.0)
_SURE = 0.999
"""A likelihood nearer to 1, or its like at 0, would let one odd rollout outweigh all others."""


def _check_counts(num_right: int, num_rollouts: int) -> None:
    if not 0 <= num_right <= num_rollouts or num_rollouts < 1:
        raise ValueError(
            f"{num_right} right of {num_rollouts} rollouts; give at least one rollout, right ones among them"
        )


def interpolate(
    values: Sequence[Value | None], lengths: Sequence[int], likelihoods: Sequence[float] | None = None
) -> list[Value]:
    """Values of all prefixes of a trace; those in between that were not visited are read off their neighbours.

    Which values may stay unvisited is the sampler's decision; here the first and the last must be known. Between two
    visited values the others follow the likelihood of the gold answer where it is known and differs between the two,
    else the tokens. The interval of an unvisited value reaches over both neighbours': right where the value runs
    monotonously between them.

    Args:
        values: of the prefixes of 0, 1, …, n thoughts; None where there were no rollouts.
        lengths: tokens of the n thoughts.
        likelihoods: of the gold answer after each prefix, in [0, 1].

    Raises:
        ValueError: the first or the last value is missing, or there are not n + 1 of them.
    """
    if len(values) != len(lengths) + 1:
        raise ValueError(f"{len(values)} values for {len(lengths)} thoughts; give one more than there are thoughts")
    if values[0] is None or values[-1] is None:
        raise ValueError("the first and the last value of a trace must be known")
    places = [0, *itertools.accumulate(lengths)]
    visited = [(i, value) for i, value in enumerate(values) if value is not None]
    filled = [value for _, value in visited[:1]]
    for (before, old), (after, new) in itertools.pairwise(visited):
        scale = places
        if likelihoods is not None and abs(likelihoods[after] - likelihoods[before]) > _FLAT:
            scale = likelihoods
        for i in range(before + 1, after):
            way = (scale[i] - scale[before]) / (scale[after] - scale[before])
            filled.append(
                Value(
                    num_right=0,
                    num_rollouts=0,
                    mean=old.mean + (new.mean - old.mean) * min(1.0, max(0.0, way)),
                    low=min(old.low, new.low),
                    high=max(old.high, new.high),
                )
            )
        filled.append(new)
    return filled


_FLAT = 1e-3
"""Likelihoods that differ by less say nothing about where a value changes."""


def importance(values: Sequence[Value], lengths: Sequence[int], settings: MetricSettings) -> list[Importance]:
    """The importance of each thought of one trace.

    Args:
        values: of the prefixes of 0, 1, …, n thoughts (see :func:`interpolate`).
        lengths: tokens of the n thoughts, each at least 1.

    Raises:
        ValueError: the numbers of values and thoughts do not fit, or a thought has no token.
    """
    if len(values) != len(lengths) + 1:
        raise ValueError(f"{len(values)} values for {len(lengths)} thoughts; give one more than there are thoughts")
    if any(length < 1 for length in lengths):
        raise ValueError(f"thought lengths are {list(lengths)}; each thought has at least 1 token")
    total, before, scores = sum(lengths), 0, []
    for length, (old, new) in zip(lengths, itertools.pairwise(values), strict=True):
        decay = math.exp(-settings.decay * before / total) if settings.metric is Metric.LONG_SHORT else 1.0
        share = length / total
        scale = decay / length if settings.metric is Metric.GAIN_PER_TOKEN else decay
        cost = settings.length_weight * share if settings.metric in (Metric.LONG_SHORT, Metric.NO_DECAY) else 0.0
        scores.append(
            Importance(
                score=scale * (new.mean - old.mean) - cost,
                low=scale * (new.low - old.high) - cost,
                high=scale * (new.high - old.low) - cost,
                gain=new.mean - old.mean,
                decay=decay,
                length_share=share,
            )
        )
        before += length
    return scores


def value_alpha(settings: MetricSettings, num_thoughts: int) -> float:
    """Share of α that each of a trace's n + 1 values gets, so that all their intervals hold together."""
    return settings.alpha / (num_thoughts + 1)
