# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of accuracy and tokens together, and bootstrap intervals, as functions of arrays.

Every problem set has the same weight: a value is the mean of the sets' means. Intervals come from resampling the
problems within each set. Arrays of the same shape get the same resamples, so that differences of resamples are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

AES_WEIGHTS = (1.0, 3.0, 5.0)
"""Weights of tokens saved, accuracy won and accuracy lost (O1-Pruner, arXiv 2501.12570, as in DOT's table)."""
AES_NAME = "/".join(f"{weight:g}" for weight in AES_WEIGHTS)
"""The weights as tables print them."""
FRONTIER: Mapping[str, Mapping[int, float]] = {
    "aime_2024": {1024: 0.235, 2048: 0.343, 4096: 0.474, 8192: 0.559, 16384: 0.657, 32768: 0.676},
    "aime_2025": {1024: 0.191, 2048: 0.272, 4096: 0.348, 8192: 0.441, 16384: 0.507, 32768: 0.536},
    "amc_2023": {1024: 0.719, 2048: 0.825, 4096: 0.882, 8192: 0.919, 16384: 0.944, 32768: 0.945},
}
"""Best public accuracy of models from DeepSeek-R1-Distill-Qwen-7B under a hard cap on tokens, by problem set (REO-RL,
arXiv 2506.07104, samjia2000/Optimal-Reasoning-Efficiency, data/frontiers). Not comparable with other base models."""

_RESAMPLES = 10_000
_LEVEL = 0.95


def resampled_mean(values: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over sets of the mean over problems, for each resample. ``values``: per set one value per problem."""
    from scipy.stats import bootstrap

    found = np.zeros(_RESAMPLES)
    for number, one in enumerate(values):
        if np.ptp(one) == 0:  # scipy would warn
            found += one[0]
            continue
        rng = np.random.default_rng(number)  # sets are resampled independently
        resampled = bootstrap((one,), np.mean, n_resamples=_RESAMPLES, batch=500, method="percentile", rng=rng)
        found += resampled.bootstrap_distribution
    return found / len(values)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """95 % interval by percentiles; NaN is ignored."""
    low, high = np.nanpercentile(resampled, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return float(low), float(high)


def verdict(found: tuple[float, float]) -> str:
    """``higher``, ``lower`` or ``no difference``, by the interval of a difference."""
    low, high = found
    return "higher" if low > 0 else "lower" if high < 0 else "no difference"


def aes(accuracy: ArrayLike, base_accuracy: ArrayLike, saved: ArrayLike) -> np.ndarray:
    """Accuracy-efficiency score (O1-Pruner, arXiv 2501.12570): relative tokens saved, and accuracy won or lost.

    ``saved`` is the share of the reference's tokens that the system saves. NaN where the reference is never right.
    """
    accuracy, base_accuracy = np.asarray(accuracy, float), np.asarray(base_accuracy, float)
    relative = np.divide(accuracy, base_accuracy, out=np.full_like(accuracy, np.nan), where=base_accuracy > 0)
    tokens, won, lost = AES_WEIGHTS
    return tokens * np.asarray(saved) + np.where(relative >= 1, won, lost) * (relative - 1)


def area_under_budget_curve(right: np.ndarray, num_tokens: np.ndarray, longest: float) -> float:
    """Mean accuracy over all hard caps from 0 to ``longest`` tokens, in [0, 1] (after AUC_OAA of OptimalThinkingBench).

    Exact: a right reply counts under every cap from its own length on. ``right`` is 0 or 1 per reply.
    """
    return float(np.mean(right * np.clip(1 - num_tokens / longest, 0, None)))


def frontier_gap(problem_set: str, right: np.ndarray, num_tokens: np.ndarray) -> float | None:
    """Mean over the caps of :data:`FRONTIER` of the frontier's accuracy minus this one; negative beats the frontier.

    REG of REO-RL is the sum over the caps. None for a set without a frontier.
    """
    frontier = FRONTIER.get(problem_set)
    if frontier is None:
        return None
    return float(np.mean([best - np.mean(right * (num_tokens <= cap)) for cap, best in frontier.items()]))
