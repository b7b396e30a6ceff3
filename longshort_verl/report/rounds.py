# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The pair after each round of training, as the paper shows it (Tables 2, 10 and 11, Figure 5), beside its own rows.

Reads evaluations of pairs. The paper's rows, of ``paper_rows.yaml``, stand beside ours on the sets that were run whole.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table

from longshort_verl.dialogue import PROTOCOL_TAGS
from longshort_verl.evaluation.compare import by_problem, is_right
from longshort_verl.evaluation.records import REFERENCE, Evaluated, Record, by_set, has_rethink, read_evaluations
from longshort_verl.evaluation.scores import AES_NAME, aes, interval, resampled_mean
from longshort_verl.files.atomic import write_json, write_text
from longshort_verl.problems.sets import PUBLISHED
from longshort_verl.report.output import markdown_table, new_figure, save_figure
from longshort_verl.types import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHRASES = Path(__file__).with_name("phrases.txt")
"""The default phrases, which are ours."""
PAPER_ROWS = Path(__file__).with_name("paper_rows.yaml")
WARNING = (
    "Rows marked † are the paper's, as printed. Its lengths are very probably characters, not tokens, and it has one "
    "sample a problem, so that one problem of AIME is 3.3 points."
)

logger = logging.getLogger(__name__)

_ROUND = re.compile(r"(?:long-r|L)(?P<long>\d+)(?:_short-r|S)(?P<short>\d+)")
_TAGS = re.compile("|".join(map(re.escape, PROTOCOL_TAGS)))
_PATH_COLOUR = "#D55E00"


@dataclass(frozen=True, kw_only=True)
class Round:
    """The pair after some rounds of each role, or any other pair."""

    group: str
    """The label of the run; "" without one."""
    name: str
    """``L2S1`` after two rounds of the long and one of the short role, else the folder or its label."""
    place: tuple[int, int] | None
    """Rounds of the long and of the short role."""
    runs: Sequence[Evaluated]
    """One per seed."""

    @property
    def label(self) -> str:
        """The group and the name."""
        return f"{self.group} {self.name}".strip()


def write_rounds(
    named: Iterable[tuple[str, Path]], out: Path, *, base: Path | None, phrases: Sequence[str], title: str
) -> tuple[list[Table], list[Path]]:
    """Write ``rounds.md``, ``rounds.json`` and, if a folder names its round, ``rounds.png``.

    ``named`` is as in :func:`find_rounds`; ``base`` is an evaluation of the single model for AES. Returns tables for
    the terminal, and the files.

    Raises:
        FileNotFoundError, ValueError: there is no evaluation of a pair, or the evaluations have different problems.
    """
    rounds, reference = read_rounds(find_rounds(named), base)
    sets = list(by_set(rounds[0].runs[0].records))
    base_means, holds = reference and _Means([reference], sets), _search(phrases)
    results: dict[str, Any] = {
        "rounds": [_round_results(one, base_means, holds) for one in rounds],
        "base": reference and _base_results(reference, sets),
        "phrases": list(phrases),
    }
    results["paper"] = paper_rows(results["rounds"][0]["sets"])
    page, numbers, picture = (out / f"rounds.{suffix}" for suffix in ("md", "json", "png"))
    drawn = [picture] if any(one.place for one in rounds) else []
    if drawn:
        plot_grids(results, picture, title=title)
    write_json(numbers, results)
    write_text(page, markdown(results, drawn[0].name if drawn else None, title=title or "Rounds"))
    return rounds_tables(results), [page, numbers, *drawn]


def find_rounds(named: Iterable[tuple[str, Path]]) -> list[tuple[str, str, Path]]:
    """Group, name and folder of each evaluation.

    A folder with ``pair.jsonl`` is one, named by its label or its own name. Any other folder is a run, whose rounds are
    in it or in its folder ``rounds`` under names such as ``long-r2_short-r1``; its label is their group.

    Raises:
        FileNotFoundError: a folder holds neither.
    """
    found = []
    for label, path in named:
        if (path / "pair.jsonl").is_file():
            name = label or (path.name if _ROUND.fullmatch(path.name) else str(path))
            found.append(("", name, path))
            continue
        folders = [one for one in sorted([*path.glob("*"), *path.glob("rounds/*")]) if _ROUND.fullmatch(one.name)]
        rounds = [(label, one.name, one) for one in folders if (one / "pair.jsonl").is_file()]
        for one in folders:
            if not (one / "pair.jsonl").is_file():
                logger.warning("%s is left out: it has no validation, pair.jsonl", one)
        if not rounds:
            raise FileNotFoundError(
                f"{path} holds no pair.jsonl, nor folders such as long-r2_short-r1 that do; give a folder of "
                "`longshort evaluate`, or the rounds of a run"
            )
        found += rounds
    return found


def read_rounds(found: Sequence[tuple[str, str, Path]], base: Path | None) -> tuple[list[Round], Evaluated | None]:
    """The rounds, in the order of training, and the single model of ``base``. Folders of one name are seeds.

    Raises:
        FileNotFoundError, ValueError: as :func:`write_rounds`.
    """
    named = [(f"{number}", folder) for number, (_, _, folder) in enumerate(found)]
    if base is not None and base not in {folder for _, folder in named}:
        named.append(("pair" if (base / "pair.jsonl").is_file() else "", base))
    evaluated = read_evaluations(named)
    reference = next((one for one in evaluated if one.folder == base and one.system == REFERENCE), None)
    if base is not None and reference is None:
        raise FileNotFoundError(f"{base} holds no {REFERENCE}.jsonl; give an evaluation of the single model, solo.path")
    pairs = {one.system: one for one in evaluated}
    rounds: dict[tuple[str, str], Round] = {}
    for number, (group, name, _) in enumerate(found):
        run = pairs[str(number)]
        _check_turns(run)
        match = _ROUND.fullmatch(name)
        place = (int(match["long"]), int(match["short"])) if match else None
        name = f"L{place[0]}S{place[1]}" if place else name
        earlier = rounds[group, name].runs if (group, name) in rounds else ()
        rounds[group, name] = Round(group=group, name=name, place=place, runs=(*earlier, run))
    groups = list(dict.fromkeys(one.group for one in rounds.values()))
    order = sorted(rounds.values(), key=lambda one: (groups.index(one.group), sum(one.place or (-1,)), one.place or ()))
    return order, reference


def _check_turns(run: Evaluated) -> None:
    for record in run.records:
        try:
            for turn in record["turns"]:
                _ = Role(turn["role"]), turn["text"].split(), int(turn["num_tokens"]), turn["well_formed"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{run.folder}/pair.jsonl: the reply to problem {record['index']} is not a pair's dialogue: {error!r}"
            ) from error


def read_phrases(path: Path) -> list[str]:
    """The phrases of a file, one a line; empty lines and those that begin with # are comments.

    Raises:
        OSError, ValueError: the file cannot be read, or has no phrase.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    phrases = [line for line in lines if line and not line.startswith("#")]
    if not phrases:
        raise ValueError(f"{path} has no phrase; write one a line")
    return phrases


def _search(phrases: Sequence[str]) -> Callable[[Record], bool]:
    """Whether any turn of a dialogue holds a phrase as whole words, in any case and with any white space."""
    words = [r"\s+".join(map(re.escape, phrase.replace("’", "'").split())) for phrase in phrases]
    if not all(words):
        raise ValueError("a phrase is empty; give words")
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)

    def holds(record: Record) -> bool:
        # Without tags, whose names may be phrases; with the apostrophe that phrases are written with.
        texts = (_TAGS.sub(" ", turn["text"]).replace("’", "'") for turn in record["turns"])
        return any(pattern.search(text) for text in texts)

    return holds


def paper_rows(sets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The paper's rows on the sets that were run whole; means, length and AES only if our sets are all of its sets."""
    import yaml

    published = yaml.safe_load(PAPER_ROWS.read_text(encoding="utf-8"))
    names = published["sets"]
    whole = [name for name in names if name in sets and sets[name]["problems"] == PUBLISHED[name].num_problems]
    complete = len(whole) == len(names) == len(sets)
    rows = []
    for row in published["rows"] if whole else []:
        accuracy = dict(zip(names, row["accuracy"], strict=True))
        rows.append(
            {
                **{key: row[key] for key in ("family", "system")},
                "sets": {name: accuracy[name] / 100 for name in whole},
                "accuracy": fmean(row["accuracy"]) / 100 if complete else None,
                **{key: row[key] if complete else None for key in ("length", "aes")},
            }
        )
    return rows


# --- numbers --------------------------------------------------------------------------------------------------------


def _num_tokens(record: Record) -> float:
    return float(record["num_tokens"])


def _num_characters(record: Record) -> float:
    return float(sum(len(turn["text"]) for turn in record["turns"]) if "turns" in record else len(record["text"]))


_MEASURES: Mapping[str, Callable[[Record], float]] = {
    "accuracy": is_right,
    "tokens": _num_tokens,
    "characters": _num_characters,
}


class _Means:
    """Accuracy, tokens and characters of a reply: means of the sets, with resamples of the problems."""

    def __init__(self, runs: Sequence[Evaluated], sets: Sequence[str]) -> None:
        arrays = {key: [by_problem(runs, name, value) for name in sets] for key, value in _MEASURES.items()}
        self.mean = {key: fmean(float(one.mean()) for one in values) for key, values in arrays.items()}
        # A table needs the resamples of few measures, and they take most of the time.
        self.resampled = functools.cache(lambda key: resampled_mean(arrays[key]))

    def as_dict(self) -> dict[str, float]:
        low, high = interval(self.resampled("accuracy"))
        return {**self.mean, "accuracy_low": low, "accuracy_high": high}

    def aes(self, base: _Means, length: str) -> dict[str, float] | None:
        """The score by a measure of length (paper, section 5.1); None if the base is never right or writes nothing."""
        if not base.mean["accuracy"] or not base.mean[length]:
            return None
        mean, resampled = (
            aes(ours("accuracy"), theirs("accuracy"), 1 - ours(length) / theirs(length))
            for ours, theirs in ((self.mean.__getitem__, base.mean.__getitem__), (self.resampled, base.resampled))
        )
        low, high = interval(resampled)
        return {"mean": float(mean), "low": low, "high": high}


def _base_results(base: Evaluated, sets: Sequence[str]) -> dict[str, Any]:
    of_sets = {name: _Means([base], [name]).as_dict() for name in sets}
    return {"label": "base", **_Means([base], sets).as_dict(), "aes": {}, "sets": of_sets}


def _round_results(one: Round, base: _Means | None, holds: Callable[[Record], bool]) -> dict[str, Any]:
    sets = list(by_set(one.runs[0].records))
    means = _Means(one.runs, sets)
    return {
        "label": one.label,
        "group": one.group,
        "name": one.name,
        "place": one.place,
        "seeds": len(one.runs),
        **means.as_dict(),
        "aes": {length: base and means.aes(base, length) for length in ("tokens", "characters")},
        "sets": {name: _set_results(one.runs, name, holds) for name in sets},
    }


def _set_results(runs: Sequence[Evaluated], name: str, holds: Callable[[Record], bool]) -> dict[str, Any]:
    """Means of a set; its turns, lengths of turns and phrases over all replies."""
    records = [record for run in runs for record in by_set(run.records)[name]]
    turns = [len(record["turns"]) for record in records]
    thoughts: dict[str, float | None] = {}
    for role in Role:
        of_role = [turn for record in records for turn in record["turns"] if turn["role"] == role.value]
        for unit, size in (("tokens", lambda turn: turn["num_tokens"]), ("characters", lambda turn: len(turn["text"]))):
            thoughts[f"{role.value}_{unit}"] = float(fmean(map(size, of_role))) if of_role else None
    return {
        "problems": len({record["index"] for record in records}),
        **_Means(runs, [name]).as_dict(),
        "turns": {"min": min(turns), "mean": fmean(turns), "max": max(turns)},
        "thoughts": thoughts,
        "phrase_share": fmean(map(holds, records)),
        "rethink_share": fmean(map(has_rethink, records)),
    }


# --- output ---------------------------------------------------------------------------------------------------------


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, form: str = "{:.0f}") -> str:
    return "" if value is None else form.format(value)


def _between(row: Mapping[str, Any]) -> str:
    return f"{_percent(row['accuracy'])} ({_percent(row['accuracy_low'])} to {_percent(row['accuracy_high'])})"


def _score(score: Mapping[str, float] | None, short: bool) -> str:
    if score is None:
        return ""
    return f"{score['mean']:.2f}" + ("" if short else f" ({score['low']:.2f} to {score['high']:.2f})")


def _main_table(results: Mapping[str, Any], *, short: bool) -> tuple[list[str], list[list[str]]]:
    """Table 2: head and rows. ``short`` is for a terminal: no intervals, and of the paper's rows only our rounds."""
    rounds, base = results["rounds"], results["base"]
    sets = list(rounds[0]["sets"])
    accuracy = (lambda row: _percent(row["accuracy"])) if short else _between
    head = ["round", *sets, "mean", "tokens", "chars", *(["AES", "AES, chars"] if base else [])]
    lines = []
    for row in [*([base] if base else []), *rounds]:
        cells = [row["label"], *(accuracy(row["sets"][name]) for name in sets), accuracy(row)]
        cells += [_number(row["tokens"]), _number(row["characters"])]
        lines.append(cells + [_score(row["aes"].get(unit), short) for unit in ("tokens", "characters") if base])
    names = {row["name"] for row in rounds} | {"R1-Distill", "base"}
    for row in results["paper"]:
        if short and row["system"] not in names:
            continue
        family = row["family"].partition("_")[0].rstrip("0123456789") if short else row["family"]
        cells = [f"† {family} {row['system']}", *(_percent(row["sets"].get(name)) for name in sets)]
        cells += [_percent(row["accuracy"]), "", _number(row["length"])]
        lines.append(cells + (["", _number(row["aes"], "{:.2f}")] if base else []))
    return head, lines


def _turns_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Table 10: head and rows."""
    columns = [f"{role.value} {unit}" for unit in ("tokens", "chars") for role in Role]
    head = ["round", "set", "turns: min, mean, max", *columns]
    lines = []
    for row in results["rounds"]:
        for name, of_set in row["sets"].items():
            turns, thoughts = of_set["turns"], of_set["thoughts"]
            lengths = [thoughts[f"{role.value}_{unit}"] for unit in ("tokens", "characters") for role in Role]
            cells = [f"{turns['min']}, {turns['mean']:.2f}, {turns['max']}", *map(_number, lengths)]
            lines.append([row["label"], name, *cells])
    return head, lines


def _phrases_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Table 11: head and rows; in brackets the share of dialogues in which the short role asked for another thought."""
    sets = list(results["rounds"][0]["sets"])
    lines = [
        [
            row["label"],
            *(
                f"{_percent(row['sets'][name]['phrase_share'])} ({_percent(row['sets'][name]['rethink_share'])})"
                for name in sets
            ),
        ]
        for row in results["rounds"]
    ]
    return ["round", *sets], lines


_TABLES = (
    ("accuracy in percent, and length of a reply", functools.partial(_main_table, short=True)),
    ("turns of a dialogue, and mean length of a turn", _turns_table),
    ("percent of replies with a phrase (with a request for a thought)", _phrases_table),
)


def rounds_tables(results: Mapping[str, Any]) -> list[Table]:
    """The tables for a terminal of 80 columns."""
    tables = []
    for title, rows in _TABLES:
        head, lines = rows(results)
        table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        for number, name in enumerate(head):
            lines_of_head = name.replace("_", "\n").replace(", ", "\n")
            table.add_column(lines_of_head, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
        for cells in lines:
            table.add_row(*cells)
        tables.append(table)
    tables[0].caption = " ".join(_notes(results))
    return tables


def _notes(results: Mapping[str, Any]) -> list[str]:
    notes = []
    if results["base"]:
        notes.append(f"AES has the paper's weights, {AES_NAME}, against the base.")
    else:
        notes.append("AES is left out: give --base, an evaluation of the reasoning model by itself.")
    whole = "the paper's rows are left out: no set of theirs was run whole."
    return [*notes, WARNING if results["paper"] else whole[0].upper() + whole[1:]]


def markdown(results: Mapping[str, Any], picture: str | None, *, title: str) -> str:
    """All tables as a Markdown page."""
    quoted = ", ".join(f"“{phrase}”" for phrase in results["phrases"])
    phrases = (
        "Share of replies in which any turn holds one of these phrases, in percent, and in brackets the share in which "
        "the short role asked for another thought. The paper does not publish its phrases, so the shares cannot be set "
        f"beside its Table 11: {quoted}."
    )
    return (
        "\n\n".join(
            [
                f"# {title}",
                "Accuracy in percent with a 95 % bootstrap interval over problems. Tokens and characters are means per "
                "reply, over all turns of both roles. Means over the sets are unweighted. " + " ".join(_notes(results)),
                markdown_table(*_main_table(results, short=False)),
                *([f"![mean accuracy on the grid of rounds]({picture})"] if picture else []),
                "## Turns",
                "Turns of a dialogue, and the mean length of a turn of each role with its tags.",
                markdown_table(*_turns_table(results)),
                "## Phrases of rethinking",
                phrases,
                markdown_table(*_phrases_table(results)),
            ]
        )
        + "\n"
    )


def plot_grids(results: Mapping[str, Any], out: Path, *, title: str = "") -> None:
    """Mean accuracy on the grid of rounds and the path through it (paper, Figure 5): a panel a run, and the paper's."""
    import yaml

    panels: dict[str, dict[tuple[int, int], float]] = {}
    for row in results["rounds"]:
        if row["place"]:
            panels.setdefault(row["group"] or "mean accuracy, %", {})[tuple(row["place"])] = 100 * row["accuracy"]
    paths = {name: sorted(cells, key=sum) for name, cells in panels.items()}
    if results["paper"] and results["paper"][0]["accuracy"] is not None:
        grids = yaml.safe_load(PAPER_ROWS.read_text(encoding="utf-8"))["grid"]
        for family, grid in grids.items():
            name = f"the paper's, {family}"
            panels[name] = {(i, j): value for j, line in enumerate(grid) for i, value in enumerate(line)}
            paths[name] = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2)]
    figure = new_figure(5.2 * len(panels), 4.8)
    figure.suptitle(title)
    for axes, (name, cells) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw_grid(axes, cells, paths[name])
        axes.set_title(name, fontsize=11)
    save_figure(figure, out)


def _draw_grid(axes: Axes, cells: Mapping[tuple[int, int], float], path: Sequence[tuple[int, int]]) -> None:
    """A heat map with its numbers; the path only if each step of it adds one round."""
    width, height = (max(4, *(place[side] for place in cells)) + 1 for side in (0, 1))
    heat = np.full((height, width), math.nan)
    for (i, j), value in cells.items():
        heat[j, i] = value
    axes.imshow(heat, origin="lower", cmap="cividis", aspect="auto")
    middle = (min(cells.values()) + max(cells.values())) / 2
    for (i, j), value in cells.items():
        colour = "black" if value > middle else "white"
        axes.text(i, j, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=10)
    steps = list(itertools.pairwise(path))
    if all((b[0] - a[0], b[1] - a[1]) in ((0, 1), (1, 0)) for a, b in steps):
        for a, b in steps:
            arrow = {"arrowstyle": "-|>", "color": _PATH_COLOUR, "lw": 2.2, "shrinkA": 17, "shrinkB": 17}
            axes.annotate("", xy=b, xytext=a, arrowprops=arrow)
    axes.set(xlabel="rounds of the long role", ylabel="rounds of the short role")
    axes.set_xticks(range(width), [f"L{i}" for i in range(width)])
    axes.set_yticks(range(height), [f"S{j}" for j in range(height)])
