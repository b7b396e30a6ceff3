# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A plan: memory and time of a job, whether it fits, and how both are printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from longshort_verl.ops.plan.cure import Finding, check_fit
from longshort_verl.ops.plan.hardware import ASSUMED, GIB
from longshort_verl.ops.plan.job import Job, Work
from longshort_verl.ops.plan.memory import Kind, Part, Phase, host_memory, phases
from longshort_verl.ops.plan.speed import Capacity, StepTime, capacity, step_times

ESTIMATE = "All numbers are estimates; none has been compared with a GPU yet."


@dataclass(frozen=True)
class Plan:
    """What a job needs of its devices and nodes."""

    job: Job
    host_gib: float | None = None
    """Main memory of a node; None where unknown, and then not checked."""

    @cached_property
    def phases(self) -> list[Phase]:
        """In their order, pool by pool."""
        return phases(self.job)

    @cached_property
    def finding(self) -> Finding | None:
        """The first thing that does not fit on a device, with its cure."""
        return check_fit(self.job)

    @cached_property
    def host(self) -> list[Part]:
        """Main memory of the fullest node."""
        return host_memory(self.job)

    @property
    def host_missing(self) -> float:
        """Bytes of main memory that a node lacks; 0 where its memory is unknown."""
        return max(0.0, _total(self.host) - self.host_gib * GIB) if self.host_gib is not None else 0.0

    @property
    def fits(self) -> bool:
        """Everything fits."""
        return self.finding is None and not self.host_missing

    @cached_property
    def capacities(self) -> dict[str, Capacity]:
        """Of engines, by policy."""
        work = self.job.work
        return {policy.name: capacity(self.job, policy, work) for policy in self.job.policies} if work else {}

    @cached_property
    def steps(self) -> list[StepTime]:
        """Kinds of step, with their time."""
        return step_times(self.job, self.job.work) if self.job.work else []


def _total(parts: Iterable[Part]) -> float:
    return sum(part.num_bytes for part in parts)


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values; sizes in GiB, times in seconds."""
    finding, work = plan.finding, plan.job.work
    return {
        "estimate": ESTIMATE,
        "fits": plan.fits,
        "gpu": asdict(plan.job.gpu),
        "pools": [{"name": p.name, "nnodes": p.nnodes, "gpus_per_node": p.gpus_per_node} for p in plan.job.pools],
        "models": {policy.name: asdict(policy.shape) for policy in plan.job.policies},
        "phases": [
            {
                "name": phase.name,
                "pool": phase.pool,
                "total_gib": phase.total / GIB,
                "limit_gib": phase.limit / GIB,
                "parts": [{"name": p.name, "kind": p.kind.value, "gib": p.num_bytes / GIB} for p in phase.parts],
            }
            for phase in plan.phases
        ],
        "host": [{"name": part.name, "gib": part.num_bytes / GIB} for part in plan.host],
        "host_limit_gib": plan.host_gib,
        "finding": finding
        and {
            "message": str(finding),
            "phase": finding.phase.name,
            "part": finding.phase.first_missing.name,
            "missing_gib": finding.phase.missing / GIB,
            "cures": [{"key": change.key, "value": change.value, "override": str(change)} for change in finding.cures],
        },
        "engines": {
            name: {**asdict(held), "cache": held.cache / GIB, "unit": "GiB"} for name, held in plan.capacities.items()
        },
        "tokens": work
        and {
            "bound": work.bound,
            "dialogues": work.dialogues,
            **{
                name: {"generated": load.generated * work.dialogues, "prefill": load.prefill * work.dialogues}
                for name, load in work.loads.items()
            },
        },
        "steps": [{"name": step.name, "seconds": step.seconds, "stages": dict(step.stages)} for step in plan.steps],
        "assumptions": asdict(ASSUMED),
        "notes": list(plan.job.notes),
    }


# ------------------------------------------------------------------------------------------ for a terminal


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print JSON, or tables."""
    if as_json:
        Console().print(json.dumps(plan_json(plan), indent=2), markup=False, highlight=False, soft_wrap=True)
    else:
        Console().print(plan_view(plan), highlight=False, crop=False)


def plan_view(plan: Plan) -> RenderableType:
    """Tables of a plan within 80 columns, and the verdict last."""
    tables = [_models(plan), *(_devices(plan, pool.name) for pool in plan.job.pools)]
    tables += [_engines(plan)] if plan.capacities else []
    tables.append(_host(plan))
    tables += [_tokens(plan, plan.job.work), _times(plan)] if plan.job.work else []
    tables.append(_assumptions(plan))
    lines = [Text(f"note: {note}", style="yellow") for note in plan.job.notes]
    lines += [Text(ESTIMATE, style="dim"), *verdict(plan).split("\n")]
    for line in lines:
        if line.plain.startswith("  "):
            # A setting is copied from here: it stays on one line, however long.
            line.no_wrap, line.overflow = True, "ignore"
    return Group(*(item for table in tables for item in (table, Text())), *lines)


def verdict(plan: Plan) -> Text:
    """Whether the job fits; if not, what does not fit and which settings to change."""
    if plan.fits:
        fullest = max(plan.phases, key=lambda phase: phase.total / phase.limit)
        summary = f"It fits. Fullest: {fullest.name}, {fullest.total / GIB:.1f} of {fullest.limit / GIB:.1f} GiB."
        return Text(summary, style="bold green")
    text = Text()
    if plan.finding is not None:
        text.append(f"It does not fit. {plan.finding}.\n", style="bold red")
        cures = "\n".join(f"  {change}" for change in plan.finding.cures)
        text.append("With these settings it fits:\n" if cures else "No setting known here, and no more nodes, cure it.")
        text.append(cures, style="bold")
    if plan.host_missing:
        text.append(
            f"{chr(10) if text else ''}A node's main memory lacks {plan.host_missing / GIB:.0f} GiB of "
            f"{plan.host_gib:g}: offload less (param_offload, optimizer_offload), or use more nodes.",
            style="bold red",
        )
    return text


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, total: bool = False) -> Table:
    """A table of a text column and numbers; with ``total``, the last row is set off."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, min_width=64
    )
    rows = [*rows]
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=not i)
    for row in rows[:-1] if total else rows:
        # A row may end with a style.
        table.add_row(*row[: len(columns)], style=(*row, "")[len(columns)])
    if total:
        table.add_section()
        table.add_row(*rows[-1][: len(columns)], style=(*rows[-1], "bold")[len(columns)])
    return table


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f}" if num_bytes >= 0.05 * GIB else "–"


def _models(plan: Plan) -> Table:
    rows = []
    for policy in plan.job.policies:
        name = policy.shape.name.rstrip("/")
        trained = f"{policy.trainable / 1e9:.2f} B" if policy.learns else "–"
        devices = f"{policy.pool.nnodes} × {policy.pool.gpus_per_node}"
        name = name if len(name) <= 34 else f"…{name[-33:]}"
        rows.append((policy.name, name, f"{policy.shape.params / 1e9:.2f} B", trained, devices))
    return _table("models", ("policy", "model", "parameters", "trained", "devices"), rows)


def _devices(plan: Plan, pool: str) -> Table:
    title = f"GiB on one {plan.job.gpu.name}, by phase"
    title += f", devices of {pool}" if len(plan.job.pools) > 1 else ""
    columns = ("phase", "reserve", "engines", "states", "layers", "activ.", "logits", "total", "of")
    rows = []
    for phase in plan.phases:
        if phase.pool == pool:
            sizes = [*(phase.of(kind) for kind in Kind), phase.total, phase.limit]
            rows.append((phase.name, *map(_gib, sizes), "bold red" if phase.missing else ""))
    return _table(title, columns, rows)


def _engines(plan: Plan) -> Table:
    length = "full" if plan.job.work and plan.job.work.bound else "the expected"
    rows = []
    for policy in plan.job.policies:
        held = plan.capacities[policy.name]
        style = "yellow" if held.fit < min(held.asked, policy.served.max_num_seqs) else ""
        numbers = (str(held.replicas), f"{held.cache / GIB:.1f}", f"{held.asked:.0f}", str(held.fit), str(held.at_once))
        rows.append((policy.name, *numbers, style))
    columns = ("policy", "replicas", "cache GiB", "needed", "cache holds", "at once")
    return _table(f"engines: dialogues of {length} length, per replica", columns, rows)


def _host(plan: Plan) -> Table:
    limit = f" of {plan.host_gib:g}" if plan.host_gib is not None else ""
    rows: list[Sequence[str]] = [(part.name, _gib(part.num_bytes)) for part in plan.host]
    rows.append(("total", f"{_gib(_total(plan.host))}{limit}", "bold red" if plan.host_missing else "bold"))
    return _table("GiB of main memory, fullest node", ("part", "GiB"), rows, total=True)


def _tokens(plan: Plan, work: Work) -> Table:
    title = f"tokens of a step, {work.dialogues} dialogues, "
    title += "upper bound (--mean-tokens)" if work.bound else "as expected"
    rows = []
    for policy in plan.job.policies:
        load = work.loads[policy.name]
        numbers = (load.generated, load.prefill, load.rows * load.context if policy.learns else 0)
        rows.append((policy.name, *(f"{number * work.dialogues:,.0f}" for number in numbers)))
    return _table(title, ("policy", "generates", "reads", "learns from"), rows)


def _times(plan: Plan) -> Table:
    order = ("rollout", "log-prob", "reference", "update", "push")
    stages = dict.fromkeys(name for step in plan.steps for name, _ in step.stages)
    rows = []
    for stage in sorted(stages, key=lambda name: order.index(name.split()[0])):
        seconds = [dict(step.stages).get(stage) for step in plan.steps]
        rows.append((stage, *("–" if value is None else f"{value:,.1f}" for value in seconds)))
    rows.append(("total", *(f"{step.seconds:,.1f}" for step in plan.steps)))
    columns = ("stage", *(step.name for step in plan.steps))
    return _table("seconds of a step, without validation and checkpoints", columns, rows, total=True)


def _assumptions(plan: Plan) -> Table:
    gpu, rows = plan.job.gpu, []
    for assumption in fields(ASSUMED):
        value, unit = getattr(ASSUMED, assumption.name), assumption.metadata["unit"]
        text = f"{value:.0%}" if unit == "%" else f"{value:g} {unit}"
        rows.append((assumption.metadata["meaning"], text))
    rows.append((f"{gpu.name}: bfloat16, memory bandwidth", f"{gpu.tflops:g} TFLOP/s, {gpu.bandwidth:g} GB/s"))
    rows.append((f"{gpu.name}: links in a node, to main memory", f"{gpu.link:g}, {gpu.host_link:g} GB/s"))
    return _table("assumptions", ("what", "value"), rows)
