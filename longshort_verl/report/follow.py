# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Progress of a running job, read from the files that it writes, and the progress bar of rollouts."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rich.console import Console

from longshort_verl.report.curves import Step, read_run
from longshort_verl.report.progress import clock, open_progress
from longshort_verl.types import Cost

_POLL_S = 0.5
_STAGES = (
    (re.compile(r"ray init kwargs"), "Ray is starting"),
    (re.compile(r"worker group kwargs"), "an actor is loading"),
    (re.compile(r"reward loop manager initialized"), "its engine is starting"),
    (re.compile(r"checkpoint engine manager initialized"), "the second policy's actor, if any, is loading"),
    (re.compile(r"short policy's actor is ready"), "its engine is starting"),
)
"""Line of the job's output → the stage that begins with it. They show the progress before the first step."""
_ALARM = re.compile(r"longshort alarm: (.*)")
_FINISHED = re.compile(r".* is finished: nothing to do$")
_TOTAL = re.compile(r"Total training steps: (\d+)")
_KEPT_LINES = 40


def follow_run(metrics: Path, process: int, log: Path | None) -> bool:
    """Show a job's stages, steps and validations until its process ends; its output is ``log``.

    Returns False if the job ended before its last step; the last lines of ``log`` are then shown. ``metrics`` is the
    JSONL of verl's file logger, or the run's folder.
    """
    console = Console()
    reader = _LogReader(log)
    shown = max((step.step for step in _read(metrics)), default=-1)
    with open_progress(console) as progress:
        bar = progress.add_task("starting", total=None, completed=max(shown, 0))
        task = progress.tasks[progress.task_ids.index(bar)]
        # The rate leaves out the job's start, which takes minutes, and what an earlier start had done.
        begun = None
        while True:
            alive = _is_alive(process)
            for event in reader.read():
                console.print(f"[{clock(task.elapsed or 0)}] {event}", highlight=False, markup=False, soft_wrap=True)
            for step in (steps := _read(metrics)):
                if step.step > shown:
                    shown = step.step
                    begun = begun or (shown, task.elapsed)
                    if step.validation("acc") is not None:
                        console.print(f"[{clock(task.elapsed or 0)}] {_describe(step)}", highlight=False, markup=False)
            state, done = "training" if steps else "starting", max(shown, 0)
            since = begun or (done, task.elapsed)
            progress.update(bar, description=state, total=reader.total_steps, completed=done, begun=since)
            if not alive:
                break
            time.sleep(_POLL_S)
    if steps and (reader.total_steps is None or shown >= reader.total_steps):
        return True
    console.print(f"the job ended before its last step; the end of {log}:", highlight=False)
    console.print("\n".join(reader.tail), markup=False, highlight=False, soft_wrap=True)
    return False


@contextmanager
def rollout_progress(num_traces: int) -> Iterator[tuple[Callable[[Cost], None], Callable[[], None]]]:
    """Progress bar of finished traces, with rollouts, tokens, prefill hit rate and remaining time.

    Gives the functions that add a cost and that count a finished trace.
    """
    total = Cost()
    with open_progress() as bars:
        bar = bars.add_task("", total=num_traces)

        def add_cost(cost: Cost) -> None:
            nonlocal total
            total += cost
            hits = "" if total.hit_rate is None else f", {total.hit_rate:.0%} cached"
            text = f"{total.num_rollouts} rollouts, {total.num_tokens} tokens{hits}; traces"
            bars.update(bar, description=text)

        add_cost(total)
        yield add_cost, lambda: bars.advance(bar)


def _read(metrics: Path) -> list[Step]:
    try:
        return read_run(metrics)
    except (FileNotFoundError, ValueError):
        return []


def _describe(step: Step) -> str:
    names = (("accuracy", "acc", "{:.1%}"), ("format", "format", "{:.1%}"), ("tokens", "num_tokens", "{:.1f}"))
    values = [(label, step.validation(name), form) for label, name, form in names]
    shown = (f"{label} {form.format(value)}" for label, value, form in values if value is not None)
    return f"validation at step {step.step}: {', '.join(shown)}"


def _is_alive(process: int) -> bool:
    try:
        # A zombie has ended; its parent, the shell that follows it, has not reaped it yet.
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _LogReader:
    """Reads a job's output as it grows."""

    def __init__(self, log: Path | None):
        self._log = log
        self._offset = 0
        self._stage = -1
        self.total_steps: int | None = None
        self.tail: deque[str] = deque(maxlen=_KEPT_LINES)

    def read(self) -> list[str]:
        """Read what was written since the last call; returns the stages that began and the alarms that were raised."""
        events: list[str] = []
        if self._log is None or not self._log.exists():
            return events
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].decode(errors="replace").splitlines():
            self.tail.append(line)
            if match := _ALARM.search(line):
                events.append(f"warning: {match[1]}")
            if _FINISHED.match(line):
                events.append(line)
            if match := _TOTAL.search(line):
                self.total_steps = int(match[1])
            for number in range(self._stage + 1, len(_STAGES)):
                if _STAGES[number][0].search(line):
                    self._stage = number
                    events.append(_STAGES[number][1])
        return events
