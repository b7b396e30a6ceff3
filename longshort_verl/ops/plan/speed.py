# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens and time of a step: arithmetic and bytes over what a GPU can do, times an assumed share of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longshort_verl.ops.plan.job import Job, Policy, Pool
from longshort_verl.ops.plan.memory import (
    engine_weights,
    kv_bytes,
    kv_bytes_per_token,
    num_shards,
    replica_size,
    stored,
    trainable,
)
from longshort_verl.ops.plan.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one policy does for one dialogue, in tokens, on average."""

    generated: float
    """Tokens that it writes."""
    prefill: float
    """Tokens that it reads: the problem and its peer's turns, once each."""
    context: float
    """Of its sequence when the dialogue ends."""
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
    """Kinds of step: what it is called, and which policies learn at it."""
    bound: bool
    """Whether the tokens are the dialogue's limits, and not an expectation."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many dialogues an engine holds at once."""

    replicas: int
    """Engines."""
    asked: float
    """Dialogues for each of them."""
    fit: int
    """That its cache holds at full length."""
    at_once: int
    """That it works on: no more than fit, than max_num_seqs, and than there are."""
    cache: float
    """Bytes of the cache, on one device."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One kind of step."""

    name: str
    """Who learns."""
    stages: tuple[tuple[str, float], ...]
    """Stage and seconds, in the trainer's order."""

    @property
    def seconds(self) -> float:
        """All stages."""
        return sum(seconds for _, seconds in self.stages)


def capacity(job: Job, policy: Policy, work: Work) -> Capacity:
    """What a policy's engines hold."""
    engine, pool, load = policy.engine, job.pool(policy.pool), work.loads[policy.name]
    assert engine is not None
    replicas = max(1, pool.size // replica_size(engine))
    asked = work.dialogues / replicas
    cache = kv_bytes(policy, job.gpu, job.assumed)
    # Each of a replica's copies has its own cache.
    fit = max(0, math.floor(cache / (kv_bytes_per_token(policy) * load.context))) * engine.data_parallel
    at_once = max(1, min(fit, engine.max_num_seqs * engine.data_parallel, math.ceil(asked)))
    return Capacity(replicas=replicas, asked=asked, fit=fit, at_once=at_once, cache=cache)


def flops_per_token(shape: ModelShape, context: float) -> float:
    """Of one token's forward pass: 2 for each parameter, and the two products of causal attention."""
    return 2 * shape.active + 2 * context * shape.query_width * shape.layers


def step_times(job: Job, work: Work) -> list[StepTime]:
    """Each kind of step, stage by stage, in seconds."""
    generation = [_generation_s(job, policy, work) for policy in job.policies]
    # On the same devices engines take turns; on their own they work at the same time.
    shared = len({policy.pool for policy in job.policies}) == 1
    found = []
    for name, learning in work.steps:
        stages = [("rollout", sum(generation) if shared else max(generation))]
        for policy in job.policies:
            label = f" {policy.name}" if len(job.policies) > 1 else ""
            if policy.name in learning:
                stages.append((f"log-prob{label}", _training_s(job, policy, work, passes=1)))
                if policy.training.ref_param_bytes:
                    stages.append((f"reference{label}", _training_s(job, policy, work, passes=1)))
                passes = 4 if policy.training.checkpointing else 3
                stages.append((f"update{label}", _training_s(job, policy, work, passes=passes)))
        for policy in job.policies:
            assert policy.engine is not None
            if policy.name in learning or policy.engine.sleeps:
                label = f" {policy.name}" if len(job.policies) > 1 else ""
                stages.append((f"push{label}", _push_s(job, policy)))
        found.append(StepTime(name=name, stages=tuple(stages)))
    return found


def _generation_s(job: Job, policy: Policy, work: Work) -> float:
    engine, load, gpu, assumed = policy.engine, work.loads[policy.name], job.gpu, job.assumed
    assert engine is not None
    held = capacity(job, policy, work)
    at_once = held.at_once / engine.data_parallel
    # Continuous batching keeps the batch full until the last dialogues; one dialogue's tokens come one by one.
    steps = max(load.generated, held.asked * load.generated / held.at_once)
    context = load.context - load.generated / 2
    read = engine_weights(policy) + at_once * context * kv_bytes_per_token(policy)
    compute = at_once * flops_per_token(policy.shape, context) / engine.devices
    peak = gpu.tflops * 1e12 * assumed.forward_efficiency
    step = max(read / (gpu.bandwidth * 1e9 * assumed.decode_efficiency), compute / peak) + assumed.decode_overhead_s
    prefill = held.asked * load.prefill * flops_per_token(policy.shape, load.context / 2)
    return steps * step + prefill / (replica_size(engine) * peak)


def _link(job: Job, policy: Policy, pool: Pool) -> float:
    """Bytes a second between the devices that share a model's shards."""
    within = num_shards(policy.training, pool) <= pool.gpus_per_node
    speed = job.gpu.link if within else min(job.gpu.link, job.assumed.network)
    return speed * 1e9 * job.assumed.link_efficiency


def _training_s(job: Job, policy: Policy, work: Work, *, passes: int) -> float:
    """Log-probabilities (1 forward pass) or an update (3, or 4 where activations are computed anew)."""
    training, pool, load, assumed = policy.training, job.pool(policy.pool), work.loads[policy.name], job.assumed
    shards = num_shards(training, pool)
    tokens = work.dialogues * load.rows * load.context / pool.size
    efficiency = assumed.forward_efficiency if passes == 1 else assumed.train_efficiency
    compute = tokens * passes * flops_per_token(policy.shape, load.context / 2) / (job.gpu.tflops * 1e12 * efficiency)
    limit = training.max_log_prob_tokens if passes == 1 else training.max_update_tokens
    num_micro = math.ceil(tokens / limit)
    gathers = training.compute_bytes * policy.shape.params * (1 if passes == 1 else 2)
    reduced = 0 if passes == 1 else training.reduce_bytes * trainable(policy)
    traffic = num_micro * (gathers + reduced) * (shards - 1) / shards / _link(job, policy, pool)
    moved = training.param_bytes * stored(policy) * (training.param_offload or training.offload_policy)
    if passes > 1 and (training.optimizer_offload or training.offload_policy):
        moved += 2 * training.param_bytes * trainable(policy)
    host = 2 * moved / shards / (job.gpu.host_link * 1e9 * assumed.link_efficiency)
    # Communication hides behind arithmetic where it is the shorter one.
    return max(compute, traffic) + host


def _push_s(job: Job, policy: Policy) -> float:
    training, pool = policy.training, job.pool(policy.pool)
    shards = num_shards(training, pool)
    sent = training.param_bytes * (
        trainable(policy) if policy.engine and policy.engine.adapter else policy.shape.params
    )
    loaded = sent / shards / (job.gpu.host_link * 1e9 * job.assumed.link_efficiency) if training.param_offload else 0.0
    return loaded + sent * (shards - 1) / shards / _link(job, policy, pool) + sent / (job.gpu.bandwidth * 1e9)
