# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The real job: Ray, FSDP2 actors and vLLM servers of two policies in one `verl.trainer.main_ppo`.

Three jobs in all; what can share one does. They start one after the other, each takes minutes.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from longshort_verl.data.problems import read_problems, write_problems
from longshort_verl.types import StopReason
from tests.jobs import start_job

pytestmark = [pytest.mark.job, pytest.mark.timeout(1200)]

NUM_MATH = 40
MAX_MEAN_DIFFERENCE = 1e-3


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    import make_problems

    folder = tmp_path_factory.mktemp("problems")
    make_problems.main(folder, num_train=256, num_val=32, min_steps=2, max_steps=6, seed=11)
    return folder


@pytest.fixture(scope="module")
def long_only(tmp_path_factory, problems, shared_data):
    """The long role learns; validation also asks real MATH-500 problems."""
    folder = tmp_path_factory.mktemp("long_only")
    math500 = read_problems(shared_data / "math500.json", source="math500")[:NUM_MATH]
    write_problems(math500, folder / "math500.parquet", split="test")
    job = start_job(
        folder,
        f"data.train_files={problems}/train.parquet",
        f"data.val_files=[{problems}/val.parquet,{folder}/math500.parquet]",
        # A byte is a token here.
        "data.max_prompt_length=4096",
        "trainer.total_training_steps=3",
        "trainer.test_freq=3",
        "trainer.save_freq=3",
        f"trainer.validation_data_dir={folder}/validation",
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    )
    job.process.wait()
    assert job.process.returncode == 0, job.log[-6000:]
    return job


@pytest.fixture(scope="module")
def short_only(tmp_path_factory, problems):
    """The short role learns, until Ctrl-C after its second step."""
    job = start_job(
        tmp_path_factory.mktemp("short_only"),
        "long_short.schedule=short_only",
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
    )
    job.wait_for_step(2, timeout=900)
    job.interrupt()
    job.process.wait(timeout=60)
    return job


def test_each_engine_holds_its_own_roles_weights(long_only, short_only):
    # The trained role is compared at every step, so after every push; the other one, which is never pushed, at the
    # first. Different models: a wrong address would show as a difference of the order of 0.1.
    for step in (1, 2, 3):
        assert long_only.steps()[step]["long/training/rollout_probs_diff_mean"] < MAX_MEAN_DIFFERENCE
    assert long_only.steps()[1]["short/training/rollout_probs_diff_mean"] < MAX_MEAN_DIFFERENCE
    for step in (1, 2):
        assert short_only.steps()[step]["short/training/rollout_probs_diff_mean"] < MAX_MEAN_DIFFERENCE
    assert short_only.steps()[1]["long/training/rollout_probs_diff_mean"] < MAX_MEAN_DIFFERENCE


def test_only_the_scheduled_role_is_updated(long_only, short_only, root):
    for job, learns, rests in ((long_only, "long", "short"), (short_only, "short", "long")):
        for step in (1, 2):
            assert job.steps()[step][f"{learns}/actor/grad_norm"] > 0
            assert job.steps()[step][f"{learns}/actor/skipped_update"] == 0
            assert f"{rests}/actor/grad_norm" not in job.steps()[step]
    models = root / "recipes" / "tiny_cpu" / "models"
    saved = long_only.folder / "global_step_3"
    for role, part in (("long", "actor"), ("short", "short")):
        before = load_file(models / role / "model.safetensors")
        after = load_file(saved / part / "huggingface" / "model.safetensors")
        changed = [name for name in before if not torch.equal(before[name].float(), after[name].float())]
        assert len(changed) == (len(before) if role == "long" else 0), role
    assert (long_only.folder / "latest_checkpointed_iteration.txt").read_text() == "3"


def test_every_dialogue_ends_with_a_name(long_only):
    for step in (1, 2, 3):
        shares = {r: long_only.steps()[step][f"dialogue/stop/{r.value}"] for r in StopReason}
        assert sum(shares.values()) == pytest.approx(1)
        assert shares[StopReason.ENGINE_ERROR] == 0
        assert shares[StopReason.ANSWERED] > 0.3, "the role models speak the protocol"
        assert long_only.steps()[step]["dialogue/num_rethinks"] > 0


def test_real_problems_end_with_a_name_and_are_graded(long_only):
    rows = [json.loads(line) for line in (long_only.folder / "validation" / "0.jsonl").read_text().splitlines()]
    # Two rows a session; the second is the short role's.
    dialogues = {row["uid"].rsplit("_", 1)[0]: row for row in rows}
    assert len(dialogues) == 32 + NUM_MATH
    assert len(rows) == 2 * len(dialogues)
    names = {reason.value for reason in StopReason}
    for row in dialogues.values():
        assert row["stop_reason"] in names - {"engine_error"}
        assert row["acc"] in (0.0, 1.0)
        assert row["acc"] == 1.0 or row["graded"] or row["answer"] != row["gts"]
    for source in ("math500", "tiny_cpu/arithmetic"):
        assert not math.isnan(long_only.steps()[3][f"val-core/{source}/acc/mean@1"])


def test_validation_reports_the_pair(long_only):
    first, last = long_only.steps()[0], long_only.steps()[3]
    for name in ("reward", "format", "num_tokens", "num_tokens_long", "num_tokens_short", "num_rethinks"):
        for step in (first, last):
            assert any(f"/{name}/mean@1" in key for key in step), name


def test_a_finished_and_an_interrupted_job_leave_nothing_behind(long_only, short_only):
    assert long_only.leftovers(within=30) == []
    assert short_only.leftovers(within=30) == []
    assert short_only.process.returncode != 0


def test_a_failed_job_leaves_nothing_behind(tmp_path, problems):
    job = start_job(
        tmp_path,
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        # More positions than the model has: vLLM refuses while the job is already half up.
        "actor_rollout_ref.rollout.max_model_len=16000",
    )
    assert job.process.wait(timeout=600) != 0
    assert "16000" in job.log
    assert job.leftovers(within=30) == []
