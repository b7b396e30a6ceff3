# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The toy task: chains of one-digit arithmetic, left to right, modulo 10, and dialogues that solve them.

``8+2+2*6-5`` is ((((8+2)+2)*6)-5) mod 10, computed one step at a time. The long role writes a few steps per turn and,
like a reasoning model that wastes tokens, repeats about half of them as a check that checks nothing; some steps are
wrong. The short role asks for another thought until all steps are written and then answers. The cold start thus leaves
two things to learn: accuracy and brevity. All code that knows the task is in this folder.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

STEPS_PER_THOUGHT = 3
"""Maximal number of steps in one turn of the long role."""
SOLO_STEPS = 2
"""Number of operations in the problems of the model ``solo``."""
RECHECK_SHARE = 0.99
"""Probability of another check of the same step in a chain of ``solo``."""
THINKER_STEPS = 2
"""Number of operations in the problems of the whole pipeline."""
THINKER_RECHECK_SHARE = 0.85
"""Probability of another check in a chain of ``thinker``: chains need six to ten times the tokens of their steps."""
MAX_CHECKS = 60
"""Maximal number of checks of one step in a long chain of thought."""
HEAD_SLIP_SHARE = 0.2
"""Share of wrong steps among those that are computed without being written, after a chain stops early."""
STEP_GAP = "\n\n"
"""Separator of the steps of a long chain of thought: a blank line, as in reasoning models."""
CHECK_SHARE = 0.5
"""Share of steps that the long role's cold-start data repeats as a check."""
SLIP_SHARE = 0.12
"""Share of steps with a wrong result in the long role's cold-start data; later steps continue from that result."""

_OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


@dataclass(frozen=True)
class Chain:
    """One problem with its worked steps."""

    problem: str
    """``8+2+2*6-5``."""
    steps: tuple[str, ...]
    """``8+2=0``, ``0+2=2``, …: each begins with the result of the one before."""
    answer: str
    """Result of the last step, one digit."""


def solve(problem: str, rng: random.Random | None = None, slip_share: float = SLIP_SHARE) -> Chain:
    """Compute a chain step by step; with ``rng``, a share ``slip_share`` of the steps has a wrong result."""
    value, steps = int(problem[0]), []
    for operation, digit in zip(problem[1::2], problem[2::2], strict=True):
        result = _OPERATIONS[operation](value, int(digit)) % 10
        if rng is not None and rng.random() < slip_share:
            result = (result + rng.randint(1, 9)) % 10
        steps.append(f"{value}{operation}{digit}={result}")
        value = result
    return Chain(problem=problem, steps=tuple(steps), answer=str(value))


def sample_problem(rng: random.Random, min_steps: int, max_steps: int) -> str:
    """One random chain of ``min_steps`` to ``max_steps`` operations."""
    digits = "0123456789"
    rest = (rng.choice("+-*") + rng.choice(digits) for _ in range(rng.randint(min_steps, max_steps)))
    return rng.choice(digits) + "".join(rest)


def distinct_problems(rng: random.Random, number: int, min_steps: int, max_steps: int) -> list[str]:
    """``number`` different chains."""
    problems: dict[str, None] = {}
    while len(problems) < number:
        problems[sample_problem(rng, min_steps, max_steps)] = None
    return list(problems)


def thoughts(chain: Chain, rng: random.Random) -> Iterator[str]:
    """The turns of the long role: a few steps each, some repeated as a check (``?8+2=0``)."""
    for first in range(0, len(chain.steps), STEPS_PER_THOUGHT):
        written = []
        for step in chain.steps[first : first + STEPS_PER_THOUGHT]:
            written.append(step)
            if rng.random() < CHECK_SHARE:
                written.append(f"?{step}")
        yield f"<think>{' '.join(written)}</think>"


def trace(
    chain: Chain,
    rng: random.Random,
    recheck_share: float,
    cut_share: float = 0.0,
    slip_share: float = HEAD_SLIP_SHARE,
    thinker: bool = False,
) -> str:
    """A long chain of thought of a single model, as wasteful as those of reasoning models.

    Each step is the rest of the problem (``0+2*6-5``, ``2*6-5``, …), followed by checks that check nothing. With
    ``thinker``, the chain also begins with checks of the problem itself, so that first thoughts can be worthless, and
    ends with a blank line, so that a chain that is cut after any thought looks like a complete one.

    A share ``cut_share`` of the chains stops early, after the first step or, with ``thinker``, anywhere. The remaining
    steps are then computed without being written, and a share ``slip_share`` of them is wrong. A model thus learns to
    answer when it is forced to, and to be less accurate the earlier that is.
    """
    lines = []

    def check(left: str) -> None:
        checks = 0
        while checks < MAX_CHECKS and rng.random() < recheck_share:
            lines.append(f"check {left}")
            checks += 1

    if thinker:
        check(chain.problem)
    for number, step in enumerate(chain.steps, start=1):
        left = step[-1] + chain.problem[1 + 2 * number :]
        lines.append(left)
        check(left)
    if rng.random() < cut_share:
        lines = lines[: rng.randrange(0 if thinker else 1, len(lines))]
    left = lines[-1].removeprefix("check ") if lines else chain.problem
    body = "".join(line + STEP_GAP for line in lines) if thinker else STEP_GAP.join(lines)
    return f"<think>{body}</think>\\boxed{{{solve(left, rng, slip_share).answer}}}"


def dialogue(problem: str, rng: random.Random) -> dict[str, list[dict[str, str]]]:
    """One dialogue as each role's own transcript, in verl's ``messages`` schema: ``{"long": […], "short": […]}``.

    The transcripts equal those of ``longshort_verl.dialogue.transcript``; a test compares the two.
    """
    chain = solve(problem, rng)
    long = [{"role": "user", "content": problem}]
    short = []
    turns = list(thoughts(chain, rng))
    for number, thought in enumerate(turns, start=1):
        done = min(number * STEPS_PER_THOUGHT, len(chain.steps))
        result = chain.steps[done - 1][-1]
        last = number == len(turns)
        reply = f"<answer>\\boxed{{{result}}}</answer>" if last else f"<answer>{result}</rethink>"
        long.append({"role": "assistant", "content": thought})
        short.append({"role": "user", "content": f"{problem}\n\n{thought}" if number == 1 else thought})
        short.append({"role": "assistant", "content": reply})
        if not last:
            long.append({"role": "user", "content": reply})
    return {"long": long, "short": short}
