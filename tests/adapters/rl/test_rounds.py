# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What rounds write and need on disk; test_job.py has the real run."""

from __future__ import annotations

import json

import pytest

from longshort_verl.adapters.rl import checkpoints
from longshort_verl.adapters.rl.policies import Policy
from longshort_verl.adapters.rl.rounds import Rounds
from longshort_verl.adapters.rl.settings import RoundsSettings
from longshort_verl.config.compose import ConfigError
from longshort_verl.evaluation.records import read_evaluations, read_records
from longshort_verl.types import Role
from tests.support.configs import tiny_config

SETTINGS = RoundsSettings(order=(Role.LONG, Role.LONG, Role.SHORT), steps=2)


def record(index, *, correct=True, source="p", problem=None):
    turns = [
        {"role": role, "text": text, "well_formed": True, "num_tokens": 4, "num_prompt_tokens": 2}
        for role, text in (("long", "<think>a</think>"), ("short", "<answer>\\boxed{1}</answer>"))
    ]
    counts = dict.fromkeys(("num_tokens_long", "num_tokens_short", "num_tokens_prompts"), 4)
    asked = {"set": source, "index": index, "sample": 0, "gold": "1", "detail": ""}
    asked["problem"] = problem or f"{source}{index}"
    graded = {"correct": correct, "extracted": "1", "fault": "", "stop_reason": "answered"}
    return json.dumps(asked | graded | {"num_tokens": 8, "num_tokens_reprefilled": 0, **counts, "turns": turns})


def test_validation_is_written_after_a_round_and_before_the_first(tmp_path):
    rounds = Rounds(SETTINGS, str(tmp_path))
    for step in (0, 1, 2, 3, 6):
        rounds.write_validation(step, [record(1), record(0, correct=step > 0), record(0, source="o")])
    names = ["long-r0_short-r0", "long-r1_short-r0", "long-r2_short-r1"]
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == names
    found = read_evaluations(("", tmp_path / "rounds" / name) for name in names)
    assert [[one["correct"] for one in of.records] for of in found] == [[True, False, True], [True] * 3, [True] * 3]
    assert [(one["set"], one["index"]) for one in found[0].records] == [("o", 0), ("p", 0), ("p", 1)]
    results = json.loads((tmp_path / "rounds" / names[0] / "results.json").read_text())
    # Set o: 1 of 1, set p: 1 of 2.
    assert results["systems"]["pair"]["accuracy"] == 0.75
    assert results["settings"] == {"pair": names[0], "step": 0}


def test_a_resumed_round_without_its_reference_is_refused(tmp_path, tiny_models, tiny_problems):
    config = tiny_config(tiny_models, tiny_problems, "actor_rollout_ref.actor.use_kl_loss=true")
    # No worker is reached.
    rest = dict.fromkeys(("tokenizer", "worker_group", "servers", "engines"))
    policy = Policy(roles=(Role.LONG,), config=config, learns=True, **rest)
    rounds = Rounds(SETTINGS, str(tmp_path))
    rounds.resume(1, [policy])  # in the first round the reference is the model that the run starts from
    with pytest.raises(
        ConfigError, match=r"step 4 needs the long role's reference policy from .*/long-r1_short-r0, .*"
    ):
        rounds.resume(3, [policy])
    folder = tmp_path / "rounds" / "long-r1_short-r0"
    checkpoints.begin(folder)
    folder.mkdir(parents=True)
    checkpoints.complete(folder, {"step": 2})
    rounds.resume(2, [policy])  # whole: nothing to do


def test_problems_without_a_number_are_numbered_in_a_stable_order(tmp_path):
    rounds = Rounds(SETTINGS, str(tmp_path))
    asked = [record(0, problem=problem) for problem in ("c", "a", "b")]
    rounds.write_validation(2, asked)
    rounds.write_validation(6, asked[::-1])
    for name in ("long-r1_short-r0", "long-r2_short-r1"):
        found = read_records(tmp_path / "rounds" / name / "pair.jsonl")
        assert [(one["index"], one["problem"]) for one in found] == [(0, "a"), (1, "b"), (2, "c")]
