# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Every claim about the metric, and its numbers worked by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import longshort_verl.importance as importance_module
from longshort_verl.importance import (
    METRICS,
    Credit,
    ImportanceRewardSettings,
    MeasuredTurns,
    MetricSettings,
    anytime,
    hoeffding,
    importance,
    interpolate,
    is_measured,
    pool,
    turn_importances,
    value_alpha,
)
from longshort_verl.rewards import turn_advantages
from longshort_verl.types import Counts, Value

SETTINGS = MetricSettings(metric="gain_decay", penalty=0.25, first="compare", decay=1.0, length_weight=0.5, alpha=0.1)
probabilities = st.floats(0, 1)
chains = st.lists(st.tuples(st.integers(1, 5000), probabilities), min_size=1, max_size=30)
constants = st.builds(
    MetricSettings,
    metric=st.just("gain_decay"),
    penalty=st.just(0.25),
    first=st.just("compare"),
    decay=st.floats(0, 20),
    length_weight=st.floats(0, 5),
    alpha=st.floats(0.001, 0.5),
)


def exact(*means: float) -> list[Value]:
    return [Value(num_right=0, num_rollouts=0, mean=mean, low=mean, high=mean) for mean in means]


def scores(means, lengths, settings) -> list[float]:
    return [thought.score for thought in importance(exact(*means), lengths, settings)]


def test_by_hand():
    # 10 tokens: 4, 1, 5. δ = 1, e^-0.4, e^-0.5; cost = 0.5 · ℓ / 10.
    expected = [0.6 - 0.2, math.exp(-0.4) * -0.1 - 0.05, math.exp(-0.5) * 0.3 - 0.25]
    assert scores([0.2, 0.8, 0.7, 1.0], [4, 1, 5], SETTINGS) == pytest.approx(expected)
    variants = {
        "no_decay": [0.4, -0.15, 0.05],
        "gain": [0.6, -0.1, 0.3],
        "gain_per_token": [0.15, -0.1, 0.06],
    }
    for metric, values in variants.items():
        settings = replace(SETTINGS, metric=metric)
        assert scores([0.2, 0.8, 0.7, 1.0], [4, 1, 5], settings) == pytest.approx(values), metric


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown metric 'mine'; known metrics are gain, gain_decay, gain_per_"):
        replace(SETTINGS, metric="mine")


def test_a_metric_from_outside_the_package(tmp_path, monkeypatch):
    (tmp_path / "my_metric.py").write_text(
        "from longshort_verl.importance import METRICS\n"
        "from longshort_verl.types import Importance\n"
        "def value_after(values, lengths, settings):\n"
        "    rest = {'gain': 0, 'decay': 1, 'length_share': 0}\n"
        "    return [Importance(score=v.mean, low=v.low, high=v.high, **rest) for v in values[1:]]\n"
        "METRICS['value_after'] = value_after\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "json,my_metric")
    try:
        settings = replace(SETTINGS, metric="value_after")
        assert scores([0.2, 0.8, 0.7], [4, 1], settings) == [0.8, 0.7]
    finally:
        METRICS.pop("value_after", None)


@given(chain=chains, start=probabilities, settings=constants)
def test_range(chain, start, settings):
    lengths, means = zip(*chain, strict=True)
    for score in scores([start, *means], lengths, settings):
        assert -1 - settings.length_weight <= score <= 1


@given(chain=chains, start=probabilities, settings=constants)
def test_without_decay_the_sum_telescopes(chain, start, settings):
    lengths, means = zip(*chain, strict=True)
    total = sum(scores([start, *means], lengths, replace(settings, decay=0.0)))
    assert total == pytest.approx(means[-1] - start - settings.length_weight, abs=1e-9)


@given(chain=chains, start=probabilities, settings=constants, more=probabilities)
def test_a_larger_gain_never_lowers_the_score(chain, start, settings, more):
    lengths, means = zip(*chain, strict=True)
    better = max(more, means[-1])
    assert scores([start, *means[:-1], better], lengths, settings)[-1] >= scores([start, *means], lengths, settings)[-1]


@given(chain=chains, start=probabilities, settings=constants, place=st.integers(0, 29), taken=st.integers(1, 4999))
def test_a_longer_thought_never_scores_more(chain, start, settings, place, taken):
    # Tokens move from the next thought into this one, so that the chain stays as long as it is.
    lengths, means = map(list, zip(*chain, strict=True))
    place %= len(lengths)
    if place == len(lengths) - 1 or lengths[place + 1] <= taken:
        return
    longer = [*lengths]
    longer[place] += taken
    longer[place + 1] -= taken
    assert scores([start, *means], longer, settings)[place] <= scores([start, *means], lengths, settings)[place]


@given(chain=chains, start=probabilities, settings=constants)
def test_decay_favours_a_short_context(chain, start, settings):
    lengths, means = zip(*chain, strict=True)
    decays = [thought.decay for thought in importance(exact(start, *means), lengths, settings)]
    assert decays[0] == 1
    assert all(0 < later <= earlier for earlier, later in itertools.pairwise(decays))
    assert decays[-1] >= math.exp(-settings.decay)


@pytest.mark.parametrize("estimate", [hoeffding, anytime])
def test_the_interval_covers_whole_traces(estimate):
    # 10,000 traces of 8 thoughts; all 8 intervals must hold at once.
    rng = np.random.default_rng(1)
    truth = [0.1, 0.1, 0.3, 0.35, 0.8, 0.75, 0.9, 0.99, 1.0]
    lengths = [30, 5, 200, 40, 10, 80, 1, 60]
    rollouts = [4, 8, 8, 16, 32, 8, 8, 4, 8]
    expected = scores(truth, lengths, SETTINGS)
    known, missed = {}, 0
    alpha = value_alpha(SETTINGS, len(lengths))
    for counts in rng.binomial(rollouts, truth, size=(10_000, len(truth))).tolist():
        values = []
        for pair in zip(counts, rollouts, strict=True):
            known.setdefault(pair, estimate(*pair, alpha))
            values.append(known[pair])
        found = importance(values, lengths, SETTINGS)
        missed += any(
            not thought.low - 1e-12 <= score <= thought.high + 1e-12
            for thought, score in zip(found, expected, strict=True)
        )
    assert missed / 10_000 <= SETTINGS.alpha


def test_the_bound_of_the_paper_form():
    # |M̂ − M| ≤ δ_i (ε(N_i) + ε(N_{i−1})), ε(N) = sqrt(ln(2 (n + 1) / α) / 2N): two values of 50 rollouts, n = 1.
    alpha = value_alpha(SETTINGS, 1)
    (thought,) = importance([hoeffding(25, 50, alpha), hoeffding(25, 50, alpha)], [7], SETTINGS)
    epsilon = math.sqrt(math.log(4 / 0.1) / 100)
    assert (thought.low, thought.high) == pytest.approx((-0.5 - 2 * epsilon, -0.5 + 2 * epsilon))


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_an_anytime_interval_survives_peeking(p):
    rng = np.random.default_rng(2)
    bounds = {}
    missed = fixed_missed = 0
    for walk in np.cumsum(rng.random((1000, 40)) < p, axis=1).tolist():
        peeks = list(zip(walk, range(1, 41), strict=True))
        for peek in peeks:
            bounds.setdefault(peek, (anytime(*peek, 0.1), hoeffding(*peek, 0.1)))
        missed += any(not bounds[peek][0].low <= p <= bounds[peek][0].high for peek in peeks)
        fixed_missed += any(not bounds[peek][1].low <= p <= bounds[peek][1].high for peek in peeks)
    assert missed / 1000 <= 0.1
    if p == 0.5:
        assert fixed_missed / 1000 > 0.1, "an interval for a fixed number does not: peeking makes a difference here"


@given(num=st.integers(1, 300), share=probabilities, alpha=st.floats(0.001, 0.5))
def test_intervals_hold_their_mean_and_lie_in_the_unit_interval(num, share, alpha):
    right = round(share * num)
    for estimate in (hoeffding, anytime):
        value = estimate(right, num, alpha)
        assert 0 <= value.low <= value.mean <= value.high <= 1
        mirrored = estimate(num - right, num, alpha)
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - value.high, 1 - value.low), abs=1e-9)


def test_the_anytime_interval_by_hand():
    # No right one of N: (N + 1)(1 − p)^N > α up to p = 1 − (α / (N + 1))^(1/N).
    assert anytime(0, 4, 0.1).high == pytest.approx(1 - (0.1 / 5) ** (1 / 4))
    assert anytime(4, 4, 0.1).low == pytest.approx((0.1 / 5) ** (1 / 4))
    assert anytime(0, 4, 0.1).low == 0


def test_unvisited_values_lie_on_a_line_over_tokens():
    first, last = hoeffding(1, 4, 0.1), hoeffding(4, 4, 0.1)
    values = interpolate([first, None, None, last, last], [10, 20, 70, 5])
    assert [value.mean for value in values] == pytest.approx([0.25, 0.325, 0.475, 1, 1])
    assert [value.num_rollouts for value in values] == [4, 0, 0, 4, 4]
    for value in values[1:3]:
        assert (value.low, value.high) == (first.low, last.high)


def test_unvisited_values_follow_the_likelihood_where_it_changes():
    ends = [anytime(0, 8, 0.05), None, None, None, anytime(8, 8, 0.05)]
    means = [value.mean for value in interpolate(ends, [10] * 4, [0.1, 0.1, 0.3, 0.5, 0.5])]
    assert means == pytest.approx([0, 0, 0.5, 1, 1])
    # Beyond its ends the likelihood says no more than that the value is at one of them.
    means = [value.mean for value in interpolate(ends, [10] * 4, [0.1, 0.0, 0.9, 0.5, 0.5])]
    assert means == pytest.approx([0, 0, 1, 1, 1])
    # A likelihood that does not change says nothing; tokens do.
    means = [value.mean for value in interpolate(ends, [10] * 4, [0.5] * 5)]
    assert means == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_what_does_not_fit_is_refused():
    value = hoeffding(1, 2, 0.1)
    with pytest.raises(ValueError, match="3 values for 1 thoughts"):
        importance([value] * 3, [1], SETTINGS)
    with pytest.raises(ValueError, match=r"\[3, 0\]; each thought has at least 1 token"):
        importance([value] * 3, [3, 0], SETTINGS)
    with pytest.raises(ValueError, match="first and the last"):
        interpolate([value, None], [1])
    with pytest.raises(ValueError, match="3 right of 2 rollouts"):
        anytime(3, 2, 0.1)
    with pytest.raises(ValueError, match="0 right of 0 rollouts"):
        hoeffding(0, 0, 0.1)
    for name, bad in (("decay", -1.0), ("length_weight", math.nan), ("alpha", 0.0), ("alpha", 1.0)):
        with pytest.raises(ValueError, match=name):
            replace(SETTINGS, **{name: bad})


def test_pooled_estimates_are_nearer_where_the_likelihood_tells():
    rng = np.random.default_rng(3)
    raw_errors, errors = [], []
    for _ in range(200):
        truth = rng.uniform(size=6)
        # Right a little more often than the gold answer in its own spelling.
        likelihoods = list(np.maximum(0.0, truth - rng.uniform(0.0, 0.05, size=6)))
        values = [anytime(int(rng.binomial(8, p)), 8, 0.01) for p in truth]
        pooled = pool(values, likelihoods)
        assert [(v.num_right, v.num_rollouts, v.low, v.high) for v in pooled] == [
            (v.num_right, v.num_rollouts, v.low, v.high) for v in values
        ]
        assert all(v.low <= v.mean <= v.high for v in pooled)
        raw_errors += [abs(v.mean - p) for v, p in zip(values, truth, strict=True)]
        errors += [abs(v.mean - p) for v, p in zip(pooled, truth, strict=True)]
    assert sum(errors) < 0.6 * sum(raw_errors)


def test_a_likelihood_that_is_wrong_is_not_borrowed_from():
    # Rollouts are right in a spelling that is not the gold answer's.
    values = [anytime(1, 8, 0.01), anytime(7, 8, 0.01), None, anytime(8, 8, 0.01)]
    assert pool(values, [0.01, 0.02, 0.02, 0.02]) == values


def test_pooling_by_hand(monkeypatch):
    monkeypatch.setattr(importance_module, "_CONCENTRATIONS", (4.0,))
    # Prior Beta(2, 2): B(5, 3) / B(2, 2) = 6 / 105 against B(4, 2) = 1 / 20 under the uniform one.
    (value,) = pool([anytime(3, 4, 0.01)], [0.5])
    assert value.mean == pytest.approx((3 + 2) / (4 + 4))


def test_a_pooled_estimate_stays_in_its_interval():
    # All but one bear the likelihood out; what that one borrows ends where its own rollouts contradict.
    values = [anytime(16, 32, 0.01)] * 60 + [anytime(4, 32, 0.01)]
    odd = pool(values, [0.5] * 61)[-1]
    assert 4 / 32 < odd.mean == odd.high < 0.45


def test_likelihoods_of_0_and_1_are_borrowed_from_like_others():
    values = [anytime(8, 8, 0.01), anytime(0, 8, 0.01)] * 5 + [anytime(6, 8, 0.01)] * 4 + [anytime(5, 8, 0.01)]
    pooled = pool(values, [1.0, 0.0] * 5 + [0.75] * 5)
    assert pooled[-1].mean == pytest.approx(0.75, abs=0.02)
    assert pooled[0].mean == pytest.approx(1, abs=0.002)
    assert pooled[1].mean == pytest.approx(0, abs=0.002)


# Turns of a dialogue -----------------------------------------------------------------------------------------------

TURN_METRIC = MetricSettings(
    metric="gain_decay", penalty=0.25, first="compare", decay=0.5, length_weight=0.1, alpha=0.05
)
COUNTS = st.integers(0, 4).map(lambda right: Counts(num_right=right, num_rollouts=4))


def turn_settings(**changes):
    given = {
        "group_share": 1.0,
        "num_rollouts": 2,
        "max_tokens": 8,
        "max_dialogue_tokens": 64,
        "forcing_text": "<answer>",
        "stop": (),
        "credit": Credit.ROW,
        "metric": TURN_METRIC,
    }
    return ImportanceRewardSettings(**{**given, **changes})


def test_two_turns():
    counts = [
        Counts(num_right=0, num_rollouts=4),
        Counts(num_right=1, num_rollouts=4),
        Counts(num_right=4, num_rollouts=4),
    ]
    first, second = turn_importances(counts, [30, 10], ends_with_long=False, settings=TURN_METRIC)
    # 0.25 - 0.1 * 30/40; then exp(-0.5 * 30/40) * 0.75 - 0.1 * 10/40
    assert first.score == pytest.approx(0.175)
    assert second.score == pytest.approx(math.exp(-0.375) * 0.75 - 0.025)
    assert first.low <= first.score <= first.high


def test_two_turns_by_the_papers_metric():
    counts = [Counts(num_right=right, num_rollouts=4) for right in (0, 1, 4)]
    settings = replace(TURN_METRIC, metric="paper")
    first, last = turn_importances(counts, [30, 10], ends_with_long=False, settings=settings)
    # T1 = T2 = (40 - 30) / 40 and P = 1/4, which is a gain; the last turn has T1 = 0.
    assert first.score == pytest.approx(math.log2(1 + 0.25**3))
    assert last.score == 0.0
    flat = [counts[1]] * 3
    assert turn_importances(flat, [30, 10], ends_with_long=False, settings=settings)[1].score == -0.25


def test_a_turn_that_breaks_the_protocol_loses_what_was_known():
    counts = [Counts(num_right=0, num_rollouts=2), Counts(num_right=2, num_rollouts=2)]
    first, second = turn_importances(counts, [10, 10], ends_with_long=True, settings=TURN_METRIC)
    assert (first.gain, second.gain) == (1.0, -1.0)
    # A single broken turn is worth what the short role knew by itself.
    (only,) = turn_importances([Counts(num_right=1, num_rollouts=2)], [10], ends_with_long=True, settings=TURN_METRIC)
    assert only.gain == -0.5


def test_turns_past_what_was_measured_have_none():
    counts = [Counts(num_right=0, num_rollouts=2), Counts(num_right=1, num_rollouts=2)]
    (only,) = turn_importances(counts, [10, 20, 30], ends_with_long=True, settings=TURN_METRIC)
    # Its length counts against all of the dialogue's long tokens, as if the others had been measured.
    assert only.score == pytest.approx(0.5 - 0.1 * 10 / 60)
    assert turn_importances(counts[:1], [10, 20], ends_with_long=False, settings=TURN_METRIC) == []
    assert turn_importances([], [10], ends_with_long=True, settings=TURN_METRIC) == []
    assert turn_importances([], [], ends_with_long=False, settings=TURN_METRIC) == []


@given(st.lists(st.tuples(COUNTS, st.integers(1, 1000)), min_size=1, max_size=6), COUNTS, st.booleans())
def test_the_sum_is_bounded(turns, before, broke):
    counts, lengths = [before, *(count for count, _ in turns)], [length for _, length in turns]
    found = turn_importances(counts, lengths, ends_with_long=broke, settings=TURN_METRIC)
    assert len(found) == len(turns)
    assert all(-1.1 <= one.score <= 1 and one.low <= one.score <= one.high for one in found)
    flat = MetricSettings(metric="no_decay", penalty=0.25, first="compare", decay=0.0, length_weight=0.1, alpha=0.05)
    total = sum(one.score for one in turn_importances(counts, lengths, ends_with_long=broke, settings=flat))
    assert total == pytest.approx(counts[-1].mean - before.mean - 0.1)


def test_a_share_of_groups_is_measured_and_always_the_same_ones():
    names = [f"7/3/{i}" for i in range(1000)]
    chosen = [name for name in names if is_measured(name, 0.3)]
    assert 250 < len(chosen) < 350
    assert chosen == [name for name in names if is_measured(name, 0.3)]
    assert all(is_measured(name, 1.0) for name in names)


def test_boundaries_fit_in_the_budget():
    assert turn_settings().max_boundaries == 4
    assert turn_settings(max_dialogue_tokens=63).max_boundaries == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_share": 0.0}, "group_share\n  Input should be greater than 0"),
        ({"group_share": 1.5}, "group_share\n  Input should be less than or equal to 1"),
        ({"num_rollouts": 0}, "num_rollouts"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_dialogue_tokens": 31}, "max_dialogue_tokens is 31.*at least 32"),
        ({"forcing_text": ""}, "forcing_text"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        turn_settings(**changes)


def test_measured_turns_cross_as_text_and_keep_every_digit():
    rollouts = MeasuredTurns(
        lengths=(30, 10),
        ends_with_long=False,
        replies=(("3", "3"), ("7", "3"), ("7", "7")),
        num_tokens=6,
        wait_s=0.1,
    )
    assert MeasuredTurns.from_json(rollouts.to_json()) == rollouts
    graded = rollouts.graded({"7": True, "3": False}, TURN_METRIC)
    counts = [Counts(num_right=right, num_rollouts=2) for right in (0, 1, 2)]
    expected = turn_importances(counts, [30, 10], ends_with_long=False, settings=TURN_METRIC)
    assert (list(graded.importances), graded.replies) == (expected, ())
    assert MeasuredTurns.from_json(graded.to_json()) == graded
    assert graded.score == expected[0].score + expected[1].score
    assert MeasuredTurns().graded({}, TURN_METRIC).score == 0


def test_turns_are_measured_against_their_group():
    scores = {"a0": [1.0, 0.0], "a1": [0.5], "a2": [], "b0": [3.0]}
    groups = {"a0": "a", "a1": "a", "a2": "a", "b0": "b"}
    assert turn_advantages(scores, groups) == {"a0": [0.5, -0.5], "a1": [0.0], "a2": [], "b0": [0.0]}
