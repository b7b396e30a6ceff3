# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The report of a set of evaluations: finds them, compares them, writes all pages, and packs the dialogues."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from longshort_verl.evaluation.compare import Comparison, compare, compare_sets
from longshort_verl.evaluation.records import REFERENCE, Evaluated, parts_of_sets, read_evaluations
from longshort_verl.files.atomic import write_atomically, write_json, write_text
from longshort_verl.files.manifest import MANIFEST
from longshort_verl.report.comparison import MAIN, plot_comparison
from longshort_verl.report.evaluation import comparison_table, markdown, run_rows
from longshort_verl.report.page import plot_turns, turn_counts, write_page

_FIRST = ("", *MAIN[1:])
"""Labels that a report lists first."""


def write_results(
    named: Iterable[tuple[str, Path]],
    out: Path,
    *,
    title: str,
    note: Path | None,
    against: str | None,
    html: int,
    pack: bool,
) -> tuple[list[Table], list[Path]]:
    """Compare evaluations and write ``RESULTS.md``, ``results.json`` and ``results.png``.

    ``named`` is as in :func:`find_evaluations`, ``against`` a second reference, ``html`` the number of dialogues per
    system in ``results.html`` (0 writes none). ``pack`` writes ``results/<seed>.tar.xz`` with all dialogues.
    Returns tables for the terminal, and the files. Titles name a part of a set, which is no figure of the set.

    Raises:
        FileNotFoundError, ValueError: there is no evaluation, or the evaluations cannot be compared.
    """
    with tempfile.TemporaryDirectory() as scratch:
        runs = find_evaluations(named, Path(scratch))
        evaluated = read_evaluations(runs)
        found, rows, sets = compare(evaluated), run_rows(evaluated), compare_sets(evaluated)
        other = _compare_with(evaluated, against)
        parts = ", ".join(parts_of_sets(sets))
        title = f"{title}: {parts}" if parts else title
        text = note.read_text(encoding="utf-8") if note else ""
        page, results, picture = out / "RESULTS.md", out / "results.json", out / "results.png"
        written = [page, results, picture]
        plot_comparison(found, picture, title=title, against=other)
        write_json(results, rows)
        write_text(page, markdown(found, rows, picture.name, title=title, note=text, against=other))
        if html:
            pictures = [("accuracy against tokens, accuracy under a budget of tokens, and differences", picture)]
            if counts := turn_counts(evaluated):
                pictures.append(("share of dialogues by number of turns", Path(scratch) / "turns.png"))
                plot_turns(counts, pictures[-1][1])
            written.append(out / "results.html")
            write_page(evaluated, found, sets, rows, pictures, written[-1], title=title, num_dialogues=html)
        if pack:
            written += _pack(runs, {one.folder: one.seed for one in evaluated}, out / "results")
    tables = [comparison_table(of_set, name) for name, of_set in sets.items()] if len(sets) > 1 else []
    tables.append(comparison_table(found, "mean of the sets" if len(sets) > 1 else parts))
    return tables + ([comparison_table(other, f"against {against}")] if other else []), written


def find_evaluations(named: Iterable[tuple[str, Path]], scratch: Path) -> list[tuple[str, Path]]:
    """Label and folder of each evaluation.

    A folder that holds an evaluation is taken as it is. In any other folder, and in packed dialogues (``.tar.xz``),
    evaluations are found by their manifests and named after their folders as ``examples/pipeline.sh`` lays them out:
    ``solo``, ``pair/cold_start_evaluation``, ``<ablation>/evaluation``. The cold start of an ablation is left out.
    ``named`` holds a label, or "", and a path of each; archives are unpacked into ``scratch``.
    """
    given: list[tuple[str, Path]] = []
    found: list[tuple[str, Path]] = []
    for label, path in named:
        if path.name.endswith(".tar.xz"):
            with tarfile.open(path) as archive:
                archive.extractall(scratch / path.name, filter="data")
            path = scratch / path.name
        folders = [file.parent for file in sorted(path.rglob(MANIFEST)) if _holds_records(file.parent)]
        if label or _holds_records(path) or not folders:
            given.append((label, path))
        else:
            found += [(name, folder) for folder in folders if (name := _label(folder)) is not None]
    order = {name: place for place, name in enumerate(_FIRST)}
    return given + sorted(found, key=lambda one: (order.get(one[0], len(order)), one[0]))


def _holds_records(folder: Path) -> bool:
    return any((folder / f"{name}.jsonl").is_file() for name in ("pair", REFERENCE))


def _label(folder: Path) -> str | None:
    if folder.name == "cold_start_evaluation":
        return "cold_start" if folder.parent.name == "pair" else None
    name = folder.parent.name if folder.name == "evaluation" else folder.name
    return "" if name == REFERENCE else name


def _pack(runs: Sequence[tuple[str, Path]], seeds: dict[Path, int | None], out: Path) -> list[Path]:
    """One archive per seed, from which :func:`find_evaluations` reads the same evaluations."""
    places = {"": REFERENCE, "cold_start": "pair/cold_start_evaluation"}
    written = []
    for seed in dict.fromkeys(seeds[folder] for _, folder in runs):
        files = {
            f"{seed}/{places.get(label, f'{label}/evaluation')}/{file.name}": file
            for label, folder in runs
            if seeds[folder] == seed
            for file in (*folder.glob("*.jsonl"), folder / MANIFEST)
        }

        def write(path: Path, files: dict[str, Path] = files) -> None:
            with tarfile.open(path, "w:xz") as archive:
                for name in sorted(files):
                    archive.add(
                        files[name],
                        name,
                        filter=lambda info: info.replace(uid=0, gid=0, uname="", gname="", deep=False),
                    )

        written.append(out / f"{seed}.tar.xz")
        write_atomically(written[-1], write)
    return written


def _compare_with(evaluated: Sequence[Evaluated], against: str | None) -> list[Comparison]:
    """Compare with a system other than the single model, on the seeds that both have."""
    if against is None:
        return []
    seeds = {one.seed for one in evaluated if one.system == against}
    if not seeds:
        systems = ", ".join(dict.fromkeys(one.system for one in evaluated))
        raise ValueError(f"there is no system {against!r} to compare with; there are {systems}")
    return compare([one for one in evaluated if one.seed in seeds and one.system != REFERENCE], against)
