# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Training runs under Hydra: skipped when finished, refused under other settings, begun anew without a checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from longshort_verl.files.manifest import read_manifest
from tests.support.configs import ROOT

CONFIG = """
hydra:
  run: {dir: "${trainer.default_local_dir}/hydra"}
  callbacks:
    manifest:
      _target_: longshort_verl.adapters.manifest.ManifestCallback
lr: 1
fails: false
steps: ${trainer.total_training_steps}
model: {path: some/model}
data: {train_files: [train.parquet], val_files: null}
trainer: {default_local_dir: run, resume_mode: auto, save_freq: 1, total_training_steps: 3}
"""
JOB = """
from pathlib import Path
import hydra

@hydra.main(config_path=".", config_name="job", version_base=None)
def main(config):
    (Path(config.trainer.default_local_dir) / "latest_checkpointed_iteration.txt").write_text("3")
    print("trained")
    if config.fails:
        raise RuntimeError("out of memory")

main()
"""


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job.yaml").write_text(CONFIG)
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "train.parquet").write_text("rows")

    def run(*overrides):
        command = [sys.executable, "job.py", *overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_finished_run_ends_at_once(job, tmp_path):
    code, shown = job("fails=true")
    assert code == 1
    assert not read_manifest(tmp_path / "run")["finished"]
    code, shown = job("fails=false")
    assert code == 1
    assert "fails: true then, false now" in shown
    # Without a checkpoint there is nothing to resume, and the run begins anew.
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").unlink()
    assert job() == (0, "trained\n")
    manifest = read_manifest(tmp_path / "run")
    assert manifest["finished"]
    assert manifest["config"]["steps"] == 3
    assert set(manifest["inputs"]) == {"model.path", "data.train_files.0"}
    assert job() == (0, "run is finished: nothing to do\n")


def test_what_a_run_may_resume_with(job, tmp_path):
    job()
    assert job("trainer.total_training_steps=5", "steps=3", "trainer.save_freq=5") == (0, "trained\n")
    code, shown = job("lr=2")
    assert code == 1
    assert "longshort: run was begun with other settings:\n  lr: 1 then, 2 now" in shown
    (tmp_path / "train.parquet").write_text("others")
    code, shown = job("trainer.total_training_steps=5", "steps=3", "trainer.save_freq=5")
    assert code == 1
    assert "input data.train_files.0: train.parquet (sha256" in shown
    assert job("lr=2", "trainer.resume_mode=disable") == (0, "trained\n")
    assert read_manifest(tmp_path / "run")["config"]["lr"] == 2
