# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of a training run's validations and its curves as a PNG.

Reads the JSONL that verl's ``file`` logger writes, also while the run is still writing it.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from longshort_verl.metrics import validation_mean
from longshort_verl.report.output import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = (
    ("reward", "reward", "{:.3f}"),
    ("acc", "accuracy", "{:.1%}"),
    ("format", "format rate", "{:.1%}"),
    ("num_tokens", "tokens, both roles", "{:.1f}"),
    ("num_tokens_long", "tokens, long role", "{:.1f}"),
    ("num_tokens_short", "tokens, short role", "{:.1f}"),
    ("num_rethinks", "rethinks per dialogue", "{:.2f}"),
)
_PANELS = (
    "validation: accuracy and format",
    "validation: generated tokens",
    "validation: reward and rethinks",
    "training: reward per role",
    "training: gradient norm per trained role",
    "engine against actor, mean |probability difference|",
)
_VALIDATIONS = (
    (0, "acc", "o-", 0),
    (0, "format", "s--", 1),
    (1, "num_tokens_long", "o-", 2),
    (1, "num_tokens_short", "s--", 3),
    (2, "reward", "o-", 4),
    (2, "num_rethinks", "s--", 5),
)
"""Panel, metric, style and colour of a single system; with several systems each has one colour."""
_TRAINING = {3: "reward", 4: "actor/grad_norm", 5: "training/rollout_probs_diff_mean"}
"""Panel → the training metric that it shows, per policy."""
_LABELS = {name: label for name, label, _ in _ROWS}


@dataclass(frozen=True, kw_only=True)
class Step:
    """The metrics of one step."""

    step: int
    """Training step; 0 is before training."""
    metrics: dict[str, float]
    """Values by verl's names."""

    def validation(self, name: str) -> float | None:
        """Mean of a validation metric over the data sources that have it; None if this step did not validate."""
        return validation_mean(self.metrics, name)


def read_run(path: Path) -> list[Step]:
    """All steps of a run in order. The last line of a step that was logged twice, as after a resume, counts.

    ``path`` is a log, which those of later starts beside it continue (``<name>-<time>.jsonl``), or a folder with
    ``metrics*.jsonl``: one per start, in the order of their names.

    Raises:
        FileNotFoundError: there is no such log.
        ValueError: a line is not verl's, or a log has no step.
    """
    steps: dict[int, Step] = {}
    found = path.glob("metrics*.jsonl") if path.is_dir() else path.parent.glob(f"{path.stem}-*{path.suffix}")
    logs = [*([] if path.is_dir() else [path]), *sorted(found, key=lambda log: log.stem)]
    for log in logs:
        lines = log.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                steps[row["step"]] = Step(step=row["step"], metrics=row["data"])
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    break  # a run in progress, or a killed one, may end in half a line
                raise ValueError(f"{log}, line {number}, is not a line of verl's file logger: {error!r}") from error
    if not steps:
        raise ValueError(f"{path} has no step yet; wait until the run has validated")
    return [steps[step] for step in sorted(steps)]


def summary_table(runs: Sequence[Sequence[Step]]) -> Table:
    """First and last validation side by side; for several runs (seeds) the mean, the lowest and the highest.

    Raises:
        ValueError: a run has no validation.
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
        names = sorted({step.step for step in steps})
        table.add_column(f"step {', '.join(map(str, names))}", justify="right")
    for name, label, form in _ROWS:
        table.add_row(label, *(_cell([s.validation(name) for s in steps], form) for steps in zip(*ends, strict=True)))
    return table


def comparison_table(runs: Sequence[tuple[str, Sequence[Step]]]) -> Table:
    """Systems (see :func:`plot_curves`) at the last step that all runs validated: mean, lowest and highest.

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
    """Draw the panels of ``_PANELS`` for the label and steps of each run.

    Runs with the same label are seeds of one system: a line shows their mean, a band their range.
    """
    figure = new_figure(15, 7.5)
    axes = figure.subplots(2, 3)
    figure.suptitle(title)
    labels = list(dict.fromkeys(label for label, _ in runs))
    compared = len(labels) > 1
    for place, label in enumerate(labels):
        seeds = [run for name, run in runs if name == label]
        for panel, name, style, colour in _VALIDATIONS:
            text = f"{label} {_LABELS[name]}" if compared else _LABELS[name]
            points = _over_runs(seeds, lambda step, name=name: step.validation(name))
            _draw(axes.flat[panel], points, style, place if compared else colour, text)
        for panel, key in _TRAINING.items():
            for colour, role in enumerate(("long", "short", "shared")):
                text = f"{label} {role}" if compared else role
                points = _over_runs(seeds, lambda step, key=f"{role}/{key}": step.metrics.get(key))
                _draw(axes.flat[panel], points, ("o-", "s--", "^:")[colour], place if compared else colour, text)
    for axis, heading in zip(axes.flat, _PANELS, strict=True):
        axis.set_title(heading, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    axes.flat[0].set_ylim(-0.02, 1.02)
    axes.flat[1].set_ylim(bottom=0)
    if axes.flat[5].lines:
        # The whole range from float32 noise to a wrong engine; a zoom into the noise would look like a change.
        axes.flat[5].set_yscale("log")
        axes.flat[5].set_ylim(1e-8, 1.0)
    save_figure(figure, out)


def _over_runs(
    runs: Sequence[Sequence[Step]], read: Callable[[Step], float | None]
) -> list[tuple[int, float, float, float]]:
    """Step, mean, lowest and highest value over the runs that have one."""
    values: dict[int, list[float]] = defaultdict(list)
    for step in itertools.chain.from_iterable(runs):
        if (value := read(step)) is not None:
            values[step.step].append(value)
    return [(step, sum(seen) / len(seen), min(seen), max(seen)) for step, seen in sorted(values.items())]


def _draw(axis: Axes, points: Sequence[tuple[int, float, float, float]], style: str, colour: int, text: str) -> None:
    if not points:
        return
    steps, means, lows, highs = zip(*points, strict=True)
    axis.plot(steps, means, style, color=f"C{colour}", label=text, alpha=0.9, markersize=3.5)
    if lows != highs:
        axis.fill_between(steps, lows, highs, color=f"C{colour}", alpha=0.15, linewidth=0)
