# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Score one chain of thought of a tiny model: which of its thoughts matter?

    VERL_PLATFORM=cpu .venv/bin/python examples/explain_importance.py "3*4-2"

The commands for files and real models are `longshort chunk`, `longshort importance` and `longshort report importance`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from longshort_verl.chains.config import read_importance
from longshort_verl.chains.score import score_chains
from longshort_verl.files.journal import Journal
from longshort_verl.generation.open import open_generator, token_counter
from longshort_verl.report.chains import thoughts_table
from longshort_verl.types import Chain, ChainOutcome, Message, Problem, Sampling

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "tiny_cpu"))


async def main(question: str) -> None:
    """Sample a chain of thought, score it and print the scores."""
    from task import solve

    recipe = ROOT / "recipes" / "tiny_cpu" / "importance.yaml"
    config = read_importance(recipe, [f"model.path={ROOT}/recipes/tiny_cpu/models/solo"])
    problem = Problem(prompt=question, answer=solve(question).answer, source="example", index=0)
    async with open_generator(config.model) as generator:
        messages = [Message(role="user", content=question)]
        reply = await generator.generate(messages, Sampling(max_tokens=2500, temperature=1.0, seed=3))
        print(f"{question} = {problem.answer} (mod 10, from left to right). The model wrote:\n\n{reply.text}\n")
        chain = Chain(key="1", outcome=ChainOutcome.READ, problem=problem, text=reply.text)
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl", {}) as journal:
            (chain,) = await score_chains([chain], config, generator, journal, token_counter(config.model))
    if chain.cost is None or not chain.scores:
        sys.exit(f"not scored: {chain.outcome.value}: {chain.detail}")
    Console().print(thoughts_table(chain))
    cost = chain.cost
    print(f"{cost.num_rollouts} rollouts, {cost.num_tokens} tokens written, {cost.hit_rate or 0:.0%} of prompts cached")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "3*4-2"))
