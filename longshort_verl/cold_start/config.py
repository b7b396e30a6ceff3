# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort cold-start``; ``longshort_cold_start.yaml`` holds the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.cold_start.select import SelectionSettings
from longshort_verl.cold_start.transcripts import Rows
from longshort_verl.cold_start.writer import WriterKind, WriterSettings
from longshort_verl.config.compose import read_recipe
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.generation.settings import ModelSettings
from longshort_verl.grading import GradingSettings


@dataclass(frozen=True, kw_only=True)
class ColdStartConfig:
    """The config of ``longshort cold-start``."""

    tokenizer: str | None
    """Path of the tokenizer that counts tokens: that of the models to be trained."""
    select: SelectionSettings
    rethink_text: str
    """The short role's words before another thought if nothing was written."""
    writer: WriterSettings
    writer_model: ModelSettings
    dialogue: DialogueSettings
    """Limits and wording, as in RL."""
    grading: GradingSettings
    rows: Rows
    """What a row of the training data is."""
    val_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the problems that is held out, at least one problem."""
    seed: int
    """Seed of the split."""
    max_traces: Annotated[int, Field(ge=1)]
    """Maximum number of chains in progress."""

    def __post_init__(self) -> None:
        if not self.tokenizer:
            raise ValueError("tokenizer is null; set it to the path of the models to be trained")
        if not self.rethink_text.strip():
            raise ValueError("rethink_text is empty, but a turn without text is malformed; set it to some text")
        if self.writer.kind is not WriterKind.NONE and not self.writer_model.path:
            kind = f"writer.kind is {self.writer.kind.value!r}"
            raise ValueError(f"{kind} and writer_model.path is null; set it, or set writer.kind=none")


def read_cold_start(recipe: Path | None, overrides: Sequence[str]) -> ColdStartConfig:
    """The config of a recipe with overrides; without a recipe, of the base YAML alone. Raises ConfigError."""
    return read_recipe(recipe, overrides, ColdStartConfig, base="longshort_cold_start.yaml")
