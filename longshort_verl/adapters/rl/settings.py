# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The section ``long_short`` of an RL recipe: type and range of each setting. The base is ``longshort_rl.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from longshort_verl.config.compose import read_settings
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.grading import GradingSettings
from longshort_verl.importance import ImportanceRewardSettings
from longshort_verl.metrics import AlarmSettings
from longshort_verl.rewards import RewardWeights
from longshort_verl.types import Role

SECTION = "long_short"


class Schedule(str, Enum):
    """Which role learns at which step."""

    LONG_ONLY = "long_only"
    """The long role; the short role's model stays as it is."""
    SHORT_ONLY = "short_only"
    """The short role; the long role's model stays as it is."""
    ALTERNATE = "alternate"
    """One role after the other, as in the paper's asynchronous optimisation."""
    JOINT = "joint"
    """Both, at every step."""


class Policies(str, Enum):
    """How many models play the two roles."""

    TWO = "two"
    """One each."""
    SHARED = "shared"
    """One role-conditioned model plays both and learns from both roles' rows."""


class Placement(str, Enum):
    """Where two policies live."""

    COLOCATED = "colocated"
    """On the same devices; what is idle is off-loaded as each role's own keys of verl say."""
    SPLIT = "split"
    """The short policy on devices of its own."""


@dataclass(frozen=True, kw_only=True)
class AlternateSettings:
    """The schedule ``alternate``."""

    switch_every: int
    """Steps that one role learns before the other one does."""
    first: Role
    """The role that learns first."""

    def __post_init__(self) -> None:
        if self.switch_every < 1:
            raise ValueError(
                f"{SECTION}.alternate.switch_every is {self.switch_every}; set it to at least 1, the number of steps "
                "that one role learns before the other one does"
            )


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Devices of the short policy under the placement ``split``, beside those of ``trainer``."""

    nnodes: int
    """Nodes."""
    n_gpus_per_node: int
    """Devices on each."""

    def __post_init__(self) -> None:
        for name, value in (("nnodes", self.nnodes), ("n_gpus_per_node", self.n_gpus_per_node)):
            if value < 1:
                raise ValueError(f"{SECTION}.short_pool.{name} is {value}; set it to at least 1")


@dataclass(frozen=True, kw_only=True)
class BestSettings:
    """Which pair of a run is kept beside the last ones."""

    metric: str | None
    """Name of a validation metric, as in verl's ``val-…/<source>/<metric>/mean@…``; None keeps none."""
    mode: Literal["max", "min"]
    """Whether more or less of it is better."""


@dataclass(frozen=True, kw_only=True)
class LongShortConfig:
    """The section ``long_short``."""

    schedule: Schedule
    """Which role learns at which step."""
    alternate: AlternateSettings
    """The schedule ``alternate``."""
    policies: Policies
    """How many models play the two roles."""
    placement: Placement
    """Where two policies live."""
    short_pool: PoolSettings
    """Devices of the short policy under the placement ``split``."""
    short: Mapping[str, Any]
    """What of ``actor_rollout_ref`` differs for the short policy."""
    seed: int | None
    """Seed of every request's own sampling; None lets the engines draw freely."""
    dialogue: DialogueSettings
    """Limits and wording of a dialogue."""
    reward: RewardWeights
    """Weights of the reward's terms."""
    importance: ImportanceRewardSettings
    """How the long role's turns are measured, where the reward's importance term has a weight."""
    grading: GradingSettings
    """Limits of grading."""
    best: BestSettings
    """Which pair is kept beside the last ones."""
    alarms: AlarmSettings
    """When a run warns."""

    def __post_init__(self) -> None:
        if self.reward.importance and Role.LONG not in self.trained:
            raise ValueError(
                f"{SECTION}.reward.importance is {self.reward.importance:g}, but the long role, whose turns it judges, "
                f"never learns under schedule {self.schedule.value}: its rollouts would be for nothing; set it to 0"
            )
        path = (self.short.get("model") or {}).get("path")
        if self.policies is Policies.TWO and not path:
            raise ValueError(f"{SECTION}.short.model.path is {path!r}; set it to the short policy's model")
        if self.policies is Policies.SHARED:
            if self.placement is Placement.SPLIT:
                raise ValueError(
                    f"{SECTION}.placement is 'split' and {SECTION}.policies 'shared': one model has no second place; "
                    "set placement to colocated, or policies to two"
                )
            extra = sorted({*self.short} - {"model"} | {*(self.short.get("model") or {})} - {"path"})
            if extra:
                raise ValueError(
                    f"{SECTION}.short sets {', '.join(extra)}, but {SECTION}.policies is 'shared': both roles are "
                    "actor_rollout_ref; set it there, or set policies to two"
                )

    def learning(self, step: int) -> frozenset[Role]:
        """Roles that learn at a training step; steps count from 1, across resumes too."""
        if self.schedule is Schedule.LONG_ONLY:
            return frozenset({Role.LONG})
        if self.schedule is Schedule.SHORT_ONLY:
            return frozenset({Role.SHORT})
        if self.schedule is Schedule.JOINT:
            return frozenset(Role)
        first = self.alternate.first
        second = next(role for role in Role if role is not first)
        return frozenset({second if (step - 1) // self.alternate.switch_every % 2 else first})

    @property
    def trained(self) -> frozenset[Role]:
        """Roles that learn at some step, if the run is long enough."""
        return self.learning(1) | self.learning(1 + self.alternate.switch_every)


def read_long_short(section: Mapping[str, Any]) -> LongShortConfig:
    """The section ``long_short`` of a resolved config as its typed mirror.

    Raises:
        ConfigError: one line per setting that is missing, unknown, of the wrong type or out of its limits.
    """
    return read_settings(section, LongShortConfig, SECTION, base="longshort_rl.yaml")
