# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The single model's reward and advantages by hand, through verl's own doors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.reward import get_custom_reward_fn

from tests.support.configs import ROOT, compose_config


def advantages(accuracy, lengths, prompts, **settings):
    """What verl's trainer gets of replies that are right or wrong, so many tokens long."""
    width = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    rewards = torch.zeros(len(lengths), width)
    for i, length in enumerate(lengths):
        rewards[i, length - 1] = accuracy[i]
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": np.array(prompts, dtype=object)},
    )
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": False, "length_weight": 0.1, **settings})
    done = compute_advantage(data, adv_estimator="longshort_single", config=config)
    assert torch.equal(done.batch["advantages"], done.batch["returns"])
    assert not done.batch["advantages"][mask == 0].any()
    own = [row[:length] for row, length in zip(done.batch["advantages"], lengths, strict=True)]
    assert all(torch.equal(row, row[:1].expand(len(row))) for row in own), "all tokens of a reply share its advantage"
    return [round(float(row[0]), 5) for row in own]


def test_accuracy_and_length_within_the_prompts_group():
    # Prompt a: terms of length 0.5, -0.5 and, as it is wrong, 0 instead of 0.25. Rewards 1.05, 0.95, 0: mean 0.66667.
    # Prompt b: the same length, so no term of length. Rewards 1, 0.
    found = advantages([1, 1, 0, 1, 0], [2, 6, 3, 4, 4], ["a", "a", "a", "b", "b"])
    assert found == [0.38333, 0.28333, -0.66667, 0.5, -0.5]


def test_without_length_it_is_verls_grpo():
    accuracy, lengths, prompts = [1, 0, 0, 1, 1, 0], [1, 4, 2, 3, 5, 2], ["a", "a", "a", "b", "b", "b"]
    for normed in (False, True):
        ours = advantages(accuracy, lengths, prompts, length_weight=0.0, norm_adv_by_std_in_grpo=normed)
        data = DataProto.from_dict(
            tensors={
                "token_level_rewards": torch.tensor([[float(one)] for one in accuracy]),
                "response_mask": torch.ones(6, 1),
            },
            non_tensors={"uid": np.array(prompts, dtype=object)},
        )
        stock = compute_advantage(data, adv_estimator="grpo", norm_adv_by_std_in_grpo=normed)
        assert ours == pytest.approx(stock.batch["advantages"][:, 0].tolist(), abs=1e-4)


@pytest.mark.parametrize("weight", [None, -1, float("nan"), "0.1"])
def test_a_senseless_weight_is_refused(weight):
    with pytest.raises(ValueError, match="algorithm.length_weight is"):
        advantages([1, 0], [1, 2], ["a", "a"], length_weight=weight)


def test_verl_finds_the_reward_of_the_recipe():
    config = compose_config("single", ROOT / "recipes" / "tiny_cpu")
    score = get_custom_reward_fn(config)
    asked = {"data_source": "any", "ground_truth": "7", "extra_info": {}}
    assert score(solution_str="<think>1+6</think>\\boxed{7}", **asked) == {"score": 1.0, "acc": 1.0}
    assert score(solution_str="\\boxed{7} or \\boxed{8}", **asked) == {"score": 0.0, "acc": 0.0}
    assert score(solution_str="7", **asked)["score"] == 0.0
