# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A plan: memory and time of a job, whether it fits, and how both are printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longshort_verl.ops.plan.cure import Finding, check_fit
from longshort_verl.ops.plan.hardware import ASSUMED, GIB
from longshort_verl.ops.plan.job import Job
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


def as_json(plan: Plan) -> dict[str, Any]:
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


def plan_view(plan: Plan) -> RenderableType:
    """Tables of a plan within 80 columns, and the verdict last."""
    tables = [_models(plan), *(_devices(plan, pool.name) for pool in plan.job.pools)]
    tables += [_engines(plan)] if plan.capacities else []
    tables.append(_host(plan))
    tables += [_tokens(plan), _times(plan)] if plan.steps else []
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


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first ``left`` columns are text and the others numbers."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, min_width=64
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=i < left)
    return table


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f}" if num_bytes >= 0.05 * GIB else "–"


def _models(plan: Plan) -> Table:
    table = _table("models", "policy", "model", "parameters", "trained", "devices", left=2)
    for policy in plan.job.policies:
        name = policy.shape.name.rstrip("/")
        name = name if len(name) <= 34 else f"…{name[-33:]}"
        trained = f"{policy.trainable / 1e9:.2f} B" if policy.learns else "–"
        devices = f"{policy.pool.nnodes} × {policy.pool.gpus_per_node}"
        table.add_row(policy.name, name, f"{policy.shape.params / 1e9:.2f} B", trained, devices)
    return table


def _devices(plan: Plan, pool: str) -> Table:
    title = f"GiB on one {plan.job.gpu.name}, by phase"
    title += f", devices of {pool}" if len(plan.job.pools) > 1 else ""
    table = _table(title, "phase", "reserve", "engines", "states", "layers", "activ.", "logits", "total", "of")
    for phase in plan.phases:
        if phase.pool == pool:
            sizes = [*(phase.of(kind) for kind in Kind), phase.total, phase.limit]
            table.add_row(phase.name, *map(_gib, sizes), style="bold red" if phase.missing else "")
    return table


def _engines(plan: Plan) -> Table:
    length = "full" if plan.job.work and plan.job.work.bound else "the expected"
    title = f"engines: dialogues of {length} length, per replica"
    table = _table(title, "policy", "replicas", "cache GiB", "needed", "cache holds", "at once")
    for policy in plan.job.policies:
        held = plan.capacities[policy.name]
        style = "yellow" if held.fit < min(held.asked, policy.served.max_num_seqs) else ""
        row = (str(held.replicas), f"{held.cache / GIB:.1f}", f"{held.asked:.0f}", str(held.fit), str(held.at_once))
        table.add_row(policy.name, *row, style=style)
    return table


def _host(plan: Plan) -> Table:
    table = _table("GiB of main memory, fullest node", "part", "GiB")
    for part in plan.host:
        table.add_row(part.name, _gib(part.num_bytes))
    table.add_section()
    limit = f" of {plan.host_gib:g}" if plan.host_gib is not None else ""
    table.add_row("total", f"{_gib(_total(plan.host))}{limit}", style="bold red" if plan.host_missing else "")
    return table


def _tokens(plan: Plan) -> Table:
    work = plan.job.work
    assert work is not None
    kind = "upper bound (--mean-tokens)" if work.bound else "as expected"
    title = f"tokens of a step, {work.dialogues} dialogues, {kind}"
    table = _table(title, "policy", "generates", "reads", "learns from")
    for policy in plan.job.policies:
        load = work.loads[policy.name]
        numbers = (load.generated, load.prefill, load.rows * load.context if policy.learns else 0)
        table.add_row(policy.name, *(f"{number * work.dialogues:,.0f}" for number in numbers))
    return table


def _times(plan: Plan) -> Table:
    title = "seconds of a step, without validation and checkpoints"
    table = _table(title, "stage", *(step.name for step in plan.steps))
    order = ("rollout", "log-prob", "reference", "update", "push")
    stages = dict.fromkeys(name for step in plan.steps for name, _ in step.stages)
    for stage in sorted(stages, key=lambda name: order.index(name.split()[0])):
        seconds = [dict(step.stages).get(stage) for step in plan.steps]
        table.add_row(stage, *("–" if value is None else f"{value:,.1f}" for value in seconds))
    table.add_section()
    table.add_row("total", *(f"{step.seconds:,.1f}" for step in plan.steps), style="bold")
    return table


def _assumptions(plan: Plan) -> Table:
    gpu, assumed = plan.job.gpu, ASSUMED
    rows: Sequence[tuple[str, str]] = [
        (f"memory of one {gpu.name}, as CUDA reports it", f"{gpu.memory_gib:g} GiB"),
        ("device memory of each actor's and engine's process", f"{assumed.context_gib:g} GiB"),
        ("device memory lost to allocators", f"{assumed.fragmentation:.0%}"),
        ("CUDA graphs of an engine, awake or asleep", f"{assumed.cuda_graphs_gib:g} GiB"),
        ("main memory per offloaded byte (pinned)", f"{assumed.pinned:g} bytes"),
        ("main memory per device and policy, and per job", f"{assumed.host_gib_per_worker:g}, {assumed.host_gib_per_job:g} GiB"),
    ]  # fmt: skip
    if plan.steps:
        efficiencies = (assumed.train_efficiency, assumed.forward_efficiency, assumed.decode_efficiency)
        rows = [
            *rows,
            ("bfloat16 arithmetic, memory bandwidth", f"{gpu.tflops:g} TFLOP/s, {gpu.bandwidth:g} GB/s"),
            ("share reached: update, forward, decoding", ", ".join(f"{share:.0%}" for share in efficiencies)),
            ("links: node, main memory, network", f"{gpu.link:g}, {gpu.host_link:g}, {assumed.network:g} GB/s"),
            ("share of a link reached", f"{assumed.link_efficiency:.0%}"),
            ("fixed time per decoding step", f"{assumed.decode_overhead_s * 1000:g} ms"),
        ]
    table = _table("assumptions", "", "")
    table.show_header = False
    for row in rows:
        table.add_row(*row)
    return table
