# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Training runs under Hydra: skipped when finished, refused under other settings, begun anew without a checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from longshort_verl.adapters.rl import notice
from longshort_verl.adapters.rl.checkpoints import complete as write_mark
from longshort_verl.files.manifest import Artefact, output_lock, read_manifest
from tests.support.configs import ROOT
from tests.support.disk import small_disk

CONFIG = """
hydra:
  run: {dir: "${trainer.default_local_dir}/hydra"}
  callbacks:
    manifest:
      _target_: longshort_verl.adapters.manifest.ManifestCallback
      allow_changes: false
lr: 1
fails: false
terms: 0
long_short: {save_on_sigterm: true}
fills: false
steps: ${trainer.total_training_steps}
model: {path: some/model}
data: {train_files: [train.parquet], val_files: null}
trainer: {default_local_dir: run, resume_mode: auto, resume_from_path: null, save_freq: 1, total_training_steps: 3}
"""
JOB = """
import os, signal
from pathlib import Path
import hydra
from ray._private import worker
from longshort_verl.adapters.rl import checkpoints, notice

@hydra.main(config_path=".", config_name="job", version_base=None)
def main(config):
    run = Path(config.trainer.default_local_dir)
    for hook in worker._post_init_hooks:
        hook()
    for _ in range(config.terms):
        os.kill(os.getpid(), signal.SIGTERM)
        print("notice:", notice.given(run))
    (run / "global_step_3").mkdir(exist_ok=True)
    (run / "global_step_3" / "data.pt").write_bytes(bytes(4000))
    (run / "latest_checkpointed_iteration.txt").write_text("3")
    checkpoints.complete(run / "global_step_3", {"step": 3}, run)
    print("trained")
    if config.fills:
        from tests.support.disk import fill
        fill(run.absolute().parent, 0)
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
    code, shown = job("fails=false")  # a tracker that was lost is written again
    assert (code, "fails: true then, false now" in shown) == (1, True)
    shutil.rmtree(tmp_path / "run" / "global_step_3")
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").unlink()
    assert job() == (0, "trained\n")
    manifest = read_manifest(tmp_path / "run")
    assert manifest["finished"]
    assert manifest["config"]["steps"] == 3
    assert set(manifest["inputs"]) == {"model.path", "data.train_files.0"}
    assert job() == (0, "run is finished: nothing to do\n")


def test_a_notice_ends_a_run_with_its_status_and_does_not_finish_it(job, tmp_path):
    code, shown = job("terms=2")
    assert code == 128 + signal.SIGTERM
    assert "longshort: SIGTERM: a checkpoint follows when this step ends" in shown
    assert shown.count("notice: True") == 1  # the second one ended it
    assert "no checkpoint yet" in shown
    code, shown = job("terms=1")
    assert code == 128 + signal.SIGTERM
    assert shown.endswith(
        "longshort: run is not finished: checkpoint global_step_3 is kept, from which the same command resumes\n"
    )
    assert not read_manifest(tmp_path / "run")["finished"]
    # A second job on the folder is refused, and takes nothing from the first one.
    lock = output_lock(tmp_path / "run")
    lock.take()
    (tmp_path / "run" / notice.FILE).touch()
    assert job("terms=0")[0] == 1
    assert notice.given(tmp_path / "run")
    lock.release()
    assert job("terms=0", "hydra.callbacks.manifest.allow_changes=true")[0] == 0
    assert read_manifest(tmp_path / "run")["finished"]


def test_what_a_full_disk_kept_is_said(job, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        code, shown = job(f"trainer.default_local_dir={disk}/run", "fails=true", "fills=true")
        assert code == 1
        written, kept = shown.splitlines()[-2:]
        assert written.startswith(f"longshort: {disk}/run/manifest.json cannot be written: No space left on device, ")
        assert kept.endswith(" is not finished: checkpoint global_step_3 is kept, from which the same command resumes")
        assert "Exception ignored" not in shown
        (disk / "ballast").unlink()
        assert job(f"trainer.default_local_dir={disk}/run", "fails=true", "fills=true")[0] == 1


def test_what_a_run_may_resume_with(job, tmp_path):
    job()
    code, shown = job("trainer.total_training_steps=5", "steps=3", "trainer.save_freq=5")
    assert code == 0
    # What may change is logged, once.
    changes = "trainer.save_freq: 1 then, 5 now; trainer.total_training_steps: 3 then, 5 now"
    assert f"run resumes with other settings: {changes}" in shown
    assert shown.endswith("trained\n")
    code, shown = job("lr=2")
    assert code == 1
    assert "longshort: run was begun with other settings:\n  lr: 1 then, 2 now" in shown
    assert shown.endswith("To resume anyway: hydra.callbacks.manifest.allow_changes=true\n")
    (tmp_path / "train.parquet").write_text("others")
    code, shown = job("trainer.total_training_steps=5", "steps=3", "trainer.save_freq=5")
    assert code == 1
    assert "input data.train_files.0: train.parquet (sha256" in shown
    assert job("lr=2", "trainer.resume_mode=disable") == (0, "trained\n")
    assert read_manifest(tmp_path / "run")["config"]["lr"] == 2


def test_a_checkpoint_resumes_under_its_own_settings_in_any_folder(job):
    """What its mark holds counts, without the manifest of its run."""
    job()
    resume = ("trainer.default_local_dir=other", "trainer.resume_mode=resume_path")
    resume += ("trainer.resume_from_path=run/global_step_3",)
    code, shown = job(*resume, "lr=2")
    assert code == 1
    assert "longshort: other was begun with other settings:\n  lr: 1 then, 2 now" in shown
    code, shown = job(*resume, "lr=2", "hydra.callbacks.manifest.allow_changes=true")
    assert code == 0
    assert "lr: 1 then, 2 now\nIt resumes with them, as asked." in shown
    assert shown.endswith("trained\n")


def test_a_damaged_checkpoint_ends_the_job_before_it_starts(job, tmp_path):
    job("fails=true")
    data = tmp_path / "run" / "global_step_3" / "data.pt"
    data.write_bytes(data.read_bytes()[:100])
    code, shown = job("fails=true")
    assert code == 1
    assert "trained" not in shown
    assert "longshort: run/global_step_3 is damaged: data.pt has 100 bytes" in shown
    assert "no whole checkpoint is before it" in shown
    shutil.copytree(tmp_path / "run" / "global_step_3", tmp_path / "run" / "global_step_2")
    write_mark(tmp_path / "run" / "global_step_2", {"step": 2}, tmp_path / "run")
    code, shown = job("fails=true")
    assert "run/global_step_3 is damaged: data.pt has 100 bytes" in shown
    assert "resuming from step 2" in shown
    assert "trained" in shown
    assert read_manifest(tmp_path / "run")["config"]["fails"]


def test_a_folder_that_another_job_uses(job, tmp_path):
    job("fails=true")
    tracker = tmp_path / "run" / "latest_checkpointed_iteration.txt"
    with Artefact(tmp_path / "run", config={}, anew=True):
        tracker.write_text("9")  # the other job is writing that checkpoint
        code, shown = job()
        assert code == 1
        assert f"longshort: run is in use by process {os.getpid()} on " in shown
        assert "trained" not in shown
        assert tracker.read_text() == "9"
    shutil.rmtree(tmp_path / "run")
    assert job() == (0, "trained\n")


def test_a_model_that_is_not_there(job):
    code, shown = job("model.path=./absent/model")
    assert code == 1
    assert (
        "longshort: no model at ./absent/model: there is no folder ./absent/model; set model.path to a folder" in shown
    )
    assert "trained" not in shown


def test_a_run_that_ends_early_says_what_is_kept(job):
    code, shown = job("fails=true")
    assert code == 1
    kept = "checkpoint global_step_3 is kept, from which the same command resumes"
    assert shown.splitlines()[-1] == f"longshort: run is not finished: {kept}"
