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
from enum import Enum
from pathlib import Path

from longshort_verl.config.schema import ConfigError, read_settings
from longshort_verl.data.chunking import ChunkSettings
from longshort_verl.data.importance import MetricSettings
from longshort_verl.data.monte_carlo import Elicitation, RolloutSettings
from longshort_verl.data.sampling_plan import Plan, PlanSettings
from longshort_verl.generation import EndpointSettings, VLLMSettings
from longshort_verl.grading import GradingSettings

BASE = "longshort_importance.yaml"


class Engine(str, Enum):
    """Who serves the model."""

    VLLM = "vllm"
    """vLLM, started by this process."""
    ENDPOINT = "endpoint"
    """OpenAI-compatible servers."""
    RAY = "ray"
    """verl's own rollout servers, on a Ray cluster."""


@dataclass(frozen=True, kw_only=True)
class EndpointOptions(EndpointSettings):
    """Which servers, and how they are called."""

    base_urls: tuple[str, ...]
    """Of servers of the same model."""
    api_key_variable: str
    """Environment variable that holds the key; servers that ask for none need none."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where verl's rollout servers run."""

    nnodes: int
    """Nodes of the cluster to use."""
    n_gpus_per_node: int
    """Devices on each; a replica takes ``vllm.tensor_parallel_size`` of them."""

    def __post_init__(self) -> None:
        for name in ("nnodes", "n_gpus_per_node"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give at least 1")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model that is rolled out."""

    path: str | None
    """Path or hub name; None where no command asks a model."""
    tokenizer: str | None
    """Path of its tokenizer, to count tokens with; None for ``path``."""
    engine: Engine
    """Who serves it."""
    vllm: VLLMSettings
    """Engine arguments."""
    endpoint: EndpointOptions
    """Servers."""
    ray: RayOptions
    """verl's rollout servers."""

    def __post_init__(self) -> None:
        if self.engine is Engine.ENDPOINT and not self.endpoint.base_urls:
            raise ValueError("base_urls is empty; set model.endpoint.base_urls=[http://127.0.0.1:8000/v1]")


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
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = recipe or Path(__file__).parent / BASE
    if not path.is_file():
        raise ConfigError(f"there is no recipe {path}")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(path.parent.resolve()), version_base=None):
            config = compose(path.stem, overrides=["hydra.searchpath=[pkg://longshort_verl.config]", *overrides])
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {error}") from error
    return read_settings(plain, ImportanceConfig, "", base=BASE)  # pyright: ignore[reportArgumentType]: a mapping
