# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Memory of a device, and of a node, in each phase of a job, as verl 0.9.1 orders them.

The phases of a step are those of :class:`longshort_verl.adapters.rl.trainer.LongShortTrainer`: both engines generate,
both sleep, each policy in turn computes log-probabilities and is updated, then each policy's weights are pushed. The
first engine is awake while the second one receives its weights. All sizes are estimates in bytes for the fullest
device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from longshort_verl.ops.plan.hardware import ASSUMED, GIB, Gpu
from longshort_verl.ops.plan.job import Job, Policy
from longshort_verl.ops.plan.shape import ModelShape

FUSED_CHUNK = 512
"""Tokens at once in verl's fused head (``FusedLinearForPPO``)."""


class Kind(str, Enum):
    """What memory is used for, in the order in which a phase allocates it."""

    OVERHEAD = "overhead"
    """CUDA contexts, what sleeping engines keep, and what allocators lose."""
    ENGINES = "engines"
    """vLLM's weights, KV caches and buffers."""
    STATES = "states"
    """Shards of parameters, gradients and optimizer."""
    GATHERED = "gathered"
    """Whole layers and tensors, gathered from their shards."""
    ACTIVATIONS = "activations"
    LOGITS = "logits"
    """Scores over the vocabulary, and what is computed from them."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that uses memory."""

    name: str
    kind: Kind
    num_bytes: float


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A period of the job, on the fullest device of a pool."""

    name: str
    pool: str
    policy: str | None
    """The policy that works; None for all."""
    parts: tuple[Part, ...]
    limit: float
    """Bytes available."""
    limit_name: str = "the device's memory"

    @property
    def total(self) -> float:
        """Bytes."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def missing(self) -> float:
        """Bytes that do not fit."""
        return max(0.0, self.total - self.limit)

    def of(self, kind: Kind) -> float:
        """Bytes of one kind."""
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


# ------------------------------------------------------------------------------------------ sizes


def graph_bytes(policy: Policy) -> float:
    """CUDA graphs of its engine."""
    return 0.0 if policy.served.eager else ASSUMED.cuda_graphs_gib * GIB


def engine_weights(policy: Policy) -> float:
    """Weights of its engine, on one device."""
    return policy.shape.params * policy.served.weight_bytes / policy.served.devices


def engine_buffers(policy: Policy) -> float:
    """What vLLM needs beside weights and cache in its fullest forward pass, which it measures by a trial run."""
    engine, shape = policy.served, policy.shape
    shared = ((shape.heads + 2 * shape.kv_heads) * shape.head_dim + 3 * shape.intermediate) / engine.devices
    # The sampler's logits, their softmax and their sorted copy, in float32.
    logits = 3 * 4 * engine.max_num_seqs * shape.vocab
    return engine.max_batched_tokens * (4 * shape.hidden + shared) * engine.weight_bytes + logits


def kv_bytes_per_token(policy: Policy) -> float:
    """Keys and values of one token, on one device."""
    engine, shape = policy.served, policy.shape
    # With more devices than heads, each device still has a whole head.
    heads = max(1.0, shape.kv_heads / engine.devices)
    return 2 * shape.layers * heads * shape.head_dim * engine.weight_bytes


def kv_bytes(policy: Policy, gpu: Gpu) -> float:
    """The engine's cache, on one device; negative where its share does not hold the weights."""
    share = policy.served.utilization * gpu.memory
    return share - engine_weights(policy) - engine_buffers(policy) - graph_bytes(policy)


def layer_bytes(shape: ModelShape, num_bytes: int) -> float:
    """What one layer keeps of one token for its backward pass.

    Counted from transformers' Qwen2 and Llama: both norms' inputs in float32, their two outputs, queries, keys, values,
    attention's output and its normaliser, and the feed-forward part's four products (tests/ops/plan/test_memory.py
    counts what autograd saves).
    """
    norms = 2 * (4 * shape.hidden + 2 * num_bytes * shape.hidden + 4)
    attention = 2 * num_bytes * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * shape.heads
    return norms + attention + 4 * num_bytes * shape.intermediate


def _activations(policy: Policy, tokens: int, *, backward: bool) -> float:
    shape, training = policy.shape, policy.training
    # At once within a layer: products of the feed-forward part (or their gradients), and a few copies of its input.
    at_once = tokens * training.compute_bytes * (3 * shape.intermediate + 4 * shape.hidden)
    if not backward:
        return at_once
    of_layer = tokens * layer_bytes(shape, training.compute_bytes)
    if not training.checkpointing:
        return shape.layers * of_layer + at_once
    return shape.layers * tokens * shape.hidden * training.compute_bytes + of_layer + at_once


def _logits(policy: Policy, tokens: int, *, backward: bool, entropy: bool) -> float:
    training, vocab = policy.training, policy.shape.vocab
    if training.fused_head:
        return 3 * 4 * min(tokens, FUSED_CHUNK) * vocab
    copies = 1 + training.scaled_logits
    if backward and entropy:
        copies += 2  # gradients of log-probability and entropy; without entropy they replace the logits
    elif backward and training.scaled_logits:
        copies += 1
    # autocast's float32 copy, its softmax, their product
    in_float32 = 3 * 4 * min(tokens, training.entropy_tokens) * vocab if entropy else 0
    return copies * tokens * vocab * training.compute_bytes + in_float32


def _gathered(policy: Policy, *, backward: bool) -> float:
    shape, training = policy.shape, policy.training
    # Embedding and head are units of their own, or one root unit where they are tied.
    unit = max(shape.embedding, shape.head)
    total = training.compute_bytes * (unit + 2 * shape.layer)
    if backward:
        learnt = policy.trainable / shape.layers if training.lora_rank else max(unit, shape.layer)
        total += (training.compute_bytes + training.reduce_bytes) * learnt
    return total


# ------------------------------------------------------------------------------------------ parts of phases


def _part(policy: Policy, name: str, kind: Kind, num_bytes: float) -> Part:
    return Part(name=f"{policy.name}: {name}", kind=kind, num_bytes=num_bytes)


def _sleepers(policies: Iterable[Policy]) -> list[Policy]:
    return [policy for policy in policies if policy.engine and policy.engine.sleeps]


def _overhead(gpu: Gpu, policies: Sequence[Policy], asleep: Sequence[Policy]) -> list[Part]:
    processes = sum(2 if policy.engine else 1 for policy in policies)
    sizes = {
        "CUDA contexts": processes * ASSUMED.context_gib * GIB,
        "fragmentation": ASSUMED.fragmentation * gpu.memory,
        "CUDA graphs of sleeping engines": sum(graph_bytes(policy) for policy in asleep),
    }
    return [Part(name=name, kind=Kind.OVERHEAD, num_bytes=size) for name, size in sizes.items() if size]


def _awake(gpu: Gpu, policies: Iterable[Policy]) -> list[Part]:
    return [_part(policy, "engine", Kind.ENGINES, policy.served.utilization * gpu.memory) for policy in policies]


def _resting(policy: Policy, *, params: bool = True) -> list[Part]:
    """What a policy's actor keeps on the device while it is idle."""
    training, parts = policy.training, []
    if params and not training.param_offload:
        parts.append(_part(policy, "parameters", Kind.STATES, policy.parameters))
    if policy.learns and not training.optimizer_offload:
        parts.append(_part(policy, "optimizer", Kind.STATES, policy.optimizer))
    return parts


def _around(gpu: Gpu, policies: Sequence[Policy], acting: Policy, *, loaded: bool = True) -> list[Part]:
    """Everything on the device beside what the acting policy's actor computes."""
    asleep = _sleepers(policies)
    parts = _overhead(gpu, policies, asleep)
    for policy in policies:
        parts += _resting(policy, params=policy is not acting)
    parts += _awake(gpu, (policy for policy in policies if policy.engine and policy not in asleep))
    if loaded:
        parts.append(_part(acting, "parameters", Kind.STATES, acting.parameters))
    return parts


def _passes(policy: Policy, tokens: int, *, backward: bool, entropy: bool) -> list[Part]:
    """A forward pass over a micro-batch, and the backward pass."""
    activations = _activations(policy, tokens, backward=backward)
    logits = _logits(policy, tokens, backward=backward, entropy=entropy)
    return [
        _part(policy, "gathered layers", Kind.GATHERED, _gathered(policy, backward=backward)),
        _part(policy, f"activations of {tokens} tokens", Kind.ACTIVATIONS, activations),
        _part(policy, f"logits of {tokens} tokens", Kind.LOGITS, logits),
    ]


# ------------------------------------------------------------------------------------------ phases


def phases(job: Job) -> list[Phase]:
    """All phases of a job in their order, pool by pool."""
    pools = [[policy for policy in job.policies if policy.pool == pool] for pool in job.pools]
    return [phase for policies in pools for phase in _pool_phases(job, policies)]


def _pool_phases(job: Job, policies: Sequence[Policy]) -> list[Phase]:
    gpu, pool, served = job.gpu, policies[0].pool.name, policies[0].engine is not None
    found = []

    def add(stage: str, policy: Policy | None, parts: Sequence[Part]) -> None:
        name = f"{stage} {policy.name}" if policy and len(job.policies) > 1 else stage
        whose = policy.name if policy else None
        found.append(Phase(name=name, pool=pool, policy=whose, parts=tuple(parts), limit=gpu.memory))

    for policy in policies:
        if served:
            add("cache", policy, _cache(policy))
            share = policy.served.utilization
            limit_name = f"the engine's share, {policy.keys['utilization']}={share:g}"
            found[-1] = replace(found[-1], limit=share * gpu.memory, limit_name=limit_name)
    if served:
        resting = [part for policy in policies for part in _resting(policy)]
        add("rollout", None, [*_overhead(gpu, policies, ()), *resting, *_awake(gpu, policies)])
    for policy in policies:
        training = policy.training
        if served:
            forward = _passes(policy, training.max_log_prob_tokens, backward=False, entropy=True)
            add("log-prob", policy, [*_around(gpu, policies, policy), *forward])
        if training.ref_param_bytes:
            # The reference's own parameters stay in main memory, whatever the settings are (verl forces it).
            forward = _passes(policy, training.ref_tokens, backward=False, entropy=False)
            around = _around(gpu, policies, policy, loaded=not training.param_offload)
            add("reference", policy, [*around, *forward])
        if policy.learns:
            add("update", policy, _update(gpu, policies, policy))
    if served:
        for i, policy in enumerate(policies):
            add("push", policy, _push(gpu, policies, i))
    if policies[0].training.held_out_turns:
        add("held-out turns", policies[0], _held_out(gpu, policies[0]))
    return found


def _cache(policy: Policy) -> list[Part]:
    """vLLM refuses to start where its cache does not hold one sequence of max_model_len."""
    length = policy.served.max_model_len
    sizes = {
        "engine's weights": engine_weights(policy),
        "engine's buffers": engine_buffers(policy) + graph_bytes(policy),
        f"cache of one sequence of {length} tokens": kv_bytes_per_token(policy) * length,
    }
    return [_part(policy, name, Kind.ENGINES, size) for name, size in sizes.items()]


def _update(gpu: Gpu, policies: Sequence[Policy], policy: Policy) -> list[Part]:
    training = policy.training
    parts = [*_around(gpu, policies, policy), _part(policy, "gradients", Kind.STATES, policy.gradients)]
    if training.optimizer_offload:
        parts.append(_part(policy, "optimizer", Kind.STATES, policy.optimizer))
    backward = _passes(policy, training.max_update_tokens, backward=True, entropy=training.update_entropy)
    # Adam takes the square root of all second moments at once, after activations are freed.
    if policy.gradients > sum(part.num_bytes for part in backward):
        backward = [_part(policy, "Adam's square roots", Kind.GATHERED, policy.gradients)]
    return [*parts, *backward]


def _push(gpu: Gpu, policies: Sequence[Policy], number: int) -> list[Part]:
    """Weights go from actor to engine tensor by tensor; engines before it are awake by then, those after it asleep."""
    policy = policies[number]
    training, engine = policy.training, policy.served
    parts = _overhead(gpu, policies, _sleepers(policies[number + 1 :]))
    parts += _awake(gpu, (other for i, other in enumerate(policies) if i < number or not other.served.sleeps))
    for other in policies:
        parts += _resting(other, params=other is not policy)
    if engine.sleeps:
        parts.append(_part(policy, "engine's weights", Kind.ENGINES, engine_weights(policy) + graph_bytes(policy)))
    # Shards are sent from where they are; an adapter is collected from parameters on the device.
    if training.lora_rank or not training.param_offload:
        parts.append(_part(policy, "parameters", Kind.STATES, policy.parameters))
    parts.append(_part(policy, "bucket", Kind.GATHERED, engine.bucket_mb << 20))
    if not engine.adapter:
        parts.append(_part(policy, "largest tensor", Kind.GATHERED, training.param_bytes * policy.shape.largest))
    return parts


def _held_out(gpu: Gpu, policy: Policy) -> list[Part]:
    """Held-out turns in transformers' own loop, with a cache of whole sequences on every device."""
    turns, turn_tokens = policy.training.held_out_turns, policy.training.held_out_tokens
    shape, tokens = policy.shape, turns * turn_tokens
    activations = _activations(policy, tokens, backward=False)
    cache = tokens * 2 * shape.layers * shape.kv_heads * shape.head_dim * policy.training.compute_bytes
    # A growing cache is copied at each growth, layer by layer.
    cache *= 1 + 1 / shape.layers
    return [
        *_around(gpu, [policy], policy),
        _part(policy, "gathered layers", Kind.GATHERED, _gathered(policy, backward=False)),
        _part(policy, f"activations of {tokens} tokens", Kind.ACTIVATIONS, activations),
        _part(policy, f"cache of {turns} turns of {turn_tokens} tokens", Kind.ACTIVATIONS, cache),
    ]


# ------------------------------------------------------------------------------------------ main memory


def host_memory(job: Job) -> list[Part]:
    """Main memory of the fullest node: offloaded states, processes, and the peak while models are loaded."""
    nodes = [_node_memory([policy for policy in job.policies if policy.pool == pool]) for pool in job.pools]
    return max(nodes, key=lambda parts: sum(part.num_bytes for part in parts))


def _node_memory(policies: Sequence[Policy]) -> list[Part]:
    devices = policies[0].pool.gpus_per_node
    processes = (devices * len(policies) * ASSUMED.host_gib_per_worker + ASSUMED.host_gib_per_job) * GIB
    parts, loading = [Part(name="processes", kind=Kind.OVERHEAD, num_bytes=processes)], 0.0
    for policy in policies:
        training, engine = policy.training, policy.engine
        sizes = {}
        if training.param_offload:
            sizes["parameters"] = policy.parameters
        if policy.learns and training.optimizer_offload:
            sizes["optimizer"] = policy.optimizer
        if training.ref_param_bytes:
            sizes["reference"] = training.ref_param_bytes * policy.shape.params / policy.shards
        if engine and engine.sleeps and engine.adapter:
            sizes["sleeping engine's weights"] = engine_weights(policy)
        parts += [_part(policy, name, Kind.STATES, devices * size * ASSUMED.pinned) for name, size in sizes.items()]
        # One device of each group of shards loads the whole model; with tied weights, every device does.
        loaders = devices if policy.shape.tied else max(1, devices // policy.shards)
        loading = max(loading, loaders * training.param_bytes * policy.shape.params)
    return [*parts, Part(name="loading, or an export", kind=Kind.GATHERED, num_bytes=loading)]
