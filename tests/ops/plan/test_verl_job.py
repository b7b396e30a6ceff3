# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of composed configs: what is read, what does not fit and is cured, what is refused, and the command."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.config.compose import ConfigError
from longshort_verl.ops.plan.hardware import GIB, find_gpu
from longshort_verl.ops.plan.verl_job import compose_config, read_plan
from longshort_verl.ops.plan.view import as_json, plan_view, verdict
from tests.support.model_configs import CONFIGS, write_model_config

ROOT = Path(__file__).resolve().parents[3]
RL = """
hydra:
  searchpath: [pkg://longshort_verl.config]
defaults: [{base}, _self_]
"""
ONE_GPU = ["trainer.n_gpus_per_node=1", "actor_rollout_ref.rollout.tensor_model_parallel_size=1"]
NODE = ["trainer.n_gpus_per_node=8"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model_config(folder, name) for name in CONFIGS}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A folder of recipes that hold nothing but their base."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("rl", "single", "sft"):
        (folder / f"{name}.yaml").write_text(RL.format(base=f"longshort_{name}"))
    return folder


@pytest.fixture(scope="module")
def planned(recipes, models):
    """Plans a config on a GPU."""

    def plan(gpu, *overrides, name="rl", long="qwen2_5_7b", short="qwen2_5_7b", **options):
        paths = {
            "rl": [f"actor_rollout_ref.model.path={models[long]}", f"long_short.short.model.path={models[short]}"],
            "single": [f"actor_rollout_ref.model.path={models[long]}"],
            "sft": [f"model.path={models[long]}"],
        }
        config = compose_config(recipes, name, [*paths[name], *overrides])
        return read_plan(config, find_gpu(gpu), **options)

    return plan


def part(plan, phase, name):
    parts = next(found for found in plan.phases if found.name == phase).parts
    return next(found.num_bytes for found in parts if found.name == name)


# ------------------------------------------------------------------------------------------ what is read


def test_the_bases_defaults(planned):
    plan = planned("H100", *NODE)
    training = plan.job.policies[0].training
    assert (training.param_bytes, training.compute_bytes, training.reduce_bytes) == (4, 2, 4)
    assert training.fsdp2
    assert training.param_offload
    assert training.max_update_tokens == training.max_log_prob_tokens == 16384
    assert plan.job.policies[0].engine.tensor_parallel == 2
    assert plan.job.policies[0].engine.max_model_len == 32768  # the model's own
    # 1024 prompts, 8 rollouts each; mini-batches of 256 prompts.
    assert (plan.work.dialogues, training.log_prob_rows, training.update_rows) == (8192, 8192, 2048)
    assert plan.fits


def test_the_short_policy_is_its_own(planned):
    plan = planned(
        "H100",
        *NODE,
        "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",
        "++long_short.short.actor.strategy=fsdp",
        "++long_short.short.rollout.gpu_memory_utilization=0.2",
        short="llama3_1_8b",
    )
    long, short = plan.job.policies
    assert (long.training.param_bytes, short.training.param_bytes) == (2, 2)
    assert (long.training.fsdp2, short.training.fsdp2) == (True, False)
    assert (long.engine.utilization, short.engine.utilization) == (0.4, 0.2)
    assert short.shape.params == 8_030_261_248
    # Only the long role learns by default: the short one has no optimizer, and no update.
    assert (long.learns, short.learns) == (True, False)
    assert "update short" not in [phase.name for phase in plan.phases]


def test_split_placement_has_devices_of_its_own(planned):
    split = planned("H100", *NODE, "long_short.placement=split", "long_short.short_pool.n_gpus_per_node=4")
    assert [(pool.name, pool.size) for pool in split.job.pools] == [("long", 8), ("short", 4)]
    assert part(split, "log-prob short", "short: parameters") == 7_615_616_512 * 4 / 4
    rollouts = [phase for phase in split.phases if phase.name == "rollout"]
    assert len(rollouts) == 2


def test_one_model_for_both_roles_learns_from_both(planned):
    plan = planned(
        "H100", *NODE, "long_short.policies=shared", "long_short.schedule=joint", "long_short.short.model.path=null"
    )
    assert [policy.name for policy in plan.job.policies] == ["shared"]
    assert plan.job.policies[0].training.log_prob_rows == 2 * 8192
    assert plan.work.loads["shared"].rows == 2


def test_a_reference_policy_waits_in_main_memory(planned):
    plain, kept = (planned("H100", *NODE, f"actor_rollout_ref.actor.use_kl_loss={kl}") for kl in ("false", "true"))
    assert "reference long" in [phase.name for phase in kept.phases]
    more = sum(one.num_bytes for one in kept.host) - sum(one.num_bytes for one in plain.host)
    # float32 parameters of both policies' references.
    assert more == pytest.approx(2 * 7_615_616_512 * 4 * 1.4)


def test_the_schedule_says_who_learns(planned):
    alternate = planned("H100", *NODE, "long_short.schedule=alternate")
    assert [step.name for step in alternate.steps] == ["the long role learns", "the short role learns"]
    joint = planned("H100", *NODE, "long_short.schedule=joint")
    assert [step.name for step in joint.steps] == ["both roles learn"]
    assert joint.steps[0].seconds < sum(step.seconds for step in alternate.steps)


def test_tokens_are_the_limits_unless_they_are_told(planned):
    data = ["data.max_prompt_length=512", "data.max_response_length=20480", "data.train_batch_size=1024"]
    bound = planned("H100", *NODE, *data)
    # Turns of 4 × 4096 and 4 × 1024 tokens, but 8192 in all: four fifths and one fifth.
    assert bound.work.bound
    assert bound.work.loads["long"].generated == pytest.approx(8192 * 4 / 5)
    assert bound.work.loads["short"].prefill == pytest.approx(512 + 8192 * 4 / 5)
    told = planned("H100", *NODE, *data, means={"long": 600, "short": 150, "prompt": 100})
    assert not told.work.bound
    assert told.work.loads["long"].context == 850
    assert told.steps[0].seconds < bound.steps[0].seconds


def test_plain_grpo(planned):
    plan = planned("H100", *NODE, "actor_rollout_ref.rollout.gpu_memory_utilization=0.8", name="single")
    assert [policy.name for policy in plan.job.policies] == ["model"]
    # Not off-loaded: this base keeps verl's defaults.
    assert part(plan, "rollout", "model: optimizer") == 7_615_616_512 * 8 / 8


def test_fine_tuning(planned):
    plan = planned("A100-80", "cold_start.role=long", "trainer.n_gpus_per_node=8", name="sft")
    assert [phase.name for phase in plan.phases] == ["load", "update", "held-out turns"]
    # 32 turns of 16384 + 2048 tokens; 28 layers, 4 heads of 128, keys and values, 2 bytes; and one layer's copy.
    cache = 32 * 18432 * 2 * 28 * 512 * 2
    assert part(plan, "held-out turns", "long: cache of 32 turns of 18432 tokens") == pytest.approx(cache * 29 / 28)
    assert any("data.max_token_len_per_gpu allows 8192" in note for note in plan.notes)
    assert plan.steps == []


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("recipes/*/rl*.yaml")) + sorted(ROOT.glob("recipes/*/sft_*.yaml")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_recipe_can_be_planned(path, models):
    names = ("long", "short") if path.stem.startswith("rl") else (path.stem.removeprefix("sft_"),)
    config = compose_config(path.parent, path.stem, [])
    plan = read_plan(config, find_gpu("H200"), model_configs=dict.fromkeys(names, models["qwen2_5_0_5b"]))
    assert all(phase.total > 0 for phase in plan.phases)


# ------------------------------------------------------------------------------------------ what does not fit

MISFITS = {
    "engines that leave no room": (
        ("H100", *NODE, "actor_rollout_ref.rollout.gpu_memory_utilization=0.49"),
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
        ("4090", *ONE_GPU, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=65536", "data.max_response_length=7680"),
        {"long": "qwen2_5_0_5b", "short": "qwen2_5_0_5b"},
        "log-prob long",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
    ),
    "a context beyond the cache": (
        (
            "H100",
            *NODE,
            "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
            "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
        ),
        {"long": "llama3_1_8b", "short": "llama3_1_8b"},
        "cache long",
        "actor_rollout_ref.rollout.max_model_len",
    ),
    "engines that do not sleep": (
        ("A100-80", *NODE, "actor_rollout_ref.rollout.free_cache_engine=false"),
        {},
        "log-prob long",
        "actor_rollout_ref.rollout.free_cache_engine",
    ),
    "an engine too small for its weights": (
        ("H100", *NODE, "++long_short.short.rollout.gpu_memory_utilization=0.1"),
        {},
        "cache short",
        "long_short.short.rollout.gpu_memory_utilization",
    ),
    "scores of a large vocabulary at once": (
        (
            "A100-40",
            *NODE,
            "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
            "data.max_response_length=15872",
        ),
        {},
        "log-prob long",
        "actor_rollout_ref.actor.fsdp_config.entropy_from_logits_with_chunking",
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
    assert key in [cure.key for cure in cures], [*map(str, cures)]
    # As a user adds them to the command line.
    cured = planned(*arguments, *map(str, cures), **models)
    assert cured.fits, str(verdict(cured))
    # Each of them is needed; but engines' shares are told together, and the limit of log-probabilities follows that of
    # updates where a config leaves it to verl.
    for cure in cures:
        rest = [str(other) for other in cures if other is not cure]
        if not cure.key.endswith(("gpu_memory_utilization", "log_prob_max_token_len_per_gpu")):
            assert not planned(*arguments, *rest, **models).fits, str(cure)


def test_main_memory_is_held_against(planned):
    enough = planned("H100", *NODE, host_gib=1024)
    short = planned("H100", *NODE, host_gib=128)
    assert enough.fits
    assert not short.fits
    assert short.host_missing == pytest.approx(sum(one.num_bytes for one in short.host) - 128 * GIB)
    assert "main memory lacks" in str(verdict(short))


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["trainer.n_gpus_per_node=1"],
            "tensor_model_parallel_size is 2, which does not divide the policy's 1 devices",
        ),
        (
            ["trainer.n_gpus_per_node=5", "actor_rollout_ref.rollout.tensor_model_parallel_size=5"],
            "is 5, but .* has 28 heads, 4 of keys and values",
        ),
        ([*NODE, "actor_rollout_ref.rollout.dtype=int3"], "rollout.dtype is 'int3'; known types are"),
        ([*NODE, "actor_rollout_ref.actor.strategy=megatron"], "the strategy is 'megatron'; only fsdp"),
        ([*NODE, "long_short.schedule=both"], "schedule"),
        (["trainer.n_gpus_per_node=0"], "trainer.n_gpus_per_node is 0; set it to at least 1"),
        (["trainer.gpus=1"], "gpus"),
        (
            [*NODE, "long_short.short.model.path=/nowhere/at/all"],
            "long_short.short.model.path.*--model-config short=FOLDER",
        ),
    ],
)
def test_refused(overrides, said, planned):
    with pytest.raises(ConfigError, match=said):
        planned("H100", *overrides)


def test_unknown_roles_and_folders(planned, models, tmp_path):
    with pytest.raises(ConfigError, match="'shrot' is no role"):
        planned("H100", *NODE, means={"shrot": 10})
    with pytest.raises(ConfigError, match="'model' is no role"):
        planned("H100", *NODE, model_configs={"model": models["qwen2_5_7b"]})
    with pytest.raises(ConfigError, match="is no folder"):
        compose_config(tmp_path / "none", "rl", [])
    with pytest.raises(ConfigError, match="Cannot find primary config"):
        compose_config(tmp_path, "rl", [])


# ------------------------------------------------------------------------------------------ as a user meets it


@pytest.fixture
def command(recipes, models):
    def run(*arguments, short="qwen2_5_7b"):
        given = ["plan", "--config-dir", str(recipes), "--config-name", "rl", "long_short.short.model.path=hub/none"]
        given += ["--model-config", f"long={models['qwen2_5_7b']}", "--model-config", f"short={models[short]}"]
        return CliRunner().invoke(app, [*given, *arguments])

    return run


def test_exit_status(command):
    assert command(*NODE).exit_code == 0
    misfit = command(*NODE, "--gpu", "4090")
    assert misfit.exit_code == 1
    assert "It does not fit." in misfit.output
    assert "With these it fits:" in misfit.output
    for wrong in (["--gpu", "V100"], ["--mean-tokens", "long"], ["--mean-tokens", "long=many"], ["trainer.nnodes=0"]):
        refused = command(*NODE, *wrong)
        assert refused.exit_code == 2, wrong
        assert refused.output.startswith("longshort: ")
        assert "Traceback" not in refused.output


def test_json_is_the_whole_plan(command, planned):
    found = json.loads(command(*NODE, "--json", "--gpu", "A100-80GB").output)
    assert found["fits"]
    assert "none of them has been compared with a GPU yet" in found["estimate"]
    assert [phase["name"] for phase in found["phases"]][:3] == ["load long", "start long", "cache long"]
    assert found["assumptions"]["context_gib"] == 0.6
    misfit = as_json(planned("4090", *NODE))
    assert misfit["finding"]["cures"][0].keys() == {"key", "value", "override"}
    assert json.dumps(misfit)


@pytest.mark.parametrize(
    "overrides",
    [
        NODE,
        [*NODE, "long_short.placement=split", "long_short.short_pool.n_gpus_per_node=4"],
        [*NODE, "trainer.nnodes=16"],
    ],
)
def test_everything_is_readable_in_80_columns(overrides, planned):
    plan = planned("RTX-4090", *overrides, short="llama3_1_8b")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_view(plan), crop=False)
    text = console.export_text()
    # Settings stay on a line each, to be copied.
    cures = [f"  {change}" for change in plan.finding.cures] if plan.finding else []
    lines = [line.rstrip() for line in text.splitlines()]
    assert [line for line in lines if line.startswith("  ")] == cures
    assert all(len(line) <= 80 for line in lines if line not in cures)
    # Nothing is cut but a path, which keeps its end.
    assert "… " not in text
    assert "assumed" in text
    assert "none of them has been compared with a GPU yet" in text
