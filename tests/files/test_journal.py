# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys
import time

import pytest

from longshort_verl.files.journal import Journal, JournalError

SETTINGS = {"seed": 1, "stop": ["a"]}


def test_what_was_added_is_there_again(tmp_path):
    with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
        journal.add("a/1", {"right": True, "text": "ü\n"})
        with pytest.raises(ValueError, match="has a record 'a/1' already"):
            journal.add("a/1", {})
    with Journal(tmp_path / "j.jsonl", SETTINGS) as journal:
        assert journal.get("a/1") == {"right": True, "text": "ü\n"}
        assert journal.get("a/2") is None
        assert list(journal) == ["a/1"]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_that_was_cut_short_is_no_record(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.add("a", {"n": 1})
        journal.add("b", {"text": "long enough to cut"})
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, SETTINGS) as journal:
        assert list(journal) == ["a"]
        journal.add("b", {"n": 2})
    with Journal(path, SETTINGS) as journal:
        assert (journal.get("a"), journal.get("b")) == ({"n": 1}, {"n": 2})


def test_a_first_line_that_was_cut_short(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text('{"settings": {"se')
    with Journal(path, SETTINGS) as journal:
        journal.add("a", {})
    with Journal(path, SETTINGS) as journal:
        assert list(journal) == ["a"]


@pytest.mark.parametrize(
    "damage",
    ["no json", '{"key": "a", "value": {}}', '{"key": 1}', "[]", "\xff", "", "\0" * 9, '{"key": [], "value": 1}'],
)
def test_a_damaged_line_costs_that_line_alone(tmp_path, damage, caplog):
    path = tmp_path / "j.jsonl"
    with Journal(path, SETTINGS) as journal:
        for key in "abc":
            journal.add(key, {"of": key})
    lines = path.read_bytes().splitlines()
    lines[2] = damage.encode("latin-1")  # that of b
    path.write_bytes(b"\n".join(lines) + b"\n")
    with Journal(path, SETTINGS) as journal:
        assert list(journal) == ["a", "c"]
        assert journal.num_damaged == 1
        assert "damaged lines skipped: 1 of 3, the last line 3 (" in caplog.text
        journal.add("b", {"of": "b again"})
    with Journal(path, SETTINGS) as journal:
        assert {key: journal.get(key) for key in "abc"} == {"a": {"of": "a"}, "b": {"of": "b again"}, "c": {"of": "c"}}


@pytest.mark.parametrize("damage", [b"no json", b"", b"[]", b'{"settings": 1}'])
def test_damaged_settings_are_refused_once_there_is_a_record(tmp_path, damage):
    path = tmp_path / "j.jsonl"
    path.write_bytes(damage + b"\n")
    with Journal(path, SETTINGS) as journal:
        journal.add("a", {})
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([damage, *lines[1:]]) + b"\n")
    with pytest.raises(JournalError, match=r"line 1, its settings, is damaged \(.*\); delete the file"):
        Journal(path, SETTINGS)


def test_other_settings_are_refused_once_there_is_a_record(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path, {"model": "a typing error"}).close()
    with Journal(path, SETTINGS) as journal:
        journal.add("a", {})
    with pytest.raises(JournalError, match=r"more: not set then, 1 now\n  seed: 1 then, 2 now"):
        Journal(path, {**SETTINGS, "seed": 2, "more": 1})
    with Journal(path, SETTINGS) as journal:
        assert list(journal) == ["a"]


def test_two_processes_do_not_write_one_journal(tmp_path):
    with (
        Journal(tmp_path / "j.jsonl", SETTINGS),
        pytest.raises(JournalError, match="another process writes"),
    ):
        Journal(tmp_path / "j.jsonl", SETTINGS)


WRITER = """
import sys
from pathlib import Path
from longshort_verl.files.journal import Journal
with Journal(Path(sys.argv[1]), {}) as journal:
    print("ready", flush=True)
    for number in range(len(journal), 10**9):
        journal.add(str(number), {"text": "x" * (number % 5000)})
"""


def test_kill_9_loses_and_repeats_nothing(tmp_path):
    path = tmp_path / "j.jsonl"
    before = 0
    for round_ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.05 * (round_ + 1))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Journal(path, {}) as journal:
            assert list(journal) == [str(number) for number in range(len(journal))]
            assert all(journal.get(key) == {"text": "x" * (int(key) % 5000)} for key in journal)
            assert len(journal) > before
            before = len(journal)
