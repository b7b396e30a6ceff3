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
"""The config of ``longshort chunk`` and ``longshort importance``: typed mirror of ``longshort_importance.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_verl.config.model import Engine, ModelSettings
from longshort_verl.config.recipe import read_recipe
from longshort_verl.data.chunking import ChunkSettings
from longshort_verl.data.importance import MetricSettings
from longshort_verl.data.monte_carlo import Elicitation, RolloutSettings
from longshort_verl.data.sampling_plan import Plan, PlanSettings
from longshort_verl.grading import GradingSettings

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
