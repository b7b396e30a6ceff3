# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The config of ``longshort evaluate``: typed mirror of ``longshort_evaluate.yaml``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_verl.config.compose import read_recipe
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.evaluation.run import EarlyExit, EvaluationSampling
from longshort_verl.generation.settings import ModelSettings
from longshort_verl.grading import GradingSettings

BASE = "longshort_evaluate.yaml"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The whole config."""

    long: ModelSettings
    """The pair's long role; no path for no pair."""
    short: ModelSettings
    """The pair's short role."""
    solo: ModelSettings
    """A model by itself to compare with; no path for none."""
    dialogue: DialogueSettings
    """Limits and wording, as in RL."""
    sampling: EvaluationSampling
    """How replies are sampled."""
    early_exit: EarlyExit
    """Where the model by itself is made to answer early."""
    grading: GradingSettings
    """Limits of grading."""
    budgets: tuple[int, ...]
    """Hard caps on the tokens of a reply, both roles summed, under which accuracy is told."""
    max_requests: int
    """Most replies that are worked on at once."""

    def __post_init__(self) -> None:
        if list(self.budgets) != sorted(set(self.budgets)) or any(budget < 1 for budget in self.budgets):
            raise ValueError(f"budgets is {list(self.budgets)}; give growing numbers of at least 1")
        if self.solo.path and self.budgets and self.budgets[-1] > self.sampling.solo_max_tokens:
            raise ValueError(
                f"budgets ends with {self.budgets[-1]} and sampling.solo_max_tokens is "
                f"{self.sampling.solo_max_tokens}: what a longer reply would have answered is not known; raise "
                "solo_max_tokens, or leave that budget out"
            )
        if self.max_requests < 1:
            raise ValueError(f"max_requests is {self.max_requests!r}; give at least 1")
        if bool(self.long.path) is not bool(self.short.path):
            raise ValueError(f"long.path is {self.long.path!r} and short.path {self.short.path!r}; set both or neither")
        if self.early_exit.max_tokens and not self.solo.path:
            raise ValueError(
                f"early_exit.max_tokens is {list(self.early_exit.max_tokens)} and solo.path None: it is the model by "
                "itself that is made to answer; set solo.path, or early_exit.max_tokens=[]"
            )
        if not self.long.path and not self.solo.path:
            raise ValueError("there is nothing to evaluate; set long.path and short.path, or solo.path")


def journal_settings(config: EvaluateConfig, system: str, problems: Sequence[object]) -> dict[str, Any]:
    """All that a system's replies depend on, as JSON values. How many are asked at once may change between runs."""

    def model(settings: ModelSettings) -> dict[str, Any]:
        return {"path": settings.path, "max_model_len": settings.vllm.max_model_len, "dtype": settings.vllm.dtype}

    sampling = dataclasses.asdict(config.sampling)
    del sampling["samples"]  # more of them may be asked for later
    found: dict[str, Any] = {
        "problems": hashlib.sha256(repr(problems).encode()).hexdigest(),
        "sampling": sampling,
        "grading": {"max_answer_chars": config.grading.max_answer_chars, "timeout_s": config.grading.timeout_s},
    }
    if system == "pair":
        found |= {"long": model(config.long), "short": model(config.short)}
        found["dialogue"] = {key: str(value) for key, value in vars(config.dialogue).items()}
    else:
        found["solo"] = model(config.solo)
    if system.startswith("exit_"):
        found["early_exit"] = {**vars(config.early_exit), "max_tokens": None, "stop": list(config.early_exit.stop)}
    return found


def read_evaluate(recipe: Path | None, overrides: Sequence[str]) -> EvaluateConfig:
    """The config of a recipe, or of the base alone, with overrides in Hydra's form.

    Raises:
        ConfigError: the recipe cannot be read, or a setting is missing, unknown, mistyped or beyond its limits.
    """
    return read_recipe(recipe, overrides, EvaluateConfig, base=BASE)
