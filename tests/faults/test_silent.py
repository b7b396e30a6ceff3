# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Faults that a run would survive with wrong numbers: each is injected into the code that meets it, and is named.

Models and tokenizers are those of recipes/tiny_cpu. The trainer is the real one; only Ray's workers and the transfer
queue's processes are left out.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from tokenizers import AddedToken
from torchdata.stateful_dataloader import StatefulDataLoader
from transfer_queue import KVBatchMeta
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl import DataProto
from verl.trainer.ppo.utils import create_rl_sampler
from verl.utils.debug.metrics import calculate_debug_metrics

from longshort_verl.adapters.rl import checkpoints
from longshort_verl.adapters.rl.agent_loop import ROW
from longshort_verl.adapters.rl.check import check_templates
from longshort_verl.adapters.rl.policies import Policy
from longshort_verl.adapters.rl.reward_manager import LongShortRewardManager
from longshort_verl.adapters.rl.rows import score_rows
from longshort_verl.adapters.rl.settings import load_tokenizer, long_short_settings, role_config
from longshort_verl.adapters.rl.trainer import LongShortTrainer
from longshort_verl.config.compose import ConfigError
from longshort_verl.metrics import MEASURED, alarms
from longshort_verl.rewards import TERMS, Term
from longshort_verl.types import Role
from tests.adapters.test_manifest import CONFIG, JOB
from tests.support.configs import ROOT, tiny_config
from tests.support.jobs import HALF_A_STEP, nightly_job, start_job
from tests.support.sessions import run_session

MODELS = {role: ROOT / "recipes" / "tiny_cpu" / "models" / role for role in ("long", "short")}
LONG, SHORT = ["<think>8+2=0 0+2=2</think>"], ["<answer>\\boxed{2}</answer>"]
WRONG = ["<answer>\\boxed{3}</answer>"]
STEP = 5
"""Of :func:`run_session`; its engines hold the weights of step 4."""


@pytest.fixture
def config(tiny_problems):
    return lambda *overrides: tiny_config(MODELS, tiny_problems, *overrides)


def limits(config):
    return long_short_settings(config).alarms


# Engines -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def token_log_probs():
    """Log-probability of each token of a row by a role's model, after the prompt, (row, tokens)."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS["long"])
    prompt = tokenizer("<|user|>8+2+2<|im_end|><|assistant|>", return_tensors="pt").input_ids
    reply = tokenizer(LONG[0] + "<|im_end|>", return_tensors="pt").input_ids

    def of(role, change=0.0):
        model = AutoModelForCausalLM.from_pretrained(MODELS[role], dtype=torch.float32)
        ids = torch.cat([prompt, reply], dim=1)
        with torch.no_grad():
            for weight in model.parameters():
                weight += change * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            logits = model(ids).logits[:, prompt.shape[1] - 1 : -1]
        return logits.log_softmax(-1).gather(2, reply[..., None]).squeeze(2)

    return of


def compared(engine, actor):
    """verl's comparison of an engine with its actor, as a step of the long policy logs it."""
    rows = {"rollout_log_probs": engine, "old_log_probs": actor, "responses": actor}
    rows = {name: values.clone() for name, values in rows.items()} | {"response_mask": torch.ones_like(actor)}
    found = calculate_debug_metrics(DataProto(batch=TensorDict(rows, batch_size=len(actor))))
    return {f"long/{name}": value for name, value in found.items()}


def test_an_engine_with_other_weights_is_named(token_log_probs, config):
    actor, recipe = token_log_probs("long"), limits(config())
    assert alarms(compared(actor, actor), recipe) == {}
    assert alarms(compared(actor + 1e-5, actor), recipe) == {}
    for other in (token_log_probs("short"), token_log_probs("long", change=0.5)):
        assert list(alarms(compared(other, actor), recipe)) == ["engine_out_of_step/long"]


def rewarded(config, *sessions):
    """Rows of sessions of one prompt by key, with the reward manager's verdict, as the transfer queue has them."""
    rows = {}

    async def score(row):
        manager = LongShortRewardManager.__new__(LongShortRewardManager)
        manager.settings, manager.loop = long_short_settings(config), asyncio.get_running_loop()
        return await manager.run_single([SimpleNamespace(non_tensor_batch={"tool_extra_fields": row.extra_fields})])

    for number, session in enumerate(sessions):
        found, _, _ = run_session(config, **session)
        info = asyncio.run(score(found[-1]))["reward_extra_info"]
        for i, row in enumerate(found):
            row.extra_fields["reward_extra_info"] = info
            rows[f"u_{number}_{i}"] = row
    return rows


def session(long=LONG, short=SHORT, **kwargs):
    return {"long": long, "short": short, **kwargs}


def scored(config, rows, step=STEP):
    fields = {key: row.extra_fields for key, row in rows.items()}
    masks = {key: torch.tensor(row.response_mask) for key, row in rows.items()}
    return score_rows(dict.fromkeys(rows, "u"), fields, masks, long_short_settings(config), step)


@pytest.mark.parametrize("version", [None, 3, 5])
def test_rows_of_an_engine_that_no_push_reached_are_named(config, version):
    """A small learning rate would hide it from the comparison of probabilities."""
    fine = scored(config(), rewarded(config(), session()))
    assert (fine.metrics["long/stale_rows"], fine.metrics["short/stale_rows"]) == (0, 0)
    rows = rewarded(config(), session(), session(versions={Role.SHORT: version}))
    found = scored(config(), rows)
    assert (found.metrics["long/stale_rows"], found.metrics["short/stale_rows"]) == (0, 0.5)
    said = alarms(found.metrics, limits(config()))["stale_engine/short"]
    assert said.startswith("50% of the short role's rows are by other weights than those of the step before")


# Rewards -----------------------------------------------------------------------------------------------------------

MEASURE = ("long_short.reward.importance=2", "long_short.importance.num_rollouts=2")
ROLLOUTS = {"": "9}</answer>", "8+2=0 0+2=2": "2}</answer>"}


def test_a_missing_importance_is_not_0(config):
    measured = config(*MEASURE)
    rows = rewarded(measured, session(rollouts=ROLLOUTS, training=True))
    assert scored(measured, rows).rewards["u_0_0"].terms["importance"] != 0
    # As if the queue had lost what tells the agent loop that a prompt is one of training.
    lost = rewarded(measured, session(rollouts=ROLLOUTS))
    with pytest.raises(ValueError, match=r"reward term 'importance' is nan; it has weight 2"):
        scored(measured, lost)
    per_turn = config(*MEASURE, "long_short.importance.credit=turn")
    with pytest.raises(KeyError, match=MEASURED):
        scored(per_turn, lost)
    assert "importance" not in scored(config(), lost).rewards["u_0_0"].terms


@pytest.mark.parametrize(("field", "term"), [("acc", "accuracy"), ("format_long", "format")])
def test_a_fact_that_is_missing_is_not_0(config, field, term):
    rows = rewarded(config(), session(), session(short=WRONG))
    fields = rows["u_1_0"].extra_fields
    fields[ROW].pop(field, None)
    fields["reward_extra_info"][field] = math.nan
    with pytest.raises(ValueError, match=f"^reward term '{term}' is nan; it has weight 1"):
        scored(config(), rows)
    fields["reward_extra_info"].pop(field)
    with pytest.raises(KeyError, match=field):
        scored(config(), rows)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (Term(of_row=lambda row: math.nan), "reward term 'mine' is nan; it has weight 0.5"),
        (Term(of_row=lambda row: None), "reward term 'mine' is None; it has weight 0.5"),  # pyright: ignore
        (Term(of_group=lambda rows: [0.0]), "reward term 'mine' has 1 values for a group of 2 rows"),
    ],
)
def test_a_term_from_outside_that_is_missing_ends_the_step(config, monkeypatch, term, said):
    monkeypatch.setitem(TERMS, "mine", term)
    own = config("+long_short.reward.mine=0.5")
    with pytest.raises(ValueError, match=f"^{said}$"):
        scored(own, rewarded(own, session(), session(short=WRONG)))
    assert scored(config("+long_short.reward.mine=0"), rewarded(own, session())).rewards


# A step of the trainer -----------------------------------------------------------------------------------------------


class Queue:
    """The transfer queue's rows, in this process."""

    def __init__(self):
        self.rows = {}

    def kv_batch_put(self, keys, partition_id, fields=None, tags=None):
        for name in fields.keys() if fields is not None else ():
            for key, value in zip(keys, fields[name].unbind(), strict=True):
                self.rows[key][name] = value
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[{}] * len(keys))

    def kv_batch_get(self, keys, partition_id, select_fields):
        found = {}
        for name in (name for name in select_fields if all(name in self.rows[key] for key in keys)):
            values = [self.rows[key][name] for key in keys]
            tensors = isinstance(values[0], torch.Tensor)
            nested = torch.nested.as_nested_tensor(values, layout=torch.jagged) if tensors else None
            found[name] = nested if tensors else NonTensorStack(*values)
        return TensorDict(found, batch_size=len(keys))


class Steps(LongShortTrainer):
    """The trainer without workers: its rows are in a queue, its actor agrees with its engine and does not learn."""

    def __init__(self, config, queue):
        self.config, self.settings, self.global_steps = config, long_short_settings(config), STEP
        self._rounds, self._warned, self._turn_credits, self._queue = None, set(), {}, queue
        self._policies = [
            Policy((role,), config, None, None, None, None, learns=True)  # pyright: ignore[reportArgumentType]
            for role in Role
        ]
        self.replay_buffer = SimpleNamespace(sample=lambda **_: (self._batch(), {}))

    def _batch(self):
        keys = list(self._queue.rows)
        return KVBatchMeta(partition_id="train", keys=keys, tags=[{}] * len(keys))

    def on_sample_begin(self):
        pass

    def on_sample_end(self):
        pass

    def _balance_batch(self, batch, metrics):
        return batch

    def _log_probs(self, policy, rows, metrics, timing_raw):
        for key in rows.keys:
            self._queue.rows[key]["old_log_probs"] = self._queue.rows[key]["rollout_log_probs"]

    def _update_policy(self, batch, num_live, metrics):
        return True


@pytest.fixture
def step(config, monkeypatch):
    """Metrics of one step on the rows of two sessions of one prompt, both roles learning."""

    def run(*sessions, overrides=(), without=()):
        made = config(
            "long_short.schedule=joint",
            "data.train_batch_size=1",
            "actor_rollout_ref.actor.ppo_mini_batch_size=1",
            f"actor_rollout_ref.rollout.n={len(sessions)}",
            *overrides,
        )
        queue, rows = Queue(), rewarded(made, *sessions)
        for key in rows.keys() - set(without):
            row = rows[key]
            queue.rows[key] = {
                "uid": "u",
                "extra_fields": row.extra_fields,
                "response_mask": torch.tensor(row.response_mask),
                "rollout_log_probs": torch.tensor(row.response_logprobs),
            }
        queue.rows = dict(sorted(queue.rows.items()))
        monkeypatch.setattr(tq, "kv_batch_get", queue.kv_batch_get)
        monkeypatch.setattr(tq, "kv_batch_put", queue.kv_batch_put)
        metrics, trainer = {}, Steps(made, queue)
        trainer._step_once(metrics, {}, 1)
        return metrics, trainer

    return run


def test_a_step_that_teaches_is_silent(step):
    metrics, _ = step(session(), session(short=WRONG))
    assert metrics["long/zero_advantages"] == metrics["short/zero_advantages"] == 0
    assert [name for name in metrics if name.startswith("alarm/")] == []


def test_a_step_without_any_advantage_is_named(step, caplog):
    metrics, _ = step(session(), session())
    assert metrics["long/zero_advantages"] == metrics["short/zero_advantages"] == 1
    assert metrics["alarm/zero_advantages/long"] == metrics["alarm/zero_advantages/short"] == 1
    assert (
        "longshort alarm: step 5: all advantages of the long role are 0, and the step taught it nothing" in caplog.text
    )
    # The alarm of equal rewards may be off.
    metrics, _ = step(session(), session(), overrides=["long_short.alarms.zero_variance_groups=null"])
    assert metrics["alarm/zero_advantages/long"] == 1


def test_advantages_that_are_lost_after_the_rewards_are_named(step, monkeypatch):
    from verl.trainer.ppo import core_algos

    def lost(token_level_rewards, **kwargs):
        return torch.zeros_like(token_level_rewards), torch.zeros_like(token_level_rewards)

    monkeypatch.setitem(core_algos.ADV_ESTIMATOR_REGISTRY, "lost", lost)
    metrics, _ = step(session(), session(short=WRONG), overrides=["algorithm.adv_estimator=lost"])
    assert metrics["long/zero_variance_groups"] == 0
    assert [name for name in metrics if name.startswith("alarm/")] == [
        "alarm/zero_advantages/long",
        "alarm/zero_advantages/short",
    ]


def test_dialogues_that_a_step_lacks_are_named(step, caplog):
    """verl drops a dialogue whose rollout or reward raised an error."""
    metrics, _ = step(session(), session(short=WRONG), session(), session(), without=["u_3_0", "u_3_1"])
    assert metrics["dialogue/lost"] == 0.25
    assert metrics["alarm/lost"] == 1
    assert "rollout or reward failed in 25.0% of the dialogues: see 'Error in _run_prompt'" in caplog.text


# Limits of the engine ------------------------------------------------------------------------------------------------


def test_a_reply_that_the_engine_cut_off_is_no_malformed_one(config):
    recipe = config()
    for cut in ("<think>8+2=0 0+", "<think>"):
        record = rewarded(recipe, session(long=[cut], short=[]))["u_0_0"].extra_fields[ROW]
        assert (record["stop_reason"], record["detail"]) == (
            "context",
            "the long model's context ended in the middle of its turn",
        )
    # Its own end, by whichever of its end tokens, and our limits.
    for ended in ("<think>8+2=0<|im_end|>", "<think>8+2=0<|endoftext|>", "<think>8+2=0<|user|>"):
        record = rewarded(recipe, session(long=[ended], short=[]))["u_0_0"].extra_fields[ROW]
        assert record["stop_reason"] == "malformed_long"
    record = rewarded(recipe, session(long=["<think>" + "1" * 200], short=[]))["u_0_0"].extra_fields[ROW]
    assert record["stop_reason"] == "truncated"
    small = config("long_short.dialogue.max_dialogue_tokens=20")
    record = rewarded(small, session(long=["<think>" + "1" * 200], short=[]))["u_0_0"].extra_fields[ROW]
    assert record["stop_reason"] == "token_budget"


def test_a_step_of_cut_off_dialogues_names_the_key(step, caplog):
    metrics, _ = step(session(), session(long=["<think>8+2=0 0+"], short=[]))
    assert metrics["dialogue/stop/context"] == 0.5
    assert metrics["alarm/context"] == 1
    assert "alarm/truncated" not in metrics
    said = "50% of the dialogues were cut off by the context of an engine, before one of long_short.dialogue: raise"
    assert said in caplog.text


@pytest.mark.parametrize("overrides", [[], ["actor_rollout_ref.rollout.enable_chunked_prefill=true"]])
def test_a_context_that_the_model_lacks_is_refused(config, overrides):
    def check(*more):
        made = config(*overrides, *more)
        OmegaConf.resolve(made)
        check_templates(made, *(load_tokenizer(role_config(made, role)) for role in Role))

    check("actor_rollout_ref.rollout.max_model_len=8192", "actor_rollout_ref.rollout.max_num_batched_tokens=8192")
    said = "the long model's context is 8192, where its engine would cut it off; lower it to that"
    with pytest.raises(ConfigError, match=rf"^actor_rollout_ref\.rollout\.max_model_len .* is 8193, but {said}$"):
        check("actor_rollout_ref.rollout.max_model_len=8193")
    with pytest.raises(ConfigError, match=rf"is 8256, but {said}$"):
        check("actor_rollout_ref.rollout.max_model_len=null", "data.max_response_length=8192")


# What a run resumes with ---------------------------------------------------------------------------------------------


def big_tokenizer(folder):
    """A tokenizer of more than two megabytes, as those of real models are."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS["long"])
    tokenizer.add_tokens([AddedToken(f"token{number:06d}", normalized=False) for number in range(20_000)])
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run with a checkpoint, on the recipe's long model."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(MODELS["long"], folder / "model")
    big_tokenizer(folder / "model")
    (folder / "job.yaml").write_text(CONFIG + "dialogue: {system_prompt: think}\n")
    (folder / "job.py").write_text(JOB)
    (folder / "train.parquet").write_text("rows")
    _, shown = resume(folder, "fails=true")
    assert "trained" in shown, shown
    return folder


def resume(folder, *overrides):
    command = [sys.executable, "job.py", "model.path=model", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def in_place(path, old, new):
    """Change a file, of which the size stays."""
    text = path.read_text()
    assert text.count(old) == 1
    assert len(old) == len(new)
    path.write_text(text.replace(old, new))


def swap_two_ids(model):
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    first, second = (one for one in tokenizer["added_tokens"] if one["content"] in ("token010000", "token010001"))
    first["content"], second["content"] = second["content"], first["content"]
    size = path.stat().st_size
    path.write_text(json.dumps(tokenizer, indent=2, ensure_ascii=False))
    assert path.stat().st_size == size > 2_200_000
    assert size // 3 < path.read_text().index("token010000") < size * 2 // 3


CHANGES = {
    "template": lambda model: in_place(model / "chat_template.jinja", "<|assistant|>", "<|ASSISTANT|>"),
    "tokenizer": swap_two_ids,
    "config": lambda model: in_place(
        model / "config.json", '"max_position_embeddings": 8192', '"max_position_embeddings": 4096'
    ),
    "weights": lambda model: shutil.copy(ROOT / "recipes/tiny_cpu/models/solo/model.safetensors", model),
    "generation config": lambda model: in_place(
        model / "generation_config.json", '"eos_token_id": 257', '"eos_token_id": 256'
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_does_not_resume(begun, tmp_path, change):
    shutil.copytree(begun, tmp_path / "run")
    CHANGES[change](tmp_path / "run" / "model")
    code, shown = resume(tmp_path / "run", "fails=true")
    assert code == 1
    assert "trained" not in shown
    assert "longshort: run was begun with other settings:\n  input model.path: model (sha256" in shown


def test_a_changed_setting_does_not_resume_and_an_equal_model_does(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    code, shown = resume(tmp_path / "run", "fails=true", "dialogue.system_prompt=answer")
    assert (code, "trained" in shown) == (1, False)
    assert 'dialogue.system_prompt: "think" then, "answer" now' in shown
    # A loader's place is that of its worker processes.
    code, shown = resume(tmp_path / "run", "fails=true", "+data.dataloader_num_workers=8")
    assert (code, "trained" in shown) == (1, False)
    assert "data.dataloader_num_workers: not set then, 8 now" in shown
    _, shown = resume(tmp_path / "run", "fails=true")
    assert "trained" in shown


# The loader's place --------------------------------------------------------------------------------------------------

ROWS, BATCH = 12, 2
EPOCH = ROWS // BATCH


def make_loader(workers):
    config = OmegaConf.create({"shuffle": True, "seed": 1, "sampler": None})
    sampler = create_rl_sampler(config, range(ROWS))
    return StatefulDataLoader(list(range(ROWS)), batch_size=BATCH, num_workers=workers, sampler=sampler)


def whole_run(workers, folder):
    """Batches of two epochs, with the loader's state after each."""
    loader, batches = make_loader(workers), []
    for _ in range(2):
        for batch in loader:
            batches.append(batch.tolist())
            torch.save(loader.state_dict(), folder / f"{len(batches)}.pt")
    return batches


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_would_repeat_or_leave_out_rows_is_refused(tmp_path, workers):
    batches = whole_run(workers, tmp_path)
    assert sorted(row for batch in batches[:EPOCH] for row in batch) == list(range(ROWS))
    for step in (1, 4, EPOCH, EPOCH + 1, 2 * EPOCH):
        loader = make_loader(workers)
        if step % EPOCH:  # as verl does
            loader.load_state_dict(torch.load(tmp_path / f"{step}.pt"))
        checkpoints.restore_loader(loader, tmp_path / f"{step}.pt", step)
        if step < 2 * EPOCH:
            rest = batches[step : EPOCH * (step // EPOCH + 1)]
            assert [batch.tolist() for batch in loader] == rest, "no row twice, none left out"
    for step, other, at in ((4, 3, 3), (4, 5, 5), (EPOCH, 5, 5), (EPOCH + 1, EPOCH, EPOCH), (1, EPOCH, EPOCH)):
        said = (
            rf"{other}\.pt is at batch {at} of an epoch, and step {step} ends batch {(step - 1) % EPOCH + 1}: rows wo"
        )
        with pytest.raises(RuntimeError, match=said):
            checkpoints.restore_loader(make_loader(workers), tmp_path / f"{other}.pt", step)
    with pytest.raises(RuntimeError, match=r"there is no .*data\.pt: rows would be repeated or left out; resume from"):
        checkpoints.restore_loader(make_loader(workers), tmp_path / "data.pt", 4)


# A real run ----------------------------------------------------------------------------------------------------------


@nightly_job
def test_a_run_whose_engine_holds_the_other_roles_weights_raises_the_alarm(tmp_path, tiny_problems):
    job = start_job(
        tmp_path,
        *HALF_A_STEP,
        "long_short.schedule=joint",
        # Of the long model's shape: another one would end the push.
        "long_short.short.model.path=recipes/tiny_cpu/models/solo",
        f"data.train_files={tiny_problems}/train.parquet",
        f"data.val_files={tiny_problems}/val.parquet",
        "trainer.total_training_steps=1",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        environment={"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", "LONGSHORT_TEST_WRONG_ENGINE": "1"},
    )
    assert job.process.wait(timeout=1200) == 0, job.log[-6000:]
    assert job.steps()[1]["alarm/engine_out_of_step/long"] == 1
    assert "longshort alarm: step 1: the long engine's token probabilities differ" in job.log
