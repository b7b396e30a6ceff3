# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Opens the generator of a config, and counts tokens of its model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pkgutil import resolve_name

from longshort_verl.config.compose import ConfigError
from longshort_verl.generation.base import Generator, load_tokenizer
from longshort_verl.generation.endpoint import EndpointGenerator
from longshort_verl.generation.settings import Engine, ModelSettings
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.types import Role

RAY_GENERATOR = "longshort_verl.adapters.server_client:RayGenerator"
"""A plugin by name: the adapters, which alone import verl, are above this package."""


@asynccontextmanager
async def open_generator(settings: ModelSettings) -> AsyncIterator[Generator]:
    """Start or reach the model's engine; what was started ends with the block. A ConfigError if ``path`` is null."""
    if not settings.path:
        raise ConfigError("model.path is null; set it to the path or hub name of the model")
    if settings.engine is Engine.RAY:
        engine = resolve_name(RAY_GENERATOR)(settings.path, settings.ray, settings.vllm)
    elif settings.engine is Engine.ENDPOINT:
        # Servers without keys accept any.
        key = os.environ.get(settings.endpoint.api_key_variable) or "none"
        engine = EndpointGenerator(settings.endpoint.base_urls, settings.path, key, settings.endpoint)
    else:
        engine = VLLMGenerator(settings.path, settings.vllm)
    async with engine as generator:
        yield generator


@asynccontextmanager
async def open_pair(long: ModelSettings, short: ModelSettings) -> AsyncIterator[dict[Role, Generator]]:
    """Both roles' healthy generators, else a ConfigError; one shared engine if both have the same settings."""
    async with AsyncExitStack() as stack:
        generators = {Role.LONG: await stack.enter_async_context(open_generator(long))}
        generators[Role.SHORT] = (
            generators[Role.LONG] if long == short else await stack.enter_async_context(open_generator(short))
        )
        for role, generator in generators.items():
            fault = await generator.check()
            if fault:
                raise ConfigError(f"the {role.value} role's model is not available: {fault}")
        yield generators


def token_counter(settings: ModelSettings) -> Callable[[str], int]:
    """Counts tokens of a text by the model's tokenizer; a ConfigError if there is none."""
    path = settings.tokenizer or settings.path
    if not path:
        raise ConfigError("model.path is null; set it, or model.tokenizer, to count tokens")
    tokenizer = load_tokenizer(path, "; if model.path is a server's name for its model, set model.tokenizer")
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
