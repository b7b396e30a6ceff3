# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Sessions for tests/support/replay.py: rows of one to three turns a role, some right, some wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from longshort_verl.adapters.rl.settings import read_long_short
from longshort_verl.rewards import Outcome, group_rewards
from longshort_verl.types import Role
from tests.support.configs import ROOT, compose_config

MODELS = ROOT / "recipes" / "tiny_cpu" / "models"
_TAGS = {"long": ("<think>", "</think>"), "short": ("<answer>", "</answer>")}


def recipe_weights() -> dict[str, float]:
    """Reward weights of the recipe tiny_cpu."""
    section = compose_config("rl", ROOT / "recipes" / "tiny_cpu").long_short
    return read_long_short(OmegaConf.to_container(section, resolve=True)).reward  # type: ignore[arg-type]


def write_rows(
    folder: Path,
    *,
    prompts: int,
    samples: int,
    silent: tuple[int, int] | None = None,
    failed: tuple[int, int] | None = None,
    weights: Mapping[str, float] | None = None,
) -> dict[str, list]:
    """Problem files and ``rows.json`` in ``folder``; index of a problem → its sessions, with their rewards.

    In the session ``silent`` (problem, sample) the short role never spoke; in ``failed`` an engine failed. ``weights``
    are the recipe's by default.
    """
    import make_problems
    from transformers import AutoTokenizer

    make_problems.main(folder, num_train=prompts, num_val=4, min_steps=2, max_steps=6, seed=5)
    encode = AutoTokenizer.from_pretrained(MODELS / "long").encode
    rng = random.Random(7)
    sessions = {
        str(i): [_session(rng, encode, silent=(i, sample) == silent) for sample in range(samples)]
        for i in range(prompts)
    }
    if failed is not None:
        sessions[str(failed[0])][failed[1]]["record"]["stop_reason"] = "engine_error"
    for index, group in sessions.items():
        reward_group(group, index, weights)
    (folder / "rows.json").write_text(json.dumps(sessions))
    return sessions


def reward_group(group: list[dict[str, Any]], index: str, weights: Mapping[str, float] | None = None) -> None:
    """Set each session's rewards, as the two-policy trainer computes them."""
    for session in group:
        session["reward"] = {}
    for role in Role:
        outcomes = [_outcome(session, role, index) for session in group]
        live = [i for i, outcome in enumerate(outcomes) if outcome.live]
        for i, reward in zip(
            live, group_rewards([outcomes[i] for i in live], weights or recipe_weights()), strict=True
        ):
            group[i]["reward"][role.value] = reward.total


def _session(rng: random.Random, encode: Callable[[str], list[int]], *, silent: bool) -> dict[str, Any]:
    digits = "0123456789"

    def working(steps: int) -> str:
        return " ".join(f"{rng.choice(digits)}+{rng.choice(digits)}={rng.choice(digits)}" for _ in range(steps))

    num_turns = rng.randint(1, 3)
    correct = not silent and rng.random() < 0.5
    record: dict[str, Any] = {
        "answer": "\\boxed{3}" if correct else "\\boxed{4}",
        "gold": "3",
        "stop_reason": "malformed_long" if silent else "answered",
        "detail": "",
        "num_rethinks": num_turns - 1,
        "correct": correct,
    }
    session: dict[str, Any] = {"record": record}
    for role, (opening, closing) in _TAGS.items():
        prompt, response, mask = encode(f"<|user|>{working(2)}<|im_end|><|assistant|>"), [], []
        for turn in range(num_turns):
            if turn:
                between = encode(f"<|im_end|><|user|>{working(1)}<|im_end|><|assistant|>")
                response += between
                mask += [0] * len(between)
            own = encode(f"{opening}{working(rng.randint(1, 3))}{closing}")
            response += own
            mask += [1] * len(own)
        if silent and role == "short":
            prompt, response, mask = prompt[:1], prompt[:1], [0]
        session[role] = {"prompt": prompt, "response": response, "mask": mask}
        spoke = sum(mask)
        record |= {
            f"num_tokens_{role}": spoke,
            f"num_turns_{role}": num_turns if spoke else 0,
            f"num_useful_turns_{role}": num_turns if spoke else 0,
            f"format_{role}": rng.choice([0.5, 1.0]) if spoke else 0.0,
        }
    return session


def _outcome(session: dict[str, Any], role: Role, group: str) -> Outcome:
    record = session["record"]
    return Outcome(
        group=group,
        role=role,
        accuracy=float(record["correct"]),
        format=record[f"format_{role.value}"],
        num_tokens=record[f"num_tokens_{role.value}"],
        failed=record["stop_reason"] == "engine_error",
        record=record,
    )
