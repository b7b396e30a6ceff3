# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort serve``; its base ``longshort_serve.yaml`` describes every setting."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.config.compose import ConfigError, read_recipe
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.generation.settings import ModelSettings

BASE = "longshort_serve.yaml"


@dataclass(frozen=True, kw_only=True)
class ServerSampling:
    """Sampling of a request that does not set its own."""

    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Name and limits of the endpoint."""

    name: Annotated[str, Field(min_length=1)]
    host: str
    port: Annotated[int, Field(ge=0, lt=2**16)]
    api_key_variable: str
    max_header_bytes: Annotated[int, Field(ge=1024)]
    max_body_bytes: Annotated[int, Field(ge=1)]
    max_connections: Annotated[int, Field(ge=1)]
    client_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_requests: Annotated[int, Field(ge=1)]
    max_choices: Annotated[int, Field(ge=1)]
    shutdown_s: Annotated[int, Field(ge=1)]
    no_answer: str


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The config of ``longshort serve``; two roles with the same model settings share one engine."""

    long: ModelSettings
    short: ModelSettings
    dialogue: DialogueSettings
    sampling: ServerSampling
    server: ServerSettings

    def __post_init__(self) -> None:
        for role in ("long", "short"):
            if not getattr(self, role).path:
                raise ValueError(f"{role}.path is null; set it to the path or hub name of the {role} role's model")


def read_serve(recipe: Path | None, overrides: Sequence[str]) -> tuple[ServeConfig, str | None]:
    """The config of a recipe, or of the base, with overrides in Hydra's form; and the API key, None without one.

    Raises:
        ConfigError: the recipe cannot be read; a setting is missing, unknown, mistyped or out of range; or other
            machines could reach an endpoint without a key.
    """
    config = read_recipe(recipe, overrides, ServeConfig, base=BASE)
    key = os.environ.get(config.server.api_key_variable) or None
    if key is None and not _is_loopback(config.server.host):
        raise ConfigError(
            f"server.host is {config.server.host!r}, which other machines can reach, but there is no API key; set the "
            f"environment variable {config.server.api_key_variable}, or server.host=127.0.0.1"
        )
    return config, key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
