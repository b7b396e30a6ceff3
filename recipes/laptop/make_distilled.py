# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Write whole chains for plain SFT: ``python recipes/laptop/make_distilled.py --out DIR`` → train.parquet, val.parquet.

What the paper's R1-Distill is to R1, a model that learns them is to this recipe's teacher. verl's own SFT trainer reads
the files.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer
from datasets import Dataset

from longshort_verl.chains.files import usable_chains
from longshort_verl.evaluation.config import read_evaluate
from longshort_verl.files.manifest import Artefact
from longshort_verl.types import Chain

HERE = Path(__file__).parent
CHAINS = HERE / "chains" / "importance"
"""Scored or not, chains are whole in each file of them."""
VAL_SHARE = 0.1
"""Share of the problems that is held out, as in cold_start.yaml."""


def main(
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    chains: Annotated[Path, typer.Option(help="The teacher's chains.")] = CHAINS,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
) -> None:
    """Each right chain after its problem, in the prompt of the evaluation; no problem is in both files."""
    suffix = read_evaluate(HERE / "evaluate.yaml", []).sampling.solo_suffix
    with Artefact(out, config={"seed": seed, "suffix": suffix}, inputs={"chains": chains}) as artefact:
        if artefact.finished:
            return print(artefact.nothing_to_do)
        right = [chain for chain in usable_chains(chains) if chain.problem]
        problems = sorted({_problem(chain) for chain in right})
        held_out = set(random.Random(seed).sample(problems, round(VAL_SHARE * len(problems))))
        counts = {}
        for split in ("train", "val"):
            rows = [
                {"messages": [_message("user", _problem(chain) + suffix), _message("assistant", chain.text)]}
                for chain in right
                if (_problem(chain) in held_out) == (split == "val")
            ]
            Dataset.from_list(rows).to_parquet(out / f"{split}.parquet")
            counts[split] = len(rows)
        artefact.finish(counts=counts)


def _problem(chain: Chain) -> str:
    assert chain.problem
    return chain.problem.prompt


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


if __name__ == "__main__":
    typer.run(main)
