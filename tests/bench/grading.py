# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how many answers a second one core grades, and how long grading holds up an event loop.

Answers are like those of a policy on MATH-500: to each of a list of gold answers (whole numbers, fractions, surds,
points, expressions, in the shares of MATH-500) the answer itself, the same value in another spelling, and the answer of
another problem. The worker's processor time counts as well as the caller's. "First" answers are new to the process;
"repeated" ones are those of a second pass, as the samples of one prompt repeat each other.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from longshort_verl.grading import GradingSettings, grade, warm_up
from tests.bench.results import Result, result

COMMAND = "python -m tests.bench grading"
SETTINGS = GradingSettings(timeout_s=30.0, max_answer_chars=1000, max_workers=1)
REPETITIONS = 3
NUM_SAMPLES = 8
"""Answers to each problem, of which half are the gold answer's own text."""


def problems(seed: int) -> list[tuple[str, str]]:
    """Gold answers in the shares of MATH-500, each with another spelling of its value."""
    whole = [(str(n), f"{n}\\text{{ cm}}" if n % 2 else f"{n}.0") for n in range(seed, seed + 63)]
    shares = [(f"\\frac{{{n}}}{{{n + 1}}}", f"\\dfrac{{{2 * n}}}{{{2 * n + 2}}}") for n in range(seed, seed + 14)]
    angles = [(f"{n}^\\circ", f"{n}°") for n in range(seed, seed + 3)]
    surds = [(f"{n}\\sqrt{{13}}", f"\\sqrt{{{13 * n * n}}}") for n in range(seed, seed + 6)]
    points = [(f"({n}, {n - 9})", f"\\left({n},{n - 9}\\right)") for n in range(seed, seed + 5)]
    polynomials = [(f"x^2 + {n}x - {n + 1}", f"(x - 1)(x + {n + 1})") for n in range(seed, seed + 5)]
    multiples = [(f"{n}\\pi", f"\\pi \\cdot {n}") for n in range(seed, seed + 2)]
    complex_numbers = [(f"{n} - 5i", f"-5i + {n}") for n in range(seed, seed + 2)]
    return [*whole, *shares, *angles, *surds, *points, *polynomials, *multiples, *complex_numbers]


def answers(seed: int) -> list[tuple[str, str]]:
    """Pairs of an answer and a gold answer."""
    rows = problems(seed)
    pairs = []
    for index, (gold, other) in enumerate(rows):
        wrong = rows[index - 1][0]
        pairs += [(gold, gold)] * (NUM_SAMPLES // 2) + [(other, gold)] * 2 + [(wrong, gold)] * 2
    return pairs


def run() -> list[Result]:
    """Measures answers a second and core, and the longest pause of an event loop."""
    warm_up(SETTINGS)
    first, repeated, pauses = [], [], []
    for repetition in range(REPETITIONS):
        pairs = answers(10 + 100 * repetition)
        first.append(_per_core_second(pairs))
        repeated.append(_per_core_second(pairs))
        pauses.append(asyncio.run(_longest_pause_s(answers(15 + 100 * repetition))))
    return [
        result("answers graded a second and core, first", first, at_least=1000, command=COMMAND),
        result("answers graded a second and core, repeated", repeated, at_least=1000, command=COMMAND),
        result("longest pause of the event loop while grading, s", pauses, at_most=0.1, command=COMMAND),
    ]


def _processor_s() -> float:
    """Processor time of this process and of its grading processes, in seconds."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def _per_core_second(pairs: list[tuple[str, str]]) -> float:
    start = _processor_s()
    for answer, gold in pairs:
        grade(f"So it is \\boxed{{{answer}}}.", gold, SETTINGS)
    return len(pairs) / (_processor_s() - start)


async def _longest_pause_s(pairs: list[tuple[str, str]]) -> float:
    """The longest time between two turns of an event loop whose executor grades."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        jobs = [loop.run_in_executor(executor, grade, f"\\boxed{{{a}}}", gold, SETTINGS) for a, gold in pairs]
        longest, last = 0.0, time.perf_counter()
        while not all(job.done() for job in jobs):
            await asyncio.sleep(0)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    return longest
