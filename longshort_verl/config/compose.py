# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A recipe of one of our own commands, composed by Hydra and read as its typed mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from longshort_verl.config.schema import ConfigError, read_settings

_Config = TypeVar("_Config")


def read_recipe(recipe: Path | None, overrides: Sequence[str], cls: type[_Config], *, base: str) -> _Config:
    """The config of a recipe, or of the base alone, with overrides in Hydra's form.

    Args:
        recipe: a YAML that inherits the base; None for the base itself.
        overrides: settings as ``key=value``.
        cls: the typed mirror.
        base: file name of the base YAML beside this module.

    Raises:
        ConfigError: the recipe cannot be read, or a setting is missing, unknown, mistyped or beyond its limits.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = recipe or Path(__file__).parent / base
    if not path.is_file():
        raise ConfigError(f"there is no recipe {path}")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(path.parent.resolve()), version_base=None):
            # Of two search paths Hydra takes the first.
            own = any(override.startswith("hydra.searchpath=") for override in overrides)
            search = [] if own else ["hydra.searchpath=[pkg://longshort_verl.config]"]
            config = compose(path.stem, overrides=[*search, *overrides])
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {error}") from error
    return read_settings(plain, cls, "", base=base)  # pyright: ignore[reportArgumentType]: a mapping
