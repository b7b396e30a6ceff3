# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One role's transcripts in colour, and histograms of their lengths."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rich.table import Table
from rich.text import Text

from longshort_verl.cold_start.transcripts import RoleRow
from longshort_verl.types import Role

_NUM_BINS = 40
_COLOURS = {Role.LONG: "magenta", Role.SHORT: "green"}


def transcript_text(row: RoleRow, role: Role) -> Text:
    """A transcript for the terminal: the role's own turns in its colour, the rest dim."""
    shown = Text()
    for message in row.messages:
        own = message.role == "assistant"
        name = role.value if own else message.role
        # A terminal obeys control characters.
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in message.content)
        shown.append(f"{name:>9}  ", style="bold" if own else "dim")
        shown.append(text.replace("\n", "\n" + " " * 11) + "\n", style=_COLOURS[role] if own else "dim")
    return shown


def lengths(rows: Sequence[RoleRow], count: Callable[[str], int]) -> dict[str, list[int]]:
    """Lengths of own turns, own turns of a transcript, and lengths of what is read besides."""
    own = [[count(message.content) for message in row.messages if message.role == "assistant"] for row in rows]
    return {
        "own turn": [length for turns in own for length in turns],
        "own turns of a transcript": [len(turns) for turns in own],
        "own turns together": [sum(turns) for turns in own],
        "what is read": [
            sum(count(message.content) for message in row.messages if message.role != "assistant") for row in rows
        ],
    }


def lengths_table(found: Mapping[str, Sequence[int]], unit: str) -> Table:
    """Smallest, mean and largest of each."""
    table = Table(title=f"lengths in {unit}")
    for name in ("", "number", "smallest", "mean", "largest"):
        table.add_column(name, justify="right" if name else "left")
    for name, values in found.items():
        table.add_row(name, str(len(values)), str(min(values)), f"{fmean(values):.1f}", str(max(values)))
    return table


def plot_lengths(found: Mapping[str, Sequence[int]], unit: str, out: Path) -> None:
    """Histograms, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, values) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        spread = max(values) - min(values)
        # A bar a whole number, where they are few.
        bins = [min(values) + i - 0.5 for i in range(spread + 2)] if spread < _NUM_BINS else _NUM_BINS
        axes.hist(values, bins=bins, color="tab:blue", alpha=0.8)
        axes.set(title=name, xlabel="turns" if name == "own turns of a transcript" else unit, ylabel="number")
        axes.locator_params(axis="both", integer=True)
        axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Transcripts of the {{ role }} role</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; }
.turn { white-space: pre-wrap; overflow-wrap: anywhere; padding: .3rem .6rem; margin: .15rem 0;
  border-left: .35rem solid #ccc; color: #555; }
.own { border-color: {{ colour }}; color: #222; }
.who { display: block; font-size: .8rem; }
</style></head><body>
<h1>Transcripts of the {{ role }} role</h1>
<img src="data:image/png;base64,{{ picture }}" alt="histograms of lengths">
{% for row in rows %}<h2>{{ loop.index }}</h2>
{% for turn in row %}<div class="turn{% if turn.own %} own{% endif %}"><span class="who">{{ turn.who }}</span>
{{- turn.text }}</div>
{% endfor %}{% endfor %}
</body></html>
"""


def write_page(rows: Sequence[RoleRow], role: Role, picture: Path) -> None:
    """One page by itself, beside the picture."""
    from jinja2 import Environment

    # What a model wrote is hostile: everything is escaped.
    page = Environment(autoescape=True).from_string(_PAGE)
    shown = [
        [
            {
                "own": message.role == "assistant",
                "who": role.value if message.role == "assistant" else message.role,
                "text": message.content,
            }
            for message in row.messages
        ]
        for row in rows
    ]
    data = base64.b64encode(picture.read_bytes()).decode()
    colour = {Role.LONG: "#8250df", Role.SHORT: "#1a7f37"}[role]
    text = page.render(role=role.value, rows=shown, picture=data, colour=colour)
    picture.with_suffix(".html").write_text(text, encoding="utf-8")
