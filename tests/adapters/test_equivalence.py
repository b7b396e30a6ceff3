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
"""The trainer's numbers against stock verl's and against GRPO worked out by hand, on the same rows.

The rows come from a file (tests/replay.py); trainers, engines and Ray are the real ones. All in float32.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass

import pytest
import torch
from omegaconf import OmegaConf

from longshort_verl.config.schema import read_long_short
from longshort_verl.rewards import Outcome, group_rewards
from longshort_verl.types import Role
from tests.configs import ROOT, compose_config
from tests.jobs import start_job

pytestmark = [pytest.mark.job, pytest.mark.slow, pytest.mark.timeout(1800)]

MODELS = ROOT / "recipes" / "tiny_cpu" / "models"
PROMPTS, SAMPLES, STEPS = 4, 4, 3
COMPARED = ("pg_loss", "grad_norm", "entropy", "ppo_kl", "lr")
TOLERANCE = {"rel": 2e-4, "abs": 1e-6}
"""float32; the same sums in another order."""
LOSS = (
    f"data.train_batch_size={PROMPTS}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
    f"actor_rollout_ref.rollout.n={SAMPLES}",
    # The second pass over a batch sees what the first one did to the weights.
    "actor_rollout_ref.actor.ppo_epochs=2",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "algorithm.norm_adv_by_std_in_grpo=true",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
)


@dataclass(frozen=True)
class Rows:
    """Where the rows lie and what they are."""

    folder: object
    sessions: dict[str, list[dict]]

    def job(self, folder, *overrides, **environment):
        """A job on these rows, run to its end; its logged steps."""
        job = start_job(
            folder,
            f"data.train_files={self.folder}/train.parquet",
            f"data.val_files={self.folder}/val.parquet",
            *LOSS,
            *overrides,
            environment={
                "VERL_USE_EXTERNAL_MODULES": "tests.replay",
                "LONGSHORT_TEST_REPLAY": f"{self.folder}/rows.json",
                **environment,
            },
        )
        job.process.wait()
        assert job.process.returncode == 0, job.log[-6000:]
        assert set(job.steps()) == set(range(1, STEPS + 1))
        return job.steps()


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Rows:
    """Sessions of one to three turns a role, some right, some wrong; one in which the short role never spoke."""
    import make_problems
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("rows")
    make_problems.main(folder, num_train=PROMPTS, num_val=4, min_steps=2, max_steps=6, seed=5)
    encode = AutoTokenizer.from_pretrained(MODELS / "long").encode
    rng = random.Random(7)
    weights = _weights()
    sessions = {}
    for index in range(PROMPTS):
        group = [_session(rng, encode, silent=(index, sample) == (2, 3)) for sample in range(SAMPLES)]
        for role in Role:
            outcomes = [_outcome(session, role, index) for session in group]
            live = [i for i, outcome in enumerate(outcomes) if outcome.live]
            for i, reward in zip(live, group_rewards([outcomes[i] for i in live], weights), strict=True):
                group[i].setdefault("reward", {})[role.value] = reward.total
        sessions[str(index)] = group
    (folder / "rows.json").write_text(json.dumps(sessions))
    return Rows(folder=folder, sessions=sessions)


def _weights():
    section = compose_config("rl", ROOT / "recipes" / "tiny_cpu").long_short
    return read_long_short(OmegaConf.to_container(section, resolve=True)).reward


def _session(rng, encode, *, silent):
    digits = "0123456789"

    def working(most):
        return " ".join(f"{rng.choice(digits)}+{rng.choice(digits)}={rng.choice(digits)}" for _ in range(most))

    num_turns = rng.randint(1, 3)
    session = {}
    for role, tags in (("long", ("<think>", "</think>")), ("short", ("<answer>", "</answer>"))):
        prompt, response, mask = encode(f"<|user|>{working(2)}<|im_end|><|assistant|>"), [], []
        for turn in range(num_turns):
            if turn:
                between = encode(f"<|im_end|><|user|>{working(1)}<|im_end|><|assistant|>")
                response += between
                mask += [0] * len(between)
            own = encode(f"{tags[0]}{working(rng.randint(1, 3))}{tags[1]}")
            response += own
            mask += [1] * len(own)
        if silent and role == "short":
            prompt, response, mask = prompt[:1], prompt[:1], [0]
        session[role] = {"prompt": prompt, "response": response, "mask": mask}
    correct = not silent and rng.random() < 0.5
    session["record"] = {
        "answer": "\\boxed{3}" if correct else "\\boxed{4}",
        "gold": "3",
        "stop_reason": "malformed_long" if silent else "answered",
        "detail": "",
        "num_rethinks": num_turns - 1,
        "correct": correct,
    }
    for role in ("long", "short"):
        spoke = sum(session[role]["mask"])
        session["record"] |= {
            f"num_tokens_{role}": spoke,
            f"num_turns_{role}": num_turns if spoke else 0,
            f"num_useful_turns_{role}": num_turns if spoke else 0,
            f"format_{role}": rng.choice([0.5, 1.0]) if spoke else 0.0,
        }
    return session


def _outcome(session, role, group):
    record = session["record"]
    return Outcome(
        group=group,
        role=role,
        accuracy=float(record["correct"]),
        format=record[f"format_{role.value}"],
        num_tokens=record[f"num_tokens_{role.value}"],
    )


def test_losses_equal_stock_verls(rows, tmp_path):
    # Stock verl counts a silent row in its group's mean, so all sessions of that prompt speak here.
    spoken = json.loads(json.dumps(rows.sessions))
    spoken["2"][3] = spoken["2"][2]
    (tmp_path / "rows.json").write_text(json.dumps(spoken))
    for split in ("train", "val"):
        (tmp_path / f"{split}.parquet").symlink_to(rows.folder / f"{split}.parquet")
    # The copied session changes its group; rewards as the two-policy trainer computes them.
    for role in Role:
        outcomes = [_outcome(session, role, 2) for session in spoken["2"]]
        for session, reward in zip(spoken["2"], group_rewards(outcomes, _weights()), strict=True):
            session["reward"] = {**session["reward"], role.value: reward.total}
    (tmp_path / "rows.json").write_text(json.dumps(spoken))
    same = Rows(folder=tmp_path, sessions=spoken)
    ours = same.job(tmp_path / "ours", "long_short.schedule=joint")
    for role in Role:
        stock = same.job(
            tmp_path / f"stock_{role.value}",
            "trainer.v1.trainer_mode=sync",
            f"actor_rollout_ref.model.path={MODELS / role.value}",
            LONGSHORT_TEST_REPLAY_ROLE=role.value,
        )
        for step in range(1, STEPS + 1):
            for name in COMPARED:
                assert ours[step][f"{role.value}/actor/{name}"] == pytest.approx(
                    stock[step][f"actor/{name}"], **TOLERANCE
                ), (role, step, name)
        # The weights moved: the later steps compare something.
        assert abs(stock[STEPS]["actor/entropy"] - stock[1]["actor/entropy"]) > 1e-3


@pytest.mark.parametrize("multiple", [1, 7])
def test_a_shared_model_learns_from_the_union_of_rows(rows, tmp_path, multiple):
    """GRPO by hand: per role and prompt A = (r − mean) / std; the loss is the mean over all tokens of −A.

    With ``multiple`` 7 the 31 live rows are padded to 35, which must change nothing.
    """
    from transformers import AutoModelForCausalLM

    steps = rows.job(
        tmp_path,
        "long_short.schedule=joint",
        "long_short.policies=shared",
        "long_short.short.model.path=null",
        "actor_rollout_ref.actor.ppo_epochs=1",
        LONGSHORT_TEST_BATCH_MULTIPLE=str(multiple),
    )
    groups = defaultdict(list)
    for index, group in rows.sessions.items():
        for session in group:
            for role, reward in session["reward"].items():
                groups[index, role].append((session[role], reward))
    assert sum(map(len, groups.values())) == 2 * PROMPTS * SAMPLES - 1
    model = AutoModelForCausalLM.from_pretrained(MODELS / "long", dtype=torch.float32)
    total = sum(sum(row["mask"]) for group in groups.values() for row, _ in group)
    loss, value = torch.zeros(()), 0.0
    for group in groups.values():
        rewards = torch.tensor([reward for _, reward in group])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for (row, _), advantage in zip(group, advantages, strict=True):
            ids = torch.tensor([row["prompt"] + row["response"]])
            logits = model(ids).logits[0, len(row["prompt"]) - 1 : -1]
            log_probs = logits.log_softmax(-1)[torch.arange(len(row["response"])), ids[0, len(row["prompt"]) :]]
            mask = torch.tensor(row["mask"])
            loss = loss - advantage * (log_probs * mask).sum() / total
            value -= advantage.item() * sum(row["mask"]) / total
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    assert steps[1]["shared/actor/pg_loss"] == pytest.approx(value, **TOLERANCE)
    assert steps[1]["shared/actor/grad_norm"] == pytest.approx(norm, rel=1e-3)
