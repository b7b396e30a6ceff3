# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The progress of every long command: bars on a terminal, and lines in a log."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY_S = 30.0
"""Seconds between two lines."""
_RATE_S = 300.0
"""Seconds over which a rate is averaged."""


class Bars(Progress):
    """Rich's bars; without a terminal nothing is drawn, and :meth:`lines` describes them."""

    def bar(self, label: str, total: int) -> Callable[[], None]:
        """Add a bar; returns what advances it by one."""
        task = self.add_task(label, total=total)
        return lambda: self.advance(task)

    def lines(self) -> list[str]:
        """A line of the first unfinished bar, or of the last bar if all are finished."""
        unfinished = [task for task in self.tasks if not task.finished]
        return [progress_line(task) for task in unfinished[:1] or self.tasks[-1:]]


@contextmanager
def open_progress(console: Console | None = None, every_s: float = EVERY_S) -> Iterator[Bars]:
    """Progress on ``console``, the standard error by default.

    A terminal shows bars. Anything else gets a line every ``every_s`` seconds, whether or not something was done, and
    one at the end.
    """
    with _standard_error() as stream:
        console = console or Console(file=stream)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        left = (TextColumn("left"), TimeRemainingColumn())
        bars = Bars(*columns, *left, console=console, speed_estimate_period=_RATE_S, disable=not console.is_terminal)
        with bars, _lines(bars, every_s):
            yield bars


@contextmanager
def _standard_error() -> Iterator[TextIO]:
    """A copy of the standard error, which an engine's start redirects to its log."""
    try:
        copy = os.dup(sys.stderr.fileno())
    except (io.UnsupportedOperation, ValueError):  # a test's stand-in for it
        yield sys.stderr
        return
    with os.fdopen(copy, "w", encoding=sys.stderr.encoding, errors="replace") as stream:
        yield stream


@contextmanager
def _lines(bars: Bars, every_s: float) -> Iterator[None]:
    if bars.console.is_terminal:
        yield
        return
    ended = threading.Event()

    def show() -> None:
        for line in bars.lines():
            bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def repeat() -> None:
        while not ended.wait(every_s):
            show()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()


def progress_line(task: Task) -> str:
    """What is done, of how many, the rate and the time left, such as ``pair: 120 of 500 done, 3.2/s, 1:59 left``."""
    elapsed = task.elapsed or 0.0
    if task.total is None:
        return f"{task.description}: {clock(elapsed)} so far"
    line = f"{task.description}: {task.completed:.0f} of {task.total:.0f} done"
    if task.finished:
        return f"{line} in {clock(elapsed)}"
    # "begun" is what had been done, and after how many seconds, when the work itself began.
    done, seconds = task.fields.get("begun", (0, 0.0))
    rate = task.speed or ((task.completed - done) / (elapsed - seconds) if elapsed > seconds else 0.0)
    if not rate:
        return f"{line}, {clock(elapsed)} so far"
    shown = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
    return f"{line}, {shown}, {clock((task.total - task.completed) / rate)} left"


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours if there are any, such as ``1:59``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
