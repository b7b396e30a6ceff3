# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The first thing that does not fit, and settings with which everything fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.job import Engine, Job, Policy
from longshort_verl.ops.plan.memory import Kind, Phase, phases

_STEP_TOKENS = 1024
_MAX_NODES = 64
_MAX_CHANGES = 60
_ENGINE = {field.name for field in fields(Engine)}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting with its new value."""

    key: str
    """The whole key."""
    value: Any
    apply: Callable[[Job], Job] = field(repr=False, compare=False)
    """The job with this setting."""

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        # The base has hardly any key below long_short.short, and Hydra adds one only where told to.
        return f"{'++' if self.key.startswith('long_short.short.') else ''}{self.key}={value}"


_Option = tuple[Change, ...]
"""Settings that change together."""


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
            f"{phase.total / GIB:.1f} GiB of {phase.limit / GIB:.1f} GiB ({phase.limit_name}), "
            f"{phase.missing / GIB:.1f} GiB too much"
        )


def first_misfit(job: Job) -> Phase | None:
    """The first phase that does not fit."""
    return next((phase for phase in phases(job) if phase.missing > 0), None)


def check_fit(job: Job) -> Finding | None:
    """The first thing that does not fit, with settings with which everything fits; None where all fits."""
    phase = first_misfit(job)
    return None if phase is None else Finding(phase=phase, cures=_find_cures(job))


def _find_cures(job: Job) -> tuple[Change, ...]:
    """Changes until everything fits, mildest first, then without those that turned out superfluous."""
    changes: dict[str, Change] = {}
    changed = job
    while (phase := first_misfit(changed)) is not None:
        option = _best_option(changed, phase)
        if option is None or len(changes) > _MAX_CHANGES:
            return ()
        changed = _apply(option, changed)
        changes |= {change.key: change for change in option}
    for key in [*changes]:
        rest = {other: change for other, change in changes.items() if other != key}
        if first_misfit(_apply(rest.values(), job)) is None:
            changes = rest
    return tuple(changes.values())


def _apply(changes: Iterable[Change], job: Job) -> Job:
    for change in changes:
        job = change.apply(job)
    return job


def _position(job: Job) -> tuple[int, float]:
    """How far a job gets (more is better): phases before the first misfit, and minus the bytes missing there."""
    found = phases(job)
    return next(((i, -phase.missing) for i, phase in enumerate(found) if phase.missing > 0), (len(found), 0.0))


def _best_option(job: Job, misfit: Phase) -> _Option | None:
    """The mildest option that gets past a phase; else the best one of the mildest kind that helps."""
    start = _position(job)
    for options in _options(job, misfit):
        best, furthest = None, start
        for option in options:
            position = _position(_apply(option, job))
            if position[0] > start[0]:
                return option
            if position > furthest:
                best, furthest = option, position
        if best is not None:
            return best
    return None


def _options(job: Job, misfit: Phase) -> Iterator[list[_Option]]:
    """What may help at a phase, kind by kind, mildest first."""
    policies = [policy for policy in job.policies if policy.pool.name == misfit.pool]
    acting = [policy for policy in policies if policy.name == misfit.policy] or policies
    stage = misfit.name.split()[0]
    if stage == "cache":
        (policy,) = acting
        row, share = policy.served.row_tokens, round(policy.served.utilization * 100)
        others = sum(round(other.served.utilization * 100) for other in policies if other is not policy)
        yield [(_set(policy, "max_model_len", row),)] if policy.served.max_model_len > row else []
        yield [_shares(job, {policy.name: percent}) for percent in range(share + 1, 96 - others)]
        yield _wider_engine(policy)
    else:
        for name in ("optimizer_offload", "param_offload"):
            yield [(_set(policy, name, True),) for policy in policies if not getattr(policy.training, name)]
        yield [(_set(policy, "sleeps", True),) for policy in policies if policy.engine and not policy.engine.sleeps]
        for policy in acting:
            yield from _smaller_work(policy, misfit, stage)
        if stage in ("rollout", "push"):
            highest = max(round(policy.served.utilization * 100) for policy in policies)
            names = [policy.name for policy in policies]
            yield [_shares(job, dict.fromkeys(names, percent)) for percent in range(highest - 1, 4, -1)]
            for policy in acting:
                yield _wider_engine(policy)
    yield _more_devices(policies[0])


def _smaller_work(policy: Policy, misfit: Phase, stage: str) -> Iterator[list[_Option]]:
    """What makes an actor's own work smaller."""
    training = policy.training
    if stage == "push":
        yield [(_set(policy, "bucket_mb", mb),) for mb in (1024, 512, 256) if policy.served.bucket_mb > mb]
    if stage == "update" and not training.checkpointing:
        yield [(_set(policy, "checkpointing", True),)]
    name = {"update": "max_update_tokens", "log-prob": "max_log_prob_tokens", "reference": "ref_tokens"}.get(stage, "")
    if name in policy.keys:
        least, most = training.least_tokens, getattr(training, name)
        steps = [tokens for tokens in range(0, most, _STEP_TOKENS) if tokens > least][::-1]
        yield [(_set(policy, name, tokens),) for tokens in [*steps, least] if least < most]
    if stage == "held-out":
        yield [(_set(policy, "held_out_turns", n),) for n in (16, 8, 4, 2, 1) if n < training.held_out_turns]
    if misfit.of(Kind.LOGITS) and not training.fused_head:
        yield [(_set(policy, "fused_head", True),)]


def _wider_engine(policy: Policy) -> list[_Option]:
    """More devices for each layer of an engine, as vLLM can divide its heads."""
    shape, devices = policy.shape, policy.pool.gpus_per_node
    return [
        (_set(policy, "devices", size),)
        for size in range(policy.served.devices + 1, devices + 1)
        if devices % size == 0 and shape.heads % size == 0
        if shape.kv_heads % size == 0 or size % shape.kv_heads == 0
    ]


def _more_devices(policy: Policy) -> list[_Option]:
    old = policy.pool
    if old.gpus_per_node < 8:
        new, key, value = replace(old, gpus_per_node=2 * old.gpus_per_node), "n_gpus_per_node", 2 * old.gpus_per_node
    elif old.nnodes < _MAX_NODES:
        new, key, value = replace(old, nnodes=2 * old.nnodes), "nnodes", 2 * old.nnodes
    else:
        return []

    def apply(job: Job) -> Job:
        moved = (replace(p, pool=new) if p.pool.name == old.name else p for p in job.policies)
        return replace(job, policies=tuple(moved))

    return [(Change(key=f"{old.key}.{key}", value=value, apply=apply),)]


# ------------------------------------------------------------------------------------------ changes


def _set(policy: Policy, name: str, value: Any) -> Change:
    """One field of a policy, and of those that inherit it."""

    def changed(other: Policy) -> Policy:
        if other.name != policy.name and not (name in other.inherits and policy.name == "long"):
            return other
        part = "engine" if name in _ENGINE else "training"
        # A setting of its own is no longer inherited.
        inherits = other.inherits - {name} if other.name == policy.name else other.inherits
        return replace(other, inherits=inherits, **{part: replace(getattr(other, part), **{name: value})})

    def apply(job: Job) -> Job:
        return replace(job, policies=tuple(changed(other) for other in job.policies))

    return Change(key=policy.keys[name], value=value, apply=apply)


def _shares(job: Job, percents: dict[str, int]) -> _Option:
    """Engines' shares of the memory, at most; set for every policy, whatever it inherits."""
    shares = {p: percents.get(p.name, round(p.served.utilization * 100)) / 100 for p in job.policies}
    return tuple(_set(policy, "utilization", share) for policy, share in shares.items())
