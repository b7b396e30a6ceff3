# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Typed mirror of ``longshort_model.yaml``: a model and who serves it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from longshort_verl.generation import EndpointSettings, VLLMSettings


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
