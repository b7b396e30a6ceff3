# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Time of a step: operations and bytes, divided by what a GPU can do times an assumed efficiency."""

from __future__ import annotations

import math
from dataclasses import dataclass

from longshort_verl.adapters.shape import REDUCE_BYTES, ModelShape
from longshort_verl.ops.plan.hardware import ASSUMED, GIB, Gpu
from longshort_verl.ops.plan.job import Job, Policy, Work
from longshort_verl.ops.plan.memory import COMPUTE_BYTES, engine_weights, kv_bytes, kv_bytes_per_token


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many dialogues an engine holds at once."""

    replicas: int  # engines
    asked: float  # dialogues per engine
    fit: int  # dialogues of full length that its cache holds
    at_once: int  # dialogues that it works on: limited by cache, max_num_seqs and demand
    cache_gib: float  # on one device


def capacity(job: Job, policy: Policy, work: Work) -> Capacity:
    """What a policy's engines hold."""
    cache, replicas = kv_bytes(policy, job.gpu), max(1, policy.pool.size // policy.devices)
    asked = work.dialogues / replicas
    fit = max(0, math.floor(cache / (kv_bytes_per_token(policy) * work.loads[policy.name].context)))
    at_once = max(1, min(fit, policy.max_num_seqs, math.ceil(asked)))
    return Capacity(replicas=replicas, asked=asked, fit=fit, at_once=at_once, cache_gib=cache / GIB)


def flops_per_token(shape: ModelShape, context: float) -> float:
    """Of one token's forward pass: 2 per parameter, and the two products of causal attention."""
    return 2 * shape.active + 2 * context * shape.heads * shape.head_dim * shape.layers


def step_times(job: Job, work: Work) -> dict[str, dict[str, float]]:
    """Kind of step → stage, in the trainer's order → seconds."""
    generation = [_generation_s(job, policy, work) for policy in job.policies]
    # Engines take turns on shared devices, and work at the same time on devices of their own.
    rollout = sum(generation) if len(job.pools) == 1 else max(generation)
    labels = {policy.name: f" {policy.name}" if len(job.policies) > 1 else "" for policy in job.policies}
    steps = {}
    for name, learning in work.steps.items():
        stages = {"rollout": rollout}
        for policy in job.policies:
            if policy.name in learning:
                label, forward = labels[policy.name], _training_s(job.gpu, policy, work, passes=1)
                stages[f"log-prob{label}"] = forward
                if policy.has_reference:
                    stages[f"reference{label}"] = forward
                passes = 4 if policy.checkpointing else 3
                stages[f"update{label}"] = _training_s(job.gpu, policy, work, passes=passes)
        for policy in job.policies:
            if policy.name in learning or policy.sleeps:
                stages[f"push{labels[policy.name]}"] = _push_s(job.gpu, policy)
        steps[name] = stages
    return steps


def _generation_s(job: Job, policy: Policy, work: Work) -> float:
    gpu, devices, load = job.gpu, policy.devices, work.loads[policy.name]
    held = capacity(job, policy, work)
    # Continuous batching keeps the batch full until the last dialogues; a dialogue's tokens follow one another.
    steps = max(load.generated, held.asked * load.generated / held.at_once)
    context = load.context - load.generated / 2
    read = engine_weights(policy) + held.at_once * context * kv_bytes_per_token(policy)
    compute = held.at_once * flops_per_token(policy.shape, context) / devices
    peak = gpu.tflops * 1e12 * ASSUMED.forward_efficiency
    step = max(read / (gpu.bandwidth * 1e9 * ASSUMED.decode_efficiency), compute / peak) + ASSUMED.decode_overhead_s
    prefill = held.asked * load.prefill * flops_per_token(policy.shape, load.context / 2)
    return steps * step + prefill / (devices * peak)


def _link(gpu: Gpu, policy: Policy) -> float:
    """Bytes per second between the devices that share a model's shards."""
    within = policy.shards <= policy.pool.n_gpus_per_node
    return (gpu.link if within else min(gpu.link, ASSUMED.network)) * 1e9 * ASSUMED.link_efficiency


def _training_s(gpu: Gpu, policy: Policy, work: Work, *, passes: int) -> float:
    """Log-probabilities (1 forward pass) or an update (3, or 4 where activations are recomputed)."""
    load, shards, update = work.loads[policy.name], policy.shards, passes > 1
    tokens = work.dialogues * load.rows * load.context / policy.pool.size
    efficiency = ASSUMED.train_efficiency if update else ASSUMED.forward_efficiency
    compute = tokens * passes * flops_per_token(policy.shape, load.context / 2) / (gpu.tflops * 1e12 * efficiency)
    limit = policy.max_update_tokens if update else policy.max_log_prob_tokens
    gathers = COMPUTE_BYTES * policy.shape.params * (2 if update else 1)
    reduced = REDUCE_BYTES * policy.trainable if update else 0
    traffic = math.ceil(tokens / limit) * (gathers + reduced) * (shards - 1) / shards / _link(gpu, policy)
    moved = policy.parameters if policy.param_offload else 0.0
    if update and policy.optimizer_offload:
        moved += policy.optimizer
    # Communication overlaps with arithmetic; moving states from and to main memory does not.
    return max(compute, traffic) + 2 * moved / (gpu.host_link * 1e9 * ASSUMED.link_efficiency)


def _push_s(gpu: Gpu, policy: Policy) -> float:
    sent = policy.param_bytes * (policy.trainable if policy.adapter else policy.shape.params)
    link = gpu.host_link * 1e9 * ASSUMED.link_efficiency
    loaded = sent / policy.shards / link if policy.param_offload else 0.0
    gathered = sent * (policy.shards - 1) / policy.shards / _link(gpu, policy)
    return loaded + gathered + sent / (gpu.bandwidth * 1e9)
