# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One role's transcripts in colour, and histograms of their lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rich.table import Table
from rich.text import Text

from longshort_verl.cold_start.transcripts import RoleRow
from longshort_verl.report.output import new_figure, save_figure, write_template
from longshort_verl.types import Role

_NUM_BINS = 40
_COLOURS = {Role.LONG: "magenta", Role.SHORT: "green"}


def transcript_text(row: RoleRow, role: Role) -> Text:
    """A transcript for the terminal: the role's turns in its colour, all other text dim."""
    text = Text()
    for message in row.messages:
        own = message.role == "assistant"
        name = role.value if own else message.role
        # A terminal would execute control characters.
        plain = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in message.content)
        text.append(f"{name:>9}  ", style="bold" if own else "dim")
        text.append(plain.replace("\n", "\n" + " " * 11) + "\n", style=_COLOURS[role] if own else "dim")
    return text


def lengths(rows: Sequence[RoleRow], count: Callable[[str], int]) -> dict[str, list[int]]:
    """Per kind of length, one value per turn or transcript: what the role writes, and what it reads."""
    own = [[count(row.messages[number].content) for number in row.trained] for row in rows]
    return {
        "one turn": [length for turns in own for length in turns],
        "turns per transcript": [len(turns) for turns in own],
        "all turns of a transcript": [sum(turns) for turns in own],
        "text that it reads": [
            sum(count(message.content) for number, message in enumerate(row.messages) if number not in row.trained)
            for row in rows
        ],
    }


def lengths_table(values_by_name: Mapping[str, Sequence[int]], unit: str) -> Table:
    """Number, smallest, mean and largest of each kind of length."""
    table = Table(title=f"lengths in {unit}")
    for name in ("", "number", "smallest", "mean", "largest"):
        table.add_column(name, justify="right" if name else "left")
    for name, values in values_by_name.items():
        table.add_row(name, str(len(values)), str(min(values)), f"{fmean(values):.1f}", str(max(values)))
    return table


def plot_lengths(values_by_name: Mapping[str, Sequence[int]], unit: str, out: Path) -> None:
    """Histograms of :func:`lengths` as a PNG."""
    figure = new_figure(13, 3.2)
    for axes, (name, values) in zip(figure.subplots(1, len(values_by_name)), values_by_name.items(), strict=True):
        spread = max(values) - min(values)
        # One bar per whole number if they are few.
        bins = [min(values) + i - 0.5 for i in range(spread + 2)] if spread < _NUM_BINS else _NUM_BINS
        axes.hist(values, bins=bins, color="tab:blue", alpha=0.8)
        axes.set(title=name, xlabel="turns" if name == "turns per transcript" else unit, ylabel="number")
        axes.locator_params(axis="both", integer=True)
        axes.grid(alpha=0.3)
    save_figure(figure, out)


def write_page(rows: Sequence[RoleRow], role: Role, picture: Path) -> None:
    """Write transcripts and the picture of their lengths as one HTML file beside the picture."""
    colour = {Role.LONG: "#8250df", Role.SHORT: "#1a7f37"}[role]
    write_template("transcripts.html", picture, role=role.value, rows=[row.messages for row in rows], colour=colour)
