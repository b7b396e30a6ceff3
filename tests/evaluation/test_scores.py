# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scores on figures that others published, and intervals on data whose truth is known."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from longshort_verl.evaluation.scores import (
    FRONTIER,
    aes,
    area_under_budget_curve,
    frontier_gap,
    interval,
    resampled_mean,
)
from tests.support.configs import ROOT

# DOT's table (arXiv 2601.03969), means of AIME24, AIME25, AMC and MATH500: accuracy, tokens, AES.
DOT_BASE = (67.4, 9756)
DOT = {
    "DOT-8K": (73.2, 3610, 0.89),
    "DOT-4K": (68.8, 2159, 0.84),
    "SIRI-low": (69.2, 4744, 0.59),
    "DLER-R1": (65.0, 2574, 0.56),
    "Laser-DE-L4096": (66.6, 4370, 0.49),
    "SIRI-high": (70.7, 6710, 0.46),
    "AdaptThink": (66.5, 7325, 0.18),
    "LC-R1": (63.4, 5216, 0.16),
}


@pytest.mark.parametrize("method", DOT)
def test_aes_of_published_figures(method):
    accuracy, tokens, published = DOT[method]
    assert aes(accuracy, DOT_BASE[0], 1 - tokens / DOT_BASE[1]) == pytest.approx(published, abs=0.0101)


def test_aes_of_decs():
    # DECS (arXiv 2509.25827): seven sets, 62.48 % with 3968 tokens against 61.57 % with 7857.
    assert aes(62.48, 61.57, 1 - 3968 / 7857) == pytest.approx(0.54, abs=0.005)


PAPER = yaml.safe_load((ROOT / "longshort_verl" / "report" / "paper_rows.yaml").read_text())["rows"]
PAPER_BASE = {row["family"]: row for row in PAPER if row["system"] == "R1-Distill"}
MISPRINTED = {("llama3_1_8b", "CoD"): (0.40, 0.31)}


@pytest.mark.parametrize("row", PAPER, ids=lambda row: f"{row['family']} {row['system']}")
def test_aes_of_the_papers_tables(row):
    # Weights 1, 3 and 5. Llama's CoD: mean accuracy 57.63 against 60.00, so -3.96 %, and 51.23 % of the length saved:
    # 0.5123 - 5 * 0.0396 = 0.314.
    # The printed score is within 0.005. The cells are rounded too, by 0.005 of means of about 60, and a loss weighs 5:
    # 2 * 5 * 0.005 / 60 = 0.0008 more, which Llama's L4S2 needs: 0.8152, printed as 0.81.
    base = PAPER_BASE[row["family"]]
    found = aes(fmean(row["accuracy"]), fmean(base["accuracy"]), 1 - row["length"] / base["length"])
    printed, recomputed = MISPRINTED.get((row["family"], row["system"]), (row["aes"], row["aes"]))
    assert row["aes"] == printed
    assert found == pytest.approx(recomputed, abs=0.005 + 0.0008)
    assert row["system"] == "L4S2" or found == pytest.approx(recomputed, abs=0.005)


def test_the_paper_has_thirty_rows_beside_its_bases():
    assert len(PAPER) - len(PAPER_BASE) == 30


def test_nothing_is_relative_to_nothing():
    assert np.isnan(aes(1.0, 0.0, 0.5))


def test_intervals_cover():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        values = rng.choice([-1.0, 0.0, 1.0], size=50, p=[0.1, 0.6, 0.3])
        low, high = interval(resampled_mean([values]))
        covered += low <= 0.2 <= high
    assert 180 <= covered <= 199


def test_sets_are_resampled_each_by_itself():
    rng = np.random.default_rng(2)
    one, two = (rng.random(30) for _ in range(2))
    # Independent: half the variance of one set, not all of it, as where the same problems were drawn in both.
    alone, both = resampled_mean([one]).std(), resampled_mean([one, one]).std()
    assert both == pytest.approx(alone / np.sqrt(2), rel=0.03)
    low, high = interval(resampled_mean([one, two]))
    assert low < (one.mean() + two.mean()) / 2 < high
    assert interval(resampled_mean([np.ones(5), np.zeros(3)])) == (0.5, 0.5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), min_size=1, max_size=20), st.integers(1, 60))
def test_area_is_the_mean_accuracy_over_all_caps(replies, longest):
    right, tokens = (np.array(column, dtype=float) for column in zip(*replies, strict=True))
    # By the midpoint of every token: what ends within it counts from there on.
    caps = np.arange(longest) + 0.5
    summed = np.mean([np.mean(right * (tokens <= cap)) for cap in caps])
    assert area_under_budget_curve(right, tokens, longest) == pytest.approx(summed)


def test_gap_to_the_public_frontier():
    caps = FRONTIER["aime_2024"]
    # Right on all with 5000 tokens: nothing within 1k to 4k, all from 8k on.
    gap = frontier_gap("aime_2024", np.ones(30), np.full(30, 5000.0))
    assert gap == pytest.approx(sum(best - (cap >= 8192) for cap, best in caps.items()) / 6)
    assert frontier_gap("aime_2024", np.ones(30), np.full(30, 10.0)) < 0
    assert frontier_gap("math500", np.ones(30), np.full(30, 10.0)) is None
