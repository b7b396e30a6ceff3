# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What is on a device, and in a node's main memory, in each phase of a job: arithmetic over verl 0.9.1's real order.

A step's phases are those of :class:`longshort_verl.adapters.rl.trainer.LongShortTrainer`: both engines generate, then
both sleep; each policy in turn computes log-probabilities and is updated; then each one's weights are pushed, the
first one's engine being wide awake while the second one's is filled. All sizes are estimates in bytes, of the fullest
device; nothing here was compared with a GPU yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from longshort_verl.ops.plan.hardware import GIB, Assumptions, Gpu
from longshort_verl.ops.plan.job import Engine, Job, Kind, Part, Phase, Policy, Pool, Training
from longshort_verl.ops.plan.shape import ModelShape

FUSED_CHUNK = 512
"""Tokens at once in verl's fused head (``FusedLinearForPPO``)."""


def num_shards(training: Training, pool: Pool) -> int:
    """Devices among which a copy of the model is sharded."""
    return pool.size if training.fsdp_size < 0 else min(training.fsdp_size, pool.size)


def trainable(policy: Policy) -> int:
    """Parameters that learn."""
    rank = policy.training.lora_rank
    return rank * policy.shape.adapter_width if rank else policy.shape.params


def stored(policy: Policy) -> int:
    """Parameters that are stored, an adapter's included."""
    return policy.shape.params + (trainable(policy) if policy.training.lora_rank else 0)


def replica_size(engine: Engine) -> int:
    """Devices of a replica."""
    return engine.devices * engine.data_parallel


def engine_weights(policy: Policy) -> float:
    """Of its engine, on a device."""
    assert policy.engine is not None
    return policy.shape.params * policy.engine.weight_bytes / policy.engine.devices


def engine_buffers(policy: Policy) -> float:
    """What vLLM needs beside weights and cache at its fullest forward pass, which it finds out by a trial run."""
    engine, shape = policy.engine, policy.shape
    assert engine is not None
    widths = (
        4 * shape.hidden + (shape.query_width + 2 * shape.kv_width + 3 * shape.intermediate) / engine.tensor_parallel
    )
    # The sampler's scores, their softmax and their sorted copy, in float32.
    scores = 3 * 4 * engine.max_num_seqs * shape.vocab
    return engine.max_batched_tokens * widths * engine.weight_bytes + scores


def kv_bytes_per_token(policy: Policy) -> float:
    """Keys and values of one token on one device."""
    engine, shape = policy.engine, policy.shape
    assert engine is not None
    # Where there are more devices than heads, each has a whole head all the same.
    heads = max(1.0, shape.kv_heads / engine.tensor_parallel)
    stages = engine.devices / engine.tensor_parallel
    return 2 * shape.layers / stages * heads * shape.head_dim * engine.weight_bytes


def kv_bytes(policy: Policy, gpu: Gpu, assumed: Assumptions) -> float:
    """Of the cache, on one device; negative where not even the weights fit into the engine's share."""
    engine = policy.engine
    assert engine is not None
    if engine.cache is not None:
        return engine.cache
    graphs = 0 if engine.eager else assumed.cuda_graphs_gib * GIB
    return engine.utilization * gpu.memory - engine_weights(policy) - engine_buffers(policy) - graphs


def micro_batch(limit: int, rows: int, training: Training, pool: Pool) -> int:
    """Tokens of the fullest micro-batch on a device, in an update or for log-probabilities."""
    of_device = math.ceil(rows / max(1, pool.size // training.sequence_parallel))
    return min(limit, math.ceil(of_device * training.row_tokens / training.sequence_parallel))


def layer_bytes(shape: ModelShape, num_bytes: int) -> float:
    """What one layer keeps of one token for its backward pass.

    Counted from transformers' Qwen2 and Llama: both norms' inputs in float32, their two outputs, queries, keys, values,
    attention's output and its normaliser, and the feed-forward part's four products (tests/ops/plan/test_memory.py
    counts what autograd really saves).
    """
    norms = 2 * (4 * shape.hidden + 2 * num_bytes * shape.hidden + 4)
    attention = num_bytes * (2 * shape.query_width + 2 * shape.kv_width) + 4 * shape.heads
    return norms + attention + 4 * num_bytes * shape.intermediate


def _activations(policy: Policy, tokens: int, *, backward: bool) -> float:
    shape, training = policy.shape, policy.training
    num_bytes = training.compute_bytes
    # At once within a layer: products of the feed-forward part (or their gradients), and a few copies of its input.
    at_once = tokens * num_bytes * (3 * shape.intermediate + 4 * shape.hidden)
    if not backward:
        return at_once
    of_layer = tokens * layer_bytes(shape, num_bytes)
    if not training.checkpointing:
        return shape.layers * of_layer + at_once
    kept = 2 if training.activation_offload else shape.layers
    return kept * tokens * shape.hidden * num_bytes + of_layer + at_once


def _logits(policy: Policy, tokens: int, *, backward: bool, entropy: bool) -> float:
    shape, training = policy.shape, policy.training
    if training.fused_head:
        return 3 * 4 * min(tokens, FUSED_CHUNK) * shape.vocab
    scores = tokens * shape.vocab * training.compute_bytes
    copies = 1 + training.scaled_logits
    if backward and entropy:
        copies += 2  # gradients of both log-probability and entropy; without entropy they replace the scores
    elif backward and training.scaled_logits:
        copies += 1
    extra = 0.0
    if entropy and training.entropy == "eager":
        extra = 3 * 4 * tokens * shape.vocab  # autocast's float32 copy, its softmax, their product
    elif entropy and training.entropy == "chunked":
        extra = 3 * 4 * min(tokens, training.entropy_chunk) * shape.vocab
    return copies * scores + extra


def _gathered(policy: Policy, *, backward: bool) -> float:
    shape, training = policy.shape, policy.training
    if training.fsdp2 and not shape.tied:
        unit = max(shape.embedding, shape.head)  # each a unit of its own
    else:
        unit = shape.embedding + (0 if shape.tied else shape.head)  # the root's, which stays together
    found = training.compute_bytes * (unit + 2 * shape.layer)
    if backward:
        learnt = max(unit, shape.layer) if not training.lora_rank else trainable(policy) / shape.layers
        found += (training.compute_bytes + training.reduce_bytes) * learnt
        if training.whole_gradients:
            found += training.reduce_bytes * trainable(policy)
    return found


def _optimizer(policy: Policy, pool: Pool) -> float:
    # Adam's two averages, in the parameters' own precision.
    return 2 * policy.training.param_bytes * trainable(policy) / num_shards(policy.training, pool)


def _parameters(policy: Policy, pool: Pool) -> float:
    return policy.training.param_bytes * stored(policy) / num_shards(policy.training, pool)


def _resting(policy: Policy, pool: Pool, *, params: bool = True) -> list[Part]:
    """What a policy's actor leaves on the device while it does not work."""
    training, found = policy.training, []
    if training.offload_policy:
        return found
    if params and not training.param_offload:
        found.append(Part(name=f"{policy.name}: parameters", kind=Kind.STATES, num_bytes=_parameters(policy, pool)))
    if policy.learns and not training.optimizer_offload:
        found.append(Part(name=f"{policy.name}: optimizer", kind=Kind.STATES, num_bytes=_optimizer(policy, pool)))
    return found


# ------------------------------------------------------------------------------------------ phases


def phases(job: Job) -> list[Phase]:
    """All phases of a job in their order, pool by pool."""
    return [phase for pool in job.pools for phase in _pool_phases(job, pool)]


def _pool_phases(job: Job, pool: Pool) -> list[Phase]:
    policies = [policy for policy in job.policies if policy.pool == pool.name]
    found = []
    for number, policy in enumerate(policies):
        found.append(_load(job, pool, policies, number))
        if policy.engine:
            found += [_start(job, pool, policies, number), _cache(job, pool, policy)]
    served = any(policy.engine for policy in policies)
    if served:
        parts = [part for policy in policies for part in [*_resting(policy, pool), _awake(job, policy)]]
        found.append(_phase(job, pool, "rollout", None, [*_overhead(job, policies, asleep=()), *parts]))
    for policy in policies:
        if served:
            found.append(_log_prob(job, pool, policies, policy))
        if policy.training.ref_param_bytes:
            found.append(_reference(job, pool, policies, policy))
        if policy.learns:
            found.append(_update(job, pool, policies, policy))
    if served:
        found += [_push(job, pool, policies, i) for i in range(len(policies))]
    if job.sft and job.sft.turns:
        found.append(_held_out(job, pool, policies[0]))
    return found


def _phase(job: Job, pool: Pool, name: str, policy: Policy | None, parts: Sequence[Part]) -> Phase:
    whose = f"{name} {policy.name}" if policy and len(job.policies) > 1 else name
    return Phase(
        name=whose,
        pool=pool.name,
        policy=policy.name if policy else None,
        parts=tuple(parts),
        limit=job.gpu.memory,
    )


def _overhead(job: Job, policies: Sequence[Policy], *, asleep: Sequence[Policy] | None = None) -> list[Part]:
    assumed = job.assumed
    asleep = [policy for policy in policies if policy.engine and policy.engine.sleeps] if asleep is None else asleep
    processes = sum(2 if policy.engine else 1 for policy in policies)
    parts = [
        Part(name="CUDA contexts", kind=Kind.OVERHEAD, num_bytes=processes * assumed.context_gib * GIB),
        Part(name="fragmentation", kind=Kind.OVERHEAD, num_bytes=assumed.fragmentation * job.gpu.memory),
    ]
    graphs = sum(assumed.cuda_graphs_gib for policy in asleep if policy.engine and not policy.engine.eager)
    if graphs:
        parts.append(Part(name="CUDA graphs of sleeping engines", kind=Kind.OVERHEAD, num_bytes=graphs * GIB))
    return parts


def _awake(job: Job, policy: Policy) -> Part:
    engine = policy.engine
    assert engine is not None
    taken = engine.utilization * job.gpu.memory
    if engine.cache is not None:
        graphs = 0 if engine.eager else job.assumed.cuda_graphs_gib * GIB
        taken = engine_weights(policy) + engine_buffers(policy) + engine.cache + graphs
    return Part(name=f"{policy.name}: engine", kind=Kind.ENGINES, num_bytes=taken)


def _others(job: Job, pool: Pool, policies: Sequence[Policy], acting: Policy) -> list[Part]:
    """What all but the acting policy's actor hold while it works."""
    parts = [part for policy in policies if policy is not acting for part in _resting(policy, pool)]
    return parts + [_awake(job, policy) for policy in policies if policy.engine and not policy.engine.sleeps]


def _before(job: Job, pool: Pool, policies: Sequence[Policy], number: int) -> list[Part]:
    """What is there when a policy is set up: those before it, their engines asleep where they can be."""
    before = policies[:number]
    asleep = [other for other in before if other.engine and other.engine.sleeps]
    awake = [_awake(job, other) for other in before if other.engine and not other.engine.sleeps]
    # The optimizers' states come with the first update.
    resting = [part for other in before for part in _resting(other, pool) if not part.name.endswith("optimizer")]
    return [*_overhead(job, policies[: number + 1], asleep=asleep), *awake, *resting]


def _load(job: Job, pool: Pool, policies: Sequence[Policy], number: int) -> Phase:
    """A policy's actor is loaded and sharded."""
    policy = policies[number]
    training, shape = policy.training, policy.shape
    root = shape.embedding + (0 if shape.tied else shape.head)
    unit = shape.largest if training.fsdp2 else max(shape.layer, root)
    parts = [
        *_before(job, pool, policies, number),
        Part(name=f"{policy.name}: parameters", kind=Kind.STATES, num_bytes=_parameters(policy, pool)),
        Part(name=f"{policy.name}: what is loaded", kind=Kind.GATHERED, num_bytes=training.param_bytes * unit),
    ]
    return _phase(job, pool, "load", policy, parts)


def _start(job: Job, pool: Pool, policies: Sequence[Policy], number: int) -> Phase:
    """A policy's engine starts, and refuses to where its share of the memory is not free."""
    policy = policies[number]
    # The optimizer's states come with the first update.
    resting = [part for part in _resting(policy, pool) if not part.name.endswith("optimizer")]
    return _phase(job, pool, "start", policy, [*_before(job, pool, policies, number), *resting, _awake(job, policy)])


def _cache(job: Job, pool: Pool, policy: Policy) -> Phase:
    """vLLM refuses to start where its cache does not hold one sequence of max_model_len."""
    engine = policy.engine
    assert engine is not None
    graphs = 0 if engine.eager else job.assumed.cuda_graphs_gib * GIB
    parts = [
        Part(name=f"{policy.name}: engine's weights", kind=Kind.ENGINES, num_bytes=engine_weights(policy)),
        Part(name=f"{policy.name}: engine's buffers", kind=Kind.ENGINES, num_bytes=engine_buffers(policy) + graphs),
        Part(
            name=f"{policy.name}: cache of one sequence of {engine.max_model_len} tokens",
            kind=Kind.ENGINES,
            num_bytes=kv_bytes_per_token(policy) * engine.max_model_len,
        ),
    ]
    limit = engine.utilization * job.gpu.memory
    if engine.cache is not None:
        parts, limit = parts[2:], engine.cache
    phase = _phase(job, pool, "cache", policy, parts)
    return Phase(
        name=phase.name,
        pool=phase.pool,
        policy=policy.name,
        parts=phase.parts,
        limit=limit,
        why=f"the engine's share, {policy.keys['utilization']}={engine.utilization:g}",
    )


def _work(job: Job, pool: Pool, policies: Sequence[Policy], policy: Policy) -> list[Part]:
    """What is on the device whatever the acting policy's actor does, without its own parameters."""
    return [*_overhead(job, policies), *_others(job, pool, policies, policy), *_resting(policy, pool, params=False)]


def _own(policy: Policy, pool: Pool) -> list[Part]:
    if policy.training.offload_policy:
        return []
    return [Part(name=f"{policy.name}: parameters", kind=Kind.STATES, num_bytes=_parameters(policy, pool))]


def _forward(policy: Policy, tokens: int, *, entropy: bool) -> list[Part]:
    name = policy.name
    return [
        Part(name=f"{name}: gathered layers", kind=Kind.GATHERED, num_bytes=_gathered(policy, backward=False)),
        Part(
            name=f"{name}: activations of {tokens} tokens",
            kind=Kind.ACTIVATIONS,
            num_bytes=_activations(policy, tokens, backward=False),
        ),
        Part(
            name=f"{name}: scores of {tokens} tokens",
            kind=Kind.LOGITS,
            num_bytes=_logits(policy, tokens, backward=False, entropy=entropy),
        ),
    ]


def _log_prob(job: Job, pool: Pool, policies: Sequence[Policy], policy: Policy) -> Phase:
    training = policy.training
    tokens = micro_batch(training.max_log_prob_tokens, training.log_prob_rows, training, pool)
    parts = [*_work(job, pool, policies, policy), *_own(policy, pool), *_forward(policy, tokens, entropy=True)]
    return _phase(job, pool, "log-prob", policy, parts)


def _reference(job: Job, pool: Pool, policies: Sequence[Policy], policy: Policy) -> Phase:
    """Its parameters stay in main memory, whatever the settings say (verl forces it)."""
    training = policy.training
    tokens = micro_batch(training.ref_tokens, training.log_prob_rows, training, pool)
    parts = [*_work(job, pool, policies, policy), *_forward(policy, tokens, entropy=False)]
    if not training.param_offload:
        parts += _own(policy, pool)
    return _phase(job, pool, "reference", policy, parts)


def _update(job: Job, pool: Pool, policies: Sequence[Policy], policy: Policy) -> Phase:
    training, name = policy.training, policy.name
    tokens = micro_batch(training.max_update_tokens, training.update_rows, training, pool)
    shards = num_shards(training, pool)
    parts = [*_work(job, pool, policies, policy), *_own(policy, pool)]
    if not training.offload_policy:
        gradients = training.param_bytes * trainable(policy) / shards
        parts.append(Part(name=f"{name}: gradients", kind=Kind.STATES, num_bytes=gradients))
        if training.optimizer_offload:
            parts.append(Part(name=f"{name}: optimizer", kind=Kind.STATES, num_bytes=_optimizer(policy, pool)))
    backward = [
        Part(name=f"{name}: gathered layers", kind=Kind.GATHERED, num_bytes=_gathered(policy, backward=True)),
        Part(
            name=f"{name}: activations of {tokens} tokens",
            kind=Kind.ACTIVATIONS,
            num_bytes=_activations(policy, tokens, backward=True),
        ),
        Part(
            name=f"{name}: scores of {tokens} tokens",
            kind=Kind.LOGITS,
            num_bytes=_logits(policy, tokens, backward=True, entropy=training.update_entropy),
        ),
    ]
    # Adam takes the square root of all second moments at once; activations are gone by then.
    roots = 0.0 if training.offload_policy else training.param_bytes * trainable(policy) / shards
    if roots > sum(part.num_bytes for part in backward):
        backward = [Part(name=f"{name}: the optimizer's own copy", kind=Kind.GATHERED, num_bytes=roots)]
    return _phase(job, pool, "update", policy, [*parts, *backward])


def _push(job: Job, pool: Pool, policies: Sequence[Policy], number: int) -> Phase:
    """Weights go from actor to engine; the engines before it are wide awake by then, those after it asleep."""
    policy = policies[number]
    training, shape, engine = policy.training, policy.shape, policy.engine
    assert engine is not None
    asleep = [other for other in policies[number + 1 :] if other.engine and other.engine.sleeps]
    parts = [*_overhead(job, policies, asleep=asleep)]
    for i, other in enumerate(policies):
        assert other.engine is not None
        if i < number or not other.engine.sleeps:
            parts.append(_awake(job, other))
        parts += _resting(other, pool, params=i != number)
    if engine.sleeps:
        weights = engine_weights(policy) + (0 if engine.eager else job.assumed.cuda_graphs_gib * GIB)
        parts.append(Part(name=f"{policy.name}: engine's weights", kind=Kind.ENGINES, num_bytes=weights))
    own, tensor = _parameters(policy, pool), training.param_bytes * shape.largest
    bucket = Part(name=f"{policy.name}: bucket", kind=Kind.GATHERED, num_bytes=engine.bucket)
    stays = 0.0 if training.param_offload or training.offload_policy else own
    if engine.adapter:
        # Only the adapter is sent, out of parameters that are loaded for it.
        parts.append(Part(name=f"{policy.name}: parameters", kind=Kind.STATES, num_bytes=max(stays, own)))
        parts.append(Part(name=f"{policy.name}: bucket", kind=Kind.GATHERED, num_bytes=engine.bucket))
    elif training.fsdp2 and not training.lora_rank:
        # Tensor by tensor, straight from the shards wherever they are.
        parts.append(Part(name=f"{policy.name}: parameters", kind=Kind.STATES, num_bytes=stays))
        parts += [bucket, Part(name=f"{policy.name}: largest tensor", kind=Kind.GATHERED, num_bytes=tensor)]
    else:
        # FSDP1 copies its shards for the state dict, and puts its root together for that; then sends from the copies.
        root = shape.embedding + (0 if shape.tied else shape.head) + shape.layer
        collecting = 2 * own + training.param_bytes * root + tensor
        sending = own + stays + engine.bucket + tensor
        parts.append(
            Part(
                name=f"{policy.name}: parameters and their copy",
                kind=Kind.GATHERED,
                num_bytes=max(collecting, sending),
            )
        )
    return _phase(job, pool, "push", policy, [part for part in parts if part.num_bytes])


def _held_out(job: Job, pool: Pool, policy: Policy) -> Phase:
    """Held-out turns in transformers' own loop: a cache of whole sequences on every device."""
    assert job.sft is not None
    shape, training = policy.shape, policy.training
    tokens = job.sft.turns * job.sft.turn_tokens
    cache = tokens * 2 * shape.layers * shape.kv_width * training.compute_bytes
    parts = [
        *_work(job, pool, [policy], policy),
        *_own(policy, pool),
        Part(
            name=f"{policy.name}: gathered layers",
            kind=Kind.GATHERED,
            num_bytes=_gathered(policy, backward=False),
        ),
        Part(
            name=f"{policy.name}: activations of {tokens} tokens",
            kind=Kind.ACTIVATIONS,
            num_bytes=_activations(policy, tokens, backward=False),
        ),
        # A cache that grows is copied by each growth, layer by layer.
        Part(
            name=f"{policy.name}: cache of {job.sft.turns} turns of {job.sft.turn_tokens} tokens",
            kind=Kind.ACTIVATIONS,
            num_bytes=cache * (1 + 1 / shape.layers),
        ),
    ]
    return _phase(job, pool, "held-out turns", policy, parts)


# ------------------------------------------------------------------------------------------ main memory


def host_memory(job: Job) -> list[Part]:
    """Main memory of the fullest node: where off-loaded states wait, and what loading takes at its height."""
    assumed = job.assumed
    found: dict[str, list[Part]] = {}
    for pool in job.pools:
        policies = [policy for policy in job.policies if policy.pool == pool.name]
        workers = pool.gpus_per_node * len(policies) * assumed.host_gib_per_worker * GIB
        parts = [Part(name="processes", kind=Kind.OVERHEAD, num_bytes=workers + assumed.host_gib_per_job * GIB)]
        for policy in policies:
            parts += _off_loaded(policy, pool, assumed)
        parts.append(Part(name="loading, or an export", kind=Kind.GATHERED, num_bytes=_loading(policies, pool)))
        found[pool.name] = parts
    return max(found.values(), key=lambda parts: sum(part.num_bytes for part in parts))


def _off_loaded(policy: Policy, pool: Pool, assumed: Assumptions) -> list[Part]:
    training, engine, node = policy.training, policy.engine, pool.gpus_per_node
    sizes = {}
    if training.param_offload or training.offload_policy:
        sizes["parameters"] = _parameters(policy, pool)
    if policy.learns and (training.optimizer_offload or training.offload_policy):
        sizes["optimizer"] = _optimizer(policy, pool)
    if training.ref_param_bytes:
        sizes["reference"] = training.ref_param_bytes * policy.shape.params / num_shards(training, pool)
    if engine and engine.sleeps and engine.adapter:
        sizes["sleeping engine's weights"] = engine_weights(policy)
    return [
        Part(name=f"{policy.name}: {name}", kind=Kind.STATES, num_bytes=node * size * assumed.pinned)
        for name, size in sizes.items()
    ]


def _loading(policies: Sequence[Policy], pool: Pool) -> float:
    """Whole models in main memory: one of each group of shards loads them, and all do where weights are tied."""
    most = 0.0
    for policy in policies:
        whole = policy.training.param_bytes * policy.shape.params
        groups = max(1, pool.gpus_per_node // num_shards(policy.training, pool))
        loaders = pool.gpus_per_node if policy.shape.tied else groups
        most = max(most, loaders * whole, whole if policy.training.export else 0)
    return most
