# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The boundaries of ``rules`` against solutions whose boundaries are known: ``pytest -s`` prints the agreement.

24 are solutions of GSM8K's training set (MIT), each line a step, in six layouts that models write. 15 are solutions of
MATH-500 (MIT), cut by hand before the rules saw them. People wrote these texts; the layouts and the cuts are ours.

real_chains.jsonl has 20 chains of Qwen2.5-Coder-0.5B-Instruct (Apache-2.0) for problems of GSM8K, as they came at
temperature 0.7, cut by hand before the rules saw them. A numbered list of what will be done is one thought, and
a sentence that announces a calculation belongs to it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from longshort_verl.chains.chunk import boundary_f1, by_rules

REAL_CHAINS = Path(__file__).parent / "real_chains.jsonl"
WORDS = ("First", "Next", "Then", "After that", "Then", "Next", "Then", "Finally")


def plain(lines: list[str], answer: str) -> list[str]:
    return [line + "\n" for line in lines] + [f"The answer is {answer}."]


def numbered(lines: list[str], answer: str) -> list[str]:
    steps = [f"{i}. {line}\n" for i, line in enumerate(lines, start=1)]
    intro = "To solve this problem, we need to follow these steps:\n\n"
    return [intro, *steps[:-1], steps[-1] + "\n", f"Therefore, the result is \\(\\boxed{{{answer}}}\\)."]


def headings(lines: list[str], answer: str) -> list[str]:
    steps = [f"**Step {i}**\n\n{line}\n\n" for i, line in enumerate(lines, start=1)]
    return [*steps, f"**Final Answer**\n\n\\boxed{{{answer}}}"]


def labelled(lines: list[str], answer: str) -> list[str]:
    return [f"Step {i}: {line}\n" for i, line in enumerate(lines, start=1)] + [f"So we get {answer} in the end."]


def ordered(lines: list[str], answer: str) -> list[str]:
    words = [*WORDS[: len(lines)], "Finally"]
    lines = [*lines, f"we have the answer {answer}"]
    return [f"{word}, {line.rstrip('.')}. " for word, line in zip(words, lines, strict=True)]


def displayed(lines: list[str], answer: str) -> list[str]:
    """Each equation of a line stands in a display formula after the line."""
    equations = [re.search(r"[\d.+*/() -]+=[\d.]+", line) for line in lines]
    steps = [
        f"{line}\n\\[\n{equation[0].strip()}\n\\]\n" if equation else f"{line}\n"
        for line, equation in zip(lines, equations, strict=True)
    ]
    return [*steps, f"So the answer that we look for is {answer}."]


LAYOUTS = (plain, numbered, headings, labelled, ordered, displayed)

CUTS = {
    1: ["We get a term of", "Therefore,\n"],
    21: ["First, we can square", "Note that $x^2$", "Then\n\\[x^4", "Then $y^6$ is", "Since $0 < y^6"],
    25: ["Setting $y = 1,$", "Adding all the equations", "Setting $x = -n$", "We want to solve"],
    89: ["First, we use it", "Next, we can find"],
    101: ["Then $\\frac{1}{r} - 13$", "Expanding, we get", "We see that", "Hence,\n"],
    109: ["Similarly, the denominator", "Hence, the smallest"],
    149: ["OR\n"],
    173: ["If $b=1$", "OR\n"],
    217: ["For a number to be", "The number we're looking for must also", "In fact, because"],
    252: ["Hence, the maximum"],
    285: ["Substituting the first", "Therefore, each of", "If $t = 6,$", "Therefore, the possible", "Since, given"],
    333: ["Then\n\\[\\sqrt[3]{2} - 1", "As before, $b$", "Rationalizing", "We have that\n\\[\\sqrt[3]{4}"],
    360: ["To get an $x$", "Therefore, $b"],
    365: ["Given that", "However, these"],
    401: ["Let $u =", "If $0 \\le u", "If $\\sqrt{3}", "Therefore, the maximum"],
}
"""MATH-500, by row: how each thought after the first begins."""


def gsm8k(shared_data, layout: Callable[[list[str], str], list[str]]) -> list[tuple[str, list[int]]]:
    """Four solutions of five to eight lines in a layout, with the places at which a step begins."""
    rows = [json.loads(line) for line in (shared_data / "gsm8k_train.jsonl").read_text().splitlines()]
    solutions = [row["answer"].rpartition("\n#### ") for row in rows]
    solutions = [(re.sub(r"<<.*?>>", "", text).split("\n"), answer) for text, _, answer in solutions]
    solutions = [(lines, answer) for lines, answer in solutions if 5 <= len(lines) <= 8 and all(map(str.strip, lines))]
    parts = [layout(lines, answer) for lines, answer in solutions[LAYOUTS.index(layout) :: 150][:4]]
    return [("".join(part), list(itertools.accumulate(map(len, part)))[:-1]) for part in parts]


def math500(shared_data) -> list[tuple[str, list[int]]]:
    rows = json.loads((shared_data / "math500.json").read_text())
    cuts = []
    for row, beginnings in CUTS.items():
        text = rows[row]["solution"]
        assert all(text.count(beginning) == 1 for beginning in beginnings), row
        cuts.append((text, [text.index(beginning) for beginning in beginnings]))
    return cuts


def agreement(chains: list[tuple[str, list[int]]]) -> float:
    """Mean F1 of the places, exact to one character, at which thoughts begin."""
    scores = []
    for text, expected in chains:
        ends = itertools.accumulate(len(thought.text) for thought in by_rules(text, 200))
        scores.append(boundary_f1(list(ends)[:-1], expected))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_steps_of_solutions_in_the_layouts_of_models(shared_data, layout):
    chains = gsm8k(shared_data, layout)
    print(f"{layout.__name__}: {len(chains)} chains, F1 {agreement(chains):.2f}")
    assert agreement(chains) >= 0.8


def test_chains_of_a_model_cut_by_hand():
    rows = [json.loads(line) for line in REAL_CHAINS.read_text().splitlines()]
    chains = [(row["text"], [row["text"].index(beginning) for beginning in row["cuts"]]) for row in rows]
    print(f"of a model: {len(chains)} chains, F1 {agreement(chains):.2f}")
    assert len(chains) >= 20
    assert agreement(chains) >= 0.8


def test_solutions_cut_by_hand(shared_data):
    chains = math500(shared_data)
    print(f"by hand: {len(chains)} chains, F1 {agreement(chains):.2f}")
    assert agreement(chains) >= 0.6
