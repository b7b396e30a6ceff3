# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint counts after a crash at any moment of a save, and after damage to its files."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler

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


FILES = (
    "actor/model_world_size_1_rank_0.pt",
    "actor/optim_world_size_1_rank_0.pt",
    "actor/huggingface/model.safetensors",
    "short/model_world_size_1_rank_0.pt",
    "data.pt",
)


def write_real(root, step):
    """A checkpoint with files of a few KB, as torch and safetensors write them."""
    folder = root / f"global_step_{step}"
    checkpoints.begin(folder)
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {"weight": torch.arange(1000.0) + step}
        save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    (root / checkpoints.TRACKER).write_text(str(step))
    checkpoints.complete(folder, {"step": step, "policies": "two"})
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "has [0-9]+ bytes, and was written with [0-9]+"


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return r"does not hold what was written \(sha256\)"


def delete(path):
    path.unlink()
    return "is missing, and was written with [0-9]+"


@pytest.mark.parametrize("harm", [truncate, flip_a_byte, delete])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_checkpoint_before_it_is_used(tmp_path, name, harm, caplog):
    for step in (2, 4, 6):
        write_real(tmp_path, step)
    assert checkpoints.to_resume(tmp_path, "auto", None) == tmp_path / "global_step_6"
    reason = f"is damaged: {re.escape(name)} {harm(tmp_path / 'global_step_6' / name)}"
    with pytest.raises(ConfigError, match=f"global_step_6, which {reason}; give another checkpoint"):
        checkpoints.to_resume(tmp_path, "resume_path", str(tmp_path / "global_step_6"))
    assert checkpoints.to_resume(tmp_path, "auto", None) == tmp_path / "global_step_4"
    assert re.search(f"global_step_6 {reason}; the checkpoint before it is used", caplog.text)
    assert tracked(tmp_path) == "4"
    # It no longer counts as one of those to keep, and its files are left for a look.
    checkpoints.prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("global_step_*")) == ["global_step_4", "global_step_6"]
    assert (tmp_path / "global_step_6" / checkpoints.SET_ASIDE).exists()


def test_a_damaged_mark_is_found(tmp_path):
    for step in (2, 4):
        write_real(tmp_path, step)
    truncate(tmp_path / "global_step_4" / checkpoints.MARK)
    assert checkpoints.to_resume(tmp_path, "auto", None) == tmp_path / "global_step_2"


def test_without_a_whole_one_before_it_nothing_begins_anew_in_silence(tmp_path):
    folder = write_real(tmp_path, 2)
    truncate(folder / "data.pt")
    message = (
        "global_step_2 is damaged: data.pt .*, and no whole checkpoint is before it; restore that file, or start anew"
    )
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            checkpoints.to_resume(tmp_path, "auto", None)
    assert checkpoints.to_resume(tmp_path, "disable", None) is None


def test_a_user_who_went_back_gets_no_later_one(tmp_path):
    for step in (2, 4, 6):
        write_real(tmp_path, step)
    (tmp_path / checkpoints.TRACKER).write_text("4")
    truncate(tmp_path / "global_step_4" / "data.pt")
    assert checkpoints.to_resume(tmp_path, "auto", None) == tmp_path / "global_step_2"


def test_sizes_alone_cost_no_reading(tmp_path):
    folder = write_real(tmp_path, 2)
    flip_a_byte(folder / FILES[0])
    assert checkpoints.damage(folder, hashes=False) == ""
    assert checkpoints.damage(folder, "short/*", "data.pt") == ""
    assert FILES[0] in checkpoints.damage(folder, "actor/model_*")


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigError, match=r"resume_from_path is .*/absent, and there is no such folder"):
        checkpoints.to_resume(tmp_path, "resume_path", str(tmp_path / "absent"))


def test_a_save_that_fails_leaves_no_whole_checkpoint_and_names_the_disk(tmp_path, caplog):
    folder = write_real(tmp_path, 2)
    with pytest.raises(RuntimeError), checkpoints.saving(folder):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")
    assert not checkpoints.is_complete(folder)
    assert re.search(r"could not be written, .*; \d+ bytes are free in .*PytorchStreamWriter failed", caplog.text)


def test_a_checkpoint_of_another_kind_is_refused(root):
    write(root, 6, policies="shared")
    with pytest.raises(ConfigError, match="of long_short.policies 'shared', but the run's is 'two'"):
        checkpoints.check(root / "global_step_6", policies="two")


def test_the_record_is_plain(root):
    assert json.loads((root / "global_step_4" / checkpoints.MARK).read_text())["step"] == 4
    assert not list(root.rglob("*.part"))


# The loader's place -----------------------------------------------------------------------------------------------


@pytest.fixture
def make_loader():
    config = OmegaConf.create({"shuffle": True, "seed": 1, "sampler": None})
    rows = list(range(6))
    return lambda: StatefulDataLoader(rows, batch_size=2, sampler=create_rl_sampler(config, rows))


@pytest.mark.parametrize("step", [2, 3, 5, 6])
def test_the_rows_after_a_checkpoint_are_those_of_the_whole_run(make_loader, tmp_path, step):
    whole, loader = [], make_loader()
    for _ in range(3):
        for batch in loader:
            whole.append(batch.tolist())
            if len(whole) == step:
                torch.save(loader.state_dict(), tmp_path / "data.pt")
    assert whole[:3] != whole[3:6]
    loader = make_loader()
    if step % 3:  # as verl does
        loader.load_state_dict(torch.load(tmp_path / "data.pt"))
    checkpoints.restore_loader(loader, tmp_path / "data.pt", step)
    found = [batch.tolist() for _ in range(step // 3, 3) for batch in loader]
    assert found == whole[step:]


def test_a_loader_that_is_not_at_the_end_of_its_epoch_is_refused(make_loader, tmp_path):
    loader = make_loader()
    next(iter(loader))
    torch.save(loader.state_dict(), tmp_path / "data.pt")
    with pytest.raises(
        RuntimeError, match=r"data\.pt is at batch 1 of an epoch, and step 3 ends batch 3: rows would be repeated"
    ):
        checkpoints.restore_loader(make_loader(), tmp_path / "data.pt", 3)
