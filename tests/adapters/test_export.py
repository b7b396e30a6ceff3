# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Exports that cannot succeed: one line, and nothing half-made. test_job.py exports what a job saved."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from longshort_verl.adapters.rl import checkpoints
from longshort_verl.cli.app import app


@pytest.fixture
def checkpoint(tmp_path, tiny_models):
    """A checkpoint as verl's FSDP workers write it, with one rank and random weights."""
    folder = tmp_path / "global_step_4"
    for part, model in zip(("actor", "short"), tiny_models.values(), strict=True):
        shutil.copytree(model, folder / part / "huggingface")
        (folder / part / "fsdp_config.json").write_text('{"FSDP_version": 2, "world_size": 1}')
        torch.save(load_file(model / "model.safetensors"), folder / part / "model_world_size_1_rank_0.pt")
        torch.save({"weight": torch.arange(1000.0)}, folder / part / "optim_world_size_1_rank_0.pt")
    checkpoints.complete(folder, {"step": 4, "policies": "two"})
    return folder


def export(checkpoint, out):
    done = CliRunner().invoke(app, ["export", str(checkpoint), "--out", str(out)])
    return done.exit_code, done.stderr


def truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    "name",
    ["actor/model_world_size_1_rank_0.pt", "short/model_world_size_1_rank_0.pt", "short/huggingface/config.json"],
)
def test_a_damaged_checkpoint_gives_one_line_and_no_folder(checkpoint, tmp_path, name):
    (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:50])
    code, shown = export(checkpoint, tmp_path / "models")
    reason = f"{checkpoint} is damaged: {name} has 50 bytes, and was written with"
    assert (code, len(shown.splitlines())) == (1, 1)
    assert shown.startswith(f"longshort: {reason}")
    assert shown.endswith("; export another checkpoint\n")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("part", ["actor", "short"])
def test_one_without_a_list_of_files_too(checkpoint, tmp_path, part):
    """As earlier versions wrote it: torch finds the damage, in the second model after the first one was merged."""
    checkpoints.write_json(checkpoint / checkpoints.MARK, {"step": 4, "policies": "two"})
    truncate(checkpoint / part / "model_world_size_1_rank_0.pt")
    code, shown = export(checkpoint, tmp_path / "models")
    assert code == 1
    assert f"longshort: {checkpoint / part} cannot be merged: " in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "models").exists()


def test_damage_to_an_optimizer_does_not_stop_an_export(checkpoint):
    truncate(checkpoint / "actor" / "optim_world_size_1_rank_0.pt")
    assert checkpoints.damage(checkpoint)
    from longshort_verl.adapters.export import EXPORTED

    assert checkpoints.damage(checkpoint, *EXPORTED) == ""
