# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The records of ``longshort evaluate``, one line per reply: reads, writes, summarises and regrades them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from longshort_verl.dialogue import parse_turn
from longshort_verl.evaluation.run import Grader, grade_record
from longshort_verl.evaluation.solo import EstimateOutcome
from longshort_verl.files.atomic import write_json
from longshort_verl.files.jsonl import read_jsonl, write_jsonl
from longshort_verl.files.manifest import read_manifest, total_seconds
from longshort_verl.problems.sets import PUBLISHED
from longshort_verl.types import Role, StopReason

REFERENCE = "solo"
"""The system that the others are compared with: the single model."""

Record = Mapping[str, Any]
"""One reply, or dialogue, with its grade, as JSON values."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One system of one evaluation folder."""

    system: str
    folder: Path
    records: Sequence[Record]
    """One per problem and sample, in their order."""
    seed: int | None = None
    """Seed of the run, from the manifest; None without one."""

    def mean(self, value: Callable[[Record], float]) -> float:
        """Mean over the sets of the mean over the replies of a set."""
        return fmean(fmean(map(value, records)) for records in by_set(self.records).values())


def by_set(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by problem set, in the order of the sets."""
    sets: dict[str, list[Record]] = {}
    for record in records:
        sets.setdefault(record.get("set", ""), []).append(record)
    return sets


def parts_of_sets(names: Iterable[str]) -> list[str]:
    """The names that are of a part of a set (:func:`part_name`)."""
    return [name for name in names if _PART.search(name)]


def part_name(name: str, limit: int, size: int) -> str:
    """Name of the first ``limit`` of the ``size`` problems of a set, which no table or report can take for the set."""
    return f"{name} (first {limit} of {size})"


_PART = re.compile(r" \(first \d+ of \d+\)$")


def read_evaluations(named: Iterable[tuple[str, Path]]) -> list[Evaluated]:
    """The systems of evaluation folders.

    A label names the pair of its folder, or the single model in a folder without a pair.

    Raises:
        FileNotFoundError: a folder holds no evaluation.
        ValueError: a record cannot be read, a folder is given twice, or systems were asked different problems.
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
            seed = read_source(folder)["seed"]
            found.append(Evaluated(system=system, folder=folder, records=read_records(path), seed=seed))
    asked = [_asked(one.records) for one in found]
    for one, problems in zip(found, asked, strict=True):
        # Numbers of samples may differ.
        same = {key[:2] for key in problems} == {key[:2] for key in asked[0]}
        if not same or any(asked[0].get(key, text) != text for key, text in problems.items()):
            raise ValueError(
                f"{one.folder} has other problems than {found[0].folder}; compare evaluations of the same file"
            )
    return found


def _asked(records: Sequence[Record]) -> dict[tuple[str, int, int], tuple[str, str]]:
    return {
        (record.get("set", ""), record["index"], record.get("sample", 0)): (record["problem"], record["gold"])
        for record in records
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of one file.

    Raises:
        ValueError: a line is not a record, a reply occurs twice, or the file is empty.
    """
    rows = []
    for number, row in read_jsonl(path):
        try:
            rows.append({**row, "correct": bool(row["correct"]), "num_tokens": int(row["num_tokens"])})
            _ = row["problem"], row["gold"], row["index"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}, is not a record of `longshort evaluate`: {error!r}") from error
    if not rows:
        raise ValueError(f"{path} holds no record")
    if len(_asked(rows)) < len(rows):
        raise ValueError(f"{path} holds the same problem and sample twice")
    return rows


def read_source(folder: Path) -> dict[str, Any]:
    """Where an evaluation comes from, by its manifest: ``command``, ``commit``, ``seed``, ``machine``, and ``minutes``
    with those of everything that the models were made from. All None without a manifest.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return dict.fromkeys(("command", "commit", "seed", "minutes", "machine"))
    return {
        **{key: manifest[key] for key in ("command", "commit", "machine")},
        "seed": manifest["config"]["sampling"]["seed"],
        "minutes": round(total_seconds(manifest) / 60, 1),
    }


def write_evaluation(
    out: Path, records: Mapping[str, Sequence[Record]], results: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Write ``<system>.jsonl`` for each system, and ``results.json`` with the settings."""
    for system, of_system in records.items():
        write_jsonl(out / f"{system}.jsonl", ({"system": system, **record} for record in of_system))
    write_json(out / "results.json", {"systems": results, "settings": settings})


def answer_text(record: Record) -> str:
    """The graded text: a single model's whole reply, or the body of a pair's last turn; empty if truncated."""
    if record["stop_reason"] != StopReason.ANSWERED.value:
        return ""
    if "turns" in record:
        return parse_turn(Role.SHORT, record["turns"][-1]["text"]).body
    return record["text"]


def grade_again(record: Record, grade: Grader) -> dict[str, Any]:
    """The record with a new grade of its reply."""
    verdict = grade(answer_text(record), record["gold"])
    return {**record, **grade_record(verdict, StopReason(record["stop_reason"]))}


def has_rethink(record: Record) -> bool:
    """Whether the short role asked for another thought in a pair's dialogue."""
    return _num_rethinks(record) > 0


def _num_rethinks(record: Record) -> int:
    return sum(turn["well_formed"] and turn["text"].endswith("</rethink>") for turn in record["turns"])


def well_formed_share(records: Sequence[Record], role: Role) -> float | None:
    """Share of a role's turns that follow the protocol; None without a turn of it."""
    formed = [turn["well_formed"] for record in records for turn in record["turns"] if turn["role"] == role.value]
    return fmean(formed) if formed else None


def is_cut_off(record: Record) -> bool:
    """Whether a token limit ended the reply."""
    return record["stop_reason"] in (StopReason.TRUNCATED, StopReason.TOKEN_BUDGET, StopReason.CONTEXT)


def is_unparseable(record: Record) -> bool:
    """Whether a reply that ended by itself holds no readable answer."""
    return record["stop_reason"] == StopReason.ANSWERED.value and bool(record.get("fault"))


def num_characters(record: Record) -> int:
    """Characters that the models wrote, summed over turns or requests; an early exit's include the forcing text."""
    texts = record["turns"] if "turns" in record else [record, record.get("estimate", {"text": ""})]
    return sum(len(one["text"]) for one in texts)


def summarize(records: Sequence[Record]) -> dict[str, float]:
    """Means over all records. Replies lost to an engine count as wrong; ``engine_error`` is their share."""
    means = {
        "num_problems": float(len({(record["index"], record.get("set")) for record in records})),
        "num_replies": float(len(records)),
        "accuracy": fmean(record["correct"] for record in records),
        "num_tokens": fmean(record["num_tokens"] for record in records),
        "num_characters": fmean(map(num_characters, records)),
        "truncated": fmean(map(is_cut_off, records)),
        "unparseable": fmean(map(is_unparseable, records)),
        "engine_error": fmean(record["stop_reason"] == StopReason.ENGINE_ERROR.value for record in records),
    }
    for right in (True, False):
        lengths = [record["num_tokens"] for record in records if record["correct"] is right]
        if lengths:
            means["num_tokens_right" if right else "num_tokens_wrong"] = fmean(lengths)
    if "estimate" in records[0]:
        estimates = [record["estimate"] for record in records]
        means["num_tokens_estimate"] = fmean(estimate["num_tokens"] for estimate in estimates)
        for outcome in EstimateOutcome:
            means[f"estimate_{outcome.value}"] = fmean(one["outcome"] == outcome.value for one in estimates)
    if "turns" not in records[0]:
        return means
    for name in ("num_tokens_long", "num_tokens_short", "num_tokens_prompts", "num_tokens_reprefilled"):
        means[name] = fmean(record[name] for record in records)
    means["num_turns"] = fmean(len(record["turns"]) for record in records)
    for role in Role:
        if (share := well_formed_share(records, role)) is not None:
            means[f"well_formed_{role.value}"] = share
    return means | {"num_rethinks": fmean(map(_num_rethinks, records))}


def _accuracy_by_letter(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy by the letter of the right choice; large differences show a bias for a letter."""
    grades: dict[str, list[bool]] = {}
    for record in records:
        grades.setdefault(record["gold"], []).append(record["correct"])
    return {letter: fmean(grades[letter]) for letter in sorted(grades)}


def evaluation_results(records: Sequence[Record], budgets: Sequence[int]) -> dict[str, Any]:
    """Results of one system: those of each problem set (:func:`summarize`) under ``sets``, and the means of the sets.

    ``accuracy_within`` holds the accuracy under each of ``budgets``, hard caps on the tokens of a reply.
    """
    sets: dict[str, dict[str, Any]] = {}
    for name, of_set in by_set(records).items():
        within = {str(cap): fmean(r["correct"] and r["num_tokens"] <= cap for r in of_set) for cap in budgets}
        sets[name] = {**summarize(of_set), "accuracy_within": within}
        if name in PUBLISHED and PUBLISHED[name].choices:
            sets[name]["accuracy_by_letter"] = _accuracy_by_letter(of_set)
    means: dict[str, Any] = {}
    for name in dict.fromkeys(key for of_set in sets.values() for key in of_set):
        values = [of_set[name] for of_set in sets.values() if name in of_set]
        if isinstance(values[0], float):
            means[name] = sum(values) if name in ("num_problems", "num_replies") else sum(values) / len(values)
    withins = [of_set["accuracy_within"] for of_set in sets.values()]
    means["accuracy_within"] = {str(cap): sum(of[str(cap)] for of in withins) / len(sets) for cap in budgets}
    return {**means, "sets": sets}
