# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort traces``: typed mirror of ``longshort_traces.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_verl.chains.sample import TraceSampling
from longshort_verl.config.compose import read_recipe
from longshort_verl.generation.settings import ModelSettings
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
