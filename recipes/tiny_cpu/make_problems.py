# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Write this recipe's problems: ``python recipes/tiny_cpu/make_problems.py --out DIR`` → train.parquet, val.parquet."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer
from task import THINKER_STEPS, distinct_problems, solve

from longshort_verl.files.manifest import Artefact
from longshort_verl.problems.write import write_problems
from longshort_verl.types import Problem

SOURCE = "tiny_cpu/arithmetic"
PIPELINE_PROBLEMS = (1200, 512)
"""Number of training and of held-out problems of the whole pipeline."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    num_train: Annotated[int, typer.Option(help="Number of training problems.")] = 2000,
    num_val: Annotated[int, typer.Option(help="Number of held-out problems.")] = 256,
    min_steps: Annotated[int, typer.Option(help="Minimal number of operations of a problem.")] = 2,
    max_steps: Annotated[int, typer.Option(help="Maximal number of operations of a problem.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the problems.")] = 7,
    pipeline: Annotated[
        bool, typer.Option(help="Problems of the pipeline: the length that the thinker was trained on.")
    ] = False,
) -> None:
    """Sample distinct problems and split them; no problem is in both files."""
    if pipeline:
        min_steps = max_steps = THINKER_STEPS
        num_train, num_val = PIPELINE_PROBLEMS
    settings = {"num": [num_train, num_val], "steps": [min_steps, max_steps], "seed": seed}
    with Artefact(out, config=settings) as artefact:
        if artefact.finished:
            return print(artefact.nothing_to_do)
        write(out, num_train, num_val, min_steps, max_steps, seed)
        artefact.finish(counts={"train": num_train, "val": num_val})


def write(out: Path, num_train: int, num_val: int, min_steps: int, max_steps: int, seed: int) -> None:
    """Write both files."""
    chains = distinct_problems(random.Random(seed), num_train + num_val, min_steps, max_steps)
    for split, part in (("val", chains[:num_val]), ("train", chains[num_val:])):
        problems = [
            Problem(prompt=chain, answer=solve(chain).answer, source=SOURCE, index=i) for i, chain in enumerate(part)
        ]
        write_problems(problems, out / f"{split}.parquet", split=split)


if __name__ == "__main__":
    typer.run(main)
