# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluations and their comparison: rows of results.json, a Markdown page, tables for the terminal, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from longshort_verl.evaluation.compare import BUDGETS, Comparison, by_problem, is_right
from longshort_verl.evaluation.records import Evaluated, by_set, has_rethink, parts_of_sets, read_source
from longshort_verl.evaluation.scores import AES_NAME, interval, resampled_mean
from longshort_verl.report.output import markdown_table, new_figure, save_figure

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
            "rethinks": detail("rethink_share", "{:.1%}"),
            "turns": detail("num_turns", "{:.2f}"),
            "prompt tokens read again": detail("num_tokens_reprefilled", "{:.1f}"),
            "truncated": detail("truncated", "{:.1%}"),
            "no readable answer": detail("unparseable", "{:.1%}"),
        } | {
            f"accuracy within {_share(cap)}": f"{share:.1%}" for cap, share in zip(BUDGETS, system.budgets, strict=True)
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
    run_cells = [
        [
            _cell(row["system"]),
            _cell(row["seed"]),
            f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})",
            f"{row['tokens_mean']:.1f}",
            _cell(row["minutes"], "{:.0f}"),
            _cell(row["commit"]),
            _cell(row["command"], "`{}`"),
            _cell(row["machine"]),
        ]
        for row in runs
    ]
    method = (
        f"{systems[0].num_problems} held-out problems. Mean (lowest to highest seed). Differences are paired by "
        "problem. Their intervals are a bootstrap over the problems. Tokens are all generated tokens, summed over "
        f"roles, truncated replies included. Budgets are shares of {systems[0].system}'s mean tokens."
    )
    parts = [
        f"# {title}",
        *([note.strip()] if note.strip() else []),
        *verdicts(systems),
        markdown_table(heads, [[row[head] for head in heads] for row in cells]),
        method,
        f"![accuracy against tokens, and under a budget of tokens]({picture})",
        *(_against(against) if against else []),
        "## Runs",
        "Accuracy with a 95 % interval over the run's problems. Minutes include those of all earlier stages.",
        markdown_table(["system", "seed", "accuracy", "tokens", "minutes", "commit", "command", "machine"], run_cells),
    ]
    return "\n\n".join(parts) + "\n"


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
    return [
        f"At least {HEADLINE_SAVED:.0%} fewer tokens than {systems[0].system}, and at most {100 * HEADLINE_LOSS:g} "
        f"point of accuracy lost: {_names(claim)}. With the whole 95 % interval of the difference: {_names(sure)}.",
        f"By AES ({AES_NAME}), highest first: {', '.join(f'{one.system} {one.aes:.2f}' for one in ranked)}. "
        f"No difference from {ranked[0].system} by the 95 % interval of the difference: "
        f"{_names([one for one in ranked[1:] if one.aes_verdict(ranked[0]) == 'no difference'])}.",
    ]


def _names(systems: Sequence[Comparison]) -> str:
    return ", ".join(system.system for system in systems) or "none"


def _cell(value: Any, form: str = "{}") -> str:
    return "" if value is None else form.format(value)


def _share(cap: float) -> str:
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


def colours(systems: Sequence[Comparison]) -> dict[str, str]:
    """The colour of each system in all pictures."""
    return {one.system: f"C{number % 10}" for number, one in enumerate(systems)}


def plot_comparison(systems: Sequence[Comparison], out: Path, *, title: str) -> None:
    """Two panels: accuracy against tokens with 95 % intervals, and accuracy under a budget of tokens."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = new_figure(12, 5)
    scatter, curve = figure.subplots(1, 2)
    figure.suptitle(title)
    for number, one in enumerate(systems):
        colour, mark = colours(systems)[one.system], "osD^v<>p*hX"[number % 11]
        x, y = one.num_tokens.mean, one.accuracy.mean
        (left, right), (low, high) = one.tokens_interval, one.accuracy_interval
        xerr = [[max(0.0, x - left)], [max(0.0, right - x)]]
        yerr = [[max(0.0, y - low)], [max(0.0, high - y)]]
        scatter.errorbar(x, y, yerr, xerr, fmt=mark, color=colour, capsize=3, label=one.system)
        curve.plot(range(len(BUDGETS)), one.budgets, mark + "-", color=colour, label=one.system, alpha=0.9)
    scatter.set_xscale("log")
    scatter.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    scatter.xaxis.set_major_formatter("{x:g}")
    scatter.xaxis.set_minor_formatter(NullFormatter())
    scatter.set(xlabel="generated tokens per problem, all roles", ylabel="accuracy")
    scatter.set_title("accuracy and tokens; bars: 95 % interval over problems", fontsize=10)
    curve.set_xticks(range(len(BUDGETS)), [_share(cap) for cap in BUDGETS])
    curve.set_xlabel(f"maximum tokens per problem, as a share of {systems[0].system}'s mean")
    curve.set_title("accuracy under a budget", fontsize=10)
    for axis in (scatter, curve):
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3, which="both")
    figure.legend(*scatter.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save_figure(figure, out)


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
