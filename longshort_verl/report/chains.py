# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scored chains of thought as tables, a picture and a page; and the tables of ``importance`` and ``cold-start``."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from longshort_verl.report.output import escaped, new_figure, save_figure, write_template
from longshort_verl.types import Chain, ChainOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUM_BINS = 10
_MAX_KINDS = 12
_MAX_KIND_CHARS = 24
_MAX_WORD_CHARS = 34
_MAX_ROWS = 30
"""Chains with more thoughts are folded to about so many rows."""


def scored_chains(chains: Sequence[Chain]) -> list[Chain]:
    """The chains with an importance for every thought."""
    return [chain for chain in chains if chain.outcome is ChainOutcome.SCORED]


def find_chain(chains: Sequence[Chain], key: str | None) -> Chain:
    """The scored chain of that key; the first scored chain without a key.

    Raises:
        ValueError: there is none.
    """
    shown = next((chain for chain in scored_chains(chains) if key in (None, chain.key)), None)
    if shown is None:
        outcomes = ", ".join(sorted({f"{chain.key} ({chain.outcome.value})" for chain in chains})[:10])
        raise ValueError(f"there is no scored chain{'' if key is None else f' {key!r}'}; the file has {outcomes}")
    return shown


def _counts_table(title: str, outcomes: Mapping[str, int], rows: Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for outcome, number in sorted(outcomes.items()):
        table.add_row(f"chains, {outcome}", str(number))
    for row in rows.items():
        table.add_row(*row)
    return table


def results_table(summary: Mapping[str, Any]) -> Table:
    """Outcomes and costs of ``longshort importance`` (see :func:`longshort_verl.chains.score.summary`)."""
    scored = max(1, summary["outcomes"].get("scored", 0))
    rate, width = summary["hit_rate"], summary["median_interval_width"]
    rows = {
        "thoughts": str(summary["num_thoughts"]),
        "rollouts": str(summary["num_rollouts"]),
        "rollouts per scored chain": f"{summary['num_rollouts'] / scored:.1f}",
        "generated tokens": str(summary["num_tokens"]),
        "prefill hit rate": "not reported by the engine" if rate is None else f"{rate:.1%}",
        "interval width, median": "–" if width is None else f"{width:.2f}",
        **{f"thoughts decided by {name}": str(number) for name, number in summary["decisions"].items()},
    }
    return _counts_table("importance", summary["outcomes"], rows)


def cold_start_table(counts: Mapping[str, Any]) -> Table:
    """Outcomes and sizes of ``longshort cold-start`` (see :func:`longshort_verl.cold_start.files.write_cold_start`)."""
    tokens = counts["num_tokens"]
    kept = tokens["long"] + tokens["short"]
    rows = {f"rows of {name}": str(number) for name, number in counts["num_rows"].items()}
    rows |= {f"rows of problems_{side}": str(number) for side, number in counts["num_problems"].items()}
    rows |= {
        "tokens of the kept chains": str(tokens["traces"]),
        "tokens of their dialogues": f"{kept} ({kept / max(1, tokens['traces']):.1%})",
        "tokens of the long role": str(tokens["long"]),
    }
    return _counts_table("cold start", counts["outcomes"], rows)


def thoughts_table(chain: Chain) -> Table:
    """One scored chain, thought by thought."""
    table = Table(title=Text(f"chain {_short(chain.key, 40)}"))  # as Text: a key must not act as markup
    for name in ("thought", "kind", "tokens", "value after", "importance"):
        table.add_column(name, justify="left" if name in ("thought", "kind") else "right", overflow="fold")
    unvisited = "no rollout" if chain.decisions else "interpolated"
    rows = zip(chain.thoughts, chain.lengths, chain.values[1:], chain.scores, strict=True)
    for thought, length, value, importance in rows:
        counted = f"{value.num_right}/{value.num_rollouts}" if value.num_rollouts else unvisited
        # As Text: a model's text must not act as markup.
        text, kind = Text(_short(thought.text, 40)), Text(_short(thought.kind, _MAX_KIND_CHARS))
        table.add_row(text, kind, str(length), f"{value.mean:.2f} ({counted})", f"{importance.score:+.3f}")
    return table


def _short(text: str, most: int) -> str:
    # Control characters would act on the terminal.
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def plot_importance(chains: Sequence[Chain], shown: Chain, out: Path) -> None:
    """Draw one chain with the first words of its thoughts, and below the importance by position and by kind."""
    save_figure(draw_importance(chains, shown), out)


def draw_importance(chains: Sequence[Chain], shown: Chain) -> Figure:
    """The figure of :func:`plot_importance`."""
    rows = _rows(shown)
    heights = (1.4 + 0.24 * len(rows), 3.0)
    figure = new_figure(10, sum(heights))
    top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    assert shown.problem is not None
    top.suptitle(escaped(f"chain {_short(shown.key, 30)}: {_short(shown.problem.prompt, 80)}"), fontsize=11)
    importances, values = top.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_thoughts(importances, shown, rows)
    _draw_values(values, shown, rows)
    by_place, by_kind = bottom.subplots(1, 2)
    scored = scored_chains(chains)
    _draw_by_place(by_place, scored)
    _draw_by_kind(by_kind, scored)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    return figure


def _rows(chain: Chain) -> list[range]:
    """The thoughts of each row of the picture; the unimportant thoughts of a long chain are folded into few rows."""
    number = len(chain.scores)
    ranked = sorted(range(number), key=lambda i: -abs(chain.scores[i].score))
    alone = set(ranked if number <= _MAX_ROWS else ranked[: _MAX_ROWS // 2])
    rows = []
    for together, group in itertools.groupby(range(number), key=lambda i: i not in alone):
        places = list(group)
        rows += [range(places[0], places[-1] + 1)] if together else [range(i, i + 1) for i in places]
    return rows


def _draw_thoughts(axes: Axes, chain: Chain, rows: Sequence[range]) -> None:
    """One bar per thought with its interval; folded thoughts span their range of importance."""
    for place, row in enumerate(rows):
        scores = [chain.scores[i].score for i in row]
        if len(row) > 1:
            axes.barh(place, max(scores) - min(scores), left=min(scores), color="0.6", height=0.3)
            continue
        importance = chain.scores[row[0]]
        axes.plot((importance.low, importance.high), (place, place), color="0.75", lw=1, zorder=1)
        axes.barh(place, scores[0], color="tab:green" if scores[0] > 0 else "tab:red", height=0.7)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(-1, len(rows)), ["before the first thought", *(_words(chain, row) for row in rows)])
    axes.set_ylim(len(rows) - 0.4, -1.6)
    axes.set_xlabel("importance of the thought, with its interval")


def _words(chain: Chain, row: range) -> str:
    if len(row) > 1:
        return f"{row[0] + 1} to {row[-1] + 1}: {len(row)} thoughts"
    text = chain.thoughts[row[0]].text.removeprefix("<think>")
    return escaped(f"{row[0] + 1}. {_short(text, _MAX_WORD_CHARS)}")


def _draw_values(axes: Axes, chain: Chain, rows: Sequence[range]) -> None:
    """The value after each row, filled where rollouts measured it."""
    values = [chain.values[0], *(chain.values[row[-1] + 1] for row in rows)]
    places = range(-1, len(rows))
    axes.plot([value.mean for value in values], places, color="tab:orange", lw=1)
    for place, value in zip(places, values, strict=True):
        axes.plot((value.low, value.high), (place, place), color="0.75", lw=1, zorder=1)
        axes.plot(value.mean, place, "o", color="tab:orange", mfc=None if value.num_rollouts else "white", ms=5)
    axes.tick_params(labelleft=False)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("probability of a right answer after it\n(filled: from rollouts; empty: estimated)")


def _draw_by_place(axes: Axes, chains: Sequence[Chain]) -> None:
    places = [
        ((i + 0.5) / len(chain.scores), importance.score)
        for chain in chains
        for i, importance in enumerate(chain.scores)
    ]
    bins: dict[int, list[float]] = defaultdict(list)
    for place, score in places:
        bins[min(_NUM_BINS - 1, int(place * _NUM_BINS))].append(score)
    means = [((i + 0.5) / _NUM_BINS, mean(bins[i])) for i in sorted(bins)]
    axes.scatter(*zip(*places, strict=True), s=6, alpha=0.35, color="tab:blue", linewidths=0)
    axes.plot(*zip(*means, strict=True), color="tab:orange", lw=2)
    axes.set_title(f"all {len(chains)} chains, by position (line: mean)", fontsize=10)
    axes.set(xlabel="position in the chain, from 0 to 1", ylabel="importance")


def _draw_by_kind(axes: Axes, chains: Sequence[Chain]) -> None:
    kinds: dict[str, list[float]] = defaultdict(list)
    for chain in chains:
        for thought, importance in zip(chain.thoughts, chain.scores, strict=True):
            kinds[_short(thought.kind, _MAX_KIND_CHARS) or "(none)"].append(importance.score)
    names = sorted(kinds, key=lambda name: -len(kinds[name]))[:_MAX_KINDS][::-1]
    axes.boxplot([kinds[name] for name in names], orientation="horizontal", widths=0.6, flierprops={"ms": 2})
    axes.set_yticks(range(1, len(names) + 1), [escaped(f"{name} ({len(kinds[name])})") for name in names])
    axes.set_title("by kind of thought (number)", fontsize=10)
    axes.set_xlabel("importance")


def write_page(chains: Sequence[Chain], shown: Chain, out: Path) -> None:
    """Write one self-contained page: the picture beside ``out``, and a chain coloured by importance."""
    write_template(
        "chains.html",
        out.with_suffix(".png"),
        num_scored=len(scored_chains(chains)),
        num_rows=len(chains),
        key=shown.key,
        problem=shown.problem,
        thoughts=_annotated(shown),
    )


def _annotated(chain: Chain) -> list[dict[str, str]]:
    most = max(abs(importance.score) for importance in chain.scores) or 1.0
    annotated = []
    rows = zip(chain.thoughts, chain.lengths, chain.values[1:], chain.scores, strict=True)
    unvisited = "no rollout" if chain.decisions else "interpolated"
    for number, (thought, length, value, importance) in enumerate(rows, start=1):
        depth = abs(importance.score) / most * 0.55
        hue = "46, 160, 67" if importance.score > 0 else "207, 34, 46"
        counted = f"{value.num_right} of {value.num_rollouts} rollouts right" if value.num_rollouts else unvisited
        note = (
            f"{number}. {_short(thought.kind, 80)} · importance {importance.score:+.3f} "
            f"(interval {importance.low:+.2f} to {importance.high:+.2f}) · "
            f"probability {value.mean:.2f} ({counted}) · {length} tokens"
        )
        colour = f"rgba({hue}, {depth:.2f})"
        annotated.append({"text": thought.text.rstrip(), "colour": colour, "note": note})
    return annotated
