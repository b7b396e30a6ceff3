# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort cold-start``: typed mirror of ``longshort_cold_start.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longshort_verl.cold_start.dialogues import WriterKind, WriterSettings
from longshort_verl.cold_start.select import SelectionSettings
from longshort_verl.config.compose import read_recipe
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.generation.settings import ModelSettings
from longshort_verl.grading import GradingSettings

BASE = "longshort_cold_start.yaml"


@dataclass(frozen=True, kw_only=True)
class ColdStartConfig:
    """The whole config."""

    tokenizer: str | None
    """Path of the tokenizer that counts tokens, the learning models' own."""
    select: SelectionSettings
    """Which thoughts become long turns."""
    rethink_text: str
    """What the short role says where nothing was written and another thought follows."""
    writer: WriterSettings
    """What becomes of the other thoughts."""
    writer_model: ModelSettings
    """Who writes, where a model does."""
    dialogue: DialogueSettings
    """Limits and wording, as in RL."""
    grading: GradingSettings
    """Limits of grading."""
    val_share: float
    """Share of the problems that is held out; one at least."""
    seed: int
    """Of the split."""
    max_traces: int
    """Most traces that are worked on at once."""

    def __post_init__(self) -> None:
        if not self.tokenizer:
            raise ValueError("tokenizer is null; set it to the path of the models that are to learn")
        if not self.rethink_text.strip():
            raise ValueError("rethink_text is empty, but a turn without text is malformed; say something")
        if not 0 < self.val_share < 1:
            raise ValueError(f"val_share is {self.val_share!r}; give a number between 0 and 1")
        if self.max_traces < 1:
            raise ValueError(f"max_traces is {self.max_traces!r}; give at least 1")
        if self.writer.kind is WriterKind.MODEL and not self.writer_model.path:
            raise ValueError(
                "writer.kind is 'model' and writer_model.path null; name the model, or set writer.kind=none"
            )


def read_cold_start(recipe: Path | None, overrides: Sequence[str]) -> ColdStartConfig:
    """The config of a recipe, or of the base alone, with overrides in Hydra's form.

    Raises:
        ConfigError: the recipe cannot be read, or a setting is missing, unknown, mistyped or beyond its limits.
    """
    return read_recipe(recipe, overrides, ColdStartConfig, base=BASE)
