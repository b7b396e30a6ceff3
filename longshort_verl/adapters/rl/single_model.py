# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The baseline of a single model under verl's own trainer, with rewards for accuracy and length.

``config/longshort_single.yaml`` names its two parts: the reward function and the advantage estimator. The estimator
adds the length term, because it knows the group of a prompt.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est

from longshort_verl.grading import GradingSettings, grade
from longshort_verl.rewards import length_terms

ESTIMATOR = "longshort_single"
"""Value of ``algorithm.adv_estimator``."""


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **grading: Any
) -> dict[str, float]:
    """verl's custom reward function: 1 for a correct last box, else 0. ``grading`` is ``longshort_grading.yaml``."""
    accuracy = float(grade(solution_str, ground_truth, GradingSettings(**grading)).correct)
    return {"score": accuracy, "acc": accuracy}


@register_adv_est(ESTIMATOR)
def single_model_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any,
    index: np.ndarray,
    **unused: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """GRPO advantages of accuracy plus the weighted length term, both within the prompt's group.

    The length term is that of the pair (:func:`longshort_verl.rewards.length_terms`), over all generated tokens.
    Rewards, mask and the equal advantages and returns are (replies, tokens); ``config`` is the section ``algorithm``.

    Raises:
        ValueError: ``algorithm.length_weight`` is missing, negative or not finite.
    """
    weight = config.get("length_weight")
    if not isinstance(weight, (int, float)) or not (math.isfinite(weight) and weight >= 0):
        raise ValueError(
            f"algorithm.length_weight is {weight!r}; set it to a finite number of at least 0, as longshort_single.yaml "
            "does"
        )
    correct = (token_level_rewards.sum(dim=-1) > 0).tolist()
    num_tokens = [int(number) for number in response_mask.sum(dim=-1).tolist()]
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, name in enumerate(index):
        groups[name].append(i)
    lengths = torch.zeros_like(token_level_rewards)
    for rows in groups.values():
        terms = length_terms([num_tokens[i] for i in rows], [correct[i] for i in rows])
        lengths[rows, 0] = torch.tensor(terms, dtype=lengths.dtype, device=lengths.device)
    return compute_grpo_outcome_advantage(
        token_level_rewards + weight * lengths,
        response_mask,
        index,
        norm_adv_by_std_in_grpo=config.get("norm_adv_by_std_in_grpo", True),
    )
