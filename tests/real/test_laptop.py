# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A model that others trained through the stages of recipes/laptop: ``make test-real MODELS=folder``.

``folder/smollm2-135m`` holds SmolLM2-135M-Instruct. The cold start is short, just enough for turns that end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from longshort_verl.chains.files import usable_chains
from longshort_verl.problems.write import write_problems
from longshort_verl.types import Role
from tests.gpu.runs import unmoved
from tests.serving.test_serve_job import process, served_at
from tests.support.configs import ROOT
from tests.support.engines import engine_environment
from tests.support.jobs import nightly_job, start_job

LAPTOP = ROOT / "recipes" / "laptop"
CHAINS = LAPTOP / "chains"
MODELS = Path(os.environ.get("MODELS", ""))
BASE = MODELS / "smollm2-135m"
NUM_ROWS = 32
"""Of the shortest transcripts, which a model learns to close in a few minutes."""
ENGINE = [f"{role.value}.vllm.{key}" for role in Role for key in ("kv_cache_memory_bytes=500000000", "max_num_seqs=32")]
SHORT_DIALOGUES = ("max_dialogue_tokens=256", "max_turn_tokens.long=96", "max_turn_tokens.short=64")
STEPS = (1, 2)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (BASE / "model.safetensors").is_file(),
        reason="there is no real model: set MODELS to a folder with smollm2-135m (make test-real MODELS=folder)",
    ),
]


def command(*words):
    """``python …`` to its end; its output."""
    with engine_environment():
        environment = {**os.environ, "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "MODELS": str(MODELS)}
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def longshort(*words):
    return command("-m", "longshort_verl.cli", *words)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Folder of 20 problems of the recipe, the same to learn from and to be asked."""
    folder = tmp_path_factory.mktemp("problems")
    drawn = {chain.problem.prompt: chain.problem for chain in usable_chains(CHAINS / "importance") if chain.problem}
    for split in ("train", "val"):
        write_problems(list(drawn.values())[:20], folder / f"{split}.parquet", split=split)
    return folder


def sft(folder, num_rows, *overrides):
    """Train both roles on the shortest transcripts, into ``folder/<role>``."""
    for role in Role:
        for split in ("train", "val"):
            table = pq.read_table(CHAINS / "pair" / f"{role.value}_{split}.parquet")
            rows = table.to_pylist()
            rows.sort(key=lambda row: sum(len(message["content"]) for message in row["messages"]))
            part = rows[: num_rows if split == "train" else 4]
            pq.write_table(type(table).from_pylist(part, schema=table.schema), folder / f"{role.value}_{split}.parquet")
        name = ("--config-dir", LAPTOP, "--config-name", f"sft_{role.value}")
        command(
            *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"),
            *("-m", "longshort_verl.adapters.sft.trainer", *name),
            *(f"data.{split}_files={folder}/{role.value}_{split}.parquet" for split in ("train", "val")),
            *(f"trainer.default_local_dir={folder}/{role.value}", f"hydra.run.dir={folder}/{role.value}/hydra"),
            *(f"model.path={BASE}", "optim.lr=5e-4", "cold_start.turns.max_turns=4", "cold_start.turns.max_tokens=96"),
            *overrides,
        )


@pytest.fixture(scope="module")
def cold_started(tmp_path_factory):
    """Folder of both roles' models after a short SFT."""
    folder = tmp_path_factory.mktemp("sft")
    sft(folder, NUM_ROWS, "trainer.total_epochs=3", "trainer.save_freq=12")
    return folder


def evaluate(problems, models, out):
    """The pair's numbers on twenty problems, and the settings of its models and dialogues."""
    settings = [f"{role.value}.path={models[role]}" for role in Role]
    settings += [f"dialogue.{setting}" for setting in SHORT_DIALOGUES]
    longshort(
        *("evaluate", problems / "val.parquet", "--out", out, "--recipe", LAPTOP / "evaluate.yaml", "solo.path=null"),
        *settings,
        *ENGINE,
    )
    found = json.loads((out / "results.json").read_text())["systems"]["pair"]
    assert found["num_problems"] == 20
    assert 0 < found["num_tokens"] <= 256
    return settings


def rl_overrides(problems, cold_started):
    return [
        *(f"data.{split}_files={problems}/{split}.parquet" for split in ("train", "val")),
        f"actor_rollout_ref.model.path={cold_started}/long/model",
        f"long_short.short.model.path={cold_started}/short/model",
        "long_short.schedule=joint",
        *(f"long_short.dialogue.{setting}" for setting in SHORT_DIALOGUES),
        *("data.train_batch_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "actor_rollout_ref.rollout.n=4"),
        *("trainer.total_training_steps=2", "trainer.save_freq=2", "trainer.test_freq=-1"),
        "trainer.val_before_train=false",
    ]


@pytest.mark.job
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_doctor_plan_a_step_of_sft_and_twenty_problems(problems, tmp_path):
    sft(tmp_path, 8, "optim.lr_warmup_steps_ratio=0")
    config = ["--config-dir", LAPTOP, "--config-name", "rl_pair", *rl_overrides(problems, tmp_path)]
    assert "failures: 0" in longshort("doctor", *config)
    assert "on a machine without GPU the job needs about" in longshort("plan", *config)
    models = {role: tmp_path / role.value / "model" for role in Role}
    for model in models.values():
        assert unmoved(BASE, model) == []
    evaluate(problems, models, tmp_path / "evaluation")


@nightly_job
def test_sft_moves_both_roles_models_and_their_turns_end(cold_started):
    for role in Role:
        model = cold_started / role.value / "model"
        assert unmoved(BASE, model) == []
        turns = json.loads((model / "kept.json").read_text())["turns"]
        assert turns["well_formed"] > 0


@nightly_job
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_two_joint_steps_then_export_serve_and_evaluate(problems, cold_started, tmp_path, lora):
    overrides = rl_overrides(problems, cold_started)
    if lora:
        overrides += ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=16"]
    job = start_job(tmp_path / "rl", *overrides, recipe=str(LAPTOP.relative_to(ROOT)), name="rl_pair")
    assert job.process.wait() == 0, job.log[-6000:]
    steps = job.steps()
    for step in STEPS:
        for role in Role:
            # In float32, engine and actor differ by rounding only.
            assert steps[step][f"{role.value}/training/rollout_probs_diff_mean"] < 1e-5, (step, role)
            assert steps[step][f"{role.value}/actor/skipped_update"] == 0, (step, role)
    longshort("export", tmp_path / "rl" / "global_step_2", "--out", tmp_path / "models")
    models = {role: tmp_path / "models" / role.value for role in Role}
    settings = evaluate(problems, models, tmp_path / "evaluation")
    recipe = ["-m", "longshort_verl.cli", "serve", "--recipe", LAPTOP / "serve.yaml", "server.port=0"]
    log = tmp_path / "serve.log"
    with process(*recipe, *settings, *ENGINE, log=log) as running:
        url = served_at(running, log)
        asked = {"model": "longshort", "messages": [{"role": "user", "content": "What is 2 plus 3?"}]}
        reply = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=300)
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["completion_tokens"] > 0
