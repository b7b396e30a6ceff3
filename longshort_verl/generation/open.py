# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The generator that a config asks for, open while it is used, and the token counts of its model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from longshort_verl.config.compose import ConfigError
from longshort_verl.config.model import Engine, ModelSettings
from longshort_verl.generation import EndpointGenerator, StreamingGenerator, VLLMGenerator
from longshort_verl.types import Role


@asynccontextmanager
async def open_generator(settings: ModelSettings) -> AsyncIterator[StreamingGenerator]:
    """Start or reach the model, and end what was started.

    Raises:
        ConfigError: no model is named.
    """
    if not settings.path:
        raise ConfigError("model.path is null; set it to the path or hub name of the model that is asked")
    if settings.engine is Engine.RAY:
        from longshort_verl.adapters.server_client import RayGenerator

        async with RayGenerator(settings.path, settings.ray, settings.vllm) as generator:
            yield generator
    elif settings.engine is Engine.ENDPOINT:
        endpoint = settings.endpoint
        # Servers that ask for none take any.
        key = os.environ.get(endpoint.api_key_variable) or "none"
        async with EndpointGenerator(endpoint.base_urls, settings.path, key, endpoint) as generator:
            yield generator
    else:
        async with VLLMGenerator(settings.path, settings.vllm) as generator:
            yield generator


@asynccontextmanager
async def open_pair(long: ModelSettings, short: ModelSettings) -> AsyncIterator[dict[Role, StreamingGenerator]]:
    """Both roles' generators; one engine where both have the same settings.

    Raises:
        ConfigError: a model is not named, or a server does not answer or has not the model.
    """
    async with AsyncExitStack() as stack:
        generators: dict[Role, StreamingGenerator] = {Role.LONG: await stack.enter_async_context(open_generator(long))}
        generators[Role.SHORT] = (
            generators[Role.LONG] if long == short else await stack.enter_async_context(open_generator(short))
        )
        for role, generator in generators.items():
            fault = await generator.check() if isinstance(generator, EndpointGenerator) else ""
            if fault:
                raise ConfigError(f"the {role.value} role's model is not to be reached: {fault}")
        yield generators


def load_tokenizer(path: str, hint: str = "") -> Any:
    """The Hugging Face tokenizer at a path.

    Raises:
        ConfigError: there is none; ``hint`` is added to the message.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no tokenizer could be loaded from {path!r}: {error}{hint}") from error


def token_counter(settings: ModelSettings) -> Callable[[str], int]:
    """Tokens of a text by the model's own tokenizer.

    Raises:
        ConfigError: there is no tokenizer at that path.
    """
    path = settings.tokenizer or settings.path
    if not path:
        raise ConfigError("model.path is null; set it, or model.tokenizer, to count tokens with")
    tokenizer = load_tokenizer(
        path, "; where model.path is the name that a server gives its model, set model.tokenizer"
    )
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
