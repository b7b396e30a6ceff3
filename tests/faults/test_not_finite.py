# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity in a training run: named, and the run ends before a checkpoint with them is called whole."""

from __future__ import annotations

import math
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from longshort_verl.adapters.finite import FIELDS, NotFinite, check_metrics, check_rows, check_weights, first_bad_weight
from tests.adapters.sft import test_trainer as sft_job
from tests.support.jobs import HALF_A_STEP, SHORT_CHAINS, nightly_job, start_job

WHERE = "step 3: the long policy"
rows = sft_job.rows


def nested(*values):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in values], layout=torch.jagged)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_weight_is_named(bad):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Embedding(5, 2), torch.nn.Linear(2, 4))
    model[0].none = torch.nn.Parameter(torch.empty(0))  # as a rank's share may be
    assert first_bad_weight(model) == ""
    check_weights(["", ""], WHERE)
    for dtype in (torch.float32, torch.bfloat16):
        worse = model.to(dtype)
        with torch.no_grad():
            worse[1].weight[3, 1] = bad
        assert first_bad_weight(worse) == "1.weight"
    with pytest.raises(NotFinite, match=f"^{WHERE}: the weights hold NaN or infinity, first in 1.weight; no "):
        check_weights(["", "1.weight"], WHERE)


@pytest.mark.parametrize("field", FIELDS)
def test_the_quantity_of_a_row_is_named(field):
    good = {name: nested([0.0, -1.0], [0.5, 1.0, 2.0]) for name in FIELDS}
    check_rows(good, WHERE)
    check_rows({name: good[name] for name in ("rm_scores", "response_mask") if name in good}, WHERE)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(NotFinite, match=f"^{WHERE}: the {FIELDS[field]} is {bad} at 2 of 5 tokens; no checkpoint"):
            check_rows({**good, field: nested([0.0, bad], [0.5, bad, 2.0])}, WHERE)
    # Of several, the one that caused the others.
    both = {**good, "advantages": nested([math.nan], [0.0]), field: nested([math.nan], [0.0])}
    with pytest.raises(NotFinite, match=f"the {FIELDS[field]} is nan at 1 of 2 tokens"):
        check_rows(both, WHERE)


@pytest.mark.parametrize("name", ["actor/loss", "actor/pg_loss", "actor/kl_loss", "actor/grad_norm", "loss"])
def test_a_loss_or_gradient_is_named(name):
    # A correlation of equal numbers is NaN, and no fault.
    good = {"actor/loss": 0.1, "actor/grad_norm": 3.0, "training/rollout_actor_probs_pearson_corr": math.nan}
    check_metrics(good, WHERE)
    for bad in (math.nan, math.inf):
        with pytest.raises(NotFinite, match=f"^{WHERE}: {name} is {bad}; no checkpoint holds it"):
            check_metrics({**good, name: bad}, WHERE)


# Real runs -------------------------------------------------------------------------------------------------------


def with_nan(model, folder, tensor):
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights[tensor].view(-1)[7] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    import make_problems

    folder = tmp_path_factory.mktemp("problems")
    make_problems.main(folder, num_train=64, num_val=8, min_steps=2, max_steps=6, seed=11)
    return folder


def failed(tmp_path, problems, *more, name="rl", **environment):
    """An RL job of three steps, until it fails; its log."""
    job = start_job(
        tmp_path,
        *HALF_A_STEP,
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "trainer.total_training_steps=3",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=1",
        *more,
        name=name,
        environment={"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", **environment},
    )
    assert job.process.wait(timeout=1200) != 0, job.log[-4000:]
    assert job.leftovers(within=30) == []
    return job.log


def rl(tmp_path, problems, *more, **environment):
    """A job in which both roles learn, until it fails; its log."""
    return failed(tmp_path, problems, "long_short.schedule=joint", *more, **environment)


def single(tmp_path, problems, *more, **environment):
    """A job of the single model, until it fails; its log and the steps of its checkpoints."""
    log = failed(tmp_path, problems, *SHORT_CHAINS, *more, name="single", **environment)
    return log, sorted(folder.name for folder in tmp_path.glob("global_step_*"))


def whole(folder):
    return sorted(int(mark.parent.name.rpartition("_")[2]) for mark in folder.glob("global_step_*/long_short.json"))


FAULTS = {
    "loss": (["actor_rollout_ref.actor.entropy_coeff=inf"], {}, "step 1: the long policy: actor/", []),
    "update": (["actor_rollout_ref.actor.optim.weight_decay=inf"], {}, "step 1: the long policy: the weights hold", []),
    **{
        field: ([], {"LONGSHORT_TEST_NAN": f"{field}@2"}, f"step 2: the long policy: the {FIELDS[field]} is nan", [1])
        for field in FIELDS
        if field != "ref_log_prob"
    },
}


@nightly_job
@pytest.mark.parametrize("fault", FAULTS)
def test_an_rl_run_ends_before_a_checkpoint_is_whole(tmp_path, problems, fault):
    more, environment, said, kept = FAULTS[fault]
    log = rl(tmp_path, problems, *more, **environment)
    assert f"NotFinite: {said}" in log, log[-6000:]
    assert whole(tmp_path) == kept


@nightly_job
@pytest.mark.parametrize("role", ["long", "short"])
def test_an_rl_run_does_not_start_with_bad_weights(tmp_path, problems, root, role):
    tensor = "model.layers.1.mlp.up_proj.weight"
    model = with_nan(root / "recipes" / "tiny_cpu" / "models" / role, tmp_path / "model", tensor)
    key = "actor_rollout_ref.model.path" if role == "long" else "long_short.short.model.path"
    log = rl(tmp_path / "run", problems, f"{key}={model}")
    said = f"step 0: the {role} policy: the weights hold NaN or infinity, first in {tensor}; look at the files of its"
    assert f"NotFinite: {said}" in log, log[-6000:]


@nightly_job
def test_a_single_models_run_ends_before_its_checkpoint(tmp_path, problems, root):
    log, kept = single(tmp_path / "row", problems, LONGSHORT_TEST_NAN="old_log_probs@2")
    assert "NotFinite: step 2: the model: the log-probability of the actor is nan" in log, log[-6000:]
    assert kept == ["global_step_1"]
    tensor = "model.layers.1.mlp.up_proj.weight"
    model = with_nan(root / "recipes" / "tiny_cpu" / "models" / "thinker", tmp_path / "model", tensor)
    log, kept = single(tmp_path / "start", problems, f"actor_rollout_ref.model.path={model}")
    assert f"NotFinite: step 0: the model: the weights hold NaN or infinity, first in {tensor}; look at" in log, log[
        -6000:
    ]
    assert kept == []


def sft(folder, rows, *more):
    process = sft_job.start(folder, "short", *sft_job.overrides(rows, "short", folder), *more)
    assert process.wait(timeout=300) != 0
    return (folder / "run.log").read_text()


@nightly_job
def test_an_sft_run_does_not_start_with_bad_weights(tmp_path, rows, root):
    tensor = "model.layers.1.mlp.up_proj.weight"
    model = with_nan(root / "recipes" / "tiny_cpu" / "models" / "short", tmp_path / "model", tensor)
    log = sft(tmp_path / "run", rows, f"model.path={model}")
    assert f"NotFinite: step 0: the short role: the weights hold NaN or infinity, first in {tensor}; look at" in log


@nightly_job
def test_an_sft_run_ends_before_a_checkpoint_is_whole(tmp_path, rows):
    log = sft(tmp_path / "weights", rows, "optim.weight_decay=inf", "trainer.save_freq=1")
    assert "NotFinite: step 1: the short role: the weights hold NaN or infinity, first in" in log
    assert whole(tmp_path / "weights") == []
    log = sft(tmp_path / "loss", rows, "optim.weight_decay=inf")
    assert re.search(r"NotFinite: step 2: the short role: (loss|grad_norm) is nan", log)
    assert whole(tmp_path / "loss") == []
