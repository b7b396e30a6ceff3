# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Compares systems on the same problems: accuracy and tokens, over seeds, relative to the single model.

All differences are paired by problem. Their intervals come from resampling the problems; a difference whose interval
holds 0 is called no difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from longshort_verl.evaluation.records import (
    REFERENCE,
    Evaluated,
    Record,
    by_set,
    has_rethink,
    is_cut_off,
    is_unparseable,
)
from longshort_verl.evaluation.scores import (
    aes,
    aes_of,
    area_under_budget_curve,
    frontier_gap,
    interval,
    resampled_mean,
    verdict,
)

BUDGETS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Caps on the tokens of a problem, as shares of the reference's mean on its set."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A value over seeds."""

    mean: float
    low: float
    high: float

    def format(self, form: str, between: str = " ") -> str:
        """The mean, and in brackets the lowest to the highest value where they differ."""
        mean, low, high = (form.format(value) for value in (self.mean, self.low, self.high))
        return mean if low == high else f"{mean}{between}({low} to {high})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One system over its seeds, relative to the reference. Values over several problem sets are means of the sets."""

    system: str
    num_seeds: int
    """Number of evaluation folders."""
    num_problems: int
    """Problems of all sets together."""
    accuracy: Spread
    """Share of right answers; a truncated reply is wrong."""
    num_tokens: Spread
    """Generated tokens per problem, summed over roles; a truncated reply counts in full."""
    details: Mapping[str, Spread]
    """By name: shares of replies that were truncated or hold no readable answer, if recorded. For a pair also each
    role's tokens and share of well-formed turns, prompt tokens read again, and share of dialogues with a rethink."""
    accuracy_interval: tuple[float, float]
    """95 % interval of the accuracy, by bootstrap over problems."""
    tokens_interval: tuple[float, float]
    """95 % interval of the tokens."""
    difference: float
    """Accuracy minus that of the reference, on the same problems and seeds."""
    interval: tuple[float, float]
    """95 % interval of the difference, by paired bootstrap over problems, each the mean of its seeds and samples."""
    saved: float
    """Share of the reference's tokens that are saved; negative if the system needs more."""
    aes: float | None
    """Accuracy-efficiency score (:func:`.scores.aes`); None if the reference is never right."""
    aes_interval: tuple[float, float] | None
    """95 % interval of the score, by bootstrap over problems."""
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

    @property
    def is_pair(self) -> bool:
        """Whether the system has two roles."""
        return "num_tokens_long" in self.details

    def format_aes(self, between: str = " ") -> str:
        """The score and its interval; empty if there is none."""
        if self.aes is None or self.aes_interval is None:
            return ""
        low, high = self.aes_interval
        return f"{self.aes:.2f}{between}({low:.2f} to {high:.2f})"

    def aes_verdict(self, other: Comparison) -> str:
        """``higher``, ``lower`` or ``no difference`` in score from another system, by the interval of the difference.

        Raises:
            ValueError: one of the two has no score.
        """
        if self.aes_resampled is None or other.aes_resampled is None:
            raise ValueError(f"{self.system} and {other.system} do not both have an AES")
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
    right, base = ([_by_problem(which, name, _right) for name in names] for which in (runs, others))
    tokens, base_tokens = ([_by_problem(which, name, _tokens) for name in names] for which in (runs, others))
    resampled = {
        name: resampled_mean(values)
        for name, values in {"right": right, "base": base, "tokens": tokens, "base_tokens": base_tokens}.items()
    }
    accuracy, base_accuracy, num_tokens, num_base_tokens = map(_of_sets, (right, base, tokens, base_tokens))
    saved = 1 - num_tokens / num_base_tokens
    differences = [found - reference for found, reference in zip(right, base, strict=True)]
    scores = None
    if base_accuracy:
        scores = aes_of(resampled["right"], resampled["base"], 1 - resampled["tokens"] / resampled["base_tokens"])
    replies, base_replies = ([_replies(which, name) for name in names] for which in (runs, others))
    gaps = [frontier_gap(name, *of) for name, of in zip(names, replies, strict=True)]
    known = [gap for gap in gaps if gap is not None]
    return Comparison(
        system=runs[0].system,
        num_seeds=len(runs),
        num_problems=sum(map(len, right)),
        accuracy=_spread(run.mean(_right) for run in runs),
        num_tokens=_spread(run.mean(_tokens) for run in runs),
        details=_details(runs),
        accuracy_interval=interval(resampled["right"]),
        tokens_interval=interval(resampled["tokens"]),
        difference=_of_sets(differences),
        interval=interval(resampled_mean(differences)),
        saved=saved,
        aes=aes(accuracy, base_accuracy, saved) if base_accuracy else None,
        aes_interval=None if scores is None else interval(scores),
        budgets=tuple(
            fmean(
                float(np.mean(found * (lengths <= share * np.mean(base_lengths))))
                for (found, lengths), (_, base_lengths) in zip(replies, base_replies, strict=True)
            )
            for share in BUDGETS
        ),
        area=fmean(
            area_under_budget_curve(found, lengths, float(base_lengths.max()))
            for (found, lengths), (_, base_lengths) in zip(replies, base_replies, strict=True)
        ),
        frontier_gap=fmean(known) if known else None,
        aes_resampled=scores,
    )


def _right(record: Record) -> float:
    return float(record["correct"])


def _tokens(record: Record) -> float:
    return float(record["num_tokens"])


def _by_problem(runs: Sequence[Evaluated], name: str, value: Callable[[Record], float]) -> np.ndarray:
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
    records = [record for run in runs for record in by_set(run.records)[name]]
    return np.array([_right(record) for record in records]), np.array([_tokens(record) for record in records])


def _spread(values: Iterable[float]) -> Spread:
    values = list(values)
    return Spread(mean=fmean(values), low=float(min(values)), high=float(max(values)))


def _details(runs: Sequence[Evaluated]) -> dict[str, Spread]:
    # Fields that every run has: old records lack some.
    fields = set.intersection(*(set(run.records[0]) for run in runs))
    found: dict[str, Spread] = {}
    if "fault" in fields:
        found["truncated"] = _spread(run.mean(is_cut_off) for run in runs)
        found["unparseable"] = _spread(run.mean(is_unparseable) for run in runs)
    if "turns" not in fields:
        return found
    if "num_tokens_reprefilled" in fields:
        found["num_tokens_reprefilled"] = _spread(run.mean(lambda r: r["num_tokens_reprefilled"]) for run in runs)
    found["num_turns"] = _spread(run.mean(lambda record: len(record["turns"])) for run in runs)
    for role in ("long", "short"):
        found[f"num_tokens_{role}"] = _spread(run.mean(lambda r, role=role: r[f"num_tokens_{role}"]) for run in runs)
        formed = [
            [turn["well_formed"] for record in run.records for turn in record["turns"] if turn["role"] == role]
            for run in runs
        ]
        found[f"well_formed_{role}"] = _spread([fmean(one) if one else 0.0 for one in formed])
    found["rethink_share"] = _spread(run.mean(has_rethink) for run in runs)
    return found
