# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One row a run, with where it comes from: results.json for machines, a Markdown page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from longshort_verl.evaluation.compare import BUDGETS, Comparison
from longshort_verl.evaluation.records import Evaluated, Record, by_set, has_rethink
from longshort_verl.evaluation.scores import AES_NAME, interval, resampled_mean
from longshort_verl.files.manifest import read_provenance

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
        source = read_provenance(one.folder)
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
