# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Eq. 1 of the paper, its selection, its bound and our pruning: by hand, and on simulated chains."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort_verl.chains.plan import Plan, PlanSettings, next_candidates
from longshort_verl.chains.rollouts import carry
from longshort_verl.cold_start.select import Keep, Selection, SelectionSettings, running_max, select
from longshort_verl.importance import First, MetricSettings, anytime, hoeffding, importance
from longshort_verl.types import Chain, ChainOutcome, Counts, Decision, Problem, Thought, Value

PAPER = MetricSettings(metric="paper", penalty=0.25, first="compare", decay=0.0, length_weight=0.0, alpha=0.05)
PRUNED = PlanSettings(
    plan=Plan.PRUNED,
    num_rollouts=8,
    early_stop=False,
    min_rollouts=2,
    max_rollouts=8,
    spread=0.1,
    resolution=0.2,
    prescreen=False,
)
# Five thoughts of 100 tokens. T1 = .9, .7, .6, .2, 0; T2 = .9, .8, .9, .6, .8; T1 · T2 = .81, .56, .54, .12, 0.
LENGTHS = [10, 20, 10, 40, 20]
# Accuracies after 0, 1, …, 5 thoughts, in eighths: thought 2 leaves it as it is, thought 4 lowers it.
RIGHT = [2, 4, 4, 8, 6, 8]
WORKED = [
    math.log2(1 + 0.81 * 0.5),  # 0.4906
    math.log2(1 + 0.56 * 0.5) - 0.25,  # 0.1061: no gain
    math.log2(1 + 0.54 * 1.0),  # 0.6229
    math.log2(1 + 0.12 * 0.75) - 0.25,  # −0.1257
    0.0,  # the last thought has T1 = 0
]


def exact(means) -> list[Value]:
    return [Value(num_right=0, num_rollouts=0, mean=mean, low=mean, high=mean) for mean in means]


def scores(means, lengths, **changes) -> list[float]:
    return [one.score for one in importance(exact(means), lengths, replace(PAPER, **changes))]


def prune(outcomes, lengths, plan=PRUNED, metric=PAPER):
    """Counts and decisions of a chain whose boundaries have these outcomes of rollouts, in order."""
    counts = [Counts()] * len(outcomes)
    missing, decisions = next_candidates(counts, lengths, plan, metric)
    while missing:
        for boundary, number in missing.items():
            total = counts[boundary].num_rollouts + number
            assert number > 0
            assert total <= plan.num_rollouts
            counts[boundary] = Counts(num_right=int(sum(outcomes[boundary][:total])), num_rollouts=total)
        missing, decisions = next_candidates(counts, lengths, plan, metric)
    return counts, decisions


def selected(counts, lengths, metric=PAPER):
    seen = [
        Value(num_right=c.num_right, num_rollouts=c.num_rollouts, mean=c.mean, low=0, high=1)
        if c.num_rollouts
        else None
        for c in counts
    ]
    return running_max([one.score for one in importance(carry(seen), lengths, metric)])


def exhaustive(outcomes, lengths, metric=PAPER):
    return selected([Counts(num_right=int(sum(o)), num_rollouts=len(o)) for o in outcomes], lengths, metric)


# --- Eq. 1 ----------------------------------------------------------------------------------------------------------


def test_a_chain_of_five_thoughts():
    found = scores([right / 8 for right in RIGHT], LENGTHS)
    assert found == pytest.approx(WORKED)
    assert [round(score, 4) for score in found] == [0.4906, 0.1061, 0.6229, -0.1257, 0.0]
    assert running_max(found) == {0, 2}


def test_without_a_penalty():
    found = scores([right / 8 for right in RIGHT], LENGTHS, penalty=0.0)
    assert found == pytest.approx([WORKED[0], WORKED[1] + 0.25, WORKED[2], WORKED[3] + 0.25, 0.0])


def test_the_last_thought_gets_nothing_or_the_penalty():
    assert scores([0.0, 0.5, 1.0], [10, 10])[-1] == 0
    assert scores([0.0, 1.0, 1.0], [10, 10])[-1] == -0.25


def test_thought_1_is_compared_or_never_penalised():
    # T1 · T2 = 0.9 · 0.9; log2(1 + 0.81 · 0.5) = 0.4906.
    assert scores([0.5, 0.5, 1.0], [10, 90])[0] == pytest.approx(0.4906 - 0.25, abs=5e-5)
    assert scores([0.5, 0.5, 1.0], [10, 90], first="never_penalised")[0] == pytest.approx(0.4906, abs=5e-5)


def test_one_thought_as_long_as_its_chain():
    assert scores([0.0, 1.0], [7]) == [0.0]
    assert scores([1.0, 1.0], [7]) == [-0.25]
    assert scores([1.0, 1.0], [7], first="never_penalised") == [0.0]
    # T2 is almost 0 for a thought that is almost the whole chain: (1/100) · (1/100).
    assert scores([0.0, 1.0, 1.0], [99, 1])[0] == pytest.approx(math.log2(1 + 1e-4))


def test_equal_importance_is_not_more():
    assert running_max([0.5, 0.5, 0.6, 0.6, 0.1]) == {0, 2}
    assert running_max([-0.25]) == {0}
    assert running_max([]) == frozenset()


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=30),
    means=st.lists(st.floats(0, 1), min_size=31, max_size=31),
)
def test_range(lengths, means):
    found = scores(means[: len(lengths) + 1], lengths)
    assert all(-0.25 <= score <= 1 for score in found)
    assert found[-1] in (0.0, -0.25)


# --- the bound and the interval -------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=2, max_size=12),
    truth=st.lists(st.floats(0, 1), min_size=13, max_size=13),
    noise=st.lists(st.floats(-1, 1), min_size=13, max_size=13),
    epsilon=st.floats(0.001, 0.3),
)
def test_the_papers_bound_holds_where_the_penalty_is_switched_alike(lengths, truth, noise, epsilon):
    number = len(lengths) + 1
    truth = truth[:number]
    estimate = [min(1.0, max(0.0, p + epsilon * shift)) for p, shift in zip(truth, noise, strict=False)]
    true, found = scores(truth, lengths), scores(estimate, lengths)
    for i in range(len(lengths)):
        if (truth[i + 1] <= truth[i]) == (estimate[i + 1] <= estimate[i]):
            assert abs(true[i] - found[i]) <= epsilon / math.log(2) + 1e-12


def test_where_the_papers_bound_fails_ours_holds():
    # 100 rollouts each. The truth rises from 0.50 to 0.51, the estimate falls from 0.50 to 0.49: |p̂ − p| = 0.02.
    truth = scores([0.50, 0.51, 1.0], [10, 90])[0]
    values = [hoeffding(k, 100, PAPER.alpha / 3) for k in (50, 49, 100)]
    (found, _) = importance(values, [10, 90], PAPER)
    # log2(1 + .81 · .51) = 0.4989 and log2(1 + .81 · .49) − .25 = 0.2322.
    assert (round(truth, 4), round(found.score, 4)) == (0.4989, 0.2322)
    assert abs(found.score - truth) > 0.02 / math.log(2)
    assert abs(found.score - truth) <= 0.02 / math.log(2) + 0.25
    assert found.low <= truth <= found.high


def test_the_interval_is_wider_by_the_penalty_where_the_sign_is_open():
    def value(mean, half):
        return Value(num_right=0, num_rollouts=9, mean=mean, low=mean - half, high=mean + half)

    # T1 · T2 = 0.81. Open: the intervals overlap. Decided: they do not.
    (open_sign, _) = importance([value(0.5, 0.1), value(0.6, 0.1), value(1, 0)], [10, 90], PAPER)
    assert open_sign.low == pytest.approx(math.log2(1 + 0.81 * 0.5) - 0.25)
    assert open_sign.high == pytest.approx(math.log2(1 + 0.81 * 0.7))
    (rises, _) = importance([value(0.2, 0.1), value(0.6, 0.1), value(1, 0)], [10, 90], PAPER)
    assert (rises.low, rises.high) == pytest.approx((math.log2(1 + 0.81 * 0.5), math.log2(1 + 0.81 * 0.7)))
    (falls, _) = importance([value(0.9, 0.1), value(0.6, 0.1), value(1, 0)], [10, 90], PAPER)
    assert falls.low == pytest.approx(math.log2(1 + 0.81 * 0.5) - 0.25)
    assert falls.high == pytest.approx(math.log2(1 + 0.81 * 0.7) - 0.25)


@pytest.mark.parametrize("estimate", [hoeffding, anytime])
def test_the_intervals_of_a_chain_hold_together(estimate):
    rng = np.random.default_rng(2)
    truth = [0.1, 0.4, 0.4, 0.38, 0.8, 0.8, 0.9]
    lengths = [30, 5, 200, 40, 10, 80]
    true, misses = scores(truth, lengths), 0
    for _ in range(1000):
        values = [estimate(int(rng.binomial(16, p)), 16, PAPER.alpha / 7) for p in truth]
        found = importance(values, lengths, PAPER)
        misses += not all(one.low <= score <= one.high for one, score in zip(found, true, strict=True))
    assert misses / 1000 <= PAPER.alpha


# --- pruning --------------------------------------------------------------------------------------------------------


def test_the_worked_chain_is_pruned():
    outcomes = [[1] * right + [0] * (8 - right) for right in RIGHT]
    counts, decisions = prune(outcomes, LENGTHS)
    # log2(1.56) = 0.64 and log2(1.54) = 0.62 exceed 0.49, the importance of thought 1. log2(1.12) = 0.16 does not
    # exceed 0.62. After thought 2 only the accuracy is needed; 0.36 is less than 0.49 with and without a penalty.
    assert decisions == [Decision.ROLLOUTS, Decision.ROLLOUTS, Decision.ROLLOUTS, Decision.BOUND, Decision.BOUND]
    assert [count.num_rollouts for count in counts] == [8, 8, 8, 8, 0, 0]
    assert selected(counts, LENGTHS) == exhaustive(outcomes, LENGTHS) == {0, 2}


def test_the_thought_before_a_candidate_is_rolled_out_for_its_penalty():
    # Four thoughts of 10, 60, 10, 20 tokens: T1 · T2 = .81, .12, .18, 0. p_1 = 0: thought 1 has −0.25, so every bound
    # exceeds the maximum; and with p_2 = 1/8, log2(1.015) = 0.02 leaves thought 3.
    outcomes = [[0] * 8, [0] * 8, [1] + [0] * 7, [1] * 8, [0] * 8]
    counts, decisions = prune(outcomes, [10, 60, 10, 20])
    assert decisions == [Decision.ROLLOUTS] * 3 + [Decision.BOUND]
    # p_1 = 0 can only be penalised, so the rollouts after no thought are not needed.
    assert [count.num_rollouts for count in counts] == [0, 8, 8, 8, 0]
    assert selected(counts, [10, 60, 10, 20]) == {0, 1, 2}


def test_a_hopeless_thought_stops_early():
    # 100 equal thoughts: T1 · T2 = .99 · .99 for thought 1 and .98 · .99 for thought 2. After thought 1 all 8 rollouts
    # are right: no bound exceeds its importance.
    stop = replace(PRUNED, early_stop=True)
    counts, decisions = prune([[0] * 8, *[[1] * 8] * 100], [1] * 100, stop)
    assert decisions == [Decision.ROLLOUTS] + [Decision.BOUND] * 99
    # After it 7 of 8 are right: thought 2 needs more than 7 / 8 · .99 / .98 = 0.88, so that 1 wrong rollout decides;
    # rollouts come in pairs.
    counts, decisions = prune([[0] * 8, [1] * 7 + [0], [0] * 8, *[[1] * 8] * 98], [1] * 100, stop)
    assert decisions[:2] == [Decision.ROLLOUTS, Decision.INTERVAL]
    assert counts[2].num_rollouts == 2


def random_chain(rng):
    """Lengths, and outcomes of 16 rollouts at each boundary, of a chain whose accuracy drifts and jumps."""
    number = int(rng.integers(1, 16))
    lengths = rng.geometric(1 / 200, number).tolist()
    steps = rng.normal(0, 0.08, number + 1) + rng.choice([0, 0.3, -0.3], number + 1, p=[0.9, 0.06, 0.04])
    truth = np.clip(rng.uniform(0, 1) + np.cumsum(steps), 0, 1)
    return lengths, (rng.random((number + 1, 16)) < truth[:, None]).astype(int).tolist()


def test_ten_thousand_chains_are_selected_as_without_pruning(capsys):
    rng = np.random.default_rng(7)
    plan = replace(PRUNED, num_rollouts=16)
    made = total = 0
    decided = dict.fromkeys(Decision, 0)
    for number in range(10_000):
        lengths, outcomes = random_chain(rng)
        metric = replace(PAPER, first=First.COMPARE if number % 2 else First.NEVER_PENALISED)
        counts, decisions = prune(outcomes, lengths, plan, metric)
        assert len(decisions) == len(lengths)
        assert selected(counts, lengths, metric) == exhaustive(outcomes, lengths, metric)
        made += sum(count.num_rollouts for count in counts)
        total += 16 * len(outcomes)
        for decision in decisions:
            decided[decision] += 1
    assert decided[Decision.INTERVAL] == 0
    assert made < 0.6 * total
    with capsys.disabled():
        print(f"\npruned: {1 - made / total:.1%} of the rollouts of 10,000 chains; thoughts decided by {decided}")


def test_early_stopping_rarely_changes_a_selection():
    rng = np.random.default_rng(8)
    plan = replace(PRUNED, num_rollouts=16, early_stop=True)
    same = made = full = 0
    for _ in range(400):
        lengths, outcomes = random_chain(rng)
        counts, _ = prune(outcomes, lengths, plan)
        same += selected(counts, lengths) == exhaustive(outcomes, lengths)
        made += sum(count.num_rollouts for count in counts)
        full += sum(c.num_rollouts for c in prune(outcomes, lengths, replace(plan, early_stop=False))[0])
    assert same >= 380
    assert made < full


def test_a_pruned_chain_is_selected_by_the_running_maximum_alone():
    settings = SelectionSettings(
        keep=Keep.IMPORTANT, by=Selection.RUNNING_MAX, share=0.9, threshold=0.1, quantile=0.9, answers=True, seed=0
    )
    chain = Chain(
        key="k",
        outcome=ChainOutcome.SCORED,
        problem=Problem(prompt="1+1", answer="2", source="test", index=0),
        thoughts=tuple(Thought(text=f"{i} ", kind="work", num_steps=1) for i in range(5)),
        lengths=tuple(LENGTHS),
        values=tuple(exact(right / 8 for right in RIGHT)),
        scores=tuple(importance(exact([right / 8 for right in RIGHT]), LENGTHS, PAPER)),
        decisions=(Decision.ROLLOUTS,) * 5,
    )
    assert select(chain, settings, 0.0) == {0, 2}
    with pytest.raises(ValueError, match=r"select.by is 'threshold', but chain k was scored with plan.plan=pruned"):
        select(chain, replace(settings, by=Selection.THRESHOLD), 0.0)
