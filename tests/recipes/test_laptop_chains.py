# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What recipes/laptop ships of its chains: as the manifests and the recipe say, right, and whole transcripts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from statistics import fmean

import pytest

from longshort_verl.chains.config import read_importance
from longshort_verl.chains.files import usable_chains
from longshort_verl.cold_start.config import read_cold_start
from longshort_verl.cold_start.transcripts import read_role_rows
from longshort_verl.grading import grade
from longshort_verl.types import Role
from tests.support.configs import ROOT

LAPTOP = ROOT / "recipes" / "laptop"
CHAINS = LAPTOP / "chains"


def manifest_of(name):
    return json.loads((CHAINS / name / "manifest.json").read_text())


def test_they_are_small():
    assert sum(path.stat().st_size for path in CHAINS.rglob("*") if path.is_file()) < 5e6


def test_the_rollouts_were_made_with_the_recipes_settings():
    manifest, recipe = manifest_of("importance"), read_importance(LAPTOP / "importance.yaml", ["rollouts.seed=1"])
    # A tuple is a list in JSON.
    expected = json.loads(json.dumps(asdict(recipe)))
    for section in ("chunk", "rollouts", "plan", "metric"):
        assert manifest["config"][section] == expected[section], section
    assert manifest["config"]["model"]["path"] == recipe.model.path
    chains = usable_chains(CHAINS / "importance")
    assert len(chains) == manifest["counts"]["outcomes"]["scored"] == 851
    assert all(grade(chain.text, chain.problem.answer, recipe.grading).correct for chain in chains if chain.problem)
    lengths = [len(chain.thoughts) for chain in chains]
    assert fmean(length > 2 for length in lengths) > 0.95


@pytest.mark.parametrize(("name", "keep"), [("pair", "important"), ("random_scores", "random_scores")])
def test_the_transcripts_were_made_with_the_recipes_settings_from_these_chains(name, keep):
    recipe = read_cold_start(LAPTOP / "cold_start.yaml", ["select.seed=1", "seed=1", f"select.keep={keep}"])
    manifest, expected = manifest_of(name), json.loads(json.dumps(asdict(recipe)))
    # These were made before the setting existed, as if it were off.
    manifest["config"]["writer"].setdefault("says_answer", False)
    for section in ("select", "dialogue", "writer", "rows", "val_share", "seed"):
        assert manifest["config"][section] == expected[section], section
    scored = CHAINS / "importance" / "importance.jsonl"
    assert manifest["inputs"]["scored"]["sha256"] == hashlib.sha256(scored.read_bytes()).hexdigest()
    problems = {}
    for role in ("long", "short"):
        for split in ("train", "val"):
            rows = read_role_rows([CHAINS / name / f"{role}_{split}.parquet"], Role(role))
            assert len(rows) == manifest["counts"]["num_rows"][f"{role}_{split}"]
            problems[role, split] = {row.messages[1].content.split("\n\n<think>")[0] for row in rows}
        assert not problems[role, "train"] & problems[role, "val"]
    assert problems["long", "train"] == problems["short", "train"]
