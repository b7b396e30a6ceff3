# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Grading processes with a time limit.

A process that is late is killed. math-verify's own limit does not suffice: it uses ``signal.alarm``, which works in
main threads only, and neither it nor a thread can stop one long operation in C, such as ``9**9**9``. A process runs
``judge.py`` by path. ``multiprocessing`` and other pools do not fit: their spawned children import the parent's main
module, which here means torch, ray and verl in each child.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from longshort_verl.grading import judge as judge_script

TIMED_OUT = "timed out"
DIED = "grading process died"
_START_TIMEOUT_S = 120.0
"""A process that is not ready by then has failed. Importing sympy takes 1 to 2 s on an idle core."""


class Worker:
    """One grading process, connected through its standard input. It exits when our end of the connection closes."""

    def __init__(self) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self._ready = False
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(judge_script.__file__)), path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # sympy orders by hash in places: the same answer must get the same grade in every process.
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )

    def is_ready(self) -> bool:
        """Waits for the imports, which count against no time limit; False if the process failed."""
        if not self._ready:
            with contextlib.suppress(EOFError, OSError):
                self._ready = self.connection.poll(_START_TIMEOUT_S) and self.connection.recv_bytes() == b"ready"
        return self._ready

    def ask(self, request: bytes, timeout_s: float) -> bytes | None:
        """The reply; None if none came in time. Raises EOFError or OSError if the process died."""
        self.connection.send_bytes(request)
        return self.connection.recv_bytes() if self.connection.poll(timeout_s) else None

    def kill(self) -> None:
        """Kills the process and reaps it."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class Workers:
    """At most ``max_workers`` processes, started on demand and replaced when killed. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: set[Worker] = set()
        self._idle: list[Worker] = []

    def judge(self, answer: str, gold: str, *, timeout_s: float, max_workers: int) -> str:
        """Compares one answer with its gold answer.

        Returns:
            A verdict of ``judge.py``, TIMED_OUT, or DIED where two processes in a row died.

        Raises:
            RuntimeError: no process starts in this environment.
        """
        request = json.dumps([answer, gold, timeout_s]).encode()
        started = False
        # Twice, since the death of a process may have another cause (out-of-memory killer, an operator).
        for _ in range(2):
            worker = self._take(max_workers)
            release: Callable[[Worker], None] = self._drop
            try:
                started = worker.is_ready()
                if not started:
                    continue
                release = self._replace
                reply = worker.ask(request, timeout_s)
                if reply is None:
                    return TIMED_OUT
                verdict, worn = json.loads(reply)
                if not worn:
                    release = self._give_back
                return verdict
            except (EOFError, OSError):
                continue
            finally:
                release(worker)
        if not started:
            raise RuntimeError(
                "grading processes do not start (their error is on standard error); "
                f"try: {sys.executable} -c 'import math_verify'"
            )
        return DIED

    def close(self) -> None:
        """Kills all processes."""
        with self._changed:
            workers, self._all, self._idle = self._all, set(), []
        for worker in workers:
            worker.kill()

    def disconnect(self) -> None:
        """Closes a forked child's copies of the connections: a worker must die with the process that started it."""
        for worker in self._all:
            worker.connection.close()

    def _take(self, max_workers: int) -> Worker:
        with self._changed:
            while not self._idle:
                if len(self._all) < max_workers:
                    worker = Worker()
                    self._all.add(worker)
                    return worker
                self._changed.wait()
            return self._idle.pop()

    def _give_back(self, worker: Worker) -> None:
        with self._changed:
            if worker in self._all:  # not closed meanwhile
                self._idle.append(worker)
            self._changed.notify_all()

    def _drop(self, worker: Worker) -> None:
        worker.kill()
        with self._changed:
            self._all.discard(worker)
            self._changed.notify_all()

    def _replace(self, worker: Worker) -> None:
        worker.kill()
        with self._changed:
            if worker in self._all:
                self._all.discard(worker)
                fresh = Worker()  # starts its imports now, so that the next answer waits less
                self._all.add(fresh)
                self._idle.append(fresh)
            self._changed.notify_all()


_workers = Workers()


def judge(answer: str, gold: str, *, timeout_s: float, max_workers: int) -> str:
    """:meth:`Workers.judge` by this process's workers."""
    return _workers.judge(answer, gold, timeout_s=timeout_s, max_workers=max_workers)


def _after_fork() -> None:
    global _workers
    inherited, _workers = _workers, Workers()
    inherited.disconnect()


os.register_at_fork(after_in_child=_after_fork)
# Workers exit by themselves when this process dies; this call only makes an orderly exit wait for them.
atexit.register(lambda: _workers.close())
