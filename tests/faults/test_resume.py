# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Real jobs that are stopped by several faults, one after another, and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from longshort_verl.adapters.rl.checkpoints import SET_ASIDE
from longshort_verl.problems.write import write_problems
from longshort_verl.types import Problem
from tests.faults.test_not_finite import whole
from tests.support.configs import ROOT
from tests.support.disk import fill, small_disk
from tests.support.engines import engine_environment
from tests.support.jobs import HALF_A_STEP, nightly_job, start_job

DAY_S = 86_400
KINDS = ["actor/model_*", "actor/optim_*", "data.pt", "short/model_*"]
"""Files of a checkpoint, one of each kind."""


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def set_clock(file: Path, seconds: int) -> None:
    """The wall clock of the job's Python processes is off by ``seconds`` from now on (tests/support/faults.py)."""
    new = file.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(file)


def truncate(folder: Path, kind: str) -> Path:
    (file,) = folder.glob(kind)
    os.truncate(file, file.stat().st_size // 2)
    return file


@nightly_job
@pytest.mark.timeout(3000)
def test_a_job_outlives_its_clock_a_full_disk_damaged_files_and_sigterm(tmp_path, disk):
    import make_problems

    make_problems.main(tmp_path / "problems", num_train=64, num_val=8, min_steps=2, max_steps=6, seed=11)

    def start(name, *overrides, **environment):
        return start_job(
            tmp_path / name,
            *HALF_A_STEP,
            "long_short.schedule=joint",
            f"data.train_files={tmp_path}/problems/train.parquet",
            f"data.val_files={tmp_path}/problems/val.parquet",
            f"trainer.default_local_dir={disk}",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
            "trainer.max_actor_ckpt_to_keep=3",
            *overrides,
            environment=environment,
        )

    # The clock jumps a day ahead and two days back, and nothing ends; then the disk is full.
    set_clock(clock := tmp_path / "clock", 0)
    faults = {"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", "LONGSHORT_TEST_CLOCK": str(clock)}
    job = start("first", "trainer.save_freq=1", "trainer.total_training_steps=8", **faults)
    job.wait_for_step(1, timeout=900)
    set_clock(clock, DAY_S)
    job.wait_for_step(2, timeout=300)
    set_clock(clock, -DAY_S)
    job.wait_for_step(3, timeout=300)
    ballast = fill(disk, free=5_000_000)
    assert job.process.wait(timeout=300) != 0
    assert job.leftovers(within=30) == []
    last = max(job.steps())
    said = r"could not be written, and the checkpoint before it stays in use; \d+ bytes are free in"
    assert re.search(f"global_step_{last + 1} {said}", job.log), job.log[-6000:]
    assert f"checkpoint global_step_{last} is kept, from which the same command resumes" in job.log
    assert whole(disk) == [last - 2, last - 1, last]
    ballast.unlink()

    # A truncated file of any kind is named before Ray starts.
    newest = disk / f"global_step_{last}"
    for number, kind in enumerate(KINDS):
        damaged = tmp_path / str(number) / newest.name
        shutil.copytree(newest, damaged)
        truncate(damaged, kind)
        named = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={damaged}"]
        job = start(f"damaged{number}", *named, f"trainer.default_local_dir={tmp_path}/{number}/run")
        assert job.process.wait(timeout=300) == 1
        assert re.search(rf"longshort: .*{Path(kind).name.rstrip('*')}", job.log), job.log[-2000:]
        assert "Ray instance" not in job.log

    # It is set aside; a scheduler's notice in mid-step saves that step.
    truncate(newest, "short/optim_*")
    asked = ["long_short.save_on_sigterm=true", "trainer.save_freq=100", f"trainer.total_training_steps={last + 1}"]
    job = start("second", *asked)
    job.wait_for_step(last, timeout=900)
    assert (newest / SET_ASIDE).exists()
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(timeout=300) == 128 + signal.SIGTERM, job.log[-6000:]
    assert job.leftovers(within=30) == []
    assert job.log.count("longshort: SIGTERM: a checkpoint follows") == 1
    assert f"checkpoint global_step_{last + 1} is kept" in job.log
    assert sorted(job.steps()) == [last, last + 1]
    assert whole(disk) == [last - 2, last - 1, last + 1]

    job = start("third", "trainer.save_freq=1", f"trainer.total_training_steps={last + 2}")
    assert job.process.wait(timeout=900) == 0, job.log[-6000:]
    assert sorted(job.steps()) == [last + 2]
    assert whole(disk)[-1] == last + 2


@nightly_job
def test_an_evaluation_whose_disk_was_full_loses_no_reply(tmp_path, disk):
    problems = [Problem(prompt=f"{i}+{i}", answer=str(2 * i), source="toy", index=i) for i in range(400)]
    write_problems(problems, tmp_path / "toy.parquet", split="test")
    tiny = ROOT / "recipes" / "tiny_cpu"
    command = [sys.executable, "-m", "longshort_verl.cli", "evaluate", tmp_path / "toy.parquet", "--out", disk / "out"]
    command += ["--recipe", tiny / "evaluate.yaml", "solo.path=null"]
    command += [f"{role}.path={tiny}/models/{role}" for role in ("long", "short")]

    def run():
        with engine_environment():
            environment = {**os.environ, "VERL_PLATFORM": "cpu"}
            return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    ballast = fill(disk, free=100_000)
    done = run()
    assert done.returncode == 1, done.stderr[-3000:]
    assert re.search(r"longshort: \S+ cannot be written: No space left on device, \d+ bytes are free", done.stderr)
    journal = disk / "out" / "pair.journal"
    kept = journal.read_text().splitlines(keepends=True)
    assert 1 < len(kept) < len(problems)
    ballast.unlink()
    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    # Behind its first line, the settings, a record each.
    rows = journal.read_text().splitlines(keepends=True)
    assert len(rows) == 1 + len(problems)
    assert len(set(rows)) == len(rows)
    assert rows[: len(kept) - 1] == kept[:-1]
