# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What memory, speed and cures need to know of a composed config: its policies, their devices, and a step's work.

Covers RL of two policies, RL of one, and supervised fine-tuning. No model is loaded and no process started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort_verl.adapters.rl.check import check_pool, check_settings
from longshort_verl.adapters.rl.settings import SECTION, LongShortConfig, Placement, Policies, has_lora, role_config
from longshort_verl.config.compose import ConfigError
from longshort_verl.ops.plan.hardware import Gpu
from longshort_verl.ops.plan.shape import ModelShape, ShapeError, read_shape
from longshort_verl.types import Role

_LONG, _SHORT = "actor_rollout_ref", f"{SECTION}.short"
_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2, "auto": 2}
_RL_KEYS = {
    "fsdp_size": "actor.fsdp_config.fsdp_size",
    "param_offload": "actor.fsdp_config.param_offload",
    "optimizer_offload": "actor.fsdp_config.optimizer_offload",
    "checkpointing": "model.enable_gradient_checkpointing",
    "fused_head": "model.use_fused_kernels",
    "max_update_tokens": "actor.ppo_max_token_len_per_gpu",
    "max_log_prob_tokens": "rollout.log_prob_max_token_len_per_gpu",
    "ref_tokens": "ref.log_prob_max_token_len_per_gpu",
    "sleeps": "rollout.free_cache_engine",
    "eager": "rollout.enforce_eager",
    "max_num_seqs": "rollout.max_num_seqs",
    "max_batched_tokens": "rollout.max_num_batched_tokens",
    "max_model_len": "rollout.max_model_len",
    "utilization": "rollout.gpu_memory_utilization",
    "devices": "rollout.tensor_model_parallel_size",
    "bucket_mb": "rollout.checkpoint_engine.update_weights_bucket_megabytes",
}
"""Field of a policy → its key below ``actor_rollout_ref`` or ``long_short.short``."""
_SFT_KEYS = {
    "fsdp_size": "engine.fsdp_size",
    "param_offload": "engine.param_offload",
    "optimizer_offload": "engine.optimizer_offload",
    "checkpointing": "model.enable_gradient_checkpointing",
    "fused_head": "model.use_fused_kernels",
    "max_update_tokens": "data.max_token_len_per_gpu",
}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Devices that the same policies use: "devices", or one pool per role under the placement split."""

    name: str
    nnodes: int
    gpus_per_node: int
    key: str = "trainer"
    """Section of the config that sets both counts."""

    @property
    def size(self) -> int:
        """Devices."""
        return self.nnodes * self.gpus_per_node


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One model of the job, with settings of verl's FSDP2 engine and of vLLM. Limits in tokens are per device.

    Activations and gathered parameters are bfloat16, sums of gradients float32 (verl's defaults).
    """

    name: str
    """long, short, shared or model."""
    pool: Pool
    shape: ModelShape
    learns: bool = True
    """Some step updates it."""
    keys: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Field → the whole key of its setting; the long policy's where the short inherits it."""

    fsdp_size: int = -1
    """Devices that share one copy; -1 for all."""
    param_bytes: int = 4
    """Per stored parameter, gradient and optimizer state."""
    param_offload: bool
    optimizer_offload: bool
    checkpointing: bool
    """The backward pass recomputes activations."""
    fused_head: bool
    """The logits of the whole vocabulary are never stored."""
    lora_rank: int = 0
    """0 where all parameters are trained."""
    max_update_tokens: int
    least_tokens: int
    """Smallest limit of a micro-batch that verl accepts: a whole context."""
    max_log_prob_tokens: int = 0
    ref_tokens: int = 0
    has_reference: bool = False
    update_entropy: bool = False
    """Updates compute the entropy."""
    scaled_logits: bool = False
    """The sampling temperature makes another copy of the logits."""

    utilization: float = 0.0
    """The engine's share of the device's memory; 0 without an engine."""
    devices: int = 1
    """Devices that share the layers of an engine."""
    weight_bytes: int = 2
    """Per parameter and cached value of the engine."""
    sleeps: bool = False
    """The engine frees its memory while the actors work."""
    eager: bool = False
    """No CUDA graphs."""
    max_num_seqs: int = 0
    max_batched_tokens: int = 0
    max_model_len: int = 0
    row_tokens: int = 0
    """Longest sequence that training needs."""
    bucket_mb: int = 0
    """MiB of the buffer through which weights arrive."""
    adapter: bool = False
    """Only a LoRA adapter is pushed. The base weights wait in main memory while the engine sleeps."""

    @property
    def shards(self) -> int:
        """Devices that share a copy."""
        return self.pool.size if self.fsdp_size < 0 else min(self.fsdp_size, self.pool.size)

    @property
    def trainable(self) -> int:
        """Trained parameters."""
        return self.lora_rank * self.shape.adapter_width if self.lora_rank else self.shape.params

    @property
    def parameters(self) -> float:
        """Bytes of a device's shard of the parameters, an adapter's included."""
        return self.param_bytes * (self.shape.params + self.lora_rank * self.shape.adapter_width) / self.shards

    @property
    def gradients(self) -> float:
        """Bytes of a device's shard of the gradients."""
        return self.param_bytes * self.trainable / self.shards

    @property
    def optimizer(self) -> float:
        """Bytes of a device's shard of Adam's two averages."""
        return 2 * self.gradients


@dataclass(frozen=True, kw_only=True)
class Load:
    """Mean tokens of one policy in one dialogue."""

    generated: float
    prefill: float
    """Tokens that it reads: the problem and its peer's turns, once each."""
    context: float
    """Length of its sequence at the end of the dialogue."""
    rows: int = 1
    """Sequences that it learns from."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training step."""

    dialogues: int
    """All rollouts of all prompts."""
    loads: Mapping[str, Load]
    """By policy."""
    steps: Mapping[str, frozenset[str]]
    """Kind of step → the policies that learn."""
    bound: bool
    """Tokens are the dialogue's limits, not expected values."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is planned."""

    gpu: Gpu
    policies: tuple[Policy, ...]
    """In the trainer's order."""
    work: Work | None = None
    """None for supervised fine-tuning, whose number of rows is unknown."""
    notes: tuple[str, ...] = ()
    """What the estimate leaves out."""

    @property
    def pools(self) -> list[Pool]:
        """Each pool once."""
        return list(dict.fromkeys(policy.pool for policy in self.policies))


def read_job(
    config: DictConfig,
    gpu: Gpu,
    *,
    model_configs: Mapping[str, Path] | None = None,
    means: Mapping[str, float] | None = None,
) -> Job:
    """The job of a composed config of main_ppo (two-agent or plain) or of the SFT trainer.

    Args:
        config: the composed config.
        gpu: every device.
        model_configs: role → folder or hub name of the config.json to use; default: the config's own model path.
        means: expected tokens of a dialogue per role ("long", "short"; "model" without roles) and of a problem
            ("prompt"); default: their limits.

    Raises:
        ConfigError: the job's own checks refuse the config, or its memory cannot be estimated.
    """
    paths, means = dict(model_configs or {}), dict(means or {})
    pool = _pool("devices", config.trainer, "trainer")
    if SECTION in config:
        job = _read_two_agents(config, gpu, paths, means)
    elif _LONG in config:
        work = _one_model_work(config, means)
        policy = _rl_policy(config, config.actor_rollout_ref, paths, name="model", pool=pool)
        job = Job(gpu=gpu, policies=(policy,), work=work)
    elif "engine" in config and "optim" in config:
        job = _read_sft(config, gpu, pool, paths)
    else:
        raise ConfigError("the config is neither of verl's main_ppo nor of its SFT trainer")
    names = [policy.name for policy in job.policies]
    for given, known in ((paths, names), (means, [*names, *(role.value for role in Role), "prompt"])):
        if unknown := sorted({*given} - {*known}):
            raise ConfigError(f"{unknown[0]!r} is not a role of this config; its roles are {', '.join(known)}")
    return job


def _read_two_agents(config: DictConfig, gpu: Gpu, paths: Mapping[str, Path], means: Mapping[str, float]) -> Job:
    settings = check_settings(config)
    shared, split = settings.policies is Policies.SHARED, settings.placement is Placement.SPLIT
    pools = dict.fromkeys(Role, _pool("long" if split else "devices", config.trainer, "trainer"))
    if split:
        pools[Role.SHORT] = _pool("short", config[SECTION].short_pool, f"{SECTION}.short_pool")
    policies = [
        _rl_policy(
            config,
            role_config(config, role),
            paths,
            name=Policies.SHARED.value if shared else role.value,
            pool=pools[role],
            learns=shared or role in settings.trained,
            short=config[SECTION].short if role is Role.SHORT else None,
        )
        for role in ([Role.LONG] if shared else Role)
    ]
    return Job(gpu=gpu, policies=tuple(policies), work=_dialogues(config, settings, means, shared=shared))


def _dialogues(config: DictConfig, settings: LongShortConfig, means: Mapping[str, float], *, shared: bool) -> Work:
    data, dialogue = config.data, settings.dialogue
    most = {role: float(dialogue.max_short_turns * dialogue.max_turn_tokens[role]) for role in Role}
    # All turns at their limit would exceed the dialogue's own limit.
    share = min(1.0, min(dialogue.max_dialogue_tokens, data.max_response_length) / sum(most.values()))
    written = {role: means.get(role.value, most[role] * share) for role in Role}
    prompt = means.get("prompt", float(data.max_prompt_length))
    context = min(prompt + sum(written.values()), float(data.max_prompt_length + data.max_response_length))
    # Measured importance: forced rollouts of the short policy.
    forced = settings.importance.group_share * settings.importance.max_dialogue_tokens
    extra = {Role.LONG: 0.0, Role.SHORT: forced if settings.reward["importance"] else 0.0}
    loads = {
        role.value: Load(generated=written[role] + extra[role], prefill=prompt + written[peer], context=context)
        for role, peer in ((Role.LONG, Role.SHORT), (Role.SHORT, Role.LONG))
    }
    learning = dict.fromkeys([settings.learning(1), settings.learning(1 + settings.alternate.switch_every)])
    titles = ["both roles learn" if len(roles) > 1 else f"the {min(roles).value} role learns" for roles in learning]
    learners = [frozenset(role.value for role in roles) for roles in learning]
    steps = dict(zip(titles, learners, strict=True))
    if shared:
        name, both = Policies.SHARED.value, loads.values()
        generated, prefill = sum(load.generated for load in both), sum(load.prefill for load in both)
        loads = {name: Load(generated=generated, prefill=prefill, context=context, rows=max(map(len, learning)))}
        steps = {"the shared model learns": frozenset({name})}
    dialogues = data.train_batch_size * config.actor_rollout_ref.rollout.n
    bound = not {role.value for role in Role} <= {*means}
    return Work(dialogues=dialogues, loads=loads, steps=steps, bound=bound)


def _one_model_work(config: DictConfig, means: Mapping[str, float]) -> Work:
    written = means.get("model", float(config.data.max_response_length))
    prompt = means.get("prompt", float(config.data.max_prompt_length))
    return Work(
        dialogues=config.data.train_batch_size * config.actor_rollout_ref.rollout.n,
        loads={"model": Load(generated=written, prefill=prompt, context=prompt + written)},
        steps={"the model learns": frozenset({"model"})},
        bound="model" not in means,
    )


def _read_sft(config: DictConfig, gpu: Gpu, pool: Pool, paths: Mapping[str, Path]) -> Job:
    data, cold_start = config.data, config.get("cold_start")
    name = cold_start.role if cold_start is not None else "model"
    if not config.model.path and name not in paths:
        raise ConfigError("model.path is null; set it to the model to train")
    parallel = config.engine.get("ulysses_sequence_parallel_size", 1)
    policy = Policy(
        name=name,
        pool=pool,
        shape=_shape(config, name, "model.path", paths),
        keys=_SFT_KEYS,
        **{what: OmegaConf.select(config, key) for what, key in _SFT_KEYS.items()},
        **_training("engine", config.engine, config.model, config.engine.strategy, dynamic=data.use_dynamic_bsz),
        least_tokens=-(-data.max_length // parallel),
    )
    tokens = policy.max_update_tokens * parallel
    note = f"data.max_token_len_per_gpu allows {tokens} tokens: a longer row ends the run"
    return Job(gpu=gpu, policies=(policy,), notes=(note,) if tokens < data.max_length else ())


def _pool(name: str, section: DictConfig, key: str) -> Pool:
    check_pool(section, key)
    return Pool(name=name, nnodes=section.nnodes, gpus_per_node=section.n_gpus_per_node, key=key)


def _shape(section: DictConfig, name: str, key: str, paths: Mapping[str, Path]) -> ModelShape:
    model = section.model
    path, override = str(paths.get(name) or model.get("hf_config_path") or model.path), {}
    if name not in paths and model.get("override_config"):
        override = {key: value for key, value in model.override_config.items() if key != "attn_implementation"}
    try:
        code = bool(model.get("trust_remote_code", False))
        return read_shape(str(Path(path).expanduser()), trust_remote_code=code, override=tuple(override.items()))
    except ShapeError as error:
        raise ConfigError(
            f"{key}: {error}; give a folder with the config.json of such a model: --model-config {name}=FOLDER"
        ) from error


def _num_bytes(key: str, dtype: Any) -> int:
    if str(dtype) not in _BYTES:
        raise ConfigError(f"{key} is {dtype!r}; known types are {', '.join(_BYTES)}")
    return _BYTES[str(dtype)]


def _training(key: str, engine: DictConfig, model: DictConfig, strategy: str, *, dynamic: bool) -> dict[str, Any]:
    if strategy not in ("fsdp", "fsdp2"):
        raise ConfigError(f"the strategy is {strategy!r}; only fsdp2 is planned")
    if not dynamic:
        raise ConfigError("use_dynamic_bsz is false; only micro-batches limited in tokens are planned: set it to true")
    rank = (model.get("lora") or {}).get("rank", 0) or model.get("lora_rank", 0) or 0
    return {"param_bytes": _num_bytes(f"{key}.model_dtype", engine.model_dtype or "fp32"), "lora_rank": rank}


def _rl_policy(
    config: DictConfig,
    section: DictConfig,
    paths: Mapping[str, Path],
    *,
    name: str,
    pool: Pool,
    learns: bool = True,
    short: DictConfig | None = None,
) -> Policy:
    """A policy of main_ppo from its ``actor_rollout_ref``; ``short`` is what the short policy overrides of it."""
    actor, rollout, model = section.actor, section.rollout, section.model
    prefix = _LONG if short is None else _SHORT
    inherited = {key for key in _RL_KEYS.values() if short is None or OmegaConf.select(short, key) is None}
    shape = _shape(section, name, f"{prefix}.model.path", paths)
    row = rollout.prompt_length + rollout.response_length
    values = {what: OmegaConf.select(section, key) for what, key in _RL_KEYS.items()}
    fsdp = f"{prefix}.actor.fsdp_config"
    return Policy(
        name=name,
        pool=pool,
        shape=shape,
        learns=learns,
        keys={what: f"{_LONG if key in inherited else prefix}.{key}" for what, key in _RL_KEYS.items()},
        **values | {"max_model_len": values["max_model_len"] or shape.max_positions},
        **_training(fsdp, actor.fsdp_config, model, actor.strategy, dynamic=actor.use_dynamic_bsz),
        least_tokens=max(row, values["max_model_len"] or 0),
        has_reference=(actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not has_lora(section),
        update_entropy=bool(actor.calculate_entropy or actor.entropy_coeff != 0),
        scaled_logits=rollout.temperature != 1.0,
        weight_bytes=_num_bytes(f"{prefix}.rollout.dtype", rollout.dtype),
        row_tokens=row,
        adapter=has_lora(section) and not (model.get("lora") or {}).get("merge", False),
    )
