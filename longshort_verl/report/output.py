# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writes pictures, the pages of templates, and tables in Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure as a PNG."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


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
