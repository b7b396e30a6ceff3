# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Grading processes. What must hold:

* a comparison ends within the time limit, whatever its text;
* grading works from threads, event loops, daemonic and forked processes;
* no process is left behind, not even after ``kill -9``.
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

import psutil
import pytest

from longshort_verl.grading import GradingSettings, grade, warm_up, workers
from longshort_verl.grading.answers import Fault
from longshort_verl.grading.workers import Workers
from longshort_verl.types import Grade
from tests.grading.cases import HASTY, PATIENT, boxed, is_right

ROOT = Path(__file__).resolve().parents[2]
SLACK_S = 1.2
"""Allowed on top of a limit: reaping a killed process on two busy cores."""


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "judge.py" in " ".join(child.cmdline())]


@pytest.fixture
def fresh_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Separate processes for tests that tamper with them."""
    fresh = Workers()
    monkeypatch.setattr(workers, "_workers", fresh)
    yield fresh
    fresh.close()


# The time limit ------------------------------------------------------------------------------------------------------

BOMBS = {
    "tower": "9^{9^{9^{9}}}",
    "factorial": "100000000!",
    "exponent": "10^{1000000000000}",
    "sum": "\\sum_{k=1}^{1000000000} \\sin(k^2)",
    "polynomial": "+".join(f"{i}x^{{{i}}}" for i in range(200)),
}


@pytest.mark.job
@pytest.mark.alone
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
    # No machine computes the first, so only the limit can have ended it; the second is a number of 13 digits times
    # log 10, which is compared without its digits.
    assert (reasons["tower"], reasons["exponent"]) == (Fault.TIMED_OUT.value, "")


@pytest.mark.job
@pytest.mark.alone
def test_a_late_or_dead_worker_is_replaced_and_reaped(fresh_workers: Workers) -> None:
    one = GradingSettings(timeout_s=0.8, max_answer_chars=2000, max_workers=1)
    warm_up(PATIENT)
    (late,) = [worker.process for worker in fresh_workers._all]
    assert grade(boxed(BOMBS["tower"]), "5", one).reason == Fault.TIMED_OUT.value
    (dead,) = [worker.process for worker in fresh_workers._all]
    assert late.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(late.pid)
    os.kill(dead.pid, signal.SIGKILL)  # in its idle time, as an out-of-memory killer would
    assert grade(boxed("x+x"), "2x", PATIENT).correct
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
    fresh_workers: Workers, monkeypatch: pytest.MonkeyPatch, replies: list, reason: str, kept: bool
) -> None:
    monkeypatch.setattr(workers, "Worker", ScriptedWorker)
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
    fresh_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="do not start"):
        warm_up(PATIENT)
    assert not fresh_workers._all


# Where it is called from ---------------------------------------------------------------------------------------------

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
@pytest.mark.alone
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
@pytest.mark.alone
def test_daemonic_spawned_process() -> None:
    # Pool workers are daemonic: multiprocessing would not let them start children.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(grade, (boxed("x+x"), "2x", PATIENT)).correct
        assert pool.apply(grade, (boxed(BOMBS["tower"]), "5", HASTY)).reason == Fault.TIMED_OUT.value
        assert pool.apply(grade, (boxed("x+x"), "2x", PATIENT)).correct


# A separate process: what it imports, and what it leaves behind ------------------------------------------------------

PRELUDE = f"""
import json, os, sys, threading, time
import psutil
from longshort_verl.grading import GradingSettings, grade
PATIENT, HASTY, BOMBS = {PATIENT}, {HASTY}, {BOMBS}
def workers():
    return [child.pid for child in psutil.Process().children(recursive=True) if "judge.py" in " ".join(child.cmdline())]
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
@pytest.mark.alone
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
        from longshort_verl.grading.judge import load_judge
        load_judge()  # everything that a worker imports
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
@pytest.mark.alone
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
@pytest.mark.alone
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
