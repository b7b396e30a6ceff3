# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort chunk`` and ``longshort importance``: typed mirror of ``longshort_importance.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_verl.chains.chunk import ChunkSettings
from longshort_verl.chains.plan import Plan, PlanSettings
from longshort_verl.chains.rollouts import Elicitation, RolloutSettings
from longshort_verl.config.compose import read_recipe
from longshort_verl.generation.settings import Engine, ModelSettings
from longshort_verl.grading import GradingSettings
from longshort_verl.importance import MetricSettings

BASE = "longshort_importance.yaml"


@dataclass(frozen=True, kw_only=True)
class ImportanceConfig:
    """The whole config."""

    model: ModelSettings
    """The model that is rolled out."""
    chunk: ChunkSettings
    """How traces become thoughts."""
    rollouts: RolloutSettings
    """What a rollout is."""
    plan: PlanSettings
    """How many rollouts, and where."""
    metric: MetricSettings
    """The metric."""
    grading: GradingSettings
    """Limits of grading."""
    max_traces: int
    """Most traces that are worked on at once."""

    def __post_init__(self) -> None:
        if self.max_traces < 1:
            raise ValueError(f"max_traces is {self.max_traces!r}; give at least 1")
        if self.plan.plan is Plan.ADAPTIVE and self.plan.prescreen:
            if self.rollouts.elicitation is not Elicitation.FORCED:
                raise ValueError(
                    "plan.prescreen asks for the gold answer right after a prefix, but rollouts.elicitation is "
                    f"{self.rollouts.elicitation.value!r}; set plan.prescreen=false, or rollouts.elicitation=forced"
                )
            if self.model.engine is Engine.ENDPOINT:
                raise ValueError(
                    "plan.prescreen needs likelihoods, which model.engine=endpoint does not give; set "
                    "plan.prescreen=false, or model.engine to vllm or ray"
                )


def read_importance(recipe: Path | None, overrides: Sequence[str]) -> ImportanceConfig:
    """The config of a recipe, or of the base alone, with overrides in Hydra's form.

    Raises:
        ConfigError: the recipe cannot be read, or a setting is missing, unknown, mistyped or beyond its limits.
    """
    return read_recipe(recipe, overrides, ImportanceConfig, base=BASE)
