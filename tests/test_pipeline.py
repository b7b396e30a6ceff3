# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline's script from problems to a trained pair, with real engines, real SFT and real RL, on few problems."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.evaluation.records import read_source
from longshort_verl.files.manifest import read_manifest
from tests.support.configs import ROOT
from tests.support.engines import engine_environment
from tests.support.jobs import HALF_A_STEP

FEW_STEPS = (
    f"trainer.total_training_steps=2 trainer.test_freq=2 {' '.join(HALF_A_STEP)} "
    # One step each, and a long one: the exported models are in bfloat16.
    "actor_rollout_ref.actor.optim.lr=1e-3 actor_rollout_ref.actor.optim.lr_warmup_steps=0"
)
# Of some fifty rows a batch of 32 would leave one step an epoch, too few to learn even the form.
FEW = {"RL": FEW_STEPS, "SFT": "data.train_batch_size=8", "PYTHON": sys.executable}


@pytest.mark.job
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_from_problems_to_a_trained_pair(tmp_path):
    from task import THINKER_STEPS, distinct_problems, solve

    chains = distinct_problems(random.Random(5), 112, THINKER_STEPS, THINKER_STEPS)
    problems = tmp_path / "problems.jsonl"
    rows = ({"problem": chain, "answer": solve(chain).answer} for chain in chains)
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out" / "1"

    def pipeline(ablation="", rl=FEW_STEPS, recipe="recipes/tiny_cpu", seed=1, code=0):
        """The script to its end; its output."""
        environment = {**os.environ, **FEW, "PROBLEMS": str(problems), "OUT": str(out), "ABLATION": ablation, "RL": rl}
        command = ["examples/pipeline.sh", f"RECIPE={recipe}", f"SEED={seed}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def system(folder, name):
        return json.loads((folder / "results.json").read_text())["systems"][name]

    shown = pipeline()
    assert "right: " in shown
    run = out / "pair"
    solo, cold = system(out / "solo", "solo"), system(run / "cold_start_evaluation", "pair")
    assert solo["num_problems"] == cold["num_problems"] == 28
    assert solo["accuracy"] > 0.5
    # Sixty dialogues teach the form, if not the task.
    assert min(cold["well_formed_long"], cold["well_formed_short"]) > 0.5
    assert cold["num_tokens"] < 0.5 * solo["num_tokens"]
    assert system(out / "solo", "exit_0")["num_tokens"] < cold["num_tokens"]
    for role in ("long", "short"):
        assert (run / f"sft_{role}" / "model" / "model.safetensors").is_file()
        assert learnt(run / f"sft_{role}" / "model", run / "models" / role)
    assert system(run / "evaluation", "pair")["num_problems"] == 28
    source = read_source(run / "evaluation")
    assert source["seed"] == 1
    assert source["minutes"] > read_source(run / "cold_start_evaluation")["minutes"]
    stages = ["problems", "traces", "importance", "cold_start", "sft_long", "sft_short", "rl", "models"]
    assert sorted(stage["stage"] for stage in read_manifest(run / "evaluation")["lineage"]) == sorted(stages)
    # A changed comment changes nothing: every stage of the twelve is finished, `evaluate` twice. All files stay.
    before = {path: path.stat().st_mtime for path in out.rglob("*.safetensors")}
    recipe = tmp_path / "recipe"
    shutil.copytree(ROOT / "recipes" / "tiny_cpu", recipe)
    with (recipe / "traces.yaml").open("a") as file:
        file.write("# a comment\n")
    shown = pipeline(recipe=recipe)
    assert shown.count("is finished: nothing to do") == shown.count("== ") - 1 == 11, shown
    assert {path: path.stat().st_mtime for path in out.rglob("*.safetensors")} == before
    # A changed setting is refused, and both values are named.
    failed = pipeline(recipe=recipe, seed=2, code=1)
    assert "sampling.seed: 1 then, 2 now" in failed
    # An ablation makes only what it changes.
    shown = pipeline("shared", rl="none")
    assert shown.count("is finished: nothing to do") == 5, shown
    cold = system(out / "shared" / "cold_start_evaluation", "pair")
    assert cold["num_problems"] == 28
    assert min(cold["well_formed_long"], cold["well_formed_short"]) > 0.5
    shown = pipeline("single")
    assert "== traces" not in shown
    assert system(out / "single" / "evaluation", "solo")["num_problems"] == 28
    writes_with_an_engine(run)
    report = CliRunner().invoke(app, ["report", "evaluation", str(out.parent), "--out", str(tmp_path / "page")])
    assert report.exit_code == 0, report.output
    rows = json.loads((tmp_path / "page" / "results.json").read_text())
    assert {row["system"] for row in rows} == {"solo", "exit_0", "exit_32", "cold_start", "pair", "single"}
    assert all(row["problems"] == 28 and row["seed"] == 1 and row["commit"] and row["minutes"] for row in rows)


def learnt(before, after):
    """Whether a model's weights moved by more than the exported model's type rounds off."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    return any(not torch.equal(old[name].to(new[name].dtype), new[name]) for name in old)


def writes_with_an_engine(out):
    """What lies between important thoughts, said by a model in an engine; whatever it writes is counted."""
    engine = {"max_model_len": 4096, "dtype": "float32", "kv_cache_memory_bytes": 268435456, "enforce_eager": "true"}
    command = [sys.executable, "-m", "longshort_verl.cli", "cold-start", str(out / "importance")]
    command += ["--out", str(out / "written"), "--recipe", "recipes/tiny_cpu/cold_start.yaml", "writer.kind=model"]
    command += ["writer_model.path=recipes/tiny_cpu/models/thinker", "writer.max_tokens=32", "writer.max_attempts=2"]
    command += [f"writer_model.vllm.{name}={value}" for name, value in engine.items()]
    with engine_environment():
        environment = {**os.environ, "VERL_PLATFORM": "cpu"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (out / "written" / "dialogues.jsonl").is_file(), done.stderr[-3000:]
    dialogues = [json.loads(line) for line in (out / "written" / "dialogues.jsonl").read_text().splitlines()]
    scored = (out / "importance" / "importance.jsonl").read_text().splitlines()
    assert len(dialogues) == len(scored), done.stderr[-3000:]
    outcomes = {one["outcome"] for one in dialogues}
    # Without one dialogue of two problems there is nothing to learn from, and the command says that.
    assert done.returncode == 0 or "no trace gave a dialogue" in done.stderr or "distinct problems" in done.stderr
    # The thinker writes chains and no summaries, and few dialogues come of it: the command says so and goes on.
    assert "no usable short turn" in outcomes
    assert "engine error" not in outcomes
    assert all(one["detail"] for one in dialogues if one["outcome"] == "no usable short turn")
    replies = (out / "written" / "writer.jsonl").read_text().splitlines()
    assert sum("value" in json.loads(line) for line in replies) >= len(dialogues) / 2
