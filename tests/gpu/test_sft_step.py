# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One step of cold-start SFT of a model of 0.49 billion random parameters, on one GPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

import pytest

from longshort_verl.types import Role
from tests.gpu.runs import HERE, peak_memory, plan, prepare_sft, unmoved, write_result
from tests.support.configs import ROOT


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run's folder."""
    folder = tmp_path_factory.mktemp("sft_step")
    overrides = [f"trainer.default_local_dir={folder}", *prepare_sft(folder)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += ["-m", "longshort_verl.adapters.sft.trainer", "--config-dir", str(HERE), "--config-name", "sft"]
    environment = {
        **os.environ,
        "VERL_PLATFORM": "",
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
    }
    began = time.monotonic()
    with (folder / "run.log").open("wb") as log, peak_memory() as memory:
        done = subprocess.run(
            [*command, *overrides, f"hydra.run.dir={folder}/hydra"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    assert done.returncode == 0, (folder / "run.log").read_text()[-6000:]
    write_result(
        "sft_step",
        {
            "parameters": 494_032_768,
            "peak_gib": memory["peak_gib"],
            "wall_s": time.monotonic() - began,
            "metrics": metrics(folder),
            "turns": kept(folder)["turns"],
            "plan": plan("sft", *overrides),
        },
    )
    return folder


def metrics(folder):
    """All that the one step logged."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {key: value for row in rows if row["step"] == 1 for key, value in row["data"].items()}


def kept(folder):
    return json.loads((folder / "model" / "kept.json").read_text())


def test_it_learns_something_finite(trained):
    found = metrics(trained)
    # Random weights guess among 151,936 tokens: ln 151936 = 11.9 nats each, on average.
    assert 8 < found["train/loss"] < 16
    assert math.isfinite(found["train/grad_norm"])
    assert found["train/grad_norm"] > 0


def test_every_projection_moved(trained):
    assert unmoved(trained / "start", trained / "model") == []


def test_held_out_turns_were_generated_on_the_gpu(trained):
    found = kept(trained)
    assert found["step"] == 1
    assert found["turns"]["num_tokens"] > 0
    assert 0 <= found["turns"]["well_formed"] <= 1


def test_the_example_shows_the_long_roles_turns(trained):
    assert f"rows of the {Role.LONG.value} role; what it learns:" in (trained / "run.log").read_text()
