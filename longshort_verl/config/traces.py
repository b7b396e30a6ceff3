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
"""The config of ``longshort traces``: typed mirror of ``longshort_traces.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_verl.config.model import ModelSettings
from longshort_verl.config.recipe import read_recipe
from longshort_verl.data.sampling_traces import TraceSampling
from longshort_verl.grading import GradingSettings

BASE = "longshort_traces.yaml"


@dataclass(frozen=True, kw_only=True)
class TracesConfig:
    """The whole config."""

    model: ModelSettings
    """Who thinks."""
    sampling: TraceSampling
    """How."""
    grading: GradingSettings
    """Limits of grading."""
    max_requests: int
    """Most requests in flight."""

    def __post_init__(self) -> None:
        if self.max_requests < 1:
            raise ValueError(f"max_requests is {self.max_requests!r}; give at least 1")


def read_traces_config(recipe: Path | None, overrides: Sequence[str]) -> TracesConfig:
    """The config of a recipe, or of the base alone, with overrides in Hydra's form.

    Raises:
        ConfigError: the recipe cannot be read, or a setting is missing, unknown, mistyped or beyond its limits.
    """
    return read_recipe(recipe, overrides, TracesConfig, base=BASE)
