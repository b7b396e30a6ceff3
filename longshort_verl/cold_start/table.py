# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Cold-start data as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def cold_start_table(summary: Mapping[str, Any]) -> Table:
    """What became of the traces, and what was kept."""
    table = Table(title="cold start", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for outcome, number in summary["outcomes"].items():
        table.add_row(f"traces, {outcome}", str(number))
    tokens, rows = summary["num_tokens"], summary["num_rows"]
    for name, number in {**rows, **{f"problems_{k}": v for k, v in summary["num_problems"].items()}}.items():
        table.add_row(f"rows of {name}", str(number))
    kept = tokens["long"] + tokens["short"]
    table.add_row("tokens of the kept traces", str(tokens["traces"]))
    table.add_row("tokens of their dialogues", f"{kept} ({kept / max(1, tokens['traces']):.1%})")
    table.add_row("of these, long role", str(tokens["long"]))
    return table
