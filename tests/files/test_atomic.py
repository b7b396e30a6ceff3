# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Files on a disk that is full or read-only: which message, and what is left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from longshort_verl.files.atomic import disk_message, write_text
from longshort_verl.files.journal import Journal

FULL_DISK = """
from pathlib import Path
import typer
from longshort_verl.cli.common import user_errors
from longshort_verl.files.atomic import write_text
from longshort_verl.files.journal import Journal

def main(out: Path, kind: str) -> None:
    write_text(out / "old.json", "old")
    with user_errors(), Journal(out / "j.jsonl", {}) as journal:
        if kind == "file":
            write_text(out / "old.json", "x" * 10**6)
        for number in range(1000):
            journal.add(str(number), {"text": "x" * 999})

typer.run(main)
"""


@pytest.fixture
def on_full_disk(tmp_path):
    """Runs the script in a file system of 128 KB, in a mount namespace that ends with it; lists what is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespace, and so no small disk")

    def run(kind):
        script = f'mount -t tmpfs -o size=128k tmpfs {disk} && {sys.executable} -c "$1" {disk} {kind}; code=$?; '
        script += f"ls -A {disk}; cat {disk}/old.json; cp {disk}/j.jsonl {tmp_path}/; exit $code"
        command = ["unshare", "-rm", "sh", "-c", script, "sh", FULL_DISK]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_a_full_disk_is_named_and_the_old_file_is_kept(on_full_disk, tmp_path):
    done = on_full_disk("file")
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"longshort: {tmp_path}/disk/old.json cannot be written: No space left on device, ")
    assert f" bytes are free in {tmp_path}/disk; free some and start the same command again" in message
    assert done.stdout == "j.jsonl\nold.json\nold"


def test_a_journal_on_a_full_disk_keeps_whole_records(on_full_disk, tmp_path):
    done = on_full_disk("journal")
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"longshort: {tmp_path}/disk/j.jsonl cannot be written: No space left on device, ")
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        assert len(journal) > 50
        assert journal.num_damaged == 0
        assert list(journal) == [str(number) for number in range(len(journal))]


def test_half_a_record_is_taken_back(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from longshort_verl.files.journal import Journal
with Journal(Path(sys.argv[1]), {}) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for text in ("x" * 500, "y" * 900, "z" * 200):  # the second one does not fit
        try:
            journal.add(text[0], {"text": text})
        except OSError as error:
            print(error.filename)
"""
    path = tmp_path / "j.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}\n"
    with Journal(path, {}) as journal:
        assert (list(journal), journal.num_damaged) == (["x", "z"], 0)


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists") as refused:
        write_text(tmp_path / "file" / "out.json", "x")
    message = disk_message(refused.value)
    assert message.startswith(f"{tmp_path / 'file'}")
    assert message.endswith("cannot be opened or written: File exists; change its permissions, or give another path")
    assert disk_message(ConnectionResetError("by peer")) is None
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
