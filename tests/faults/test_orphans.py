# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Processes whose parent is killed end too. That vLLM's do: tests/evaluation/test_evaluate_job.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from tests.adapters.sft import test_trainer as sft_job

rows = sft_job.rows

PARENT = """
import multiprocessing, os, signal, sys, threading, time
from longshort_verl.generation import parent

method, behaviour = sys.argv[1:]
parent.POLL_S, parent.GRACE_S = 0.1, 1.0

def child():
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if method == "spawn":
        parent.end_with_parent()  # as vLLM does in a spawned process; a forked one has the parent's plug-ins
    if behaviour == "with_a_child" and os.fork() == 0:
        pass
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    parent.end_with_parent()
    starter = threading.Thread(target=multiprocessing.get_context(method).Process(target=child).start)
    starter.start()
    starter.join()  # a child outlives the thread that started it
    time.sleep(600)
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("behaviour", ["plain", "deaf", "with_a_child"])
def test_a_child_ends_with_its_parent(tmp_path, method, behaviour):
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), method, behaviour]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    number = 2 if behaviour == "with_a_child" else 1
    children = [psutil.Process(int(process.stdout.readline())) for _ in range(number)]
    try:
        time.sleep(0.5)
        assert all(child.is_running() for child in children)
        process.kill()
        assert psutil.wait_procs(children, timeout=30)[1] == []
    finally:
        process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.communicate()


@pytest.mark.job
def test_an_sft_worker_ends_with_its_launcher(tmp_path, rows):
    process = sft_job.start(tmp_path, "long", *sft_job.overrides(rows, "long", tmp_path))
    latest = tmp_path / "latest_checkpointed_iteration.txt"
    while not latest.exists():
        assert process.poll() is None, (tmp_path / "run.log").read_text()[-3000:]
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, left = psutil.wait_procs(workers, timeout=60)
    for worker in left:
        worker.kill()
    assert workers
    assert left == []


def test_a_child_whose_parent_was_gone_before_it_looked_ends():
    code = "import time; from longshort_verl.generation.parent import end_after; end_after(1 << 22); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == -signal.SIGTERM
