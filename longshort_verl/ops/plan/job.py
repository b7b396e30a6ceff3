# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A composed config as a plain description of its job: policies with engine and trainer, devices, work of a step.

Covers RL of two policies, of one, and supervised fine-tuning. No model is loaded and no process started.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
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
    "param_offload": "actor.fsdp_config.param_offload",
    "optimizer_offload": "actor.fsdp_config.optimizer_offload",
    "checkpointing": "model.enable_gradient_checkpointing",
    "fused_head": "model.use_fused_kernels",
    "max_update_tokens": "actor.ppo_max_token_len_per_gpu",
    "max_log_prob_tokens": "rollout.log_prob_max_token_len_per_gpu",
    "ref_tokens": "ref.log_prob_max_token_len_per_gpu",
    "sleeps": "rollout.free_cache_engine",
    "max_model_len": "rollout.max_model_len",
    "utilization": "rollout.gpu_memory_utilization",
    "devices": "rollout.tensor_model_parallel_size",
    "bucket_mb": "rollout.checkpoint_engine.update_weights_bucket_megabytes",
}
"""Field that a cure may change → its key below ``actor_rollout_ref`` or ``long_short.short``."""
_SFT_KEYS = {
    "param_offload": "engine.param_offload",
    "optimizer_offload": "engine.optimizer_offload",
    "checkpointing": "model.enable_gradient_checkpointing",
    "fused_head": "model.use_fused_kernels",
    "max_update_tokens": "data.max_token_len_per_gpu",
    "held_out_turns": "cold_start.turns.batch_size",
}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Devices that the same policies use."""

    name: str
    """"devices", or the role under the placement split."""
    nnodes: int
    gpus_per_node: int
    key: str = "trainer"
    """Section of the config that sets both numbers."""

    @property
    def size(self) -> int:
        """Devices."""
        return self.nnodes * self.gpus_per_node


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a policy is trained: settings of verl's FSDP2 engine. Limits in tokens are of a micro-batch on a device."""

    fsdp_size: int
    """Devices that share one copy; -1 for all."""
    param_bytes: int
    """Of a stored parameter, and of its gradient and each of its optimizer states."""
    compute_bytes: int
    """Of a gathered parameter and of activations."""
    reduce_bytes: int
    """Of a gradient while it is summed over devices."""
    param_offload: bool
    optimizer_offload: bool
    checkpointing: bool
    """The backward pass recomputes activations."""
    fused_head: bool
    """Logits of the whole vocabulary are never stored (use_fused_kernels)."""
    entropy_tokens: float
    """Tokens whose entropy is computed at once in float32: 0 where compiled, a chunk, or infinity for all."""
    lora_rank: int
    """0 where all parameters are trained."""
    max_update_tokens: int
    least_tokens: int
    """Smallest limit that verl accepts: a whole context."""
    max_log_prob_tokens: int = 0
    ref_tokens: int = 0
    """Limit of the reference model."""
    ref_param_bytes: int = 0
    """Of a stored parameter of the reference model; 0 without one."""
    update_entropy: bool = False
    """Updates compute the entropy; log-probabilities of the actor always do."""
    scaled_logits: bool = False
    """The sampling temperature makes another copy of the logits."""
    held_out_turns: int = 0
    """Turns that fine-tuning generates at once on a device."""
    held_out_tokens: int = 0
    """Most tokens of such a turn with its prompt."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A policy's vLLM engine."""

    utilization: float
    """Share of the device's memory for weights, cache and buffers (gpu_memory_utilization)."""
    devices: int
    """Devices that share each layer (tensor_model_parallel_size)."""
    weight_bytes: int
    sleeps: bool
    """It frees its memory while the actors work (free_cache_engine)."""
    eager: bool
    """No CUDA graphs."""
    max_num_seqs: int
    max_batched_tokens: int
    max_model_len: int
    row_tokens: int
    """Longest sequence that training needs."""
    bucket_mb: int
    """MiB of the buffer through which weights arrive."""
    adapter: bool
    """Only a LoRA adapter is pushed; base weights wait in main memory while the engine sleeps."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One model of the job.

    ``shards`` is the number of devices that share a copy. ``trainable`` and ``stored`` count parameters, ``stored``
    with those of an adapter. ``parameters``, ``gradients`` and ``optimizer`` (Adam's two averages, in the parameters'
    precision) are bytes of a device's shard. ``served`` is the engine of a policy that has one.
    """

    name: str
    """long, short, shared or model."""
    pool: Pool
    shape: ModelShape
    training: Training
    engine: Engine | None
    """None in supervised fine-tuning."""
    learns: bool
    """Some step updates it."""
    keys: Mapping[str, str] = field(hash=False)
    """Field of training or engine → this policy's setting, for those that a cure may change."""
    inherits: frozenset[str] = frozenset()
    """Those of these fields that follow the long policy's setting."""

    @property
    def served(self) -> Engine:
        assert self.engine is not None
        return self.engine

    @property
    def shards(self) -> int:
        size = self.training.fsdp_size
        return self.pool.size if size < 0 else min(size, self.pool.size)

    @property
    def trainable(self) -> int:
        rank = self.training.lora_rank
        return rank * self.shape.adapter_width if rank else self.shape.params

    @property
    def stored(self) -> int:
        return self.shape.params + (self.trainable if self.training.lora_rank else 0)

    @property
    def parameters(self) -> float:
        return self.training.param_bytes * self.stored / self.shards

    @property
    def gradients(self) -> float:
        return self.training.param_bytes * self.trainable / self.shards

    @property
    def optimizer(self) -> float:
        return 2 * self.gradients


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one policy does for one dialogue on average, in tokens."""

    generated: float
    prefill: float
    """Tokens that it reads: the problem and its peer's turns, once each."""
    context: float
    """Length of its sequence at the end of the dialogue."""
    rows: int
    """Sequences that it learns from."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training step."""

    dialogues: int
    """All rollouts of all prompts."""
    loads: Mapping[str, Load]
    """By policy."""
    steps: Sequence[tuple[str, frozenset[str]]]
    """Kinds of step: title, and the policies that learn."""
    bound: bool
    """Tokens are the dialogue's limits and not an expectation."""


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


# ------------------------------------------------------------------------------------------ reading a config


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
    if SECTION in config:
        job = _read_two_agents(config, gpu, paths, means)
    elif _LONG in config:
        job = _read_one_model(config, gpu, paths, means)
    elif "engine" in config and "optim" in config:
        job = _read_sft(config, gpu, paths)
    else:
        raise ConfigError("the config is neither of verl's main_ppo nor of its SFT trainer")
    names = [policy.name for policy in job.policies]
    for given, known in ((paths, names), (means, [*names, *(role.value for role in Role), "prompt"])):
        if unknown := sorted({*given} - {*known}):
            raise ConfigError(f"{unknown[0]!r} is no role of this config; its roles are {', '.join(known)}")
    return job


def _read_two_agents(config: DictConfig, gpu: Gpu, paths: Mapping[str, Path], means: Mapping[str, float]) -> Job:
    settings = check_settings(config)
    shared, split = settings.policies is Policies.SHARED, settings.placement is Placement.SPLIT
    policies = []
    for role in [Role.LONG] if shared else Role:
        pool = _pool("long" if split else "devices", config.trainer, "trainer")
        if split and role is Role.SHORT:
            pool = _pool("short", config[SECTION].short_pool, f"{SECTION}.short_pool")
        policy = _policy(
            config,
            role_config(config, role),
            paths,
            name=Policies.SHARED.value if shared else role.value,
            pool=pool,
            key=_LONG if role is Role.LONG else _SHORT,
            learns=shared or role in settings.trained,
            inherits=_inherited(config[SECTION].short) if role is Role.SHORT else (),
        )
        policies.append(policy)
    notes = [note for role in Role for note in _notes(role_config(config, role), role.value)]
    work = _dialogues(config, settings, means, shared=shared)
    return Job(gpu=gpu, policies=tuple(policies), work=work, notes=tuple(dict.fromkeys(notes)))


def _inherited(own: DictConfig) -> list[str]:
    """Fields that the short policy takes over from the long one's settings."""
    return [name for name, key in _RL_KEYS.items() if OmegaConf.select(own, key) is None]


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
        role.value: Load(generated=written[role] + extra[role], prefill=prompt + written[peer], context=context, rows=1)
        for role, peer in ((Role.LONG, Role.SHORT), (Role.SHORT, Role.LONG))
    }
    learning = dict.fromkeys([settings.learning(1), settings.learning(1 + settings.alternate.switch_every)])
    titles = {
        roles: "both roles learn" if len(roles) > 1 else f"the {min(roles).value} role learns" for roles in learning
    }
    steps = [(titles[roles], frozenset(role.value for role in roles)) for roles in learning]
    if shared:
        name, both = Policies.SHARED.value, loads.values()
        generated, prefill = sum(load.generated for load in both), sum(load.prefill for load in both)
        loads = {name: Load(generated=generated, prefill=prefill, context=context, rows=max(map(len, learning)))}
        steps = [("the shared model learns", frozenset({name}))]
    return Work(
        dialogues=data.train_batch_size * config.actor_rollout_ref.rollout.n,
        loads=loads,
        steps=steps,
        bound=not {role.value for role in Role} <= {*means},
    )


def _read_one_model(config: DictConfig, gpu: Gpu, paths: Mapping[str, Path], means: Mapping[str, float]) -> Job:
    section, data, name = config.actor_rollout_ref, config.data, "model"
    pool = _pool("devices", config.trainer, "trainer")
    policy = _policy(config, section, paths, name=name, pool=pool, key=_LONG)
    written = means.get(name, float(data.max_response_length))
    prompt = means.get("prompt", float(data.max_prompt_length))
    load = Load(generated=written, prefill=prompt, context=prompt + written, rows=1)
    steps = [("the model learns", frozenset({name}))]
    dialogues = data.train_batch_size * section.rollout.n
    work = Work(dialogues=dialogues, loads={name: load}, steps=steps, bound=name not in means)
    return Job(gpu=gpu, policies=(policy,), work=work, notes=tuple(_notes(section, name)))


def _read_sft(config: DictConfig, gpu: Gpu, paths: Mapping[str, Path]) -> Job:
    data, engine, cold_start = config.data, config.engine, config.get("cold_start")
    name = cold_start.role if cold_start is not None else "model"
    pool = _pool("devices", config.trainer, "trainer")
    if not config.model.path and name not in paths:
        raise ConfigError("model.path is null; set it to the model to train")
    dynamic, parallel = data.use_dynamic_bsz, engine.get("ulysses_sequence_parallel_size", 1)
    tokens = data.max_token_len_per_gpu if dynamic else data.micro_batch_size_per_gpu * data.max_length
    held_out = {}
    if cold_start is not None and cold_start.turns.max_turns:
        turns = cold_start.turns
        held_out["held_out_turns"] = min(turns.batch_size, -(-turns.max_turns // pool.size))
        held_out["held_out_tokens"] = data.max_length + turns.max_tokens
    training = Training(
        **_fsdp("engine", engine, config.model, engine.strategy),
        max_update_tokens=tokens,
        least_tokens=-(-data.max_length // parallel),
        **held_out,
    )
    keys = {what: key for what, key in _SFT_KEYS.items() if dynamic or what != "max_update_tokens"}
    shape = _shape(config, name, "model.path", paths)
    policy = Policy(name=name, pool=pool, shape=shape, training=training, engine=None, learns=True, keys=keys)
    notes = _notes(config, name)
    if dynamic and tokens * parallel < data.max_length:
        notes.append(f"data.max_token_len_per_gpu allows {tokens * parallel} tokens: a longer row ends the run")
    return Job(gpu=gpu, policies=(policy,), notes=tuple(notes))


# ------------------------------------------------------------------------------------------ parts of a config


def _pool(name: str, section: DictConfig, key: str) -> Pool:
    check_pool(section, key)
    return Pool(name=name, nnodes=section.nnodes, gpus_per_node=section.n_gpus_per_node, key=key)


def _shape(policy: DictConfig, name: str, key: str, paths: Mapping[str, Path]) -> ModelShape:
    model = policy.model
    path, override = str(paths.get(name) or model.get("hf_config_path") or model.path), {}
    if name not in paths and model.get("override_config"):
        override = {k: v for k, v in model.override_config.items() if k != "attn_implementation"}
    path = str(Path(path).expanduser()) if path.startswith("~") else path
    try:
        return _cached_shape(path, bool(model.get("trust_remote_code", False)), tuple(override.items()))
    except ShapeError as error:
        raise ConfigError(
            f"{key}: {error}; give a folder with the config.json of such a model: --model-config {name}=FOLDER"
        ) from error


@functools.lru_cache(maxsize=8)
def _cached_shape(path: str, trust_remote_code: bool, override: tuple[tuple[Any, Any], ...]) -> ModelShape:
    return read_shape(path, trust_remote_code=trust_remote_code, override=dict(override))


def _num_bytes(key: str, dtype: Any) -> int:
    if str(dtype) not in _BYTES:
        raise ConfigError(f"{key} is {dtype!r}; known types are {', '.join(_BYTES)}")
    return _BYTES[str(dtype)]


def _fsdp(key: str, engine: DictConfig, model: DictConfig, strategy: str) -> dict[str, Any]:
    """Fields of :class:`Training` that an FSDP engine's section decides."""
    if strategy not in ("fsdp", "fsdp2"):
        raise ConfigError(f"the strategy is {strategy!r}; only fsdp2 is planned")
    mixed, lora = engine.get("mixed_precision") or {}, model.get("lora") or {}
    entropy = 0 if engine.use_torch_compile else math.inf
    if engine.entropy_from_logits_with_chunking:
        entropy = engine.entropy_from_logits_chunk_size
    return {
        "fsdp_size": engine.fsdp_size,
        "param_bytes": _num_bytes(f"{key}.model_dtype", engine.model_dtype or "fp32"),
        "compute_bytes": _num_bytes(f"{key}.mixed_precision.param_dtype", mixed.get("param_dtype", "bf16")),
        "reduce_bytes": _num_bytes(f"{key}.mixed_precision.reduce_dtype", mixed.get("reduce_dtype", "fp32")),
        "param_offload": engine.param_offload or engine.offload_policy,
        "optimizer_offload": engine.optimizer_offload or engine.offload_policy,
        "checkpointing": model.enable_gradient_checkpointing,
        "fused_head": model.use_fused_kernels,
        "entropy_tokens": entropy,
        "lora_rank": lora.get("rank", 0) or model.get("lora_rank", 0) or 0,
    }


def _policy(
    config: DictConfig,
    section: DictConfig,
    paths: Mapping[str, Path],
    *,
    name: str,
    pool: Pool,
    key: str,
    learns: bool = True,
    inherits: Sequence[str] = (),
) -> Policy:
    actor, rollout, ref, model = section.actor, section.rollout, section.ref, section.model
    row = rollout.prompt_length + rollout.response_length
    limits = [(actor.ppo_max_token_len_per_gpu, actor.get("ppo_micro_batch_size_per_gpu"), actor.use_dynamic_bsz)]
    for part in (rollout, ref):
        rows = part.log_prob_micro_batch_size_per_gpu
        limits.append((part.log_prob_max_token_len_per_gpu, rows, part.log_prob_use_dynamic_bsz))
    update, log_prob, reference = (tokens if dynamic else (rows or 1) * row for tokens, rows, dynamic in limits)
    has_reference = (actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not has_lora(section)
    ref_dtype = ref.fsdp_config.model_dtype or "bf16"
    training = Training(
        **_fsdp(f"{key}.actor.fsdp_config", actor.fsdp_config, model, actor.strategy),
        max_update_tokens=update,
        max_log_prob_tokens=log_prob,
        ref_tokens=reference,
        least_tokens=max(row, rollout.max_model_len or 0),
        update_entropy=bool(actor.calculate_entropy or actor.entropy_coeff != 0),
        scaled_logits=rollout.temperature != 1.0,
        ref_param_bytes=_num_bytes(f"{key}.ref.fsdp_config.model_dtype", ref_dtype) if has_reference else 0,
    )
    shape = _shape(section, name, f"{key}.model.path", paths)
    engine = Engine(
        utilization=float(rollout.gpu_memory_utilization),
        devices=rollout.tensor_model_parallel_size * rollout.pipeline_model_parallel_size,
        weight_bytes=_num_bytes(f"{key}.rollout.dtype", rollout.dtype),
        sleeps=bool(rollout.free_cache_engine),
        eager=bool(rollout.enforce_eager),
        max_num_seqs=rollout.max_num_seqs,
        max_batched_tokens=rollout.max_num_batched_tokens,
        max_model_len=rollout.max_model_len or shape.max_positions,
        row_tokens=row,
        bucket_mb=rollout.checkpoint_engine.update_weights_bucket_megabytes,
        adapter=has_lora(section) and not (model.get("lora") or {}).get("merge", False),
    )
    keys = {what: f"{key}.{below}" for what, below in _RL_KEYS.items() if actor.use_dynamic_bsz or "tokens" not in what}
    return Policy(
        name=name,
        pool=pool,
        shape=shape,
        training=training,
        engine=engine,
        learns=learns,
        keys=keys,
        inherits=frozenset(inherits),
    )


def _notes(section: DictConfig, name: str) -> list[str]:
    """What a policy's config has that the estimate leaves out."""
    model = section.model
    fsdp = section.actor.fsdp_config if "actor" in section else section.engine
    left_out = {
        "padding is not counted (use_remove_padding=false)": not model.use_remove_padding,
        "strategy fsdp is counted as fsdp2": (section.actor if "actor" in section else fsdp).strategy == "fsdp",
        "activations are counted on the device (enable_activation_offload)": model.enable_activation_offload,
        "offload_policy is counted as param_offload and optimizer_offload": fsdp.offload_policy,
        "whole gradients are not counted (use_no_sync…)": fsdp.use_no_sync_for_gradient_accumulation,
        "weights are counted unquantized": "rollout" in section and section.rollout.quantization is not None,
    }
    return [f"{name}: {note}" for note, applies in left_out.items() if applies]
