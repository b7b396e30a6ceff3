# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Who may write an output: real processes that hold its lock, end, are killed, and fork."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from longshort_verl.files.lock import STALE_S, LockError, OutputLock
from longshort_verl.files.manifest import Artefact, read_manifest

HOLDER = """
import os, sys, time
from pathlib import Path
from longshort_verl.files.manifest import Artefact
with Artefact(Path(sys.argv[1]), config={}):
    if "fork" in sys.argv:
        forked, tell = os.pipe()
        if os.fork() == 0:
            os.write(tell, b"x")
            time.sleep(60)
        os.read(forked, 1)
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Starts a process that holds the lock of an output."""
    started = []

    def start(out, *more):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(out), *more], stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout.readline() == f"ready {process.pid}\n".encode()
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("name", ["run", "traces.jsonl"])
def test_a_second_job_is_refused_and_changes_nothing(hold, tmp_path, name):
    out = tmp_path / name
    holder = hold(out)
    manifest = read_manifest(out)
    where = f"process {holder.pid} on {socket.gethostname()}: -c {out}"
    with pytest.raises(LockError, match=re.escape(f"is in use by {where}; wait for it, end it, or give")):
        Artefact(out, config={"other": 1}).__enter__()
    assert read_manifest(out) == manifest


def test_a_killed_holder_is_told_apart(hold, tmp_path, caplog):
    holder = hold(tmp_path / "run")
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / "lock.json").exists()
    with Artefact(tmp_path / "run", config={}):
        body = json.loads((tmp_path / "run" / "lock.json").read_text())
        assert (body["pid"], body["host"]) == (os.getpid(), socket.gethostname())
    assert f"is of process {holder.pid} on {socket.gethostname()}, which has ended: taken over" in caplog.text
    assert not (tmp_path / "run" / "lock.json").exists()


def test_a_child_does_not_keep_the_lock_of_its_killed_parent(hold, tmp_path):
    holder = hold(tmp_path / "run", "fork")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Artefact(tmp_path / "run", config={}):
        pass


def test_a_finished_or_refused_output_is_not_held(tmp_path):
    with Artefact(tmp_path / "run", config={}) as artefact:
        artefact.finish()
    with Artefact(tmp_path / "run", config={}) as artefact:
        assert artefact.finished
        with Artefact(tmp_path / "run", config={}):  # a reader beside it
            pass
    with pytest.raises(ValueError, match="other settings"):
        Artefact(tmp_path / "run", config={"other": 1}).__enter__()
    assert not (tmp_path / "run" / "lock.json").exists()


def test_on_a_shared_file_system_the_last_sign_of_life_decides(tmp_path, caplog):
    path = tmp_path / "lock.json"
    path.write_text('{"host": "another-machine", "pid": 7, "command": "longshort traces"}')
    lock = OutputLock(path)
    now = time.time()
    os.utime(path, (now, now - STALE_S + 60))
    message = rf"process 7 on another-machine: longshort traces; .* try again in (59|60) s or delete {path}"
    with pytest.raises(LockError, match=message):
        lock.take()
    os.utime(path, (now, now - STALE_S - 1))
    lock.take()
    assert "is of process 7 on another-machine, which has ended: taken over" in caplog.text
    lock.release()
    assert not path.exists()


def test_a_holder_renews_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("longshort_verl.files.lock.RENEW_S", 0.05)
    lock = OutputLock(tmp_path / "lock.json")
    lock.take()
    os.utime(tmp_path / "lock.json", (0, 0))
    end = time.monotonic() + 10
    while (tmp_path / "lock.json").stat().st_mtime == 0 and time.monotonic() < end:
        time.sleep(0.02)
    assert (tmp_path / "lock.json").stat().st_mtime > 0
    lock.release()


def test_a_lock_that_was_deleted_and_taken_by_another_is_left_to_it(tmp_path):
    first, second = OutputLock(tmp_path / "lock.json"), OutputLock(tmp_path / "lock.json")
    first.take()
    (tmp_path / "lock.json").unlink()
    second.take()
    first.release()
    assert (tmp_path / "lock.json").exists()
    with pytest.raises(LockError):
        OutputLock(tmp_path / "lock.json").take()
    second.release()


def test_a_lock_that_is_released_while_another_opens_it_is_not_held_twice(tmp_path, monkeypatch):
    first, second = OutputLock(tmp_path / "lock.json"), OutputLock(tmp_path / "lock.json")
    first.take()
    flock = fcntl.flock

    def after_a_release(file, operation):
        first.release()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_a_release)
    second.take()
    monkeypatch.undo()
    with pytest.raises(LockError):
        OutputLock(tmp_path / "lock.json").take()
    second.release()


def test_of_many_at_once_one_gets_it(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom longshort_verl.files.lock import OutputLock\n"
        "input()\nOutputLock(Path(sys.argv[1])).take()\nprint('mine', flush=True)\ninput()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(6)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    holders = []
    end = time.monotonic() + 60
    while sum(process.poll() is not None for process in processes) < 5 and time.monotonic() < end:
        time.sleep(0.05)
    for process in processes:
        if process.poll() is None:
            holders.append(process)
        else:
            assert "is in use by process" in process.stderr.read()
    assert len(holders) == 1
    assert holders[0].stdout.readline() == "mine\n"
    holders[0].communicate("end\n")
