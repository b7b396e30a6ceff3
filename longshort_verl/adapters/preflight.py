# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What is refused before any model loads, each with the offending value and the cure.

Run twice: by Hydra's callback in the driver, before Ray starts, and again by the trainer, which then also knows
what the cluster really has. Nothing here starts a process or loads weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from longshort_verl.adapters import compat
from longshort_verl.chat_template import check_chat_template, check_tokens, hf_render
from longshort_verl.config.schema import SECTION, ConfigError, LongShortConfig, read_long_short
from longshort_verl.data.problems import ProblemFileError, check_answers, check_prompt_lengths, read_problems
from longshort_verl.dialogue import transcript
from longshort_verl.grading import check_gold
from longshort_verl.types import Role

TRAINER_MODE = "longshort"
AGENT_LOOP = "longshort"
REWARD_MANAGER = "LongShortRewardManager"

_KEY = {Role.LONG: "actor_rollout_ref", Role.SHORT: f"{SECTION}.short"}
"""Where a user sets what belongs to a role."""


class PreflightCallback(Callback):
    """Checks the composed config of ``python -m verl.trainer.main_ppo`` before it does anything."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process with one message where the config cannot work.

        Hydra turns an exception of a callback into a warning and goes on, hence ``SystemExit``.
        """
        try:
            check_config(config)
            check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))
        except (ConfigError, ProblemFileError) as error:
            sys.exit(f"longshort: {error}")


def role_config(config: DictConfig, role: Role) -> DictConfig:
    """``actor_rollout_ref`` of a role: verl's own for the long one, with ``long_short.short`` merged for the short."""
    if role is Role.LONG:
        return config.actor_rollout_ref
    merged = OmegaConf.create({"actor_rollout_ref": OmegaConf.to_container(config.actor_rollout_ref, resolve=True)})
    OmegaConf.set_struct(merged, True)
    short = OmegaConf.to_container(config[SECTION].short, resolve=True)
    try:
        merged = OmegaConf.merge(merged, {"actor_rollout_ref": short})
    except OmegaConfBaseException as error:
        raise ConfigError(f"{SECTION}.short does not fit onto actor_rollout_ref: {error}") from error
    assert isinstance(merged, DictConfig)
    return merged.actor_rollout_ref


def check_config(config: DictConfig, cluster_cpus: float | None = None) -> LongShortConfig:
    """Check everything that the config alone, or the size of the cluster, decides.

    Args:
        config: the composed config of a job.
        cluster_cpus: logical CPUs of the Ray cluster; None before Ray is up, when a local Ray's own setting is used.

    Raises:
        ConfigError: at the first thing that cannot work.
    """
    settings = long_short_settings(config)
    rollout = config.actor_rollout_ref.rollout
    for key, found, wanted in [
        ("trainer.v1.trainer_mode", config.trainer.v1.trainer_mode, (TRAINER_MODE, "sync")),
        ("trainer.use_v1", config.trainer.use_v1, (True,)),
        ("actor_rollout_ref.rollout.agent.default_agent_loop", rollout.agent.default_agent_loop, (AGENT_LOOP,)),
        ("actor_rollout_ref.rollout.name", rollout.name, ("vllm",)),
        ("actor_rollout_ref.hybrid_engine", config.actor_rollout_ref.hybrid_engine, (True,)),
        ("reward.reward_manager.name", config.reward.reward_manager.name, (REWARD_MANAGER,)),
        ("reward.reward_model.enable", config.reward.reward_model.enable, (False,)),
    ]:
        if found not in wanted:
            raise ConfigError(f"{key} is {found!r}; two-agent training needs {wanted[0]!r}")
    policies = {role: role_config(config, role) for role in Role}
    _check_engines(config, settings, policies)
    _check_sizes(config, settings, policies)
    _check_platform(config)
    _check_cpus(config, cluster_cpus)
    return settings


def long_short_settings(config: DictConfig) -> LongShortConfig:
    """The section ``long_short`` of a composed config, checked.

    Raises:
        ConfigError: the section is missing, or a setting in it.
    """
    if SECTION not in config:
        raise ConfigError(f"the config has no section {SECTION}; inherit longshort_rl from pkg://longshort_verl.config")
    missing = OmegaConf.missing_keys(config[SECTION])
    if missing:
        raise ConfigError("; ".join(f"{SECTION}.{key} is not set; set it" for key in sorted(missing)))
    return read_long_short(OmegaConf.to_container(config[SECTION], resolve=True))  # type: ignore[arg-type]


def _check_engines(config: DictConfig, settings: LongShortConfig, policies: Mapping[Role, DictConfig]) -> None:
    for role, policy in policies.items():
        load_format = policy.rollout.load_format
        if role not in settings.schedule.trained and "dummy" in load_format:
            raise ConfigError(
                f"{_KEY[role]}.rollout.load_format is {load_format!r}, but the {role.value} role never learns under "
                f"schedule {settings.schedule.value}, so its engine would serve random weights; set it to auto"
            )
        if policy.model.path is None or not str(policy.model.path).strip():
            raise ConfigError(f"{_KEY[role]}.model.path is {policy.model.path!r}; set it to the {role.value} model")
    fractions = {role: float(policy.rollout.gpu_memory_utilization) for role, policy in policies.items()}
    if sum(fractions.values()) >= 1:
        raise ConfigError(
            f"the engines of both roles share the devices, but gpu_memory_utilization is "
            f"{fractions[Role.LONG]} (actor_rollout_ref.rollout) and {fractions[Role.SHORT]} ({SECTION}.short.rollout),"
            f" together {sum(fractions.values()):g}; lower them to sum to less than 1, 0.4 each for example"
        )


def _check_sizes(config: DictConfig, settings: LongShortConfig, policies: Mapping[Role, DictConfig]) -> None:
    for role, policy in policies.items():
        rollout, actor = policy.rollout, policy.actor
        turn = settings.dialogue.max_turn_tokens[role]
        context = rollout.max_model_len or rollout.prompt_length + rollout.response_length
        if turn >= context:
            raise ConfigError(
                f"{SECTION}.dialogue.max_turn_tokens.{role.value} is {turn}, but the {role.value} model's context is "
                f"{context} tokens (data.max_prompt_length + data.max_response_length): no turn of that length fits; "
                "lower it or raise data.max_response_length"
            )
        limits = {
            "actor.ppo_max_token_len_per_gpu": actor.ppo_max_token_len_per_gpu,
            "rollout.log_prob_max_token_len_per_gpu": rollout.log_prob_max_token_len_per_gpu,
        }
        for name, limit in limits.items():
            if actor.use_dynamic_bsz and limit < context:
                raise ConfigError(
                    f"{_KEY[role]}.{name} is {limit}, less than one sequence of {context} tokens "
                    f"(data.max_prompt_length + data.max_response_length); raise it to at least {context}"
                )
        prompts, mini = config.data.train_batch_size, actor.ppo_mini_batch_size
        if mini < 1 or prompts % mini:
            raise ConfigError(
                f"{_KEY[role]}.actor.ppo_mini_batch_size is {mini}, which does not divide data.train_batch_size "
                f"{prompts}; the number of optimizer steps is their quotient and must be whole"
            )
        if not actor.use_dynamic_bsz:
            raise ConfigError(
                f"{_KEY[role]}.actor.use_dynamic_bsz is false, but sessions yield a varying number of rows; set it "
                "to true"
            )


def _check_platform(config: DictConfig) -> None:
    if config.trainer.device == "cpu" and not compat.on_cpu():
        raise ConfigError("trainer.device is 'cpu', but VERL_PLATFORM is not; start with VERL_PLATFORM=cpu")
    if compat.on_cpu() and config.trainer.device != "cpu":
        raise ConfigError(
            f"VERL_PLATFORM is cpu, but trainer.device is {config.trainer.device!r}; inherit longshort_rl_cpu, "
            "or unset VERL_PLATFORM"
        )


def required_cpus(config: DictConfig) -> int:
    """Logical CPUs that a job's processes reserve; with fewer, Ray waits for ever and says nothing.

    verl's pool reserves three for each device and TransferQueue one for each process; all others (servers, load
    balancers, workers of agent loop and reward) reserve one only while they start, one after the other.
    """
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    controller, starting = 1, 1
    return 3 * devices + controller + config.transfer_queue.backend.SimpleStorage.num_data_storage_units + starting


def _check_cpus(config: DictConfig, cluster_cpus: float | None) -> None:
    init = config.ray_kwargs.ray_init
    found, source = cluster_cpus, "the Ray cluster"
    if found is None:
        found, source = init.num_cpus, "ray_kwargs.ray_init.num_cpus"
        if init.get("address") is not None or found is None:
            return  # known once Ray is up: the trainer asks again
    needed = required_cpus(config)
    if found < needed:
        raise ConfigError(
            f"{source} is {found:g}, but the job's processes reserve {needed}; it would wait for ever. Raise "
            "ray_kwargs.ray_init.num_cpus (logical, more than the machine has is fine), or lower "
            "transfer_queue.backend.SimpleStorage.num_data_storage_units"
        )


def load_tokenizer(policy: DictConfig) -> Any:
    """The tokenizer of one policy, with the recipe's own chat template where it has one.

    Raises:
        ConfigError: there is no tokenizer at the path.
    """
    from transformers import AutoTokenizer

    path = policy.model.get("tokenizer_path") or policy.model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=policy.model.get("trust_remote_code", False))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no tokenizer could be loaded from {path!r}: {error}") from error
    if policy.model.get("custom_chat_template"):
        tokenizer.chat_template = policy.model.custom_chat_template
    return tokenizer


def check_files(config: DictConfig, long_tokenizer: Any, short_tokenizer: Any) -> None:
    """Check both tokenizers' chat templates and every problem file, row by row.

    Raises:
        ConfigError: for a template that would damage a dialogue.
        ProblemFileError: for a file, naming the rows.
    """
    settings = long_short_settings(config)
    tokenizers = {Role.LONG: long_tokenizer, Role.SHORT: short_tokenizer}
    for role, tokenizer in tokenizers.items():
        path = role_config(config, role).model.path
        system = settings.dialogue.system_prompt[role]
        try:
            check_tokens(
                lambda text, t=tokenizer: t.encode(text, add_special_tokens=False),
                lambda ids, t=tokenizer: t.decode(ids, skip_special_tokens=False),
                name=path,
            )
            check_chat_template(role, hf_render(tokenizer), system_prompt=system, name=path)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if config.data.custom_cls.path is not None:
        return  # the user's own data set class reads the files its own way
    opening = settings.dialogue.opening_role

    def count_tokens(prompt: str) -> int:
        render, tokenizer = hf_render(tokenizers[opening]), tokenizers[opening]
        text = render(transcript(prompt, [], opening, settings.dialogue), True)
        return len(tokenizer.encode(text, add_special_tokens=False))

    for split, files in (("train", config.data.train_files), ("val", config.data.val_files)):
        num_rows = 0
        for path in [files] if isinstance(files, str) else files:
            problems = read_problems(Path(path).expanduser())
            check_answers(problems, check_gold, path=path)
            check_prompt_lengths(problems, count_tokens, config.data.max_prompt_length, path=path)
            num_rows += len(problems)
        if split == "train" and num_rows < config.data.train_batch_size:
            raise ConfigError(
                f"data.train_files has {num_rows} problems, fewer than data.train_batch_size "
                f"{config.data.train_batch_size}: not one step could be made; lower the batch size"
            )
        epochs, wanted = config.trainer.total_epochs, config.trainer.total_training_steps or 0
        steps = num_rows // config.data.train_batch_size * epochs
        if split == "train" and steps < wanted:
            raise ConfigError(
                f"trainer.total_training_steps is {wanted}, but {num_rows} problems in batches of "
                f"{config.data.train_batch_size} and trainer.total_epochs {epochs} make {steps}: verl would end there, "
                "with no last validation; raise trainer.total_epochs"
            )


def as_sync(config: DictConfig) -> None:
    """Tell verl's base trainer that this run is synchronous.

    Symptom: a trainer mode of another name silently gets the asynchronous replay buffer, data loader and checkpoints,
    because the base class compares the name with "sync". Versions: verl 0.9.1. Remove when: verl asks the class.
    """
    with open_dict(config):
        config.trainer.v1.trainer_mode = "sync"
