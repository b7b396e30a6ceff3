# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Shared memory of processes that are killed: ours is found and removed, and no other program's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from longshort_verl.files.shared_memory import SHARED, leftovers, remove_leftovers
from longshort_verl.ops.doctor.machine import check_leftovers

OWNER = """
import multiprocessing, sys
from multiprocessing import shared_memory
from longshort_verl.files.shared_memory import name_shared_memory
if sys.argv[1] == "ours":
    name_shared_memory()
memory = shared_memory.SharedMemory(create=True, size=1 << 20)
memory.buf[:] = bytes(1 << 20)
lock = multiprocessing.get_context("spawn").Lock()
print(memory.name, "sem." + lock._semlock.name.lstrip("/"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner():
    """A process with shared memory and a semaphore; Python's own cleaner is killed first, as with a whole job."""
    started, names = [], []

    def start(kind):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        names.extend(process.stdout.readline().split())
        return process, {SHARED / name for name in names[-2:]}

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for name in names:
        (SHARED / name).unlink(missing_ok=True)


def kill(process):
    import psutil

    for cleaner in psutil.Process(process.pid).children():
        cleaner.kill()
    process.kill()
    process.communicate()


def test_only_what_dead_processes_of_ours_left_is_removed(owner, caplog):
    living, of_living = owner("ours")
    dead, of_dead = owner("ours")
    other, of_other = owner("another program")
    kill(dead)
    kill(other)
    assert all(path.exists() for path in of_living | of_dead | of_other)
    found = set(leftovers())
    assert of_dead <= found
    assert not found & (of_living | of_other)
    finding = check_leftovers(sorted(of_dead))
    assert (finding.status, finding.name) == ("warning", "crashed jobs")
    assert finding.found.startswith("left 2 files with 0.0 GiB of memory: /dev/shm/longshort-")
    remove_leftovers()
    assert not any(path.exists() for path in of_dead)
    assert all(path.exists() for path in of_living | of_other)
    assert "removed from /dev/shm what crashed jobs left: " in caplog.text
    assert living.poll() is None


def test_a_bucket_of_a_weight_update_is_listed_once_no_process_maps_it(tmp_path):
    import mmap

    paths = [tmp_path / f"verl_weights_{name}" for name in ("mapped", "young", "old")]
    for path in paths:
        path.write_bytes(bytes(4096))
        if "young" not in path.name:
            os.utime(path, (0, 0))
    with paths[0].open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        os.utime(paths[0], (0, 0))
        assert leftovers(tmp_path) == [paths[2]]
        remove_leftovers(tmp_path)
    assert all(path.exists() for path in paths)  # verl's: another container's job may use it


def test_a_process_of_another_container_is_not_taken_for_dead(tmp_path):
    namespace = os.stat("/proc/self/ns/pid").st_ino
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here, elsewhere = (tmp_path / f"longshort-{number}-{dead.pid}-0a" for number in (namespace, namespace + 1))
    for path in (here, elsewhere):
        path.touch()
    remove_leftovers(tmp_path)
    assert (here.exists(), elsewhere.exists()) == (False, True)


def test_nothing_is_left_and_nothing_is_there(tmp_path):
    assert leftovers(tmp_path / "absent") == []
    assert check_leftovers([]).status == "ok"
