# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison of evaluations as one HTML page by itself: numbers, pictures, and the dialogues to browse."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longshort_verl.evaluation.compare import BUDGETS, Comparison
from longshort_verl.evaluation.records import Evaluated, Record, is_cut_off, is_unparseable
from longshort_verl.evaluation.scores import AES_NAME
from longshort_verl.report.evaluation import verdicts
from longshort_verl.types import StopReason

OUTCOMES = {
    "right": "right",
    "wrong": "wrong",
    "cut": "cut off by a limit",
    "unreadable": "no readable answer",
    "malformed_long": "long role broke the protocol",
    "malformed_short": "short role broke the protocol",
    "turn_cap": "asked for another thought to the end",
    "engine_error": "lost to an engine",
}
"""By which dialogues are told apart: exactly one each."""


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
    """What the page's browser shows: of each system at most ``most`` records, evenly out of all."""
    by_system: dict[str, list[tuple[int | None, Record]]] = {}
    for one in evaluated:
        by_system.setdefault(one.system, []).extend((one.seed, record) for record in one.records)
    rows = []
    for system, records in by_system.items():
        number = min(most, len(records))
        for place in range(number):
            seed, record = records[place * len(records) // number]
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
                    "turns": [
                        {
                            "role": turn["role"],
                            "text": turn["text"],
                            "tokens": turn["num_tokens"],
                            "well_formed": turn["well_formed"],
                        }
                        for turn in record.get("turns", ())
                    ]
                    or [{"role": "solo", "text": record.get("text", ""), "tokens": record["num_tokens"]}],
                }
            )
    return rows


def turn_counts(evaluated: Sequence[Evaluated]) -> dict[str, Counter[int]]:
    """Of each pair, how many of its dialogues have so many turns."""
    found: dict[str, Counter[int]] = {}
    for one in evaluated:
        if "turns" in one.records[0]:
            found.setdefault(one.system, Counter()).update(len(record["turns"]) for record in one.records)
    return found


def plot_turns(counts: Mapping[str, Counter[int]], colours: Mapping[str, str], out: Path) -> None:
    """Share of dialogues by number of turns, a colour a pair."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    most = max(max(count) for count in counts.values())
    width = 0.8 / len(counts)
    for number, (system, count) in enumerate(counts.items()):
        total = sum(count.values())
        places = [turns + (number - (len(counts) - 1) / 2) * width for turns in range(most + 1)]
        axis.bar(
            places, [count[turns] / total for turns in range(most + 1)], width, label=system, color=colours[system]
        )
    axis.set(xlabel="turns of a dialogue, both roles", ylabel="share of dialogues")
    axis.set_xticks(range(most + 1))
    axis.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(out, dpi=110)


def _table(found: Sequence[Comparison]) -> dict[str, Any]:
    reference = found[0]
    caps = [f"1/{round(1 / share)}" if share < 1 else "1" for share in BUDGETS]
    frontier = any(one.frontier_gap is not None for one in found)
    head = [
        "system",
        "seeds",
        "accuracy",
        f"points against {reference.system} (95 % interval)",
        "tokens",
        "saved",
        f"AES {AES_NAME} (95 % interval)",
        "area under the budget curve",
        *(["below the public frontier"] if frontier else []),
        "tokens: long, short",
        "turns",
        "prompt tokens read again",
        "cut off",
        "no readable answer",
        *(f"accuracy within {cap}" for cap in caps),
    ]
    lines = []
    for one in found:
        own = one is not reference
        low, high = one.interval

        def detail(name: str, form: str, one: Comparison = one) -> str:
            return one.details[name].told(form) if name in one.details else ""

        gap = [] if not frontier else ["" if one.frontier_gap is None else f"{100 * one.frontier_gap:+.1f} points"]
        lines.append(
            [
                one.system,
                str(one.num_seeds),
                one.accuracy.told("{:.1%}"),
                f"{100 * one.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}): {one.verdict}" if own else "",
                one.num_tokens.told("{:.1f}"),
                f"{one.saved:.1%}" if own else "",
                one.told_aes() if own else "",
                f"{one.area:.3f}",
                *gap,
                ", ".join(filter(None, (detail("num_tokens_long", "{:.1f}"), detail("num_tokens_short", "{:.1f}")))),
                detail("num_turns", "{:.2f}"),
                detail("num_tokens_reprefilled", "{:.1f}"),
                detail("truncated", "{:.1%}"),
                detail("unparseable", "{:.1%}"),
                *(f"{value:.1%}" for value in one.budgets),
            ]
        )
    used = [place for place in range(len(head)) if any(line[place] for line in lines)]
    return {
        "head": [head[place] for place in used],
        "lines": [[line[place] for place in used] for line in lines],
        "problems": reference.num_problems,
    }


def write_page(
    evaluated: Sequence[Evaluated],
    found: Sequence[Comparison],
    sets: Mapping[str, Sequence[Comparison]],
    runs: Sequence[Mapping[str, Any]],
    pictures: Sequence[tuple[str, Path]],
    out: Path,
    *,
    title: str,
    num_dialogues: int,
) -> None:
    """Write the page; it loads nothing from anywhere.

    Args:
        evaluated: systems with their records.
        found: their comparison, the reference first.
        sets: the same on each problem set.
        runs: of :func:`~longshort_verl.report.evaluation.run_rows`.
        pictures: what each shows, and its PNG.
        out: HTML to write.
        title: of the page.
        num_dialogues: most dialogues of a system in the browser.
    """
    from jinja2 import Environment, PackageLoader

    rows = dialogue_rows(evaluated, num_dialogues)
    # What a model wrote is hostile: in the page's text all is escaped, and in its data no tag can begin.
    data = json.dumps(rows, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    template = Environment(
        loader=PackageLoader("longshort_verl.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html")
    several = len(sets) > 1
    text = template.render(
        title=title,
        verdicts=verdicts(found),
        tables=[
            *(({"name": name, **_table(of)} for name, of in sets.items()) if several else ()),
            {"name": "mean of the sets" if several else "", **_table(found)},
        ],
        reference=found[0].system,
        pictures=[(said, base64.b64encode(path.read_bytes()).decode()) for said, path in pictures],
        runs=runs,
        outcomes=OUTCOMES,
        systems=list(dict.fromkeys(row["system"] for row in rows)),
        sets=list(dict.fromkeys(row["set"] for row in rows)),
        num_shown=len(rows),
        num_all=sum(len(one.records) for one in evaluated),
        data=data,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
