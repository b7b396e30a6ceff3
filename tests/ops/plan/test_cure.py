# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Settings that ``longshort plan`` proposes: with them, composed anew, the job fits, and each of them is needed."""

from __future__ import annotations

import pytest

from longshort_verl.ops.plan.view import verdict
from tests.ops.plan.jobs import ON_NODE, ONE_GPU

MISFITS = {
    "engines that leave no room": (
        ("H100", *ON_NODE, "actor_rollout_ref.rollout.gpu_memory_utilization=0.49"),
        {},
        "rollout",
        "actor_rollout_ref.rollout.gpu_memory_utilization",
    ),
    "nothing off-loaded": (
        (
            "H100",
            "trainer.n_gpus_per_node=4",
            "actor_rollout_ref.actor.fsdp_config.optimizer_offload=false",
            "actor_rollout_ref.actor.fsdp_config.param_offload=false",
            "long_short.schedule=joint",
        ),
        {},
        "rollout",
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    ),
    "too many tokens": (
        ("4090", *ONE_GPU, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=65536"),
        {"long": "qwen2_5_0_5b", "short": "qwen2_5_0_5b"},
        "log-prob long",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
    ),
    "a context beyond the cache": (
        (
            "H100",
            *ON_NODE,
            "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
            "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
        ),
        {"long": "llama3_1_8b", "short": "llama3_1_8b"},
        "cache long",
        "actor_rollout_ref.rollout.max_model_len",
    ),
    "engines that do not sleep": (
        ("A100-80", *ON_NODE, "actor_rollout_ref.rollout.free_cache_engine=false"),
        {},
        "log-prob long",
        "actor_rollout_ref.rollout.free_cache_engine",
    ),
    "an engine too small for its weights": (
        ("H100", *ON_NODE, "++long_short.short.rollout.gpu_memory_utilization=0.1"),
        {},
        "cache short",
        "long_short.short.rollout.gpu_memory_utilization",
    ),
    "too few devices": (
        ("A100-80", *ONE_GPU),
        {},
        "update long",
        "trainer.n_gpus_per_node",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISFITS)
def test_the_cure_makes_it_fit(name, planned):
    arguments, models, phase, key = MISFITS[name]
    plan = planned(*arguments, **models)
    assert not plan.fits
    assert plan.finding is not None
    assert plan.finding.phase.name == phase
    cures = plan.finding.cures
    assert key in cures, cures
    # As a user adds them to the command line.
    overrides = plan.finding.overrides
    cured = planned(*arguments, *overrides, **models)
    assert cured.fits, str(verdict(cured))
    # Each of them is needed; but engines' shares belong together, and the limit of log-probabilities follows that of
    # updates where a config leaves it to verl.
    for cure, override in zip(cures, overrides, strict=True):
        rest = [other for other in overrides if other != override]
        if not cure.endswith(("gpu_memory_utilization", "log_prob_max_token_len_per_gpu")):
            assert not planned(*arguments, *rest, **models).fits, override
