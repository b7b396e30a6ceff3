# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The real job: Ray, FSDP2 actors and vLLM servers of two policies in one `verl.trainer.main_ppo`.

Three jobs, and two slow ones that fail; what can share one does. They start one after the other, each takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from longshort_verl.evaluation.records import read_records
from longshort_verl.problems.read import read_problems
from longshort_verl.problems.write import write_problems
from longshort_verl.types import StopReason
from tests.support.jobs import HALF_A_STEP, start_job
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
        *HALF_A_STEP,
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
def in_rounds(tmp_path_factory, problems, root):
    """Both roles learn in rounds of two steps, until Ctrl-C after step 6; the short model has another tokenizer.

    Long, long, short: its rounds end with steps 2, 4 and 6; checkpoints after steps 3 and 6.
    """
    folder = tmp_path_factory.mktemp("in_rounds")
    short = with_other_ids(root / "recipes" / "tiny_cpu" / "models" / "short", folder / "short_model")
    job = start_job(
        folder,
        *rounds_overrides(problems, short, ["long", "long", "short", "long"]),
        "long_short.best.metric=reward",
        f"trainer.rollout_data_dir={folder}/rollouts",
    )
    job.wait_for_step(6, timeout=900)
    job.interrupt()
    job.process.wait(timeout=60)
    return job


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, problems, in_rounds):
    """The run ``in_rounds`` as if it had died while it wrote its second checkpoint; goes on within the second round.

    At step 5 the short role learns and its engine is left with the old weights.
    """
    folder = tmp_path_factory.mktemp("resumed")
    for name in ("global_step_3", "global_step_6", "rounds/long-r1_short-r0"):
        shutil.copytree(in_rounds.folder / name, folder / name)
    (folder / "global_step_6" / "long_short.json").unlink()
    shutil.rmtree(folder / "global_step_6" / "short")
    (folder / "latest_checkpointed_iteration.txt").write_text("6")
    job = start_job(
        folder,
        *rounds_overrides(problems, in_rounds.folder / "short_model", ["long", "long", "short"]),
        "trainer.val_before_train=false",
        # It has another order of rounds, and keeps no best pair.
        "hydra.callbacks.manifest.allow_changes=true",
        environment={"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", "LONGSHORT_TEST_NO_PUSH": "short@5"},
    )
    job.process.wait()
    assert job.process.returncode == 0, job.log[-6000:]
    return job


def rounds_overrides(problems, short, order):
    return (
        *HALF_A_STEP,
        "long_short.schedule=rounds",
        f"long_short.rounds.order=[{','.join(order)}]",
        "long_short.rounds.steps=2",
        f"trainer.total_training_steps={2 * len(order)}",
        f"long_short.short.model.path={short}",
        "actor_rollout_ref.actor.use_kl_loss=true",
        "long_short.reward.length={from: 0, to: 0.2, start: 1, end: 5}",
        # What each long turn of half of the groups is worth, onto its tokens.
        "long_short.reward.importance=0.5",
        "long_short.importance.credit=turn",
        "long_short.importance.group_share=0.5",
        "long_short.importance.max_tokens=8",
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "trainer.test_freq=2",
        "trainer.save_freq=3",
        "trainer.max_actor_ckpt_to_keep=2",
        # So that one update moves the probabilities by more than rounding does.
        "actor_rollout_ref.actor.optim.lr=3e-4",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    )


def digest(part):
    """Hash of the parameters in a policy's folder of a checkpoint."""
    state = torch.load(part / "model_world_size_1_rank_0.pt", weights_only=False)
    values = [state[name].to_local().contiguous().numpy().tobytes() for name in sorted(state)]
    return hashlib.sha256(b"".join(values)).hexdigest()


def test_each_engine_holds_its_own_roles_weights(long_only, in_rounds, resumed):
    # The role that learns is compared at every step, a resting one after each push. Different models: a wrong address
    # would show as a difference of the order of 0.1.
    for step in (1, 2, 3):
        assert long_only.steps()[step][f"long/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE
    assert long_only.steps()[1][f"short/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE
    for role, steps in (("long", (1, 2, 3, 4, 5)), ("short", (1, 5, 6))):
        for step in steps:
            assert in_rounds.steps()[step][f"{role}/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE, (step, role)
    for role in ("long", "short"):
        assert resumed.steps()[4][f"{role}/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE, role


def test_a_push_that_was_left_out_raises_the_alarm(in_rounds, resumed):
    for step in (4, 5):
        assert not [key for key in resumed.steps()[step] if key.startswith("alarm/engine")]
    assert resumed.steps()[6][f"short/{PROBS_DIFF}"] > 10 * MAX_MEAN_DIFFERENCE
    assert resumed.steps()[6]["alarm/engine_out_of_step/short"] == 1
    assert "alarm/engine_out_of_step/long" not in resumed.steps()[6]
    assert "longshort alarm: step 6: the short engine's token probabilities differ" in resumed.log
    assert "longshort alarm: step" not in "".join(line for line in in_rounds.log.splitlines() if "engine's" in line)


def test_every_process_of_a_job_uses_the_installed_package(long_only, installed):
    origins = [path.read_text() for path in (long_only.folder / "origins").iterdir() if path.name.isdigit()]
    assert set(origins) == {str(installed / "longshort_verl" / "__init__.py")}
    assert len(origins) > 5, "driver, trainer, workers, servers"


def test_only_the_scheduled_role_is_updated(long_only, in_rounds, root):
    for step in (1, 2, 3):
        assert long_only.steps()[step]["long/actor/grad_norm"] > 0
        assert long_only.steps()[step]["long/actor/skipped_update"] == 0
        assert "short/actor/grad_norm" not in long_only.steps()[step]
    for step in (1, 2, 3, 4, 5, 6):
        learns, rests = ("long", "short") if step <= 4 else ("short", "long")
        assert in_rounds.steps()[step][f"{learns}/actor/grad_norm"] > 0
        assert f"{rests}/actor/grad_norm" not in in_rounds.steps()[step]
    models = root / "recipes" / "tiny_cpu" / "models"
    saved = long_only.folder / "global_step_3"
    for role, part in (("long", "actor"), ("short", "short")):
        before = load_file(models / role / "model.safetensors")
        after = load_file(saved / part / "huggingface" / "model.safetensors")
        changed = [name for name in before if not torch.equal(before[name].float(), after[name].float())]
        assert len(changed) == (len(before) if role == "long" else 0), role
    assert (long_only.folder / "latest_checkpointed_iteration.txt").read_text() == "3"


def test_long_turns_of_a_share_of_the_groups_are_measured(long_only, in_rounds):
    for step in (1, 2, 3, 4):
        found = in_rounds.steps()[step]
        # Of 16 groups; a turn after which no answer fits in is not measured either.
        assert 0.1 < found["importance/measured_turns"] < 0.9, step
        assert 0 < found["importance/tokens_share"] < 1, step
        assert -1.1 <= found["importance/turn"] <= 1, step
        # The credit is on the tokens and no term of the row.
        assert "long/reward/importance" not in found
    # The short role is right more often with a thought than without.
    assert sum(in_rounds.steps()[step]["importance/gain"] for step in (1, 2, 3, 4)) > 0
    assert not [key for key in long_only.steps()[1] if key.startswith("importance/")]


def test_the_reference_of_a_round_is_the_learner_at_its_start(in_rounds, resumed):
    kl = {
        step: in_rounds.steps()[step][f"{role}/actor/kl_loss"]
        for step, role in enumerate(("long", "long", "long", "long", "short", "short"), start=1)
    }
    # The same weights; what is left is the order of sums.
    assert all(abs(kl[step]) < 1e-9 for step in (1, 3, 5)), kl
    assert all(kl[step] > 1e-6 for step in (2, 4, 6)), kl
    assert abs(resumed.steps()[5]["short/actor/kl_loss"]) < 1e-9


def test_the_optimizer_of_a_round_is_new(in_rounds):
    for step, part, updates in ((3, "actor", 1), (6, "actor", 2), (6, "short", 2)):
        folder = in_rounds.folder / f"global_step_{step}" / part
        optimizer = torch.load(folder / "optim_world_size_1_rank_0.pt", weights_only=False)
        extra = torch.load(folder / "extra_state_world_size_1_rank_0.pt", weights_only=False)
        assert {int(state["step"]) for state in optimizer["state"].values()} == {updates}, (step, part)
        assert extra["lr_scheduler"]["last_epoch"] == updates, (step, part)


def test_the_pair_after_each_round_is_kept_and_the_frozen_role_did_not_change(in_rounds, resumed):
    rounds = in_rounds.folder / "rounds"
    names = [f"long-r{long}_short-r{short}" for long, short in ((0, 0), (1, 0), (2, 0), (2, 1))]
    assert sorted(path.name for path in rounds.iterdir()) == names
    long, short = ([digest(rounds / name / part) for name in names[1:]] for part in ("actor", "short"))
    assert (len(set(long)), long[1]) == (2, long[2])
    assert (len(set(short)), short[0]) == (2, short[1])
    assert digest(in_rounds.folder / "global_step_3" / "short") == short[0]
    # The resumed run has written the same second round.
    assert digest(resumed.folder / "rounds" / names[2] / "short") == short[1]


def test_the_validation_between_rounds_is_an_evaluation(in_rounds):
    for step, name in ((0, "long-r0_short-r0"), (2, "long-r1_short-r0"), (6, "long-r2_short-r1")):
        records = read_records(in_rounds.folder / "rounds" / name / "pair.jsonl")
        assert [record["index"] for record in records] == sorted(record["index"] for record in records)
        assert len(records) == 32
        for metric, key in (("acc", "correct"), ("num_tokens", "num_tokens"), ("num_tokens_long", "num_tokens_long")):
            (logged,) = (v for k, v in in_rounds.steps()[step].items() if k.endswith(f"/{metric}/mean@1"))
            assert sum(record[key] for record in records) / 32 == pytest.approx(logged), (name, metric)
        assert all(record["num_tokens"] == sum(turn["num_tokens"] for turn in record["turns"]) for record in records)
        assert {record["stop_reason"] for record in records} <= {reason.value for reason in StopReason}


def test_a_weight_follows_the_step(in_rounds, resumed):
    # From 0 at step 1 to 0.2 at step 5: 0.05 a step.
    for step, weight in enumerate((0, 0.05, 0.1, 0.15, 0.2, 0.2), start=1):
        assert in_rounds.steps()[step]["reward_weight/length"] == pytest.approx(weight)
    assert resumed.steps()[4]["reward_weight/length"] == pytest.approx(0.15)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(in_rounds, resumed):
    assert "resuming from step 3" in resumed.log
    assert min(resumed.steps()) == 4
    names = ("actor/pg_loss", "actor/kl_loss", "actor/grad_norm", "actor/entropy", "actor/lr", "reward", "num_tokens")
    for step, role in ((4, "long"), (5, "short")):
        for name in names:
            # float32: what is left is the order of sums
            assert resumed.steps()[step][f"{role}/{name}"] == pytest.approx(
                in_rounds.steps()[step][f"{role}/{name}"], rel=1e-3, abs=1e-6
            ), (step, name)


def test_the_best_pair_is_kept(in_rounds):
    values = {
        step: next(value for key, value in data.items() if key.endswith("/reward/mean@1"))
        for step, data in in_rounds.steps().items()
        if any(key.startswith("val-") for key in data)
    }
    assert set(values) == {0, 2, 4, 6}
    best = max(values, key=values.get)
    (folder,) = (in_rounds.folder / "best").glob("global_step_*")
    record = json.loads((folder / "long_short.json").read_text())
    assert (record["step"], record["metric"], record["value"]) == (best, "reward", pytest.approx(values[best]))


def test_exported_roles_load_and_differ_from_their_start(in_rounds, tmp_path, root):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from longshort_verl.adapters.export import export_pair

    folders = export_pair(in_rounds.folder / "rounds" / "long-r2_short-r1", tmp_path)
    assert [folder.name for folder in folders] == ["long", "short"]
    for folder, start in zip(
        folders, (root / "recipes/tiny_cpu/models/long", in_rounds.folder / "short_model"), strict=True
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


def test_models_with_different_tokenizers_understand_each_other(in_rounds):
    # The short model is the recipe's, with every token under another id: an id that crossed over would be nonsense.
    (accuracy,) = (value for key, value in in_rounds.steps()[0].items() if key.endswith("/acc/mean@1"))
    assert accuracy > 0.3


def test_sampled_rows_are_written_in_each_roles_own_words(in_rounds):
    for role, opening in (("long", "<think>"), ("short", "<answer>")):
        path = in_rounds.folder / "rollouts" / role / "1.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == 64
        assert sum(row["output"].startswith(opening) for row in rows) > 50, role


def test_a_finished_and_an_interrupted_job_leave_nothing_behind(long_only, in_rounds):
    assert long_only.leftovers(within=30) == []
    assert in_rounds.leftovers(within=30) == []
    assert in_rounds.process.returncode != 0


@pytest.mark.slow
@pytest.mark.nightly
def test_a_job_whose_engine_dies_before_a_push_ends(tmp_path, problems):
    # verl would wait for the dead engine's answer for ever.
    job = start_job(
        tmp_path,
        *HALF_A_STEP,
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
@pytest.mark.nightly
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
