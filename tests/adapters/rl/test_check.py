# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that is refused before a model loads: in one message, with the offending value and the cure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from omegaconf import OmegaConf

from longshort_verl.adapters.rl.check import check_config, check_files, required_cpus
from longshort_verl.adapters.rl.settings import Schedule, load_tokenizer, role_config
from longshort_verl.config.compose import ConfigError
from longshort_verl.problems.read import ProblemFileError
from longshort_verl.types import Role
from tests.support.configs import tiny_config


@pytest.fixture
def config_with(tiny_models, tiny_problems):
    return lambda *overrides: tiny_config(tiny_models, tiny_problems, *overrides)


def test_the_recipe_passes(config_with):
    config = config_with()
    settings = check_config(config)
    assert settings.schedule is Schedule.LONG_ONLY
    check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))


def test_rounds_pass(config_with):
    kl = ["actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.actor.kl_loss_coef=0.1"]
    assert check_config(config_with(*ROUNDS, *kl)).rounds.total_steps == 30
    # An adapter without a reference, and validation within a round.
    check_config(config_with(*ROUNDS, "actor_rollout_ref.model.lora_rank=8", "trainer.test_freq=5"))


def test_short_is_merged_onto_long(config_with):
    config = config_with("+long_short.short.actor.optim.lr=0.125")
    short = role_config(config, Role.SHORT)
    assert short.model.path != config.actor_rollout_ref.model.path
    assert short.actor.optim.lr == 0.125
    assert short.actor.optim.betas == config.actor_rollout_ref.actor.optim.betas
    assert role_config(config, Role.LONG).actor.optim.lr != 0.125


def test_a_split_short_policy_knows_its_own_nodes(config_with):
    from longshort_verl.adapters.rl.policies import short_config

    pool = ("long_short.short_pool.n_gpus_per_node=4", "long_short.short_pool.nnodes=2", "trainer.n_gpus_per_node=8")
    assert short_config(config_with(*pool)).actor_rollout_ref.rollout.n_gpus_per_node == 8
    split = config_with(*pool, "long_short.placement=split")
    assert short_config(split).actor_rollout_ref.rollout.n_gpus_per_node == 4
    assert split.actor_rollout_ref.rollout.n_gpus_per_node == 8


ROUNDS = [
    "long_short.schedule=rounds",
    "long_short.rounds.order=[long,short,long]",
    "long_short.rounds.steps=10",
    "trainer.total_training_steps=30",
    "trainer.test_freq=10",
]

REFUSED = {
    "unknown schedule": (["long_short.schedule=both"], ["long_short.schedule is 'both'", "long_only"]),
    "unknown role": (["long_short.dialogue.opening_role=middle"], ["opening_role is 'middle'", "'long'"]),
    "role of a limit": (
        ["+long_short.dialogue.max_turn_tokens.middle=3"],
        ["long_short.dialogue.max_turn_tokens.middle is no setting", "long, short"],
    ),
    "misspelt": (["+long_short.dialogue.max_turn=3"], ["long_short.dialogue.max_turn is no setting"]),
    "misspelt in short": (["+long_short.short.rolout.n=3"], ["long_short.short does not fit", "rolout"]),
    "no short model": (["long_short.short.model.path=null"], ["long_short.short.model.path is None"]),
    "zero turns": (["long_short.dialogue.max_short_turns=0"], ["max_short_turns is 0", "or equal to 1"]),
    "steps of the rounds": (
        [*ROUNDS, "trainer.total_training_steps=40"],
        ["total_training_steps is 40", "3 rounds (order) of 10 steps", "set it to 30"],
    ),
    "no end of the rounds": (
        [*ROUNDS, "trainer.total_training_steps=null"],
        ["total_training_steps is None", "set it to 30"],
    ),
    "no validation of a round": (
        [*ROUNDS, "trainer.test_freq=4"],
        ["trainer.test_freq is 4", "rounds.steps is 10", "set the former to 10"],
    ),
    "rounds of another engine": (
        [*ROUNDS, "+long_short.short.actor.strategy=fsdp"],
        ["long_short.short.actor.strategy is 'fsdp'", "set it to fsdp2"],
    ),
    "the reference of an adapter": (
        [*ROUNDS, "actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.actor.use_kl_loss=true"],
        ["actor_rollout_ref.actor.use_kl_loss is true", "the long role trains a LoRA adapter", "to false"],
    ),
    "a ramp": (
        ["long_short.reward.length={from: 0, to: 1, start: 4, end: 3}"],
        ["long_short.reward.length is", "end is 3 and start 4"],
    ),
    "text for a number": (["long_short.reward.length=long"], ["long_short.reward.length is 'long'"]),
    "negative weight": (
        ["long_short.reward.length=-1"],
        ["long_short.reward.length is -1", "or equal to 0"],
    ),
    "frozen peer from dummy": (
        ["+long_short.short.rollout.load_format=dummy"],
        ["long_short.short.rollout.load_format is 'dummy'", "random weights", "auto"],
    ),
    "frozen long from dummy": (
        ["long_short.schedule=short_only", "actor_rollout_ref.rollout.load_format=dummy"],
        ["actor_rollout_ref.rollout.load_format is 'dummy'", "the long role never learns"],
    ),
    "memory fractions": (
        ["actor_rollout_ref.rollout.gpu_memory_utilization=0.5"],
        ["gpu_memory_utilization is 0.5", "and 0.5", "together 1", "less than 1"],
    ),
    "no engine fits": (
        ["actor_rollout_ref.rollout.tensor_model_parallel_size=2"],
        [
            "tensor_model_parallel_size 2 makes an engine of 2 devices",
            "the long policy has 1",
            "trainer.n_gpus_per_node 1",
        ],
    ),
    "no short engine fits": (
        [
            "long_short.placement=split",
            "long_short.short_pool.n_gpus_per_node=3",
            "+long_short.short.rollout.tensor_model_parallel_size=2",
        ],
        ["engine of 2 devices, but the short policy has 3", "long_short.short_pool.n_gpus_per_node 3 × nnodes 1"],
    ),
    "an engine across unequal nodes": (
        [
            "trainer.n_gpus_per_node=4",
            "trainer.nnodes=3",
            "actor_rollout_ref.rollout.tensor_model_parallel_size=6",
        ],
        ["engine of 6 devices", "the long policy has 12", "nnodes 3"],
    ),
    "too few CPUs": (
        ["ray_kwargs.ray_init.num_cpus=4"],
        ["ray_kwargs.ray_init.num_cpus is 4", "wait for ever"],
    ),
    "turn longer than the context": (
        ["long_short.dialogue.max_turn_tokens.long=5000"],
        ["max_turn_tokens.long is 5000", "raise data.max_response_length"],
    ),
    "sequence over the token limit": (
        ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100"],
        ["ppo_max_token_len_per_gpu is 100", "raise it to at least"],
    ),
    "prompts in parts on a CPU": (
        ["actor_rollout_ref.rollout.enable_chunked_prefill=true"],
        ["rollout.enable_chunked_prefill is true on a CPU", "long_short.seed is 1", "set the former to false"],
    ),
    "steps not whole": (
        ["actor_rollout_ref.actor.ppo_mini_batch_size=7"],
        ["ppo_mini_batch_size is 7", "does not divide data.train_batch_size 16"],
    ),
    "wrong agent loop": (
        ["actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent"],
        ["default_agent_loop is 'single_turn_agent'", "needs 'longshort'"],
    ),
    "wrong trainer": (["trainer.v1.trainer_mode=colocate_async"], ["trainer_mode is 'colocate_async'"]),
    "no step of its own": (
        ["long_short.schedule=alternate", "long_short.alternate.switch_every=0"],
        ["long_short.alternate.switch_every is 0", "greater than or equal to 1"],
    ),
    "unknown first role": (["long_short.alternate.first=both"], ["long_short.alternate.first is 'both'"]),
    "shared with two models": (
        ["long_short.policies=shared"],
        ["long_short.policies is 'shared', but long_short.short.model.path is", "drop the former"],
    ),
    "shared with keys of one": (
        ["long_short.policies=shared", "+long_short.short.rollout.n=3"],
        ["long_short.short sets rollout", "'shared'"],
    ),
    "shared in two places": (
        ["long_short.policies=shared", "long_short.placement=split"],
        ["long_short.placement is 'split'", "no second place"],
    ),
    "split on one device": (
        ["long_short.placement=split", "ray_kwargs.ray_init.num_cpus=16"],
        ["ray_kwargs.ray_init.num_gpus is 1", "the job needs 2", "set long_short.placement to colocated"],
    ),
    "no device of its own": (
        ["long_short.placement=split", "long_short.short_pool.n_gpus_per_node=0"],
        ["long_short.short_pool.n_gpus_per_node is 0", "greater than or equal to 1"],
    ),
    "LoRA exported in full only": (
        [
            "+long_short.short.model.lora_rank=4",
            "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
            "trainer.save_freq=10",
        ],
        ["long_short.short.actor.checkpoint.save_contents is ['hf_model']", "LoRA", "longshort export"],
    ),
    "unknown term": (
        ["+long_short.reward.elegance=1"],
        ["long_short.reward.elegance is no reward term", "accuracy, format, length, importance"],
    ),
    "estimator with a critic": (
        ["algorithm.adv_estimator=gae"],
        ["algorithm.adv_estimator is 'gae', which needs values", "set it to one of grpo", "rloo", "register_adv_est"],
    ),
    "estimator with further rollouts": (
        ["algorithm.adv_estimator=remax"],
        ["algorithm.adv_estimator is 'remax', which needs reward_baselines"],
    ),
    "estimator with rewards of its own": (
        ["algorithm.adv_estimator=gdpo"],
        ["algorithm.adv_estimator is 'gdpo', which needs algorithm.gdpo_reward_keys"],
    ),
    "unknown estimator": (
        ["algorithm.adv_estimator=mine"],
        ["algorithm.adv_estimator is 'mine', which is not registered with verl"],
    ),
    "best by nothing": (
        ["long_short.best.metric=elegance"],
        ["long_short.best.metric is 'elegance'", "reward, acc", "null"],
    ),
    "best of a kind": (["long_short.best.mode=most"], ["long_short.best.mode is 'most'"]),
    "alarm out of range": (
        ["long_short.alarms.truncated=90"],
        ["long_short.alarms.truncated is 90", "or equal to 1"],
    ),
    "GPU device on a CPU": (["trainer.device=cuda"], ["VERL_PLATFORM is cpu, but trainer.device is 'cuda'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, config_with):
    overrides, said = REFUSED[name]
    with pytest.raises(ConfigError) as refusal:
        check_config(config_with(*overrides))
    message = str(refusal.value)
    assert [text for text in said if text not in message] == [], message
    assert "\n\n" not in message


def test_an_estimator_that_the_user_registers_is_accepted(config_with, monkeypatch):
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    def mine(token_level_rewards, response_mask, index, config=None, **kwargs): ...

    monkeypatch.setitem(ADV_ESTIMATOR_REGISTRY, "mine", mine)
    check_config(config_with("algorithm.adv_estimator=mine"))


def test_a_section_of_its_own_is_needed(config_with):
    config = config_with()
    OmegaConf.set_struct(config, False)
    config.pop("long_short")
    with pytest.raises(ConfigError, match="has no section long_short; inherit longshort_rl"):
        check_config(config)


def test_the_cluster_counts_once_ray_is_up(config_with):
    config = config_with()
    needed = required_cpus(config)
    check_config(config, {"CPU": needed, "GPU": 1})
    with pytest.raises(ConfigError, match=f"number of CPUs is {needed - 1}, but the job's processes reserve {needed}"):
        check_config(config, {"CPU": needed - 1, "GPU": 1})
    split = config_with(
        "long_short.placement=split", "ray_kwargs.ray_init.num_cpus=16", "ray_kwargs.ray_init.num_gpus=2"
    )
    assert required_cpus(split) == needed + 3
    check_config(split, {"CPU": 16, "GPU": 2})
    with pytest.raises(ConfigError, match="number of devices is 1, but the job needs 2"):
        check_config(split, {"CPU": 16, "GPU": 1})


def test_engines_on_devices_of_their_own_share_no_memory(config_with):
    split = ["long_short.placement=split", "ray_kwargs.ray_init.num_cpus=16", "ray_kwargs.ray_init.num_gpus=2"]
    check_config(config_with(*split, "actor_rollout_ref.rollout.gpu_memory_utilization=0.9"))


def test_one_model_may_play_both_roles(config_with):
    config = config_with(
        "long_short.policies=shared",
        "long_short.short.model.path=null",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.9",
    )
    check_config(config)
    assert role_config(config, Role.SHORT) == config.actor_rollout_ref
    check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))


# ------------------------------------------------------------------------------------------ templates and files


def files_refusal(config):
    with pytest.raises(ValueError, match=".") as refusal:
        check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))
    return refusal.value


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # The models' own context is 8192.
        (["max_num_batched_tokens=4096"], "max_num_batched_tokens is 4096, less than the 8192 tokens of the long"),
        (["max_num_batched_tokens=600", "max_model_len=700"], "is 600, less than the 700 tokens"),
    ],
)
def test_a_context_that_cannot_be_read_at_once(overrides, said, tiny_models, tiny_problems):
    config = tiny_config(
        tiny_models, tiny_problems, *(f"actor_rollout_ref.rollout.{override}" for override in overrides)
    )
    error = files_refusal(config)
    assert isinstance(error, ConfigError)
    assert said in str(error)
    assert "set rollout.max_model_len" in str(error)


def with_template(models, tmp_path, role, template):
    folder = tmp_path / role
    shutil.copytree(models[role], folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    return {**models, role: folder}


@pytest.mark.parametrize(
    ("role", "template", "said"),
    [
        ("long", "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}", "does not keep"),
        ("short", "{{ messages[-1].content }}{{ '>' if add_generation_prompt }}", "does not keep the user turn"),
    ],
)
def test_template_that_drops_turns_or_tags(role, template, said, tiny_models, tiny_problems, tmp_path):
    models = with_template(tiny_models, tmp_path, role, template)
    error = files_refusal(tiny_config(models, tiny_problems))
    assert isinstance(error, ConfigError)
    assert said in str(error)
    assert str(models[role]) in str(error)
    assert "custom_chat_template" in str(error)


def test_the_recipes_own_template_is_the_one_that_is_checked(tiny_models, tiny_problems):
    broken = "'{% for m in messages[-1:] %}{{ m.content }}{% endfor %}'"
    config = tiny_config(tiny_models, tiny_problems, f"actor_rollout_ref.model.custom_chat_template={broken}")
    assert "does not keep" in str(files_refusal(config))


def test_no_tokenizer(tiny_models, tiny_problems, tmp_path):
    config = tiny_config({**tiny_models, "short": tmp_path}, tiny_problems)
    with pytest.raises(ConfigError, match="no tokenizer could be loaded from"):
        load_tokenizer(role_config(config, Role.SHORT))


def verl_row(prompt, answer):
    return {"prompt": [{"role": "user", "content": prompt}], "reward_model": {"ground_truth": answer}}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([verl_row("1+1", None)], "ground_truth"),
        ([verl_row(" ", "1")], "prompt"),
        ([verl_row("1+1", "\\frac{1")], "braces"),
        ([verl_row("1+1" * 100, "1")], "max_prompt_length"),
        ([], "no rows"),
    ],
)
def test_malformed_problem_files(rows, said, tiny_models, tiny_problems, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([verl_row("2+2", "4"), *rows] if rows else []))
    config = tiny_config(tiny_models, tiny_problems, f"data.val_files={path}")
    error = files_refusal(config)
    assert isinstance(error, ProblemFileError)
    assert "mine.json" in str(error)
    assert said in str(error)
    assert not rows or "row 1" in str(error)


@pytest.mark.parametrize("name", ["mine.json", "mine.csv"])
def test_a_file_that_verl_does_not_read(name, tiny_models, tiny_problems, tmp_path):
    path = tmp_path / name
    rows = pd.DataFrame({"problem": ["2+2"], "answer": ["4"]})
    path.write_text(rows.to_json(orient="records") if path.suffix == ".json" else rows.to_csv(index=False))
    error = files_refusal(tiny_config(tiny_models, tiny_problems, f"data.val_files={path}"))
    assert isinstance(error, ProblemFileError)
    assert "verl reads .parquet, .json and .jsonl files with the columns prompt and reward_model" in str(error)
    assert f"`longshort problems {path} --out FOLDER`" in str(error)


def test_fewer_problems_than_a_batch(tiny_models, tiny_problems):
    config = tiny_config(tiny_models, tiny_problems, "data.train_batch_size=96")
    error = files_refusal(config)
    assert "has 64 problems, fewer than data.train_batch_size 96" in str(error)


def test_too_few_epochs_for_the_steps(tiny_models, tiny_problems):
    # 64 problems in batches of 16 are 4 steps an epoch.
    config = tiny_config(tiny_models, tiny_problems, "trainer.total_epochs=2", "trainer.total_training_steps=9")
    error = files_refusal(config)
    assert isinstance(error, ConfigError)
    assert "total_training_steps is 9" in str(error)
    assert "make 8: verl would end there" in str(error)
    assert "raise trainer.total_epochs" in str(error)
    enough = tiny_config(tiny_models, tiny_problems, "trainer.total_epochs=2", "trainer.total_training_steps=8")
    check_files(enough, *(load_tokenizer(role_config(enough, role)) for role in Role))


# ------------------------------------------------------------------------------------------ as a user meets them


@pytest.mark.process
def test_verls_main_ends_before_ray_with_one_message(tiny_models, tiny_problems, root, tmp_path):
    pd.DataFrame({"problem": ["1+1"], "answer": [""]}).to_parquet(tmp_path / "mine.parquet")
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", "recipes/tiny_cpu", "--config-name", "rl"]
    command += [
        f"actor_rollout_ref.model.path={tiny_models['long']}",
        f"long_short.short.model.path={tiny_models['short']}",
        f"data.train_files={tmp_path}/mine.parquet",
        f"hydra.run.dir={tmp_path}/hydra",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "ray init kwargs" not in done.stdout
    last = [line for line in done.stderr.splitlines() if line.startswith("longshort: ")]
    assert len(last) == 1
    assert "mine.parquet" in last[0]
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_verls_main_ends_before_ray_where_verl_did_not_load_the_plugin(root, tmp_path):
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", "recipes/tiny_cpu"]
    command += ["--config-name", "single", f"trainer.default_local_dir={tmp_path}", f"hydra.run.dir={tmp_path}/hydra"]
    # As where the package is on PYTHONPATH and not installed: verl finds no entry point.
    environment = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none"}
    environment.pop("VERL_PLATFORM", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "ray init kwargs" not in done.stdout
    last = [line for line in done.stderr.splitlines() if line.startswith("longshort: ")]
    assert last == ["longshort: verl did not load longshort_verl as its plugin; `longshort doctor` says why"]
