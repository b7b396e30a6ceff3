# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Composed configs as jobs: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshort_verl.config.compose import ConfigError, compose_config
from longshort_verl.ops.plan.hardware import GIB, find_gpu
from longshort_verl.ops.plan.job import read_job
from longshort_verl.ops.plan.view import Plan, verdict
from tests.ops.plan.jobs import ON_NODE

ROOT = Path(__file__).resolve().parents[3]


def part(plan, phase, name):
    parts = next(found for found in plan.phases if found.name == phase).parts
    return next(found.num_bytes for found in parts if found.name == name)


def seconds(plan):
    return sum(sum(stages.values()) for stages in plan.steps.values())


# ------------------------------------------------------------------------------------------ what is read


def test_the_bases_defaults(planned):
    plan = planned("H100", *ON_NODE)
    policy = plan.job.policies[0]
    assert policy.param_bytes == 4
    assert policy.param_offload
    assert policy.max_update_tokens == policy.max_log_prob_tokens == 16384
    assert policy.devices == 2
    assert policy.max_model_len == 32768  # the model's own
    assert policy.row_tokens == policy.least_tokens == 512 + 8192
    assert policy.logit_copies == 1
    # 1024 prompts, 8 rollouts each.
    assert plan.job.work.dialogues == 8192
    assert plan.fits


def test_the_short_policy_has_its_own_settings(planned):
    plan = planned(
        "H100",
        *ON_NODE,
        "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",
        "++long_short.short.actor.fsdp_config.param_offload=false",
        "++long_short.short.rollout.gpu_memory_utilization=0.2",
        short="llama3_1_8b",
    )
    long, short = plan.job.policies
    assert (long.param_bytes, short.param_bytes) == (2, 2)
    assert (long.param_offload, short.param_offload) == (True, False)
    assert (long.utilization, short.utilization) == (0.4, 0.2)
    assert short.keys["utilization"] == "long_short.short.rollout.gpu_memory_utilization"
    assert short.keys["optimizer_offload"] == "actor_rollout_ref.actor.fsdp_config.optimizer_offload"
    assert short.shape.params == 8_030_261_248
    # Only the long role learns by default: the short one has no optimizer, and no update.
    assert (long.learns, short.learns) == (True, False)
    assert "update short" not in [phase.name for phase in plan.phases]


def test_split_placement_has_devices_of_its_own(planned):
    split = planned("H100", *ON_NODE, "long_short.placement=split", "long_short.short_pool.n_gpus_per_node=4")
    assert [(pool.name, pool.size) for pool in split.job.pools] == [("long", 8), ("short", 4)]
    assert part(split, "log-prob short", "short: parameters") == 7_615_616_512 * 4 / 4
    rollouts = [phase for phase in split.phases if phase.name == "rollout"]
    assert len(rollouts) == 2


def test_one_model_for_both_roles_learns_from_both(planned):
    plan = planned(
        "H100", *ON_NODE, "long_short.policies=shared", "long_short.schedule=joint", "long_short.short.model.path=null"
    )
    assert [policy.name for policy in plan.job.policies] == ["shared"]
    assert plan.job.work.loads["shared"].rows == 2


def test_a_reference_policy_waits_in_main_memory(planned):
    plain, kept = (planned("H100", *ON_NODE, f"actor_rollout_ref.actor.use_kl_loss={kl}") for kl in ("false", "true"))
    assert "reference long" in [phase.name for phase in kept.phases]
    more = sum(one.num_bytes for one in kept.host) - sum(one.num_bytes for one in plain.host)
    # float32 parameters of both policies' references.
    assert more == pytest.approx(2 * 7_615_616_512 * 4 * 1.4)


def test_the_schedule_decides_who_learns(planned):
    alternate = planned("H100", *ON_NODE, "long_short.schedule=alternate")
    assert [*alternate.steps] == ["the long role learns", "the short role learns"]
    joint = planned("H100", *ON_NODE, "long_short.schedule=joint")
    assert [*joint.steps] == ["both roles learn"]
    assert seconds(joint) < seconds(alternate)


def test_tokens_are_the_limits_unless_given(planned):
    bound = planned("H100", *ON_NODE)
    # Turns of 4 × 4096 and 4 × 1024 tokens, but 8192 in all: four fifths and one fifth.
    assert bound.job.work.bound
    assert bound.job.work.loads["long"].generated == pytest.approx(8192 * 4 / 5)
    assert bound.job.work.loads["short"].prefill == pytest.approx(512 + 8192 * 4 / 5)
    expected = planned("H100", *ON_NODE, means={"long": 600, "short": 150, "prompt": 100})
    assert not expected.job.work.bound
    assert expected.job.work.loads["long"].context == 850
    assert seconds(expected) < seconds(bound)


def test_plain_grpo(planned):
    plan = planned("H100", *ON_NODE, "actor_rollout_ref.rollout.gpu_memory_utilization=0.8", name="single")
    assert [policy.name for policy in plan.job.policies] == ["model"]
    # Not offloaded: this base keeps verl's defaults.
    assert part(plan, "rollout", "model: optimizer") == 7_615_616_512 * 8 / 8


def test_fine_tuning(planned):
    plan = planned("A100-80", "cold_start.role=long", "trainer.n_gpus_per_node=8", name="sft")
    assert [phase.name for phase in plan.phases] == ["update"]
    # float32: parameters, gradients and Adam's two averages.
    assert part(plan, "update", "long: optimizer") == 7_615_616_512 * 8 / 8
    assert any("data.max_token_len_per_gpu allows 8192" in note for note in plan.job.notes)
    assert plan.steps == {}


def test_an_entropy_or_a_temperature_needs_copies_of_the_logits(planned):
    # Logits, a copy by the temperature, and gradients of log-probability and entropy.
    overrides = {"actor.entropy_coeff=0.1": 3, "rollout.temperature=0.9": 3}
    for override, copies in overrides.items():
        policy = planned("H100", *ON_NODE, f"actor_rollout_ref.{override}").job.policies[0]
        assert policy.logit_copies == copies


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("recipes/*/rl*.yaml")) + sorted(ROOT.glob("recipes/*/sft_[ls]*.yaml")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_recipe_can_be_planned(path, models):
    names = ("long", "short") if path.stem.startswith("rl") else (path.stem.removeprefix("sft_"),)
    config = compose_config(path.parent, path.stem)
    job = read_job(config, find_gpu("H200"), model_configs=dict.fromkeys(names, models["qwen2_5_0_5b"]))
    assert all(phase.total > 0 for phase in Plan(job).phases)


def test_main_memory_is_checked_where_known(planned):
    enough, short = planned("H100", *ON_NODE, host_gib=1024), planned("H100", *ON_NODE, host_gib=128)
    assert enough.fits
    assert not short.fits
    assert short.host_missing == pytest.approx(sum(one.num_bytes for one in short.host) - 128 * GIB)
    assert "main memory lacks" in str(verdict(short))


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # The job's own checks.
        (["trainer.n_gpus_per_node=1"], "tensor_model_parallel_size 2 makes an engine of 2 devices"),
        ([*ON_NODE, "long_short.schedule=both"], "schedule"),
        ([*ON_NODE, "algorithm.adv_estimator=gae"], "algorithm.adv_estimator is 'gae'"),
        # What cannot be estimated.
        ([*ON_NODE, "actor_rollout_ref.rollout.dtype=int3"], "rollout.dtype is 'int3'; known types are"),
        ([*ON_NODE, "actor_rollout_ref.actor.strategy=megatron"], "the strategy is 'megatron'; only fsdp"),
        ([*ON_NODE, "actor_rollout_ref.actor.use_dynamic_bsz=false"], "use_dynamic_bsz is false.*set it to true"),
        (["trainer.n_gpus_per_node=0"], "trainer.n_gpus_per_node is 0; set it to at least 1"),
        (["trainer.gpus=1"], "gpus"),
        (
            [*ON_NODE, "long_short.short.model.path=/nowhere/at/all"],
            "no config.json could be read for the model '/nowhere/at/all'.*--model-config ROLE=FOLDER",
        ),
    ],
)
def test_refused(overrides, message, planned):
    with pytest.raises(ConfigError, match=message):
        planned("H100", *overrides)


def test_unknown_roles(planned, models):
    with pytest.raises(ConfigError, match="'shrot' is not a role"):
        planned("H100", *ON_NODE, means={"shrot": 10})
    with pytest.raises(ConfigError, match="'model' is not a role"):
        planned("H100", *ON_NODE, model_configs={"model": models["qwen2_5_7b"]})
