# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Typed mirror of the section ``long_short`` of the recipes: every setting has its type and its limits here.

Defaults live in ``longshort_rl.yaml`` beside this file and nowhere else; a missing, unknown or impossible setting is a
:class:`ConfigError` that names the key, the offending value and the cure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from longshort_verl.dialogue import DialogueSettings
from longshort_verl.grading import GradingSettings
from longshort_verl.rewards import RewardWeights
from longshort_verl.types import Role

SECTION = "long_short"


class ConfigError(ValueError):
    """A setting that cannot work, with the value and the cure."""


class Schedule(str, Enum):
    """Which roles learn."""

    LONG_ONLY = "long_only"
    """The long role; the short role's model stays as it is."""
    SHORT_ONLY = "short_only"
    """The short role; the long role's model stays as it is."""

    @property
    def trained(self) -> frozenset[Role]:
        """Roles that learn at some step of the run."""
        return frozenset({Role.LONG} if self is Schedule.LONG_ONLY else {Role.SHORT})


@dataclass(frozen=True, kw_only=True)
class LongShortConfig:
    """The section ``long_short``."""

    schedule: Schedule
    """Which roles learn."""
    short: Mapping[str, Any]
    """What of ``actor_rollout_ref`` differs for the short policy."""
    seed: int | None
    """Seed of every request's own sampling; None lets the engines draw freely."""
    dialogue: DialogueSettings
    """Limits and wording of a dialogue."""
    reward: RewardWeights
    """Weights of the reward's terms."""
    grading: GradingSettings
    """Limits of grading."""

    def __post_init__(self) -> None:
        if not (isinstance(self.short, Mapping) and (self.short.get("model") or {}).get("path")):
            raise ValueError(
                f"{SECTION}.short.model.path is {(self.short.get('model') or {}).get('path')!r}; set it to the short "
                "policy's model"
            )


def read_long_short(section: Mapping[str, Any]) -> LongShortConfig:
    """The section ``long_short`` of a resolved config as its typed mirror.

    Raises:
        ConfigError: one line per setting that is missing, unknown, of the wrong type or out of its limits.
    """
    unknown = _unknown_keys(section, LongShortConfig, SECTION)
    if unknown:
        raise ConfigError("\n".join(f"{key} is no setting; known ones here are {known}" for key, known in unknown))
    try:
        return TypeAdapter(LongShortConfig).validate_python(section)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(fault) for fault in error.errors())) from error


def _unknown_keys(section: Mapping[str, Any], cls: type, path: str) -> list[tuple[str, str]]:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    found = [(f"{path}.{key}", ", ".join(sorted(fields))) for key in section if key not in fields]
    for name, nested in {"dialogue": DialogueSettings, "reward": RewardWeights, "grading": GradingSettings}.items():
        if name in fields and isinstance(section.get(name), Mapping):
            found += _unknown_keys(section[name], nested, f"{path}.{name}")
    for name in ("max_turn_tokens", "system_prompt"):
        if name in fields and isinstance(section.get(name), Mapping):
            roles = [role.value for role in Role]
            found += [(f"{path}.{name}.{key}", ", ".join(roles)) for key in section[name] if key not in roles]
            found += [
                (f"{path}.{name} without {role!r}", ", ".join(roles)) for role in roles if role not in section[name]
            ]
    return found


def _describe(fault: Any) -> str:
    key = ".".join([SECTION, *(str(part) for part in fault["loc"] if part != "[key]")])
    message = fault["msg"].removeprefix("Value error, ")
    if message.startswith(SECTION):
        return message
    if fault["type"] == "missing":
        return f"{key} is missing; the base YAML longshort_verl/config/longshort_rl.yaml sets it: inherit it"
    return f"{key} is {fault['input']!r}: {message}"
