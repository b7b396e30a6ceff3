# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The study of thoughts (paper, section 3.1, Figures 2 and 3): what accuracy, length and metric do along a chain.

Reads scored chains. Every point is a mean over chains, with a 95 % bootstrap interval over chains. Values and thoughts
without rollouts, which a plan skipped or interpolated, are left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from longshort_verl.chains.config import read_importance
from longshort_verl.chains.files import read_chains
from longshort_verl.config.compose import read_settings
from longshort_verl.evaluation.scores import interval, resampled_mean
from longshort_verl.files.atomic import write_json, write_text
from longshort_verl.files.manifest import read_manifest
from longshort_verl.grading import grade
from longshort_verl.importance import MetricSettings, importance
from longshort_verl.report.chains import scored_chains
from longshort_verl.report.output import markdown_table, new_figure, save_figure
from longshort_verl.types import Chain, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (8, 16, 32, 64, 128)
"""Numbers of rollouts whose estimates are compared with those of all rollouts (paper, Figure 3)."""
_SAMPLES = 20_000
"""About how many scores a number of rollouts is averaged over, by repeated subsampling."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The scored chains of one label."""

    label: str
    chains: Sequence[Chain]
    settings: MetricSettings
    """Of the metric that is reported."""
    num_rows: int
    """Rows of the files, those without scores included."""

    def scores(self, values: Sequence[Value], chain: Chain) -> list[float]:
        """M of each thought of a chain with these values in place of its own."""
        return [one.score for one in importance(values, chain.lengths, self.settings)]


def write_study(
    named: Iterable[tuple[str, Path]], out: Path, *, metric: str | None = None, writer: bool = False, title: str = ""
) -> tuple[list[Table], list[Path]]:
    """Write ``thoughts.md``, ``thoughts.json`` and ``thoughts.png``; returns tables for the terminal, and the files.

    ``named`` holds a label, or "", and a scored file of each; files of one label are pooled. ``metric`` names another
    metric than that of the run. With ``writer`` the chains' own answers are graded, for a line to compare with.

    Raises:
        ValueError: a file cannot be read or holds no scored chain, or files of one label have different metrics.
    """
    studies = read_studies(named, metric)
    results = {study.label: study_results(study, writer=writer) for study in studies}
    page, numbers, picture = (out / f"thoughts.{suffix}" for suffix in ("md", "json", "png"))
    plot_study(results, picture, title=title)
    write_json(numbers, results)
    write_text(page, markdown(results, picture.name, title=title or "The study of thoughts"))
    return [table for one in results.items() for table in study_tables(*one)], [page, numbers, picture]


def read_studies(named: Iterable[tuple[str, Path]], metric: str | None = None) -> list[Study]:
    """The chains of each label, with the metric of their manifest, or the default without one; see :func:`write_study`.

    Raises:
        ValueError: as :func:`write_study`.
    """
    by_label: dict[str, list[Path]] = {}
    for label, path in named:
        by_label.setdefault(label, []).append(path)
    studies = []
    for label, paths in by_label.items():
        settings = [_metric_settings(path, metric) for path in paths]
        if any(one != settings[0] for one in settings):
            raise ValueError(
                f"{', '.join(map(str, paths))} were scored with different metrics; give them labels of their own, or a "
                "metric for all"
            )
        rows = [chain for path in paths for chain in read_chains(path)]
        chains = scored_chains(rows)
        if not chains:
            raise ValueError(f"{paths[0]} has no scored chain; give the folder of `longshort importance`")
        studies.append(Study(label=label, chains=chains, settings=settings[0], num_rows=len(rows)))
    return studies


def _metric_settings(path: Path, metric: str | None) -> MetricSettings:
    section = asdict(read_importance(None, []).metric)
    try:
        recorded = read_manifest(path if path.is_dir() else path.parent)["config"].get("metric", {})
    except FileNotFoundError:
        recorded = {}
    # Older runs lack newer settings, whose defaults do not matter to their metrics.
    section |= {name: value for name, value in recorded.items() if name in section}
    section |= {"metric": metric} if metric else {}
    return read_settings(section, MetricSettings, "metric", base="longshort_metric.yaml")


def study_results(study: Study, *, writer: bool = False) -> dict[str, Any]:
    """All numbers of a study, as JSON values: counts, a row for each number of thoughts, and the convergence."""
    values = [value for chain in study.chains for value in chain.values]
    thoughts = sum(len(chain.scores) for chain in study.chains)
    return {
        "chains": len(study.chains),
        "rows_without_scores": study.num_rows - len(study.chains),
        "metric": study.settings.metric,
        "values": len(values),
        "values_without_rollouts": sum(not value.num_rollouts for value in values),
        "thoughts": thoughts,
        "thoughts_without_rollouts": thoughts - sum(len(_measured(chain)) for chain in study.chains),
        "pruned_chains": sum(bool(chain.decisions) for chain in study.chains),
        "writer": _writer(study.chains) if writer else None,
        "by_thoughts": by_thoughts(study),
        "convergence": convergence(study),
    }


def _measured(chain: Chain, least: int = 1) -> list[int]:
    """The thoughts, counted from 1, with ``least`` rollouts before and after them: not scored by interpolation."""
    counts = [value.num_rollouts for value in chain.values]
    return [i for i in range(1, len(counts)) if min(counts[i - 1], counts[i]) >= least]


def by_thoughts(study: Study) -> list[dict[str, Any]]:
    """For 0, 1, 2, … thoughts given: accuracy and length of the rollouts after them, and the metric of the last one.

    Each is a mean over the chains that have it, with their number and a 95 % interval; None without any.
    """
    right: dict[int, list[float]] = {}
    tokens: dict[int, list[float]] = {}
    scores: dict[int, list[float]] = {}
    for chain in study.chains:
        for i, value in enumerate(chain.values):
            if value.num_rollouts:
                right.setdefault(i, []).append(value.num_right / value.num_rollouts)
                if value.response_tokens is not None:
                    tokens.setdefault(i, []).append(value.response_tokens)
        found = study.scores(chain.values, chain)
        for i in _measured(chain):
            scores.setdefault(i, []).append(found[i - 1])
    columns = {"accuracy": right, "response_tokens": tokens, "importance": scores}
    return [
        {"thoughts": i, **{name: _mean(column.get(i, [])) for name, column in columns.items()}} for i in sorted(right)
    ]


def _mean(values: Sequence[float]) -> dict[str, float | int] | None:
    if not values:
        return None
    point: dict[str, float | int] = {"chains": len(values), "mean": fmean(values)}
    if len(values) > 1:
        low, high = interval(resampled_mean([np.array(values)]))
        point |= {"low": low, "high": high}
    return point


def _writer(chains: Sequence[Chain]) -> dict[str, float]:
    """Accuracy of the chains' own answers, and the tokens of their thinking by the rolled-out model's tokenizer."""
    grading = read_importance(None, []).grading
    right = [grade(chain.text, chain.problem.answer, grading).correct for chain in chains if chain.problem]
    return {"accuracy": fmean(right), "thinking_tokens": fmean(sum(chain.lengths) for chain in chains)}


def convergence(study: Study) -> list[dict[str, Any]]:
    """For each number of rollouts, how far its estimates are from those of all rollouts: mean absolute differences.

    The rollouts of a value are subsampled without replacement, so that its right ones are hypergeometric. Accuracy is
    the exact expectation; the metric is averaged over repeated draws, in which neighbouring values are independent.
    Only values with at least as many rollouts as the largest number of :data:`SIZES` in the file count, so that all
    numbers are compared on the same values. Empty if no value has 8 rollouts.
    """
    most = max(value.num_rollouts for chain in study.chains for value in chain.values)
    sizes = [size for size in SIZES if size <= most]
    if not sizes:
        return []
    full = [value for chain in study.chains for value in chain.values if value.num_rollouts >= sizes[-1]]
    counted = [(chain, _measured(chain, sizes[-1])) for chain in study.chains]
    counted = [(chain, thoughts) for chain, thoughts in counted if thoughts]
    num_thoughts = sum(len(thoughts) for _, thoughts in counted)
    repeats = min(1000, max(8, _SAMPLES // max(1, num_thoughts)))
    rng = np.random.default_rng(0)
    rows = []
    for size in sizes:
        differences = []
        for chain, thoughts in counted:
            exact = study.scores([_subsample(value, value.num_rollouts, rng) for value in chain.values], chain)
            for _ in range(repeats):
                drawn = study.scores([_subsample(value, size, rng) for value in chain.values], chain)
                differences += [abs(drawn[i - 1] - exact[i - 1]) for i in thoughts]
        accuracy = fmean(subsampling_error(value.num_right, value.num_rollouts, size) for value in full)
        metric = fmean(differences) if differences else None
        rows.append(
            {
                "rollouts": size,
                "accuracy": accuracy,
                "values": len(full),
                "importance": metric,
                "thoughts": num_thoughts,
            }
        )
    return rows


def subsampling_error(num_right: int, num_rollouts: int, size: int) -> float:
    """E|k / size − num_right / num_rollouts| for k right ones in a sample without replacement."""
    from scipy.stats import hypergeom

    k = np.arange(size + 1)
    return float(np.sum(hypergeom.pmf(k, num_rollouts, num_right, size) * abs(k / size - num_right / num_rollouts)))


def _subsample(value: Value, size: int, rng: np.random.Generator) -> Value:
    """The value by ``size`` of its rollouts; by all of them if it has no more. An interpolated one stays."""
    if not value.num_rollouts:
        return value
    right, size = value.num_right, min(size, value.num_rollouts)
    if size < value.num_rollouts:
        right = int(rng.hypergeometric(right, value.num_rollouts - right, size))
    return replace(value, num_right=right, num_rollouts=size, mean=right / size)


# --- output ---------------------------------------------------------------------------------------------------------


def _point(point: Mapping[str, float] | None, form: str, short: bool) -> str:
    if point is None:
        return "–"
    text = form.format(point["mean"])
    if "low" not in point:
        return text
    if short:
        return f"{text} ±{form.replace('+', '').format((point['high'] - point['low']) / 2)}"
    return f"{text} ({form.format(point['low'])} to {form.format(point['high'])})"


_FORMS = {"accuracy": "{:.3f}", "response_tokens": "{:.0f}", "importance": "{:+.3f}"}


def _row(row: Mapping[str, Any], *, short: bool = False) -> list[str]:
    accuracy, tokens, score = (_point(row[name], form, short) for name, form in _FORMS.items())
    metric = row["importance"]
    chains = [str(row["accuracy"]["chains"]), "0" if metric is None else str(metric["chains"])]
    return [str(row["thoughts"]), chains[0], accuracy, tokens, chains[1], score]


_HEAD = ("thoughts", "chains", "accuracy", "response tokens", "chains", "metric")


def _convergence_rows(results: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            str(row["rollouts"]),
            f"{row['accuracy']:.4f}",
            "–" if row["importance"] is None else f"{row['importance']:.4f}",
        ]
        for row in results["convergence"]
    ]


_CONVERGENCE_HEAD = ("rollouts", "|Δ accuracy|", "|Δ metric|")


def _counts(results: Mapping[str, Any]) -> str:
    """What the numbers rest on, as sentences."""
    sentences = [
        f"{results['chains']} scored chains; {results['rows_without_scores']} rows without scores are left out.",
        f"Left out for want of rollouts: {results['values_without_rollouts']} of {results['values']} values and "
        f"{results['thoughts_without_rollouts']} of {results['thoughts']} thoughts.",
        f"Metric: {results['metric']}.",
    ]
    if results["pruned_chains"]:
        sentences.append(
            "The plan pruned rollouts where a thought could not matter, so the points are of a selection; "
            "plan.plan=fixed gives all."
        )
    if not any(row["response_tokens"] for row in results["by_thoughts"]):
        sentences.append("The file has no response lengths.")
    if writer := results["writer"]:
        sentences.append(
            f"The chains themselves: accuracy {writer['accuracy']:.3f}, thinking of {writer['thinking_tokens']:.0f} "
            "tokens."
        )
    return " ".join(sentences)


def study_tables(label: str, results: Mapping[str, Any]) -> list[Table]:
    """Two tables of at most 80 columns: by the number of thoughts (some rows of a long one), and the convergence."""
    table = Table(title=f"{label + ': ' if label else ''}means over chains ± half of the 95 % interval")
    for name in _HEAD:
        table.add_column(name, justify="right")
    rows = results["by_thoughts"]
    for row in (rows[i] for i in _shown(len(rows))):
        table.add_row(*_row(row, short=True))
    table.caption = _counts(results)
    found = Table(title="difference from all rollouts")
    for name in _CONVERGENCE_HEAD:
        found.add_column(name, justify="right")
    for cells in _convergence_rows(results):
        found.add_row(*cells)
    return [table, found] if results["convergence"] else [table]


def _shown(number: int) -> list[int]:
    """The first nine rows, then ever fewer, and the last."""
    rows, place = list(range(min(9, number))), 9.0
    while place < number - 1:
        rows.append(round(place))
        place *= 1.3
    return [*rows, number - 1] if number > 9 else rows


def markdown(results: Mapping[str, Mapping[str, Any]], picture: str, *, title: str) -> str:
    """All rows of all studies as a Markdown page."""
    parts = [
        f"# {title}",
        "Means over chains, with a 95 % bootstrap interval over chains. Accuracy and response tokens are those of the "
        "rollouts after so many thoughts; the metric is that of the last of them. Fewer chains have more thoughts, so "
        "points to the right are of other, longer chains.",
        f"![accuracy and length, metric, and convergence]({picture})",
    ]
    for label, one in results.items():
        parts += [*([f"## {label}"] if label else []), _counts(one)]
        parts.append(markdown_table(_HEAD, [_row(row) for row in one["by_thoughts"]]))
        if one["convergence"]:
            last = one["convergence"][-1]
            parts.append(
                f"Mean absolute difference from all rollouts, over {last['values']} values and {last['thoughts']} "
                f"thoughts with at least {last['rollouts']} rollouts:"
            )
            parts.append(markdown_table(_CONVERGENCE_HEAD, _convergence_rows(one)))
    return "\n\n".join(parts) + "\n"


def plot_study(results: Mapping[str, Mapping[str, Any]], out: Path, *, title: str = "") -> None:
    """Draw three panels: accuracy and response length, metric, and convergence; one colour a label."""
    figure = new_figure(16, 5.4)
    accuracy, metric, error = figure.subplots(1, 3)
    figure.suptitle(title)
    length = accuracy.twinx()
    alone = len(results) == 1
    for number, (label, one) in enumerate(results.items()):
        rows, colour = one["by_thoughts"], _COLOURS[number % len(_COLOURS)]
        other = _COLOURS[1] if alone else colour
        name = f"{label}: " if label else ""
        _draw(accuracy, rows, "accuracy", "o-", colour, f"{name}accuracy")
        _draw(length, rows, "response_tokens", "s--", other, f"{name}response tokens")
        _draw(metric, rows, "importance", "o-", colour, label or "metric")
        base = rows[0]["accuracy"] if rows[0]["thoughts"] == 0 else None
        if base:
            accuracy.axhline(base["mean"], color=colour, ls=":", lw=1.2, label=f"{name}no thought given")
        if one["writer"]:
            accuracy.axhline(one["writer"]["accuracy"], color=colour, ls="-.", lw=1.2, label=f"{name}the chains' own")
        for key, what, style, shade in (("importance", "metric", "o-", colour), ("accuracy", "accuracy", "s--", other)):
            found = [(row["rollouts"], row[key]) for row in one["convergence"] if row[key] is not None]
            if found:
                error.plot(*zip(*found, strict=True), style, color=shade, label=f"{name}{what}")
    accuracy.set(title="accuracy and response length", ylabel="accuracy of the rollouts", ylim=(-0.02, 1.02))
    length.set(ylabel="response tokens")
    length.set_ylim(bottom=0)
    length.set_visible(bool(length.lines))
    metric.set(title="metric of the thought", ylabel="importance M")
    error.set(title="convergence", xlabel="rollouts at a value", ylabel="mean |difference| from all rollouts")
    error.set_xscale("log", base=2)
    sizes = sorted({row["rollouts"] for one in results.values() for row in one["convergence"]})
    error.set_xticks(sizes, [str(size) for size in sizes])
    if not sizes:
        error.text(0.5, 0.5, "fewer than 8 rollouts at every value", transform=error.transAxes, ha="center")
    error.minorticks_off()
    error.set_ylim(bottom=0)
    first = next(iter(results.values()))["by_thoughts"] if alone else []
    _count_chains(accuracy, first, "accuracy", "thoughts given")
    _count_chains(metric, first, "importance", "position of the thought")
    handles, labels = accuracy.get_legend_handles_labels()
    more_handles, more_labels = length.get_legend_handles_labels()
    below = {"fontsize": "small", "loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "ncols": 2, "frameon": False}
    accuracy.legend(handles + more_handles, labels + more_labels, **below)
    for axes in (metric, error):
        if axes.lines:
            axes.legend(**below)
    for axes in (accuracy, metric, error):
        axes.grid(alpha=0.3)
    save_figure(figure, out)


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, style: str, colour: str, label: str) -> None:
    points = [(row["thoughts"], row[name]) for row in rows if row[name] is not None]
    if not points:
        return
    places = [place for place, _ in points]
    axes.plot(places, [point["mean"] for _, point in points], style, color=colour, label=label, ms=3)
    low, high = ([point.get(end, math.nan) for _, point in points] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _count_chains(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    """Label the axis; with ``rows``, print the number of chains behind a point below its tick."""
    chains = {row["thoughts"]: row[name]["chains"] for row in rows if row[name] is not None}
    if not chains:
        axes.set_xlabel(label)
        return
    from matplotlib.ticker import MaxNLocator

    places = [int(place) for place in MaxNLocator(6, integer=True).tick_values(0, max(chains)) if place <= max(chains)]
    axes.set_xticks(places, [f"{place}\n({chains.get(place, 0)})" for place in places])
    axes.set_xlabel(f"{label} (chains behind the point)")
