# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One row a run, with where it comes from: results.json for machines, a Markdown page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table

from longshort_verl.evaluation.compare import BUDGETS, Comparison
from longshort_verl.evaluation.records import Evaluated, Record, by_set, has_rethink, read_source
from longshort_verl.evaluation.scores import AES_NAME, interval, resampled_mean

HEADLINE_SAVED, HEADLINE_LOSS = 0.8, 0.01
"""The paper's claim as a page checks it: so much fewer tokens, and no more accuracy lost."""


def run_rows(evaluated: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """One object a run, in the order given.

    ``accuracy_low`` and ``accuracy_high`` are a 95 % bootstrap interval over the run's own problems; tokens are means a
    problem; of several problem sets all are the mean of the sets, and ``sets`` has each. What a system has not, such as
    roles, is None.
    """
    rows = []
    for one in evaluated:
        source = read_source(one.folder)
        sets = by_set(one.records)
        rows.append(
            {
                "system": one.system,
                "seed": source["seed"],
                **_numbers(one),
                "sets": {name: _numbers(replace(one, records=of)) for name, of in sets.items()}
                if len(sets) > 1
                else {},
                "minutes": source["minutes"],
                "commit": source["commit"],
                "command": source["command"],
                "machine": source["machine"],
            }
        )
    return rows


def _numbers(one: Evaluated) -> dict[str, Any]:
    low, high = interval(resampled_mean(list(map(_by_problem, by_set(one.records).values()))))
    pair = "turns" in one.records[0]
    return {
        "problems": sum(len(_by_problem(of)) for of in by_set(one.records).values()),
        "samples": max(record.get("sample", 0) for record in one.records) + 1,
        "accuracy": one.mean(lambda record: record["correct"]),
        "accuracy_low": low,
        "accuracy_high": high,
        "tokens_mean": one.mean(lambda record: record["num_tokens"]),
        "tokens_long": one.mean(lambda record: record["num_tokens_long"]) if pair else None,
        "tokens_short": one.mean(lambda record: record["num_tokens_short"]) if pair else None,
        "rethink_share": one.mean(has_rethink) if pair else None,
    }


def _by_problem(records: Sequence[Record]) -> np.ndarray:
    samples: dict[int, list[bool]] = {}
    for record in records:
        samples.setdefault(record["index"], []).append(record["correct"])
    return np.array([fmean(samples[index]) for index in sorted(samples)])


def markdown(
    found: Sequence[Comparison],
    rows: Sequence[Mapping[str, Any]],
    picture: str,
    *,
    title: str,
    note: str = "",
    against: Sequence[Comparison] = (),
) -> str:
    """The comparison and all its runs as a page.

    Args:
        found: systems, the reference first.
        rows: of :func:`run_rows`.
        picture: path of the picture, as seen from the page.
        title: of the page.
        note: Markdown under the title: what a reader has to know of these runs.
        against: the systems again, with another of them as the reference; none for no such table.
    """
    reference = found[0].system
    caps = [f"1/{round(1 / share)}" if share < 1 else "1" for share in BUDGETS]
    head = [
        "system",
        "seeds",
        "accuracy",
        f"points against {reference} (95 % interval)",
        "tokens",
        "saved",
        f"AES {AES_NAME} (95 % interval)",
        "tokens, long and short",
        "rethinks",
        *(f"accuracy within {cap}" for cap in caps),
    ]
    lines = [
        [
            one.system,
            str(one.num_seeds),
            one.accuracy.told("{:.1%}"),
            "" if one is found[0] else _difference(one),
            one.num_tokens.told("{:.1f}"),
            "" if one is found[0] else f"{one.saved:.1%}",
            "" if one is found[0] else one.told_aes(),
            _roles(one),
            one.details["rethink_share"].told("{:.1%}") if one.is_pair else "",
            *(f"{value:.1%}" for value in one.budgets),
        ]
        for one in found
    ]
    runs = [
        [
            _cell(row["system"]),
            _cell(row["seed"]),
            f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})",
            f"{row['tokens_mean']:.1f}",
            "" if row["minutes"] is None else f"{row['minutes']:.0f}",
            _cell(row["commit"]),
            "" if row["command"] is None else f"`{row['command']}`",
            _cell(row["machine"]),
        ]
        for row in rows
    ]
    how = (
        f"{found[0].num_problems} held-out problems. Mean (lowest to highest seed). Differences are paired by problem; "
        "their intervals are a bootstrap over the problems. Tokens are all that was generated, both roles summed, what "
        f"was cut off included. Budgets are shares of {reference}'s mean tokens."
    )
    parts = [
        f"# {title}",
        *([note.strip()] if note.strip() else []),
        *verdicts(found),
        _table(head, lines),
        how,
        f"![accuracy against tokens, and under a budget of tokens]({picture})",
        *(_against(against) if against else []),
        "## Runs",
        "Accuracy with a 95 % interval over the run's own problems.",
        _table(["system", "seed", "accuracy", "tokens", "minutes", "commit", "command", "machine"], runs),
    ]
    return "\n\n".join(parts) + "\n"


def _against(found: Sequence[Comparison]) -> list[str]:
    """A section: each system against the reference, on the seeds that it has."""
    reference = found[0].system
    head = ["system", "seeds", f"points against {reference} (95 % interval)", f"share of {reference}'s tokens"]
    lines = [[one.system, str(one.num_seeds), _difference(one), f"{1 - one.saved:.0%}"] for one in found[1:]]
    return [f"## Against {reference}", "On the seeds that a system has, paired by problem.", _table(head, lines)]


def verdicts(found: Sequence[Comparison]) -> list[str]:
    """What the numbers say of the paper's claim, and in which order of AES, as sentences; none without an AES."""
    others = [one for one in found[1:] if one.aes is not None]
    if not others:
        return []
    claim = [one for one in others if one.saved >= HEADLINE_SAVED and one.difference >= -HEADLINE_LOSS]
    sure = [one for one in claim if one.interval[0] >= -HEADLINE_LOSS]
    ranked = sorted(others, key=lambda one: -(one.aes or 0.0))
    return [
        f"At least {HEADLINE_SAVED:.0%} fewer tokens than {found[0].system}, and at most {100 * HEADLINE_LOSS:g} point "
        f"of accuracy lost: {_names(claim)}. With the whole 95 % interval of the difference: {_names(sure)}.",
        f"By AES ({AES_NAME}), highest first: {', '.join(f'{one.system} {one.aes:.2f}' for one in ranked)}. "
        f"No difference from {ranked[0].system} by the 95 % interval of the difference: "
        f"{_names([one for one in ranked[1:] if one.aes_verdict(ranked[0]) == 'no difference'])}.",
    ]


def _names(systems: Sequence[Comparison]) -> str:
    return ", ".join(one.system for one in systems) or "none"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _difference(one: Comparison) -> str:
    low, high = one.interval
    return f"{100 * one.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}): {one.verdict}"


def _roles(one: Comparison) -> str:
    if not one.is_pair:
        return ""
    return f"{one.details['num_tokens_long'].mean:.1f} and {one.details['num_tokens_short'].mean:.1f}"


def comparison_table(found: Sequence[Comparison], name: str = "") -> Table:
    """A row a system; ``name`` is the problem set's."""
    seeds = "seed" if max(one.num_seeds for one in found) == 1 else "seeds: mean (lowest to highest)"
    problems = f"{found[0].num_problems} problems, up to {max(one.num_seeds for one in found)} {seeds}"
    table = Table(title=f"{name}: {problems}" if name else problems)
    table.add_column("system (seeds)")
    for name in ("accuracy", f"points against {found[0].system}\n(95 % interval)", "tokens", "saved"):
        table.add_column(name, justify="right")
    table.add_column(f"AES {AES_NAME}\n(95 % interval)", justify="right")
    for one in found:
        low, high = one.interval
        reference = one is found[0]
        table.add_row(
            f"{one.system} ({one.num_seeds})",
            one.accuracy.told("{:.1%}", between="\n"),
            "" if reference else f"{100 * one.difference:+.1f}: {one.verdict}\n({100 * low:+.1f} to {100 * high:+.1f})",
            one.num_tokens.told("{:.1f}", between="\n"),
            "" if reference else f"{one.saved:.1%}",
            "" if reference else one.told_aes("\n"),
            end_section=True,
        )
    return table


def colours(found: Sequence[Comparison]) -> dict[str, str]:
    """Of each system, the same in all pictures."""
    return {one.system: f"C{number % 10}" for number, one in enumerate(found)}


def plot_comparison(found: Sequence[Comparison], out: Path, *, title: str) -> None:
    """Two panels: accuracy against tokens with 95 % intervals, and accuracy under a budget of tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    scatter, curve = figure.subplots(1, 2)
    figure.suptitle(title)
    for number, one in enumerate(found):
        colour, mark = colours(found)[one.system], "osD^v<>p*hX"[number % 11]
        x, y = one.num_tokens.mean, one.accuracy.mean
        (left, right), (low, high) = one.tokens_interval, one.accuracy_interval
        scatter.errorbar(
            x,
            y,
            xerr=[[max(0.0, x - left)], [max(0.0, right - x)]],
            yerr=[[max(0.0, y - low)], [max(0.0, high - y)]],
            fmt=mark,
            color=colour,
            capsize=3,
            label=one.system,
        )
        curve.plot(range(len(BUDGETS)), one.budgets, mark + "-", color=colour, label=one.system, alpha=0.9)
    scatter.set_xscale("log")
    scatter.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    scatter.xaxis.set_major_formatter("{x:g}")
    scatter.xaxis.set_minor_formatter(NullFormatter())
    scatter.set_xlabel("generated tokens a problem, all roles")
    scatter.set_ylabel("accuracy")
    scatter.set_title("accuracy and tokens; bars: 95 % interval over problems", fontsize=10)
    curve.set_xticks(range(len(BUDGETS)), [f"1/{round(1 / share)}" if share < 1 else "1" for share in BUDGETS])
    curve.set_xlabel(f"most tokens a problem, as a share of {found[0].system}'s mean")
    curve.set_title("accuracy under a budget", fontsize=10)
    for axis in (scatter, curve):
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3, which="both")
    figure.legend(*scatter.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


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
