# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Compares systems on the same problems: accuracy and tokens, over seeds, relative to the single model.

All differences are paired by problem. Their intervals come from resampling the problems; a difference whose interval
holds 0 is called no difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from longshort_verl.evaluation import records, scores
from longshort_verl.evaluation.records import REFERENCE, Evaluated, Record, by_set
from longshort_verl.evaluation.scores import interval, resampled_mean, verdict
from longshort_verl.types import Role

BUDGETS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Caps on the tokens of a problem, as shares of the reference's mean on its set."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A value over seeds."""

    mean: float
    low: float
    high: float

    def format(self, form: str) -> str:
        """The mean, and in brackets the lowest to the highest value where they differ."""
        mean, low, high = (form.format(value) for value in (self.mean, self.low, self.high))
        return mean if low == high else f"{mean} ({low} to {high})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One system over its seeds, relative to the reference. Values over several problem sets are means of the sets."""

    system: str
    num_seeds: int
    num_problems: int
    """Problems of all sets together."""
    accuracy: Spread
    """Share of right answers; a truncated reply is wrong."""
    num_tokens: Spread
    """Generated tokens per problem, summed over roles; a truncated reply counts in full."""
    details: Mapping[str, Spread]
    """By name, if recorded: shares of replies that were truncated or hold no readable answer, and characters. For a
    pair also each role's tokens and share of well-formed turns, prompt tokens read again, and share of dialogues with
    a rethink."""
    accuracy_interval: tuple[float, float]
    """95 % interval, as all others by bootstrap over problems."""
    tokens_interval: tuple[float, float]
    difference: float
    """Accuracy minus that of the reference, on the same problems and seeds."""
    interval: tuple[float, float]
    """Of the difference, by paired bootstrap over problems, each the mean of its seeds and samples."""
    saved: float
    """Share of the reference's tokens that are saved; negative if the system needs more."""
    aes: float | None
    """Accuracy-efficiency score (:func:`.scores.aes`); None if the reference is never right."""
    aes_interval: tuple[float, float] | None
    budgets: tuple[float, ...]
    """Accuracy under each of :data:`BUDGETS`: a reply counts if it is right and within the budget."""
    area: float
    """Area under the budget curve, up to the reference's longest reply on the set."""
    frontier_gap: float | None
    """Gap to the public frontier (:func:`.scores.frontier_gap`), over the sets that have one."""
    aes_resampled: np.ndarray | None = field(repr=False, compare=False)
    """The score of each resample. A resample holds the same problems for every system of a comparison."""

    @property
    def verdict(self) -> str:
        """``higher``, ``lower`` or ``no difference`` in accuracy from the reference, by the interval."""
        return verdict(self.interval)

    def format_aes(self) -> str:
        """The score and its interval; empty if there is none."""
        if self.aes is None or self.aes_interval is None:
            return ""
        low, high = self.aes_interval
        return f"{self.aes:.2f} ({low:.2f} to {high:.2f})"

    def aes_verdict(self, other: Comparison) -> str:
        """:attr:`verdict` in score from another system, by the interval of the difference. Both must have a score."""
        assert self.aes_resampled is not None
        assert other.aes_resampled is not None
        return verdict(interval(self.aes_resampled - other.aes_resampled))


def compare_sets(evaluated: Sequence[Evaluated], reference: str = REFERENCE) -> dict[str, list[Comparison]]:
    """:func:`compare` on each problem set by itself, by the set's name."""
    return {
        name: compare([replace(run, records=by_set(run.records)[name]) for run in evaluated], reference)
        for name in by_set(evaluated[0].records)
    }


def compare(evaluated: Sequence[Evaluated], reference: str = REFERENCE) -> list[Comparison]:
    """Compare each system over its seeds with the reference; the reference comes first.

    The reference of a seed lies in the same folder, or in another folder of that seed.

    Raises:
        ValueError: a folder has no reference.
    """
    references = {run.folder: run for run in evaluated if run.system == reference}
    by_seed = {run.seed: run for run in references.values() if run.seed is not None}
    for run in evaluated:
        if run.folder in references:
            continue
        if run.seed not in by_seed:
            raise ValueError(
                f"{run.folder} holds no {reference}.jsonl, and no other folder of its seed does; evaluate {reference} "
                "beside the others there"
            )
        references[run.folder] = by_seed[run.seed]
    names = dict.fromkeys([reference, *(run.system for run in evaluated)])
    return [_compare([run for run in evaluated if run.system == name], references) for name in names]


def _compare(runs: Sequence[Evaluated], references: Mapping[Path, Evaluated]) -> Comparison:
    others = [references[run.folder] for run in runs]
    if runs[0].system == others[0].system:
        # Every folder of a seed may hold the same replies of the reference.
        unique = {json.dumps([(r["correct"], r["num_tokens"]) for r in run.records]): run for run in runs}
        runs = others = list(unique.values())
    names = list(by_set(runs[0].records))
    values = [
        [by_problem(which, name, value) for name in names] for value in (is_right, _tokens) for which in (runs, others)
    ]
    accuracy, base_accuracy, num_tokens, num_base_tokens = map(_of_sets, values)
    resampled, base_resampled, tokens_resampled, base_tokens_resampled = map(resampled_mean, values)
    right, base = values[:2]
    saved = 1 - num_tokens / num_base_tokens
    differences = [of_system - of_reference for of_system, of_reference in zip(right, base, strict=True)]
    aes = aes_resampled = None
    if base_accuracy:
        aes = float(scores.aes(accuracy, base_accuracy, saved))
        aes_resampled = scores.aes(resampled, base_resampled, 1 - tokens_resampled / base_tokens_resampled)
    replies = [_replies(runs, name) for name in names]
    base_lengths = [_replies(others, name)[1] for name in names]
    gaps = [scores.frontier_gap(name, *of) for name, of in zip(names, replies, strict=True)]
    known = [gap for gap in gaps if gap is not None]
    return Comparison(
        system=runs[0].system,
        num_seeds=len(runs),
        num_problems=sum(map(len, right)),
        accuracy=_spread(runs, is_right),
        num_tokens=_spread(runs, _tokens),
        details=_details(runs),
        accuracy_interval=interval(resampled),
        tokens_interval=interval(tokens_resampled),
        difference=_of_sets(differences),
        interval=interval(resampled_mean(differences)),
        saved=saved,
        aes=aes,
        aes_interval=None if aes_resampled is None else interval(aes_resampled),
        budgets=tuple(
            fmean(
                float(np.mean(correct * (lengths <= share * np.mean(of_base))))
                for (correct, lengths), of_base in zip(replies, base_lengths, strict=True)
            )
            for share in BUDGETS
        ),
        area=fmean(
            scores.area_under_budget_curve(*of, float(of_base.max()))
            for of, of_base in zip(replies, base_lengths, strict=True)
        ),
        frontier_gap=fmean(known) if known else None,
        aes_resampled=aes_resampled,
    )


def is_right(record: Record) -> float:
    """1 for a right reply, else 0."""
    return float(record["correct"])


def _tokens(record: Record) -> float:
    return float(record["num_tokens"])


def by_problem(runs: Sequence[Evaluated], name: str, value: Callable[[Record], float]) -> np.ndarray:
    """One value per problem of a set: the mean over seeds of the mean over samples."""
    rows: dict[int, list[float]] = {}
    for run in runs:
        samples: dict[int, list[float]] = {}
        for record in by_set(run.records)[name]:
            samples.setdefault(record["index"], []).append(value(record))
        for index, values in samples.items():
            rows.setdefault(index, []).append(fmean(values))
    return np.array([fmean(rows[index]) for index in sorted(rows)])


def _of_sets(values: Sequence[np.ndarray]) -> float:
    return fmean(float(one.mean()) for one in values)


def _replies(runs: Sequence[Evaluated], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Correctness and tokens of all replies on a set."""
    replies = [record for run in runs for record in by_set(run.records)[name]]
    return np.array(list(map(is_right, replies))), np.array(list(map(_tokens, replies)))


def _spread(runs: Sequence[Evaluated], value: Callable[[Record], float]) -> Spread:
    return _over_seeds([run.mean(value) for run in runs])


def _over_seeds(values: Sequence[float]) -> Spread:
    return Spread(mean=fmean(values), low=float(min(values)), high=float(max(values)))


def _details(runs: Sequence[Evaluated]) -> dict[str, Spread]:
    # Fields that every run has: old records lack some.
    fields = set.intersection(*(set(run.records[0]) for run in runs))
    values: dict[str, Callable[[Record], float]] = {}
    if "fault" in fields:
        values |= {"truncated": records.is_cut_off, "unparseable": records.is_unparseable}
    if "text" in fields or "turns" in fields:
        values["num_characters"] = records.num_characters
    if "turns" not in fields:
        return {name: _spread(runs, value) for name, value in values.items()}
    names = [f"num_tokens_{name}" for name in ("reprefilled", "long", "short")]
    values |= {name: lambda record, name=name: record[name] for name in names if name in fields}
    values |= {"num_turns": lambda record: len(record["turns"]), "rethink_share": records.has_rethink}
    details = {name: _spread(runs, value) for name, value in values.items()}
    for role in Role:
        shares = [records.well_formed_share(run.records, role) for run in runs]
        details[f"well_formed_{role.value}"] = _over_seeds([share or 0.0 for share in shares])
    return details
