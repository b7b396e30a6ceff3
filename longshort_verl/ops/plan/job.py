# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What memory, speed and cures need to know of a composed config: its policies, their devices, and a step's work.

Covers RL of two policies, RL of one, and supervised fine-tuning. No model is loaded and no process started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort_verl.adapters.rl.check import check_pool, check_settings
from longshort_verl.adapters.rl.memory import estimate, main_memory, read_cpu_job
from longshort_verl.adapters.rl.settings import SECTION, LongShortConfig, Placement, Policies, has_lora, role_config
from longshort_verl.adapters.shape import ModelShape, read_shape
from longshort_verl.config.compose import ConfigError
from longshort_verl.ops.plan.hardware import Gpu
from longshort_verl.types import Role

_LONG, _SHORT = "actor_rollout_ref", f"{SECTION}.short"
_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2, "auto": 2}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Devices that the same policies use: "devices", or one pool per role under the placement split."""

    name: str
    nnodes: int
    n_gpus_per_node: int
    key: str  # section of the config that sets both counts

    @property
    def size(self) -> int:
        return self.nnodes * self.n_gpus_per_node


def _setting(rl: str, sft: str = "") -> Any:
    """A field that is read from a key below ``actor_rollout_ref`` (RL), or from a key of the SFT trainer."""
    return field(default=0, metadata={"rl": rl, "sft": sft})


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One model of the job, with settings of verl's FSDP2 engine and of vLLM. Limits in tokens are per device.

    Activations and gathered parameters are bfloat16, sums of gradients float32 (verl's defaults). ``shards`` counts the
    devices that share a copy, ``trainable`` the trained parameters. ``parameters`` (an adapter's included),
    ``gradients`` and ``optimizer`` (Adam's two averages) are bytes of a device's shard.
    """

    name: str  # long, short, shared or model
    pool: Pool
    shape: ModelShape
    learns: bool = True  # some step updates it
    keys: Mapping[str, str] = field(default_factory=dict)  # field → its whole key, the long policy's if inherited

    fsdp_size: int = _setting("actor.fsdp_config.fsdp_size", "engine.fsdp_size")  # devices per copy; -1: all
    param_bytes: int = 4  # per stored parameter, gradient and optimizer state
    param_offload: bool = _setting("actor.fsdp_config.param_offload", "engine.param_offload")
    optimizer_offload: bool = _setting("actor.fsdp_config.optimizer_offload", "engine.optimizer_offload")
    checkpointing: bool = _setting("model.enable_gradient_checkpointing", "model.enable_gradient_checkpointing")
    fused_head: bool = _setting("model.use_fused_kernels", "model.use_fused_kernels")
    lora_rank: int = 0  # 0 where all parameters are trained
    max_update_tokens: int = _setting("actor.ppo_max_token_len_per_gpu", "data.max_token_len_per_gpu")
    least_tokens: int  # smallest limit of a micro-batch that verl accepts: a whole context
    max_log_prob_tokens: int = _setting("rollout.log_prob_max_token_len_per_gpu")
    ref_tokens: int = _setting("ref.log_prob_max_token_len_per_gpu")
    has_reference: bool = False
    logit_copies: int = 1  # logits and their gradients that a pass without the fused head stores

    utilization: float = _setting("rollout.gpu_memory_utilization")  # share of the device's memory; 0 without an engine
    devices: int = _setting("rollout.tensor_model_parallel_size")  # devices that share the layers of an engine
    weight_bytes: int = 2  # per parameter and cached value of the engine
    sleeps: bool = _setting("rollout.free_cache_engine")  # the engine frees its memory while the actors work
    eager: bool = _setting("rollout.enforce_eager")  # no CUDA graphs
    max_num_seqs: int = _setting("rollout.max_num_seqs")
    max_batched_tokens: int = _setting("rollout.max_num_batched_tokens")
    max_model_len: int = _setting("rollout.max_model_len")
    row_tokens: int = 0  # longest sequence that training needs
    bucket_mb: int = _setting("rollout.checkpoint_engine.update_weights_bucket_megabytes")  # weights arrive through it
    adapter: bool = False  # only a LoRA adapter is pushed; base weights wait in main memory while the engine sleeps

    @property
    def shards(self) -> int:
        return self.pool.size if self.fsdp_size < 0 else min(self.fsdp_size, self.pool.size)

    @property
    def trainable(self) -> int:
        return self.lora_rank * self.shape.adapter_width if self.lora_rank else self.shape.params

    @property
    def parameters(self) -> float:
        return self.param_bytes * (self.shape.params + self.lora_rank * self.shape.adapter_width) / self.shards

    @property
    def gradients(self) -> float:
        return self.param_bytes * self.trainable / self.shards

    @property
    def optimizer(self) -> float:
        return 2 * self.gradients


@dataclass(frozen=True, kw_only=True)
class Load:
    """Mean tokens of one policy in one dialogue."""

    generated: float
    prefill: float  # tokens that it reads: the problem and its peer's turns, once each
    context: float  # length of its sequence at the end of the dialogue
    rows: int = 1  # sequences that it learns from


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training step."""

    dialogues: int  # all rollouts of all prompts
    loads: Mapping[str, Load]  # by policy
    steps: Mapping[str, frozenset[str]]  # kind of step → the policies that learn
    bound: bool  # tokens are the dialogue's limits, not expected values


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is planned."""

    gpu: Gpu
    policies: tuple[Policy, ...]  # in the trainer's order
    work: Work | None = None  # none for supervised fine-tuning, whose number of rows is unknown
    notes: tuple[str, ...] = ()  # what the estimate leaves out

    @property
    def pools(self) -> list[Pool]:
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
        means: expected tokens of a dialogue by role, and of a problem ("prompt"); default: their limits.

    Raises:
        ConfigError: the job's own checks refuse the config, or its memory cannot be estimated.
    """
    paths, means = dict(model_configs or {}), dict(means or {})
    if SECTION in config:
        job = _read_two_agents(config, gpu, paths, means)
        if config.trainer.device == "cpu" and not paths:
            note = f"on a machine without GPU {main_memory(estimate(read_cpu_job(config)))}"
            job = replace(job, notes=(*job.notes, note))
    elif _LONG in config:
        policy = _rl_policy(config, Role.LONG, _pool("devices", config.trainer), paths, name="model")
        job = Job(gpu=gpu, policies=(policy,), work=_one_model_work(config, means))
    elif "engine" in config and "optim" in config:
        job = _read_sft(config, gpu, paths)
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
    pools = dict.fromkeys(Role, _pool("long" if split else "devices", config.trainer))
    if split:
        pools[Role.SHORT] = _pool("short", config[SECTION].short_pool, f"{SECTION}.short_pool")
    policies = []
    for role in [Role.LONG] if shared else Role:
        name, learns = Policies.SHARED.value if shared else role.value, shared or role in settings.trained
        policies.append(_rl_policy(config, role, pools[role], paths, name=name, learns=learns))
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
    learning = settings.phases
    titles = ["both roles learn" if len(roles) > 1 else f"the {min(roles).value} role learns" for roles in learning]
    steps = dict(zip(titles, [frozenset(role.value for role in roles) for roles in learning], strict=True))
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


def _read_sft(config: DictConfig, gpu: Gpu, paths: Mapping[str, Path]) -> Job:
    data, cold_start = config.data, config.get("cold_start")
    name = cold_start.role if cold_start is not None else "model"
    if not config.model.path and name not in paths:
        raise ConfigError("model.path is null; set it to the model to train")
    parallel, keys = config.engine.get("ulysses_sequence_parallel_size", 1), _keys("sft")
    policy = Policy(
        name=name,
        pool=_pool("devices", config.trainer),
        shape=_shape(config.model, paths.get(name)),
        keys=keys,
        **{name: OmegaConf.select(config, key) for name, key in keys.items()},
        **_training("engine", config.engine, config.model, config.engine.strategy, dynamic=data.use_dynamic_bsz),
        least_tokens=-(-data.max_length // parallel),
    )
    tokens = policy.max_update_tokens * parallel
    note = f"data.max_token_len_per_gpu allows {tokens} tokens: a longer row ends the run"
    return Job(gpu=gpu, policies=(policy,), notes=(note,) if tokens < data.max_length else ())


def _keys(trainer: str) -> dict[str, str]:
    """Field of a policy → its key."""
    return {field.name: field.metadata[trainer] for field in fields(Policy) if field.metadata.get(trainer)}


def _pool(name: str, section: DictConfig, key: str = "trainer") -> Pool:
    check_pool(section, key)
    return Pool(name=name, nnodes=section.nnodes, n_gpus_per_node=section.n_gpus_per_node, key=key)


def _shape(model: DictConfig, given: Path | None) -> ModelShape:
    path = Path(given or model.get("hf_config_path") or model.path).expanduser()
    return read_shape(str(path), trust_remote_code=bool(model.get("trust_remote_code", False)))


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


def _rl_policy(config: DictConfig, role: Role, pool: Pool, paths: Mapping[str, Path], **facts: Any) -> Policy:
    section = role_config(config, role) if SECTION in config else config.actor_rollout_ref
    short = config[SECTION].short if role is Role.SHORT else None
    actor, rollout, model = section.actor, section.rollout, section.model
    prefix, keys = _SHORT if role is Role.SHORT else _LONG, _keys("rl")
    inherited = {key for key in keys.values() if short is None or OmegaConf.select(short, key) is None}
    shape = _shape(model, paths.get(facts["name"]))
    row = rollout.prompt_length + rollout.response_length
    values = {what: OmegaConf.select(section, key) for what, key in keys.items()}
    scaled, entropy = rollout.temperature != 1.0, actor.calculate_entropy or actor.entropy_coeff != 0
    fsdp = f"{prefix}.actor.fsdp_config"
    return Policy(
        **facts,
        pool=pool,
        shape=shape,
        keys={what: f"{_LONG if key in inherited else prefix}.{key}" for what, key in keys.items()},
        **values | {"max_model_len": values["max_model_len"] or shape.max_positions},
        **_training(fsdp, actor.fsdp_config, model, actor.strategy, dynamic=actor.use_dynamic_bsz),
        least_tokens=max(row, values["max_model_len"] or 0),
        has_reference=(actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not has_lora(section),
        # The loss's gradient takes the logits' place, unless the entropy has another gradient or a scaled copy exists.
        logit_copies=1 + scaled + (2 if entropy else scaled),
        weight_bytes=_num_bytes(f"{prefix}.rollout.dtype", rollout.dtype),
        row_tokens=row,
        adapter=has_lora(section) and not (model.get("lora") or {}).get("merge", False),
    )
