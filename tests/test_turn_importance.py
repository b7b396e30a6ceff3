# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What turns of a dialogue are worth, from counts of rollouts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort_verl.chains.plan import Counts
from longshort_verl.importance import Metric, MetricSettings
from longshort_verl.rewards import turn_advantages
from longshort_verl.turn_importance import Credit, ImportanceRewardSettings, is_measured, turn_importances

METRIC = MetricSettings(metric=Metric.LONG_SHORT, decay=0.5, length_weight=0.1, alpha=0.05)
COUNTS = st.integers(0, 4).map(lambda right: Counts(num_right=right, num_rollouts=4))


def settings(**changes):
    given = {
        "group_share": 1.0,
        "num_rollouts": 2,
        "max_tokens": 8,
        "max_dialogue_tokens": 64,
        "forcing_text": "<answer>",
        "stop": (),
        "credit": Credit.ROW,
        "metric": METRIC,
    }
    return ImportanceRewardSettings(**{**given, **changes})


def test_two_turns():
    counts = [
        Counts(num_right=0, num_rollouts=4),
        Counts(num_right=1, num_rollouts=4),
        Counts(num_right=4, num_rollouts=4),
    ]
    first, second = turn_importances(counts, [30, 10], broke=False, settings=METRIC)
    # 0.25 - 0.1 * 30/40; then exp(-0.5 * 30/40) * 0.75 - 0.1 * 10/40
    assert first.score == pytest.approx(0.175)
    assert second.score == pytest.approx(math.exp(-0.375) * 0.75 - 0.025)
    assert first.low <= first.score <= first.high


def test_a_turn_that_breaks_the_protocol_loses_what_was_known():
    counts = [Counts(num_right=0, num_rollouts=2), Counts(num_right=2, num_rollouts=2)]
    first, second = turn_importances(counts, [10, 10], broke=True, settings=METRIC)
    assert (first.gain, second.gain) == (1.0, -1.0)
    # A single broken turn is worth what the short role knew by itself.
    (only,) = turn_importances([Counts(num_right=1, num_rollouts=2)], [10], broke=True, settings=METRIC)
    assert only.gain == -0.5


def test_turns_past_what_was_measured_have_none():
    counts = [Counts(num_right=0, num_rollouts=2), Counts(num_right=1, num_rollouts=2)]
    (only,) = turn_importances(counts, [10, 20, 30], broke=True, settings=METRIC)
    # Its length counts against all of the dialogue's long tokens, as if the others had been measured.
    assert only.score == pytest.approx(0.5 - 0.1 * 10 / 60)
    assert turn_importances(counts[:1], [10, 20], broke=False, settings=METRIC) == []
    assert turn_importances([], [10], broke=True, settings=METRIC) == []
    assert turn_importances([], [], broke=False, settings=METRIC) == []


@given(st.lists(st.tuples(COUNTS, st.integers(1, 1000)), min_size=1, max_size=6), COUNTS, st.booleans())
def test_the_sum_is_bounded(turns, before, broke):
    counts, lengths = [before, *(count for count, _ in turns)], [length for _, length in turns]
    found = turn_importances(counts, lengths, broke=broke, settings=METRIC)
    assert len(found) == len(turns)
    assert all(-1.1 <= one.score <= 1 and one.low <= one.score <= one.high for one in found)
    flat = MetricSettings(metric=Metric.NO_DECAY, decay=0.0, length_weight=0.1, alpha=0.05)
    total = sum(one.score for one in turn_importances(counts, lengths, broke=broke, settings=flat))
    assert total == pytest.approx(counts[-1].mean - before.mean - 0.1)


def test_a_share_of_groups_is_measured_and_always_the_same_ones():
    names = [f"7/3/{i}" for i in range(1000)]
    chosen = [name for name in names if is_measured(name, 0.3)]
    assert 250 < len(chosen) < 350
    assert chosen == [name for name in names if is_measured(name, 0.3)]
    assert all(is_measured(name, 1.0) for name in names)


def test_boundaries_fit_in_the_budget():
    assert settings().max_boundaries == 4
    assert settings(max_dialogue_tokens=63).max_boundaries == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"group_share": 0.0}, "group_share is 0.0"),
        ({"group_share": 1.5}, "group_share is 1.5"),
        ({"num_rollouts": 0}, "num_rollouts is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_dialogue_tokens": 31}, "max_dialogue_tokens is 31.*at least 32"),
        ({"forcing_text": ""}, "forcing_text is empty"),
    ],
)
def test_impossible_settings_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        settings(**changes)


def test_turns_are_measured_against_their_group():
    scores = {"a0": [1.0, 0.0], "a1": [0.5], "a2": [], "b0": [3.0]}
    groups = {"a0": "a", "a1": "a", "a2": "a", "b0": "b"}
    assert turn_advantages(scores, groups) == {"a0": [0.5, -0.5], "a1": [0.0], "a2": [], "b0": [0.0]}
