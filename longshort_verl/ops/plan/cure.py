# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The first thing that does not fit, and settings with which everything fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.job import Job, Policy, Pool
from longshort_verl.ops.plan.memory import Kind, Phase, phases

_STEP_TOKENS = 1024
_MAX_NODES = 64
_LIMITS = {"update": "max_update_tokens", "log-prob": "max_log_prob_tokens", "reference": "ref_tokens"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The first thing that does not fit."""

    phase: Phase
    cures: Mapping[str, Any]  # setting → value with which the whole job fits; empty where no cure was found

    @property
    def overrides(self) -> list[str]:
        """The cures as Hydra overrides. The base lacks most keys of long_short.short; Hydra adds them with "++"."""
        shown = {key: str(value).lower() if isinstance(value, bool) else value for key, value in self.cures.items()}
        return [f"{'++' if key.startswith('long_short.short.') else ''}{key}={value}" for key, value in shown.items()]

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


def _find_cures(job: Job) -> dict[str, Any]:
    """Changes until everything fits, mildest first, then without the superfluous ones."""
    cured: Job | None = job
    while (misfit := first_misfit(cured)) is not None:
        if (cured := _best_option(cured, misfit)) is None:
            return {}
    for name in ("pool", *job.policies[0].keys):
        pairs = zip(cured.policies, job.policies, strict=True)
        policies = (replace(policy, **{name: getattr(old, name)}) for policy, old in pairs)
        without = replace(cured, policies=tuple(policies))
        cured = without if first_misfit(without) is None else cured
    changes = {}
    for old, new in zip(job.policies, cured.policies, strict=True):
        values = {name: getattr(new, name) for name in old.keys if getattr(new, name) != getattr(old, name)}
        changes |= {old.keys[name]: value for name, value in values.items()}
        for name in ("n_gpus_per_node", "nnodes"):
            if getattr(new.pool, name) != getattr(old.pool, name):
                changes[f"{old.pool.key}.{name}"] = getattr(new.pool, name)
    return changes


def _best_option(job: Job, misfit: Phase) -> Job | None:
    """The mildest option that gets past a phase; else the best option of the mildest kind that helps."""
    start = _position(job)
    for options in _options(job, misfit):
        furthest = max(options, key=_position, default=job)
        best = next((option for option in options if _position(option)[0] > start[0]), furthest)
        if _position(best) > start:
            return best
    return None


def _position(job: Job) -> tuple[int, float]:
    """How far a job gets (more is better): phases before the first misfit, and minus the bytes missing there."""
    all_phases = phases(job)
    misfits = ((i, -phase.missing) for i, phase in enumerate(all_phases) if phase.missing > 0)
    return next(misfits, (len(all_phases), 0.0))


def _options(job: Job, misfit: Phase) -> Iterator[list[Job]]:
    """Jobs with one more setting changed in all policies, kind by kind, mildest first."""
    policies = [policy for policy in job.policies if policy.pool.name == misfit.pool]
    stage, shares = misfit.name.split()[0], [round(policy.utilization * 100) for policy in policies]
    if stage == "cache":
        yield [_set(job, "max_model_len", policies[0].row_tokens, min)]
        percents = range(min(shares) + 1, 96)
        percents = [percent for percent in percents if sum(max(share, percent) for share in shares) <= 95]
        yield [_set(job, "utilization", percent / 100) for percent in percents]
    else:
        for name in ("optimizer_offload", "param_offload", "sleeps"):
            yield [_set(job, name, True)]
        if stage == "update":
            yield [_set(job, "checkpointing", True)]
        if stage in _LIMITS:
            name, least = _LIMITS[stage], max(policy.least_tokens for policy in job.policies)
            limits = [least, *range(0, max(getattr(policy, name) for policy in policies), _STEP_TOKENS)]
            yield [_set(job, name, tokens, min) for tokens in sorted(limits, reverse=True) if tokens >= least]
        if misfit.of(Kind.LOGITS) and all(policy.shape.tied for policy in job.policies):
            yield [_set(job, "fused_head", True)]
        if stage in ("rollout", "push"):
            yield [_set(job, "utilization", percent / 100, min) for percent in range(max(shares) - 1, 4, -1)]
    if stage in ("cache", "rollout", "push"):
        sizes = range(2, policies[0].pool.n_gpus_per_node + 1)
        yield [_set(job, "devices", size) for size in sizes if all(_divisible(policy, size) for policy in job.policies)]
    yield _more_devices(job, policies[0].pool)


def _set(job: Job, name: str, value: Any, choose: Callable[[Any, Any], Any] = max) -> Job:
    """A job with at least this value, or with ``choose=min`` at most this value, in every policy that has the key."""
    policies = (
        replace(policy, **{name: choose(getattr(policy, name), value)}) if name in policy.keys else policy
        for policy in job.policies
    )
    return replace(job, policies=tuple(policies))


def _divisible(policy: Policy, size: int) -> bool:
    """Whether vLLM can divide the heads of a policy onto this many devices of a node."""
    heads, kv_heads = policy.shape.heads, policy.shape.kv_heads
    return policy.pool.n_gpus_per_node % size == heads % size == 0 and 0 in (kv_heads % size, size % kv_heads)


def _more_devices(job: Job, old: Pool) -> list[Job]:
    if old.n_gpus_per_node >= 8 and old.nnodes >= _MAX_NODES:
        return []
    name = "n_gpus_per_node" if old.n_gpus_per_node < 8 else "nnodes"
    new = replace(old, **{name: 2 * getattr(old, name)})
    policies = (replace(policy, pool=new) if policy.pool == old else policy for policy in job.policies)
    return [replace(job, policies=tuple(policies))]
