# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The trainer's numbers against stock verl's and against GRPO worked out by hand, on the same rows.

The rows come from a file (tests/support/replay.py); trainers, engines and Ray are the real ones. All in float32.
"""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from longshort_verl.adapters.rl.check import missing_inputs
from longshort_verl.types import Role
from tests.support.jobs import start_job
from tests.support.replay_rows import MODELS, recipe_weights, write_rows

pytestmark = [pytest.mark.job, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(1800)]

PROMPTS, SAMPLES, STEPS = 4, 4, 3
ESTIMATORS = (
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "rloo",
    "rloo_vectorized",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "opo",
    "gpg",
    # Of tests/support/outside.py.
    "centered",
)
OUTSIDE = {"rethinks": 0.25}
"""Weight of the reward term of tests/support/outside.py."""
COMPARED = ("pg_loss", "grad_norm", "entropy", "ppo_kl", "lr")
TOLERANCE = {"rel": 1e-3, "abs": 1e-6}
"""float32: the same sums in another order, and what two steps of Adam make of that."""
LOSS = (
    f"data.train_batch_size={PROMPTS}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
    f"actor_rollout_ref.rollout.n={SAMPLES}",
    # The second pass over a batch sees what the first one did to the weights.
    "actor_rollout_ref.actor.ppo_epochs=2",
    "actor_rollout_ref.actor.optim.lr=2e-4",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "algorithm.norm_adv_by_std_in_grpo=true",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
)


@dataclass(frozen=True)
class Rows:
    """Where the rows lie and what they are."""

    folder: Path
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
                "VERL_USE_EXTERNAL_MODULES": "tests.support.replay,tests.support.outside",
                "LONGSHORT_TEST_REPLAY": f"{self.folder}/rows.json",
                **environment,
            },
        )
        job.process.wait()
        assert job.process.returncode == 0, job.log[-6000:]
        return job.steps()


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Rows:
    """Sessions, rewarded with a term from outside; in one the short role never spoke, and in one an engine failed."""
    importlib.import_module("tests.support.outside")  # registers its term in this process too

    folder = tmp_path_factory.mktemp("rows")
    sessions = write_rows(
        folder,
        prompts=PROMPTS,
        samples=SAMPLES,
        silent=(2, 3),
        failed=(1, 2),
        weights=recipe_weights() | OUTSIDE,
    )
    return Rows(folder=folder, sessions=sessions)


@pytest.mark.nightly
def test_losses_equal_stock_verls(rows, tmp_path):
    # All sessions speak: stock verl counts a silent row in its group's mean.
    same = Rows(folder=tmp_path, sessions=write_rows(tmp_path, prompts=PROMPTS, samples=SAMPLES))
    ours = same.job(tmp_path / "ours", "long_short.schedule=joint")
    # The short role has the second worker group, which is ours. That of the long role is verl's own; its losses are
    # worked out by hand below.
    stock = same.job(
        tmp_path / "stock_short",
        "trainer.v1.trainer_mode=sync",
        f"actor_rollout_ref.model.path={MODELS / Role.SHORT.value}",
        LONGSHORT_TEST_REPLAY_ROLE=Role.SHORT.value,
    )
    for step in range(1, STEPS + 1):
        for name in COMPARED:
            assert ours[step][f"short/actor/{name}"] == pytest.approx(stock[step][f"actor/{name}"], **TOLERANCE), (
                step,
                name,
            )
    # The weights moved: the later steps compare something.
    assert abs(stock[STEPS]["actor/entropy"] - stock[1]["actor/entropy"]) > 2e-3


@pytest.fixture(scope="module")
def shared(rows, tmp_path_factory):
    """One model, both roles; a step for each estimator. The 29 live rows of 32 are padded to 35."""
    return rows.job(
        tmp_path_factory.mktemp("shared"),
        "long_short.schedule=joint",
        "long_short.policies=shared",
        "long_short.short.model.path=null",
        "actor_rollout_ref.actor.ppo_epochs=1",
        *(f"+long_short.reward.{name}={weight}" for name, weight in OUTSIDE.items()),
        f"trainer.total_training_steps={len(ESTIMATORS)}",
        "trainer.total_epochs=100",
        LONGSHORT_TEST_BATCH_MULTIPLE="7",
        LONGSHORT_TEST_ESTIMATORS=",".join(ESTIMATORS),
    )


def _live_groups(rows):
    """Rows that teach, with their rewards, by prompt and role."""
    groups = defaultdict(list)
    for index, group in rows.sessions.items():
        for session in group:
            for role, reward in session["reward"].items():
                groups[index, role].append((session[role], reward))
    assert sum(map(len, groups.values())) == 2 * PROMPTS * SAMPLES - 3
    return list(groups.values())


def _grpo(rewards):
    """A = (r − mean) / std over the prompt's rows of one role."""
    return (rewards - rewards.mean()) / (rewards.std() + 1e-6)


def _rloo(rewards):
    """A = r − mean of the others."""
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


def _centered(rewards):
    """A = r − mean."""
    return rewards - rewards.mean()


def _advantages(rows, formula):
    return [
        (row, advantage.item())
        for group in _live_groups(rows)
        for (row, _), advantage in zip(group, formula(torch.tensor([reward for _, reward in group])), strict=True)
    ]


@pytest.mark.parametrize(
    ("estimator", "formula"),
    [("grpo", _grpo), ("grpo_vectorized", _grpo), ("rloo", _rloo), ("centered", _centered)],
)
def test_losses_worked_out_by_hand(rows, shared, estimator, formula):
    # On-policy every ratio is 1: the loss is the mean over all tokens of −A, whatever the weights.
    weighed = [(sum(row["mask"]), advantage) for row, advantage in _advantages(rows, formula)]
    value = -sum(tokens * advantage for tokens, advantage in weighed) / sum(tokens for tokens, _ in weighed)
    step = ESTIMATORS.index(estimator) + 1
    assert shared[step]["shared/actor/pg_loss"] == pytest.approx(value, **TOLERANCE)


def test_a_shared_model_learns_from_the_union_of_rows(rows, shared):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODELS / "long", dtype=torch.float32)
    weighed = _advantages(rows, _grpo)
    total = sum(sum(row["mask"]) for row, _ in weighed)
    loss = torch.zeros(())
    for row, advantage in weighed:
        ids = torch.tensor([row["prompt"] + row["response"]])
        logits = model(ids).logits[0, len(row["prompt"]) - 1 : -1]
        log_probs = logits.log_softmax(-1)[torch.arange(len(row["response"])), ids[0, len(row["prompt"]) :]]
        loss = loss - advantage * (log_probs * torch.tensor(row["mask"])).sum() / total
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
    assert shared[1]["shared/actor/grad_norm"] == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_without_a_critic_learns(shared, estimator):
    step = shared[ESTIMATORS.index(estimator) + 1]
    assert math.isfinite(step["shared/actor/pg_loss"])
    assert step["shared/actor/grad_norm"] > 0


def test_every_usable_estimator_of_verl_is_in_the_job(rows):
    usable = {name for name, missing in missing_inputs().items() if not missing}
    assert usable - {"longshort_single"} == set(ESTIMATORS)


def test_a_term_and_a_metric_from_outside_are_logged(rows, shared):
    rethinks = [session["record"]["num_rethinks"] for group in rows.sessions.values() for session in group]
    for role in Role:
        live = [
            session["record"]["num_rethinks"]
            for group in rows.sessions.values()
            for session in group
            if role.value in session["reward"]
        ]
        assert shared[1][f"{role.value}/reward/rethinks"] == pytest.approx(-sum(live) / len(live))
    assert shared[1]["dialogue/most_rethinks"] == max(rethinks) > 0


def test_rows_that_teach_nothing_are_counted(shared):
    assert shared[1]["short/silent_share"] == pytest.approx(1 / (PROMPTS * SAMPLES))
    assert shared[1]["dialogue/stop/engine_error"] == pytest.approx(1 / (PROMPTS * SAMPLES))
