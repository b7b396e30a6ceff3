# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of composed configs: the three bases with models of published shapes."""

from __future__ import annotations

import pytest

from longshort_verl.config.compose import compose_config
from longshort_verl.ops.plan.hardware import find_gpu
from longshort_verl.ops.plan.job import read_job
from longshort_verl.ops.plan.view import Plan
from tests.support.model_configs import CONFIGS, write_model_config

LENGTHS = "data: {max_prompt_length: 512, max_response_length: 8192}"
BASES = {"rl": LENGTHS, "single": LENGTHS, "sft": ""}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model_config(folder, name) for name in CONFIGS}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A folder of recipes that hold little but their base."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, settings in BASES.items():
        (folder / f"{name}.yaml").write_text(f"defaults: [longshort_{name}, _self_]\n{settings}\n")
    return folder


@pytest.fixture(scope="module")
def planned(recipes, models):
    """A function that plans a config on a GPU."""

    def plan(gpu, *overrides, name="rl", long="qwen2_5_7b", short="qwen2_5_7b", host_gib=None, **options):
        paths = {
            "rl": [f"actor_rollout_ref.model.path={models[long]}", f"long_short.short.model.path={models[short]}"],
            "single": [f"actor_rollout_ref.model.path={models[long]}"],
            "sft": [f"model.path={models[long]}"],
        }
        config = compose_config(recipes, name, [*paths[name], *overrides])
        return Plan(read_job(config, find_gpu(gpu), **options), host_gib)

    return plan
