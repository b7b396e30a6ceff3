# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Where an evaluation comes from."""

from __future__ import annotations

import re

from longshort_verl.files.manifest import commit, read_provenance, write_provenance


def test_what_is_written_is_read(tmp_path):
    write_provenance(tmp_path, command="SEED=3 make it", seed=3, seconds=90.0)
    found = read_provenance(tmp_path)
    assert (found["command"], found["seed"], found["minutes"]) == ("SEED=3 make it", 3, 1.5)
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", found["commit"])
    assert re.fullmatch(r"\d+ CPU cores, \d+ GiB, (no GPU|\d+ x .+), Python 3\.\d+\.\d+\S*", found["machine"])


def test_without_a_command_it_is_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/longshort", "evaluate", "my problems.json"])
    write_provenance(tmp_path, command=None, seed=0, seconds=0.0)
    assert read_provenance(tmp_path)["command"] == "longshort evaluate 'my problems.json'"


def test_outside_of_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commit() is None
