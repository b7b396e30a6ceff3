# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A plan: what a job takes, whether it fits, and how it is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longshort_verl.ops.plan.fit import Finding, check
from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.job import Job, Kind, Part, Phase
from longshort_verl.ops.plan.memory import host_memory, phases, trainable
from longshort_verl.ops.plan.speed import Capacity, StepTime, Work, capacity, step_times

ESTIMATE = "All numbers are estimates; none of them has been compared with a GPU yet."


@dataclass(frozen=True)
class Plan:
    """What a job asks of its devices and nodes."""

    job: Job
    work: Work | None
    """None for supervised fine-tuning, whose rows are not known."""
    host_gib: float | None
    """Main memory of a node; None where it is not known."""
    notes: tuple[str, ...] = ()
    """What is not, or not rightly, counted."""

    @cached_property
    def phases(self) -> list[Phase]:
        """In their order, pool by pool."""
        return phases(self.job)

    @cached_property
    def finding(self) -> Finding | None:
        """The first thing that does not fit on a device, with a cure."""
        return check(self.job)

    @cached_property
    def host(self) -> list[Part]:
        """Main memory of the fullest node."""
        return host_memory(self.job)

    @property
    def host_missing(self) -> float:
        """Bytes of main memory that a node lacks; 0 where it is not known."""
        if self.host_gib is None:
            return 0.0
        return max(0.0, sum(part.num_bytes for part in self.host) - self.host_gib * GIB)

    @property
    def fits(self) -> bool:
        """Whether everything fits."""
        return self.finding is None and not self.host_missing

    @cached_property
    def capacities(self) -> dict[str, Capacity]:
        """Of engines, by policy."""
        if self.work is None:
            return {}
        return {policy.name: capacity(self.job, policy, self.work) for policy in self.job.policies}

    @cached_property
    def steps(self) -> list[StepTime]:
        """Kinds of step, with their time."""
        return [] if self.work is None else step_times(self.job, self.work)


# ------------------------------------------------------------------------------------------ as JSON


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything that a plan says; sizes in GiB, times in seconds."""
    finding, work = plan.finding, plan.work
    return {
        "estimate": ESTIMATE,
        "fits": plan.fits,
        "gpu": asdict(plan.job.gpu),
        "pools": [
            {"name": pool.name, "nnodes": pool.nnodes, "gpus_per_node": pool.gpus_per_node} for pool in plan.job.pools
        ],
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
        "tokens": work and {"bound": work.bound, "dialogues": work.dialogues, **_tokens(work)},
        "steps": [{"name": step.name, "seconds": step.seconds, "stages": dict(step.stages)} for step in plan.steps],
        "assumptions": asdict(plan.job.assumed),
        "notes": list(plan.notes),
    }


def _tokens(work: Work) -> dict[str, Any]:
    return {
        name: {"generated": load.generated * work.dialogues, "prefill": load.prefill * work.dialogues}
        for name, load in work.loads.items()
    }


# ------------------------------------------------------------------------------------------ for a terminal


_HEADS = {Kind.OVERHEAD: "reserve", Kind.GATHERED: "layers", Kind.ACTIVATIONS: "activ."}


def _table(title: str, *, show_header: bool = True) -> Table:
    return Table(
        title=title,
        title_justify="left",
        show_header=show_header,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        min_width=64,
    )


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f}" if num_bytes >= 0.05 * GIB else "–"


def plan_view(plan: Plan) -> RenderableType:
    """Tables of a plan, 80 columns wide, and what does not fit last."""
    views: list[RenderableType] = [_models(plan)]
    views += [_devices(plan, pool.name) for pool in plan.job.pools]
    if plan.capacities:
        views.append(_engines(plan))
    views.append(_host(plan))
    if plan.steps:
        views += [_token_table(plan), _times(plan)]
    views.append(_assumptions(plan))
    views += [Text(f"note: {note}", style="yellow") for note in plan.notes]
    views += [Text(ESTIMATE, style="dim"), *verdict(plan).split("\n")]
    items: list[RenderableType] = []
    for view in views:
        if isinstance(view, Text) and view.plain.startswith("  "):
            # A setting is copied from here: it stays on its line, however long.
            view.no_wrap, view.overflow = True, "ignore"
        items += [view] if isinstance(view, Text) else [view, Text()]
    return Group(*items)


def verdict(plan: Plan) -> Text:
    """Whether it fits, what does not, and what to set."""
    if plan.fits:
        fullest = max(plan.phases, key=lambda phase: phase.total / phase.limit)
        return Text(
            f"It fits. Fullest: {fullest.name}, {fullest.total / GIB:.1f} of {fullest.limit / GIB:.1f} GiB.",
            style="bold green",
        )
    told = Text()
    if plan.finding is not None:
        told.append(f"It does not fit. {plan.finding}.\n", style="bold red")
        if plan.finding.cures:
            told.append("With these it fits:\n")
            told.append("\n".join(f"  {change}" for change in plan.finding.cures), style="bold")
        else:
            told.append("No setting that is known here makes it fit, nor do up to 64 nodes of these devices.")
    if plan.host_missing:
        told.append("\n" if plan.finding is not None else "")
        told.append(
            f"A node's main memory lacks {plan.host_missing / GIB:.0f} GiB of {plan.host_gib:g}: off-load less "
            "(param_offload, optimizer_offload), or share the models among more nodes.",
            style="bold red",
        )
    return told


def _models(plan: Plan) -> Table:
    table = _table("models")
    for column in ("policy", "model"):
        table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=34)
    for column in ("parameters", "that learn", "devices"):
        table.add_column(column, justify="right", no_wrap=True)
    for policy in plan.job.policies:
        pool = plan.job.pool(policy.pool)
        learns = f"{trainable(policy) / 1e9:.2f} B" if policy.learns else "–"
        nodes = f"{pool.nnodes} × {pool.gpus_per_node}"
        name = policy.shape.name.rstrip("/")
        name = name if len(name) <= 34 else f"…{name[-33:]}"
        table.add_row(policy.name, name, f"{policy.shape.params / 1e9:.2f} B", learns, nodes)
    return table


def _devices(plan: Plan, pool: str) -> Table:
    title = f"GiB on one {plan.job.gpu.name}, by phase"
    if len(plan.job.pools) > 1:
        title += f", devices of {pool}"
    table = _table(title)
    table.add_column("phase", no_wrap=True)
    for kind in Kind:
        table.add_column(_HEADS.get(kind, kind.value), justify="right")
    table.add_column("all", justify="right")
    table.add_column("of", justify="right")
    for phase in plan.phases:
        if phase.pool == pool:
            style = "bold red" if phase.missing else ""
            sizes = [_gib(phase.of(kind)) for kind in Kind]
            table.add_row(phase.name, *sizes, _gib(phase.total), f"{phase.limit / GIB:.1f}", style=style)
    return table


def _engines(plan: Plan) -> Table:
    full = "at full length" if plan.work and plan.work.bound else "of the expected length"
    table = _table(f"engines: dialogues {full}, for each replica")
    table.add_column("policy")
    for column in ("replicas", "cache GiB", "asked", "cache holds", "at once"):
        table.add_column(column, justify="right")
    for policy in plan.job.policies:
        held = plan.capacities[policy.name]
        style = "yellow" if held.fit < min(held.asked, policy.engine.max_num_seqs if policy.engine else 0) else ""
        row = (str(held.replicas), f"{held.cache / GIB:.1f}", f"{held.asked:.0f}", str(held.fit), str(held.at_once))
        table.add_row(policy.name, *row, style=style)
    return table


def _host(plan: Plan) -> Table:
    table = _table("GiB of main memory, fullest node")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    for part in plan.host:
        if part.num_bytes:
            table.add_row(part.name, _gib(part.num_bytes))
    table.add_section()
    limit = f" of {plan.host_gib:g}" if plan.host_gib is not None else ""
    style = "bold red" if plan.host_missing else ""
    table.add_row("all", f"{_gib(sum(part.num_bytes for part in plan.host))}{limit}", style=style)
    return table


def _token_table(plan: Plan) -> Table:
    work = plan.work
    assert work is not None
    title = f"tokens of a step, {work.dialogues} dialogues"
    title += ", upper bound (--mean-tokens)" if work.bound else ", as expected"
    table = _table(title)
    table.add_column("policy")
    for column in ("writes", "reads", "learns from"):
        table.add_column(column, justify="right")
    for name, load in work.loads.items():
        learnt = load.rows * load.context if plan.job.policy(name).learns else 0
        table.add_row(name, *(f"{number * work.dialogues:,.0f}" for number in (load.generated, load.prefill, learnt)))
    return table


def _times(plan: Plan) -> Table:
    table = _table("seconds of a step, without validation and checkpoints")
    table.add_column("stage")
    for step in plan.steps:
        table.add_column(step.name, justify="right")
    stages = list(dict.fromkeys(name for step in plan.steps for name, _ in step.stages))
    for stage in sorted(
        stages, key=lambda name: ("rollout", "log-prob", "reference", "update", "push").index(name.split()[0])
    ):
        found = [dict(step.stages).get(stage) for step in plan.steps]
        table.add_row(stage, *("–" if seconds is None else f"{seconds:,.1f}" for seconds in found))
    table.add_section()
    table.add_row("all", *(f"{step.seconds:,.1f}" for step in plan.steps), style="bold")
    return table


def _assumptions(plan: Plan) -> Table:
    gpu, assumed = plan.job.gpu, plan.job.assumed
    table = _table("assumed", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    rows = [
        (f"memory of one {gpu.name}, as CUDA reports it", f"{gpu.memory_gib:g} GiB"),
        ("of it, each actor's and each engine's process", f"{assumed.context_gib:g} GiB"),
        ("of it, lost by allocators", f"{assumed.fragmentation:.0%}"),
        ("CUDA graphs of an engine, asleep too", f"{assumed.cuda_graphs_gib:g} GiB"),
        ("attention and cross-entropy", "flash-attn"),
        ("main memory of an off-loaded byte (pinned)", f"{assumed.pinned:g} bytes"),
        (
            "main memory of the processes",
            f"{assumed.host_gib_per_worker:g} GiB a device and policy + {assumed.host_gib_per_job:g}",
        ),
    ]
    if plan.steps:
        rows += [
            ("dense bfloat16 arithmetic, memory bandwidth", f"{gpu.tflops:g} TFLOP/s, {gpu.bandwidth:g} GB/s"),
            (
                "share of it: update, forward pass, decoding",
                f"{assumed.train_efficiency:.0%}, {assumed.forward_efficiency:.0%}, {assumed.decode_efficiency:.0%}",
            ),
            (
                "links: in a node, to main memory, to others",
                f"{gpu.link:g}, {gpu.host_link:g}, {assumed.network:g} GB/s",
            ),
            ("share of a link", f"{assumed.link_efficiency:.0%}"),
            ("of a decoding step beside its work", f"{assumed.decode_overhead_s * 1000:g} ms"),
        ]
    for row in rows:
        table.add_row(*row)
    return table
