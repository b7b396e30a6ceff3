# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Cold-start SFT by its own command, with real FSDP2 on a CPU: what it shows, learns, keeps, and how it resumes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from longshort_verl.adapters.rl import checkpoints
from longshort_verl.adapters.sft.trainer import BestTurns, TurnSettings, check_sft, generate_turns, keep_best
from longshort_verl.chat_template import ChatTemplateError
from longshort_verl.cold_start.held_out import turn_cases, turn_metrics
from longshort_verl.cold_start.transcripts import RoleFileError, read_role_rows
from longshort_verl.config.compose import ConfigError
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.types import Role
from tests.support.configs import ROOT, compose_config

RECIPE = ROOT / "recipes" / "tiny_cpu"
NUM_ROWS, BATCH, EPOCHS = 64, 16, 3
GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=100, max_workers=1)


def write_rows(path, role, number, seed):
    """Transcripts of the toy task."""
    from task import dialogue, sample_problem, solve

    rng = random.Random(seed)
    rows = []
    for _ in range(number):
        problem = sample_problem(rng, 2, 4)
        rows.append({"messages": dialogue(problem, rng)[role], "extra_info": {"answer": solve(problem).answer}})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    return {
        (role, side): write_rows(folder / f"{role}_{side}.parquet", role, number, seed)
        for role in ("long", "short")
        for side, number, seed in (("train", NUM_ROWS, 1), ("val", BATCH, 2))
    }


MODELS = {"long": "solo", "short": "short"}
"""The long role learns from a model that does not know the dialogue; the short one's knows it already."""


def overrides(rows, role, folder):
    return [
        f"model.path={RECIPE}/models/{MODELS[role]}",
        f"data.train_files={rows[role, 'train']}",
        f"data.val_files={rows[role, 'val']}",
        f"data.train_batch_size={BATCH}",
        f"trainer.total_epochs={EPOCHS}",
        "trainer.save_freq=2",
        "trainer.logger=[console,file]",
        f"trainer.default_local_dir={folder}",
        f"hydra.run.dir={folder}/hydra",
    ]


def start(folder, role, *more, ranks=1):
    """The command in its own session; its output in run.log."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command += [
        "-m",
        "longshort_verl.adapters.sft.trainer",
        "--config-dir",
        str(RECIPE),
        "--config-name",
        f"sft_{role}",
    ]
    environment = {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
    }
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *more], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def finish(folder, role, *more, ranks=1):
    process = start(folder, role, *more, ranks=ranks)
    assert process.wait(timeout=300) == 0, (folder / "run.log").read_text()[-4000:]


def losses(folder):
    """Training loss by step, of all starts; of a step that was made twice, the later one."""
    logs = sorted(folder.glob("metrics*.jsonl"), key=lambda log: log.stem)
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return {line["step"]: line["data"]["train/loss"] for line in lines if "train/loss" in line["data"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows):
    """Both roles, to the end."""
    folders = {}
    for role in ("long", "short"):
        folders[role] = tmp_path_factory.mktemp(f"sft_{role}")
        finish(folders[role], role, *overrides(rows, role, folders[role]))
    return folders


def written_again(folder, val, role):
    """What the kept folder alone, in transformers alone, makes of the held-out turns."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    cases = turn_cases(read_role_rows([val], role), 256)
    settings = TurnSettings(max_turns=256, max_tokens=32 if role is Role.SHORT else 96, batch_size=64, temperature=0.0)
    replies = generate_turns(model, tokenizer, cases, role, settings, device=torch.device("cpu"), synced=False)
    return turn_metrics(cases, replies, lambda text, gold: grade(text, gold, GRADING))


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_person_sees_what_is_trained(trained):
    log = (trained["short"] / "run.log").read_text()
    assert f"one of {NUM_ROWS} rows of the short role; what it learns:" in log
    # Lines are folded to the terminal's width.
    shown = log[log.index("what it learns:") :].replace("\n", "")
    assert "⟦<answer>" in shown
    assert "<|im_end|>⟧" in shown
    assert "⟦<think>" not in shown


@pytest.mark.job
@pytest.mark.timeout(900)
def test_held_out_turns_are_written_by_the_model_that_is_kept(trained, rows):
    for role in Role:
        folder = trained[role.value]
        history = [json.loads(line) for line in (folder / "turns.jsonl").read_text().splitlines()]
        assert [one["step"] for one in history] == [2, 4, 6, 8, 10, 12]
        best = max(one["well_formed"] for one in history)
        kept = json.loads((folder / "model" / "kept.json").read_text())
        assert kept["value"] == best
        assert kept["step"] == max(one["step"] for one in history if one["well_formed"] == best)
        again = written_again(folder, rows[role.value, "val"], role)
        assert again["well_formed"] == pytest.approx(kept["turns"]["well_formed"], abs=0.05)
        assert again["num_tokens"] == pytest.approx(kept["turns"]["num_tokens"], rel=0.05)
        if role is Role.SHORT:
            assert best > 0.8, "it spoke the protocol before"
            assert kept["turns"]["accuracy"] > 0.5


@pytest.mark.job
@pytest.mark.timeout(900)
def test_an_adapter_learned_on_two_ranks_is_kept_merged(rows, tmp_path):
    more = [f"model.path={RECIPE}/models/solo", "model.lora_rank=16", "model.target_modules=all-linear"]
    # An adapter needs larger steps; and the model does not know the dialogue.
    more += ["optim.lr=2e-2", "trainer.total_epochs=10", "trainer.save_freq=20"]
    finish(tmp_path, "short", *overrides(rows, "short", tmp_path), *more, ranks=2)
    history = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    assert [one["step"] for one in history] == [20, 40]
    kept = json.loads((tmp_path / "model" / "kept.json").read_text())
    assert kept["turns"] == {k: v for k, v in history[kept["step"] // 20 - 1].items() if k != "step"}
    assert kept["turns"]["well_formed"] > 0.5, "it learned to speak the protocol"
    again = written_again(tmp_path, rows["short", "val"], Role.SHORT)
    # Two ranks add up in another order than one process: a reply or two may differ where two words are equally likely.
    # Without the adapter no turn is well formed.
    assert again.keys() == kept["turns"].keys()
    for name, value in kept["turns"].items():
        assert again[name] == pytest.approx(value, rel=0.05, abs=0.1), name
    assert (tmp_path / "model" / "lora_adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.job
@pytest.mark.timeout(900)
def test_what_is_trained_gets_likelier(trained):
    found = losses(trained["long"])
    assert sorted(found) == list(range(1, 13))
    # An epoch is four steps.
    assert sum(found[step] for step in range(9, 13)) < 0.7 * sum(found[step] for step in range(1, 5))


@pytest.mark.job
@pytest.mark.timeout(900)
def test_packed_rows_teach_what_padded_ones_do(trained, rows, tmp_path):
    packed = ["model.use_remove_padding=true", "cold_start.turns.max_turns=0", "cold_start.best.metric=null"]
    finish(tmp_path, "long", *overrides(rows, "long", tmp_path), *packed)
    padded, found = losses(trained["long"]), losses(tmp_path)
    assert sorted(found) == sorted(padded)
    for step, loss in padded.items():
        # A row that saw its neighbours in the pack would learn otherwise; what is left is the order of sums.
        assert found[step] == pytest.approx(loss, rel=1e-4), step
    assert json.loads((tmp_path / "model" / "kept.json").read_text())["step"] == 12, "without a metric the last is kept"


def as_turns(path, out):
    """Transcripts as rows of single turns."""
    rows = [
        {"messages": row["messages"][: number + 1], "extra_info": {**row["extra_info"], "rows": "turn"}}
        for row in pq.read_table(path).to_pylist()
        for number, message in enumerate(row["messages"])
        if message["role"] == "assistant"
    ]
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out


@pytest.mark.job
@pytest.mark.timeout(900)
def test_rows_of_turns_teach_what_transcripts_do_if_a_batch_holds_all(rows, tmp_path):
    transcripts = rows["long", "val"]
    turns = as_turns(transcripts, tmp_path / "turns.parquet")
    found, num_rows, histories = {}, {}, {}
    for kind, file in (("transcript", transcripts), ("turn", turns)):
        num_rows[kind] = pq.read_metadata(file).num_rows
        sizes = [f"data.train_batch_size={num_rows[kind]}", "trainer.total_epochs=2", "cold_start.turns.max_turns=16"]
        files = dict.fromkeys([("long", "train"), ("long", "val")], file)
        finish(tmp_path / kind, "long", *overrides(files, "long", tmp_path / kind), *sizes)
        found[kind] = losses(tmp_path / kind)
        histories[kind] = json.loads((tmp_path / kind / "turns.jsonl").read_text())
    assert num_rows["turn"] > num_rows["transcript"] == BATCH
    # The same tokens, averaged over all of them: the same loss, and the same model after the first step. The model does
    # not know the dialogue: gradients are far above the rounding errors that Adam's first step would amplify.
    assert found["turn"] == pytest.approx(found["transcript"], rel=1e-3)
    # Held-out turns are generated once each from both kinds of rows.
    assert histories["turn"] == pytest.approx(histories["transcript"], abs=0.05)


@pytest.mark.job
@pytest.mark.timeout(900)
def test_kill_9_and_resume_end_with_the_same_loss_curve(trained, rows, tmp_path):
    killed = tmp_path / "killed"
    process = start(killed, "long", *overrides(rows, "long", killed))
    end = time.monotonic() + 300
    while not checkpoints.is_complete(killed / "global_step_6"):
        assert process.poll() is None, (killed / "run.log").read_text()[-4000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    launcher = psutil.Process(process.pid)
    for one in [*launcher.children(recursive=True), launcher]:  # a worker outlives its launcher otherwise
        one.send_signal(signal.SIGKILL)
    process.wait()
    assert max(losses(killed)) < 12, "it ended before it could be killed"
    newest = checkpoints.latest(killed)["step"]
    whole = losses(trained["long"])
    # An epoch has four steps, and a checkpoint two: of the last two, one is at the end of an epoch.
    for step in (newest, newest - 2):
        folder = tmp_path / f"from_{step}"
        shutil.copytree(killed, folder)
        for later in range(step + 1, newest + 1):
            checkpoints.begin(folder / f"global_step_{later}")
        finish(folder, "long", *overrides(rows, "long", folder))
        found = losses(folder)
        assert f"{folder}/global_step_{step} (step {step})" in (folder / "run.log").read_text()
        assert sorted(found) == sorted(whole), step
        for number, loss in whole.items():
            # float32: what is left is the order of sums
            assert found[number] == pytest.approx(loss, rel=1e-4), (step, number)


# Refusals --------------------------------------------------------------------------------------------------------


def checked(rows, *more, role="long"):
    given = [one for one in overrides(rows, role, "somewhere") if not one.startswith("hydra.")]
    return check_sft(compose_config(f"sft_{role}", RECIPE, *given, *more))


def test_the_recipe_passes(rows):
    for role in Role:
        found = checked(rows, role=role.value)
        assert found.settings.only is role
        assert (len(found.train), len(found.val)) == (NUM_ROWS, BATCH)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.train_files=null", "data.train_files is null"),
        ("data.val_files=null", "data.val_files is null"),
        ("model.path=null", "model.path is null"),
        ("data.train_batch_size=65", "train_batch_size is 65, and there are 64 rows"),
        ("trainer.max_ckpt_to_keep=1", "max_ckpt_to_keep is 1"),
        ("checkpoint.save_contents=[model]", "without hf_model"),
        ("cold_start.turns.max_turns=0", "turns.max_turns 0: no turn would be generated"),
        ("cold_start.best.metric=accuracy", "the long role's turns hold no answer"),
        ("cold_start.best.metric=beauty", "cold_start.best.metric is 'beauty'"),
        ("engine.strategy=fsdp", "engine.strategy is 'fsdp', and turns are generated under fsdp2 only"),
        ("cold_start.role=medium", "cold_start.role is 'medium'"),
        ("+cold_start.rolle=long", "cold_start.rolle is no setting"),
        ("cold_start.turns.batch_size=0", "batch_size is 0"),
        ("engine.ulysses_sequence_parallel_size=2", "ulysses_sequence_parallel_size is above 1"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_loads(rows, override, said):
    with pytest.raises(ConfigError, match=said):
        checked(rows, override)


def test_the_other_roles_file_is_refused(rows):
    with pytest.raises(
        RoleFileError, match=r"short_train.parquet: row 0: turn 0 of the long role does not begin with <th"
    ):
        checked(rows, f"data.train_files={rows['short', 'train']}")


def test_a_template_that_loses_thoughts_is_refused(rows, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(RECIPE / "models" / "long")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message['content'].split('</think>')[-1]"
    )
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ChatTemplateError, match=r"does not keep the assistant turn .*Give .* a chat template"):
        checked(rows, f"model.path={tmp_path}")


def test_the_best_model_is_kept_and_of_equals_the_later(tmp_path):
    def save(step, value, **best):
        folder = tmp_path / f"global_step_{step}" / "huggingface"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(step))
        settings = BestTurns(**({"metric": "well_formed", "mode": "max"} | best))
        kept = keep_best(tmp_path, step, {"well_formed": value, "num_tokens": value}, settings)
        return kept, (tmp_path / "model" / "weights").read_text()

    assert save(1, 0.5) == (True, "1")
    assert save(2, 0.4) == (False, "1")
    assert save(3, 0.5) == (True, "3")
    # Another metric: what was kept by the old one says nothing.
    assert save(4, 9.0, metric="num_tokens", mode="min") == (True, "4")
    assert save(5, 9.5, metric="num_tokens", mode="min") == (False, "4")
    assert save(6, 0.0, metric=None) == (True, "6")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
