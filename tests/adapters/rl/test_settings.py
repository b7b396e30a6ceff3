# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Who learns when."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from longshort_verl.adapters.rl.settings import AlternateSettings, LongShortConfig, Schedule, read_long_short
from longshort_verl.types import Role
from tests.support.configs import ROOT, compose_config


def settings(schedule: str, **alternate) -> LongShortConfig:
    section = OmegaConf.to_container(compose_config("longshort_rl", ROOT / "longshort_verl/config").long_short)
    section["short"] = {"model": {"path": "somewhere"}}
    section["schedule"] = schedule
    section["alternate"] = {**section["alternate"], **alternate}
    return read_long_short(section)


def roles(schedule: LongShortConfig, steps: int) -> str:
    names = {frozenset({Role.LONG}): "L", frozenset({Role.SHORT}): "S", frozenset(Role): "B"}
    return "".join(names[schedule.learning(step)] for step in range(1, steps + 1))


@pytest.mark.parametrize(
    ("schedule", "alternate", "expected"),
    [
        ("long_only", {}, "LLLLLL"),
        ("short_only", {}, "SSSSSS"),
        ("joint", {}, "BBBBBB"),
        ("alternate", {"switch_every": 1}, "LSLSLS"),
        ("alternate", {"switch_every": 2}, "LLSSLL"),
        ("alternate", {"switch_every": 2, "first": "short"}, "SSLLSS"),
        ("alternate", {"switch_every": 9}, "LLLLLL"),
    ],
)
def test_schedules(schedule, alternate, expected):
    assert roles(settings(schedule, **alternate), 6) == expected


@given(st.sampled_from(Schedule), st.integers(1, 20), st.sampled_from(Role), st.integers(1, 200))
def test_trained_is_what_learns_at_some_step(schedule, switch_every, first, step):
    base = settings("joint")
    config = dataclasses.replace(
        base, schedule=schedule, alternate=AlternateSettings(switch_every=switch_every, first=first)
    )
    assert config.learning(step)
    assert config.learning(step) <= config.trained
    whole = frozenset().union(*(config.learning(s) for s in range(1, 2 * switch_every + 1)))
    assert whole == config.trained


def test_importance_of_a_role_that_never_learns_is_refused():
    section = OmegaConf.to_container(compose_config("longshort_rl", ROOT / "longshort_verl/config").long_short)
    section |= {"short": {"model": {"path": "somewhere"}}, "schedule": "short_only"}
    section["reward"]["importance"] = 0.5
    with pytest.raises(ValueError, match=r"reward.importance is 0.5, but the long role.*set it to 0"):
        read_long_short(section)
    assert read_long_short(section | {"schedule": "joint"}).importance.metric.decay > 0
