# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Single numbers for accuracy and tokens together, and how sure they are. Plain functions on arrays.

Problem sets weigh alike: a value is the mean of the sets' means. Intervals come from resampling the problems within
each set; resamples are the same for all that is given in the same shape, so that differences of resamples are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

AES_WEIGHTS = (1.0, 3.0, 5.0)
"""Of tokens saved, of accuracy won, of accuracy lost (O1-Pruner, arXiv 2501.12570, as recomputed by DOT's table)."""
AES_NAME = "/".join(f"{weight:g}" for weight in AES_WEIGHTS)
"""The weights as tables print them."""
FRONTIER: Mapping[str, Mapping[int, float]] = {
    "aime_2024": {1024: 0.235, 2048: 0.343, 4096: 0.474, 8192: 0.559, 16384: 0.657, 32768: 0.676},
    "aime_2025": {1024: 0.191, 2048: 0.272, 4096: 0.348, 8192: 0.441, 16384: 0.507, 32768: 0.536},
    "amc_2023": {1024: 0.719, 2048: 0.825, 4096: 0.882, 8192: 0.919, 16384: 0.944, 32768: 0.945},
}
"""Best public accuracy of models from DeepSeek-R1-Distill-Qwen-7B under a hard cap on tokens, by problem set (REO-RL,
arXiv 2506.07104, samjia2000/Optimal-Reasoning-Efficiency, data/frontiers). It says nothing of other base models."""

_RESAMPLES = 10_000
_LEVEL = 0.95


def resampled_mean(values: Sequence[np.ndarray]) -> np.ndarray:
    """Of each of 10,000 resamples, the mean over sets of the mean over problems.

    Args:
        values: an array for each set, a value a problem.
    """
    from scipy.stats import bootstrap

    found = np.zeros(_RESAMPLES)
    for number, one in enumerate(values):
        if np.ptp(one) == 0:  # scipy warns of it
            found += one[0]
            continue
        resampled = bootstrap(
            (one,),
            np.mean,
            n_resamples=_RESAMPLES,
            batch=500,
            method="percentile",
            # Not the same for all sets, whose problems have nothing to do with each other.
            rng=np.random.default_rng(number),
        )
        found += resampled.bootstrap_distribution
    return found / len(values)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """95 % interval by percentiles; resamples that are NaN stay out."""
    low, high = np.nanpercentile(resampled, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return float(low), float(high)


def verdict(found: tuple[float, float]) -> str:
    """What the interval of a difference allows to say of it."""
    low, high = found
    return "higher" if low > 0 else "lower" if high < 0 else "no difference"


def aes(accuracy: float, base_accuracy: float, saved: float) -> float:
    """Accuracy-efficiency score (O1-Pruner, arXiv 2501.12570): relative tokens saved, and accuracy won or lost.

    Args:
        accuracy: of the system, in [0, 1].
        base_accuracy: of the reference, above 0.
        saved: share of the reference's tokens that it does not need.

    Raises:
        ValueError: the reference is never right, so that nothing is relative to it.
    """
    if not base_accuracy > 0:
        raise ValueError("the reference answers nothing right: AES is relative to its accuracy")
    return float(aes_of(np.array(accuracy), np.array(base_accuracy), np.array(saved)))


def aes_of(accuracy: np.ndarray, base_accuracy: np.ndarray, saved: np.ndarray) -> np.ndarray:
    """:func:`aes` of arrays; NaN where the reference is never right."""
    relative = np.divide(accuracy, base_accuracy, out=np.full_like(accuracy, np.nan), where=base_accuracy > 0)
    tokens, won, lost = AES_WEIGHTS
    return tokens * saved + np.where(relative >= 1, won, lost) * (relative - 1)


def area_under_budget_curve(right: np.ndarray, num_tokens: np.ndarray, longest: float) -> float:
    """Mean accuracy over all hard caps from 0 to ``longest`` tokens, in [0, 1] (after AUC_OAA of OptimalThinkingBench).

    Exact: an answer counts from its own length on.

    Args:
        right: 0 or 1 for each reply.
        num_tokens: of each reply.
        longest: the largest cap, above 0.
    """
    return float(np.mean(right * np.clip(1 - num_tokens / longest, 0, None)))


def frontier_gap(problem_set: str, right: np.ndarray, num_tokens: np.ndarray) -> float | None:
    """Mean over the caps of :data:`FRONTIER` of its accuracy less the one here; negative is beyond the public frontier.

    The sum over caps of the same is REG (REO-RL). None for a set that has no frontier.
    """
    frontier = FRONTIER.get(problem_set)
    if frontier is None:
        return None
    return float(np.mean([best - np.mean(right * (num_tokens <= cap)) for cap, best in frontier.items()]))
