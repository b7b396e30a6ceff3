# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The configs of ``longshort traces``, and of ``longshort chunk`` and ``longshort importance``.

They mirror ``longshort_traces.yaml`` and ``longshort_importance.yaml``, which hold the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.chains.chunk import ChunkSettings
from longshort_verl.chains.plan import Plan, PlanSettings
from longshort_verl.chains.rollouts import Elicitation, RolloutSettings
from longshort_verl.config.compose import read_recipe
from longshort_verl.generation.settings import Engine, ModelSettings
from longshort_verl.grading import GradingSettings
from longshort_verl.importance import MetricSettings

NOT_IN_RESULTS = (
    "model.engine",
    "model.tokenizer",
    "model.vllm.*",
    "model.endpoint.*",
    "model.ray.*",
    "grading.timeout_s",
    "grading.max_workers",
)
"""Settings of where and how fast requests run; a run may resume with other values."""


@dataclass(frozen=True, kw_only=True)
class TraceSampling:
    """How chains are sampled. The defaults are in ``config/longshort_traces.yaml``."""

    prompt: str
    """The user's message, with ``{problem}``."""
    num_samples: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    """Token limit of one chain."""
    temperature: Annotated[float, Field(ge=0)]
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: int
    """Each chain has its own seed, derived from this one, its problem and its number."""

    def __post_init__(self) -> None:
        if "{problem}" not in self.prompt:
            raise ValueError(f"sampling.prompt is {self.prompt!r}, without {{problem}}; add it")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"sampling.temperature is 0 for {self.num_samples} samples, which would all be the same; set it above "
                "0, or set sampling.num_samples=1"
            )


@dataclass(frozen=True, kw_only=True)
class TracesConfig:
    """The config of ``longshort traces``."""

    model: ModelSettings
    """The model that writes the chains."""
    sampling: TraceSampling
    grading: GradingSettings
    max_requests: Annotated[int, Field(ge=1)]
    """Maximum number of requests in flight."""


@dataclass(frozen=True, kw_only=True)
class ImportanceConfig:
    """The config of ``longshort chunk`` and ``longshort importance``."""

    model: ModelSettings
    """The model that is rolled out, and that chunks with ``chunk.chunker=llm``."""
    chunk: ChunkSettings
    rollouts: RolloutSettings
    plan: PlanSettings
    metric: MetricSettings
    grading: GradingSettings
    max_traces: Annotated[int, Field(ge=1)]
    """Maximum number of chains in progress."""

    def __post_init__(self) -> None:
        if self.plan.plan is Plan.PRUNED and self.metric.metric != "paper":
            raise ValueError(
                f"plan.plan is 'pruned' and metric.metric is {self.metric.metric!r}: only the paper's metric has a "
                "bound before any rollout; set metric.metric=paper, or plan.plan to adaptive or fixed"
            )
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


def read_traces_config(recipe: Path | None, overrides: Sequence[str]) -> TracesConfig:
    """The config of a recipe with overrides; without a recipe, of the base YAML alone. Raises ConfigError."""
    return read_recipe(recipe, overrides, TracesConfig, base="longshort_traces.yaml")


def read_importance(recipe: Path | None, overrides: Sequence[str]) -> ImportanceConfig:
    """As :func:`read_traces_config`, for ``longshort chunk`` and ``longshort importance``."""
    return read_recipe(recipe, overrides, ImportanceConfig, base="longshort_importance.yaml")
