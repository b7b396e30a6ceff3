# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from longshort_verl.evaluation.records import Record, accuracy_by_letter, accuracy_within, by_set, summarize

_ROWS = (
    ("problems", "num_problems", "{:.0f}"),
    ("replies", "num_replies", "{:.0f}"),
    ("accuracy", "accuracy", "{:.1%}"),
    ("tokens", "num_tokens", "{:.1f}"),
    ("tokens where right", "num_tokens_right", "{:.1f}"),
    ("tokens where wrong", "num_tokens_wrong", "{:.1f}"),
    ("tokens, long role", "num_tokens_long", "{:.1f}"),
    ("tokens, short role", "num_tokens_short", "{:.1f}"),
    ("prompt tokens", "num_tokens_prompts", "{:.1f}"),
    ("prompt tokens read again", "num_tokens_reprefilled", "{:.1f}"),
    ("turns", "num_turns", "{:.2f}"),
    ("well-formed turns, long role", "well_formed_long", "{:.1%}"),
    ("well-formed turns, short role", "well_formed_short", "{:.1%}"),
    ("rethinks a dialogue", "num_rethinks", "{:.2f}"),
    ("cut off by a limit", "truncated", "{:.1%}"),
    ("no readable answer", "unparseable", "{:.1%}"),
    ("lost to an engine", "engine_error", "{:.1%}"),
)


def evaluation_results(records: Sequence[Record], budgets: Sequence[int], choices: Sequence[str]) -> dict[str, Any]:
    """Of one system: numbers of each problem set (see :func:`~longshort_verl.evaluation.records.summarize`), under
    ``sets``, and besides the means of the sets.

    Args:
        records: of all sets.
        budgets: hard caps on tokens, for ``accuracy_within``.
        choices: names of the sets that are multiple choice; they get ``accuracy_by_letter``.
    """
    sets: dict[str, dict[str, Any]] = {}
    for name, of_set in by_set(records).items():
        sets[name] = dict(summarize(of_set))
        sets[name]["accuracy_within"] = {str(cap): value for cap, value in accuracy_within(of_set, budgets).items()}
        if name in choices:
            sets[name]["accuracy_by_letter"] = accuracy_by_letter(of_set)
    found: dict[str, Any] = {}
    for name in dict.fromkeys(key for of_set in sets.values() for key in of_set):
        values = [of_set[name] for of_set in sets.values() if name in of_set]
        if isinstance(values[0], float):
            found[name] = sum(values) if name in ("num_problems", "num_replies") else sum(values) / len(values)
    found["accuracy_within"] = {
        str(cap): sum(of_set["accuracy_within"][str(cap)] for of_set in sets.values()) / len(sets) for cap in budgets
    }
    return {**found, "sets": sets}


def evaluation_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """A column a system, a row a number that any of them has; sets by themselves where there are several."""
    table = Table(title="evaluation")
    table.add_column()
    for system in results:
        table.add_column(system, justify="right")

    def add(label: str, form: str, values: Sequence[float | None], end: bool = False) -> None:
        if any(value is not None for value in values):
            table.add_row(label, *("" if value is None else form.format(value) for value in values), end_section=end)

    found = list(results.values())
    for number, (label, name, form) in enumerate(_ROWS):
        add(label, form, [one.get(name) for one in found], end=number == len(_ROWS) - 1)
    for cap in found[0]["accuracy_within"]:
        add(f"accuracy within {cap} tokens", "{:.1%}", [one["accuracy_within"].get(cap) for one in found])
    names = list(found[0]["sets"])
    for name in names:
        of_set = [one["sets"][name] for one in found]
        if len(names) > 1:
            table.add_section()
            add(f"{name}: accuracy", "{:.1%}", [one["accuracy"] for one in of_set])
            add(f"{name}: tokens", "{:.1f}", [one["num_tokens"] for one in of_set])
        for letter in of_set[0].get("accuracy_by_letter", ()):
            values = [one["accuracy_by_letter"].get(letter) for one in of_set]
            add(f"{name}: accuracy where {letter} is right", "{:.1%}", values)
    return table
