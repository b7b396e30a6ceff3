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
"""GSM8K or MATH in verl's parquet schema, for the pair and for a single model.

    python3 create_dataset.py --dataset gsm8k --out ~/data/longshort/gsm8k
    python3 create_dataset.py --dataset gsm8k --split test --out ~/data/longshort/gsm8k
    python3 create_dataset.py --dataset math --file MATH_train.jsonl --out ~/data/longshort/math   # without a network

The training split gives ``train.parquet`` and ``val.parquet``, which is held out from it so that no decision uses the
test split. ``single_train.parquet`` and ``single_val.parquet`` hold the same problems with a request for a box,
which the pair has in its system prompts. The test split gives ``test.parquet``. MATH is tested on MATH-500, by name:
``longshort evaluate math500``. manifest.json records the settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longshort_verl.config.compose import CONFIG, compose_config
from longshort_verl.files.manifest import Artefact
from longshort_verl.grading import check_gold
from longshort_verl.problems.read import problems_from_rows
from longshort_verl.problems.sets import TRAINING, PublicSet
from longshort_verl.problems.write import split_problems, write_problems
from longshort_verl.types import Problem

LOADERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


DATASETS: Mapping[str, PublicSet] = {"gsm8k": TRAINING["gsm8k_train"], "math": TRAINING["math_train"]}
"""The sets by name."""


def load_rows(dataset: PublicSet, split: str, file: Path | None) -> Sequence[Mapping[str, Any]]:
    """Rows of the set on the hub, or of a local copy with the set's own columns.

    Raises:
        ValueError: the copy is not a readable JSON, JSONL or Parquet file, or the hub cannot be reached.
    """
    from datasets import load_dataset

    if file is not None and (file.suffix.lower() not in LOADERS or not file.is_file()):
        raise ValueError(f"--file is {file}; give a file that exists and ends in one of {', '.join(LOADERS)}")
    try:
        if file is not None:
            return load_dataset(LOADERS[file.suffix.lower()], data_files=str(file), split="train").to_list()
        return load_dataset(dataset.hub, dataset.config, split=split).to_list()
    except Exception as error:  # the readers of datasets and the hub's client raise many types
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file or dataset.hub} cannot be loaded: {reason}; give a local copy by --file") from error


def problems_of(
    rows: Sequence[Mapping[str, Any]], dataset: PublicSet, where: str
) -> tuple[list[Problem], dict[int, str]]:
    """The problems that can be graded, and by row the reasons why others cannot.

    Raises:
        ValueError: a column is missing, or no problem can be graded.
    """
    columns = dataset.solutions
    missing = [name for name in (columns.problem, columns.solution) if not rows or name not in rows[0]]
    if missing:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise ValueError(f"{where} has no column {' and no column '.join(missing)}; it has {found}")
    kept: dict[int, Mapping[str, str]] = {}
    left_out: dict[int, str] = {}
    for index, row in enumerate(rows):
        answer = columns.answer_of(row[columns.solution] or "")
        try:
            if answer is None:
                raise ValueError("its solution has no answer")
            check_gold(answer)
        except ValueError as error:
            left_out[index] = str(error)
        else:
            kept[index] = {"problem": row[columns.problem], "answer": answer}
    if not kept:
        raise ValueError(f"{where}: no row can be graded; the first one: {left_out[0]}")
    problems = problems_from_rows(list(kept.values()), where=where, source=dataset.hub)
    return [replace(problem, index=index) for index, problem in zip(kept, problems, strict=True)], left_out


def for_single_model(problems: Sequence[Problem]) -> list[Problem]:
    """The problems with the suffix that `longshort evaluate` adds for a single model."""
    suffix = compose_config(CONFIG, "longshort_evaluate").sampling.solo_suffix
    return [replace(problem, prompt=problem.prompt + suffix) for problem in problems]


def create(name: str, split: str, out: Path, file: Path | None, num_val: int, seed: int) -> None:
    """Write a split of a set into a folder.

    Raises:
        ValueError: the rows cannot be loaded or graded, or are too few.
    """
    dataset = DATASETS[name]
    where = str(file or dataset.hub)
    problems, left_out = problems_of(load_rows(dataset, split, file), dataset, where)
    parts = {split: problems}
    if split == "train":
        train, val = split_problems(problems, num_validation=num_val, seed=seed)
        parts = {
            "train": train,
            "val": val,
            "single_train": for_single_model(train),
            "single_val": for_single_model(val),
        }
    settings = {"dataset": dataset.hub, "split": split, "num_val": num_val, "seed": seed}
    with Artefact(out, config=settings, inputs={"rows": file or dataset.hub}, anew=True) as artefact:
        for part, of_part in parts.items():
            path = write_problems(of_part, out / f"{part}.parquet", split=part)
            print(f"{len(of_part)} problems in {path}")
        artefact.finish(
            counts={"rows": {part: len(rows) for part, rows in parts.items()}, "left_out": sorted(left_out)}
        )
    for index, reason in left_out.items():
        print(f"left out, row {index}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(DATASETS), required=True)
    parser.add_argument("--split", choices=["train", "test"], default="train")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--file", type=Path, help="local copy of the split, in the set's own columns")
    parser.add_argument("--num_val", type=int, default=256, help="problems held out from the training split")
    parser.add_argument("--seed", type=int, default=0, help="of what is held out")
    given = parser.parse_args()
    try:
        out = given.out.expanduser()
        create(given.dataset, given.split, out, given.file, num_val=given.num_val, seed=given.seed)
    except ValueError as error:
        sys.exit(f"create_dataset.py: {error}")


if __name__ == "__main__":
    main()
