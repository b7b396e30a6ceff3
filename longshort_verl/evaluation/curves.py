# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""A training run as a person reads it: a table of its first and last validation, and its curves as a PNG.

Reads the JSONL that verl's ``file`` logger writes, so any run can be shown, running ones included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

_VALIDATION = re.compile(r"val-(?:core|aux)/(?P<source>.+)/(?P<name>[^/]+)/mean@\d+")

_ROWS = (
    ("reward", "reward", "{:.3f}"),
    ("acc", "accuracy", "{:.1%}"),
    ("format", "format rate", "{:.1%}"),
    ("num_tokens", "tokens, both roles", "{:.1f}"),
    ("num_tokens_long", "tokens, long role", "{:.1f}"),
    ("num_tokens_short", "tokens, short role", "{:.1f}"),
    ("num_rethinks", "rethinks per dialogue", "{:.2f}"),
)


_TRAINING = {3: "reward", 4: "actor/grad_norm", 5: "training/rollout_probs_diff_mean"}
"""Panel → what it shows of each policy at every step that logs it."""
_LABELS = {name: label for name, label, _ in _ROWS}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was logged at one step."""

    step: int
    """Training step; 0 is before the first."""
    metrics: dict[str, float]
    """By verl's names."""

    def validation(self, name: str) -> float | None:
        """Mean of a validation metric over the data sources that have it; None where this step did not validate."""
        return validation_mean(self.metrics, name)


def validation_mean(metrics: Mapping[str, float], name: str) -> float | None:
    """Mean over data sources of a validation metric in verl's log of one step; None where there is none."""
    values = [
        value for key, value in metrics.items() if (match := _VALIDATION.fullmatch(key)) and match["name"] == name
    ]
    return sum(values) / len(values) if values else None


def read_run(path: Path) -> list[Step]:
    """All steps of a run in order; a step that is logged twice, as after a resume, counts as its last.

    Raises:
        FileNotFoundError: there is no such log.
        ValueError: a line that is not verl's, or a log with no step.
    """
    steps: dict[int, Step] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            steps[row["step"]] = Step(step=row["step"], metrics=row["data"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break  # a run that is being written, or was killed, may end in half a line
            raise ValueError(f"{path}, line {number}, is not a line of verl's file logger: {error!r}") from error
    if not steps:
        raise ValueError(f"{path} has no step yet; look again once the run has validated")
    return [steps[step] for step in sorted(steps)]


def summary_table(runs: Sequence[Sequence[Step]]) -> Table:
    """First and last validation side by side; of several runs (seeds) the mean, and the lowest to the highest.

    Raises:
        ValueError: a run has not validated.
    """
    ends = []
    for run in runs:
        validated = [step for step in run if step.validation("acc") is not None]
        if not validated:
            raise ValueError("the run has no validation; set trainer.test_freq or trainer.val_before_train")
        ends.append((validated[0], validated[-1]))
    table = Table(title="validation" if len(runs) == 1 else f"validation, {len(runs)} runs: mean (lowest to highest)")
    table.add_column("")
    for steps in zip(*ends, strict=True):
        numbers = sorted({step.step for step in steps})
        table.add_column(f"step {', '.join(map(str, numbers))}", justify="right")
    for name, label, form in _ROWS:
        table.add_row(label, *(_cell([s.validation(name) for s in steps], form) for steps in zip(*ends, strict=True)))
    return table


def comparison_table(runs: Sequence[tuple[str, Sequence[Step]]]) -> Table:
    """Systems side by side at the last step at which all their runs validated; mean, and the lowest to the highest.

    Args:
        runs: label and steps of each run; runs of equal label are one system's seeds.

    Raises:
        ValueError: no step was validated by all runs.
    """
    validated = [{step.step: step for step in run if step.validation("acc") is not None} for _, run in runs]
    common = set.intersection(*(set(steps) for steps in validated))
    if not common:
        raise ValueError("the runs have no validated step in common; set the same trainer.test_freq for all")
    last = max(common)
    table = Table(title=f"validation after {last} steps: mean (lowest to highest)")
    table.add_column("")
    columns: list[list[Step]] = []
    for label in dict.fromkeys(label for label, _ in runs):
        columns.append([steps[last] for (name, _), steps in zip(runs, validated, strict=True) if name == label])
        table.add_column(f"{label} ({len(columns[-1])})", justify="right")
    for name, label, form in _ROWS:
        cells = [_cell([step.validation(name) for step in steps], form, between="\n") for steps in columns]
        table.add_row(label, *cells, end_section=True)
    return table


def _cell(values: Sequence[float | None], form: str, between: str = " ") -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    mean = form.format(sum(known) / len(known))
    return mean if len(known) == 1 else f"{mean}{between}({form.format(min(known))} to {form.format(max(known))})"


def plot_curves(runs: Sequence[tuple[str, Sequence[Step]]], out: Path, *, title: str) -> None:
    """Six panels: validation's accuracy, tokens, reward; each role's own reward and gradient; engine against actor.

    Args:
        runs: label and steps of each run; runs of equal label share a colour, as seeds do.
        out: PNG to write.
        title: above all panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    figure.suptitle(title)
    labels = list(dict.fromkeys(label for label, _ in runs))
    seen: set[tuple[int, str]] = set()

    def draw(panel: int, run: Sequence[Step], label: str, name: str, style: str, colour: int) -> None:
        axis = axes.flat[panel]
        points = [(step.step, value) for step in run if (value := step.validation(name)) is not None]
        text = f"{label} {_LABELS[name]}".strip() if (panel, f"{label}{name}") not in seen else None
        seen.add((panel, f"{label}{name}"))
        axis.plot(*zip(*points, strict=True), style, color=f"C{colour}", label=text, alpha=0.9, markersize=4)

    for label, run in runs:
        shift = labels.index(label)
        many = len(labels) > 1
        shown = label if many else ""
        draw(0, run, shown, "acc", "o-", shift if many else 0)
        draw(0, run, shown, "format", "s--", shift if many else 1)
        draw(1, run, shown, "num_tokens_long", "o-", shift if many else 2)
        draw(1, run, shown, "num_tokens_short", "s--", shift if many else 3)
        draw(2, run, shown, "reward", "o-", shift if many else 4)
        draw(2, run, shown, "num_rethinks", "s--", shift if many else 5)
        for panel, key in _TRAINING.items():
            for number, name in enumerate(("long", "short", "shared")):
                points = [(step.step, step.metrics[f"{name}/{key}"]) for step in run if f"{name}/{key}" in step.metrics]
                if not points:
                    continue
                text = f"{shown} {name}".strip() if (panel, f"{label}{name}") not in seen else None
                seen.add((panel, f"{label}{name}"))
                colour = f"C{shift if many else number}"
                style = ("o-", "s--", "^:")[number]
                axes.flat[panel].plot(*zip(*points, strict=True), style, color=colour, label=text, markersize=3)
    for axis, heading in zip(
        axes.flat,
        (
            "validation: accuracy and format",
            "validation: generated tokens",
            "validation: reward and rethinks",
            "training: each role's own reward",
            "training: gradient norm of what learns",
            "engine against actor, mean |probability difference|",
        ),
        strict=True,
    ):
        axis.set_title(heading, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    axes.flat[0].set_ylim(-0.02, 1.02)
    axes.flat[1].set_ylim(bottom=0)
    if axes.flat[5].lines:
        # The whole range from float32's noise to a wrong engine, or noise would look like news.
        axes.flat[5].set_yscale("log")
        axes.flat[5].set_ylim(1e-8, 1.0)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
