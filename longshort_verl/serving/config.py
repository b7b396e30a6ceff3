# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort serve``; its base is ``longshort_serve.yaml``."""

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
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Nucleus mass."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Name and limits of the endpoint."""

    name: Annotated[str, Field(min_length=1)]
    """Model name in the API."""
    host: str
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, lt=2**16)]
    """Port to listen on; 0 for any free port."""
    api_key_variable: str
    """Environment variable with the key that clients must send; without a key only a loopback address is allowed."""
    max_body_bytes: Annotated[int, Field(ge=1)]
    """Largest body of a request."""
    max_requests: Annotated[int, Field(ge=1)]
    """Most dialogues at once; further requests get status 429."""
    max_choices: Annotated[int, Field(ge=1)]
    """Most replies to one request (``n``)."""
    shutdown_s: Annotated[int, Field(ge=1)]
    """Seconds that running dialogues have to end after the server was asked to stop."""
    no_answer: str
    """Content of a reply without an answer; ``{stop_reason}`` is replaced by the reason. Some harnesses retry a request
    whose reply is empty, which would give a failed dialogue a second chance."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The config of ``longshort serve``."""

    long: ModelSettings
    """The long role."""
    short: ModelSettings
    """The short role; the same settings as ``long`` for one engine that plays both."""
    dialogue: DialogueSettings
    """Limits and wording, as in RL."""
    sampling: ServerSampling
    """Sampling of a request that does not set its own."""
    server: ServerSettings
    """Name and limits of the endpoint."""

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
