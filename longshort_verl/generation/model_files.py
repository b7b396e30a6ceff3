# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a model's files before an engine starts or a journal is opened."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from longshort_verl.config.compose import ConfigError
from longshort_verl.generation.settings import Engine, ModelSettings


class ModelFiles(NamedTuple):
    """What was found at a model's path."""

    found: str
    cure: str = ""
    """What to do; "" if nothing is wrong."""
    usable: bool = True
    """Whether an engine could start with it: False is certain, and True may be a name to download."""
    num_bytes: int = 0
    """Of the weights."""


def look_at_model(path: str) -> ModelFiles:
    """Whether a model's folder, or the hub's cache, holds a model; nothing is downloaded or loaded."""
    local = Path(path).expanduser()
    if local.is_file():  # weights in one file, such as GGUF
        return ModelFiles(path, num_bytes=local.stat().st_size)
    if local.is_dir():
        weights = [file for pattern in ("*.safetensors", "*.bin") for file in local.glob(pattern)]
        parts = {"config.json": (local / "config.json").is_file(), "weights": bool(weights)}
        if missing := [part for part, present in parts.items() if not present]:
            cure = "give the folder of a Hugging Face model, such as `longshort export` writes"
            return ModelFiles(f"{path} has no {' and no '.join(missing)}", cure, usable=False)
        return ModelFiles(path, num_bytes=sum(file.stat().st_size for file in weights))
    from huggingface_hub import constants, try_to_load_from_cache

    is_path = path.startswith(("/", ".", "~")) or path.count("/") > 1
    if is_path:
        cure = "set model.path to a folder that exists on every node"
        return ModelFiles(f"there is no folder {path}", cure, usable=False)
    if isinstance(try_to_load_from_cache(path, "config.json"), str):
        return ModelFiles(f"{path}, in the hub's cache")
    found, cure = f"{path} is neither a folder nor in the hub's cache", f"hf download {path}, on every node"
    return ModelFiles(found, cure, usable=not constants.HF_HUB_OFFLINE)


def require_model(settings: ModelSettings) -> None:
    """Refuse a model that no engine of ours could load; a server's own model is not looked at.

    Raises:
        ConfigError: there is no model at the path.
    """
    if settings.path and settings.engine is not Engine.ENDPOINT:
        require_files(settings.path)


def require_files(path: str) -> None:
    """:func:`require_model` by path."""
    model = look_at_model(path)
    if not model.usable:
        raise ConfigError(f"no model at {path}: {model.found}; {model.cure}")
