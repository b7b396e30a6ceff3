# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Rollouts of chains with known values: a generator that is right with a set probability after each prefix."""

import asyncio
import json
import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from longshort_verl.chains.plan import Plan, PlanSettings
from longshort_verl.chains.rollouts import Elicitation, RolloutSettings, score_chain
from longshort_verl.cold_start.select import running_max
from longshort_verl.files.journal import Journal
from longshort_verl.importance import MetricSettings, anytime, pool
from longshort_verl.types import (
    Chain,
    ChainOutcome,
    Cost,
    FinishReason,
    Generation,
    Likelihood,
    Problem,
    Thought,
)
from tests.support.scripted import ScriptedGenerator

TRUTH = (0.1, 0.1, 0.1, 0.9, 0.9, 1.0)
ROLLOUTS = RolloutSettings(
    elicitation=Elicitation.FORCED,
    end_of_thinking="</think>",
    forcing_text="</think>\\boxed{",
    free_prompt="{problem}",
    free_prefix="{thoughts}",
    free_answer="",
    max_tokens=8,
    temperature=1.0,
    top_p=1.0,
    stop=("}",),
    seed=1,
    restart_rollouts=0,
    max_answer_tokens=16,
)
PLAN = PlanSettings(
    plan=Plan.ADAPTIVE,
    num_rollouts=8,
    early_stop=False,
    min_rollouts=4,
    max_rollouts=16,
    spread=0.15,
    resolution=0.2,
    prescreen=True,
)
METRIC = MetricSettings(metric="gain_decay", penalty=0.25, first="compare", decay=0.5, length_weight=0.1, alpha=0.05)


def chain(truth=TRUTH, key="t"):
    thoughts = tuple(Thought(text=f"[{i}]", kind="work", num_steps=1) for i in range(len(truth) - 1))
    return Chain(
        key=key,
        outcome=ChainOutcome.CHUNKED,
        problem=Problem(prompt="1+1", answer="2", source="test", index=0),
        thoughts=thoughts,
        lengths=tuple(10 + i for i in range(len(thoughts))),
    )


class Simulated:
    """Right after i thoughts with probability ``truth[i]``, by the request's own seed."""

    def __init__(self, truth=TRUTH, fail_after=math.inf, silent_at=None):
        self.truth, self.fail_after, self.silent_at = truth, fail_after, silent_at
        self.asked = Counter()
        self.from_nothing = Counter()
        self.told = 0

    def boundary(self, messages):
        return messages[-1].content.count("[") if messages[-1].role == "assistant" else 0

    async def generate(self, messages, sampling):
        await asyncio.sleep(0)
        if sum(self.asked.values()) >= self.fail_after:
            return Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")
        i = self.boundary(messages)
        self.asked[i, sampling.seed] += 1
        if messages[-1].role == "user":
            self.from_nothing[sampling.max_tokens] += 1
        right = random.Random(sampling.seed).random() < self.truth[i]
        text = "2}" if right else "3}"
        if "boxed" not in messages[-1].content:
            text = "\\boxed{" + text
        return Generation(
            text=text, finish=FinishReason.STOP, num_prompt_tokens=20 + i, num_tokens=2, num_cached_tokens=16
        )

    async def likelihood(self, messages, text):
        await asyncio.sleep(0)
        self.told += 1
        assert text == "2"
        i = self.boundary(messages)
        if i == self.silent_at:
            return Likelihood(log_prob=0, num_prompt_tokens=0, num_cached_tokens=0, num_tokens=0, error="mute")
        await asyncio.sleep(0.01)
        return Likelihood(
            log_prob=math.log(self.truth[i]), num_prompt_tokens=20 + i, num_cached_tokens=16, num_tokens=1
        )


def is_right(text, gold):
    return text.rsplit("{", 1)[-1] == gold + "}"


def score(generator, journal, rollouts=ROLLOUTS, plan=PLAN, **kwargs):
    return asyncio.run(
        score_chain(
            kwargs.pop("chain", chain()), generator, is_right, journal, rollouts=rollouts, plan=plan, metric=METRIC
        )
    )


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.jsonl", {}) as opened:
        yield opened


@pytest.mark.parametrize("elicitation", Elicitation)
@pytest.mark.parametrize("prescreen", [False, True])
def test_the_thought_that_matters_comes_first(journal, elicitation, prescreen):
    scored = score(
        Simulated(),
        journal,
        replace(ROLLOUTS, elicitation=elicitation),
        replace(PLAN, prescreen=prescreen, spread=0.1, max_rollouts=64),
    )
    assert scored.outcome is ChainOutcome.SCORED
    best = max(range(5), key=lambda i: scored.scores[i].score)
    assert best == 2
    assert scored.scores[2].gain == pytest.approx(0.8, abs=0.35)
    assert len(scored.likelihoods) == (6 if prescreen else 0)
    for value, truth in zip(scored.values, TRUTH, strict=True):
        assert value.low <= truth <= value.high


def test_what_is_not_visited_follows_the_likelihood(journal):
    scored = score(Simulated(), journal)
    assert scored.values[1].num_rollouts == 0
    assert scored.values[1].mean == pytest.approx(scored.values[0].mean, abs=1e-9)


def test_estimates_borrow_from_the_likelihood(journal):
    truth = (0.3, 0.5, 0.3, 0.7, 0.3, 0.7)
    plan = replace(PLAN, spread=0.01, max_rollouts=8, resolution=0.01)
    scored = score(Simulated(truth), journal, plan=plan, chain=chain(truth))
    alpha = METRIC.alpha / 6
    seen = [anytime(v.num_right, v.num_rollouts, alpha) if v.num_rollouts else None for v in scored.values]
    pooled = pool(seen, truth)
    assert pooled != seen
    made = [(v, p) for v, p in zip(scored.values, pooled, strict=True) if p]
    assert [replace(v, response_tokens=None) for v, _ in made] == [p for _, p in made]
    # Every reply of the generator has two tokens.
    assert {v.response_tokens for v, _ in made} == {2.0}


class Listening:
    """Answers 2 in a box, and keeps the messages."""

    def __init__(self):
        self.heard = []

    async def generate(self, messages, sampling):
        self.heard.append([(message.role, message.content) for message in messages])
        return Generation(text="so \\boxed{2}", finish=FinishReason.STOP, num_prompt_tokens=9, num_tokens=5)


def free_chain(thoughts):
    return replace(
        chain((0.0,) * (len(thoughts) + 1)),
        thoughts=tuple(Thought(text=text, kind="work", num_steps=1) for text in thoughts),
        problem=Problem(prompt="1+1 in {thoughts}?", answer="2", source="test", index=0),
    )


def test_a_free_rollout_reads_problem_and_thoughts_in_the_users_message(journal):
    rollouts = replace(
        ROLLOUTS, elicitation=Elicitation.FREE, free_prompt="{problem}\n\n{thoughts}", free_prefix="", max_tokens=512
    )
    generator, plan = Listening(), replace(PLAN, plan=Plan.FIXED, num_rollouts=1, prescreen=False)
    scored = score(generator, journal, rollouts, plan, chain=free_chain(["<think>\na {problem}\n\n", "b"]))
    # Neither text is read as a template.
    assert sorted(generator.heard) == [
        [("user", "1+1 in {thoughts}?")],
        [("user", "1+1 in {thoughts}?\n\na {problem}")],
        [("user", "1+1 in {thoughts}?\n\na {problem}\n\nb")],
    ]
    assert [value.mean for value in scored.values] == [1, 1, 1]
    assert [value.response_tokens for value in scored.values] == [5, 5, 5]


@pytest.mark.parametrize("prefix", ["", "So: {thoughts}"])
def test_a_free_rollout_without_a_box_is_asked_for_its_answer(journal, prefix):
    rollouts = replace(
        ROLLOUTS,
        elicitation=Elicitation.FREE,
        free_prompt="{problem} {thoughts}",
        free_prefix=prefix,
        free_answer="\nThe answer is \\boxed{",
        max_tokens=512,
        max_answer_tokens=7,
    )
    # The whole chain comes first.
    generator = ScriptedGenerator(["It is \\boxed{3}", "It is two.", "2}."], count_tokens=len)
    plan = replace(PLAN, plan=Plan.FIXED, num_rollouts=1, prescreen=False)
    scored = score(generator, journal, rollouts, plan, chain=free_chain(["a"]))
    assert [value.mean for value in scored.values] == [1, 0]
    assert [value.response_tokens for value in scored.values] == [12, 15]
    messages, sampling = generator.requests[-1]
    assert (messages[-1].role, sampling.max_tokens) == ("assistant", 7)
    assert messages[-1].content == f"{prefix.format(thoughts='')}It is two.\nThe answer is \\boxed{{"
    assert [request[1].max_tokens for request in generator.requests] == [512, 512, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"free_prompt": "{thoughts}"}, "free_prompt is '{thoughts}', without {problem}"),
        ({"free_prefix": ""}, "all rollouts of a chain would be the same"),
    ],
)
def test_a_free_rollout_without_its_texts_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ROLLOUTS, elicitation=Elicitation.FREE, **changes)


def test_a_pruned_chain_is_selected_as_the_same_chain_with_all_rollouts(tmp_path):
    metric = replace(METRIC, metric="paper")
    shares = []
    for seed in range(20):
        rng = random.Random(seed)
        truth = tuple(rng.choice((0.2, 0.5, 0.6, 0.9)) for _ in range(9))
        found = {}
        for plan in (Plan.FIXED, Plan.PRUNED):
            with Journal(tmp_path / f"{seed}-{plan.value}.jsonl", {}) as journal:
                found[plan] = asyncio.run(
                    score_chain(
                        chain(truth, key=str(seed)),
                        Simulated(truth),
                        is_right,
                        journal,
                        rollouts=ROLLOUTS,
                        plan=replace(PLAN, plan=plan, prescreen=False),
                        metric=metric,
                    )
                )
        every, pruned = found[Plan.FIXED], found[Plan.PRUNED]
        chosen = [running_max([one.score for one in scored.scores]) for scored in (every, pruned)]
        assert chosen[0] == chosen[1]
        assert len(pruned.decisions) == 8
        assert not every.decisions
        for thought in chosen[0]:
            assert pruned.scores[thought].score == every.scores[thought].score
        shares.append(pruned.cost.num_rollouts / every.cost.num_rollouts)
    assert max(shares) <= 1
    assert sum(shares) / 20 < 0.8


def test_a_failed_likelihood_ends_the_chain_after_the_others_are_in_the_journal(journal):
    generator = Simulated(silent_at=5)
    scored = score(generator, journal)
    assert scored.outcome is ChainOutcome.ENGINE_ERROR
    assert scored.detail == "likelihood after thought 5: mute"
    assert len(journal) == 5
    assert not generator.asked


def test_costs_add_up(journal):
    generator, spent = Simulated(), []
    scored = asyncio.run(
        score_chain(
            chain(),
            generator,
            is_right,
            journal,
            rollouts=ROLLOUTS,
            plan=PLAN,
            metric=METRIC,
            on_cost=spent.append,
        )
    )
    assert sum(spent, Cost()) == scored.cost
    assert scored.cost.num_rollouts == sum(value.num_rollouts for value in scored.values) == len(generator.asked)
    assert scored.cost.num_tokens == 2 * scored.cost.num_rollouts + 6
    assert 0 < scored.cost.hit_rate < 1


def test_no_two_rollouts_share_a_seed(journal):
    generator = Simulated()
    score(generator, journal, plan=replace(PLAN, plan=Plan.FIXED))
    assert len(generator.asked) == 6 * 8
    assert len({seed for _, seed in generator.asked}) == 6 * 8


@pytest.mark.parametrize("fail_after", range(0, 30, 3))
def test_an_interrupted_run_resumes_and_ends_the_same(tmp_path, fail_after):
    with Journal(tmp_path / "whole.jsonl", {}) as journal:
        whole = score(Simulated(), journal)
    with Journal(tmp_path / "parts.jsonl", {}) as journal:
        broken = Simulated(fail_after=fail_after)
        first = score(broken, journal)
    if fail_after < whole.cost.num_rollouts:
        assert first.outcome is ChainOutcome.ENGINE_ERROR
        assert "gone" in first.detail
    with Journal(tmp_path / "parts.jsonl", {}) as journal:
        again = Simulated()
        parts = score(again, journal)
    assert parts == whole
    assert not broken.asked.keys() & again.asked.keys(), "no rollout twice"
    rows = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()[1:]]
    assert sum("/rollout/" in row["key"] for row in rows) == whole.cost.num_rollouts


def test_a_finished_chain_makes_no_request(tmp_path):
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        first = score(Simulated(), journal)
    idle = Simulated()
    with Journal(tmp_path / "j.jsonl", {}) as journal:
        assert score(idle, journal) == first
    assert not idle.asked
    assert not idle.told


def test_the_restart_control_spends_the_tokens_of_the_prefix(journal):
    generator = Simulated()
    scored = score(generator, journal, replace(ROLLOUTS, restart_rollouts=3), replace(PLAN, plan=Plan.FIXED))
    assert set(scored.restarts) == {1, 2, 3, 4, 5}
    assert all(counts.num_rollouts == 3 for counts in scored.restarts.values())
    # From nothing it is right in a tenth of the cases, however many tokens it has.
    assert sum(counts.num_right for counts in scored.restarts.values()) < 8
    assert scored.cost.num_rollouts == 6 * 8 + 5 * 3
    assert generator.from_nothing == {10: 3, 21: 3, 33: 3, 46: 3, 60: 3}


def test_the_restart_control_is_made_where_rollouts_are(journal):
    scored = score(Simulated(), journal, replace(ROLLOUTS, restart_rollouts=3))
    visited = {i for i, value in enumerate(scored.values) if value.num_rollouts}
    assert set(scored.restarts) == visited - {0} != {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"restart_rollouts": -1}, "restart_rollouts"),
        ({"forcing_text": ""}, "forcing_text is empty"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ROLLOUTS, **changes)
