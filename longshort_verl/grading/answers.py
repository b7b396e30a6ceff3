# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""From text to answer to verdict: does the last boxed answer of a text equal the gold answer?

A policy under optimisation finds every text that makes a grader hang, crash or accept too much. Therefore:

* Only the last box counts; a text without a box has no answer.
* An answer is read once as a typed value (``values``); equal texts and rational numbers are compared here, exactly.
* Everything else is compared in processes with a time limit (``workers``, ``mathematics``).

What is equal: numbers, exactly, relative to the larger one; a decimal equals a fraction or a root that it rounds to, in
six decimals and four digits. A set equals a bare list in any order; a bare list equals a point. An interval equals its
inequality. Quantities are equal in one unit; where one side has no words, the other's are dropped. A leading ``x =`` is
dropped. A percent sign is a unit like any other, so 5\\% equals 5 and not 0.05.

All functions may be called from any thread.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.grading import compare, values, workers
from longshort_verl.grading import judge as judge_script
from longshort_verl.grading.text import tidy, words
from longshort_verl.types import Grade

_MAX_CHARS_READ_HERE = 200
"""A longer answer is read in a grading process, which has a time limit: a model wrote it, and the patterns that read it
hold the interpreter's lock."""
MAX_NESTING = 12
"""Most brackets open at once in an answer. Gold answers of MATH-500 reach 2; parsing time is exponential in it."""


class Fault(str, Enum):
    """Why an answer is wrong, if not simply by its value. ``Grade.reason`` holds the enum's value."""

    NO_BOX = "no boxed answer"
    """The text has neither ``\\boxed{`` nor ``\\fbox{``."""
    UNBALANCED = "unbalanced braces"
    """A box was opened but none was closed."""
    EMPTY = "empty box"
    """The box holds only white space."""
    TOO_LONG = "too long"
    """More characters than ``GradingSettings.max_answer_chars``."""
    TOO_DEEP = "nested too deeply"
    """More than MAX_NESTING open brackets."""
    CONTROL = "control characters"
    """Null bytes and the like; often the ``\\f`` or ``\\b`` of a LaTeX command that was unescaped by mistake."""
    SIDE_BY_SIDE = judge_script.SIDE_BY_SIDE
    """``5 7`` is not a number; the parser would add them up."""
    BRACKETS = "other brackets than the gold answer"
    """``[3, \\pi]`` for ``(3, \\pi)``."""
    BASE = "another number base"
    """``21_7`` for ``21_8``."""
    NOT_A_LETTER = "not a single letter A-J"
    """Multiple choice: the box holds something else, or several letters."""
    UNREADABLE = judge_script.UNREADABLE
    """The parser cannot read the answer as mathematics."""
    FAILED = judge_script.FAILED
    """A library raised while it compared (out of memory, too deep a recursion, …)."""
    GOLD_AS_TEXT = judge_script.GOLD_AS_TEXT
    """The parser cannot read the gold answer, so the two were compared as text."""
    TIMED_OUT = workers.TIMED_OUT
    """The comparison took longer than ``GradingSettings.timeout_s``."""
    DIED = workers.DIED
    """Two processes in a row died over this answer."""


@dataclass(frozen=True, kw_only=True)
class GradingSettings:
    """Limits of grading; ``longshort_verl/config/longshort_grading.yaml`` describes them."""

    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_answer_chars: Annotated[int, Field(ge=1)]
    max_workers: Annotated[int, Field(ge=1)]


# Boxes ---------------------------------------------------------------------------------------------------------------

_BLANK = " \t\r\n\u00a0"  # without form feed, which str.strip() would remove: it is a lost backslash
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# An escape is one token, so that the brace of `\{` is a sign and not a group; but the second backslash of an
# over-escaped `\\boxed{` still opens a box.
_BRACES = re.compile(rf"{_BOX.pattern}|\\(?!{_BOX.pattern}).|[{{}}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    """Contents of the last balanced ``\\boxed{…}`` or ``\\fbox{…}``; None if there is none.

    The last box is the one that opens last; of two nested boxes it is the inner one. Linear in the text's length.
    """
    open_groups: list[int | None] = []  # where the contents of a box begin; None for a plain group
    begin = end = -1
    first = _BOX.search(text)
    for token in _BRACES.finditer(text, first.start()) if first else ():
        mark = token.group()
        if mark == "}":
            # A closing brace outside of any group closes nothing.
            start = open_groups.pop() if open_groups else None
            if start is not None and start > begin:
                begin, end = start, token.start()
        elif mark == "{":
            open_groups.append(None)
        elif mark[-1] == "{" and _BOX.fullmatch(mark):
            open_groups.append(token.end())
    return text[begin:end] if begin >= 0 else None


# Grading -------------------------------------------------------------------------------------------------------------


def check_gold(gold: object) -> None:
    """Checks that an answer can be graded against a gold answer. Run it on problem files.

    Raises:
        ValueError: the gold answer is not text, is empty, or no boxed answer can equal it.
    """
    if not isinstance(gold, str):
        raise ValueError(f"gold answer {gold!r} is not text; convert it to text")
    fault = _gold_fault(gold)
    if fault is not None:
        raise ValueError(f"gold answer {gold if len(gold) <= 80 else gold[:80] + '…'!r} {fault}")


@lru_cache(maxsize=4096)
def _gold_fault(gold: str) -> str | None:
    """What is wrong with a gold answer, and the cure; None if nothing is."""
    if _nesting(gold) > MAX_NESTING:
        return f"has more than {MAX_NESTING} nested brackets; simplify it"
    plain, boxed = tidy(gold), last_boxed(f"\\boxed{{{gold}}}")
    faults = {
        "is empty; fill it in or drop the problem": not plain,
        "has control characters; check whether a backslash was unescaped": _CONTROL.search(gold),
        "has a box; give only its contents": _BOX.search(gold),
        "has unbalanced braces, so no boxed answer can equal it; balance them": boxed != gold,
        "has two numbers side by side; put a comma or an operator between them": _is_side_by_side(plain),
        "looks like a missing value; for infinity write \\infty": _MISSING.fullmatch(plain),
    }
    return next((fault for fault, applies in faults.items() if applies), None)


def grade(answer_text: str, gold: str, settings: GradingSettings) -> Grade:
    """Grades the last boxed answer of a text.

    A gold answer that is one capital letter A to J, also as ``(C)`` or ``\\text{(C)}``, is graded as multiple choice;
    any other as mathematics. Nothing is guessed from unboxed text: that would reward a policy for not answering.

    Takes at most ``settings.timeout_s`` and a few milliseconds, plus the wait for a free grading process; the first
    needs 1 to 3 s to start (see :func:`warm_up`). Raises for no ``answer_text``.

    Raises:
        ValueError: :func:`check_gold` refuses the gold answer.
        RuntimeError: no grading process starts in this environment.
    """
    check_gold(gold)
    boxed = last_boxed(answer_text)
    if boxed is None:
        fault = Fault.UNBALANCED if _BOX.search(answer_text) else Fault.NO_BOX
        return Grade(correct=False, extracted=None, reason=fault.value)
    answer = boxed.strip(_BLANK)
    if not answer:
        result: bool | Fault = Fault.EMPTY
    elif values.is_choice(gold):
        chosen = values.choice(answer) if len(answer) <= settings.max_answer_chars else None
        result = Fault.NOT_A_LETTER if chosen is None else chosen == values.choice(gold)
    else:
        result = _compare(answer, gold, settings)
    return Grade(
        correct=result is True,
        extracted=answer[: settings.max_answer_chars],  # logs keep it, so a megabyte of junk is cut
        reason=result.value if isinstance(result, Fault) else "",
    )


def warm_up(settings: GradingSettings) -> None:
    """Starts a grading process and grades once, so that a broken environment shows at set-up. Takes 1 to 3 s.

    Raises:
        RuntimeError: grading does not work.
    """
    verdict = _judge("\\frac{2}{4}", "\\frac{1}{2}", settings)
    if verdict != judge_script.EQUAL:
        raise RuntimeError(
            f"grading does not work: 2/4 against 1/2 gave {verdict!r}; if it timed out, raise grading.timeout_s, now "
            f"{settings.timeout_s:g}"
        )


def _compare(answer: str, gold: str, settings: GradingSettings) -> bool | Fault:
    """Whether an answer equals a gold answer as mathematics, or as text where the gold answer is no mathematics."""
    if answer == gold.strip(_BLANK):  # before the limits, so that a long gold answer can be met
        return True
    if len(answer) > settings.max_answer_chars:
        return Fault.TOO_LONG
    if _CONTROL.search(answer):
        return Fault.CONTROL
    if _nesting(answer) > MAX_NESTING:
        return Fault.TOO_DEEP
    if not tidy(answer):
        return Fault.EMPTY
    if words(answer) == words(gold):
        return True
    try:
        if len(answer) > _MAX_CHARS_READ_HERE:
            raise compare.NeedsMathematics
        pair = values.read_pair(answer, gold)
        if (fault := _mismatch(*pair)) is not None:
            return fault
        return compare.equal(*pair, compare.ask)
    except values.SideBySideError:
        return Fault.SIDE_BY_SIDE
    except (compare.NeedsMathematics, RecursionError):
        verdict = _judge(answer, gold, settings)
    if verdict in (judge_script.EQUAL, judge_script.DIFFERENT):
        return verdict == judge_script.EQUAL
    return Fault(verdict)


def _judge(answer: str, gold: str, settings: GradingSettings) -> str:
    return workers.judge(answer, gold, timeout_s=settings.timeout_s, max_workers=settings.max_workers)


def _mismatch(answer: values.Value, gold: values.Value) -> Fault | None:
    """A difference in form that has a name."""
    if isinstance(answer, values.Based) and isinstance(gold, values.Based) and answer.base != gold.base:
        return Fault.BASE
    if isinstance(answer, values.Group) and isinstance(gold, values.Group):
        brackets = answer.brackets, gold.brackets
        if brackets[0] != brackets[1] and not {"", "{}"} & set(brackets):
            return Fault.BRACKETS
    return None


# Text ----------------------------------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MISSING = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def _is_side_by_side(plain: str) -> bool:
    try:
        values.read(plain, "", is_gold=True)
    except values.SideBySideError:
        return True
    return False


def _nesting(text: str) -> int:
    """Most brackets of any kind that are open at once."""
    depth = deepest = 0
    for sign in text:
        if sign in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "})]":
            depth = max(0, depth - 1)
    return deepest
