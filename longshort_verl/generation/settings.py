# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Typed mirror of ``longshort_model.yaml``: a model and the engine that serves it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass


class Engine(str, Enum):
    """Which engine serves the model."""

    VLLM = "vllm"
    """vLLM, started by this process."""
    ENDPOINT = "endpoint"
    """OpenAI-compatible servers."""
    RAY = "ray"
    """verl's rollout servers on a Ray cluster."""


@dataclass(frozen=True, kw_only=True)
class VLLMSettings:
    """vLLM's engine arguments of the same names, for the engines ``vllm`` and ``ray``."""

    max_model_len: Annotated[int, Field(ge=1)]
    dtype: str
    tensor_parallel_size: Annotated[int, Field(ge=1)]
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    kv_cache_memory_bytes: Annotated[int, Field(ge=1)] | None
    max_num_seqs: Annotated[int, Field(ge=1)]
    block_size: Annotated[int, Field(ge=1)] | None
    enforce_eager: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How OpenAI-compatible servers are called."""

    timeout_s: Annotated[float, Field(gt=0)]
    max_retries: Annotated[int, Field(ge=0)]
    max_concurrency: Annotated[int, Field(ge=1)]
    vllm_extensions: bool


@dataclass(frozen=True, kw_only=True)
class EndpointOptions(EndpointSettings):
    """Which OpenAI-compatible servers, and how they are called."""

    base_urls: tuple[str, ...]
    api_key_variable: str


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Devices of verl's rollout servers."""

    nnodes: Annotated[int, Field(ge=1)]
    n_gpus_per_node: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model and the engine that serves it; ``config/longshort_model.yaml`` documents every setting."""

    path: str | None
    tokenizer: str | None
    engine: Engine
    vllm: VLLMSettings
    endpoint: EndpointOptions
    ray: RayOptions

    def __post_init__(self) -> None:
        if self.engine is Engine.ENDPOINT and not self.endpoint.base_urls:
            raise ValueError("base_urls is empty; set model.endpoint.base_urls=[http://127.0.0.1:8000/v1]")
