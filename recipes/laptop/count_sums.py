# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Count the sums in replies, and how many are true: ``python recipes/laptop/count_sums.py EVALUATION/pair.jsonl ...``.

A sum is an equation of two numbers, such as 87 + 290 = 1180. A number may have a unit; a result rounded by up to 1 % is
true. What a reply repeats is counted once.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Annotated, Any

import typer

from longshort_verl.evaluation.records import read_records

OPERATORS = {"+": operator.add, "-": operator.sub, "−": operator.sub}
OPERATORS |= dict.fromkeys(("*", "×", "x", r"\times", r"\cdot"), operator.mul)
OPERATORS |= dict.fromkeys(("/", "÷", r"\div"), operator.truediv)
_OPERATOR = "|".join(map(re.escape, OPERATORS))
_NUMBER = r"\\?\$?(\d+(?:,\d{3})*(?:\.\d+)?)(?![\d.,]*\d)\s*\\?%?"
_UNIT = r"(?:\s*(?:\\text\{[^{}]{0,40}\}|[a-zA-Z]+(?: [a-zA-Z]+){0,2}?))?"
# A sum of more numbers, such as 1 + 2 + 3 = 6, is none, nor is one that goes on after the result, as in 2 + 3 = 1 + 4.
_EQUATION = re.compile(
    rf"(?<![\d.,]){_NUMBER}{_UNIT}\s*({_OPERATOR})\s*{_NUMBER}{_UNIT}\s*=\s*(-?){_NUMBER}{_UNIT}(?!\s*(?:{_OPERATOR})\s*\\?\$?\d)"
)
_LONGER = re.compile(rf"(?:{_OPERATOR}|(?<!\\)\()\s*\\?\$?$")
_FRACTION = re.compile(r"\\d?frac\{((?:[^{}]|\{[^{}]*\}){1,60})\}\{((?:[^{}]|\{[^{}]*\}){1,60})\}")


def main(
    replies: Annotated[list[Path], typer.Argument(help="Replies of evaluations: solo.jsonl or pair.jsonl.")],
) -> None:
    """One line for each file: equations, how many are true, and the replies in which all are, with the right ones."""
    for path in replies:
        found = [(list(sums(_text(record))), record["correct"]) for record in read_records(path)]
        of_all = [true for trues, _ in found for true in trues]
        all_true = [correct for trues, correct in found if trues and all(trues)]
        share = f"{sum(of_all) / len(of_all):.0%} of them" if of_all else "none"
        print(f"{path}: {len(of_all)} equations, {share} true; {len(all_true)} replies all true, {sum(all_true)} right")


def sums(text: str) -> Iterator[bool]:
    """Whether each equation of two numbers is true, in the order of the text and each once."""
    text = _FRACTION.sub(r"\1 / \2", text)
    alone = (match for match in _EQUATION.finditer(text) if not _LONGER.search(text[: match.start()][-20:]))
    for first, symbol, second, sign, result in dict.fromkeys(match.groups() for match in alone):
        try:
            value = OPERATORS[symbol](_value(first), _value(second))
        except ZeroDivisionError:
            yield False
            continue
        yield isclose(value, _value(sign + result), rel_tol=0.01)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _text(record: dict[str, Any]) -> str:
    return " ".join(turn["text"] for turn in record["turns"]) if "turns" in record else record["text"]


if __name__ == "__main__":
    typer.run(main)
