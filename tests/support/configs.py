# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Composed configs for tests, as verl's main would see them."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from longshort_verl.config import compose

ROOT = Path(__file__).resolve().parents[2]


def compose_config(name: str, folder: Path, *overrides: str) -> DictConfig:
    """The config ``name`` of ``folder`` with command-line overrides of keys.

    Composing takes most of a second, so it is done once; the overrides are read and applied as Hydra does.
    """
    config = copy.deepcopy(_composed(name, folder))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        force = override.is_add() or override.is_force_add()
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=force)
    return config


@functools.cache
def _composed(name: str, folder: Path) -> DictConfig:
    return compose.compose_config(folder, name)


def tiny_config(models: dict[str, Path], problems: Path, *overrides: str) -> DictConfig:
    """The recipe tiny_cpu on given models and problems."""
    return compose_config(
        "rl",
        ROOT / "recipes" / "tiny_cpu",
        f"actor_rollout_ref.model.path={models['long']}",
        f"long_short.short.model.path={models['short']}",
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        *overrides,
    )
