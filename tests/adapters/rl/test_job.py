# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The real job: Ray, FSDP2 actors and vLLM servers of two policies in one `verl.trainer.main_ppo`.

Three jobs, and two slow ones that fail; what can share one does. They start one after the other, each takes minutes.
"""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from longshort_verl.problems.read import read_problems
from longshort_verl.problems.write import write_problems
from longshort_verl.types import StopReason
from tests.support.jobs import start_job
from tests.support.models import with_other_ids
from tests.support.wheels import installed_first

pytestmark = [pytest.mark.job, pytest.mark.alone, pytest.mark.timeout(2400)]

NUM_MATH = 16
MAX_MEAN_DIFFERENCE = 1e-5
PROBS_DIFF = "training/rollout_probs_diff_mean"


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    import make_problems

    folder = tmp_path_factory.mktemp("problems")
    make_problems.main(folder, num_train=256, num_val=32, min_steps=2, max_steps=6, seed=11)
    return folder


@pytest.fixture(scope="module")
def long_only(tmp_path_factory, problems, math_problems, installed, root):
    """The long role learns; validation also asks problems in LaTeX that the models never saw.

    The job is a user's: the package comes from its wheel, and the recipe from a copy in another folder. Each process
    writes into ``origins`` where it finds the package.
    """
    folder = tmp_path_factory.mktemp("long_only")
    shutil.copytree(root / "recipes" / "tiny_cpu", folder / "work" / "recipes" / "tiny_cpu")
    (folder / "origins").mkdir()
    (folder / "origins" / "report_origin.py").write_text(
        "import importlib.util, os\n"
        "from pathlib import Path\n"
        "origin = importlib.util.find_spec('longshort_verl').origin\n"
        f"Path({str(folder / 'origins')!r}, str(os.getpid())).write_text(origin)\n"
    )
    asked = read_problems(math_problems, source="math")
    assert len(asked) == NUM_MATH
    write_problems(asked, folder / "math.parquet", split="test")
    job = start_job(
        folder,
        f"data.train_files={problems}/train.parquet",
        f"data.val_files=[{problems}/val.parquet,{folder}/math.parquet]",
        # A byte is a token here; the problems do not fit into one batch of the engine.
        "data.max_prompt_length=1024",
        "actor_rollout_ref.rollout.max_model_len=1536",
        "actor_rollout_ref.rollout.max_num_batched_tokens=2048",
        "trainer.total_training_steps=3",
        "trainer.test_freq=3",
        "trainer.save_freq=3",
        f"trainer.validation_data_dir={folder}/validation",
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        environment=installed_first(installed, VERL_USE_EXTERNAL_MODULES="report_origin")
        | {"PYTHONPATH": f"{installed}:{folder}/origins"},
        cwd=folder / "work",
    )
    job.process.wait()
    assert job.process.returncode == 0, job.log[-6000:]
    return job


@pytest.fixture(scope="module")
def alternate(tmp_path_factory, problems, root):
    """Both roles learn, one after the other, until Ctrl-C after step 4; the short model has another tokenizer.

    Checkpoints after steps 2 and 4; a reference policy for the short role alone.
    """
    folder = tmp_path_factory.mktemp("alternate")
    short = with_other_ids(root / "recipes" / "tiny_cpu" / "models" / "short", folder / "short_model")
    job = start_job(
        folder,
        *alternate_overrides(problems, short),
        "long_short.best.metric=reward",
        f"trainer.rollout_data_dir={folder}/rollouts",
    )
    job.wait_for_step(4, timeout=900)
    job.interrupt()
    job.process.wait(timeout=60)
    return job


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, problems, alternate):
    """The run ``alternate`` as if it had died while it wrote its second checkpoint; goes on to step 5.

    At step 4 the short role learns and its engine is left with the old weights.
    """
    folder = tmp_path_factory.mktemp("resumed")
    for step in (2, 4):
        shutil.copytree(alternate.folder / f"global_step_{step}", folder / f"global_step_{step}")
    (folder / "global_step_4" / "long_short.json").unlink()
    shutil.rmtree(folder / "global_step_4" / "short")
    (folder / "latest_checkpointed_iteration.txt").write_text("4")
    job = start_job(
        folder,
        *alternate_overrides(problems, alternate.folder / "short_model"),
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        environment={"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", "LONGSHORT_TEST_NO_PUSH": "short@4"},
    )
    job.process.wait()
    assert job.process.returncode == 0, job.log[-6000:]
    return job


def alternate_overrides(problems, short):
    return (
        "long_short.schedule=alternate",
        f"long_short.short.model.path={short}",
        "+long_short.short.actor.use_kl_loss=true",
        # What each long turn of half of the groups is worth, onto its tokens.
        "long_short.reward.importance=0.5",
        "long_short.importance.credit=turn",
        "long_short.importance.group_share=0.5",
        "long_short.importance.max_tokens=8",
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "trainer.total_training_steps=5",
        "trainer.test_freq=2",
        "trainer.save_freq=2",
        "trainer.max_actor_ckpt_to_keep=2",
        # Two steps of the optimizer, so that the second one's loss depends on the first one's.
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        # So that one update moves the probabilities by more than rounding does.
        "actor_rollout_ref.actor.optim.lr=3e-4",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    )


def test_each_engine_holds_its_own_roles_weights(long_only, alternate, resumed):
    # The role that learns is compared at every step, a resting one after each push. Different models: a wrong address
    # would show as a difference of the order of 0.1.
    for step in (1, 2, 3):
        assert long_only.steps()[step][f"long/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE
    assert long_only.steps()[1][f"short/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE
    for step in (1, 2, 3, 4):
        for role in ("long", "short"):
            assert alternate.steps()[step][f"{role}/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE, (step, role)
    for role in ("long", "short"):
        assert resumed.steps()[3][f"{role}/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE, role


def test_a_push_that_was_left_out_raises_the_alarm(alternate, resumed):
    for step in (3, 4):
        assert not [key for key in resumed.steps()[step] if key.startswith("alarm/engine")]
    assert resumed.steps()[5][f"short/{PROBS_DIFF}"] > 10 * MAX_MEAN_DIFFERENCE
    assert resumed.steps()[5][f"long/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE
    assert resumed.steps()[5]["alarm/engine_out_of_step/short"] == 1
    assert "alarm/engine_out_of_step/long" not in resumed.steps()[5]
    assert "longshort alarm: step 5: the short engine's token probabilities differ" in resumed.log
    assert "longshort alarm: step" not in "".join(line for line in alternate.log.splitlines() if "engine's" in line)


def test_every_process_of_a_job_uses_the_installed_package(long_only, installed):
    origins = [path.read_text() for path in (long_only.folder / "origins").iterdir() if path.name.isdigit()]
    assert set(origins) == {str(installed / "longshort_verl" / "__init__.py")}
    assert len(origins) > 5, "driver, trainer, workers, servers"


def test_only_the_scheduled_role_is_updated(long_only, alternate, root):
    for step in (1, 2, 3):
        assert long_only.steps()[step]["long/actor/grad_norm"] > 0
        assert long_only.steps()[step]["long/actor/skipped_update"] == 0
        assert "short/actor/grad_norm" not in long_only.steps()[step]
    for step, learns, rests in ((1, "long", "short"), (2, "short", "long"), (3, "long", "short"), (4, "short", "long")):
        assert alternate.steps()[step][f"{learns}/actor/grad_norm"] > 0
        assert f"{rests}/actor/grad_norm" not in alternate.steps()[step]
    models = root / "recipes" / "tiny_cpu" / "models"
    saved = long_only.folder / "global_step_3"
    for role, part in (("long", "actor"), ("short", "short")):
        before = load_file(models / role / "model.safetensors")
        after = load_file(saved / part / "huggingface" / "model.safetensors")
        changed = [name for name in before if not torch.equal(before[name].float(), after[name].float())]
        assert len(changed) == (len(before) if role == "long" else 0), role
    assert (long_only.folder / "latest_checkpointed_iteration.txt").read_text() == "3"


def test_long_turns_of_a_share_of_the_groups_are_measured(long_only, alternate):
    for step in (1, 2, 3, 4):
        found = alternate.steps()[step]
        # Of 16 groups; a turn after which no answer fits in is not measured either.
        assert 0.1 < found["importance/measured_turns"] < 0.9, step
        assert 0 < found["importance/tokens_share"] < 1, step
        assert -1.1 <= found["importance/turn"] <= 1, step
        # The credit is on the tokens and no term of the row.
        assert "long/reward/importance" not in found
    # The short role is right more often with a thought than without.
    assert sum(alternate.steps()[step]["importance/gain"] for step in (1, 2, 3, 4)) > 0
    assert not [key for key in long_only.steps()[1] if key.startswith("importance/")]


def test_each_role_may_have_a_reference_of_its_own(alternate):
    assert "short/actor/kl_loss" in alternate.steps()[2]
    assert "long/actor/kl_loss" not in alternate.steps()[1]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(alternate, resumed):
    assert "resuming from step 2" in resumed.log
    assert min(resumed.steps()) == 3
    for step, role in ((3, "long"), (4, "short")):
        for name in ("actor/pg_loss", "actor/grad_norm", "actor/entropy", "actor/lr", "reward", "num_tokens"):
            # float32: what is left is the order of sums
            assert resumed.steps()[step][f"{role}/{name}"] == pytest.approx(
                alternate.steps()[step][f"{role}/{name}"], rel=1e-3, abs=1e-6
            ), (step, name)


def test_the_best_pair_is_kept(alternate):
    values = {
        step: next(value for key, value in data.items() if key.endswith("/reward/mean@1"))
        for step, data in alternate.steps().items()
        if any(key.startswith("val-") for key in data)
    }
    assert set(values) == {0, 2, 4}
    best = max(values, key=values.get)
    (folder,) = (alternate.folder / "best").glob("global_step_*")
    record = json.loads((folder / "long_short.json").read_text())
    assert (record["step"], record["metric"], record["value"]) == (best, "reward", pytest.approx(values[best]))


def test_exported_roles_load_and_differ_from_their_start(alternate, tmp_path, root):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from longshort_verl.adapters.export import export_pair

    folders = export_pair(alternate.folder / "global_step_4", tmp_path)
    assert [folder.name for folder in folders] == ["long", "short"]
    for folder, start in zip(
        folders, (root / "recipes/tiny_cpu/models/long", alternate.folder / "short_model"), strict=True
    ):
        before = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).state_dict()
        after = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        assert before.keys() == after.keys()
        # Four optimizer steps of 1e-3 at most.
        assert 0 < max((before[name] - after[name]).abs().max().item() for name in before) < 0.01
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(start).get_vocab()
        assert (folder / "chat_template.jinja").read_text() == (start / "chat_template.jinja").read_text()


def test_every_dialogue_ends_with_a_name(long_only):
    for step in (1, 2, 3):
        shares = {r: long_only.steps()[step][f"dialogue/stop/{r.value}"] for r in StopReason}
        assert sum(shares.values()) == pytest.approx(1)
        assert shares[StopReason.ENGINE_ERROR] == 0
        assert shares[StopReason.ANSWERED] > 0.3, "the role models speak the protocol"
        assert long_only.steps()[step]["dialogue/num_rethinks"] > 0


def test_problems_in_latex_end_with_a_name_and_are_graded(long_only):
    rows = [json.loads(line) for line in (long_only.folder / "validation" / "0.jsonl").read_text().splitlines()]
    dialogues = {row["uid"].rsplit("_", 1)[0]: row for row in rows}
    assert len(rows) == len(dialogues) == 32 + NUM_MATH
    assert all(row["output"].startswith("[long] ") for row in rows)
    names = {reason.value for reason in StopReason}
    for row in dialogues.values():
        assert row["stop_reason"] in names - {"engine_error"}
        assert row["acc"] in (0.0, 1.0)
        assert row["acc"] == 1.0 or row["graded"] or row["answer"] != row["gts"]
    for source in ("math", "tiny_cpu/arithmetic"):
        assert not math.isnan(long_only.steps()[3][f"val-core/{source}/acc/mean@1"])


def test_validation_reports_the_pair(long_only):
    first, last = long_only.steps()[0], long_only.steps()[3]
    for name in ("reward", "format", "num_tokens", "num_tokens_long", "num_tokens_short", "num_rethinks"):
        for step in (first, last):
            assert any(f"/{name}/mean@1" in key for key in step), name


def test_models_with_different_tokenizers_understand_each_other(alternate):
    # The short model is the recipe's, with every token under another id: an id that crossed over would be nonsense.
    (accuracy,) = (value for key, value in alternate.steps()[0].items() if key.endswith("/acc/mean@1"))
    assert accuracy > 0.3


def test_sampled_rows_are_written_in_each_roles_own_words(alternate):
    for role, opening in (("long", "<think>"), ("short", "<answer>")):
        path = alternate.folder / "rollouts" / role / "1.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == 128
        assert sum(row["output"].startswith(opening) for row in rows) > 100, role


def test_a_finished_and_an_interrupted_job_leave_nothing_behind(long_only, alternate):
    assert long_only.leftovers(within=30) == []
    assert alternate.leftovers(within=30) == []
    assert alternate.process.returncode != 0


@pytest.mark.slow
def test_a_job_whose_engine_dies_before_a_push_ends(tmp_path, problems):
    # verl would wait for the dead engine's answer for ever.
    job = start_job(
        tmp_path,
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "trainer.total_training_steps=100",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        environment={"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", "LONGSHORT_TEST_KILL_ENGINE": "1"},
    )
    assert job.process.wait(timeout=900) != 0
    assert "EnginesFailed: step 1: an engine of the long policy is dead" in job.log
    assert job.leftovers(within=30) == []


@pytest.mark.slow
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
