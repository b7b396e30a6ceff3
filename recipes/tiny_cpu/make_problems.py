# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Write this recipe's problems: ``python recipes/tiny_cpu/make_problems.py --out DIR`` → train.parquet, val.parquet."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer
from task import THINKER_STEPS, distinct_problems, solve

from longshort_verl.problems.write import write_problems
from longshort_verl.types import Problem

SOURCE = "tiny_cpu/arithmetic"
PIPELINE_PROBLEMS = (1200, 512)
"""To learn from and held out, for the whole pipeline."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    num_train: Annotated[int, typer.Option(help="Problems to learn from.")] = 2000,
    num_val: Annotated[int, typer.Option(help="Held-out problems.")] = 256,
    min_steps: Annotated[int, typer.Option(help="Fewest operations of a chain.")] = 2,
    max_steps: Annotated[int, typer.Option(help="Most operations of a chain.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the problems.")] = 7,
    pipeline: Annotated[bool, typer.Option(help="Chains of the length that the thinker thinks about.")] = False,
) -> None:
    """Sample distinct chains and split them; no problem is on both sides."""
    if pipeline:
        min_steps = max_steps = THINKER_STEPS
        num_train, num_val = PIPELINE_PROBLEMS
    chains = distinct_problems(random.Random(seed), num_train + num_val, min_steps, max_steps)
    for split, part in (("val", chains[:num_val]), ("train", chains[num_val:])):
        problems = [
            Problem(prompt=chain, answer=solve(chain).answer, source=SOURCE, index=i) for i, chain in enumerate(part)
        ]
        write_problems(problems, out / f"{split}.parquet", split=split)


if __name__ == "__main__":
    typer.run(main)
