# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison of systems as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longshort_verl.evaluation.compare import BUDGETS, Comparison
from longshort_verl.evaluation.records import REFERENCE
from longshort_verl.report.evaluation import share_name
from longshort_verl.report.output import escaped, label_points, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN = (REFERENCE, "cold_start", "pair", "single")
"""The systems of ``examples/pipeline.sh`` that are no ablations, as a report orders them."""
_EXITS = "exit_"
_MOST_NAMES = 8
"""So many systems all have their names beside their points."""
_VERDICTS = {"higher": "tab:green", "lower": "tab:red", "no difference": "0.4"}


def plot_comparison(
    systems: Sequence[Comparison], out: Path, *, title: str, against: Sequence[Comparison] = ()
) -> None:
    """Draw three panels: accuracy against tokens, accuracy under a budget of tokens, and differences in accuracy.

    The first two name the main systems beside their points. The differences are those of ``against``, or without it
    those of ``systems``, from the first of them.
    """
    save_figure(draw_comparison(systems, title, against or systems), out)


def draw_comparison(systems: Sequence[Comparison], title: str, compared: Sequence[Comparison]) -> Figure:
    """The figure of :func:`plot_comparison`."""
    main = _main_systems(systems, compared[0].system)
    colours = {one.system: f"C{number}" for number, one in enumerate(main)}
    rows = [one for one in compared[1:] if not one.system.startswith(_EXITS)]
    heights = [4.4, 0.9 + 0.27 * len(rows)] if rows else [4.4]
    figure = new_figure(10, sum(heights))
    figure.suptitle(escaped(title))
    top, *bottom = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    points, budgets = top.subplots(1, 2)
    _draw_points(points, systems, colours)
    _draw_budgets(budgets, main, colours)
    for part in bottom:
        _draw_differences(part.subplots(), rows, compared[0].system)
    label_points(points, [(_name(one), one.num_tokens.mean, one.accuracy.mean, colours[one.system]) for one in main])
    label_points(budgets, [(_name(one), len(BUDGETS) - 1, one.budgets[-1], colours[one.system]) for one in main])
    return figure


def _main_systems(systems: Sequence[Comparison], reference: str) -> list[Comparison]:
    known = {*MAIN, reference}
    few = len(systems) <= _MOST_NAMES
    return [one for one in systems if few or one.system in known or one.system.startswith(_EXITS)]


def _name(one: Comparison) -> str:
    return "base (solo)" if one.system == REFERENCE else one.system.replace("_", " ")


def _draw_points(axes: Axes, systems: Sequence[Comparison], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for one in sorted(systems, key=lambda one: one.system in colours):  # the main ones above the others
        colour = colours.get(one.system, "0.75")
        x, y, x_ends, y_ends = one.num_tokens.mean, one.accuracy.mean, one.tokens_interval, one.accuracy_interval
        axes.plot(x, y, "o", color=colour, ms=6 if one.system in colours else 4)
        axes.plot(x_ends, (y, y), (x, x), y_ends, color=colour, lw=1.2)
    others = "; gray: the others, named below" if len(colours) < len(systems) else ""
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=f"generated tokens per problem{others}", ylabel="accuracy")
    axes.set_ylim(0, min(1.05, 1.3 * axes.dataLim.y1 + 0.02))
    axes.set_title("accuracy and tokens, with 95 % intervals", fontsize=10)
    axes.grid(alpha=0.3)


def _draw_budgets(axes: Axes, systems: Sequence[Comparison], colours: Mapping[str, str]) -> None:
    for one in systems:
        axes.plot(range(len(BUDGETS)), one.budgets, "o-", color=colours[one.system], ms=4)
    axes.set_xticks(range(len(BUDGETS)), [share_name(cap) for cap in BUDGETS])
    axes.set(xlim=(-0.15, len(BUDGETS) - 0.1), ylim=(0, min(1.05, 1.3 * axes.dataLim.y1 + 0.02)))
    axes.set_xlabel(f"most tokens per problem, as a share of {systems[0].system}'s mean")
    axes.set_title("accuracy within a budget of tokens", fontsize=10)
    axes.grid(alpha=0.3)


def _draw_differences(axes: Axes, systems: Sequence[Comparison], reference: str) -> None:
    rows = sorted(systems, key=lambda one: one.difference)
    places = range(len(rows))
    for place, one in zip(places, rows, strict=True):
        colour = _VERDICTS[one.verdict]
        axes.plot([100 * end for end in one.interval], (place, place), color=colour, lw=2)
        axes.plot(100 * one.difference, place, "o", color=colour, ms=6)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(places, [escaped(f"{_name(one)}, {one.num_seeds} seed{'s' * (one.num_seeds > 1)}") for one in rows])
    values = axes.secondary_yaxis("right")
    values.set_yticks(places, [_values(one) for one in rows])
    values.tick_params(length=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(escaped(f"points; on the right with their interval, and with the share of {reference}'s tokens"))
    axes.set_title(
        escaped(f"accuracy minus that of {reference}, with 95 % intervals (gray: no difference)"), fontsize=10
    )
    axes.grid(alpha=0.3)


def _values(one: Comparison) -> str:
    low, high = one.interval
    return f"{100 * one.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {1 - one.saved:.0%}"
