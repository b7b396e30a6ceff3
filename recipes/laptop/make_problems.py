# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Write this recipe's problems: ``python recipes/laptop/make_problems.py --out DIR`` → train.parquet, val.parquet.

SVAMP and the short problems of GSM8K: problems that people wrote, with one to three calculations.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from datasets import concatenate_datasets, load_dataset

from longshort_verl.files.manifest import Artefact
from longshort_verl.problems.read import problems_from_rows
from longshort_verl.problems.values import after_final_mark
from longshort_verl.problems.write import write_problems

SVAMP, GSM8K = "ChilleD/SVAMP", "openai/gsm8k"
"""Names on the Hugging Face hub."""
NUM_SVAMP = {"train": 326, "val": 200}
NUM_GSM8K = {"train": 250, "val": 100}
SVAMP_ROWS = {"train": range(750), "val": range(750, 1000)}
"""Rows from which SVAMP's problems are drawn. Neighbours vary one problem, so the held-out ones lie apart."""
MAX_STEPS, MAX_CHARS = 3, 250
"""A short problem of GSM8K has at most so many calculations in its solution, and characters in its question."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    svamp: Annotated[str, typer.Option(envvar="SVAMP", help="SVAMP: a name on the hub, or its JSON file.")] = SVAMP,
    gsm8k: Annotated[
        str, typer.Option(envvar="GSM8K", help="GSM8K: a name on the hub, or the folder of gsm8k_{train,test}.jsonl.")
    ] = GSM8K,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    suffix: Annotated[str, typer.Option(help="Text after each problem, for a model that learns by itself.")] = "",
    pipeline: Annotated[bool, typer.Option(help="As examples/pipeline.sh asks; there are no others.")] = True,
) -> None:
    """Draw the problems; none is in both files. The held-out ones of GSM8K are of its test split."""
    with Artefact(out, config={"svamp": NUM_SVAMP, "gsm8k": NUM_GSM8K, "seed": seed, "suffix": suffix}) as artefact:
        if artefact.finished:
            return print(artefact.nothing_to_do)
        counts = {}
        for split in ("train", "val"):
            rows = [*draw_svamp(svamp, split, seed), *draw_gsm8k(gsm8k, split, seed)]
            problems = problems_from_rows(rows, where=split, source=None)
            problems = [replace(one, prompt=one.prompt + suffix) for one in problems]
            write_problems(problems, out / f"{split}.parquet", split=split)
            counts[split] = len(rows)
        artefact.finish(counts=counts)


def draw_svamp(given: str, split: str, seed: int) -> list[dict[str, Any]]:
    """Problems of SVAMP, whose rows are put into the order of their names, whichever way they were split."""
    local = Path(given).is_file()
    data = load_dataset("json", data_files=given) if local else load_dataset(given)
    rows = sorted(concatenate_datasets(list(data.values())), key=lambda row: int(row["ID"].split("-")[1]))
    drawn = [
        number for number in random.Random(seed).sample(range(len(rows)), len(rows)) if number in SVAMP_ROWS[split]
    ]
    return [
        {
            "problem": f"{rows[number]['Body'].strip().rstrip('.')}. {rows[number]['Question'].strip()}",
            "answer": rows[number]["Answer"],
            "data_source": "svamp",
        }
        for number in drawn[: NUM_SVAMP[split]]
    ]


def draw_gsm8k(given: str, split: str, seed: int) -> list[dict[str, Any]]:
    """Short problems of GSM8K, of its test split to be held out."""
    name = {"train": "train", "val": "test"}[split]
    local = Path(given) / f"gsm8k_{name}.jsonl"
    if local.is_file():
        rows = load_dataset("json", data_files=str(local), split="train")
    else:
        rows = load_dataset(given, "main", split=name)
    short = [r for r in rows if r["answer"].count("<<") <= MAX_STEPS and len(r["question"]) <= MAX_CHARS]
    return [
        {"problem": row["question"], "answer": after_final_mark(row["answer"]), "data_source": "gsm8k"}
        for row in random.Random(seed).sample(short, len(short))[: NUM_GSM8K[split]]
    ]


if __name__ == "__main__":
    typer.run(main)
