# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The importance of turns on its way from a dialogue's rollouts to the tokens that learn."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch

from longshort_verl.adapters.rl.agent_loop import ROW
from longshort_verl.adapters.rl.reward_manager import LongShortRewardManager
from longshort_verl.adapters.rl.rows import credit_turns
from longshort_verl.adapters.rl.settings import long_short_settings
from longshort_verl.importance import MeasuredTurns
from longshort_verl.metrics import MEASURED
from tests.support.configs import tiny_config

RIGHT, WRONG, CUT = "<answer>\\boxed{2}</answer>", "<answer>\\boxed{3}</answer>", "<answer>\\boxed{2"


def record(rollouts, lengths, *, ends_with_long=False):
    """Of a dialogue, as the agent loop writes it."""
    roles = {f"{name}_{role}": 1 for name in ("format", "num_turns", "num_tokens") for role in ("long", "short")}
    replies = tuple(map(tuple, rollouts))
    measured = MeasuredTurns(lengths=tuple(lengths), ends_with_long=ends_with_long, replies=replies)
    return {
        **roles,
        MEASURED: measured.to_json(),
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
            info = (await manager.run_single([row]))["reward_extra_info"]
            return MeasuredTurns.from_json(info[MEASURED])

        return asyncio.run(score())

    return run


def test_rollouts_are_graded_into_the_worth_of_each_turn(judged):
    measured = judged(record([[WRONG, WRONG], [WRONG, RIGHT], [RIGHT, RIGHT]], [10, 30]))
    assert [turn.gain for turn in measured.importances] == [0.5, 0.5]
    assert measured.score == pytest.approx(sum(turn.score for turn in measured.importances))
    assert all(turn.low <= turn.score <= turn.high for turn in measured.importances)


def test_an_answer_that_is_cut_off_is_wrong(judged):
    (turn,) = judged(record([[RIGHT, RIGHT], [CUT, CUT]], [10])).importances
    assert turn.gain == -1


def test_a_turn_after_which_nobody_spoke_is_worth_what_it_lost(judged):
    (turn,) = judged(record([[RIGHT, WRONG]], [10], ends_with_long=True)).importances
    assert turn.gain == -0.5


def test_a_dialogue_that_was_not_measured_has_no_importance(judged):
    measured = judged(record([], [10]))
    assert (measured.score, measured.importances) == (0, ())


def test_each_turns_tokens_get_their_own_credit():
    scores = {"u_0_0": [0.5, -0.1], "u_1_0": [0.2], "u_2_0": []}
    masks = {
        "u_0_0": torch.tensor([1, 1, 0, 0, 1, 0, 1]),
        # Its second turn was not measured.
        "u_1_0": torch.tensor([1, 0, 1, 1]),
        "u_2_0": torch.tensor([1, 1]),
    }
    credits = credit_turns(scores, dict.fromkeys(scores, "u"), masks, weight=2)
    # The group's mean is 0.2; the weight is 2.
    assert credits["u_0_0"].tolist() == pytest.approx([0.6, 0.6, 0, 0, -0.6, 0, 0], abs=1e-6)
    assert credits["u_1_0"].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert credits["u_2_0"].tolist() == [0, 0]
