# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reward terms and their sum, with numbers worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from longshort_verl.rewards import (
    TERMS,
    Outcome,
    RewardWeights,
    Term,
    final_weights,
    group_rewards,
    length_terms,
    weighted_sum,
    weights_at,
)
from longshort_verl.types import Role

WEIGHTS = {"accuracy": 1.0, "format": 0.5, "length": 2.0, "importance": 0.0}

read_weights = TypeAdapter(RewardWeights).validate_python


def test_length_terms():
    # lengths 10, 20, 30: (l - 10) / 20 = 0, 0.5, 1, so 0.5 - that is 0.5, 0, -0.5
    assert length_terms([10, 20, 30], [True, True, True]) == [0.5, 0.0, -0.5]
    # wrong answers are never rewarded for brevity
    assert length_terms([10, 20, 30], [False, False, False]) == [0.0, 0.0, -0.5]
    assert length_terms([7, 7], [True, False]) == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), min_size=1))
def test_length_terms_stay_in_their_range(rows):
    terms = length_terms([tokens for tokens, _ in rows], [right for _, right in rows])
    for (tokens, right), term in zip(rows, terms, strict=True):
        assert -0.5 <= term <= 0.5
        assert right or term <= 0
        assert all(term >= other for (t, r), other in zip(rows, terms, strict=True) if r == right and t > tokens)


def test_weighted_sum():
    reward = weighted_sum({"accuracy": 1.0, "format": 0.5, "length": -0.25}, WEIGHTS)
    # 1 * 1 + 0.5 * 0.5 - 2 * 0.25 = 0.75
    assert reward.total == 0.75
    assert reward.terms == {"accuracy": 1.0, "format": 0.5, "length": -0.25}


@pytest.mark.parametrize("terms", [{"accuracy": 1.0, "format": 1.0}, {"accuracy": math.nan, "format": 1, "length": 0}])
def test_a_missing_or_broken_term_stops_the_run(terms):
    with pytest.raises(ValueError, match="reward term"):
        weighted_sum(terms, WEIGHTS)


def test_a_term_of_weight_zero_may_be_missing():
    assert weighted_sum({"accuracy": 1.0}, {"accuracy": 2, "format": 0, "length": 0, "importance": 0}).total == 2


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_bad_weights_are_refused(value):
    with pytest.raises(ValueError, match="format"):
        read_weights({"accuracy": 1, "format": value, "length": 0, "importance": 0})


def test_all_weights_zero_are_refused():
    with pytest.raises(ValueError, match="all weights"):
        read_weights({"accuracy": 0, "format": 0, "length": 0, "importance": 0})


def test_a_weight_may_change_with_the_step():
    # µ of the paper: 0 at first, then raised. (step - 10) / 30 between steps 10 and 40: 0, 1/3, 0.5, 1.
    weights = read_weights({"accuracy": 1, "length": {"from": 0, "to": 2, "start": 10, "end": 40}})
    assert [weights_at(weights, step)["length"] for step in (1, 10, 25, 40, 1000)] == [0, 0, 1, 2, 2]
    assert weights_at(weights, 20)["length"] == pytest.approx(2 / 3)
    assert weights_at(weights, 25) == {"accuracy": 1, "format": 0, "length": 1, "importance": 0}
    assert final_weights(weights)["length"] == 2
    # Down, and at once after step 3.
    weights = read_weights({"accuracy": {"from": 1, "to": 0, "start": 3, "end": 4}})
    assert [weights_at(weights, step)["accuracy"] for step in (1, 3, 4, 5)] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from": -1}, r"from\n.*greater than or equal to 0"),
        ({"to": math.inf}, r"to\n.*finite"),
        ({"end": 10}, r"end is 10 and start 10; set end to a later step"),
        ({"slope": 1}, r"slope\n.*Unexpected"),
        ({"from": 0, "to": 0}, "all weights are 0"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read_weights({"length": {"from": 0, "to": 1, "start": 10, "end": 40} | change})


@pytest.mark.parametrize("missing", ["from", "to", "start", "end"])
def test_a_ramp_lacks_nothing(missing):
    ramp = {"from": 0, "to": 1, "start": 10, "end": 40}
    del ramp[missing]
    with pytest.raises(ValueError, match=missing):
        read_weights({"length": ramp})


def test_the_length_term_counts_what_it_is_told_to_count():
    rows = [
        Outcome(group="a", role=Role.LONG, accuracy=1.0, format=1.0, num_tokens=own, length=length)
        for own, length in ((10, 90), (20, 30), (30, 30))
    ]
    # lengths 90, 30, 30: (l - 30) / 60 = 1, 0, 0, so -0.5, 0.5, 0.5; by own tokens it would be 0.5, 0, -0.5
    assert [reward.terms["length"] for reward in group_rewards(rows, {"length": 1})] == [-0.5, 0.5, 0.5]


def test_an_unknown_term_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"long_short\.reward\.elegance is no reward term; known terms are acc"):
        read_weights({"accuracy": 1, "elegance": 1})


def test_a_term_from_outside_is_one_entry_and_a_weight(monkeypatch):
    monkeypatch.setitem(TERMS, "rethinks", Term(of_row=lambda row: -row.record["num_rethinks"]))
    monkeypatch.setitem(TERMS, "rank", Term(of_group=lambda rows: range(len(rows))))
    rows = [
        Outcome(group=group, role=Role.LONG, accuracy=1.0, format=1.0, num_tokens=9, record={"num_rethinks": rethinks})
        for group, rethinks in (("a", 2), ("b", 0), ("a", 1))
    ]
    weights = read_weights({"accuracy": 1, "rethinks": 0.25, "rank": 10})
    assert weights == {"accuracy": 1, "format": 0, "length": 0, "importance": 0, "rethinks": 0.25, "rank": 10}
    rewards = group_rewards(rows, weights)
    # 1 - 0.25 * rethinks + 10 * place in the group
    assert [reward.total for reward in rewards] == [0.5, 1.0, 10.75]
    assert rewards[2].terms["rank"] == 1


@pytest.mark.parametrize("functions", [{}, {"of_row": float, "of_group": list}])
def test_a_term_has_one_function(functions):
    with pytest.raises(ValueError, match="exactly one function"):
        Term(**functions)


def test_only_a_role_that_spoke_in_a_dialogue_that_no_engine_broke_is_live():
    row = Outcome(group="a", role=Role.LONG, accuracy=0.0, format=0.0, num_tokens=3)
    assert row.live
    assert not dataclasses.replace(row, num_tokens=0).live
    assert not dataclasses.replace(row, failed=True).live


def test_groups_and_roles_do_not_mix():
    def row(group, role, tokens, accuracy=1.0):
        return Outcome(group=group, role=role, accuracy=accuracy, format=1.0, num_tokens=tokens)

    rows = [row("a", Role.LONG, 10), row("b", Role.LONG, 99), row("a", Role.SHORT, 5), row("a", Role.LONG, 20)]
    rewards = group_rewards(rows, {"accuracy": 1, "format": 0, "length": 1, "importance": 0})
    # group a, long: lengths 10 and 20 give 0.5 and -0.5; the other two are alone in theirs: 0
    assert [reward.total for reward in rewards] == [1.5, 1.0, 1.0, 0.5]


def test_importance_is_a_term_where_it_has_a_weight():
    rows = [
        Outcome(group="a", role=Role.LONG, accuracy=1.0, format=1.0, num_tokens=9, importance=value)
        for value in (0.5, -0.25)
    ]
    rewards = group_rewards(rows, {"accuracy": 1, "format": 0, "length": 0, "importance": 2})
    assert [reward.total for reward in rewards] == [2.0, 0.5]
    assert rewards[0].terms["importance"] == 0.5
    assert "importance" not in group_rewards(rows, {"accuracy": 1, "format": 0, "length": 0, "importance": 0})[0].terms
