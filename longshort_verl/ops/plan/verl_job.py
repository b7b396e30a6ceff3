# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's composed config as what :mod:`longshort_verl.ops.plan` plans: RL of two policies or of one, and fine-tuning.

Composed as ``python -m verl.trainer.main_ppo --config-dir … --config-name … key=value`` does it; no model is loaded and
no process started.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from longshort_verl.adapters.rl.check import has_lora, long_short_settings, role_config
from longshort_verl.adapters.rl.settings import SECTION, LongShortConfig, Placement, Policies
from longshort_verl.config.compose import ConfigError
from longshort_verl.ops.plan.hardware import Gpu
from longshort_verl.ops.plan.job import Engine, Job, Policy, Pool, Sft, Training
from longshort_verl.ops.plan.memory import replica_size
from longshort_verl.ops.plan.shape import ModelShape, ShapeError, read_shape
from longshort_verl.ops.plan.speed import Load, Work
from longshort_verl.ops.plan.view import Plan
from longshort_verl.types import Role

_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2, "auto": 2}
_LONG = "actor_rollout_ref"
_SHORT = f"{SECTION}.short"
_KEYS = {
    "param_offload": "actor.fsdp_config.param_offload",
    "optimizer_offload": "actor.fsdp_config.optimizer_offload",
    "fsdp2": "actor.strategy",
    "checkpointing": "model.enable_gradient_checkpointing",
    "entropy": "actor.fsdp_config.entropy_from_logits_with_chunking",
    "fused_head": "model.use_fused_kernels",
    "max_update_tokens": "actor.ppo_max_token_len_per_gpu",
    "max_log_prob_tokens": "rollout.log_prob_max_token_len_per_gpu",
    "ref_tokens": "ref.log_prob_max_token_len_per_gpu",
    "sleeps": "rollout.free_cache_engine",
    "max_model_len": "rollout.max_model_len",
    "utilization": "rollout.gpu_memory_utilization",
    "tensor_parallel": "rollout.tensor_model_parallel_size",
    "bucket": "rollout.checkpoint_engine.update_weights_bucket_megabytes",
}
"""What may be changed → its key below ``actor_rollout_ref`` or ``long_short.short``."""
_SFT_KEYS = {
    "param_offload": "engine.param_offload",
    "optimizer_offload": "engine.optimizer_offload",
    "fsdp2": "engine.strategy",
    "checkpointing": "model.enable_gradient_checkpointing",
    "fused_head": "model.use_fused_kernels",
    "max_update_tokens": "data.max_token_len_per_gpu",
}


def compose_config(config_dir: Path, config_name: str, overrides: Sequence[str]) -> DictConfig:
    """A config as verl's mains compose it from the command line.

    Raises:
        ConfigError: the folder, the config or an override does not exist or does not fit.
    """
    from hydra import compose
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir is {str(config_dir)!r}, which is no folder")
    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    # The order of Hydra's own command line: the main's folder first, then --config-dir.
    search = create_config_search_path(str(Path(spec.submodule_search_locations[0]) / "trainer" / "config"))
    search.prepend("command-line", f"file://{config_dir.resolve()}", anchor="schema")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2("longshort_plan", search)
        return compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{config_dir / config_name}: {error}") from error
    finally:
        GlobalHydra.instance().clear()


def read_plan(
    config: DictConfig,
    gpu: Gpu,
    *,
    model_configs: Mapping[str, Path] | None = None,
    means: Mapping[str, float] | None = None,
    host_gib: float | None = None,
) -> Plan:
    """What a composed config asks of a cluster of one kind of GPU.

    Args:
        config: of main_ppo, two-agent or plain, or of the SFT trainer.
        gpu: every device.
        model_configs: role → folder with the config.json to go by; where not given, the config's own model path.
        means: expected tokens of a dialogue that each role writes ("long", "short"; "model" without roles), and of a
            problem ("prompt"); where not given, their limits.
        host_gib: main memory of a node; None where it is not known, and not checked.

    Raises:
        ConfigError: the config cannot be planned, or could not run on any device.
    """
    names = dict(model_configs or {})
    means = dict(means or {})
    if SECTION in config:
        job, work, notes = _two_agents(config, gpu, names, means)
    elif _LONG in config:
        job, work, notes = _one_model(config, gpu, names, means)
    elif "engine" in config and "optim" in config:
        job, work, notes = *_fine_tuning(config, gpu, names), _sft_notes(config)
    else:
        raise ConfigError("the config is neither of verl's main_ppo nor of its SFT trainer; nothing is known to plan")
    policies = [policy.name for policy in job.policies]
    for told, known in ((names, policies), (means, [*policies, *(role.value for role in Role), "prompt"])):
        unknown = sorted({*told} - {*known})
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no role of this config; known here are {', '.join(known)}")
    return Plan(job=job, work=work, host_gib=host_gib, notes=tuple(notes))


# ------------------------------------------------------------------------------------------ two agents


def _two_agents(
    config: DictConfig, gpu: Gpu, names: Mapping[str, Path], means: Mapping[str, float]
) -> tuple[Job, Work, list[str]]:
    settings = long_short_settings(config)
    shared = settings.policies is Policies.SHARED
    split = settings.placement is Placement.SPLIT
    pools = [_pool("long" if split else "devices", config.trainer.nnodes, config.trainer.n_gpus_per_node)]
    if split:
        pool = settings.short_pool
        pools.append(
            _pool(
                "short",
                pool.nnodes,
                pool.n_gpus_per_node,
                keys=(f"{SECTION}.short_pool.nnodes", f"{SECTION}.short_pool.n_gpus_per_node"),
            )
        )
    roles = [Role.LONG] if shared else list(Role)
    rows = config.data.train_batch_size * config.actor_rollout_ref.rollout.n * (2 if shared else 1)
    policies, notes = [], []
    for role in roles:
        section = role_config(config, role)
        name = Policies.SHARED.value if shared else role.value
        key = _LONG if role is Role.LONG else _SHORT
        own = {_KEYS[what] for what in _KEYS if OmegaConf.select(config[SECTION].short, _KEYS[what]) is not None}
        policies.append(
            _policy(
                config,
                section,
                name=name,
                pool=pools[-1 if role is Role.SHORT and split else 0],
                key=key,
                rows=rows,
                learns=shared or role in settings.trained,
                shape=_shape(section, name, key, names),
                inherited=frozenset(what for what in _KEYS if _KEYS[what] not in own)
                if role is Role.LONG
                else frozenset(),
            )
        )
        notes += _notes(section, key)
    job = Job(gpu=gpu, pools=tuple(pools), policies=tuple(policies))
    return job, _dialogues(config, settings, means, shared=shared), notes


def _dialogues(config: DictConfig, settings: LongShortConfig, means: Mapping[str, float], *, shared: bool) -> Work:
    dialogue = settings.dialogue
    most = {role: float(dialogue.max_short_turns * dialogue.max_turn_tokens[role]) for role in Role}
    # Both at their most would be beyond the dialogue's own limit.
    limit = min(dialogue.max_dialogue_tokens, config.data.max_response_length)
    share = min(1.0, limit / sum(most.values()))
    written = {role: means.get(role.value, most[role] * share) for role in Role}
    prompt = means.get("prompt", float(config.data.max_prompt_length))
    context = min(
        prompt + sum(written.values()), float(config.data.max_prompt_length + config.data.max_response_length)
    )
    rollouts = 0.0
    if settings.reward.importance:
        rollouts = settings.importance.group_share * settings.importance.max_dialogue_tokens
    loads = {
        Role.LONG: Load(generated=written[Role.LONG], prefill=prompt + written[Role.SHORT], context=context, rows=1),
        Role.SHORT: Load(
            generated=written[Role.SHORT] + rollouts, prefill=prompt + written[Role.LONG], context=context, rows=1
        ),
    }
    kinds = dict.fromkeys([settings.learning(1), settings.learning(1 + settings.alternate.switch_every)])
    if shared:
        both = Load(
            generated=sum(load.generated for load in loads.values()),
            prefill=sum(load.prefill for load in loads.values()),
            context=context,
            rows=max(map(len, kinds)),
        )
        named = {Policies.SHARED.value: both}
        steps = [("the shared model learns", frozenset(named))]
    else:
        named = {role.value: load for role, load in loads.items()}
        steps = [(_learning_name(roles), frozenset(role.value for role in roles)) for roles in kinds]
    return Work(
        dialogues=config.data.train_batch_size * config.actor_rollout_ref.rollout.n,
        loads=named,
        steps=steps,
        bound=not {role.value for role in Role} <= {*means},
    )


def _learning_name(roles: frozenset[Role]) -> str:
    return "both roles learn" if len(roles) > 1 else f"the {next(iter(roles)).value} role learns"


# ------------------------------------------------------------------------------------------ one model


def _one_model(
    config: DictConfig, gpu: Gpu, names: Mapping[str, Path], means: Mapping[str, float]
) -> tuple[Job, Work, list[str]]:
    section, name = config.actor_rollout_ref, "model"
    pool = _pool("devices", config.trainer.nnodes, config.trainer.n_gpus_per_node)
    dialogues = config.data.train_batch_size * section.rollout.n
    policy = _policy(
        config,
        section,
        name=name,
        pool=pool,
        key=_LONG,
        rows=dialogues,
        learns=True,
        shape=_shape(section, name, _LONG, names),
        inherited=frozenset(),
    )
    written = means.get(name, float(config.data.max_response_length))
    prompt = means.get("prompt", float(config.data.max_prompt_length))
    load = Load(generated=written, prefill=prompt, context=prompt + written, rows=1)
    steps = [("the model learns", frozenset({name}))]
    work = Work(dialogues=dialogues, loads={name: load}, steps=steps, bound=name not in means)
    return Job(gpu=gpu, pools=(pool,), policies=(policy,)), work, _notes(section, _LONG)


# ------------------------------------------------------------------------------------------ fine-tuning


def _fine_tuning(config: DictConfig, gpu: Gpu, names: Mapping[str, Path]) -> tuple[Job, None]:
    data, engine, model = config.data, config.engine, config.model
    cold = config.get("cold_start")
    name = cold.role if cold is not None else "model"
    pool = _pool("devices", config.trainer.nnodes, config.trainer.n_gpus_per_node)
    dynamic = data.use_dynamic_bsz
    if not model.path and name not in names:
        raise ConfigError("model.path is null; set it to the model that is to learn")
    sequence_parallel = engine.get("ulysses_sequence_parallel_size", 1)
    _check_divides(pool.size, sequence_parallel, "engine.ulysses_sequence_parallel_size")
    tokens = data.max_token_len_per_gpu if dynamic else data.micro_batch_size_per_gpu * data.max_length
    training = Training(
        **_fsdp("engine", engine, model, strategy=engine.strategy),
        max_update_tokens=tokens,
        max_log_prob_tokens=tokens,
        row_tokens=data.max_length,
        least_tokens=-(-data.max_length // sequence_parallel),
        update_rows=data.train_batch_size,
        log_prob_rows=data.train_batch_size,
        sequence_parallel=sequence_parallel,
        update_entropy=False,
        scaled_logits=False,
        ref_param_bytes=0,
        ref_tokens=0,
        export="hf_model" in config.checkpoint.save_contents,
    )
    keys = {what: key for what, key in _SFT_KEYS.items() if dynamic or what != "max_update_tokens"}
    policy = Policy(
        name=name,
        pool=pool.name,
        shape=_shape(config, name, "", names),
        training=training,
        engine=None,
        learns=True,
        keys=keys,
    )
    sft = None
    if cold is not None and cold.turns.max_turns:
        sft = Sft(
            turns=min(cold.turns.batch_size, -(-cold.turns.max_turns // pool.size)),
            turn_tokens=data.max_length + cold.turns.max_tokens,
        )
    return Job(gpu=gpu, pools=(pool,), policies=(policy,), sft=sft), None


def _sft_notes(config: DictConfig) -> list[str]:
    data, notes = config.data, _model_notes(config.model, "model")
    limit = data.max_token_len_per_gpu * config.engine.get("ulysses_sequence_parallel_size", 1)
    if data.use_dynamic_bsz and limit < data.max_length:
        notes.append(
            f"data.max_token_len_per_gpu allows {limit} tokens, data.max_length {data.max_length}: a row of more than "
            "the former ends the run"
        )
    return notes


# ------------------------------------------------------------------------------------------ parts


def _pool(
    name: str, nnodes: int, gpus_per_node: int, keys: tuple[str, str] = ("trainer.nnodes", "trainer.n_gpus_per_node")
) -> Pool:
    for key, value in zip(keys, (nnodes, gpus_per_node), strict=True):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{key} is {value!r}; set it to at least 1")
    return Pool(name=name, nnodes=nnodes, gpus_per_node=gpus_per_node, keys=keys)


def _shape(policy: DictConfig, name: str, key: str, names: Mapping[str, Path]) -> ModelShape:
    model = policy.model
    path = str(names[name]) if name in names else str(model.get("hf_config_path") or model.path)
    override = {}
    if name not in names:
        override = OmegaConf.to_container(model.get("override_config") or OmegaConf.create({}), resolve=True)
        assert isinstance(override, dict)
        override = {str(what): value for what, value in override.items() if what != "attn_implementation"}
    try:
        return read_shape(
            str(Path(path).expanduser()) if path.startswith("~") else path,
            trust_remote_code=bool(model.get("trust_remote_code", False)),
            override=override,
        )
    except ShapeError as error:
        setting = f"{key}.model.path" if key else "model.path"
        raise ConfigError(
            f"{setting}: {error}; hand in a folder that holds the config.json of such a model: "
            f"--model-config {name}=FOLDER"
        ) from error


def _num_bytes(key: str, dtype: Any) -> int:
    found = _BYTES.get(str(dtype))
    if found is None:
        raise ConfigError(f"{key} is {dtype!r}; known types are {', '.join(_BYTES)}")
    return found


def _check_divides(number: int, by: int, key: str) -> None:
    if by < 1 or number % by:
        raise ConfigError(
            f"{key} is {by}, which does not divide the policy's {number} devices; set it to 1, or to less"
        )


def _fsdp(key: str, engine: DictConfig, model: DictConfig, *, strategy: str) -> dict[str, Any]:
    """What an FSDP engine's section decides."""
    if strategy not in ("fsdp", "fsdp2"):
        raise ConfigError(f"the strategy is {strategy!r}; only fsdp and fsdp2 are planned")
    mixed = engine.get("mixed_precision") or {}
    entropy = "compiled" if engine.use_torch_compile else "eager"
    if engine.entropy_from_logits_with_chunking:
        entropy = "chunked"
    lora = model.get("lora") or {}
    return {
        "fsdp2": strategy == "fsdp2",
        "fsdp_size": engine.fsdp_size,
        "param_bytes": _num_bytes(f"{key}.model_dtype", engine.model_dtype or "fp32"),
        "compute_bytes": _num_bytes(f"{key}.mixed_precision.param_dtype", mixed.get("param_dtype", "bf16")),
        "reduce_bytes": _num_bytes(f"{key}.mixed_precision.reduce_dtype", mixed.get("reduce_dtype", "fp32")),
        "param_offload": engine.param_offload,
        "optimizer_offload": engine.optimizer_offload,
        "offload_policy": strategy == "fsdp2" and engine.offload_policy,
        "checkpointing": model.enable_gradient_checkpointing,
        "activation_offload": model.enable_activation_offload,
        "fused_head": model.use_fused_kernels,
        "entropy": entropy,
        "entropy_chunk": engine.entropy_from_logits_chunk_size,
        "whole_gradients": engine.use_no_sync_for_gradient_accumulation,
        "lora_rank": (lora.get("rank", 0) or 0) or (model.get("lora_rank", 0) or 0),
    }


def _policy(
    config: DictConfig,
    section: DictConfig,
    *,
    name: str,
    pool: Pool,
    key: str,
    rows: int,
    learns: bool,
    shape: ModelShape,
    inherited: frozenset[str],
) -> Policy:
    actor, rollout, model = section.actor, section.rollout, section.model
    engine = _engine(section, key, pool, shape)
    row = rollout.prompt_length + rollout.response_length
    sequence_parallel = max(
        actor.get("ulysses_sequence_parallel_size", 1) or 1, actor.fsdp_config.ulysses_sequence_parallel_size
    )
    _check_divides(pool.size, sequence_parallel, f"{key}.actor.ulysses_sequence_parallel_size")
    reference = actor.use_kl_loss or config.algorithm.use_kl_in_reward
    own_reference = bool(reference) and not has_lora(section)
    ref = section.ref
    limits = {
        "update": (actor.ppo_max_token_len_per_gpu, actor.get("ppo_micro_batch_size_per_gpu"), actor.use_dynamic_bsz),
        "log_prob": (
            rollout.log_prob_max_token_len_per_gpu,
            rollout.log_prob_micro_batch_size_per_gpu,
            rollout.log_prob_use_dynamic_bsz,
        ),
        "ref": (
            ref.log_prob_max_token_len_per_gpu,
            ref.log_prob_micro_batch_size_per_gpu,
            ref.log_prob_use_dynamic_bsz,
        ),
    }
    tokens = {what: limit if dynamic else (micro or 1) * row for what, (limit, micro, dynamic) in limits.items()}
    training = Training(
        **_fsdp(f"{key}.actor.fsdp_config", actor.fsdp_config, model, strategy=actor.strategy),
        max_update_tokens=tokens["update"],
        max_log_prob_tokens=tokens["log_prob"],
        row_tokens=row,
        # As preflight asks for it.
        least_tokens=max(row, rollout.max_model_len or 0),
        update_rows=max(1, rows * actor.ppo_mini_batch_size // config.data.train_batch_size),
        log_prob_rows=rows,
        sequence_parallel=sequence_parallel,
        update_entropy=bool(actor.calculate_entropy or actor.entropy_coeff != 0),
        scaled_logits=rollout.temperature != 1.0,
        ref_param_bytes=_num_bytes(f"{key}.ref.fsdp_config.model_dtype", ref.fsdp_config.model_dtype or "bf16")
        if own_reference
        else 0,
        ref_tokens=tokens["ref"],
        export="hf_model" in actor.checkpoint.save_contents,
    )
    fixed = {} if actor.use_dynamic_bsz else {"max_update_tokens", "max_log_prob_tokens", "ref_tokens"}
    keys = {what: f"{key}.{below}" for what, below in _KEYS.items() if what not in fixed}
    return Policy(
        name=name,
        pool=pool.name,
        shape=shape,
        training=training,
        engine=engine,
        learns=learns,
        keys=keys,
        shared_keys=inherited,
    )


def _engine(section: DictConfig, key: str, pool: Pool, shape: ModelShape) -> Engine:
    rollout, model = section.rollout, section.model
    tensor, stages = rollout.tensor_model_parallel_size, rollout.pipeline_model_parallel_size
    own = (rollout.engine_kwargs or {}).get("vllm") or {}
    engine = Engine(
        utilization=float(rollout.gpu_memory_utilization),
        devices=tensor * stages,
        tensor_parallel=tensor,
        data_parallel=rollout.data_parallel_size,
        weight_bytes=_num_bytes(f"{key}.rollout.dtype", rollout.dtype),
        sleeps=bool(rollout.free_cache_engine),
        eager=bool(rollout.enforce_eager),
        max_num_seqs=rollout.max_num_seqs,
        max_batched_tokens=rollout.max_num_batched_tokens,
        max_model_len=rollout.max_model_len or shape.max_positions,
        bucket=rollout.checkpoint_engine.update_weights_bucket_megabytes << 20,
        adapter=has_lora(section) and not (model.get("lora") or {}).get("merge", False),
        cache=own.get("kv_cache_memory_bytes"),
    )
    _check_divides(pool.size, replica_size(engine), f"{key}.rollout.tensor_model_parallel_size")
    if shape.heads % tensor or (shape.kv_heads % tensor and tensor % shape.kv_heads):
        raise ConfigError(
            f"{key}.rollout.tensor_model_parallel_size is {tensor}, but {shape.name} has {shape.heads} heads, "
            f"{shape.kv_heads} of keys and values: vLLM cannot share them out; set it to a divisor of {shape.heads}"
        )
    return engine


def _notes(section: DictConfig, key: str) -> list[str]:
    notes = _model_notes(section.model, f"{key}.model")
    if section.rollout.quantization is not None:
        notes.append(f"{key}.rollout.quantization is {section.rollout.quantization}: weights are counted unquantized")
    optimizer = section.actor.optim.optimizer
    if optimizer != "AdamW":
        notes.append(f"{key}.actor.optim.optimizer is {optimizer}: it is counted as AdamW")
    return notes


def _model_notes(model: DictConfig, key: str) -> list[str]:
    notes = []
    if not model.use_remove_padding:
        notes.append(f"{key}.use_remove_padding is false: what padding takes is not counted")
    if model.get("lora_rank", 0) and model.target_modules != "all-linear":
        notes.append(f"{key}.target_modules is {model.target_modules}: the adapter is counted as on all linear maps")
    return notes
