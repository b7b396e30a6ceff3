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
    """vLLM's engine arguments of the same names."""

    max_model_len: Annotated[int, Field(ge=1)]
    """Maximum tokens of prompt and reply together."""
    dtype: str
    """``bfloat16``, ``float32``, … or ``auto`` for the checkpoint's own."""
    tensor_parallel_size: Annotated[int, Field(ge=1)]
    """GPUs that share the model."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    """Share of the GPU's memory (on a CPU: of the machine's memory) for weights and cache."""
    kv_cache_memory_bytes: Annotated[int, Field(ge=1)] | None
    """Memory of the cache alone; None for what ``gpu_memory_utilization`` leaves. On a CPU the environment variable
    ``VLLM_CPU_KVCACHE_SPACE`` (GiB) takes precedence."""
    max_num_seqs: Annotated[int, Field(ge=1)]
    """Maximum requests in one batch."""
    block_size: Annotated[int, Field(ge=1)] | None
    """Tokens of a block of the prefix cache; None for vLLM's default."""
    enforce_eager: bool
    """Disables compilation and CUDA graphs: a faster start and slower generation."""
    seed: int
    """Seed of requests without a seed."""


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How OpenAI-compatible servers are called."""

    timeout_s: Annotated[float, Field(gt=0)]
    """Timeout of one attempt, in seconds."""
    max_retries: Annotated[int, Field(ge=0)]
    """Retries after the first attempt, by the openai client: on timeouts, lost connections, 408, 409, 429 and 5xx."""
    max_concurrency: Annotated[int, Field(ge=1)]
    """Maximum requests in flight, over all servers."""
    vllm_extensions: bool
    """Whether the servers are vLLM: they continue an assistant's message and keep special tokens in the text. Without
    it a vLLM server drops tags that are special tokens of its model."""


@dataclass(frozen=True, kw_only=True)
class EndpointOptions(EndpointSettings):
    """Which OpenAI-compatible servers, and how they are called."""

    base_urls: tuple[str, ...]
    api_key_variable: str
    """Environment variable with the API key; may be unset for servers without keys."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Devices of verl's rollout servers."""

    nnodes: Annotated[int, Field(ge=1)]
    n_gpus_per_node: Annotated[int, Field(ge=1)]
    """Devices on each node; a replica uses ``vllm.tensor_parallel_size`` of them."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model and the engine that serves it."""

    path: str | None
    """Path or hub name; None where no command uses the model."""
    tokenizer: str | None
    """Path of the tokenizer that counts tokens; None for ``path``."""
    engine: Engine
    vllm: VLLMSettings
    """Settings of the engines ``vllm`` and ``ray``."""
    endpoint: EndpointOptions
    ray: RayOptions

    def __post_init__(self) -> None:
        if self.engine is Engine.ENDPOINT and not self.endpoint.base_urls:
            raise ValueError("base_urls is empty; set model.endpoint.base_urls=[http://127.0.0.1:8000/v1]")
