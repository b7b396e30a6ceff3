# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens and time of a step, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.job import Load, Work
from longshort_verl.ops.plan.speed import capacity, flops_per_token, step_times
from tests.ops.plan.jobs import NODE, job, policy, shape

LOAD = Load(generated=1000, prefill=200, context=1200, rows=1)


def work(policies, dialogues=8000):
    return Work(
        dialogues=dialogues,
        loads=dict.fromkeys(policies, LOAD),
        steps={"the long role learns": frozenset({"long"})},
        bound=False,
    )


def test_arithmetic_of_a_token():
    # 2 for each parameter that multiplies; attention 2 × 1000 × 28 heads × 128 in each of 28 layers.
    assert flops_per_token(shape("qwen2_5_7b"), 1000) == 2 * 7_070_619_136 + 2 * 1000 * 28 * 128 * 28


def test_an_update_is_four_passes_with_checkpointing_and_three_without():
    found = job(policy("long"))
    stages = step_times(found, work(["long"]))["the long role learns"]
    tokens = 8000 * 1200 / 8
    arithmetic = tokens * 4 * flops_per_token(shape("qwen2_5_7b"), 600) / (989e12 * 0.35)
    # Off-loaded parameters and two averages, 12 bytes, an eighth, come and go at 70 % of 64 GB/s.
    moved = 2 * 12 * 7_615_616_512 / 8 / (64e9 * 0.7)
    assert stages["update"] == pytest.approx(arithmetic + moved)
    plain = job(policy("long", checkpointing=False))
    assert step_times(plain, work(["long"]))["the long role learns"]["update"] == pytest.approx(
        arithmetic * 3 / 4 + moved
    )


def test_decoding_reads_weights_and_caches_once_a_step():
    # One dialogue on one replica of eight: nothing to share the reading with.
    alone = job(policy("long", devices=8, max_num_seqs=1))
    seconds = step_times(alone, work(["long"], dialogues=1))["the long role learns"]["rollout"]
    weights, cache = 7_615_616_512 * 2 / 8, (1200 - 500) * 2 * 28 * 1 * 128 * 2
    step = (weights + cache) / (3350e9 * 0.6) + 0.005
    prefill = 200 * flops_per_token(shape("qwen2_5_7b"), 600) / (8 * 989e12 * 0.45)
    assert seconds == pytest.approx(1000 * step + prefill)
    # 100 dialogues one at a time take 100 times as long.
    assert step_times(alone, work(["long"], dialogues=100))["the long role learns"]["rollout"] == pytest.approx(
        100 * seconds
    )


def test_engines_take_turns_on_the_same_devices_and_work_at_once_on_their_own():
    together = step_times(job(), work(["long", "short"]))["the long role learns"]["rollout"]
    apart = job(*(policy(name, pool=replace(NODE, name=name)) for name in ("long", "short")))
    assert step_times(apart, work(["long", "short"]))["the long role learns"]["rollout"] == pytest.approx(together / 2)


def test_a_resting_policy_is_pushed_back_and_not_updated():
    stages = step_times(job(), work(["long", "short"]))["the long role learns"]
    assert "update short" not in stages
    assert stages["push short"] == stages["push long"] > 0


def test_what_a_cache_holds():
    held = capacity(job(), job().policies[0], work(["long", "short"]))
    assert (held.replicas, held.asked) == (4, 2000)
    # Of the cache's bytes, dialogues of 1200 tokens of 28,672 bytes each.
    assert held.fit == held.cache_gib * GIB // (1200 * 28_672)
    assert held.at_once == 256  # max_num_seqs
