# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scored thoughts as tables, a picture and a page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

_NUM_BINS = 10
_MAX_KINDS = 12
_MAX_KIND_CHARS = 24


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """Rows of ``importance.jsonl``."""

    path: Path
    """The file."""
    rows: tuple[Mapping[str, Any], ...]
    """All rows, scored or not."""

    @property
    def scored(self) -> list[Mapping[str, Any]]:
        """Those with an importance for every thought."""
        return [row for row in self.rows if row["outcome"] == "scored"]

    def find(self, key: str | None) -> Mapping[str, Any]:
        """A scored row; the first one without ``key``.

        Raises:
            ValueError: there is none.
        """
        found = next((row for row in self.scored if key is None or row["key"] == key), None)
        if found is None:
            outcomes = ", ".join(sorted({f"{row['key']} ({row['outcome']})" for row in self.rows})[:10])
            raise ValueError(f"{self.path} has no scored trace{'' if key is None else f' {key!r}'}; it has {outcomes}")
        return found


def read_scored(path: Path) -> ScoredFile:
    """Read what ``longshort importance`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """
    try:
        # Not splitlines(), which would also break a row at a raw U+2028 that a model wrote.
        rows = tuple(json.loads(line) for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
        known = all({"key", "outcome"} <= row.keys() for row in rows)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} was not written by `longshort importance`: {error!r}") from error
    if not known:
        raise ValueError(f"{path} was not written by `longshort importance`: a row has no key or no outcome")
    return ScoredFile(path=path, rows=rows)


def results_table(summary: Mapping[str, Any]) -> Table:
    """Outcomes and costs of a run."""
    table = Table(title="importance", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for outcome, number in sorted(summary["outcomes"].items()):
        table.add_row(f"traces, {outcome}", str(number))
    scored = max(1, summary["outcomes"].get("scored", 0))
    rate, width = summary["hit_rate"], summary["median_interval_width"]
    rows = (
        ("thoughts", str(summary["num_thoughts"])),
        ("rollouts", f"{summary['num_rollouts']}"),
        ("rollouts per scored trace", f"{summary['num_rollouts'] / scored:.1f}"),
        ("generated tokens", f"{summary['num_tokens']}"),
        ("prefill hit rate", "not told by the engine" if rate is None else f"{rate:.1%}"),
        ("interval width, median", "–" if width is None else f"{width:.2f}"),
    )
    for row in rows:
        table.add_row(*row)
    return table


def thoughts_table(row: Mapping[str, Any]) -> Table:
    """One trace, thought by thought."""
    table = Table(title=f"trace {row['key']}")
    for name in ("thought", "kind", "tokens", "value after", "importance"):
        table.add_column(name, justify="left" if name in ("thought", "kind") else "right", overflow="fold")
    for number, thought in enumerate(row["thoughts"], start=1):
        value, score = row["values"][number], thought["importance"]
        counted = f"{value['num_right']}/{value['num_rollouts']}" if value["num_rollouts"] else "read off"
        table.add_row(
            _plain(_short(thought["text"], 40)),
            _plain(_short(thought["kind"], _MAX_KIND_CHARS)),
            str(thought["num_tokens"]),
            f"{value['mean']:.2f} ({counted})",
            f"{score['score']:+.3f}",
        )
    return table


def _short(text: str, most: int) -> str:
    # A terminal obeys control characters.
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _plain(text: str):
    from rich.text import Text

    # What a model wrote is no markup.
    return Text(text)


def plot_importance(scored: ScoredFile, shown: Mapping[str, Any], out: Path) -> None:
    """Importance by position, by kind, and of one trace with its values."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    by_place, by_kind, one = figure.subplots(1, 3)
    places = [
        ((i + 0.5) / len(row["thoughts"]), thought["importance"]["score"])
        for row in scored.scored
        for i, thought in enumerate(row["thoughts"])
    ]
    bins: dict[int, list[float]] = defaultdict(list)
    for place, score in places:
        bins[min(_NUM_BINS - 1, int(place * _NUM_BINS))].append(score)
    by_place.scatter([p for p, _ in places], [s for _, s in places], s=8, alpha=0.35, color="tab:blue")
    by_place.plot(
        [(i + 0.5) / _NUM_BINS for i in sorted(bins)], [mean(bins[i]) for i in sorted(bins)], color="tab:orange", lw=2
    )
    by_place.set(title=f"by position, {len(scored.scored)} traces", xlabel="place in the trace", ylabel="importance")

    kinds: dict[str, list[float]] = defaultdict(list)
    for row in scored.scored:
        for thought in row["thoughts"]:
            kinds[_short(thought["kind"], _MAX_KIND_CHARS) or "(none)"].append(thought["importance"]["score"])
    names = sorted(kinds, key=lambda name: -len(kinds[name]))[:_MAX_KINDS][::-1]
    by_kind.boxplot([kinds[name] for name in names], orientation="horizontal", widths=0.6)
    by_kind.set_yticks(range(1, len(names) + 1), [_escaped(f"{name} ({len(kinds[name])})") for name in names])
    by_kind.set(title="by kind of thought", xlabel="importance")

    scores = [thought["importance"] for thought in shown["thoughts"]]
    numbers = range(1, len(scores) + 1)
    low = [score["score"] - score["low"] for score in scores]
    high = [score["high"] - score["score"] for score in scores]
    one.bar(numbers, [score["score"] for score in scores], color="tab:blue", alpha=0.7, label="importance")
    one.errorbar(
        numbers, [score["score"] for score in scores], yerr=[low, high], fmt="none", ecolor="gray", lw=0.8, capsize=2
    )
    values = shown["values"]
    one.step(range(len(values)), [v["mean"] for v in values], where="mid", color="tab:orange", label="value after")
    visited = [i for i, value in enumerate(values) if value["num_rollouts"]]
    one.plot(visited, [values[i]["mean"] for i in visited], "o", color="tab:orange", ms=4, label="rolled out")
    one.set(title=_escaped(f"trace {_short(str(shown['key']), 30)}"), xlabel="thought")
    one.legend(fontsize="small")
    for axes in (by_place, by_kind, one):
        axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def _escaped(text: str) -> str:
    # A dollar sign begins mathematics, and mathematics of a model's making may not end.
    return text.replace("$", r"\$")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Importance of thoughts</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; }
.thought { white-space: pre-wrap; overflow-wrap: anywhere; padding: .35rem .6rem; margin: .15rem 0;
  border-left: .35rem solid #ccc; }
.note { display: block; font-size: .8rem; color: #555; }
table { border-collapse: collapse; } td, th { padding: .15rem .7rem; text-align: right; }
</style></head><body>
<h1>Importance of thoughts</h1>
<p>{{ num_scored }} traces scored of {{ num_rows }}. The default metric, gain_decay, is ours, not Eq. 1 of
arXiv 2505.11827.</p>
<img src="data:image/png;base64,{{ picture }}" alt="importance by position, by kind, and of one trace">
<h2>Trace {{ key }}</h2>
<p class="thought">{{ problem }}</p>
<p>Green helps, red harms; the deeper, the more. A value is the estimated chance of a right answer by then.</p>
{% for t in thoughts %}<div class="thought" style="background: {{ t.colour }}"><span class="note">{{ t.note }}</span>
{{- t.text }}</div>
{% endfor %}
<p>Gold answer: {{ answer }}</p>
</body></html>
"""


def write_page(scored: ScoredFile, shown: Mapping[str, Any], out: Path) -> None:
    """One page by itself: the picture, and a trace with each thought in the colour of its importance."""
    import base64

    from jinja2 import Environment

    # What a model wrote is hostile: everything is escaped.
    template = Environment(autoescape=True).from_string(_PAGE)
    thoughts = _annotated(shown)
    out.write_text(
        template.render(
            num_scored=len(scored.scored),
            num_rows=len(scored.rows),
            picture=base64.b64encode(out.with_suffix(".png").read_bytes()).decode(),
            key=shown["key"],
            problem=shown["problem"],
            answer=shown["answer"],
            thoughts=thoughts,
        ),
        encoding="utf-8",
    )


def _annotated(shown: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    most = max(abs(thought["importance"]["score"]) for thought in shown["thoughts"]) or 1.0
    found = []
    for number, thought in enumerate(shown["thoughts"], start=1):
        score, value = thought["importance"], shown["values"][number]
        depth = abs(score["score"]) / most * 0.55
        hue = "46, 160, 67" if score["score"] > 0 else "207, 34, 46"
        counted = f"{value['num_right']} of {value['num_rollouts']}" if value["num_rollouts"] else "read off"
        found.append(
            {
                "text": thought["text"].rstrip(),
                "colour": f"rgba({hue}, {depth:.2f})",
                "note": f"{number}. {thought['kind']} · importance {score['score']:+.3f} "
                f"({score['low']:+.2f} to {score['high']:+.2f}) · value {value['mean']:.2f} ({counted}) · "
                f"{thought['num_tokens']} tokens",
            }
        )
    return found
