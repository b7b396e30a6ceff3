# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks make of their measurements."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from tests.bench import importance, results
from tests.bench.plan import CYCLE, CYCLES, STEPS
from tests.bench.two_policies import ratios

# Seconds of the steps of one cycle: long, long, short, short, long, both, both.
TIMES = (3.0, 2.0, 2.5, 2.0, 3.0, 5.0, 3.0)


def steps():
    cycle = [TIMES[i % len(CYCLE)] for i in range(len(CYCLE) * CYCLES)]
    # The warm-up counts for nothing.
    cycle[: len(CYCLE)] = [99.0] * len(CYCLE)
    # At even steps verl's poll interval.
    polls = [3.0 if step % 2 == 0 else 2.0 for step in range(len(cycle) + 1, STEPS + 1)]
    times = [*cycle, *polls]
    return {i: {"timing_s/step": time, "bench/waited_s": 0.02 * time} for i, time in enumerate(times, start=1)}


def test_ratios_by_hand():
    joint, switch, wait, poll = ratios(steps())
    assert (joint.ratio, joint.low, joint.high, joint.goal, joint.holds) == (0.75, 0.75, 0.75, "at most 1.1", True)
    # To the short role (2.5 - 2) / 2, back to the long one (3 - 2) / 2.
    assert (switch.ratio, switch.low, switch.high, switch.holds) == (0.375, 0.25, 0.5, True)
    assert (wait.ratio, wait.holds) == (0.02, True)
    assert (poll.ratio, poll.goal, poll.holds) == (1.5, "", None)


def test_a_goal_that_is_missed_is_said():
    missed = results.result("slow", [1.0, 1.2, 1.4], command="make bench", at_most=1.1)
    assert (missed.ratio, missed.low, missed.high, missed.holds) == (1.2, 1.0, 1.4, False)
    reached = results.result("few", [3.0, 5.0, 4.0], command="make bench", at_least=4.0)
    assert (reached.goal, reached.holds) == ("at least 4", True)


def test_agreement_with_the_truth_by_hand():
    truth = [[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]]
    assert importance.tau(truth, truth) == 1.0
    # One pair of six the other way round: (5 - 1) / 6; and a trace that says nothing.
    assert importance.tau([[2.0, 3.0, 1.0, 0.0], [5.0] * 4], truth) == pytest.approx((4 / 6 + 0) / 2)
    # The two highest of four: one of them, then both.
    assert importance.overlap([[0.0, 2.0, 1.0, 3.0], [0.5, 1.0, 2.0, 3.0]], truth) == pytest.approx((1 / 2 + 1) / 2)


def test_auc_by_hand():
    # Of six pairs four are won, one is tied, one is lost.
    scored = [(False, 0.1), (False, 0.3), (True, 0.3), (True, 0.5), (True, 0.2)]
    assert importance.auc(scored) == pytest.approx((4 + 0.5) / 6)


def test_what_is_a_working_step():
    works = ["<think>4+2*6\n\n", "2*6\n\n", "2"]
    others = ["check 2*6\n\n", "hheck 2", "2*", "*6", "22", "</think>\\boxed{2}", ""]
    assert [text for text in works + others if importance.is_step(text)] == works


def test_a_file_keeps_what_was_not_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    results.write([results.result(name, [1.0], command="c") for name in ("a", "b")])
    path = results.write([results.result("a", [2.0], command="c", at_most=3.0)])
    rows = json.loads(path.read_text())
    assert [(row["measure"], row["ratio"]) for row in rows] == [("a", 2.0), ("b", 1.0)]
    assert set(rows[0]) == {"measure", "ratio", "low", "high", "goal", "holds", "command", "commit"}
    results.show([results.result("a" * 70, [1.0], command="c", at_most=2.0)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= Console().width
