# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Decides whether an answer written by a model equals the gold answer.

Stands between the dialogue and everything that counts right answers: Monte-Carlo importance, the cold-start filter,
the accuracy reward and evaluation. Pure: it knows no verl, ray or torch, and may be called from any thread.

The text to be graded is hostile: a policy under optimisation finds whatever makes a grader hang, crash or nod. So

* only the last box counts, and an answer without a box is no answer;
* what can be decided by comparing text or plain decimals is decided here, exactly;
* everything else is read by math-verify in worker processes that are killed when the time is up. A worker is a bare
  ``python -c`` that imports math-verify and nothing else. It is not a ``multiprocessing`` (or pebble, loky, …) pool,
  since their spawned children import the parent's main module, which here means torch, ray and verl in each of them.
  math-verify's own limit is no way out: it uses ``signal.alarm``, which works in main threads only, and neither it
  nor any thread can stop one long operation inside C, such as ``9**9**9``.

Comparing follows math-verify (six decimals where one side is a decimal fraction and the other is not; a set equals a
list in any order, and a list without brackets equals a pair; units and an ``x =`` before the value are dropped), less
what it reads into text that was not meant: see ``Fault.SIDE_BY_SIDE``, ``Fault.BRACKETS`` and ``Fault.BASE``. A percent
sign at the end counts for nothing, so that 5\\% is 5 and is not 0.05.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import multiprocessing
import numbers
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any

from longshort_verl.types import Grade

MAX_NESTING = 12
"""Most brackets open at once in an answer. Gold answers of MATH-500 reach 2; parsing time is exponential in it."""
_START_TIMEOUT_S = 120.0
"""A worker that is not ready after this has failed. Importing sympy takes 1 to 2 s on an idle core."""
_MEMORY_BYTES = 1 << 30
"""Address space of one worker, which needs about 0.2 GiB: ``10^{10^{12}}`` must not fill the node."""


class Fault(str, Enum):
    """Why an answer is wrong where that is not plain; ``Grade.reason`` holds the value, so that it can be counted."""

    NO_BOX = "no boxed answer"
    """The text has neither ``\\boxed{`` nor ``\\fbox{``."""
    UNBALANCED = "unbalanced braces"
    """A box was opened and none was closed."""
    EMPTY = "empty box"
    """Nothing but white space in the box."""
    TOO_LONG = "too long"
    """More characters than ``GradingSettings.max_answer_chars``."""
    TOO_DEEP = "nested too deeply"
    """More than MAX_NESTING brackets open at once."""
    CONTROL = "control characters"
    """Null bytes and the like; often ``\\f`` or ``\\b`` of a LaTeX command that was unescaped on its way."""
    SIDE_BY_SIDE = "two numbers side by side"
    """``5 7`` is no number; math-verify would add them up."""
    BRACKETS = "other brackets than the gold answer"
    """``[3, \\pi]`` for ``(3, \\pi)``; math-verify drops the brackets where the ends are not plain numbers."""
    BASE = "another number base"
    """``21_7`` for ``21_8``; math-verify drops the base."""
    NOT_A_LETTER = "not a single letter A-J"
    """Multiple choice: something else, or several letters, in the box."""
    UNREADABLE = "not readable as mathematics"
    """math-verify cannot parse it."""
    FAILED = "comparison failed"
    """math-verify raised while it compared (out of memory, too deep a recursion, …)."""
    GOLD_AS_TEXT = "gold answer is not mathematics, text differs"
    """math-verify cannot parse the gold answer, so the two were compared as text."""
    TIMED_OUT = "timed out"
    """Reading and comparing took longer than ``GradingSettings.timeout_s``."""
    DIED = "grading process died"
    """Two workers in a row died over this answer."""


@dataclass(frozen=True, kw_only=True)
class GradingSettings:
    """How much one answer may cost. No defaults here: they live in ``longshort_verl/config``."""

    timeout_s: float
    """Seconds of wall clock for reading and comparing one answer, counted from when a worker takes it up."""
    max_answer_chars: int
    """Most characters inside the box; a longer answer is wrong unless it is the gold answer letter by letter."""
    max_workers: int
    """Most worker processes of this process, about 75 MB each; they start when needed and stay."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ValueError(f"grading: timeout_s is {self.timeout_s!r}; give a positive number of seconds")
        if self.max_answer_chars < 1:
            raise ValueError(f"grading: max_answer_chars is {self.max_answer_chars!r}; give at least 1")
        if self.max_workers < 1:
            raise ValueError(f"grading: max_workers is {self.max_workers!r}; give at least 1")


# --- what is graded -------------------------------------------------------------------------------------------------

_BLANK = " \t\r\n\u00a0"  # not form feed, as strip() would have it: that one is a lost backslash
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# An escape is one token, so that the brace of `\{` counts as a sign and not as a group; but the second backslash of
# an over-escaped `\\boxed{` still begins a box.
_BRACES = re.compile(rf"{_BOX.pattern}|\\(?!{_BOX.pattern}).|[{{}}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    """Contents of the last balanced ``\\boxed{…}`` or ``\\fbox{…}``; None where there is none.

    Last means opened last, so of two nested boxes it is the inner one. One pass over the text.
    """
    open_groups: list[int | None] = []  # where the contents of a box begin; None for a plain group
    begin = end = -1
    first = _BOX.search(text)
    for token in _BRACES.finditer(text, first.start()) if first else ():
        mark = token.group()
        if mark == "}":
            # A stray closing brace outside any group is the writer's slip and closes nothing.
            start = open_groups.pop() if open_groups else None
            if start is not None and start > begin:
                begin, end = start, token.start()
        elif mark == "{":
            open_groups.append(None)
        elif mark[-1] == "{" and _BOX.fullmatch(mark):
            open_groups.append(token.end())
    return text[begin:end] if begin >= 0 else None


def extract_answer(text: str) -> str | None:
    """The answer that a text commits itself to: the contents of its last box, trimmed; None where there is none.

    Nothing is guessed from unboxed text: a number picked out of prose would pay a policy for not answering.
    """
    boxed = last_boxed(text)
    return None if boxed is None else boxed.strip(_BLANK)


def canonical_gold(value: object) -> str:
    """The gold answer of a data set as gradable text: 27.0 and 27 become ``27``, 0.5 becomes ``0.5``.

    Raises ValueError for what ``check_gold`` refuses.
    """
    gold = value.strip(_BLANK) if isinstance(value, str) else value
    if isinstance(value, numbers.Real) and not isinstance(value, bool | Fraction) and math.isfinite(value):
        exact = Decimal(str(value))  # the shortest text that gives this number, numpy's single precision included
        gold = str(int(exact)) if exact == int(exact) else format(exact, "f")
    check_gold(gold)
    assert isinstance(gold, str)
    return gold


def check_gold(gold: object) -> None:
    """Raises ValueError where no answer could honestly be graded against this gold answer; run it on problem files."""
    if not isinstance(gold, str):
        raise ValueError(f"gold answer {gold!r} is not text; convert it with canonical_gold")
    shown = repr(gold if len(gold) <= 80 else gold[:80] + "…")
    if not _tidy(gold):
        raise ValueError(f"gold answer {shown} is empty; drop the problem or fill in its answer")
    if _CONTROL.search(gold):
        raise ValueError(f"gold answer {shown} holds control characters; was a backslash lost on the way?")
    if _BOX.search(gold):
        raise ValueError(f"gold answer {shown} holds a box; give what stands inside it")
    if last_boxed(f"\\boxed{{{gold}}}") != gold:
        raise ValueError(f"gold answer {shown} has unbalanced braces, so that no boxed answer can equal it")
    if _nesting(gold) > MAX_NESTING:
        raise ValueError(f"gold answer {shown} is nested more than {MAX_NESTING} deep, so that none can equal it")
    if _SIDE_BY_SIDE.search(_tidy(gold)):
        raise ValueError(f"gold answer {shown} has two numbers side by side; put a comma or an operator between them")
    if re.fullmatch(r"[+-]?(nan|inf|infinity)", _tidy(gold), re.IGNORECASE):
        raise ValueError(f"gold answer {shown} looks like a missing value; for infinity write \\infty")


# --- grading --------------------------------------------------------------------------------------------------------


def grade(answer_text: str, gold: str, settings: GradingSettings) -> Grade:
    """Grades as multiple choice where the gold answer is one capital letter A to J, else as mathematics.

    The letter may be dressed as ``(C)`` or ``\\text{(C)}``. A problem whose answer is a variable named by such a letter
    is graded as choice too; it only gains that the small letter counts as well.
    """
    check_gold(gold)
    letter = _choice(gold)
    if letter is not None and letter.isupper():
        return grade_choice(answer_text, letter, settings)
    return grade_math(answer_text, gold, settings)


def grade_choice(answer_text: str, gold_letter: str, settings: GradingSettings) -> Grade:
    """Grades the boxed letter of ``answer_text`` against ``gold_letter``, A to J, in either case."""
    if not re.fullmatch("[A-Ja-j]", gold_letter):
        raise ValueError(f"gold letter {gold_letter!r} is not one letter A to J; use grade_math")
    answer, fault = _answer(answer_text)
    if answer is None or fault is not None:
        return _wrong(answer, fault, settings)
    letter = _choice(answer) if len(answer) <= settings.max_answer_chars else None
    if letter is None:
        return _wrong(answer, Fault.NOT_A_LETTER, settings)
    if letter.upper() != gold_letter.upper():
        return _wrong(answer, None, settings)
    return Grade(correct=True, extracted=answer)


def grade_math(answer_text: str, gold: str, settings: GradingSettings) -> Grade:
    """Grades the boxed answer of ``answer_text`` against ``gold``.

    Never raises for any ``answer_text`` and takes at most ``settings.timeout_s`` and a few milliseconds, save where
    it has to wait for a worker: until the first has started (see ``warm_up``), or until one of
    ``settings.max_workers`` is free. Raises ValueError for a gold answer that ``check_gold`` refuses, and RuntimeError
    where the environment lets no worker start.
    """
    check_gold(gold)
    answer, fault = _answer(answer_text)
    if answer is None or fault is not None:
        return _wrong(answer, fault, settings)
    if answer == gold.strip(_BLANK):  # before the guards, so that a long gold answer can be met
        return Grade(correct=True, extracted=answer[: settings.max_answer_chars])
    if len(answer) > settings.max_answer_chars:
        return _wrong(answer, Fault.TOO_LONG, settings)
    if _CONTROL.search(answer):
        return _wrong(answer, Fault.CONTROL, settings)
    if _nesting(answer) > MAX_NESTING:
        return _wrong(answer, Fault.TOO_DEEP, settings)
    found, expected = _tidy(answer), _tidy(gold)
    if not found:
        return _wrong(answer, Fault.EMPTY, settings)
    if found == expected:
        return Grade(correct=True, extracted=answer)
    if _DECIMAL.fullmatch(found) and _DECIMAL.fullmatch(expected):
        same = Decimal(found) == Decimal(expected)
        return Grade(correct=True, extracted=answer) if same else _wrong(answer, None, settings)
    fault = _misread(found, expected)
    if fault is not None:
        return _wrong(answer, fault, settings)
    verdict = _workers.judge(found, expected, settings)
    if verdict == _EQUAL or (verdict == Fault.GOLD_AS_TEXT.value and _words(found) == _words(expected)):
        return Grade(correct=True, extracted=answer)
    return _wrong(answer, None if verdict == _DIFFERENT else Fault(verdict), settings)


def warm_up(settings: GradingSettings) -> None:
    """Starts a worker and grades once, so that a broken environment shows at set-up and the first answer need not wait.

    Takes 1 to 3 s. Raises RuntimeError where grading does not work.
    """
    verdict = _workers.judge("\\frac{2}{4}", "\\frac{1}{2}", settings)
    if verdict != _EQUAL:
        raise RuntimeError(f"grading does not work here: 2/4 against 1/2 gave {verdict!r} (timeout_s too small?)")


def _answer(text: str) -> tuple[str | None, Fault | None]:
    """The boxed answer, or what is the matter with the box."""
    answer = extract_answer(text)
    if answer is None:
        return None, Fault.UNBALANCED if _BOX.search(text) else Fault.NO_BOX
    return answer, None if answer else Fault.EMPTY


def _wrong(answer: str | None, fault: Fault | None, settings: GradingSettings) -> Grade:
    # Cut, since a megabyte of junk would go on into every log.
    extracted = None if answer is None else answer[: settings.max_answer_chars]
    return Grade(correct=False, extracted=extracted, reason="" if fault is None else fault.value)


# --- text -----------------------------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_SPACE = r"(?:\s|~|\\[ ,;:]|\\q?quad(?![a-zA-Z]))+"
_NEGATIVE_SPACE = re.compile(r"\\!\s*")
_THOUSANDS = re.compile(rf"(?<![0-9.])[0-9]{{1,3}}(?:{_SPACE}[0-9]{{3}})+(?![0-9])")
_MIXED = re.compile(rf"([0-9]){_SPACE}([0-9]+)/([0-9]+)")
_SIDE_BY_SIDE = re.compile(rf"[0-9]{_SPACE}[0-9]")
_BASE = re.compile(r"[0-9A-F]+_\{?([0-9]+)\}?")
_FONT = re.compile(r"\\(?:(?:text|math)[a-z]*|mbox|left|right)(?![a-zA-Z])")


def _tidy(text: str) -> str:
    """Takes off what never carries meaning, on both sides alike: dollars around, a full stop or percent sign at the
    end, spaces within a number; writes ``1 1/2`` as LaTeX's mixed number.
    """
    text = _NEGATIVE_SPACE.sub("", text.replace("−", "-")).strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text.strip("$").strip()
    text = text.removesuffix(".").rstrip()
    text = text.removesuffix("%").removesuffix("\\").rstrip() if text.endswith("%") else text
    text = _THOUSANDS.sub(lambda number: re.sub(_SPACE, "", number.group()), text)
    return _MIXED.sub(r"\1 \\frac{\2}{\3}", text)


def _words(text: str) -> str:
    """Text without its fonts, braces, case and runs of white space."""
    return " ".join(re.sub(r"[{}$]", "", _FONT.sub("", text)).casefold().split())


def _choice(text: str) -> str | None:
    """The one letter A to J, in its own case, that is left of ``text`` without fonts, brackets and full stops."""
    bare = re.sub(r"[\s{}()\[\]$.:*]|\\[ ,;!]", "", _FONT.sub("", text))
    return bare if re.fullmatch("[A-Ja-j]", bare) else None


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


def _misread(found: str, expected: str) -> Fault | None:
    """Differences that math-verify overlooks."""
    if _SIDE_BY_SIDE.search(found):
        return Fault.SIDE_BY_SIDE
    base, gold_base = _BASE.fullmatch(found), _BASE.fullmatch(expected)
    if base and gold_base and base.group(1) != gold_base.group(1):
        return Fault.BASE
    brackets, gold_brackets = _brackets(found), _brackets(expected)
    if brackets and gold_brackets and brackets != gold_brackets:
        return Fault.BRACKETS
    return None


def _brackets(text: str) -> str | None:
    """``()``, ``[)``, … where one such pair encloses the whole list; None for anything else."""
    text = re.sub(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])", "", text).strip()
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]" or "," not in text:
        return None
    depth = 0
    for index, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and index < len(text) - 1:
            return None
    return text[0] + text[-1]


# --- workers: the side of the process that asks ---------------------------------------------------------------------

_EQUAL, _DIFFERENT = "equal", "different"  # verdicts; any other verdict is the value of a Fault


class _Worker:
    """One grading process. Its end of the pipe is its standard input, and its life: it exits when ours closes."""

    def __init__(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._ready = False
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        boot = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); import {__name__} as g; g._serve()"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", boot, path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # sympy orders by hash in places: the same answer must get the same grade in every worker.
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )

    def is_ready(self) -> bool:
        """Waits until it has imported what it needs, which counts against nobody's time limit; False if it failed."""
        if not self._ready:
            with contextlib.suppress(EOFError, OSError):
                self._ready = self._connection.poll(_START_TIMEOUT_S) and self._connection.recv_bytes() == b"ready"
        return self._ready

    def ask(self, request: bytes, timeout_s: float) -> bytes | None:
        """The reply, or None where none came in time. Raises EOFError or OSError where the process died."""
        self._connection.send_bytes(request)
        return self._connection.recv_bytes() if self._connection.poll(timeout_s) else None

    def kill(self) -> None:
        """Ends it, whatever it does, and reaps it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Closes this process's end after a fork: a worker must die with the process that started it."""
        self._connection.close()


class _Workers:
    """At most ``max_workers`` processes, started when needed, replaced when they had to be killed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []

    def judge(self, answer: str, gold: str, settings: GradingSettings) -> str:
        """The verdict on one answer."""
        request = json.dumps([answer, gold, settings.timeout_s]).encode()
        started = False
        # Twice, since a worker may have been killed for no fault of this answer (out-of-memory killer, an operator).
        for _ in range(2):
            worker = self._take(settings.max_workers)
            after: Callable[[_Worker], None] = self._drop
            try:
                started = worker.is_ready()
                if not started:
                    continue
                after = self._replace
                reply = worker.ask(request, settings.timeout_s)
                if reply is None:
                    return Fault.TIMED_OUT.value
                verdict, worn = json.loads(reply)
                if not worn:
                    after = self._give_back
                return verdict
            except (EOFError, OSError):
                continue
            finally:
                after(worker)
        if not started:
            raise RuntimeError(
                "grading processes do not start (their own message is on standard error); "
                f"try: {sys.executable} -c 'import math_verify'"
            )
        return Fault.DIED.value

    def close(self) -> None:
        """Kills all workers."""
        with self._changed:
            workers, self._all, self._idle = self._all, set(), []
        for worker in workers:
            worker.kill()

    def forget(self) -> None:
        """After a fork the workers belong to the parent alone."""
        for worker in self._all:
            worker.forget()

    def _take(self, max_workers: int) -> _Worker:
        with self._changed:
            while not self._idle:
                if len(self._all) < max_workers:
                    worker = _Worker()
                    self._all.add(worker)
                    return worker
                self._changed.wait()
            return self._idle.pop()

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if worker in self._all:  # not closed meanwhile
                self._idle.append(worker)
            self._changed.notify_all()

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        with self._changed:
            self._all.discard(worker)
            self._changed.notify_all()

    def _replace(self, worker: _Worker) -> None:
        worker.kill()
        with self._changed:
            if worker in self._all:
                self._all.discard(worker)
                fresh = _Worker()  # begins to import now, so that the next answer waits less
                self._all.add(fresh)
                self._idle.append(fresh)
            self._changed.notify_all()


_workers = _Workers()


def _after_fork() -> None:
    global _workers
    inherited, _workers = _workers, _Workers()
    inherited.forget()


os.register_at_fork(after_in_child=_after_fork)
# Workers notice by themselves that this process is gone; this only makes an orderly exit wait for them.
atexit.register(lambda: _workers.close())


# --- workers: the process that grades -------------------------------------------------------------------------------


def _serve() -> None:
    """Main function of a worker: answers requests on standard input, a socket, until it is closed."""
    connection = Connection(os.dup(0))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()

    judge = _load_judge()
    judge("\\frac{\\sqrt{2}}{2} x^2", "(1, \\pi) \\cup [2, \\infty)")  # fills the caches of parser and regexes
    judge("\\frac{x}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2} x")
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    os.dup2(silence, 2)  # until here standard error tells why a worker does not start; hereafter antlr chatters on it
    connection.send_bytes(b"ready")
    while True:
        answer, gold, timeout_s = json.loads(requests.get())
        # Should the parent be gone, the kernel ends even a computation that never lets another thread run.
        signal.setitimer(signal.ITIMER_REAL, timeout_s + 1.0)
        verdict = judge(answer, gold)
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(json.dumps([verdict, _worn()]).encode())


def _receive(connection: Connection, requests: queue.SimpleQueue[bytes]) -> None:
    """Waits in a thread of its own, so that the end of the parent ends this process in the midst of its work."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _worn() -> bool:
    """Whether memory that stayed taken could make the next answer fail: each must find the same conditions."""
    if sys.platform != "linux":
        return False
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    return pages * resource.getpagesize() > _MEMORY_BYTES // 2


def _load_judge() -> Callable[[str, str], str]:
    """Imports math-verify, here and nowhere else: sympy stays out of the trainer's processes."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # Only as LaTeX: the reader for plain expressions would pick a number out of unreadable text.
    reading = [LatexExtractionConfig(boxed_match_priority=0)]

    def read(text: str) -> list:
        no_limit: Any = None  # annotated int, documented None
        return parse(f"\\boxed{{{text}}}", reading, fallback_mode="no_fallback", parsing_timeout=no_limit)

    def judge(answer: str, gold: str) -> str:
        try:
            expected = read(gold)
            if not expected:
                return Fault.GOLD_AS_TEXT.value
            found = read(answer)
            if not found:
                return Fault.UNREADABLE.value
            same = verify(expected, found, timeout_seconds=None, raise_on_error=True)
        except Exception:  # anything at all: sympy is walked over text of a stranger's choice
            return Fault.FAILED.value
        return _EQUAL if same else _DIFFERENT

    return judge
