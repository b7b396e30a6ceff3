# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scored chains of thought as tables, a picture and a page; and the tables of ``importance`` and ``cold-start``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table
from rich.text import Text

from longshort_verl.report.output import new_figure, save_figure, write_template
from longshort_verl.types import Chain, ChainOutcome

_NUM_BINS = 10
_MAX_KINDS = 12
_MAX_KIND_CHARS = 24


def scored_chains(chains: Sequence[Chain]) -> list[Chain]:
    """The chains with an importance for every thought."""
    return [chain for chain in chains if chain.outcome is ChainOutcome.SCORED]


def find_chain(chains: Sequence[Chain], key: str | None) -> Chain:
    """The scored chain of that key; the first scored chain without a key.

    Raises:
        ValueError: there is none.
    """
    shown = next((chain for chain in scored_chains(chains) if key in (None, chain.key)), None)
    if shown is None:
        outcomes = ", ".join(sorted({f"{chain.key} ({chain.outcome.value})" for chain in chains})[:10])
        raise ValueError(f"there is no scored chain{'' if key is None else f' {key!r}'}; the file has {outcomes}")
    return shown


def _counts_table(title: str, outcomes: Mapping[str, int], rows: Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for outcome, number in sorted(outcomes.items()):
        table.add_row(f"chains, {outcome}", str(number))
    for row in rows.items():
        table.add_row(*row)
    return table


def results_table(summary: Mapping[str, Any]) -> Table:
    """Outcomes and costs of ``longshort importance`` (see :func:`longshort_verl.chains.score.summary`)."""
    scored = max(1, summary["outcomes"].get("scored", 0))
    rate, width = summary["hit_rate"], summary["median_interval_width"]
    rows = {
        "thoughts": str(summary["num_thoughts"]),
        "rollouts": str(summary["num_rollouts"]),
        "rollouts per scored chain": f"{summary['num_rollouts'] / scored:.1f}",
        "generated tokens": str(summary["num_tokens"]),
        "prefill hit rate": "not reported by the engine" if rate is None else f"{rate:.1%}",
        "interval width, median": "–" if width is None else f"{width:.2f}",
        **{f"thoughts decided by {name}": str(number) for name, number in summary["decisions"].items()},
    }
    return _counts_table("importance", summary["outcomes"], rows)


def cold_start_table(counts: Mapping[str, Any]) -> Table:
    """Outcomes and sizes of ``longshort cold-start`` (see :func:`longshort_verl.cold_start.files.write_cold_start`)."""
    tokens = counts["num_tokens"]
    kept = tokens["long"] + tokens["short"]
    rows = {f"rows of {name}": str(number) for name, number in counts["num_rows"].items()}
    rows |= {f"rows of problems_{side}": str(number) for side, number in counts["num_problems"].items()}
    rows |= {
        "tokens of the kept chains": str(tokens["traces"]),
        "tokens of their dialogues": f"{kept} ({kept / max(1, tokens['traces']):.1%})",
        "tokens of the long role": str(tokens["long"]),
    }
    return _counts_table("cold start", counts["outcomes"], rows)


def thoughts_table(chain: Chain) -> Table:
    """One scored chain, thought by thought."""
    table = Table(title=f"chain {_short(chain.key, 40)}")
    for name in ("thought", "kind", "tokens", "value after", "importance"):
        table.add_column(name, justify="left" if name in ("thought", "kind") else "right", overflow="fold")
    unvisited = "no rollout" if chain.decisions else "interpolated"
    rows = zip(chain.thoughts, chain.lengths, chain.values[1:], chain.scores, strict=True)
    for thought, length, value, importance in rows:
        counted = f"{value.num_right}/{value.num_rollouts}" if value.num_rollouts else unvisited
        # As Text: a model's text must not act as markup.
        text, kind = Text(_short(thought.text, 40)), Text(_short(thought.kind, _MAX_KIND_CHARS))
        table.add_row(text, kind, str(length), f"{value.mean:.2f} ({counted})", f"{importance.score:+.3f}")
    return table


def _short(text: str, most: int) -> str:
    # Control characters would act on the terminal.
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def plot_importance(chains: Sequence[Chain], shown: Chain, out: Path) -> None:
    """Draw the importance by position and by kind, and one chain with its values."""
    figure = new_figure(16.5, 4.6)
    by_place, by_kind, of_chain = figure.subplots(1, 3)
    scored = scored_chains(chains)
    places = [
        ((i + 0.5) / len(chain.scores), importance.score)
        for chain in scored
        for i, importance in enumerate(chain.scores)
    ]
    bins: dict[int, list[float]] = defaultdict(list)
    for place, score in places:
        bins[min(_NUM_BINS - 1, int(place * _NUM_BINS))].append(score)
    by_place.scatter([p for p, _ in places], [s for _, s in places], s=8, alpha=0.35, color="tab:blue")
    by_place.plot(
        [(i + 0.5) / _NUM_BINS for i in sorted(bins)], [mean(bins[i]) for i in sorted(bins)], color="tab:orange", lw=2
    )
    by_place.set(title=f"by position, {len(scored)} chains", xlabel="position in the chain", ylabel="importance")

    kinds: dict[str, list[float]] = defaultdict(list)
    for chain in scored:
        for thought, importance in zip(chain.thoughts, chain.scores, strict=True):
            kinds[_short(thought.kind, _MAX_KIND_CHARS) or "(none)"].append(importance.score)
    names = sorted(kinds, key=lambda name: -len(kinds[name]))[:_MAX_KINDS][::-1]
    by_kind.boxplot([kinds[name] for name in names], orientation="horizontal", widths=0.6)
    by_kind.set_yticks(range(1, len(names) + 1), [_escaped(f"{name} ({len(kinds[name])})") for name in names])
    by_kind.set(title="by kind of thought", xlabel="importance")

    heights = [importance.score for importance in shown.scores]
    numbers = range(1, len(heights) + 1)
    low = [importance.score - importance.low for importance in shown.scores]
    high = [importance.high - importance.score for importance in shown.scores]
    of_chain.bar(numbers, heights, color="tab:blue", alpha=0.7, label="importance")
    of_chain.errorbar(numbers, heights, yerr=[low, high], fmt="none", ecolor="gray", lw=0.8, capsize=2)
    means = [value.mean for value in shown.values]
    of_chain.step(range(len(means)), means, where="mid", color="tab:orange", label="value after")
    visited = [i for i, value in enumerate(shown.values) if value.num_rollouts]
    of_chain.plot(visited, [means[i] for i in visited], "o", color="tab:orange", ms=4, label="rolled out")
    of_chain.set(title=_escaped(f"chain {_short(shown.key, 30)}"), xlabel="thought")
    of_chain.legend(fontsize="small")
    for axes in (by_place, by_kind, of_chain):
        axes.grid(alpha=0.3)
    save_figure(figure, out)


def _escaped(text: str) -> str:
    # A dollar sign begins mathematics, which may be malformed in a model's text.
    return text.replace("$", r"\$")


def write_page(chains: Sequence[Chain], shown: Chain, out: Path) -> None:
    """Write one self-contained page: the picture beside ``out``, and a chain coloured by importance."""
    write_template(
        "chains.html",
        out.with_suffix(".png"),
        num_scored=len(scored_chains(chains)),
        num_rows=len(chains),
        key=shown.key,
        problem=shown.problem,
        thoughts=_annotated(shown),
    )


def _annotated(chain: Chain) -> list[dict[str, str]]:
    most = max(abs(importance.score) for importance in chain.scores) or 1.0
    annotated = []
    rows = zip(chain.thoughts, chain.lengths, chain.values[1:], chain.scores, strict=True)
    unvisited = "no rollout" if chain.decisions else "interpolated"
    for number, (thought, length, value, importance) in enumerate(rows, start=1):
        depth = abs(importance.score) / most * 0.55
        hue = "46, 160, 67" if importance.score > 0 else "207, 34, 46"
        counted = f"{value.num_right} of {value.num_rollouts}" if value.num_rollouts else unvisited
        note = (
            f"{number}. {thought.kind} · importance {importance.score:+.3f} ({importance.low:+.2f} to "
            f"{importance.high:+.2f}) · value {value.mean:.2f} ({counted}) · {length} tokens"
        )
        colour = f"rgba({hue}, {depth:.2f})"
        annotated.append({"text": thought.text.rstrip(), "colour": colour, "note": note})
    return annotated
