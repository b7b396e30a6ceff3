# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A step's rows from the transfer queue to rewards, facts and metrics."""

from __future__ import annotations

import json

import pytest
import torch

from longshort_verl.adapters.rl.rows import score_rows, token_scores
from longshort_verl.adapters.rl.settings import long_short_settings
from longshort_verl.importance import Importance, MeasuredTurns
from longshort_verl.metrics import MEASURED
from tests.support.configs import tiny_config

WEIGHTS = [f"long_short.reward.{name}={weight}" for name, weight in (("accuracy", 1), ("format", 0.5), ("length", 2))]


def row(role, *, problem="p/0", acc=1.0, tokens=(10, 5), stop="answered", measured=None):
    """``extra_fields`` of one row; ``tokens`` are the long and the short role's."""
    record = {
        "role": role,
        "problem": problem,
        "stop_reason": stop,
        "num_rethinks": 0,
        **dict(zip(("num_tokens_long", "num_tokens_short"), tokens, strict=True)),
        **{f"{name}_{one}": 1.0 for name in ("format", "num_turns", "num_useful_turns") for one in ("long", "short")},
    }
    info = {"acc": acc, "num_tokens": sum(tokens), **({MEASURED: measured.to_json()} if measured else {})}
    return {"long_short": record, "reward_extra_info": info, "min_global_steps": 0}


def scored(config, fields, step=1):
    masks = {key: torch.ones(4) for key in fields}
    return score_rows({key: key.split("_")[0] for key in fields}, fields, masks, long_short_settings(config), step)


@pytest.fixture
def config(tiny_models, tiny_problems):
    return lambda *overrides: tiny_config(tiny_models, tiny_problems, *WEIGHTS, *overrides)


def test_rows_are_rewarded_within_their_prompt_and_role(config):
    fields = {
        "u_1_0": row("long", tokens=(10, 5)),
        "u_1_1": row("short", tokens=(10, 5)),
        "u_0_0": row("long", tokens=(20, 5), acc=0.0),
        "u_0_1": row("short", tokens=(20, 5), acc=0.0),
        "v_0_0": row("long", problem="p/1", tokens=(30, 0), stop="malformed_long"),
        "v_0_1": row("short", problem="p/1", tokens=(30, 0), stop="malformed_long"),
    }
    rows = scored(config(), fields)
    # accuracy + 0.5 format + 2 length: the long lengths 10 and 20 give 0.5 and, wrong, -0.5; equal ones give 0.
    assert {key: reward.total for key, reward in rows.rewards.items()} == {
        "u_1_0": 1 + 0.5 + 1,
        "u_1_1": 1 + 0.5,
        "u_0_0": 0.5 - 1,
        "u_0_1": 0.5,
        "v_0_0": 1 + 0.5,
    }
    assert list(rows.outcomes) == ["u_0_0", "u_0_1", "u_1_0", "u_1_1", "v_0_0", "v_0_1"], "by problem and session"
    assert (rows.failed, rows.turn_credits) == (0, {})
    assert rows.metrics["short/silent_share"] == pytest.approx(1 / 3)
    assert rows.metrics["long/reward/length"] == 0
    assert rows.metrics["dialogue/num_tokens"] == (15 + 25 + 30) / 3
    assert token_scores(torch.ones(3), rows.rewards["u_0_1"]).tolist() == [0, 0, 0.5]
    assert token_scores(torch.ones(3), None).tolist() == [0, 0, 0]


def test_a_weight_may_change_and_the_length_term_may_count_the_dialogue(config):
    fields = {
        f"u_{session}_{i}": row(role, tokens=tokens)
        for session, tokens in enumerate(((10, 50), (20, 10)))
        for i, role in enumerate(("long", "short"))
    }
    ramp = "long_short.reward.length={from: 0, to: 2, start: 1, end: 5}"
    # Own lengths 10 and 20 give 0.5 and -0.5, the dialogues' 60 and 30 the reverse. The weight at step 2 is 2 · 1 / 4.
    for step, weight in ((1, 0.0), (2, 0.5), (9, 2.0)):
        for name, terms in (("own", (0.5, -0.5)), ("dialogue", (-0.5, 0.5))):
            rows = scored(config(ramp, f"long_short.length_of={name}"), fields, step)
            expected = [1 + 0.5 + weight * term for term in terms]
            assert [rows.rewards[key].total for key in ("u_0_0", "u_1_0")] == expected, (step, name)
            assert rows.metrics["reward_weight/length"] == weight


def test_failed_dialogues_are_counted_and_not_rewarded(config):
    fields = {f"u_0_{i}": row(role, stop="engine_error") for i, role in enumerate(("long", "short"))}
    rows = scored(config(), fields)
    assert (rows.failed, rows.rewards) == (1, {})


@pytest.mark.parametrize(("credit", "reward", "credits"), [("row", 2.5, None), ("turn", 1.5, [1.0] * 4)])
def test_importance_is_a_term_of_the_row_or_on_the_turns_tokens(config, credit, reward, credits):
    def measured(score):
        importance = Importance(score=score, low=0, high=1, gain=score, decay=1, length_share=1)
        return MeasuredTurns(lengths=(4,), importances=(importance,))

    fields = {
        f"u_{session}_{i}": row(role, measured=measured(score))
        for session, score in enumerate((0.5, -0.5))
        for i, role in enumerate(("long", "short"))
    }
    rows = scored(config("long_short.reward.importance=2", f"long_short.importance.credit={credit}"), fields)
    # accuracy + 0.5 format, and 2 importance: 0.5, in the row or, less the group's mean of 0, on its tokens.
    assert rows.rewards["u_0_0"].total == reward
    assert ("importance" in rows.rewards["u_0_0"].terms) == (credit == "row")
    assert (rows.turn_credits["u_0_0"].tolist() if rows.turn_credits else None) == credits
    assert rows.metrics["importance/measured_turns"] == 1


def test_measured_turns_survive_their_way_as_text():
    measured = MeasuredTurns(lengths=(3, 4), ends_with_long=True, replies=(("a", "b"),), num_tokens=7, wait_s=0.25)
    assert json.loads(measured.to_json())["num_tokens"] == 7
    assert MeasuredTurns.from_json(measured.to_json()) == measured
