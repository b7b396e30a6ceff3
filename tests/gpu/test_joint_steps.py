# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Three joint steps of two models of 0.63 billion parameters: real FSDP2, real vLLM, on one GPU."""

from __future__ import annotations

import math

import pytest

from longshort_verl.types import Role
from tests.gpu.runs import HERE, peak_memory, plan, prepare_pair, unmoved, write_result
from tests.support.configs import compose_config
from tests.support.jobs import start_job

STEPS = (1, 2, 3)
PROBS_DIFF = "training/rollout_probs_diff_mean"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint_steps")
    overrides = prepare_pair(folder)
    with peak_memory() as memory:
        job = start_job(folder, *overrides, recipe=str(HERE.relative_to(HERE.parents[1])), platform="")
        job.process.wait()
    assert job.process.returncode == 0, job.log[-6000:]
    found = job.steps()
    measured = ("timing_s/", "perf/", PROBS_DIFF, "actor/pg_loss", "actor/grad_norm", "dialogue/")
    write_result(
        "joint_steps",
        {
            "parameters_each": 630_167_424,
            "peak_gib": memory["peak_gib"],
            "steps": {
                step: {key: value for key, value in found[step].items() if any(part in key for part in measured)}
                for step in STEPS
            },
            "plan": plan("rl", f"trainer.default_local_dir={folder}", *overrides),
        },
    )
    return job


def test_each_engine_has_its_actors_weights(job):
    # With the other role's weights it would not even begin a turn with its own tag.
    limit = compose_config("rl", HERE).long_short.alarms.probs_diff
    for step in STEPS:
        for role in Role:
            assert job.steps()[step][f"{role.value}/{PROBS_DIFF}"] < limit, (step, role)
        assert not [key for key in job.steps()[step] if key.startswith("alarm/engine")]


def test_dialogues_go_all_the_way(job):
    for step in STEPS:
        assert job.steps()[step]["dialogue/stop/answered"] > 0.5
        assert job.steps()[step]["dialogue/stop/engine_error"] == 0
    # At this learning rate the long role learns within three steps that one thought is rewarded most.
    assert job.steps()[1]["dialogue/num_rethinks"] > 0


def test_both_roles_learn(job):
    for step in STEPS:
        for role in Role:
            found = job.steps()[step]
            assert math.isfinite(found[f"{role.value}/actor/pg_loss"]), (step, role)
            # 0 where all rewards of each group are equal, as they may be once both have learnt their tags.
            least = 0 if found.get(f"alarm/zero_advantages/{role.value}") else math.ulp(0)
            assert least <= found[f"{role.value}/actor/grad_norm"] < math.inf, (step, role)
            assert found[f"{role.value}/actor/skipped_update"] == 0
    saved = job.folder / "global_step_3"
    for role, part in (("long", "actor"), ("short", "short")):
        assert unmoved(job.folder / "models" / role, saved / part / "huggingface") == [], role


def test_nothing_is_left_behind(job):
    assert job.leftovers(within=30) == []
