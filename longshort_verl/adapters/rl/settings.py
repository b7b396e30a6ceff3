# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The section ``long_short`` of an RL recipe, and the config of each role. The base is ``longshort_rl.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.config.compose import ConfigError, read_settings
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.generation import base
from longshort_verl.grading import GradingSettings
from longshort_verl.importance import ImportanceRewardSettings
from longshort_verl.metrics import AlarmSettings
from longshort_verl.rewards import LengthOf, RewardWeights, is_ever_positive
from longshort_verl.types import Role

SECTION = "long_short"


class Schedule(str, Enum):
    """Which role learns at which step."""

    LONG_ONLY = "long_only"
    """The long role learns; the short role's model is frozen."""
    SHORT_ONLY = "short_only"
    """The short role learns; the long role's model is frozen."""
    ALTERNATE = "alternate"
    """The roles learn in turn, with their first reference and optimizer throughout."""
    ROUNDS = "rounds"
    """The roles learn in rounds, each with a new reference and a new optimizer, as in the paper."""
    JOINT = "joint"
    """Both roles learn at every step."""


class Policies(str, Enum):
    """How many models play the two roles."""

    TWO = "two"
    """One model per role."""
    SHARED = "shared"
    """One role-conditioned model plays both roles and learns from both roles' rows."""


class Placement(str, Enum):
    """Which devices the two policies use."""

    COLOCATED = "colocated"
    """The same devices; each role's own verl keys off-load what is idle."""
    SPLIT = "split"
    """The short policy has devices of its own."""


@dataclass(frozen=True, kw_only=True)
class AlternateSettings:
    """Settings of the schedule ``alternate``."""

    switch_every: Annotated[int, Field(ge=1)]
    first: Role


@dataclass(frozen=True, kw_only=True)
class RoundsSettings:
    """Settings of the schedule ``rounds``, and its arithmetic. Steps count from 1, across resumes too."""

    order: Annotated[tuple[Role, ...], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)]

    @property
    def total_steps(self) -> int:
        """Steps of all rounds."""
        return len(self.order) * self.steps

    def role(self, step: int) -> Role:
        """The role that learns at a step; after the last round, at which the run ends, that of the last round."""
        return self.order[min((step - 1) // self.steps, len(self.order) - 1)]

    def before(self, step: int) -> int:
        """The last step before the round of ``step``, 0 in the first round."""
        return (step - 1) // self.steps * self.steps

    def ends(self, step: int) -> bool:
        """Whether a round ends with this step; at step 0 the pair is that of the start."""
        return step % self.steps == 0

    def name(self, step: int) -> str:
        """Name of the pair after a step, by each role's finished rounds: ``long-r2_short-r1``."""
        finished = self.order[: step // self.steps]
        return "_".join(f"{role.value}-r{finished.count(role)}" for role in Role)


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Devices of the short policy under the placement ``split``, in addition to those of ``trainer``."""

    nnodes: Annotated[int, Field(ge=1)]
    n_gpus_per_node: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class BestSettings:
    """Which pair of a run is kept in addition to the last ones."""

    metric: str | None
    mode: Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class LongShortConfig:
    """The section ``long_short``; ``config/longshort_rl.yaml`` documents every setting."""

    schedule: Schedule
    alternate: AlternateSettings
    rounds: RoundsSettings
    policies: Policies
    placement: Placement
    short_pool: PoolSettings
    short: Mapping[str, Any]
    seed: int | None
    rollout_stall_s: Annotated[float, Field(gt=0)]
    save_on_sigterm: bool
    dialogue: DialogueSettings
    reward: RewardWeights
    length_of: LengthOf
    importance: ImportanceRewardSettings
    grading: GradingSettings
    best: BestSettings
    alarms: AlarmSettings

    def __post_init__(self) -> None:
        importance = self.reward["importance"]
        if is_ever_positive(importance) and Role.LONG not in self.trained:
            raise ValueError(
                f"{SECTION}.reward.importance is {importance}, but the long role, whose turns it "
                f"rewards, never learns under schedule {self.schedule.value}: its rollouts would be wasted; set it to 0"
            )
        path = (self.short.get("model") or {}).get("path")
        if self.policies is Policies.TWO and not path:
            raise ValueError(f"{SECTION}.short.model.path is {path!r}; set it to the short policy's model")
        if self.policies is Policies.SHARED:
            if self.schedule is Schedule.ROUNDS:
                raise ValueError(
                    f"{SECTION}.schedule is 'rounds' and {SECTION}.policies 'shared', but in a round one of two models "
                    "learns; set policies to two, or schedule to alternate or joint"
                )
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
        if self.schedule is Schedule.ROUNDS:
            return frozenset({self.rounds.role(step)})
        first = self.alternate.first
        return frozenset({first.peer if (step - 1) // self.alternate.switch_every % 2 else first})

    @property
    def phases(self) -> list[frozenset[Role]]:
        """The different sets of roles that learn at the same step, if the run is long enough, in their order."""
        if self.schedule is Schedule.ROUNDS:
            return [frozenset({role}) for role in dict.fromkeys(self.rounds.order)]
        return list(dict.fromkeys([self.learning(1), self.learning(1 + self.alternate.switch_every)]))

    @property
    def trained(self) -> frozenset[Role]:
        """Roles that learn at some step, if the run is long enough."""
        return frozenset().union(*self.phases)


def read_long_short(section: Mapping[str, Any]) -> LongShortConfig:
    """The section ``long_short`` of a resolved config; the ConfigError names every setting that cannot be."""
    return read_settings(section, LongShortConfig, SECTION, base="longshort_rl.yaml")


def long_short_settings(config: DictConfig) -> LongShortConfig:
    """The section ``long_short`` of a composed config, checked; a missing section or setting is a ConfigError."""
    if SECTION not in config:
        raise ConfigError(f"the config has no section {SECTION}; inherit longshort_rl from pkg://longshort_verl.config")
    missing = OmegaConf.missing_keys(config[SECTION])
    if missing:
        raise ConfigError("; ".join(f"{SECTION}.{key} is not set; set it" for key in sorted(missing)))
    return read_long_short(OmegaConf.to_container(config[SECTION], resolve=True))  # type: ignore[arg-type]


def role_config(config: DictConfig, role: Role) -> DictConfig:
    """``actor_rollout_ref`` of a role; that of a short model of its own has ``long_short.short`` merged.

    Raises:
        ConfigError: ``long_short.short`` has a key that ``actor_rollout_ref`` does not have.
    """
    if role is Role.LONG or config[SECTION].policies == Policies.SHARED.value:
        return config.actor_rollout_ref
    merged = OmegaConf.create({"actor_rollout_ref": OmegaConf.to_container(config.actor_rollout_ref, resolve=True)})
    OmegaConf.set_struct(merged, True)
    short = OmegaConf.to_container(config[SECTION].short, resolve=True)
    try:
        merged = OmegaConf.merge(merged, {"actor_rollout_ref": short})
    except OmegaConfBaseException as error:
        raise ConfigError(f"{SECTION}.short does not fit onto actor_rollout_ref: {error}") from error
    assert isinstance(merged, DictConfig)
    return merged.actor_rollout_ref


def has_lora(policy: DictConfig) -> bool:
    """Whether a policy trains an adapter, by any of verl's three keys for it."""
    model = policy.model
    rank = (model.get("lora") or {}).get("rank", 0) or model.get("lora_rank", 0)
    return rank > 0 or model.get("lora_adapter_path") is not None


def load_tokenizer(policy: DictConfig) -> Any:
    """The tokenizer of one policy, with the recipe's chat template if it has one.

    Raises:
        ConfigError: there is no tokenizer at the path.
    """
    model = policy.model
    path = model.get("tokenizer_path") or model.path
    tokenizer = base.load_tokenizer(path, trust_remote_code=model.get("trust_remote_code", False))
    if model.get("custom_chat_template"):
        tokenizer.chat_template = model.custom_chat_template
    return tokenizer
