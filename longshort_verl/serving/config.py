# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort serve``: typed mirror of ``longshort_serve.yaml``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_verl.config.compose import read_recipe
from longshort_verl.config.model import ModelSettings
from longshort_verl.config.schema import ConfigError
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.serving.app import ServerSampling, ServerSettings

BASE = "longshort_serve.yaml"


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The whole config."""

    long: ModelSettings
    """The long role."""
    short: ModelSettings
    """The short role; the same settings as ``long`` for one engine that plays both."""
    dialogue: DialogueSettings
    """Limits and wording, as in RL."""
    sampling: ServerSampling
    """What a request is sampled with where it does not say."""
    server: ServerSettings
    """Name and limits of the endpoint."""

    def __post_init__(self) -> None:
        for role in ("long", "short"):
            if not getattr(self, role).path:
                raise ValueError(f"{role}.path is null; set it to the path or hub name of the {role} role's model")


def read_serve(recipe: Path | None, overrides: Sequence[str]) -> tuple[ServeConfig, str | None]:
    """The config of a recipe, or of the base alone, with overrides in Hydra's form; and the key that clients need.

    Raises:
        ConfigError: the recipe cannot be read, a setting is missing, unknown, mistyped or beyond its limits, or others
            could reach an endpoint that has no key.
    """
    config = read_recipe(recipe, overrides, ServeConfig, base=BASE)
    key = os.environ.get(config.server.api_key_variable) or None
    if key is None and not _is_loopback(config.server.host):
        raise ConfigError(
            f"server.host is {config.server.host!r}, which others can reach, and there is no API key; set the "
            f"environment variable {config.server.api_key_variable}, or server.host=127.0.0.1"
        )
    return config, key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
