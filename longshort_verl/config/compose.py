# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The one way to compose and to read a config, for rollout servers, ``longshort plan``, ``doctor`` and all commands.

:func:`compose_config` composes any recipe with Hydra. :func:`read_settings` turns a composed section into its settings
class, which declares the type and the range of every setting. :func:`read_recipe` does both, for a command of ours.
Defaults live in the YAML files beside this module and nowhere else.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from longshort_verl.types import Role

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG = Path(__file__).parent
"""Folder of the base YAMLs."""
FAMILY = "family"
"""Section of a recipe that its settings refer to by interpolation; no command reads it."""

_Settings = TypeVar("_Settings")


class ConfigError(ValueError):
    """A config that cannot work, with the offending value and the cure."""


def compose_config(folder: Path, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A config as ``python -m verl.trainer.main_ppo --config-dir folder --config-name name overrides`` composes it.

    The result lacks the section ``hydra``; its interpolations are not resolved. Hydra searches verl's config folder,
    ``folder`` (:data:`CONFIG` for a base YAML alone) and the base YAMLs, in this order, and then the recipe's own
    ``hydra.searchpath`` or an override of it. Hydra's global state stays as it is, so that a running Hydra job may
    call this. verl is not imported.

    Raises:
        ConfigError: the folder, the config, an inherited config or an overridden key does not exist, or a YAML is
            malformed.
    """
    import yaml
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the folder of the recipe")
    name = name.removesuffix(".yaml")
    search = create_config_search_path(None)
    verl = importlib.util.find_spec("verl")
    verl_folders = list(verl.submodule_search_locations or []) if verl else []
    for path in (*(Path(root) / "trainer" / "config" for root in verl_folders), folder.resolve(), CONFIG):
        search.prepend("longshort", f"file://{path}", anchor="schema")
    try:
        config = ConfigLoaderImpl(search).load_configuration(name, list(overrides), RunMode.RUN, from_shell=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        # Hydra leaves some messages to the cause alone.
        reasons = " ".join(str(part) for part in (error, error.__cause__) if part)
        raise ConfigError(f"{folder / name}.yaml: {' '.join(reasons.split())}") from error
    with open_dict(config):
        del config["hydra"]
    return config


def read_recipe(recipe: Path | None, overrides: Sequence[str], cls: type[_Settings], *, base: str) -> _Settings:
    """The config of one of our own commands as its settings class; see :func:`compose_config`, :func:`read_settings`.

    ``recipe`` is a YAML that inherits ``base``, the file name of a base YAML; None for the base itself.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = recipe or CONFIG / base
    if not path.is_file():
        raise ConfigError(f"there is no recipe {path}")
    config = compose_config(path.parent, path.name, overrides)
    try:
        section = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {error}") from error
    section.pop(FAMILY, None)
    return read_settings(section, cls, "", base=base)


def read_settings(section: Mapping[str, Any], cls: type[_Settings], path: str, *, base: str) -> _Settings:
    """A resolved section as its settings class, a dataclass whose nested dataclasses are nested sections.

    ``path`` is the name of the section, ``""`` for a whole config; ``base`` names the base YAML that sets every key.

    Raises:
        ConfigError: one line per setting that is missing, unknown, of the wrong type or out of range.
    """
    unknown = _unknown_keys(section, cls, path)
    if unknown:
        raise ConfigError("\n".join(f"{key} is no setting; known ones here are {known}" for key, known in unknown))
    try:
        return TypeAdapter(cls).validate_python(section)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(fault, path, base) for fault in error.errors())) from error


def _unknown_keys(section: Mapping[str, Any], cls: type, path: str) -> list[tuple[str, str]]:
    """Each key that nothing reads, and the known ones at its place."""
    types = get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    unknown = [(_join(path, key), ", ".join(sorted(fields))) for key in section if key not in fields]
    for name in fields:
        nested = section.get(name)
        if not isinstance(nested, Mapping):
            continue
        if dataclasses.is_dataclass(types[name]):
            unknown += _unknown_keys(nested, types[name], _join(path, name))
        elif get_args(types[name])[:1] == (Role,):
            roles = [role.value for role in Role]
            unknown += [(_join(path, name, key), ", ".join(roles)) for key in nested if key not in roles]
            unknown += [
                (f"{_join(path, name)} without {role!r}", ", ".join(roles)) for role in roles if role not in nested
            ]
    return unknown


def _join(*parts: Any) -> str:
    return ".".join(str(part) for part in parts if part != "")


def _describe(fault: Any, path: str, base: str) -> str:
    # Parts in brackets are no keys: pydantic's "[key]", and the tags of a union's members.
    key = _join(path, *(part for part in fault["loc"] if not str(part).startswith("[")))
    message = fault["msg"].removeprefix("Value error, ")
    if path and message.startswith(path):
        return message
    if fault["type"] == "missing":
        return f"{key} is missing; the base YAML longshort_verl/config/{base} sets it: inherit it"
    # A relation between settings names their values itself.
    return f"{key} is {fault['input']!r}: {message}" if key else message
