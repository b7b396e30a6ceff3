# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a run logs of its dialogues, worked by hand."""

from __future__ import annotations

import pytest

from longshort_verl.importance import Importance, MeasuredTurns
from longshort_verl.metrics import (
    MEASURED,
    METRICS,
    AlarmSettings,
    EnginesFailed,
    alarms,
    check_engines,
    dialogue_metrics,
    mean_of,
    role_metrics,
)
from longshort_verl.rewards import Outcome
from longshort_verl.types import Reward, Role, StopReason


def record(acc: float, long: int, short: int, rethinks: int, stop: StopReason) -> dict:
    return {
        "acc": acc,
        "num_tokens_long": long,
        "num_tokens_short": short,
        "num_turns_long": 1 + rethinks,
        "num_turns_short": 1 + rethinks,
        "num_useful_turns_long": 1,
        "num_useful_turns_short": 1 + rethinks,
        "format_long": 1.0,
        "format_short": acc,
        "num_rethinks": rethinks,
        "stop_reason": stop.value,
    }


def test_dialogues():
    metrics = dialogue_metrics(
        [record(1.0, 30, 10, 2, StopReason.ANSWERED), record(0.0, 50, 6, 0, StopReason.MALFORMED_SHORT)]
    )
    assert metrics["dialogue/accuracy"] == 0.5
    assert metrics["dialogue/num_tokens"] == (40 + 56) / 2
    assert (metrics["long/num_tokens"], metrics["short/num_tokens"]) == (40, 8)
    assert (metrics["dialogue/num_rethinks"], metrics["dialogue/rethink_share"]) == (1, 0.5)
    assert (metrics["long/format"], metrics["short/format"], metrics["long/num_turns"]) == (1, 0.5, 2)
    assert (metrics["long/useful_turns"], metrics["short/useful_turns"]) == (2 / 4, 1)
    stops = {reason: metrics[f"dialogue/stop/{reason.value}"] for reason in StopReason}
    assert stops.pop(StopReason.ANSWERED) == stops.pop(StopReason.MALFORMED_SHORT) == 0.5
    assert set(stops.values()) == {0}


def test_measured_turns():
    def turn(score, low, high, gain):
        return Importance(score=score, low=low, high=high, gain=gain, decay=1.0, length_share=0.5)

    turns = (turn(0.25, 0.0, 0.5, 0.5), turn(-0.75, -1.0, 0.5, -0.5))
    measured = [
        MeasuredTurns(num_tokens=8, wait_s=0.5, importances=turns),
        MeasuredTurns(num_tokens=0, wait_s=0.0),
    ]
    records = [
        record(1.0, 30, 10, 2, StopReason.ANSWERED) | {MEASURED: measured[0]},
        record(0.0, 50, 6, 0, StopReason.ANSWERED) | {MEASURED: measured[1]},
        record(0.0, 50, 6, 0, StopReason.ANSWERED),
    ]
    metrics = {name: value for name, value in dialogue_metrics(records).items() if name.startswith("importance/")}
    assert metrics == {
        "importance/measured_turns": 2 / 4,
        "importance/num_tokens": 4,
        "importance/tokens_share": 8 / 96,
        "importance/wait_s": 0.25,
        "importance/turn": -0.25,
        "importance/gain": 0,
        "importance/interval": (0.5 + 1.5) / 2,
    }
    without_turns = dialogue_metrics(records[1:])
    assert without_turns["importance/measured_turns"] == 0
    assert "importance/turn" not in without_turns
    assert not [name for name in dialogue_metrics(records[2:]) if name.startswith("importance/")]


def test_a_metric_from_outside_is_one_entry(monkeypatch):
    monkeypatch.setitem(METRICS, "dialogue/longest", lambda records: max(r["num_tokens_long"] for r in records))
    monkeypatch.setitem(METRICS, "dialogue/wrong", mean_of(lambda r: 1 - r["acc"]))
    monkeypatch.setitem(METRICS, "dialogue/never", lambda records: None)
    records = [record(1.0, 30, 10, 2, StopReason.ANSWERED), record(0.0, 50, 6, 0, StopReason.ANSWERED)]
    metrics = dialogue_metrics(records)
    assert (metrics["dialogue/longest"], metrics["dialogue/wrong"]) == (50, 0.5)
    assert "dialogue/never" not in metrics


def test_roles():
    def outcome(group):
        return Outcome(group=group, role=Role.LONG, accuracy=1, format=1, num_tokens=3)

    rewards = [Reward(total=total, terms={"accuracy": total / 2}) for total in (1.0, 3.0, 2.0, 2.0)]
    metrics = role_metrics(Role.LONG, [outcome("a"), outcome("a"), outcome("b"), outcome("b")], rewards)
    assert metrics == {
        "long/reward": 2.0,
        "long/zero_variance_groups": 0.5,
        "long/reward/accuracy": pytest.approx(1.0),
    }


LIMITS = AlarmSettings(probs_diff=1e-3, zero_variance_groups=0.9, truncated=0.8, context=0.1, useful_turns=0.5)
QUIET = {
    "long/training/rollout_probs_diff_mean": 1e-3,
    "short/zero_variance_groups": 0.9,
    "short/useful_turns": 0.5,
    "dialogue/stop/truncated": 0.5,
    "dialogue/stop/token_budget": 0.3,
    "dialogue/stop/context": 0.1,
}


def test_nothing_is_wrong_at_the_limits():
    assert alarms(QUIET, LIMITS) == {}


@pytest.mark.parametrize(
    ("key", "value", "name", "said"),
    [
        ("long/training/rollout_probs_diff_mean", 0.002, "engine_out_of_step/long", ["0.002", "0.001", "old weights"]),
        ("short/training/rollout_probs_diff_mean", float("nan"), "engine_out_of_step/short", ["nan"]),
        ("shared/training/rollout_probs_diff_mean", 0.5, "engine_out_of_step/shared", ["0.5"]),
        ("short/zero_variance_groups", 0.95, "zero_variance_groups/short", ["95%", "rollout.n"]),
        ("long/useful_turns", 0.25, "lazy_agent/long", ["25%", "peer"]),
        ("dialogue/stop/truncated", 0.6, "truncated", ["90%", "max_turn_tokens"]),
        ("dialogue/stop/context", 0.2, "context", ["20%", "max_response_length", "max_model_len"]),
    ],
)
def test_each_alarm_says_what_it_saw_and_can_be_turned_off(key, value, name, said):
    found = alarms({**QUIET, key: value}, LIMITS)
    assert list(found) == [name]
    assert [text for text in said if text not in found[name]] == [], found[name]
    off = AlarmSettings(probs_diff=None, zero_variance_groups=None, truncated=None, context=None, useful_turns=None)
    assert alarms({**QUIET, key: value}, off) == {}


def test_a_run_whose_engines_are_gone_ends():
    for share in (None, 0.0, 0.49):
        check_engines(share, "step 3")
    for share, printed in ((0.5, "50%"), (1.0, "100%")):
        with pytest.raises(EnginesFailed, match=f"step 3: an engine failed in {printed} of the dialogues"):
            check_engines(share, "step 3")
