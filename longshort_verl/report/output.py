# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writes pictures, the pages of templates, and tables in Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (8, 13, 18, 24)
"""Where a name may stand: sides of its point, and distances in typographic points."""
_HORIZONTAL = {-1: "right", 0: "center", 1: "left"}
_VERTICAL = {-1: "top", 0: "center", 1: "bottom"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure as a PNG."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def label_points(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Write a name beside each point, at the nearest place where it covers no line and no other name.

    ``points`` are name, place and colour. The axes must have their lines and limits, the figure all its axes.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # settles the layout
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    frame, taken = axes.get_window_extent(), []

    def faults(label: Annotation) -> int:
        box = label.get_window_extent().padded(2)
        covered = sum(
            path.intersects_bbox(box, filled=False) or box.count_contains(path.vertices) > 0 for path in paths
        )
        inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
        return covered + 10 * sum(map(box.overlaps, taken)) + 10 * (not inside)

    for point in points:
        labels = [_label(axes, *point, far * right, far * up) for far in _DISTANCES for right, up in _SIDES]
        best = min(labels, key=faults)
        taken.append(best.get_window_extent())
        for label in labels:
            if label is not best:
                label.remove()


def _label(axes: Axes, name: str, x: float, y: float, colour: str, right: int, up: int) -> Annotation:
    label = axes.annotate(
        escaped(name),
        (x, y),
        (right, up),
        textcoords="offset points",
        ha=_HORIZONTAL[np.sign(right)],
        va=_VERTICAL[np.sign(up)],
        color=colour,
        fontsize=9,
    )
    label.set_in_layout(False)  # names lie inside the axes
    return label


def escaped(text: str) -> str:
    """The text for a picture, where a dollar sign would begin mathematics, malformed in a model's text."""
    return text.replace("$", r"\$")


def write_template(name: str, picture: Path, **values: Any) -> None:
    """Write the page of a template in this folder, with a picture in it, beside the picture."""
    from jinja2 import Environment

    # A model's text is untrusted: everything is escaped.
    template = Environment(autoescape=True).from_string(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    page = template.render(picture=base64.b64encode(picture.read_bytes()).decode(), **values)
    picture.with_suffix(".html").write_text(page, encoding="utf-8")


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
