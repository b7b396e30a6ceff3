# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison of evaluations as one HTML file: tables, pictures, and a browser of dialogues."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longshort_verl.evaluation.compare import Comparison
from longshort_verl.evaluation.records import Evaluated, Record, is_cut_off, is_unparseable
from longshort_verl.files.atomic import write_text
from longshort_verl.report.evaluation import comparison_cells, run_cells, verdicts
from longshort_verl.report.output import escaped, new_figure, save_figure
from longshort_verl.types import StopReason

OUTCOMES = {
    "right": "right",
    "wrong": "wrong",
    "cut": "truncated",
    "unreadable": "no readable answer",
    "malformed_long": "long role broke the protocol",
    "malformed_short": "short role broke the protocol",
    "turn_cap": "asked for another thought in its last turn",
    "engine_error": "engine error",
}
"""The outcomes of a dialogue; each dialogue has one."""


def outcome(record: Record) -> str:
    """The record's key in :data:`OUTCOMES`."""
    if record["correct"]:
        return "right"
    if is_cut_off(record):
        return "cut"
    if is_unparseable(record):
        return "unreadable"
    stop = record["stop_reason"]
    return "wrong" if stop == StopReason.ANSWERED.value else stop


def dialogue_rows(evaluated: Sequence[Evaluated], most: int) -> list[dict[str, Any]]:
    """Rows of the page's browser: at most ``most`` records per system, evenly spaced."""
    rows = []
    for system in dict.fromkeys(run.system for run in evaluated):
        records = [(run.seed, record) for run in evaluated if run.system == system for record in run.records]
        number = min(most, len(records))
        for place in range(number):
            seed, record = records[place * len(records) // number]
            names = ("role", "text", "num_tokens", "well_formed")
            turns = [{name.removeprefix("num_"): turn[name] for name in names} for turn in record.get("turns", ())]
            rows.append(
                {
                    "system": system,
                    "seed": seed,
                    "set": record.get("set", ""),
                    "index": record["index"],
                    "sample": record.get("sample", 0),
                    "outcome": outcome(record),
                    "problem": record["problem"],
                    "gold": record["gold"],
                    "extracted": record.get("extracted"),
                    "why": record.get("fault") or record.get("detail") or "",
                    "tokens": record["num_tokens"],
                    "turns": turns
                    or [{"role": "solo", "text": record.get("text", ""), "tokens": record["num_tokens"]}],
                }
            )
    return rows


def turn_counts(evaluated: Sequence[Evaluated]) -> dict[str, Counter[int]]:
    """Per pair, the number of dialogues by number of turns."""
    counts: dict[str, Counter[int]] = {}
    for one in evaluated:
        if "turns" in one.records[0]:
            counts.setdefault(one.system, Counter()).update(len(record["turns"]) for record in one.records)
    return counts


def plot_turns(counts: Mapping[str, Counter[int]], out: Path) -> None:
    """Plot the share of dialogues by number of turns, one bar per pair."""
    figure = new_figure(10, 1.1 + 0.27 * len(counts))
    axes = figure.subplots()
    turns = sorted(set().union(*counts.values()))
    names = [escaped(name) for name in counts]
    left = np.zeros(len(counts))
    for place, number in enumerate(turns):
        shares = np.array([count[number] / count.total() for count in counts.values()])
        colour = str(0.85 - 0.75 * place / max(1, len(turns) - 1))  # the more turns, the darker
        axes.barh(names, shares, left=left, color=colour, label=str(number))
        left += shares
    axes.invert_yaxis()
    axes.set(xlabel="share of dialogues", xlim=(0, 1))
    figure.legend(loc="outside right upper", title="turns, both roles", fontsize=8)
    save_figure(figure, out)


_OF_DIALOGUES = ("tokens, long and short", "dialogues with a rethink", "turns", "prompt tokens read again", "truncated")
_OF_DIALOGUES += ("no readable answer",)
"""The columns of the second table of systems; one table would be wider than a window."""


def _tables(systems: Sequence[Comparison]) -> list[list[dict[str, str]]]:
    """Accuracy and tokens, and what dialogues are like: the columns that any system has a value in."""
    rows = comparison_cells(systems)
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    parts = (
        [head for head in heads if head not in _OF_DIALOGUES],
        ["system", *(head for head in heads if head in _OF_DIALOGUES)],
    )
    return [[{head: row[head] for head in part} for row in rows] for part in parts if len(part) > 1]


def write_page(
    evaluated: Sequence[Evaluated],
    systems: Sequence[Comparison],
    sets: Mapping[str, Sequence[Comparison]],
    runs: Sequence[Mapping[str, Any]],
    pictures: Sequence[tuple[str, Path]],
    out: Path,
    *,
    title: str,
    num_dialogues: int,
) -> None:
    """Write the page; it loads no other files.

    ``systems`` is the comparison, ``sets`` that on each problem set; ``pictures`` are captions and PNG files, and
    ``num_dialogues`` is the maximum per system in the browser.
    """
    from jinja2 import Environment, PackageLoader

    rows = dialogue_rows(evaluated, num_dialogues)
    # Model output is untrusted: the page escapes all text, and no tag can begin in its data.
    data = json.dumps(rows, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    template = Environment(
        loader=PackageLoader("longshort_verl.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html")
    several = len(sets) > 1
    text = template.render(
        title=title,
        verdicts=verdicts(systems),
        tables=[
            *((name, of[0].num_problems, _tables(of)) for name, of in sets.items() if several),
            ("Mean of the sets" if several else "Systems", systems[0].num_problems, _tables(systems)),
        ],
        reference=systems[0].system,
        pictures=[(caption, base64.b64encode(path.read_bytes()).decode()) for caption, path in pictures],
        runs=run_cells(runs),
        outcomes=OUTCOMES,
        systems=list(dict.fromkeys(row["system"] for row in rows)),
        sets=list(dict.fromkeys(row["set"] for row in rows)),
        num_shown=len(rows),
        num_all=sum(len(one.records) for one in evaluated),
        data=data,
    )
    write_text(out, text)
