# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Grading must not drift. What is held here:

* every gold answer of MATH-500, AMC 2023 and AIME 2024 is graded right, by short cut and by math-verify;
* hostile or wrong answers are wrong, with a reason, within the time limit, and never an exception;
* it works from threads, event loops, daemonic and forked processes, and leaves no process behind, even on ``kill -9``.

Right and wrong are worked by hand: each table row is an answer, a gold answer, and what a strict teacher says.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshort_verl.grading import answers as grading
from longshort_verl.grading.answers import (
    MAX_NESTING,
    Fault,
    GradingSettings,
    canonical_gold,
    check_gold,
    extract_answer,
    grade,
    grade_choice,
    grade_math,
    last_boxed,
    warm_up,
)
from longshort_verl.types import Grade

ROOT = Path(__file__).resolve().parents[2]
PATIENT = GradingSettings(timeout_s=30.0, max_answer_chars=2000, max_workers=2)
"""For outcomes: a busy machine must not turn a right answer into a late one."""
HASTY = GradingSettings(timeout_s=0.8, max_answer_chars=2000, max_workers=2)
"""For the time limit itself."""
SLACK_S = 1.2
"""Allowed on top of a limit: reaping a killed process on two busy cores."""


def boxed(answer: str) -> str:
    return f"So it is $\\boxed{{{answer}}}$."


def is_right(answer: str, gold: str) -> bool:
    return grade(boxed(answer), gold, PATIENT).correct


def rows(name: str) -> list[dict[str, Any]]:
    path = ROOT.parent / "shared" / "data" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"benchmark data is not part of the repository: no {path}")
    return json.loads(path.read_text())


def children(of: int | None = None) -> list[psutil.Process]:
    return [child for child in psutil.Process(of).children(recursive=True) if "_serve()" in " ".join(child.cmdline())]


@pytest.fixture
def fresh_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[grading._Workers]:
    """A pool of this test's own, for tests that tamper with it."""
    workers = grading._Workers()
    monkeypatch.setattr(grading, "_workers", workers)
    yield workers
    workers.close()


# --- finding the answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{5}", "5"),
        (r"so $\fbox{5}$", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", "1"),  # the last one that is balanced
        (r"\boxed{x = \boxed{5}}", "5"),  # opened last
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),  # an escaped brace is a sign, not a group
        (r"\boxed{a \\{b} c}", r"a \\{b} c"),  # a line break, then a group
        (r"\\boxed{5}", "5"),  # escaped once too often, as from JSON
        (r"} \boxed{5} }", "5"),
        (r"{ \boxed{5}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{ 5 }", " 5 "),
        (r"\boxed{5", None),
        (r"\boxed{{5}", None),
        (r"\boxed 5", None),
        (r"\boxedx{5}", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_last_boxed(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_extract_answer_trims_and_guesses_nothing() -> None:
    assert extract_answer(r"\boxed{ 5 }") == "5"
    assert extract_answer("The final answer is $5$. I hope it is correct.") is None


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" + "{" * 1_000_000,
        "\\boxed{" * 150_000,
        "\\boxed{" * 75_000 + "}" * 75_000,
        "\\boxed" + " " * 1_000_000,
        "\\boxed   " * 100_000,
        "\\" * 1_000_000,
        "\\\\boxed " * 100_000,
        "\\boxed{5}" + "}" * 1_000_000,
    ],
    ids=lambda text: text[:12],
)
def test_last_boxed_is_linear(text: str) -> None:
    start = time.perf_counter()
    last_boxed(text)
    assert time.perf_counter() - start < 5  # 1 MB takes about 0.5 s; quadratic would take hours


@given(st.text(alphabet="ab{}\\ ", max_size=30), st.text(alphabet="xy ", max_size=10))
def test_last_boxed_finds_what_was_boxed_last(before: str, content: str) -> None:
    # An odd run of backslashes before it would escape the box's own backslash.
    assert last_boxed(before.rstrip("\\") + f" \\boxed{{{content}}} done") == content


# --- right and wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        # plain decimals, decided here
        ("5", "5"),
        (" 5 ", "5"),
        ("$5$", "5"),
        ("5.", "5"),
        ("5.00", "5"),
        ("+5", "5"),
        ("−5", "-5"),
        (".5", "0.5"),
        ("033", "33"),
        ("10 080", "10080"),
        ("1\\,000", "1000"),
        ("12345678901234567890123", "12345678901234567890123"),
        # percent, unit, currency
        ("5\\%", "5"),
        ("5", "5\\%"),
        ("5%", "5\\%"),
        ("\\$5", "5"),
        ("5\\text{ apples}", "5"),
        ("15\\text{ cm}^2", "15\\mbox{ cm}^2"),
        # the same value
        ("1,000", "1000"),
        ("0.5", "\\frac{1}{2}"),
        ("\\dfrac12", "\\frac{1}{2}"),
        ("2/4", "\\frac{1}{2}"),
        ("137 1/2", "137 \\frac{1}{2}"),
        ("137.5", "137 \\frac{1}{2}"),
        ("\\frac{2}{\\sqrt{2}}", "\\sqrt{2}"),
        ("3^2", "9"),
        ("10!", "3628800"),
        ("x=5", "5"),
        ("2x+3", "y = 2x + 3"),
        ("(x+1)^2", "x^2+2x+1"),
        ("-5x + 7y - 11z - 4 = 0", "5x - 7y + 11z + 4 = 0"),
        # lists, points, intervals, matrices
        ("5, 3, 7", "3, 5, 7"),
        ("1 - \\sqrt{19}, 1 + \\sqrt{19}", "1 \\pm \\sqrt{19}"),
        ("(3, \\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("(2, \\infty) \\cup (0, 1]", "(0,1] \\cup (2,\\infty)"),
        ("[-2, 7]", "x \\in [-2,7]"),
        ("\\begin{bmatrix} 1 \\\\ 2/4 \\end{bmatrix}", "\\begin{pmatrix} 1 \\\\ 1/2 \\end{pmatrix}"),
        ("2516", "2516_8"),
        ("2516_{8}", "2516_8"),
        # words
        ("Evelyn", "\\text{Evelyn}"),
        ("\\textbf{evelyn}", "\\text{Evelyn}"),
        ("\\infty", "\\infty"),
    ],
)
def test_right(answer: str, gold: str) -> None:
    assert grade(boxed(answer), gold, PATIENT) == Grade(correct=True, extracted=answer.strip())


@pytest.mark.parametrize(
    ("answer", "gold", "reason"),
    [
        ("6", "5", ""),
        ("-5", "5", ""),
        ("5.0000001", "5", ""),
        ("12345678901234567890124", "12345678901234567890123", ""),
        ("1,2", "1", ""),
        ("1", "1,2", ""),
        ("1 \\text{ or } 2", "1", ""),
        ("1 \\text{ or } 2", "2", ""),
        ("\\pm 5", "5", ""),
        ("x > 5", "5", ""),
        ("5 \\neq 7", "5", ""),
        ("0.05", "5\\%", ""),
        ("0.333", "\\frac{1}{3}", ""),
        ("6 + 5i", "6 - 5i", ""),
        ("q - p", "p - q", ""),
        ("y = 2x + 4", "y = 2x + 3", ""),
        ("1 + \\sqrt{19}", "1 \\pm \\sqrt{19}", ""),
        ("(2,1)", "(1,2)", ""),
        ("(5,3)", "(2,1)", ""),  # both would be the empty interval
        ("\\emptyset", "(2,1)", ""),
        ("(1,2,3)", "(1,2)", ""),
        ("(0,9] \\cup (9,36)", "(0,9) \\cup (9,36)", ""),
        ("(0,36)", "(0,9) \\cup (9,36)", ""),
        ("\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", ""),
        ("\\text{Navin}", "\\text{Evelyn}", ""),
        ("nylevE", "\\text{Evelyn}", ""),
        ("10^{30} + 1", "10^{30}", ""),
        # an interval for a point, closed for open
        ("[0,1]", "(0,1)", Fault.BRACKETS),
        ("[0,1)", "(0,1]", Fault.BRACKETS),
        ("[3, \\frac{\\pi}{2}]", "\\left( 3, \\frac{\\pi}{2} \\right)", Fault.BRACKETS),
        ("[2,1]", "(2,1)", Fault.BRACKETS),
        ("2516_7", "2516_8", Fault.BASE),
        ("5 7", "12", Fault.SIDE_BY_SIDE),
        ("5\\ 7", "5", Fault.SIDE_BY_SIDE),
        ("5\\quad 7", "12", Fault.SIDE_BY_SIDE),
        # what is no number
        ("NaN", "1", ""),
        ("nan", "1", ""),
        ("\\infty", "1", ""),
        ("inf", "1", ""),
        ("-\\infty", "\\infty", ""),
        ("\\frac{1}{0}", "\\infty", ""),
        ("\\frac{0}{0}", "0", ""),
        # no answer
        ("", "5", Fault.EMPTY),
        ("  ", "5", Fault.EMPTY),
        ("$$", "5", Fault.EMPTY),
        ("\x00", "5", Fault.CONTROL),
        ("5\x00", "5", Fault.CONTROL),
        ("\x0crac{1}{2}", "\\frac{1}{2}", Fault.CONTROL),  # JSON's \f
        ("\\frac{1}", "1", Fault.UNREADABLE),
        ("\\frac", "1", Fault.UNREADABLE),
        ("?? 5", "5", Fault.UNREADABLE),  # no number is picked out of junk
        ("2 <> 5", "5", Fault.UNREADABLE),
        ("5 \\foo{", "5", Fault.UNBALANCED),
        ("∫𝔵²⁵⁶ 𝟘÷0 ½ \u202e\ufeff", "5", Fault.UNREADABLE),
        ("五", "5", Fault.UNREADABLE),
        ("５", "5", Fault.UNREADABLE),  # a full-width digit is not what was asked for
        ("\ud800", "5", Fault.UNREADABLE),  # half of a surrogate pair
        ("😀" * 100, "5", Fault.UNREADABLE),
        ("{" * 13 + "5" + "}" * 13, "5", Fault.TOO_DEEP),
        ("{" * 900 + "5" + "}" * 900, "5", Fault.TOO_DEEP),
        ("(" * 1500, "5", Fault.TOO_DEEP),
        ("{" * 10_000 + "5" + "}" * 10_000, "5", Fault.TOO_LONG),
        ("5" * 1_000_000, "5", Fault.TOO_LONG),
        (" 5" * 500_000, "5", Fault.TOO_LONG),
    ],
    ids=lambda value: repr(str(value))[:40],
)
def test_wrong(answer: str, gold: str, reason: str) -> None:
    result = grade(boxed(answer), gold, PATIENT)
    assert (result.correct, result.reason) == (False, getattr(reason, "value", reason))


def test_no_box_and_unbalanced_box_have_no_answer() -> None:
    assert grade("It is 5.", "5", PATIENT) == Grade(correct=False, extracted=None, reason="no boxed answer")
    assert grade("\\boxed{5", "5", PATIENT) == Grade(correct=False, extracted=None, reason="unbalanced braces")
    assert grade("", "C", PATIENT) == Grade(correct=False, extracted=None, reason="no boxed answer")


def test_length_limit_is_exact_and_cuts_what_is_kept() -> None:
    tight = GradingSettings(timeout_s=30.0, max_answer_chars=3, max_workers=2)
    assert grade(boxed("5.0"), "5", tight).correct
    assert grade(boxed("5.00"), "5", tight) == Grade(correct=False, extracted="5.0", reason="too long")
    assert grade(boxed("12345"), "12345", tight) == Grade(correct=True, extracted="123")  # the gold answer itself


def test_nesting_limit_is_exact() -> None:
    for depth, reason in ((MAX_NESTING, ""), (MAX_NESTING + 1, Fault.TOO_DEEP.value)):
        answer = "\\frac{1}{" * depth + "2" + "}" * depth
        assert grade(boxed(answer), "7", PATIENT).reason == reason


def test_gold_that_is_no_mathematics_is_compared_as_text() -> None:
    gold = "\\text{yes} & \\text{no} \\\\ & #"
    assert grading._workers.judge("5", gold, PATIENT) == Fault.GOLD_AS_TEXT  # the premise
    assert is_right("yes &  NO \\\\ & #", gold)
    assert grade(boxed("yes & yes"), gold, PATIENT).reason == Fault.GOLD_AS_TEXT.value


# --- multiple choice ------------------------------------------------------------------------------------------------


PLAIN_C = ["C", "c", "(C)", "C.", "C)", "[C]", "$C$", "{C}", " C ", "**C**", "\\left(C\\right)"]
LATEX_C = ["\\text{C}", "\\text{(C)}", "\\text{(C) }", "\\textbf{(C)}", "\\textbf{C}.", "\\mathrm{C}"]


@pytest.mark.parametrize("answer", [*PLAIN_C, *LATEX_C])
def test_choice_right(answer: str) -> None:
    assert grade_choice(boxed(answer), "C", PATIENT) == Grade(correct=True, extracted=answer.strip())
    assert grade(boxed(answer), "\\text{(C)}", PATIENT).correct


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("D", ""),
        ("(d)", ""),
        ("AC", Fault.NOT_A_LETTER),
        ("C, D", Fault.NOT_A_LETTER),
        ("C or D", Fault.NOT_A_LETTER),
        ("(C)(D)", Fault.NOT_A_LETTER),
        ("CC", Fault.NOT_A_LETTER),
        ("A, B, C, D, E", Fault.NOT_A_LETTER),
        ("\\text{C}\\text{D}", Fault.NOT_A_LETTER),
        ("not C", Fault.NOT_A_LETTER),
        ("-C", Fault.NOT_A_LETTER),
        ("\\neg C", Fault.NOT_A_LETTER),
        ("K", Fault.NOT_A_LETTER),
        ("С", Fault.NOT_A_LETTER),  # Cyrillic
        ("3", Fault.NOT_A_LETTER),
        ("()", Fault.NOT_A_LETTER),
        ("", Fault.EMPTY),
        ("C" + " " * 3000 + ".", Fault.NOT_A_LETTER),
    ],
)
def test_choice_wrong(answer: str, reason: str) -> None:
    result = grade_choice(boxed(answer), "C", PATIENT)
    assert (result.correct, result.reason) == (False, getattr(reason, "value", reason))
    assert not grade(boxed(answer), "C", PATIENT).correct


def test_choice_takes_the_last_box_and_needs_one() -> None:
    assert grade_choice(r"\boxed{A} no, \boxed{C}", "C", PATIENT).correct
    assert not grade_choice(r"\boxed{C} no, \boxed{A}", "C", PATIENT).correct
    assert grade_choice("The answer is C.", "C", PATIENT).reason == Fault.NO_BOX.value


def test_letter_golds_are_choices_and_others_are_mathematics() -> None:
    assert grade(boxed("(E)"), "E", PATIENT).correct
    assert not grade(boxed("2.718281828459045"), "E", PATIENT).correct  # E is no number here
    assert grade(boxed("5"), "J", PATIENT).reason == Fault.NOT_A_LETTER.value
    assert grade(boxed("5"), "K", PATIENT).reason == ""  # beyond J it is a variable
    assert grade(boxed("5"), "a", PATIENT).reason == ""  # so is a small letter
    with pytest.raises(ValueError, match="not one letter A to J"):
        grade_choice(boxed("K"), "K", PATIENT)


# --- gold answers and settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27.0, "27"),
        (27, "27"),
        (-1.0, "-1"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (1e22, "1" + "0" * 22),
        (" \\frac{1}{2} ", "\\frac{1}{2}"),
        ("033", "033"),
    ],
)
def test_canonical_gold(value: object, text: str) -> None:
    assert canonical_gold(value) == text


@pytest.mark.parametrize(
    "gold",
    [
        "",
        "  ",
        "$$",
        ".",
        None,
        5,
        5.0,
        True,
        ["5"],
        b"5",
        "\x0crac{1}{2}",
        "5\x00",
        r"\boxed{5}",
        r"\frac{1}{2",
        "5}",
        "5\\",
        "{" * 40 + "5" + "}" * 40,
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "5 7",
    ],
    ids=repr,
)
def test_bad_gold_is_refused(gold: Any) -> None:
    with pytest.raises(ValueError, match="gold answer"):
        check_gold(gold)
    with pytest.raises(ValueError, match="gold answer"):  # never silently right
        grade(boxed("5"), gold, PATIENT)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, "", 1j])
def test_canonical_gold_refuses(value: object) -> None:
    with pytest.raises(ValueError, match="gold answer"):
        canonical_gold(value)


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0.0}, {"timeout_s": float("inf")}, {"max_answer_chars": 0}, {"max_workers": 0}]
)
def test_settings_are_validated(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GradingSettings(**{"timeout_s": 1.0, "max_answer_chars": 10, "max_workers": 1, **wrong})


# --- benchmarks -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_math500_solutions_are_right() -> None:
    wrong = [row["answer"] for row in rows("math500") if not grade(row["solution"], row["answer"], PATIENT).correct]
    assert wrong == []
    assert len(rows("math500")) == 500


@pytest.mark.timeout(120)
def test_math500_gold_answers_are_right_by_math_verify_alone() -> None:
    # The solutions hold the gold answers letter by letter, so that the test above never leaves the short cut.
    golds = [row["answer"] for row in rows("math500")]
    judged = {gold: grading._workers.judge(grading._tidy(gold), grading._tidy(gold), PATIENT) for gold in golds}
    assert {gold: verdict for gold, verdict in judged.items() if verdict != "equal"} == {}


@pytest.mark.timeout(120)
def test_math500_another_problems_answer_is_wrong() -> None:
    golds = [row["answer"] for row in rows("math500")]
    pairs = [(golds[i], golds[(i + 1) % 500]) for i in range(500)]
    # Looked through by eye: neighbours of equal value share their text, but for one where a 5 meets an x=5.
    different = [(answer, gold) for answer, gold in pairs if answer != gold and (answer, gold) != ("5", "x=5")]
    assert len(different) > 480
    with ThreadPoolExecutor(2) as threads:
        right = list(threads.map(lambda pair: is_right(*pair), different))
    assert [pair for pair, correct in zip(different, right, strict=True) if correct] == []


@pytest.mark.parametrize(("name", "count"), [("amc_2023", 40), ("aime_2024", 30)])
def test_competition_answers_are_right(name: str, count: int) -> None:
    golds = [canonical_gold(row["answer"]) for row in rows(name)]
    assert len(golds) == count
    assert all(gold.removeprefix("-").isdigit() for gold in golds)
    for gold in golds:
        assert grade(boxed(gold), gold, PATIENT).correct
        assert grade(boxed(f"{gold}.0"), gold, PATIENT).correct
        assert not grade(boxed(str(int(gold) + 1)), gold, PATIENT).correct


# --- the time limit -------------------------------------------------------------------------------------------------

BOMBS = {
    "tower": "9^{9^{9^{9}}}",
    "factorial": "100000000!",
    "exponent": "10^{1000000000000}",
    "sum": "\\sum_{k=1}^{1000000000} \\frac{1}{k}",
    "polynomial": "+".join(f"{i}x^{{{i}}}" for i in range(200)),
}


@pytest.mark.job
@pytest.mark.timeout(120)
def test_bombs_are_wrong_in_time_and_grading_goes_on() -> None:
    reasons = {}
    for name, answer in BOMBS.items():
        warm_up(PATIENT)  # raises where grading does not work
        start = time.perf_counter()
        result = grade(boxed(answer), "5", HASTY)
        took = time.perf_counter() - start
        assert not result.correct, name
        assert took < HASTY.timeout_s + SLACK_S, (name, took)
        reasons[name] = result.reason
    # No machine computes these two, so only the limit can have ended them.
    assert (reasons["tower"], reasons["exponent"]) == (Fault.TIMED_OUT.value, Fault.TIMED_OUT.value)


@pytest.mark.job
def test_a_late_or_dead_worker_is_replaced_and_reaped(fresh_workers: grading._Workers) -> None:
    one = GradingSettings(timeout_s=0.8, max_answer_chars=2000, max_workers=1)
    warm_up(PATIENT)
    (late,) = [worker._process for worker in fresh_workers._all]
    assert grade(boxed(BOMBS["tower"]), "5", one).reason == Fault.TIMED_OUT.value
    (dead,) = [worker._process for worker in fresh_workers._all]
    assert late.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(late.pid)
    os.kill(dead.pid, signal.SIGKILL)  # in its idle time, as an out-of-memory killer would
    assert grade(boxed("2/4"), "\\frac{1}{2}", PATIENT).correct
    assert dead.returncode == -signal.SIGKILL
    assert len(fresh_workers._all) == 1


class ScriptedWorker:
    """Stands for a process: each asks for the next scripted reply, None is a late one, an exception a death."""

    replies: list[bytes | Exception | None]
    alive: int

    def __init__(self) -> None:
        type(self).alive += 1

    def is_ready(self) -> bool:
        return True

    def ask(self, request: bytes, timeout_s: float) -> bytes | None:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def kill(self) -> None:
        type(self).alive -= 1


@pytest.mark.parametrize(
    ("replies", "reason", "kept"),
    [
        ([b'["equal", false]'], "", True),
        ([b'["equal", true]'], "", False),  # worn: its memory is used up
        ([None], Fault.TIMED_OUT.value, False),
        ([EOFError(), b'["equal", false]'], "", False),
        ([BrokenPipeError(), EOFError()], Fault.DIED.value, False),
    ],
)
def test_which_workers_are_kept(
    fresh_workers: grading._Workers, monkeypatch: pytest.MonkeyPatch, replies: list, reason: str, kept: bool
) -> None:
    monkeypatch.setattr(grading, "_Worker", ScriptedWorker)
    monkeypatch.setattr(ScriptedWorker, "replies", [b'["equal", false]', *replies], raising=False)
    monkeypatch.setattr(ScriptedWorker, "alive", 0, raising=False)
    one = GradingSettings(timeout_s=1.0, max_answer_chars=2000, max_workers=1)
    assert grade(boxed("x+x"), "2x", one).correct
    (before,) = fresh_workers._all
    result = grade(boxed("x+x"), "2x", one)
    assert (result.correct, result.reason) == (not reason, reason)
    (after,) = fresh_workers._all
    assert (before is after) is kept
    assert ScriptedWorker.alive == 1
    assert fresh_workers._idle == [after]


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process can be limited on Linux only")
def test_workers_memory_is_limited() -> None:
    warm_up(PATIENT)
    for child in children():
        if child.rlimit(psutil.RLIMIT_AS) == (2**30, 2**30):  # another may still be starting
            assert child.memory_info().vms < 2**29  # else it would be worn from the start
            return
    pytest.fail("no worker has a limit")


def test_environment_in_which_no_worker_starts_is_an_error(
    fresh_workers: grading._Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="do not start"):
        warm_up(PATIENT)
    assert not fresh_workers._all


# --- where it is called from ----------------------------------------------------------------------------------------

SAMPLES = [("x+x", "2x", True), ("x+x", "3x", False), ("0.5", "\\frac{1}{2}", True), ("0.4", "\\frac{1}{2}", False)]


def test_many_threads_share_few_workers() -> None:
    start = threading.Barrier(8)

    def one(index: int) -> bool:
        start.wait()
        answer, gold, right = SAMPLES[index % 4]
        return all(is_right(answer, gold) is right for _ in range(5))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(8)))
    assert 1 <= len(children()) <= PATIENT.max_workers


@pytest.mark.job
def test_time_limit_holds_in_threads() -> None:
    with ThreadPoolExecutor(3) as threads:
        bombs = [threads.submit(grade, boxed(BOMBS["tower"]), "5", HASTY) for _ in range(2)]
        fine = threads.submit(is_right, "x+x", "2x")
        assert [bomb.result(60).reason for bomb in bombs] == [Fault.TIMED_OUT.value] * 2
        assert fine.result(60)


def test_executor_of_a_running_event_loop() -> None:
    async def grade_all() -> list[Grade]:
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(None, grade, boxed(answer), gold, PATIENT) for answer, gold, _ in SAMPLES]
        return list(await asyncio.gather(*jobs))

    assert [result.correct for result in asyncio.run(grade_all())] == [right for *_, right in SAMPLES]


@pytest.mark.job
def test_daemonic_spawned_process() -> None:
    # Pool workers are daemonic: multiprocessing would refuse them children of their own.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(grade, (boxed("x+x"), "2x", PATIENT)).correct
        assert pool.apply(grade, (boxed(BOMBS["tower"]), "5", HASTY)).reason == Fault.TIMED_OUT.value
        assert pool.apply(grade, (boxed("x+x"), "2x", PATIENT)).correct


# --- a process of its own: what it imports, and what it leaves behind -------------------------------------------------

PRELUDE = f"""
import json, os, sys, threading, time
import psutil
from longshort_verl.grading.answers import GradingSettings, grade
PATIENT, HASTY, BOMBS = {PATIENT}, {HASTY}, {BOMBS}
def workers():
    return [child.pid for child in psutil.Process().children(recursive=True) if "_serve()" in " ".join(child.cmdline())]
def judge(answer, gold, how):
    return grade("\\\\boxed{{" + answer + "}}", gold, how).correct
"""


def launch(tmp_path: Path, body: str) -> subprocess.Popen[str]:
    """A user's script, with no main guard: nothing may import it a second time."""
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + textwrap.dedent(body))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)


def gone_after(pids: list[int], limit_s: float) -> float:
    """Seconds until none of the processes runs; a zombie waits for init only. Fails past the limit."""
    start = time.perf_counter()
    while True:
        alive = []
        for pid in pids:
            try:
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    alive.append(pid)
            except psutil.NoSuchProcess:
                pass
        took = time.perf_counter() - start
        if not alive:
            return took
        assert took < limit_s, f"{alive} still run after {limit_s} s"
        time.sleep(0.02)


@pytest.mark.job
def test_exit_amid_grading_leaves_nothing_and_does_not_hang(tmp_path: Path) -> None:
    process = launch(
        tmp_path,
        """
        right = judge("x+x", "2x", PATIENT)
        late = judge(BOMBS["tower"], "5", HASTY)
        again = judge("x+x", "2x", PATIENT)
        heavy = {"sympy", "math_verify", "torch", "ray", "verl", "transformers", "numpy", "vllm"}
        here = sorted(heavy & set(sys.modules))
        threading.Thread(target=judge, args=(BOMBS["tower"], "5", PATIENT), daemon=True).start()
        time.sleep(0.3)
        pids = workers()
        from longshort_verl.grading import answers as grading
        grading._load_judge()  # all that a worker imports
        print(json.dumps([right, late, again, pids, here, sorted(heavy & set(sys.modules))]), flush=True)
        """,
    )
    out, _ = process.communicate(timeout=100)
    right, late, again, pids, here, in_worker = json.loads(out)
    assert (right, late, again) == (True, False, True)
    assert len(pids) == 1
    assert here == []  # sympy stays out of the trainer's processes …
    assert in_worker == ["math_verify", "sympy"]  # … and torch, ray and verl out of the workers
    assert process.returncode == 0
    gone_after(pids, 3.0)


@pytest.mark.job
def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    process = launch(
        tmp_path,
        """
        three = GradingSettings(timeout_s=5.0, max_answer_chars=2000, max_workers=3)
        together = threading.Barrier(4)
        def run(answer):
            together.wait()
            judge("x+x", "2x", three)
            together.wait()
            judge(answer, "5", three)
        # Plain numbers leave their worker idle; the sum runs in Python; the tower is one multiplication inside C that
        # lets no other thread run, so that its worker notices nothing and only the alarm can end it, after 5 + 1 s.
        for answer in ("1", BOMBS["sum"], BOMBS["tower"]):
            threading.Thread(target=run, args=(answer,)).start()
        together.wait()
        together.wait()
        time.sleep(0.5)
        print(json.dumps(workers()), flush=True)
        time.sleep(60)
        """,
    )
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    assert len(pids) == 3
    process.kill()
    process.communicate()
    gone_after(pids, 9.0)


@pytest.mark.job
def test_forked_process_has_workers_of_its_own(tmp_path: Path) -> None:
    process = launch(
        tmp_path,
        """
        before = judge("x+x", "2x", PATIENT)
        threading.Thread(target=judge, args=(BOMBS["sum"], "5", PATIENT)).start()
        time.sleep(0.3)  # now that worker is in use
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            in_child = judge("y+y", "2y", PATIENT)
            os.write(write, json.dumps([in_child, workers()]).encode())
            time.sleep(60)
        in_child, childs_workers = json.loads(os.read(read, 100))
        after = judge("z+z", "2z", PATIENT)
        mine = sorted(set(workers()) - set(childs_workers))
        print(json.dumps([before, in_child, after, child, childs_workers, mine]), flush=True)
        time.sleep(60)
        """,
    )
    assert process.stdout is not None
    before, in_child, after, child, childs_workers, mine = json.loads(process.stdout.readline())
    try:
        assert (before, in_child, after) == (True, True, True)
        assert (len(childs_workers), len(mine)) == (1, 2)
        process.kill()
        # The forked process lives on; it must not keep alive the workers that belong to the killed one, busy or idle.
        gone_after(mine, 3.0)
        assert psutil.Process(childs_workers[0]).is_running()
    finally:
        os.kill(child, signal.SIGKILL)
    gone_after(childs_workers, 3.0)
    process.communicate()


# --- anything at all ------------------------------------------------------------------------------------------------

FRAGMENTS = [
    "\\boxed{",
    "\\fbox{",
    "{",
    "}",
    "\\frac",
    "\\sqrt",
    "1",
    "23",
    "x",
    "+",
    "-",
    "^",
    "_",
    "(",
    ")",
    "[",
    "]",
]
FRAGMENTS += [
    ",",
    " ",
    "\\",
    "\\text{",
    "\\left(",
    "\\right)",
    "\\pi",
    "\\infty",
    "=",
    "<",
    "$",
    "%",
    "|",
    "!",
    "\n",
    "\x00",
]
LATEX = st.lists(st.sampled_from(FRAGMENTS), max_size=15).map("".join)


@settings(deadline=None, max_examples=150)
@given(st.text() | LATEX, st.sampled_from(["5", "\\frac{1}{2}", "(1, 2)", "x^2 + 1", "\\text{even}", "C"]))
def test_no_text_raises(text: str, gold: str) -> None:
    for answer_text in (text, boxed(text)):
        result = grade(answer_text, gold, HASTY)
        assert not (result.correct and result.reason)
        assert result.correct or result.reason in {"", *(fault.value for fault in Fault)}


@settings(deadline=None, max_examples=200)
@given(LATEX)
def test_an_accepted_gold_answer_equals_itself(gold: str) -> None:
    try:
        check_gold(gold)
    except ValueError:
        return
    if grading._choice(gold) is None:
        assert grade_math(f"\\boxed{{{gold}}}", gold, PATIENT).correct
