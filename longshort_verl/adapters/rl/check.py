# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checks a job before any model loads; each refusal names the offending value and the cure.

The checks run twice: in Hydra's callback in the driver, before Ray starts, and again in the trainer, which also knows
the cluster's resources. They start no process and load no weights.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from longshort_verl.adapters import compat
from longshort_verl.adapters.rl.memory import check_memory
from longshort_verl.adapters.rl.settings import (
    SECTION,
    LongShortConfig,
    Placement,
    Policies,
    Schedule,
    has_lora,
    load_tokenizer,
    long_short_settings,
    role_config,
)
from longshort_verl.chat_template import check_tokenizer, hf_render
from longshort_verl.config.compose import ConfigError
from longshort_verl.dialogue import transcript
from longshort_verl.metrics import PAIR_METRICS
from longshort_verl.problems.read import (
    ProblemFileError,
    check_answers,
    check_prompt_lengths,
    check_verl_reads,
    read_problems,
)
from longshort_verl.types import Role

logger = logging.getLogger(__name__)

TRAINER_MODE = "longshort"
AGENT_LOOP = "longshort"
REWARD_MANAGER = "LongShortRewardManager"

_ESTIMATOR_INPUTS = {"token_level_rewards", "response_mask", "config", "index"}
"""What a step passes to an advantage estimator (verl.trainer.ppo.ray_trainer.compute_advantage)."""

_KEY = {Role.LONG: "actor_rollout_ref", Role.SHORT: f"{SECTION}.short"}
"""Section of the config with a role's settings."""


class PreflightCallback(Callback):
    """Checks the composed config of ``python -m verl.trainer.main_ppo`` before the job starts."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process with one message if the config cannot work.

        Hydra turns an exception of a callback into a warning and continues, hence ``SystemExit``.
        """
        try:
            check_config(config)
            _check_memory(config)
            check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))
        except (ConfigError, ProblemFileError) as error:
            sys.exit(f"longshort: {error}")


def _check_memory(config: DictConfig) -> None:
    """Refuse a job that a machine without GPU does not hold; warn where it hardly does."""
    report = check_memory(config)
    if report is not None and report.status == "failure":
        raise ConfigError(str(report))
    if report is not None and report.status == "warning":
        logger.warning("%s", report)


def check_config(config: DictConfig, cluster: Mapping[str, float] | None = None) -> LongShortConfig:
    """Check the config against itself and the cluster's resources, by Ray's names; None before Ray starts.

    Raises:
        ConfigError: the first setting that cannot work.
    """
    settings = check_settings(config)
    _check_platform(config, settings, {role: role_config(config, role) for role in Role})
    _check_cluster(config, settings, cluster)
    return settings


def check_settings(config: DictConfig) -> LongShortConfig:
    """:func:`check_config` without the machine: everything that the config alone decides."""
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
    _check_estimator(config.algorithm.adv_estimator)
    if settings.best.metric is not None and settings.best.metric not in PAIR_METRICS:
        raise ConfigError(
            f"{SECTION}.best.metric is {settings.best.metric!r}, which no validation reports; set it to one of "
            f"{', '.join(PAIR_METRICS)}, or to null"
        )
    policies = {role: role_config(config, role) for role in Role}
    _check_engines(config, settings, policies)
    _check_inherited(config, settings)
    _check_replicas(config, settings, policies)
    _check_lora(config, policies)
    _check_sizes(config, settings, policies)
    if settings.schedule is Schedule.ROUNDS:
        _check_rounds(config, settings, policies)
    return settings


def missing_inputs() -> dict[str, list[str]]:
    """Inputs that each advantage estimator registered with verl needs and no step has; none for usable estimators."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    missing: dict[str, list[str]] = {}
    for name, estimator in ADV_ESTIMATOR_REGISTRY.items():
        parameters = inspect.signature(estimator).parameters.values()
        required = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        missing[name] = [name for name in required if name not in _ESTIMATOR_INPUTS]
    # Its signature does not require them, but verl's compute_advantage does.
    missing["gdpo"] = ["algorithm.gdpo_reward_keys"]
    return missing


def _check_estimator(name: str) -> None:
    """Refuse an advantage estimator that verl does not know, or that needs a critic or further rollouts.

    Dr. GRPO is ``grpo`` with ``algorithm.norm_adv_by_std_in_grpo=false`` and
    ``actor.loss_agg_mode=seq-mean-token-sum-norm``.
    """
    missing = missing_inputs()
    if missing.get(name) == []:
        return
    fault = "which needs " + ", ".join(missing[name]) if name in missing else "which is not registered with verl"
    usable = ", ".join(estimator for estimator, inputs in missing.items() if not inputs)
    raise ConfigError(
        f"algorithm.adv_estimator is {name!r}, {fault}; set it to one of {usable}, or register your own with verl's "
        "register_adv_est in a module that VERL_USE_EXTERNAL_MODULES names"
    )


def _check_engines(config: DictConfig, settings: LongShortConfig, policies: Mapping[Role, DictConfig]) -> None:
    for role, policy in policies.items():
        load_format = policy.rollout.load_format
        if role not in settings.trained and "dummy" in load_format:
            raise ConfigError(
                f"{_KEY[role]}.rollout.load_format is {load_format!r}, but the {role.value} role never learns under "
                f"schedule {settings.schedule.value}, so its engine would serve random weights; set it to auto"
            )
        if policy.model.path is None or not str(policy.model.path).strip():
            raise ConfigError(f"{_KEY[role]}.model.path is {policy.model.path!r}; set it to the {role.value} model")
    if settings.policies is Policies.SHARED:
        own = (settings.short.get("model") or {}).get("path")
        if own and own != config.actor_rollout_ref.model.path:
            raise ConfigError(
                f"{SECTION}.policies is 'shared', but {SECTION}.short.model.path is {own!r} and "
                f"actor_rollout_ref.model.path {config.actor_rollout_ref.model.path!r}: one model plays both roles; "
                f"drop the former, or set {SECTION}.policies to two"
            )
        return
    fractions = {role: float(policy.rollout.gpu_memory_utilization) for role, policy in policies.items()}
    if settings.placement is Placement.COLOCATED and sum(fractions.values()) >= 1:
        raise ConfigError(
            f"the engines of both roles share the devices, but gpu_memory_utilization is "
            f"{fractions[Role.LONG]} (actor_rollout_ref.rollout) and {fractions[Role.SHORT]} ({SECTION}.short.rollout),"
            f" together {sum(fractions.values()):g}; lower them to sum to less than 1, 0.4 each for example"
        )


def _check_inherited(config: DictConfig, settings: LongShortConfig) -> None:
    """Refuse settings of the long model that another short model would inherit by the merge."""
    own, long = settings.short.get("model") or {}, config.actor_rollout_ref.model
    if settings.policies is Policies.SHARED or own.get("path") == long.path:
        return
    for key in ("tokenizer_path", "hf_config_path", "custom_chat_template", "lora_adapter_path"):
        value = long.get(key)
        if value is not None and key not in own:
            raise ConfigError(
                f"actor_rollout_ref.model.{key} is {str(value)[:60]!r}, and the short model {own.get('path')!r} would "
                f"inherit it; set {SECTION}.short.model.{key}: null for its own, or "
                f"${{actor_rollout_ref.model.{key}}} if it is meant for both"
            )


def _check_replicas(config: DictConfig, settings: LongShortConfig, policies: Mapping[Role, DictConfig]) -> None:
    """Refuse engines that do not fit on their policy's devices: verl would start none, or too few."""
    for role, policy in policies.items():
        split = role is Role.SHORT and settings.placement is Placement.SPLIT
        pool, where = (settings.short_pool, f"{SECTION}.short_pool") if split else (config.trainer, "trainer")
        check_pool(pool, where)
        rollout = policy.rollout
        parts = ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")
        size, devices = math.prod(rollout[part] for part in parts), pool.n_gpus_per_node * pool.nnodes
        if devices % size or (size > pool.n_gpus_per_node and size % pool.n_gpus_per_node):
            sizes = " × ".join(f"{part} {rollout[part]}" for part in parts if part == parts[0] or rollout[part] != 1)
            raise ConfigError(
                f"{_KEY[role]}.rollout: {sizes} makes an engine of {size} devices, but the {role.value} policy has "
                f"{devices} ({where}.n_gpus_per_node {pool.n_gpus_per_node} × nnodes {pool.nnodes}), which cannot be "
                "divided so; lower tensor_model_parallel_size, to 1 for a model that fits onto one device"
            )


def check_pool(pool: Any, where: str) -> None:
    """Refuse a section ``where`` of the config that names no devices."""
    for key in ("nnodes", "n_gpus_per_node"):
        number = getattr(pool, key)
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"{where}.{key} is {number!r}; set it to at least 1")


def _check_lora(config: DictConfig, policies: Mapping[Role, DictConfig]) -> None:
    for role, policy in policies.items():
        contents = list(policy.actor.checkpoint.save_contents)
        if config.trainer.save_freq > 0 and has_lora(policy) and ("model" not in contents or "hf_model" in contents):
            raise ConfigError(
                f"{_KEY[role]}.actor.checkpoint.save_contents is {contents}, but the {role.value} role trains a LoRA "
                "adapter: verl's hf_model export writes full parameters only, and the adapter would be lost; set it to "
                "[model, optimizer, extra] and run `longshort export` on the checkpoint"
            )


def _check_rounds(config: DictConfig, settings: LongShortConfig, policies: Mapping[Role, DictConfig]) -> None:
    rounds, trainer = settings.rounds, config.trainer
    if trainer.total_training_steps != rounds.total_steps:
        raise ConfigError(
            f"trainer.total_training_steps is {trainer.total_training_steps}, but {SECTION}.rounds has "
            f"{len(rounds.order)} rounds (order) of {rounds.steps} steps; set it to {rounds.total_steps}"
        )
    if trainer.test_freq < 1 or rounds.steps % trainer.test_freq:
        raise ConfigError(
            f"trainer.test_freq is {trainer.test_freq}, but rounds end with a validation, and {SECTION}.rounds.steps "
            f"is {rounds.steps}; set the former to {rounds.steps}, or to a number that divides it"
        )
    for role, policy in policies.items():
        strategy = policy.actor.strategy
        if strategy != "fsdp2":
            raise ConfigError(
                f"{_KEY[role]}.actor.strategy is {strategy!r}, but {SECTION}.schedule rounds renews the optimizers "
                "and references of 'fsdp2' alone; set it to fsdp2"
            )
        kl = "algorithm.use_kl_in_reward" if config.algorithm.use_kl_in_reward else f"{_KEY[role]}.actor.use_kl_loss"
        if has_lora(policy) and (config.algorithm.use_kl_in_reward or policy.actor.use_kl_loss):
            raise ConfigError(
                f"{kl} is true and the {role.value} role trains a LoRA adapter: its reference is the model without the "
                f"adapter, which no round of {SECTION}.schedule rounds can renew; set {kl} to false, or train all "
                "parameters"
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


def _check_platform(config: DictConfig, settings: LongShortConfig, policies: Mapping[Role, DictConfig]) -> None:
    if config.trainer.device == "cpu" and not compat.on_cpu():
        raise ConfigError("trainer.device is 'cpu', but VERL_PLATFORM is not; start with VERL_PLATFORM=cpu")
    if compat.on_cpu() and config.trainer.device != "cpu":
        raise ConfigError(
            f"VERL_PLATFORM is cpu, but trainer.device is {config.trainer.device!r}; inherit longshort_rl_cpu, "
            "or unset VERL_PLATFORM"
        )
    for role, policy in policies.items():
        rollout = policy.rollout
        if compat.on_cpu() and rollout.enable_chunked_prefill and settings.seed is not None:
            raise ConfigError(
                f"{_KEY[role]}.rollout.enable_chunked_prefill is true on a CPU, and {SECTION}.seed is {settings.seed}: "
                "vLLM's CPU engine fails on a chunked prompt whose request has a seed; set the former to false, "
                f"or {SECTION}.seed to null"
            )


def required_gpus(config: DictConfig) -> int:
    """Devices of both policies together; on a CPU, logical slots for workers."""
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if config[SECTION].placement == Placement.SPLIT.value:
        devices += config[SECTION].short_pool.n_gpus_per_node * config[SECTION].short_pool.nnodes
    return devices


def required_cpus(config: DictConfig) -> int:
    """Logical CPUs that a job's processes reserve; with fewer, Ray waits for ever without a message.

    verl's pool reserves three per device and TransferQueue one per process. All other processes (servers, load
    balancers, workers of agent loop and reward) reserve one only while they start, one after another.
    """
    controller, starting = 1, 1
    storage = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    return 3 * required_gpus(config) + controller + storage + starting


def _check_cluster(config: DictConfig, settings: LongShortConfig, cluster: Mapping[str, float] | None) -> None:
    init = config.ray_kwargs.ray_init
    if cluster is not None:
        found = {"cpus": cluster.get("CPU", 0.0), "gpus": cluster.get("GPU", cluster.get("NPU", 0.0))}
        source = {"cpus": "the Ray cluster's number of CPUs", "gpus": "the Ray cluster's number of devices"}
    elif init.get("address") is not None:
        return  # unknown until Ray runs: the trainer checks again
    else:
        found = {"cpus": init.num_cpus, "gpus": init.get("num_gpus")}
        source = {"cpus": "ray_kwargs.ray_init.num_cpus", "gpus": "ray_kwargs.ray_init.num_gpus"}
    cpus, gpus = required_cpus(config), required_gpus(config)
    if found["gpus"] is not None and found["gpus"] < gpus:
        own, cure = "trainer.n_gpus_per_node × nnodes", "lower them"
        if settings.placement is Placement.SPLIT:
            own += f" and, under {SECTION}.placement 'split', those of {SECTION}.short_pool"
            cure += f", or set {SECTION}.placement to colocated, where both policies share the devices"
        raise ConfigError(f"{source['gpus']} is {found['gpus']:g}, but the job needs {gpus}: {own}; {cure}")
    if found["cpus"] is not None and found["cpus"] < cpus:
        raise ConfigError(
            f"{source['cpus']} is {found['cpus']:g}, but the job's processes reserve {cpus}; it would wait for ever. "
            "Raise ray_kwargs.ray_init.num_cpus (logical, more than the machine has is fine), or lower "
            "transfer_queue.backend.SimpleStorage.num_data_storage_units"
        )


def check_files(config: DictConfig, long_tokenizer: Any, short_tokenizer: Any) -> None:
    """:func:`check_templates` and :func:`check_problem_files`."""
    check_templates(config, long_tokenizer, short_tokenizer)
    check_problem_files(config, long_tokenizer, short_tokenizer)


def check_templates(config: DictConfig, long_tokenizer: Any, short_tokenizer: Any) -> None:
    """Check the models' contexts and both tokenizers' chat templates; the ConfigError names the cure."""
    settings = long_short_settings(config)
    tokenizers = {Role.LONG: long_tokenizer, Role.SHORT: short_tokenizer}
    for role, tokenizer in tokenizers.items():
        policy = role_config(config, role)
        path = policy.model.path
        _check_context(role, policy)
        if fault := compat.fused_head_fault(policy.model, policy.actor.strategy):
            raise ConfigError(f"{_KEY[role]}.model.{fault}")
        system = settings.dialogue.system_prompt[role]
        try:
            check_tokenizer(tokenizer, [role], system_prompt=system, name=path)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def check_problem_files(config: DictConfig, long_tokenizer: Any, short_tokenizer: Any) -> None:
    """Check every problem file by row (ProblemFileError), and that they are enough for the run (ConfigError)."""
    if config.data.custom_cls.path is not None:
        return  # a data set class of the user's reads the files
    settings = long_short_settings(config)
    tokenizers = {Role.LONG: long_tokenizer, Role.SHORT: short_tokenizer}
    opening = settings.dialogue.opening_role

    def count_tokens(prompt: str) -> int:
        render, tokenizer = hf_render(tokenizers[opening]), tokenizers[opening]
        text = render(transcript(prompt, [], opening, settings.dialogue), True)
        return len(tokenizer.encode(text, add_special_tokens=False))

    for split, files in (("train", config.data.train_files), ("val", config.data.val_files)):
        num_rows = 0
        for path in [files] if isinstance(files, str) else files:
            problems = read_problems(Path(path).expanduser())
            check_verl_reads(Path(path).expanduser())
            check_answers(problems, path=path)
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


def _check_context(role: Role, policy: DictConfig) -> None:
    """Refuse a context that the model lacks, and an engine without chunked prefill that cannot read its longest prompt.

    verl would raise ``max_num_batched_tokens`` itself, but its own config is frozen: the engine would fail.
    """
    from transformers import AutoConfig
    from verl.workers.rollout.utils import get_max_position_embeddings

    rollout, model = policy.rollout, policy.model
    trusted = model.get("trust_remote_code", False)
    config = AutoConfig.from_pretrained(model.get("hf_config_path") or model.path, trust_remote_code=trusted)
    changed = model.override_config.get("model_config", model.override_config)
    longest = changed.get("max_position_embeddings") or get_max_position_embeddings(config)
    wanted = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    if wanted > longest:
        raise ConfigError(
            f"{_KEY[role]}.rollout.max_model_len (or data.max_prompt_length + data.max_response_length) is {wanted}, "
            f"but the {role.value} model's context is {longest}, where its engine would cut it off; lower it to that"
        )
    context = rollout.max_model_len or longest
    if rollout.enable_chunked_prefill:
        return
    if rollout.max_num_batched_tokens < context:
        raise ConfigError(
            f"{_KEY[role]}.rollout.max_num_batched_tokens is {rollout.max_num_batched_tokens}, less than the {context} "
            f"tokens of the {role.value} engine's context, and enable_chunked_prefill is false, so that a sequence is "
            "read whole; set rollout.max_model_len to data.max_prompt_length + data.max_response_length, and "
            "rollout.max_num_batched_tokens to no less"
        )


def as_sync(config: DictConfig, trainer: type) -> None:
    """Tell verl's base trainer that this run is synchronous, unless the class of verl's trainer tells it itself.

    Symptom: a trainer mode of another name silently gets the asynchronous replay buffer, data loader and checkpoints,
    because the base class compares the name with "sync". Upstream: none filed, patch 0009. Versions: verl 0.9.1.
    Remove when: verl asks the class; the shim disables itself then.
    """
    if getattr(trainer, "synchronous", False):
        return
    with open_dict(config):
        config.trainer.v1.trainer_mode = "sync"
