# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes for GPUs fit the hardware that they name, by ``longshort plan``, and pass the checks before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshort_verl.adapters.rl.check import check_config
from longshort_verl.config.compose import compose_config
from longshort_verl.ops.plan.hardware import find_gpu
from longshort_verl.ops.plan.job import read_job
from longshort_verl.ops.plan.view import Plan, verdict
from tests.support.model_configs import write_model_config

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
HARDWARE = {
    "gsm8k_0_5b": ("qwen2_5_0_5b", ["RTX-4090-24GB", "RTX-3090-24GB", "A10G-24GB", "L4-24GB"], 64),
    "math family=qwen2_5_7b": ("qwen2_5_7b", ["A100-80GB", "H100-80GB"], 512),
    "math family=llama3_1_8b": ("llama3_1_8b", ["A100-80GB", "H100-80GB"], 512),
}
"""Recipe → the shape of its models, the GPUs that its README names, GiB of a node's main memory."""
FAMILIES = [recipe for recipe in HARDWARE if "family" in recipe]
NODES = [
    ["+rl=nodes"],
    ["+rl=nodes", "trainer.nnodes=4", "data.train_batch_size=512", "actor_rollout_ref.actor.ppo_mini_batch_size=256"],
    [
        "+rl=nodes",
        "trainer.nnodes=16",
        "data.train_batch_size=2048",
        "actor_rollout_ref.actor.ppo_mini_batch_size=1024",
    ],
    ["+rl=nodes_split"],
]


@pytest.fixture(autouse=True)
def on_gpus(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model_config(folder, name) for name, *_ in HARDWARE.values()}


def planned(shapes, recipe: str, name: str, gpu: str, overrides=()):
    shape, _, host = HARDWARE[recipe]
    folder, *family = recipe.split()
    config = compose_config(RECIPES / folder, name, [*family, *overrides])
    models = dict.fromkeys(("long", "short", "model"), shapes[shape])
    if name.startswith("sft"):
        models = {config.cold_start.role: shapes[shape]}
    elif name == "single":
        models = {"model": shapes[shape]}
    else:
        del models["model"]
    return config, Plan(read_job(config, find_gpu(gpu), model_configs=models), host)


def fits(plan) -> None:
    assert plan.fits, str(verdict(plan))


@pytest.mark.parametrize(("recipe", "name"), [(r, n) for r in HARDWARE for n in ("sft_long", "sft_short", "rl_pair")])
def test_a_recipe_fits_onto_the_hardware_that_it_names(shapes, recipe, name):
    for gpu in HARDWARE[recipe][1]:
        fits(planned(shapes, recipe, name, gpu)[1])


@pytest.mark.parametrize("recipe", FAMILIES)
def test_the_papers_and_the_authors_setting_and_the_baseline_fit(shapes, recipe):
    for name in ("rl_paper", "rl_authors_code", "single"):
        fits(planned(shapes, recipe, name, "A100-80GB")[1])
    fits(planned(shapes, recipe, "sft_long", "A100-80GB", ["+sft_long=r1_distill"])[1])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FAMILIES)
@pytest.mark.parametrize("overrides", NODES, ids=" ".join)
def test_several_nodes_fit(shapes, recipe, overrides):
    config, plan = planned(shapes, recipe, "rl_pair", "A100-80GB", overrides)
    fits(plan)
    check_config(config)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [(r, "rl_pair") for r in HARDWARE] + [(r, n) for r in FAMILIES for n in ("rl_paper", "rl_authors_code")],
)
def test_rl_passes_the_checks_before_a_run(recipe, name):
    folder, *family = recipe.split()
    check_config(compose_config(RECIPES / folder, name, family))
