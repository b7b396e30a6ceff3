# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Memory of a device, and of a node, in each phase of a job, as verl 0.9.1 orders them.

In a step both engines generate, both sleep, each policy in turn computes log-probabilities and is updated, then each
policy's weights are pushed; the first engine is awake while the second one receives its weights. All sizes are
estimates in bytes for the fullest device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from longshort_verl.adapters.shape import activation_bytes, gathered_bytes
from longshort_verl.ops.plan.hardware import ASSUMED, GIB, Gpu
from longshort_verl.ops.plan.job import Job, Policy, Pool

FUSED_CHUNK = 512  # tokens at once in verl's fused head (FusedLinearForPPO)
COMPUTE_BYTES = 2  # per activation and gathered parameter (bfloat16)


class Kind(str, Enum):
    """What memory is used for, in the order in which a phase allocates it."""

    OVERHEAD = "overhead"  # CUDA contexts, what sleeping engines keep, and what allocators lose
    ENGINES = "engines"  # vLLM's weights, KV caches and buffers
    STATES = "states"  # shards of parameters, gradients and optimizer
    GATHERED = "gathered"  # whole layers and tensors, gathered from their shards
    ACTIVATIONS = "activations"
    LOGITS = "logits"  # scores over the vocabulary, and what is computed from them


@dataclass(frozen=True)
class Part:
    """Something that uses memory."""

    name: str
    kind: Kind
    num_bytes: float


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A period of the job, on the fullest device of a pool. ``total`` and ``missing`` (does not fit) are bytes."""

    name: str
    pool: str
    parts: tuple[Part, ...]
    limit: float  # bytes available: the device's memory, or the engine's share of it

    @property
    def total(self) -> float:
        return sum(part.num_bytes for part in self.parts)

    @property
    def missing(self) -> float:
        return max(0.0, self.total - self.limit)

    def of(self, kind: Kind) -> float:
        return sum(part.num_bytes for part in self.parts if part.kind is kind)

    @property
    def first_missing(self) -> Part:
        """The part at which memory runs out."""
        taken = 0.0
        for part in sorted(self.parts, key=lambda part: list(Kind).index(part.kind)):
            taken += part.num_bytes
            if taken > self.limit:
                return part
        return self.parts[-1]


def engine_weights(policy: Policy) -> float:
    """Weights of its engine, on one device."""
    return policy.shape.params * policy.weight_bytes / policy.devices


def engine_buffers(policy: Policy) -> float:
    """What vLLM needs beside weights and cache: its fullest forward pass (measured by a trial run) and CUDA graphs."""
    shape = policy.shape
    shared = ((shape.heads + 2 * shape.kv_heads) * shape.head_dim + 3 * shape.intermediate) / policy.devices
    logits = 3 * 4 * policy.max_num_seqs * shape.vocab  # the sampler's: logits, softmax and sorted copy, in float32
    forward = policy.max_batched_tokens * (4 * shape.hidden + shared) * policy.weight_bytes
    return forward + logits + _graph_bytes(policy)


def _graph_bytes(policy: Policy) -> float:
    return 0.0 if policy.eager or not policy.utilization else ASSUMED.cuda_graphs_gib * GIB


def kv_bytes_per_token(policy: Policy) -> float:
    """Keys and values of one token, on one device."""
    heads = max(1.0, policy.shape.kv_heads / policy.devices)  # a device has one whole head at least
    return 2 * policy.shape.layers * heads * policy.shape.head_dim * policy.weight_bytes


def kv_bytes(policy: Policy, gpu: Gpu) -> float:
    """The engine's cache, on one device; negative where its share does not hold the weights."""
    return policy.utilization * gpu.memory - engine_weights(policy) - engine_buffers(policy)


def _logits(policy: Policy, tokens: int) -> float:
    if policy.fused_head:
        return 3 * 4 * min(tokens, FUSED_CHUNK) * policy.shape.vocab
    return policy.logit_copies * tokens * policy.shape.vocab * COMPUTE_BYTES


def _parts(policy: Policy, kind: Kind, sizes: Mapping[str, float]) -> list[Part]:
    return [Part(f"{policy.name}: {name}", kind, size) for name, size in sizes.items() if size]


def _background(
    gpu: Gpu, policies: Sequence[Policy], acting: Policy | None, awake: Sequence[Policy], *, loaded: bool = True
) -> list[Part]:
    """Everything on the device beside what the acting policy computes; ``loaded``: its parameters are on the device."""
    contexts = sum(2 if policy.utilization else 1 for policy in policies) * ASSUMED.context_gib * GIB
    overhead = {"CUDA contexts": contexts, "fragmentation": ASSUMED.fragmentation * gpu.memory}
    parts = [Part(name, Kind.OVERHEAD, size) for name, size in overhead.items()]
    for policy in policies:
        on_device = loaded if policy is acting else not policy.param_offload
        optimizer = policy.optimizer if policy.learns and not policy.optimizer_offload else 0
        states = {"parameters": policy.parameters if on_device else 0, "optimizer": optimizer}
        parts += _parts(policy, Kind.STATES, states)
        if policy in awake:
            parts += _parts(policy, Kind.ENGINES, {"engine": policy.utilization * gpu.memory})
        else:
            parts += _parts(policy, Kind.OVERHEAD, {"CUDA graphs of the sleeping engine": _graph_bytes(policy)})
    return parts


def _passes(policy: Policy, tokens: int, *, backward: bool = False) -> list[Part]:
    """A forward pass over a micro-batch, and the backward pass."""
    shape, trained = policy.shape, policy.trainable if backward else 0
    activations = activation_bytes(shape, tokens, COMPUTE_BYTES, backward=backward, checkpointing=policy.checkpointing)
    logits = _logits(policy, tokens)
    return [
        *_parts(policy, Kind.GATHERED, {"gathered layers": gathered_bytes(shape, COMPUTE_BYTES, trained=trained)}),
        *_parts(policy, Kind.ACTIVATIONS, {f"activations of {tokens} tokens": activations}),
        *_parts(policy, Kind.LOGITS, {f"logits of {tokens} tokens": logits}),
    ]


def phases(job: Job) -> list[Phase]:
    """All phases of a job in their order, pool by pool."""
    return [phase for pool in job.pools for phase in _pool_phases(job, pool)]


def _pool_phases(job: Job, pool: Pool) -> list[Phase]:
    gpu, policies, of_pool = job.gpu, [policy for policy in job.policies if policy.pool == pool], []
    engines = [policy for policy in policies if policy.utilization]
    sleepless = [policy for policy in engines if not policy.sleeps]

    def add(stage: str, policy: Policy | None, parts: Sequence[Part], share: float = 1.0) -> None:
        name = f"{stage} {policy.name}" if policy and len(job.policies) > 1 else stage
        of_pool.append(Phase(name=name, pool=pool.name, parts=tuple(parts), limit=share * gpu.memory))

    for policy in engines:
        # vLLM refuses to start where its cache does not hold one sequence of max_model_len.
        sizes = {"engine's weights": engine_weights(policy), "engine's buffers": engine_buffers(policy)}
        cache = f"cache of one sequence of {policy.max_model_len} tokens"
        sizes[cache] = kv_bytes_per_token(policy) * policy.max_model_len
        add("cache", policy, _parts(policy, Kind.ENGINES, sizes), policy.utilization)
    if engines:
        add("rollout", None, _background(gpu, policies, None, engines))
    for policy in policies:
        around = _background(gpu, policies, policy, sleepless)
        if policy in engines:
            add("log-prob", policy, [*around, *_passes(policy, policy.max_log_prob_tokens)])
        if policy.has_reference:
            # The reference's own parameters stay in main memory, whatever the settings are (verl forces it).
            resting = _background(gpu, policies, policy, sleepless, loaded=not policy.param_offload)
            add("reference", policy, [*resting, *_passes(policy, policy.ref_tokens)])
        if policy.learns:
            states = {"gradients": policy.gradients, "optimizer": policy.optimizer if policy.optimizer_offload else 0}
            passes = _passes(policy, policy.max_update_tokens, backward=True)
            add("update", policy, [*around, *_parts(policy, Kind.STATES, states), *passes])
    for i, policy in enumerate(engines):
        awake = [other for j, other in enumerate(engines) if j < i or not other.sleeps]
        add("push", policy, _push(gpu, policies, policy, awake))
    return of_pool


def _push(gpu: Gpu, policies: Sequence[Policy], policy: Policy, awake: Sequence[Policy]) -> list[Part]:
    """Weights go from actor to engine tensor by tensor; engines before it are awake by then, those after it asleep."""
    # Shards are sent from where they are; an adapter is collected from parameters on the device.
    loaded = bool(policy.lora_rank) or not policy.param_offload
    weights = {"engine's weights": engine_weights(policy) if policy.sleeps else 0}
    buffers = {"bucket": policy.bucket_mb << 20}
    if not policy.adapter:
        buffers["largest tensor"] = policy.param_bytes * policy.shape.embedding
    background = _background(gpu, policies, policy, awake, loaded=loaded)
    return [*background, *_parts(policy, Kind.ENGINES, weights), *_parts(policy, Kind.GATHERED, buffers)]


def host_memory(job: Job) -> list[Part]:
    """Main memory of the fullest node: offloaded states, processes, and the peak while models are loaded."""
    nodes = [_node_memory([policy for policy in job.policies if policy.pool == pool]) for pool in job.pools]
    return max(nodes, key=lambda parts: sum(part.num_bytes for part in parts))


def _node_memory(policies: Sequence[Policy]) -> list[Part]:
    devices = policies[0].pool.n_gpus_per_node
    processes = (devices * len(policies) * ASSUMED.host_gib_per_worker + ASSUMED.host_gib_per_job) * GIB
    parts, loading = [Part("processes", Kind.OVERHEAD, processes)], 0.0
    for policy in policies:
        sizes = {
            "parameters": policy.parameters if policy.param_offload else 0,
            "optimizer": policy.optimizer if policy.learns and policy.optimizer_offload else 0,
            "reference": policy.param_bytes * policy.shape.params / policy.shards if policy.has_reference else 0,
            "sleeping engine's weights": engine_weights(policy) if policy.sleeps and policy.adapter else 0,
        }
        on_node = {name: devices * size * ASSUMED.pinned for name, size in sizes.items()}
        parts += _parts(policy, Kind.STATES, on_node)
        # One device of each group of shards loads the whole model; with tied weights, every device does.
        loaders = devices if policy.shape.tied else max(1, devices // policy.shards)
        loading = max(loading, loaders * policy.param_bytes * policy.shape.params)
    return [*parts, Part("loading, or an export", Kind.GATHERED, loading)]
