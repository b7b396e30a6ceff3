# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint counts after a crash at any moment of a save."""

from __future__ import annotations

import json
import logging

import pytest

from longshort_verl.adapters.rl import checkpoints
from longshort_verl.config.compose import ConfigError


def write(root, step, *, whole=True, tracker=True, policies="two"):
    folder = root / f"global_step_{step}"
    checkpoints.begin(folder)
    for part in ("actor", "short"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "model.pt").write_bytes(b"weights")
    if tracker:
        (root / checkpoints.TRACKER).write_text(str(step))
    if whole:
        checkpoints.complete(folder, {"step": step, "policies": policies})
    return folder


def tracked(root):
    return (root / checkpoints.TRACKER).read_text()


@pytest.fixture
def root(tmp_path):
    write(tmp_path, 2)
    write(tmp_path, 4)
    return tmp_path


def test_a_whole_checkpoint_is_used_as_it_is(root):
    checkpoints.repair(root)
    assert tracked(root) == "4"
    assert checkpoints.latest(root)["step"] == 4


@pytest.mark.parametrize("tracker", [True, False])
def test_a_crash_before_the_end_of_a_save_leaves_the_last_good_one(root, tracker, caplog):
    write(root, 6, whole=False, tracker=tracker)
    with caplog.at_level(logging.WARNING):
        checkpoints.repair(root)
    assert tracked(root) == "4"
    assert ("resuming from step 4" in caplog.text) == tracker


def test_a_crash_while_the_tracker_is_written(root):
    (root / checkpoints.TRACKER).write_text("")
    checkpoints.repair(root)
    assert tracked(root) == "4"


def test_a_crash_while_the_newest_is_written_anew(root):
    write(root, 4, whole=False)
    checkpoints.repair(root)
    assert tracked(root) == "2"


def test_a_user_may_go_back_to_an_older_whole_one(root):
    (root / checkpoints.TRACKER).write_text("2")
    checkpoints.repair(root)
    assert tracked(root) == "2"


def test_a_crash_in_the_first_save_starts_anew(tmp_path):
    write(tmp_path, 2, whole=False)
    (tmp_path / checkpoints.TRACKER).write_text("")
    checkpoints.repair(tmp_path)
    assert not (tmp_path / checkpoints.TRACKER).exists()


def test_checkpoints_of_other_trainers_are_left_alone(tmp_path):
    write(tmp_path, 2, whole=False)
    checkpoints.repair(tmp_path)
    assert tracked(tmp_path) == "2"
    checkpoints.check(tmp_path / "global_step_2", policies="two")


def test_no_folder_at_all(tmp_path):
    checkpoints.repair(tmp_path / "nowhere")
    assert checkpoints.latest(tmp_path / "nowhere") is None


def test_old_ones_go_and_so_does_what_crashed(root):
    write(root, 3, whole=False, tracker=False)
    write(root, 8, whole=False, tracker=False)
    checkpoints.prune(root, None)
    assert len(list(root.glob("global_step_*"))) == 4
    checkpoints.prune(root, 1)
    assert sorted(path.name for path in root.glob("global_step_*")) == ["global_step_4", "global_step_8"]


def test_nothing_goes_before_a_whole_one_is_there(tmp_path):
    write(tmp_path, 2, whole=False)
    write(tmp_path, 4, whole=False)
    checkpoints.prune(tmp_path, 1)
    assert len(list(tmp_path.glob("global_step_*"))) == 2


def test_a_checkpoint_of_another_kind_is_refused(root):
    write(root, 6, policies="shared")
    with pytest.raises(ConfigError, match="of long_short.policies 'shared', but the run's is 'two'"):
        checkpoints.check(root / "global_step_6", policies="two")


def test_the_record_is_plain(root):
    assert json.loads((root / "global_step_4" / checkpoints.MARK).read_text())["step"] == 4
    assert not list(root.rglob("*.part"))
