# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort evaluate``: typed mirror of ``longshort_evaluate.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.config.compose import read_recipe
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.evaluation.run import EvaluationSampling
from longshort_verl.evaluation.solo import Baselines, EarlyExit, solo_systems
from longshort_verl.generation.settings import ModelSettings
from longshort_verl.grading import GradingSettings

BASE = "longshort_evaluate.yaml"
_ENGINE = ("engine", "endpoint.*", "ray.*", *(f"vllm.{name}" for name in ("tensor*", "gpu*", "kv_*", "max_num*")))
MAY_CHANGE = (
    *("max_requests", "systems", "budgets", "sampling.samples", "early_exit.max_tokens", "baselines.run"),
    *("*.vllm.block_size", "*.vllm.enforce_eager", "*.path", *(f"*.{name}" for name in _ENGINE)),
)
"""Settings that an evaluation may resume with: how many replies, and how they are served. Models are compared by their
content."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The whole config; ``longshort_evaluate.yaml`` describes each setting."""

    long: ModelSettings
    short: ModelSettings
    solo: ModelSettings
    limit: Annotated[int, Field(ge=1)] | None
    systems: tuple[str, ...]
    dialogue: DialogueSettings
    sampling: EvaluationSampling
    early_exit: EarlyExit
    baselines: Baselines
    grading: GradingSettings
    budgets: tuple[Annotated[int, Field(ge=1)], ...]
    max_requests: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        if list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets is {list(self.budgets)}; give ascending numbers")
        if bool(self.long.path) is not bool(self.short.path):
            raise ValueError(f"long.path is {self.long.path!r} and short.path {self.short.path!r}; set both or neither")
        if self.early_exit.max_tokens and not self.solo.path:
            raise ValueError(
                f"early_exit.max_tokens is {list(self.early_exit.max_tokens)} and solo.path None: only the "
                "single model answers early; set solo.path, or early_exit.max_tokens=[]"
            )
        if self.baselines.run and not self.solo.path:
            raise ValueError(
                f"baselines.run is {[one.value for one in self.baselines.run]} and solo.path None: only the single "
                "model is prompted so; set solo.path, or baselines.run=[]"
            )
        if not self.long.path and not self.solo.path:
            raise ValueError("there is nothing to evaluate; set long.path and short.path, or solo.path")
        if unknown := [name for name in self.systems if name not in self._known_systems]:
            raise ValueError(
                f"systems has {unknown[0]!r}, and the models and settings give {', '.join(self._known_systems)}; give "
                "one of these, or set the model, early_exit.max_tokens or baselines.run of the system"
            )

    @property
    def _known_systems(self) -> list[str]:
        suffix, exits, baselines = self.sampling.solo_suffix, self.early_exit, self.baselines
        single = list(solo_systems(suffix, exits, baselines)) if self.solo.path else []
        return single + (["pair"] if self.long.path else [])

    def runs(self, system: str) -> bool:
        """Whether a system whose model is set runs."""
        return not self.systems or system in self.systems

    def within_reach(self) -> tuple[EvaluateConfig, list[int]]:
        """The config without the budgets above the single model's most tokens, and these budgets.

        A longer reply would be cut before such a budget, which the pair's dialogues may reach.
        """
        if not any(name != "pair" and self.runs(name) for name in self._known_systems):
            return self, []
        kept = tuple(budget for budget in self.budgets if budget <= self.sampling.solo_max_tokens)
        return replace(self, budgets=kept), [budget for budget in self.budgets if budget not in kept]


def read_evaluate(recipe: Path | None, overrides: Sequence[str]) -> EvaluateConfig:
    """Read a recipe, or the base alone, with overrides in Hydra's form; errors as in :func:`read_recipe`."""
    return read_recipe(recipe, overrides, EvaluateConfig, base=BASE)
