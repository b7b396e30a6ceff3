# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The first thing that will not fit, and which settings make everything fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.job import STAGES, Job, Kind, Phase, Policy
from longshort_verl.ops.plan.memory import phases

_STEP_TOKENS = 1024
_MAX_NODES = 64
_MAX_CHANGES = 60


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting and its new value."""

    key: str
    """The whole key."""
    value: Any

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        # Below long_short.short the base has hardly a key, and Hydra adds none unasked.
        return f"{'++' if self.key.startswith('long_short.short.') else ''}{self.key}={value}"


_Made = tuple[Job, tuple[Change, ...]]
"""A job with changes, and which."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The first thing that will not fit."""

    phase: Phase
    """When."""
    cures: tuple[Change, ...]
    """Settings that together make the whole job fit; none where none was found."""

    def __str__(self) -> str:
        phase, part = self.phase, self.phase.first_missing
        limit = phase.why or "the device's memory"
        return (
            f"{phase.name} ({STAGES[phase.name.split()[0]]}): {part.name} does not fit; {phase.total / GIB:.1f} GiB of "
            f"{phase.limit / GIB:.1f} GiB ({limit}), {phase.missing / GIB:.1f} GiB too much"
        )


def first_misfit(job: Job) -> Phase | None:
    """The first phase that takes more than there is; None where all fit."""
    return next((phase for phase in phases(job) if phase.missing > 0), None)


def check(job: Job) -> Finding | None:
    """What will not fit first, with a cure for everything that will not fit."""
    phase = first_misfit(job)
    return None if phase is None else Finding(phase=phase, cures=_cures(job))


def _cures(job: Job) -> tuple[Change, ...]:
    """Settings that make a job fit, mildest first, without those that turn out not to be needed."""
    cures, banned = _search(job, frozenset()), frozenset()
    for key in [change.key for change in cures or ()]:
        without = _search(job, banned | {key})
        # The same changes without one of them; not others in their place, such as more devices.
        if without and {*without} < {*(cures or ())}:
            cures, banned = without, banned | {key}
    return cures or ()


def _search(job: Job, banned: frozenset[str]) -> tuple[Change, ...] | None:
    """Change by change, until everything fits; None where nothing helps any more."""
    changes: dict[str, Change] = {}
    for _ in range(_MAX_CHANGES):
        misfit = first_misfit(job)
        if misfit is None:
            return tuple(changes.values())
        found = _next(job, misfit, banned)
        if found is None:
            return None
        job, made = found
        changes |= {change.key: change for change in made}
    return None


def _position(job: Job) -> tuple[int, float]:
    """How far a job gets (more is better): phases before the first that does not fit, and what is missing there."""
    for number, phase in enumerate(phases(job)):
        if phase.missing > 0:
            return number, -phase.missing
    return len(phases(job)), 0.0


def _next(job: Job, misfit: Phase, banned: frozenset[str]) -> _Made | None:
    """The mildest change that gets past a phase; where none does, the best one of the mildest kind that helps."""
    start = _position(job)
    for kind in _kinds(job, misfit):
        best, furthest = None, start
        for changed, made in kind:
            if banned & {change.key for change in made}:
                continue
            position = _position(changed)
            if position[0] > start[0]:
                return changed, made
            if position > furthest:
                best, furthest = (changed, made), position
        if best is not None:
            return best
    return next(_more_devices(job, misfit), None)


def _kinds(job: Job, misfit: Phase) -> Iterator[Iterator[_Made]]:
    """What may help at a phase, kind by kind, mildest first."""
    policies = [policy for policy in job.policies if policy.pool == misfit.pool]
    acting = [policy for policy in policies if policy.name == misfit.policy] or policies
    stage = misfit.name.split()[0]
    if stage == "cache":
        yield _contexts(job, acting[0])
        yield _larger_shares(job, acting[0])
        yield _wider_engines(job, acting[0])
        return
    for name in ("optimizer_offload", "param_offload"):
        resident = [p for p in policies if not getattr(p.training, name) and not p.training.offload_policy]
        yield (_set(job, policy, name, True) for policy in resident)
    yield (_set(job, policy, "sleeps", True) for policy in policies if policy.engine and not policy.engine.sleeps)
    for policy in acting:
        if stage == "push":
            yield from _pushes(job, policy)
        if stage in ("load", "log-prob", "reference", "update", "held-out"):
            yield from _works(job, policy, misfit)
    if stage in ("rollout", "start", "push"):
        yield _smaller_shares(job, policies)
        for policy in acting:
            yield _wider_engines(job, policy)


def _contexts(job: Job, policy: Policy) -> Iterator[_Made]:
    """No longer a context than a row can be."""
    if policy.engine and policy.engine.max_model_len > policy.training.row_tokens:
        yield _set(job, policy, "max_model_len", policy.training.row_tokens)


def _larger_shares(job: Job, policy: Policy) -> Iterator[_Made]:
    """More of the memory for an engine whose cache is too small, if need be from another one that has enough."""
    if policy.engine is None or policy.engine.cache is not None:
        return
    others = [p for p in job.policies if p.engine and p is not policy and p.pool == policy.pool]
    top = 95 - sum(round(other.engine.utilization * 100) for other in others if other.engine)
    for hundredths in range(round(policy.engine.utilization * 100) + 1, top + 1):
        yield _shares(job, {policy.name: hundredths / 100})
    for other in others:
        assert other.engine is not None
        lower = round(other.engine.utilization - 0.02, 2)
        changed, made = _shares(job, {other.name: lower})
        if lower > 0 and _fits_cache(changed, other.name):
            yield _merge(changed, made, {policy.name: round(policy.engine.utilization + 0.02, 2)})


def _merge(job: Job, made: tuple[Change, ...], shares: dict[str, float]) -> _Made:
    changed, more = _shares(job, shares)
    return changed, tuple({change.key: change for change in (*made, *more)}.values())


def _fits_cache(job: Job, name: str) -> bool:
    return all(phase.missing == 0 for phase in phases(job) if phase.name.startswith("cache") and phase.policy == name)


def _smaller_shares(job: Job, policies: list[Policy]) -> Iterator[_Made]:
    """Smaller shares of the memory for engines: all of them, largest first, in hundredths."""
    served = [policy for policy in policies if policy.engine and policy.engine.cache is None]
    highest = max((round(policy.engine.utilization * 100) for policy in served if policy.engine), default=0)
    for hundredths in range(highest - 1, 4, -1):
        yield _shares(
            job, {p.name: min(p.engine.utilization, hundredths / 100) for p in served if p.engine is not None}
        )
    # Where one of them needs what it has, the other one gives.
    for policy in served:
        assert policy.engine is not None
        for hundredths in range(round(policy.engine.utilization * 100) - 1, 4, -1):
            yield _shares(job, {policy.name: hundredths / 100})


def _pushes(job: Job, policy: Policy) -> Iterator[Iterator[_Made]]:
    """FSDP2, which copies no shards for it; a smaller bucket."""
    engine = policy.engine
    assert engine is not None
    if not policy.training.fsdp2:
        yield iter([_set(job, policy, "fsdp2", True)])
    yield (_set(job, policy, "bucket", mb) for mb in (1024, 512, 256) if engine.bucket > mb << 20)


def _works(job: Job, policy: Policy, misfit: Phase) -> Iterator[Iterator[_Made]]:
    """What makes an actor's own work smaller."""
    training, stage = policy.training, misfit.name.split()[0]
    if not training.checkpointing and stage == "update":
        yield iter([_set(job, policy, "checkpointing", True)])
    if training.entropy == "eager" and "entropy" in policy.keys and (stage == "log-prob" or training.update_entropy):
        yield iter([_set(job, policy, "entropy", "chunked")])
    name = {"update": "max_update_tokens", "log-prob": "max_log_prob_tokens", "reference": "ref_tokens"}.get(stage)
    if name is not None and name in policy.keys:
        # verl refuses a limit that is less than one sequence; preflight asks for a whole context.
        least, most = training.least_tokens, getattr(training, name)
        steps = range((most - 1) // _STEP_TOKENS * _STEP_TOKENS, least - 1, -_STEP_TOKENS)
        last = [least] if least < most and (not steps or steps[-1] != least) else []
        yield (_set(job, policy, name, tokens) for tokens in [*steps, *last])
    if job.sft and stage == "held-out":
        fewer = [turns for turns in (16, 8, 4, 2, 1) if turns < job.sft.turns]
        yield (_turns(job, turns) for turns in fewer)
    if not training.fused_head and misfit.of(Kind.LOGITS):
        yield iter([_set(job, policy, "fused_head", True)])
    if not training.fsdp2:
        yield iter([_set(job, policy, "fsdp2", True)])


def _turns(job: Job, turns: int) -> _Made:
    assert job.sft is not None
    return replace(job, sft=replace(job.sft, turns=turns)), (Change(key="cold_start.turns.batch_size", value=turns),)


def _wider_engines(job: Job, policy: Policy) -> Iterator[_Made]:
    engine, shape, pool = policy.engine, policy.shape, job.pool(policy.pool)
    if engine is None:
        return
    for wider in range(engine.tensor_parallel + 1, pool.gpus_per_node + 1):
        whole = pool.gpus_per_node % wider == 0 and shape.heads % wider == 0
        if whole and (shape.kv_heads % wider == 0 or wider % shape.kv_heads == 0):
            yield _set(job, policy, "tensor_parallel", wider)


def _more_devices(job: Job, misfit: Phase) -> Iterator[_Made]:
    pool = job.pool(misfit.pool)
    nodes, per_node = pool.keys
    if pool.gpus_per_node < 8:
        bigger, change = (
            replace(pool, gpus_per_node=2 * pool.gpus_per_node),
            Change(key=per_node, value=2 * pool.gpus_per_node),
        )
    elif pool.nnodes < _MAX_NODES:
        bigger, change = replace(pool, nnodes=2 * pool.nnodes), Change(key=nodes, value=2 * pool.nnodes)
    else:
        return
    yield replace(job, pools=tuple(bigger if other is pool else other for other in job.pools)), (change,)


# ------------------------------------------------------------------------------------------ changes


def _set(job: Job, policy: Policy, name: str, value: Any) -> _Made:
    """One setting of a policy, and of those that inherit it."""
    heirs = [
        other for other in job.policies if other is policy or (name in policy.shared_keys and other.name != policy.name)
    ]
    changed = {other.name: _with(other, name, value) for other in heirs}
    told = {"entropy": True, "fsdp2": "fsdp2"}.get(name, value)
    return (
        replace(job, policies=tuple(changed.get(other.name, other) for other in job.policies)),
        (Change(key=policy.keys[name], value=told),),
    )


def _with(policy: Policy, name: str, value: Any) -> Policy:
    if name in ("sleeps", "max_model_len"):
        assert policy.engine is not None
        return replace(policy, engine=replace(policy.engine, **{name: value}))
    if name == "bucket":
        assert policy.engine is not None
        return replace(policy, engine=replace(policy.engine, bucket=value << 20))
    if name == "tensor_parallel":
        assert policy.engine is not None
        stages = policy.engine.devices // policy.engine.tensor_parallel
        return replace(policy, engine=replace(policy.engine, tensor_parallel=value, devices=value * stages))
    return replace(policy, training=replace(policy.training, **{name: value}))


def _shares(job: Job, shares: dict[str, float]) -> _Made:
    """Engines' shares of the memory; told for each policy by itself, whatever it inherits."""
    changed, made = [], []
    for policy in job.policies:
        if policy.engine is None:
            changed.append(policy)
            continue
        share = shares.get(policy.name, policy.engine.utilization)
        changed.append(replace(policy, engine=replace(policy.engine, utilization=share)))
        if share != policy.engine.utilization or len(job.policies) > 1:
            made.append(Change(key=policy.keys["utilization"], value=round(share, 2)))
    return replace(job, policies=tuple(changed)), tuple(made)
