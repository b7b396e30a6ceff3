# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Sample chains of thought of the solo model: ``python recipes/tiny_cpu/make_traces.py --out traces.jsonl``."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from task import SOLO_STEPS, STEP_GAP, sample_problem, solve

from longshort_verl.chains.config import read_importance
from longshort_verl.generation.base import Generator
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.types import Message, Sampling

HERE = Path(__file__).resolve().parent
MODEL = HERE / "models" / "solo"
RECIPE = HERE / "importance.yaml"
MAX_TOKENS = 2500


async def write_traces(generator: Generator, number: int, seed: int) -> list[dict[str, str]]:
    """Chains of thought that are right and end with a check, as rows of ``problem``, ``answer`` and ``trace``.

    Problems that end in a product are excluded: a model can guess the answer from one factor (``6*6*8``, ``4-6*0``), so
    the step before the product is as needless as a check.
    """
    rng = random.Random(seed)
    rows: list[dict[str, str]] = []
    while len(rows) < number:
        problems = [sample_problem(rng, SOLO_STEPS, SOLO_STEPS) for _ in range(2 * number)]
        problems = [problem for problem in problems if problem[-2] != "*"][:number]
        sampling = Sampling(max_tokens=MAX_TOKENS, temperature=1.0)
        replies = await asyncio.gather(
            *(
                generator.generate([Message(role="user", content=text)], replace(sampling, seed=rng.randrange(2**31)))
                for text in problems
            )
        )
        for problem, reply in zip(problems, replies, strict=True):
            if reply.error:
                raise RuntimeError(f"{problem}: {reply.error}")
            answer = solve(problem).answer
            lines = reply.text.removesuffix(f"</think>\\boxed{{{answer}}}").split(STEP_GAP)
            if lines[-1] == f"check {answer}":
                rows.append({"problem": problem, "answer": answer, "trace": reply.text})
    return rows[:number]


def main(
    out: Annotated[Path, typer.Option(help="JSONL to write.")],
    number: Annotated[int, typer.Option(help="Number of chains to write.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of problems and sampling.")] = 1,
) -> None:
    """Sample chains of thought of the solo model and write those that are right and complete."""

    async def run() -> list[dict[str, str]]:
        async with VLLMGenerator(str(MODEL), read_importance(RECIPE, []).model.vllm) as generator:
            return await write_traces(generator, number, seed)

    rows = asyncio.run(run())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} chains of thought in {out}")


if __name__ == "__main__":
    typer.run(main)
