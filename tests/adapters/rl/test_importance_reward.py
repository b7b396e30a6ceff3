# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The importance of turns on its way from a dialogue's rollouts to the tokens that learn."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
import torch

from longshort_verl.adapters.rl.agent_loop import ROW
from longshort_verl.adapters.rl.check import long_short_settings
from longshort_verl.adapters.rl.reward_manager import LongShortRewardManager
from longshort_verl.adapters.rl.trainer import LongShortTrainer
from tests.support.configs import tiny_config

RIGHT, WRONG, CUT = "<answer>\\boxed{2}</answer>", "<answer>\\boxed{3}</answer>", "<answer>\\boxed{2"


def record(rollouts, lengths, *, ends_with_long=False):
    """Of a dialogue, as the agent loop writes it."""
    roles = {f"{name}_{role}": 1 for name in ("format", "num_turns", "num_tokens") for role in ("long", "short")}
    measured = {"rollouts": json.dumps(rollouts), "long_turn_tokens": json.dumps(lengths)}
    return {
        **roles,
        **measured,
        "ends_with_long": ends_with_long,
        "answer": "\\boxed{2}",
        "gold": "2",
        "stop_reason": "answered",
        "detail": "",
        "num_rethinks": 0,
    }


@pytest.fixture
def judged(tiny_models, tiny_problems):
    def run(found):
        config = tiny_config(tiny_models, tiny_problems, "long_short.reward.importance=1")

        async def score():
            manager = LongShortRewardManager.__new__(LongShortRewardManager)
            manager.settings, manager.loop = long_short_settings(config), asyncio.get_running_loop()
            row = SimpleNamespace(non_tensor_batch={"tool_extra_fields": {ROW: found}})
            return (await manager.run_single([row]))["reward_extra_info"]

        return asyncio.run(score())

    return run


def test_rollouts_are_graded_into_the_worth_of_each_turn(judged):
    info = judged(record([[WRONG, WRONG], [WRONG, RIGHT], [RIGHT, RIGHT]], [10, 30]))
    turns = json.loads(info["importance_turns"])
    assert [gain for *_, gain in turns] == [0.5, 0.5]
    assert info["importance"] == pytest.approx(sum(score for score, *_ in turns))
    assert all(low <= score <= high for score, low, high, _ in turns)


def test_an_answer_that_is_cut_off_is_wrong(judged):
    (turn,) = json.loads(judged(record([[RIGHT, RIGHT], [CUT, CUT]], [10]))["importance_turns"])
    assert turn[-1] == -1


def test_a_turn_after_which_nobody_spoke_is_worth_what_it_lost(judged):
    (turn,) = json.loads(judged(record([[RIGHT, WRONG]], [10], ends_with_long=True))["importance_turns"])
    assert turn[-1] == -0.5


def test_a_dialogue_that_was_not_measured_has_no_importance(judged):
    info = judged(record([], [10]))
    assert (info["importance"], info["importance_turns"]) == (0, "[]")


def test_each_turns_tokens_get_their_own_credit(tiny_models, tiny_problems):
    trainer = LongShortTrainer.__new__(LongShortTrainer)
    config = tiny_config(
        tiny_models, tiny_problems, "long_short.reward.importance=2", "long_short.importance.credit=turn"
    )
    trainer.settings = long_short_settings(config)
    scores = {"u_0_0": [0.5, -0.1], "u_1_0": [0.2], "u_2_0": []}
    fields = {
        key: {"reward_extra_info": {"importance_turns": json.dumps([(one, 0, 0, 0) for one in of_row])}}
        for key, of_row in scores.items()
    }
    masks = {
        "u_0_0": torch.tensor([1, 1, 0, 0, 1, 0, 1]),
        # Its second turn was not measured.
        "u_1_0": torch.tensor([1, 0, 1, 1]),
        "u_2_0": torch.tensor([1, 1]),
    }
    found = trainer._credit_turns(dict.fromkeys(scores, "u"), fields, masks)
    # The group's mean is 0.2; the weight is 2.
    assert found["u_0_0"].tolist() == pytest.approx([0.6, 0.6, 0, 0, -0.6, 0, 0], abs=1e-6)
    assert found["u_1_0"].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert found["u_2_0"].tolist() == [0, 0]
