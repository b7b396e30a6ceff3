# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A plan: memory and time of a job, whether it fits, and how both are printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from longshort_verl.ops.plan.cure import check_fit
from longshort_verl.ops.plan.hardware import ASSUMED, GIB
from longshort_verl.ops.plan.job import Job, Work
from longshort_verl.ops.plan.memory import Kind, host_memory, phases
from longshort_verl.ops.plan.speed import capacity, step_times

_STAGES = ("rollout", "log-prob", "reference", "update", "push")
ESTIMATE = "All numbers are estimates; docs/cluster.md compares some with an H200."


class Plan:
    """What a job needs: memory by phase, a node's main memory (checked if ``host_gib`` is given), seconds of a step."""

    def __init__(self, job: Job, host_gib: float | None = None) -> None:
        self.job, self.host_gib = job, host_gib
        self.phases, self.finding, self.host = phases(job), check_fit(job), host_memory(job)
        self.host_total = sum(part.num_bytes for part in self.host)
        self.host_missing = 0.0 if host_gib is None else max(0.0, self.host_total - host_gib * GIB)
        self.fits = self.finding is None and not self.host_missing
        work = job.work
        self.capacities = {policy.name: capacity(job, policy, work) for policy in job.policies} if work else {}
        self.steps = step_times(job, work) if work else {}


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values; sizes in GiB, times in seconds."""
    job, finding, work = plan.job, plan.finding, plan.job.work
    return {
        "estimate": ESTIMATE,
        "fits": plan.fits,
        "gpu": asdict(job.gpu),
        "pools": [{"name": p.name, "nnodes": p.nnodes, "gpus_per_node": p.n_gpus_per_node} for p in job.pools],
        "models": {policy.name: asdict(policy.shape) for policy in job.policies},
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
            "cures": [
                {"key": key, "value": value, "override": override}
                for (key, value), override in zip(finding.cures.items(), finding.overrides, strict=True)
            ],
        },
        "engines": {name: asdict(held) for name, held in plan.capacities.items()},
        "tokens": work
        and {
            "bound": work.bound,
            "dialogues": work.dialogues,
            **{
                name: {"generated": load.generated * work.dialogues, "prefill": load.prefill * work.dialogues}
                for name, load in work.loads.items()
            },
        },
        "steps": [{"name": name, "seconds": sum(step.values()), "stages": step} for name, step in plan.steps.items()],
        "assumptions": asdict(ASSUMED),
        "notes": list(job.notes),
    }


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print JSON, or tables."""
    if as_json:
        Console().print(json.dumps(plan_json(plan), indent=2), markup=False, highlight=False, soft_wrap=True)
    else:
        Console().print(plan_view(plan), highlight=False, crop=False)


def plan_view(plan: Plan) -> RenderableType:
    """Tables of a plan within 80 columns, and the verdict last."""
    tables = [item for table in _tables(plan) for item in (_table(*table), Text())]
    lines = [Text(f"note: {note}", style="yellow") for note in plan.job.notes]
    lines += [Text(ESTIMATE, style="dim"), *verdict(plan).split("\n")]
    for line in lines:
        if line.plain.startswith("  "):
            # A setting is copied from here: it stays on one line, however long.
            line.no_wrap, line.overflow = True, "ignore"
    return Group(*tables, *lines)


def verdict(plan: Plan) -> Text:
    """Whether the job fits; if not, what does not fit and which settings to change."""
    if plan.fits:
        fullest = max(plan.phases, key=lambda phase: phase.total / phase.limit)
        summary = f"It fits. Fullest: {fullest.name}, {fullest.total / GIB:.1f} of {fullest.limit / GIB:.1f} GiB."
        return Text(summary, style="bold green")
    lines = []
    if plan.finding is not None:
        cures = [f"  {override}" for override in plan.finding.overrides]
        advice = "With these settings it fits:" if cures else "No known setting, and no more nodes, make it fit."
        lines += [f"It does not fit. {plan.finding}.", advice, *cures]
    if plan.host_missing:
        lack = f"A node's main memory lacks {plan.host_missing / GIB:.0f} GiB of {plan.host_gib:g}"
        lines.append(f"{lack}: offload less (param_offload, optimizer_offload), or use more nodes.")
    return Text("\n".join(lines), style="bold red")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of a text column and numbers. A row may end with a style; a row named total is set off."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, min_width=64
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        if row[0] == "total":
            table.add_section()
        table.add_row(*row[: len(columns)], style=(*row, "")[len(columns)])
    return table


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f}" if num_bytes >= 0.05 * GIB else "–"


def _tables(plan: Plan) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Title, columns and rows of each table."""
    job, gpu = plan.job, plan.job.gpu
    rows: list[tuple[str, ...]] = []
    for policy in job.policies:
        name = policy.shape.name.rstrip("/")
        name = name if len(name) <= 34 else f"…{name[-33:]}"
        trained = f"{policy.trainable / 1e9:.2f} B" if policy.learns else "–"
        devices = f"{policy.pool.nnodes} × {policy.pool.n_gpus_per_node}"
        rows.append((policy.name, name, f"{policy.shape.params / 1e9:.2f} B", trained, devices))
    yield "models", ("policy", "model", "parameters", "trained", "devices"), rows
    columns = ("phase", "reserve", "engines", "states", "layers", "activ.", "logits", "total", "of")
    for pool in job.pools:
        rows = []
        for phase in (phase for phase in plan.phases if phase.pool == pool.name):
            sizes = (*(phase.of(kind) for kind in Kind), phase.total, phase.limit)
            rows.append((phase.name, *map(_gib, sizes), "bold red" if phase.missing else ""))
        yield f"GiB on one {gpu.name}, by phase, devices of {pool.name}", columns, rows
    rows = [(part.name, _gib(part.num_bytes)) for part in plan.host]
    limit = f" of {plan.host_gib:g}" if plan.host_gib is not None else ""
    rows.append(("total", f"{_gib(plan.host_total)}{limit}", "bold red" if plan.host_missing else "bold"))
    yield "GiB of main memory, fullest node", ("part", "GiB"), rows
    if job.work:
        yield from _work_tables(plan, job.work)
    rows = []
    for assumption in fields(ASSUMED):
        value, unit = getattr(ASSUMED, assumption.name), assumption.metadata["unit"]
        rows.append((assumption.metadata["meaning"], f"{value:.0%}" if unit == "%" else f"{value:g} {unit}"))
    rows.append((f"{gpu.name}: bfloat16, memory bandwidth", f"{gpu.tflops:g} TFLOP/s, {gpu.bandwidth:g} GB/s"))
    rows.append((f"{gpu.name}: links in a node, to main memory", f"{gpu.link:g}, {gpu.host_link:g} GB/s"))
    yield "assumptions", ("what", "value"), rows


def _work_tables(plan: Plan, work: Work) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Engines, tokens and seconds of a step."""
    length, limits = ("full", "upper bound (--mean-tokens)") if work.bound else ("the expected", "as expected")
    rows = [
        (name, str(held.replicas), f"{held.cache_gib:.1f}", f"{held.asked:.0f}", str(held.fit), str(held.at_once))
        for name, held in plan.capacities.items()
    ]
    columns = ("policy", "replicas", "cache GiB", "needed", "cache holds", "at once")
    yield f"engines: dialogues of {length} length, per replica", columns, rows
    rows = []
    for policy in plan.job.policies:
        load = work.loads[policy.name]
        tokens = (load.generated, load.prefill, load.rows * load.context if policy.learns else 0)
        rows.append((policy.name, *(f"{count * work.dialogues:,.0f}" for count in tokens)))
    title = f"tokens of a step, {work.dialogues} dialogues, {limits}"
    yield title, ("policy", "generates", "reads", "learns from"), rows
    steps = plan.steps.values()
    stages = sorted(
        {stage for step in steps for stage in step}, key=lambda name: (_STAGES.index(name.split()[0]), name)
    )
    rows = [(stage, *(f"{step[stage]:,.1f}" if stage in step else "–" for step in steps)) for stage in stages]
    rows.append(("total", *(f"{sum(step.values()):,.1f}" for step in steps), "bold"))
    yield "seconds of a step, without validation and checkpoints", ("stage", *plan.steps), rows
