# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A user's module: an advantage estimator, a reward term and a metric from outside the package.

A job imports it in every process through ``VERL_USE_EXTERNAL_MODULES``.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from verl.trainer.ppo.core_algos import register_adv_est

from longshort_verl.metrics import METRICS
from longshort_verl.rewards import TERMS, Term


@register_adv_est("centered")
def centered_advantage(token_level_rewards, response_mask, index, config=None, **kwargs):
    """A = r − mean over the prompt's rows."""
    rewards = token_level_rewards.sum(-1)
    groups = defaultdict(list)
    for i, name in enumerate(index):
        groups[name].append(i)
    means = torch.zeros_like(rewards)
    for rows in groups.values():
        means[rows] = rewards[rows].mean()
    advantages = (rewards - means).unsqueeze(-1) * response_mask
    return advantages, advantages


TERMS["rethinks"] = Term(of_row=lambda row: -float(row.record["num_rethinks"]))
METRICS["dialogue/most_rethinks"] = lambda records: max(record["num_rethinks"] for record in records)
