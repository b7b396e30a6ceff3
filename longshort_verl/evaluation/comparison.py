# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Systems side by side on the same problems: accuracy against tokens, over seeds, against the model they came from.

Reads what ``longshort evaluate`` writes, a record a problem. All differences are paired by problem, and their intervals
come from resampling the problems; what lies inside its interval is called no difference.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table

from longshort_verl.evaluation.provenance import read_provenance

REFERENCE = "solo"
"""The system that the others are compared with: the model by itself."""
AES_WEIGHTS = (1.0, 3.0, 5.0)
"""Of tokens saved, of accuracy won, of accuracy lost (O1-Pruner, arXiv 2501.12570, as recomputed by DOT's table)."""
AES_NAME = "/".join(f"{weight:g}" for weight in AES_WEIGHTS)
"""The weights as tables print them."""
BUDGETS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Caps on the tokens of a problem, as shares of the reference's mean."""
_RESAMPLES = 10_000
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One system of one evaluation folder."""

    system: str
    """Its name in the comparison."""
    folder: Path
    """Where its records lie; a folder is a seed."""
    records: Sequence[Mapping[str, Any]]
    """One a problem, in their order."""
    seed: int | None = None
    """Of the run, where its folder says so."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over seeds."""

    mean: float
    """Their mean."""
    low: float
    """The lowest."""
    high: float
    """The highest."""

    def told(self, form: str, between: str = " ") -> str:
        """The mean, and in brackets the lowest to the highest where they differ."""
        mean = form.format(self.mean)
        if self.low == self.high:
            return mean
        return f"{mean}{between}({form.format(self.low)} to {form.format(self.high)})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What one system does, over its seeds, and against the reference."""

    system: str
    """Its name."""
    num_seeds: int
    """Evaluation folders."""
    num_problems: int
    """Problems of each."""
    accuracy: Spread
    """Share of right answers; what was cut off is wrong."""
    num_tokens: Spread
    """Generated tokens a problem, all roles summed; what was cut off counts in full."""
    roles: Mapping[str, Spread]
    """Of a pair, by name: each role's tokens and share of well-formed turns, the share of dialogues with a rethink."""
    difference: float
    """Accuracy less the reference's, on the same problems and seeds; 0 for the reference."""
    interval: tuple[float, float]
    """95 % interval of the difference: paired bootstrap over problems, each the mean of its seeds."""
    saved: float
    """Share of the reference's tokens that it does not need; negative where it needs more."""
    aes: float | None
    """Accuracy-efficiency score with :data:`AES_WEIGHTS`; None where the reference is never right."""
    aes_interval: tuple[float, float] | None
    """95 % interval of the score: bootstrap over problems, answers and tokens together; None where AES is."""
    budgets: tuple[float, ...]
    """Accuracy under each of :data:`BUDGETS`: right within so many tokens."""
    aes_resampled: np.ndarray | None = field(repr=False, compare=False)
    """The score of each resample; a resample holds the same problems for all systems of a comparison."""

    @property
    def verdict(self) -> str:
        """Whether it is more or less accurate than the reference, as far as the interval tells."""
        return _verdict(self.interval)

    def told_aes(self, between: str = " ") -> str:
        """The score and its interval; empty where there is none."""
        if self.aes is None or self.aes_interval is None:
            return ""
        low, high = self.aes_interval
        return f"{self.aes:.2f}{between}({low:.2f} to {high:.2f})"

    def aes_verdict(self, other: Comparison) -> str:
        """Whether its score is higher or lower than another's, as far as the 95 % interval of the difference tells.

        Raises:
            ValueError: one of the two has no score.
        """
        if self.aes_resampled is None or other.aes_resampled is None:
            raise ValueError(f"{self.system} and {other.system} do not both have an AES")
        return _verdict(_percentiles(self.aes_resampled - other.aes_resampled))


def _verdict(interval: tuple[float, float]) -> str:
    low, high = interval
    return "higher" if low > 0 else "lower" if high < 0 else "no difference"


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return float(low), float(high)


def read_evaluations(named: Iterable[tuple[str, Path]]) -> list[Evaluated]:
    """The systems of evaluation folders.

    The pair takes the name that its folder is given, if any; in a folder without a pair, the model by itself does.

    Raises:
        FileNotFoundError: a folder holds no evaluation.
        ValueError: a record cannot be read, a folder is given twice, or problems differ between systems.
    """
    found: list[Evaluated] = []
    for label, folder in named:
        paths = sorted(folder.glob("*.jsonl"))
        if not paths:
            raise FileNotFoundError(f"{folder} holds no evaluation; give a folder of `longshort evaluate`")
        named_one = "pair" if any(path.stem == "pair" for path in paths) else REFERENCE
        for path in paths:
            system = label if path.stem == named_one and label else path.stem
            if any(one.system == system and one.folder == folder for one in found):
                raise ValueError(f"{folder} is given twice as {system}")
            seed = read_provenance(folder)["seed"]
            found.append(Evaluated(system=system, folder=folder, records=_records(path), seed=seed))
    asked = [[(row["problem"], row["gold"]) for row in one.records] for one in found]
    for one, problems in zip(found, asked, strict=True):
        if problems != asked[0]:
            raise ValueError(
                f"{one.folder} has other problems than {found[0].folder}; compare evaluations of the same file"
            )
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "correct": bool(row["correct"]), "num_tokens": int(row["num_tokens"])})
            _ = row["problem"], row["gold"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}, is no record of `longshort evaluate`: {error!r}") from error
    if not rows:
        raise ValueError(f"{path} holds no record")
    return rows


def compare(evaluated: Sequence[Evaluated], reference: str = REFERENCE) -> list[Comparison]:
    """Each system over its seeds; the reference first.

    The reference of a system's seed is the one in the same folder, or in another folder of that seed.

    Raises:
        ValueError: a folder is without the reference.
    """
    references = {one.folder: one for one in evaluated if one.system == reference}
    of_seed = {one.seed: one for one in references.values() if one.seed is not None}
    for one in evaluated:
        if one.folder not in references and one.seed not in of_seed:
            raise ValueError(
                f"{one.folder} holds no {reference}.jsonl, and no other folder of its seed does; evaluate {reference} "
                "beside the others there"
            )
        if one.folder not in references and one.seed is not None:
            references[one.folder] = of_seed[one.seed]
    names = dict.fromkeys([reference, *(one.system for one in evaluated)])
    return [_compare([one for one in evaluated if one.system == name], references) for name in names]


def _compare(runs: Sequence[Evaluated], references: Mapping[Path, Evaluated]) -> Comparison:
    others = [references[run.folder] for run in runs]
    if runs[0].system == others[0].system:
        # The same model on the same problems with the same seed is there once for each folder of that seed.
        unique = {json.dumps([(r["correct"], r["num_tokens"]) for r in run.records]): run for run in runs}
        runs = others = list(unique.values())
    right, base = (_matrix(which, "correct") for which in (runs, others))
    tokens, base_tokens = (_matrix(which, "num_tokens") for which in (runs, others))
    per_problem = right.mean(axis=0) - base.mean(axis=0)
    accuracy, base_accuracy = float(right.mean()), float(base.mean())
    saved = 1 - float(tokens.mean()) / float(base_tokens.mean())
    caps = [share * float(base_tokens.mean()) for share in BUDGETS]
    resampled = None
    if base_accuracy:
        resampled = _resampled_aes(*(which.mean(axis=0) for which in (right, base, tokens, base_tokens)))
    return Comparison(
        system=runs[0].system,
        num_seeds=len(runs),
        num_problems=right.shape[1],
        accuracy=_spread(right.mean(axis=1)),
        num_tokens=_spread(tokens.mean(axis=1)),
        roles=_roles(runs),
        difference=float(per_problem.mean()),
        interval=bootstrap_interval(per_problem),
        saved=saved,
        aes=aes(accuracy, base_accuracy, saved) if base_accuracy else None,
        aes_interval=None if resampled is None else _percentiles(resampled),
        budgets=tuple(float((right * (tokens <= cap)).mean()) for cap in caps),
        aes_resampled=resampled,
    )


def _matrix(runs: Sequence[Evaluated], name: str) -> np.ndarray:
    """Seeds × problems."""
    return np.array([[float(record[name]) for record in run.records] for run in runs])


def _spread(values: Sequence[float] | np.ndarray) -> Spread:
    return Spread(mean=fmean(values), low=float(min(values)), high=float(max(values)))


def _roles(runs: Sequence[Evaluated]) -> dict[str, Spread]:
    if "turns" not in runs[0].records[0]:
        return {}
    found: dict[str, Spread] = {}
    for role in ("long", "short"):
        found[f"num_tokens_{role}"] = _spread([fmean(r[f"num_tokens_{role}"] for r in run.records) for run in runs])
        formed = [
            [turn["well_formed"] for record in run.records for turn in record["turns"] if turn["role"] == role]
            for run in runs
        ]
        found[f"well_formed_{role}"] = _spread([fmean(one) if one else 0.0 for one in formed])
    found["rethink_share"] = _spread([fmean(has_rethink(record) for record in run.records) for run in runs])
    return found


def has_rethink(record: Mapping[str, Any]) -> bool:
    """Whether the short role asked for another thought in a pair's dialogue."""
    return any(turn["well_formed"] and turn["text"].endswith("</rethink>") for turn in record["turns"])


def _resampled_aes(right: np.ndarray, base: np.ndarray, tokens: np.ndarray, base_tokens: np.ndarray) -> np.ndarray:
    """The score of each resample of the problems, NaN where the reference is never right in it."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    def score(right: np.ndarray, base: np.ndarray, tokens: np.ndarray, base_tokens: np.ndarray, axis: int):
        saved = 1 - tokens.mean(axis=axis) / base_tokens.mean(axis=axis)
        return _aes(right.mean(axis=axis), base.mean(axis=axis), saved)

    with warnings.catch_warnings():
        # Where all resamples score the same, which is no fault here.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return bootstrap(
            (right, base, tokens, base_tokens),
            score,
            paired=True,
            vectorized=True,
            n_resamples=_RESAMPLES,
            batch=500,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution


def bootstrap_interval(values: np.ndarray, level: float = _LEVEL) -> tuple[float, float]:
    """Interval of the mean of paired differences, by resampling the problems; the same for the same values."""
    from scipy.stats import bootstrap

    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=_RESAMPLES,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def aes(accuracy: float, base_accuracy: float, saved: float) -> float:
    """Accuracy-efficiency score (O1-Pruner, arXiv 2501.12570): relative tokens saved, and accuracy won or lost.

    Args:
        accuracy: of the system, in [0, 1].
        base_accuracy: of the reference, above 0.
        saved: share of the reference's tokens that it does not need.

    Raises:
        ValueError: the reference is never right, so that nothing is relative to it.
    """
    if not base_accuracy > 0:
        raise ValueError("the reference answers nothing right: AES is relative to its accuracy")
    return float(_aes(np.array(accuracy), np.array(base_accuracy), np.array(saved)))


def _aes(accuracy: np.ndarray, base_accuracy: np.ndarray, saved: np.ndarray) -> np.ndarray:
    relative = np.divide(accuracy, base_accuracy, out=np.full_like(accuracy, np.nan), where=base_accuracy > 0)
    tokens, won, lost = AES_WEIGHTS
    return tokens * saved + np.where(relative >= 1, won, lost) * (relative - 1)


def comparison_table(found: Sequence[Comparison]) -> Table:
    """A row a system."""
    seeds = "seed" if max(one.num_seeds for one in found) == 1 else "seeds: mean (lowest to highest)"
    table = Table(title=f"{found[0].num_problems} problems, up to {max(one.num_seeds for one in found)} {seeds}")
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


def plot_comparison(found: Sequence[Comparison], out: Path, *, title: str) -> None:
    """Two panels: accuracy against tokens with the spread of the seeds, and accuracy under a budget of tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    scatter, curve = figure.subplots(1, 2)
    figure.suptitle(title)
    for number, one in enumerate(found):
        colour, mark = f"C{number % 10}", "osD^v<>p*hX"[number % 11]
        x, y = one.num_tokens, one.accuracy
        scatter.errorbar(
            x.mean,
            y.mean,
            xerr=[[x.mean - x.low], [x.high - x.mean]],
            yerr=[[y.mean - y.low], [y.high - y.mean]],
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
    scatter.set_title("accuracy and tokens; bars: lowest to highest seed", fontsize=10)
    curve.set_xticks(range(len(BUDGETS)), [f"1/{round(1 / share)}" if share < 1 else "1" for share in BUDGETS])
    curve.set_xlabel(f"most tokens a problem, as a share of {found[0].system}'s mean")
    curve.set_title("accuracy under a budget", fontsize=10)
    for axis in (scatter, curve):
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3, which="both")
    figure.legend(*scatter.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
