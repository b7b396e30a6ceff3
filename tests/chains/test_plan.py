# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from longshort_verl.chains.plan import Plan, PlanSettings, next_rollouts
from longshort_verl.types import Counts


def plan(**changes):
    settings = dict(
        plan=Plan.ADAPTIVE,
        num_rollouts=8,
        early_stop=False,
        min_rollouts=4,
        max_rollouts=16,
        spread=0.15,
        resolution=0.2,
        prescreen=False,
    )
    return PlanSettings(**{**settings, **changes})


def play(values, settings, likelihoods=None, seed=0):
    """Rollouts of a trace whose true values are known, until the plan is content."""
    rng = np.random.default_rng(seed)
    counts = [Counts()] * len(values)
    places = list(range(len(values)))
    while needed := next_rollouts(counts, places, settings, likelihoods):
        assert list(needed) == sorted(needed, reverse=True), "the longest prefix first"
        for boundary, number in needed.items():
            counts[boundary] = Counts(
                num_right=counts[boundary].num_right + int(rng.binomial(number, values[boundary])),
                num_rollouts=counts[boundary].num_rollouts + number,
            )
    return [count.num_rollouts for count in counts]


def test_fixed_makes_the_same_number_everywhere():
    assert play([0.3] * 7, plan(plan=Plan.FIXED)) == [8] * 7


def test_a_flat_trace_is_seen_at_its_ends_alone():
    assert play([0.0] * 21, plan()) == [4] + [0] * 19 + [4]


def test_a_jump_is_found_by_halving():
    made = play([0.0] * 13 + [1.0] * 8, plan())
    assert made[12]
    assert made[13]
    assert sum(number > 0 for number in made) <= 2 + 6


def test_a_jump_of_the_likelihood_is_looked_at_first():
    truth = [0.0] * 13 + [1.0] * 8
    made = play(truth, plan(prescreen=True), likelihoods=[0.01 + 0.9 * value for value in truth])
    assert [i for i, number in enumerate(made) if number] == [0, 12, 13, 20]


def test_a_way_down_is_read_off_the_likelihood():
    truth = [0.0] * 5 + [1.0] * 3 + [0.0] * 13
    made = play(truth, plan(prescreen=True), likelihoods=truth)
    # Between a visited 1 and a visited 0.
    assert any(made[5:8])
    assert sum(number > 0 for number in made) < 6


def test_where_the_likelihood_leaves_the_range_of_its_ends_the_value_is_looked_at():
    truth = [0.0] * 5 + [0.6] * 4 + [1.0] * 3 + [0.6] * 9
    made = play(truth, plan(prescreen=True), likelihoods=truth)
    assert any(made[9:12])
    assert sum(number > 0 for number in made) < 8


def test_a_likelihood_that_does_not_tell_is_not_believed():
    made = play([0.0] * 13 + [1.0] * 8, plan(prescreen=True), likelihoods=[0.5] * 21)
    assert made[12]
    assert made[13]


def test_uncertain_values_get_more_rollouts_up_to_the_limit():
    made = play([0.5] * 2, plan(spread=0.05))
    assert made == [16, 16]
    assert play([0.0, 0.0], plan(spread=0.15)) == [4, 4]


def test_a_run_that_goes_on_under_a_lower_limit_ends():
    seen = [Counts(num_right=8, num_rollouts=16), Counts(num_right=16, num_rollouts=32)]
    assert next_rollouts(seen, [0, 1], plan(spread=0.01, max_rollouts=8), None) == {}


def test_one_thought():
    assert play([0.0, 1.0], plan()) == [4, 4]


@pytest.mark.parametrize("prescreen", [False, True])
def test_it_ends_for_any_values(prescreen):
    rng = np.random.default_rng(1)
    for seed in range(200):
        values = rng.uniform(size=rng.integers(2, 40))
        likelihoods = rng.uniform(size=len(values)) if prescreen else None
        made = play(values, plan(prescreen=prescreen), likelihoods, seed)
        assert made[0]
        assert made[-1]
        assert max(made) <= 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_rollouts": 0}, "num_rollouts"),
        ({"min_rollouts": 0}, "min_rollouts"),
        ({"max_rollouts": 3}, "max_rollouts is 3; set it to at least plan.min_rollouts, 4"),
        ({"spread": 0.0}, "spread"),
        ({"resolution": 1.0}, "resolution"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)
