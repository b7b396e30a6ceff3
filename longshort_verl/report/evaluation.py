# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluations and their comparison: rows of results.json, a Markdown page, and tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from longshort_verl.evaluation.compare import BUDGETS, Comparison, by_problem, is_right
from longshort_verl.evaluation.records import Evaluated, by_set, has_rethink, parts_of_sets, read_source
from longshort_verl.evaluation.scores import AES_NAME, interval, resampled_mean
from longshort_verl.report.output import markdown_table

HEADLINE_SAVED, HEADLINE_LOSS = 0.8, 0.01
"""The paper's claim as the page checks it: share of tokens saved, and accuracy lost at most."""


def run_rows(evaluated: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """One object per run, in the order given.

    ``accuracy_low`` and ``accuracy_high`` are a 95 % bootstrap interval over the run's problems; tokens are means per
    problem. Over several problem sets all are means of the sets, and ``sets`` holds each. What a system lacks, such as
    roles, is None. A part of a set is in ``sets`` even if it is alone.
    """
    rows = []
    for run in evaluated:
        source, sets = read_source(run.folder), by_set(run.records)
        of_sets = {name: _values(replace(run, records=records)) for name, records in sets.items()}
        row = {"system": run.system, "seed": source["seed"], **_values(run)}
        row["sets"] = of_sets if len(sets) > 1 or parts_of_sets(sets) else {}
        rows.append(row | {key: source[key] for key in ("minutes", "commit", "command", "machine")})
    return rows


def _values(run: Evaluated) -> dict[str, Any]:
    of_sets = [by_problem([run], name, is_right) for name in by_set(run.records)]
    low, high = interval(resampled_mean(of_sets))
    pair = "turns" in run.records[0]
    return {
        "problems": sum(map(len, of_sets)),
        "samples": max(record.get("sample", 0) for record in run.records) + 1,
        "accuracy": run.mean(lambda record: record["correct"]),
        "accuracy_low": low,
        "accuracy_high": high,
        "tokens_mean": run.mean(lambda record: record["num_tokens"]),
        "tokens_long": run.mean(lambda record: record["num_tokens_long"]) if pair else None,
        "tokens_short": run.mean(lambda record: record["num_tokens_short"]) if pair else None,
        "rethink_share": run.mean(has_rethink) if pair else None,
    }


def comparison_cells(systems: Sequence[Comparison]) -> list[dict[str, str]]:
    """Every column of a comparison, one mapping of heading to text per system; the reference comes first."""
    reference = systems[0]

    def cells(system: Comparison) -> dict[str, str]:
        def detail(name: str, form: str) -> str:
            return details[name].format(form) if name in details else ""

        compared, gap, details = system is not reference, system.frontier_gap, system.details
        roles = [f"{details[name].mean:.1f}" for name in ("num_tokens_long", "num_tokens_short") if name in details]
        return {
            "system": system.system,
            "seeds": str(system.num_seeds),
            "accuracy": system.accuracy.format("{:.1%}"),
            f"points against {reference.system} (95 % interval)": _difference(system) if compared else "",
            "tokens": system.num_tokens.format("{:.1f}"),
            "saved": f"{system.saved:.1%}" if compared else "",
            f"AES {AES_NAME} (95 % interval)": system.format_aes() if compared else "",
            "area under the budget curve": f"{system.area:.3f}",
            "below the public frontier": "" if gap is None else f"{100 * gap:+.1f} points",
            "tokens, long and short": " and ".join(roles),
            "dialogues with a rethink": detail("rethink_share", "{:.1%}"),
            "turns": detail("num_turns", "{:.2f}"),
            "prompt tokens read again": detail("num_tokens_reprefilled", "{:.1f}"),
            "truncated": detail("truncated", "{:.1%}"),
            "no readable answer": detail("unparseable", "{:.1%}"),
        } | {
            f"accuracy within {share_name(cap)}": f"{share:.1%}"
            for cap, share in zip(BUDGETS, system.budgets, strict=True)
        }

    return [cells(system) for system in systems]


_ONLY_HTML = ("area", "below", "turns", "prompt", "truncated", "no readable")


def markdown(
    systems: Sequence[Comparison],
    runs: Sequence[Mapping[str, Any]],
    picture: str,
    *,
    title: str,
    note: str = "",
    against: Sequence[Comparison] = (),
) -> str:
    """The comparison and all its runs (:func:`run_rows`) as a Markdown page.

    ``note`` is Markdown below the title, and ``against`` the systems compared with a second reference.
    """
    cells = comparison_cells(systems)
    heads = [head for head in cells[0] if not head.startswith(_ONLY_HTML)]
    method = (
        f"{systems[0].num_problems} held-out problems. Values are means over seeds, with the lowest and the highest "
        "seed in brackets. Systems are compared on the same problems; the 95 % intervals come from resampling the "
        "problems (bootstrap). Tokens are all generated tokens of both roles, those of truncated replies included. The "
        "last columns show the accuracy within a budget of tokens per problem, a share of "
        f"{systems[0].system}'s mean."
    )
    run_lines = [{**row, "command": row["command"] and f"`{row['command']}`"} for row in run_cells(runs)]
    parts = [
        f"# {title}",
        *([note.strip()] if note.strip() else []),
        *verdicts(systems),
        markdown_table(heads, [[row[head] for head in heads] for row in cells]),
        method,
        f"![accuracy against tokens, accuracy under a budget of tokens, and differences]({picture})",
        *(_against(against) if against else []),
        "## Runs",
        "Accuracy with a 95 % interval over the run's problems. Minutes include those of all earlier stages.",
        markdown_table(list(run_lines[0]), [list(line.values()) for line in run_lines]),
    ]
    return "\n\n".join(parts) + "\n"


def run_cells(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Every column of the runs (:func:`run_rows`), one mapping of heading to text per run."""
    return [
        {
            "system": row["system"],
            "seed": _cell(row["seed"]),
            "accuracy": f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})",
            "tokens": f"{row['tokens_mean']:.1f}",
            "minutes": _cell(row["minutes"], "{:.0f}"),
            "commit": _cell(row["commit"]),
            "command": _cell(row["command"]),
            "machine": _cell(row["machine"]),
        }
        for row in runs
    ]


def _against(systems: Sequence[Comparison]) -> list[str]:
    reference = systems[0].system
    head = ["system", "seeds", f"points against {reference} (95 % interval)", f"share of {reference}'s tokens"]
    lines = [[one.system, str(one.num_seeds), _difference(one), f"{1 - one.saved:.0%}"] for one in systems[1:]]
    return [
        f"## Against {reference}",
        "On the seeds that a system has, paired by problem.",
        markdown_table(head, lines),
    ]


def verdicts(systems: Sequence[Comparison]) -> list[str]:
    """Which systems meet the paper's claim, and their order by AES, as sentences; none without an AES."""
    others = [system for system in systems[1:] if system.aes is not None]
    if not others:
        return []
    claim = [one for one in others if one.saved >= HEADLINE_SAVED and one.difference >= -HEADLINE_LOSS]
    sure = [one for one in claim if one.interval[0] >= -HEADLINE_LOSS]
    ranked = sorted(others, key=lambda one: -(one.aes or 0.0))
    apart = [one for one in ranked[1:] if one.aes_verdict(ranked[0]) == "no difference"]
    base, best = systems[0].system, ranked[0].system
    return [
        f"The claim to check: at least {HEADLINE_SAVED:.0%} fewer tokens than {base}, and at most "
        f"{100 * HEADLINE_LOSS:g} point of accuracy lost. Systems that meet it on average: {_names(claim)}. Systems "
        "that meet it with the whole 95 % interval of the difference in accuracy: "
        f"{'the same' if claim and sure == claim else _names(sure)}.",
        f"AES, the accuracy-efficiency score, is 0 for {base} and rises with the tokens saved and the accuracy gained "
        f"(weights {AES_NAME} of tokens saved, accuracy gained and accuracy lost). By AES, highest first: "
        f"{', '.join(f'{one.system} {one.aes:.2f}' for one in ranked)}. Systems whose difference from {best} is within "
        f"its 95 % interval, so that the data do not tell them apart: {_names(apart)}.",
    ]


def _names(systems: Sequence[Comparison]) -> str:
    return ", ".join(system.system for system in systems) or "none"


def _cell(value: Any, form: str = "{}") -> str:
    return "" if value is None else form.format(value)


def share_name(cap: float) -> str:
    """One of the budgets as a fraction."""
    return f"1/{round(1 / cap)}" if cap < 1 else "1"


def _difference(system: Comparison) -> str:
    low, high = system.interval
    return f"{100 * system.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}): {system.verdict}"


def comparison_table(systems: Sequence[Comparison], name: str = "") -> Table:
    """One row per system, for the terminal; ``name`` is the problem set."""
    num_seeds = max(system.num_seeds for system in systems)
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds: mean (lowest to highest)"
    problems = f"{systems[0].num_problems} problems, up to {seeds}"
    table = Table(title=f"{name}: {problems}" if name else problems)
    rows = comparison_cells(systems)
    heads = list(rows[0])[2:7]
    table.add_column("system (seeds)")
    for head in heads:
        table.add_column(head.replace(" (95", "\n(95"), justify="right")
    for row in rows:
        values = [row[head].replace(" (", "\n(") for head in heads]
        table.add_row(f"{row['system']} ({row['seeds']})", *values, end_section=True)
    return table


_ROWS = (
    ("problems", "num_problems", "{:.0f}"),
    ("replies", "num_replies", "{:.0f}"),
    ("accuracy", "accuracy", "{:.1%}"),
    ("tokens", "num_tokens", "{:.1f}"),
    ("tokens of right replies", "num_tokens_right", "{:.1f}"),
    ("tokens of wrong replies", "num_tokens_wrong", "{:.1f}"),
    ("tokens, long role", "num_tokens_long", "{:.1f}"),
    ("tokens, short role", "num_tokens_short", "{:.1f}"),
    ("prompt tokens", "num_tokens_prompts", "{:.1f}"),
    ("prompt tokens read again", "num_tokens_reprefilled", "{:.1f}"),
    ("turns", "num_turns", "{:.2f}"),
    ("well-formed turns, long role", "well_formed_long", "{:.1%}"),
    ("well-formed turns, short role", "well_formed_short", "{:.1%}"),
    ("rethinks per dialogue", "num_rethinks", "{:.2f}"),
    ("truncated", "truncated", "{:.1%}"),
    ("no readable answer", "unparseable", "{:.1%}"),
    ("lost to an engine", "engine_error", "{:.1%}"),
)


def evaluation_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One column per system, one row per metric that any of them has; each problem set too if there are several."""
    parts = parts_of_sets(next(iter(results.values()))["sets"])
    table = Table(title=", ".join(["evaluation", *parts]))
    table.add_column()
    for system in results:
        table.add_column(system, justify="right")

    def add(label: str, form: str, values: Sequence[float | None], end: bool = False) -> None:
        if any(value is not None for value in values):
            table.add_row(label, *(_cell(value, form) for value in values), end_section=end)

    systems = list(results.values())
    for label, name, form in _ROWS:
        add(label, form, [one.get(name) for one in systems], end=name == _ROWS[-1][1])
    for cap in systems[0]["accuracy_within"]:
        add(f"accuracy within {cap} tokens", "{:.1%}", [one["accuracy_within"].get(cap) for one in systems])
    names = list(systems[0]["sets"])
    for name in names:
        of_set = [one["sets"][name] for one in systems]
        if len(names) > 1:
            table.add_section()
            add(f"{name}: accuracy", "{:.1%}", [one["accuracy"] for one in of_set])
            add(f"{name}: tokens", "{:.1f}", [one["num_tokens"] for one in of_set])
        for letter in of_set[0].get("accuracy_by_letter", ()):
            values = [one["accuracy_by_letter"].get(letter) for one in of_set]
            add(f"{name}: accuracy where {letter} is right", "{:.1%}", values)
    return table
