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
    part = "rounds" if schedule == "rounds" else "alternate"
    section[part] = {**section[part], **alternate}
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
        # The paper's order, a step a round.
        ("rounds", {"steps": 1}, "LLSLSL"),
        ("rounds", {"steps": 2, "order": ["short", "long", "long"]}, "SSLLLL"),
    ],
)
def test_schedules(schedule, alternate, expected):
    assert roles(settings(schedule, **alternate), 6) == expected


def test_rounds_of_seven_steps():
    rounds = settings("rounds", steps=7).rounds
    assert rounds.total_steps == 6 * 7
    # Rounds L, L, S, L, S, L are the steps 1 to 7, 8 to 14, 15 to 21, 22 to 28, 29 to 35 and 36 to 42.
    assert [step for step in range(43) if rounds.ends(step)] == [0, 7, 14, 21, 28, 35, 42]
    assert [rounds.before(step) for step in (1, 7, 8, 14, 15, 42)] == [0, 0, 7, 7, 14, 35]
    assert [rounds.role(step).value for step in (1, 7, 8, 14, 15, 21, 22, 42)] == [
        *("long", "long", "long", "long", "short", "short", "long", "long")
    ]
    assert [rounds.name(step) for step in (0, 6, 7, 14, 20, 21, 28, 35, 42)] == [
        "long-r0_short-r0",
        "long-r0_short-r0",
        "long-r1_short-r0",
        "long-r2_short-r0",
        "long-r2_short-r0",
        "long-r2_short-r1",
        "long-r3_short-r1",
        "long-r3_short-r2",
        "long-r4_short-r2",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": {"order": [], "steps": 1}}, "long_short.rounds.order is"),
        ({"rounds": {"order": ["long", "both"], "steps": 1}}, "long_short.rounds.order.1 is 'both'"),
        ({"rounds": {"order": ["long"], "steps": 0}}, "long_short.rounds.steps is 0"),
        ({"policies": "shared", "short": {}}, "schedule is 'rounds' and long_short.policies 'shared'.*set policies"),
    ],
)
def test_rounds_that_cannot_be_are_refused(change, message):
    section = OmegaConf.to_container(compose_config("longshort_rl", ROOT / "longshort_verl/config").long_short)
    section |= {"short": {"model": {"path": "somewhere"}}, "schedule": "rounds", **change}
    with pytest.raises(ValueError, match=message):
        read_long_short(section)


@given(
    st.sampled_from([one for one in Schedule if one is not Schedule.ROUNDS]),
    st.integers(1, 20),
    st.sampled_from(Role),
    st.integers(1, 200),
)
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
    section["reward"]["importance"] = {"from": 0, "to": 0.5, "start": 1, "end": 2}
    with pytest.raises(ValueError, match=r"reward.importance is Ramp.*set it to 0"):
        read_long_short(section)
    assert read_long_short(section | {"schedule": "joint"}).trained == frozenset(Role)
    assert read_long_short(section | {"schedule": "rounds"}).trained == frozenset(Role)
