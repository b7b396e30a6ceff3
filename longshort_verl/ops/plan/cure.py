# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The first thing that does not fit, and settings with which everything fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.job import Job, Policy, Pool
from longshort_verl.ops.plan.memory import Kind, Phase, phases

_STEP_TOKENS = 1024
_MAX_NODES = 64
_MAX_CHANGES = 60
_LIMITS = {"update": "max_update_tokens", "log-prob": "max_log_prob_tokens", "reference": "ref_tokens"}
"""Phase → the policy's limit in tokens there."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting with its new value."""

    key: str
    """The whole key."""
    value: Any

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        # The base has hardly any key below long_short.short, and Hydra adds a key only with "++".
        return f"{'++' if self.key.startswith('long_short.short.') else ''}{self.key}={value}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The first thing that does not fit."""

    phase: Phase
    cures: tuple[Change, ...]
    """Settings with which the whole job fits; empty where none were found."""

    def __str__(self) -> str:
        phase = self.phase
        return (
            f'{phase.name}: no room for part "{phase.first_missing.name}"; needs '
            f"{phase.total / GIB:.1f} GiB of {phase.limit / GIB:.1f} GiB, {phase.missing / GIB:.1f} GiB too much"
        )


def first_misfit(job: Job) -> Phase | None:
    """The first phase that does not fit."""
    return next((phase for phase in phases(job) if phase.missing > 0), None)


def check_fit(job: Job) -> Finding | None:
    """The first thing that does not fit, with settings with which everything fits; None where all fits."""
    phase = first_misfit(job)
    return None if phase is None else Finding(phase=phase, cures=_find_cures(job))


def _find_cures(job: Job) -> tuple[Change, ...]:
    """Changes until everything fits, mildest first, then without the superfluous ones."""
    cured = job
    for _ in range(_MAX_CHANGES):
        misfit = first_misfit(cured)
        if misfit is None:
            break
        better = _best_option(cured, misfit)
        if better is None:
            return ()
        cured = better
    else:
        return ()
    for name in ("pool", *job.policies[0].keys):
        olds = [getattr(policy, name) for policy in job.policies]
        policies = [replace(policy, **{name: old}) for policy, old in zip(cured.policies, olds, strict=True)]
        without = replace(cured, policies=tuple(policies))
        cured = without if first_misfit(without) is None else cured
    return _changes(job, cured)


def _changes(job: Job, cured: Job) -> tuple[Change, ...]:
    """The settings in which two jobs differ."""
    values = {}
    for old, new in zip(job.policies, cured.policies, strict=True):
        values |= {
            key: getattr(new, name) for name, key in old.keys.items() if getattr(new, name) != getattr(old, name)
        }
        for name, value in (("n_gpus_per_node", "gpus_per_node"), ("nnodes", "nnodes")):
            if getattr(new.pool, value) != getattr(old.pool, value):
                values[f"{old.pool.key}.{name}"] = getattr(new.pool, value)
    return tuple(Change(key=key, value=value) for key, value in values.items())


def _best_option(job: Job, misfit: Phase) -> Job | None:
    """The mildest option that gets past a phase; else the best one of the mildest kind that helps."""
    start = _position(job)
    for options in _options(job, misfit):
        positions = [(_position(option), option) for option in options]
        for position, option in positions:
            if position[0] > start[0]:
                return option
        position, option = max(positions, key=lambda pair: pair[0], default=(start, job))
        if position > start:
            return option
    return None


def _position(job: Job) -> tuple[int, float]:
    """How far a job gets (more is better): phases before the first misfit, and minus the bytes missing there."""
    all_phases = phases(job)
    misfits = ((i, -phase.missing) for i, phase in enumerate(all_phases) if phase.missing > 0)
    return next(misfits, (len(all_phases), 0.0))


def _options(job: Job, misfit: Phase) -> Iterator[list[Job]]:
    """Jobs with one more setting changed in all policies, kind by kind, mildest first."""
    policies = [policy for policy in job.policies if policy.pool.name == misfit.pool]
    stage = misfit.name.split()[0]
    percents = [round(policy.utilization * 100) for policy in policies]
    if stage == "cache":
        yield [_set(job, "max_model_len", policies[0].row_tokens, min)]
        raised = [_set(job, "utilization", percent / 100) for percent in range(min(percents) + 1, 96)]
        yield [option for option in raised if _total_share(option, misfit.pool) <= 0.95]
    else:
        for name in ("optimizer_offload", "param_offload", "sleeps"):
            yield [_set(job, name, True)]
        if stage == "push":
            yield [_set(job, "bucket_mb", megabytes, min) for megabytes in (1024, 512, 256)]
        if stage == "update":
            yield [_set(job, "checkpointing", True)]
        if stage in _LIMITS:
            name, least = _LIMITS[stage], max(policy.least_tokens for policy in job.policies)
            most = max(getattr(policy, name) for policy in policies)
            limits = [*(tokens for tokens in range(0, most, _STEP_TOKENS) if tokens > least), least]
            yield [_set(job, name, tokens, min) for tokens in sorted(limits, reverse=True)]
        if misfit.of(Kind.LOGITS):
            yield [_set(job, "fused_head", True)]
        if stage in ("rollout", "push"):
            yield [_set(job, "utilization", percent / 100, min) for percent in range(max(percents) - 1, 4, -1)]
    if stage in ("cache", "rollout", "push"):
        sizes = range(2, policies[0].pool.gpus_per_node + 1)
        yield [_set(job, "devices", size) for size in sizes if all(_divisible(policy, size) for policy in job.policies)]
    yield _more_devices(job, policies[0].pool)


def _set(job: Job, name: str, value: Any, choose: Callable[[Any, Any], Any] = max) -> Job:
    """A job with at least this value, or with ``choose=min`` at most this value, in every policy that has the key."""
    policies = (
        replace(policy, **{name: choose(getattr(policy, name), value)}) if name in policy.keys else policy
        for policy in job.policies
    )
    return replace(job, policies=tuple(policies))


def _total_share(job: Job, pool: str) -> float:
    return sum(policy.utilization for policy in job.policies if policy.pool.name == pool)


def _divisible(policy: Policy, size: int) -> bool:
    """Whether vLLM can divide the heads of a policy onto this many devices."""
    heads, kv_heads = policy.shape.heads, policy.shape.kv_heads
    return policy.pool.gpus_per_node % size == heads % size == 0 and 0 in (kv_heads % size, size % kv_heads)


def _more_devices(job: Job, old: Pool) -> list[Job]:
    if old.gpus_per_node < 8:
        new = replace(old, gpus_per_node=2 * old.gpus_per_node)
    elif old.nnodes < _MAX_NODES:
        new = replace(old, nnodes=2 * old.nnodes)
    else:
        return []
    policies = (replace(policy, pool=new) if policy.pool == old else policy for policy in job.policies)
    return [replace(job, policies=tuple(policies))]
