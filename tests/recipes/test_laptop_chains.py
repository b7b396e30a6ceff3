# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The chains that recipes/laptop ships: what the manifest says, right, and with thoughts to leave out."""

from __future__ import annotations

import dataclasses
import json
from statistics import fmean

from longshort_verl.chains.chunk import by_rules
from longshort_verl.chains.config import read_importance, read_traces_config
from longshort_verl.chains.files import usable_chains
from longshort_verl.grading import grade
from tests.support.configs import ROOT

LAPTOP = ROOT / "recipes" / "laptop"
CHAINS = LAPTOP / "chains" / "traces.jsonl"


def test_they_are_small_and_made_with_the_recipes_settings():
    assert CHAINS.stat().st_size < 5e6
    manifest = json.loads(CHAINS.with_name(f"{CHAINS.name}.manifest.json").read_text())
    recipe = read_traces_config(LAPTOP / "traces.yaml", ["sampling.seed=1"])
    assert manifest["config"]["sampling"] == dataclasses.asdict(recipe.sampling)
    assert manifest["config"]["model"]["path"] == recipe.model.path
    assert manifest["counts"]["right"] == len(usable_chains(CHAINS))


def test_every_answer_is_right_and_almost_every_chain_has_several_thoughts():
    chains = usable_chains(CHAINS)
    recipe = read_importance(LAPTOP / "importance.yaml", [])
    assert all(grade(chain.text, chain.problem.answer, recipe.grading).correct for chain in chains if chain.problem)
    lengths = [len(by_rules(chain.text, recipe.chunk.min_chars)) for chain in chains]
    assert fmean(length > 2 for length in lengths) > 0.95
    print(f"thoughts of a chain: mean {fmean(lengths):.1f}, most {max(lengths)}")
