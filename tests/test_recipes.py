# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Every recipe YAML composes onto verl's real config tree, has only known keys and repeats no inherited value."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import verl
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from longshort_verl.adapters.rl import settings as schema
from longshort_verl.chains.config import read_importance
from longshort_verl.cold_start.config import read_cold_start
from longshort_verl.evaluation.config import read_evaluate
from longshort_verl.serving.config import read_serve

ROOT = Path(__file__).resolve().parents[1]
RL_RECIPES = sorted([*ROOT.glob("recipes/*/rl*.yaml"), ROOT / "tests/gpu/rl.yaml"])
IMPORTANCE_RECIPES = sorted(ROOT.glob("recipes/*/importance*.yaml"))
COLD_START_RECIPES = sorted(ROOT.glob("recipes/*/cold_start*.yaml"))
SINGLE_RECIPES = sorted(ROOT.glob("recipes/*/single*.yaml"))
ABLATIONS = sorted(ROOT.glob("recipes/ablations/*/*.yaml"))
VARIANTS = sorted(
    path for path in ROOT.glob("recipes/*/*/*.yaml") if path.parent.name in ("rl", "sft_long") and path not in ABLATIONS
)
"""Options of a recipe's own: `+rl=nodes`."""
SFT_RECIPES = sorted([*ROOT.glob("recipes/*/sft_*.yaml"), ROOT / "tests/gpu/sft.yaml"])
TRACES_RECIPES = sorted(ROOT.glob("recipes/*/traces*.yaml"))
EVALUATE_RECIPES = sorted(ROOT.glob("recipes/*/evaluate*.yaml"))
SERVE_RECIPES = sorted(ROOT.glob("recipes/*/serve*.yaml"))
DIALOGUE_RECIPES = sorted(ROOT.glob("recipes/*/dialogue*.yaml"))
RECIPES = [
    *RL_RECIPES,
    *SINGLE_RECIPES,
    *IMPORTANCE_RECIPES,
    *COLD_START_RECIPES,
    *SFT_RECIPES,
    *TRACES_RECIPES,
    *EVALUATE_RECIPES,
    *SERVE_RECIPES,
    *DIALOGUE_RECIPES,
]
CONFIG = ROOT / "longshort_verl" / "config"
BASES = sorted(path for kind in ("rl", "single", "sft") for path in CONFIG.glob(f"longshort_{kind}*.yaml"))
BASE_IMPORTANCE = CONFIG / "longshort_importance.yaml"
BASE_COLD_START = CONFIG / "longshort_cold_start.yaml"
BASE_TRACES = CONFIG / "longshort_traces.yaml"
BASE_EVALUATE = CONFIG / "longshort_evaluate.yaml"
BASE_SERVE = CONFIG / "longshort_serve.yaml"
OWN_BASES = [BASE_IMPORTANCE, BASE_COLD_START, BASE_TRACES, BASE_EVALUATE, BASE_SERVE]
MIXIN = "longshort_cpu"
"""What any of verl's trainers needs without an accelerator, beside whichever base."""
SECTIONS = [
    CONFIG / f"longshort_{name}.yaml" for name in ("model", "grading", "dialogue", "metric", "cpu", "r1_distill")
]
VERL = Path(verl.__file__).parent / "trainer" / "config"
SEARCH = "hydra.searchpath=[pkg://longshort_verl.config,pkg://verl.trainer.config]"


def composed(name: str, folder: Path | None = None) -> DictConfig:
    """A config by name, from a recipe's folder, ours or verl's; of its own, to be changed."""
    return copy.deepcopy(_composed(name, folder))


@functools.cache
def _composed(name: str, folder: Path | None) -> DictConfig:
    folder = next(f for f in (folder, ROOT / "longshort_verl" / "config", VERL) if f and (f / f"{name}.yaml").exists())
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base=None):
        return compose(config_name=name, overrides=[SEARCH])


def parent_of(path: Path) -> str:
    # What a base takes in as a section of its own is no parent.
    entries = OmegaConf.load(path)["defaults"]
    defaults = [entry for entry in entries if entry not in ("_self_", MIXIN) and "@" not in entry]
    assert len(defaults) == 1, "a recipe inherits one base"
    return defaults[0]


def base_of(path: Path) -> DictConfig:
    base = composed(parent_of(path), path.parent)
    if MIXIN in OmegaConf.load(path)["defaults"]:
        OmegaConf.set_struct(base, False)
        base = OmegaConf.merge(base, OmegaConf.load(CONFIG / f"{MIXIN}.yaml"))
        assert isinstance(base, DictConfig)
    return base


def own_keys(path: Path) -> DictConfig:
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)
    with open_dict(own):
        own.pop("defaults", None)
        own.pop("hydra", None)
    return own


def brought_in(path: Path) -> set[str]:
    """Keys that an option takes from one of our own files, as ``/longshort_r1_distill@model`` in its defaults."""
    entries = [entry.lstrip("/").split("@") for entry in OmegaConf.load(path).get("defaults", []) if entry != "_self_"]
    return {f"{place}.{key}" for name, place in entries for key in leaves(OmegaConf.load(CONFIG / f"{name}.yaml"))}


def leaves(config: DictConfig, prefix: str = "") -> list[str]:
    found = []
    for key in config:
        path = f"{prefix}{key}"
        child = None if OmegaConf.is_missing(config, key) else config[key]
        if isinstance(child, DictConfig) and child:
            found += leaves(child, f"{path}.")
        elif not OmegaConf.is_missing(config, key):
            found.append(path)
    return found


def as_written(config: DictConfig) -> dict[str, Any]:
    """Values by key, interpolations unresolved."""
    return {
        key: OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
        for key, node in ((key, _node(config, key)) for key in leaves(config))
    }


def _node(config: DictConfig, key: str) -> Any:
    *path, last = key.split(".")
    parent = OmegaConf.select(config, ".".join(path)) if path else config
    return parent._get_node(last)._value()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_recipe_composes_with_known_keys_only(path):
    base = base_of(path)
    OmegaConf.set_struct(base, True)
    own = own_keys(path)
    # `override_config` and what belongs to one policy are free-form upstream; the rest must exist in the base.
    if "long_short" in base:
        with open_dict(base):
            base.long_short.short = {**base.actor_rollout_ref}
    try:
        OmegaConf.merge(base, own)
    except OmegaConfBaseException as error:
        pytest.fail(f"{path.name} has a key that nothing reads: {error}")


@pytest.mark.parametrize("path", [*BASES, *RECIPES], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_yaml_repeats_an_inherited_value(path):
    base, own = base_of(path), own_keys(path)
    for key in leaves(own):
        assert OmegaConf.select(base, key, default="no such key") != OmegaConf.select(own, key), key


@pytest.mark.parametrize("path", [BASE_IMPORTANCE, *IMPORTANCE_RECIPES], ids=lambda p: str(p.relative_to(ROOT)))
def test_importance_recipe_fits_the_typed_mirror(path):
    assert read_importance(path, ["model.path=somewhere"]).model.path == "somewhere"


@pytest.mark.parametrize("path", [BASE_SERVE, *SERVE_RECIPES], ids=lambda p: str(p.relative_to(ROOT)))
def test_serve_recipe_fits_the_typed_mirror(path):
    assert read_serve(path, ["long.path=somewhere", "short.path=else"])[0].long.path == "somewhere"


@pytest.mark.parametrize("path", RL_RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_recipe_fits_the_typed_mirror(path):
    section = OmegaConf.to_container(composed(path.stem, path.parent).long_short, resolve=True)
    settings = schema.read_long_short(section)
    assert settings.short["model"]["path"]


@pytest.mark.parametrize("path", [BASE_COLD_START, *COLD_START_RECIPES], ids=lambda p: str(p.relative_to(ROOT)))
def test_cold_start_recipe_fits_the_typed_mirror(path):
    assert read_cold_start(path, ["tokenizer=somewhere"]).tokenizer == "somewhere"


ABLATED = {"rl": "rl_pair", "importance": "importance", "cold_start": "cold_start", "evaluate": "evaluate"}
"""Stage → recipe that its ablations and variants change, where the stage is not its name."""


@pytest.mark.parametrize("path", [*ABLATIONS, *VARIANTS], ids=lambda p: "/".join(p.parts[-3:]))
def test_an_ablation_changes_its_keys_and_nothing_else(path):
    stage, folder = path.parent.name, path.parents[1]
    if path in ABLATIONS:
        folder = ROOT / "recipes" / "tiny_cpu"
    # As a recipe's user adds it: Hydra refuses a key that the recipe does not know.
    search = f"pkg://longshort_verl.config,file://{path.parents[1]},pkg://verl.trainer.config"
    added = [f"hydra.searchpath=[{search}]", f"+{stage}={path.stem}"]
    name = ABLATED.get(stage, stage)
    plain = composed(name, folder)
    with initialize_config_dir(str(folder), version_base=None):
        changed = compose(config_name=name, overrides=added)
    own = own_keys(path)
    # As written: what follows from a changed key by interpolation is no change of its own.
    before_all, after_all = as_written(plain), as_written(changed)
    for key in before_all | after_all:
        before, after = before_all.get(key), after_all.get(key)
        assert (before != after) is (key in {*leaves(own), *brought_in(path)}), key
    if stage == "rl":
        section = OmegaConf.to_container(changed.long_short, resolve=True)
        assert schema.read_long_short(section).reward["accuracy"] == 1.0
    elif stage in ("cold_start", "evaluate"):
        readers = {"cold_start": read_cold_start, "evaluate": read_evaluate}
        readers[stage](folder / f"{ABLATED[stage]}.yaml", added)
    elif stage == "importance":
        read_importance(folder / "importance.yaml", added)


def rl_of(folder: Path) -> DictConfig:
    return composed("rl_pair", folder)


def test_cold_start_and_rl_hold_the_same_dialogues():
    dialogue = OmegaConf.to_container(composed("longshort_rl").long_short.dialogue)
    assert OmegaConf.to_container(composed("longshort_cold_start").dialogue) == dialogue
    for recipe in COLD_START_RECIPES:
        rl = rl_of(recipe.parent).long_short.dialogue
        assert OmegaConf.to_container(composed(recipe.stem, recipe.parent).dialogue) == OmegaConf.to_container(rl), (
            recipe
        )


@pytest.mark.parametrize("path", [*BASES, *OWN_BASES, *SECTIONS, *RECIPES, *ABLATIONS, *VARIANTS], ids=lambda p: p.name)
def test_yaml_follows_verls_style(path):
    """A blank line between keys, no trailing comments, and in the bases a comment above each of our own keys."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip().startswith("#") or not line.strip():
            continue
        assert " #" not in line, f"{path.name}:{number}: comments stand above their key"
        before = lines[number - 2] if number > 1 else ""
        continues = not line.lstrip().startswith("- ") and ":" not in line
        assert not before.strip() or before.strip().startswith("#") or continues or "- " in before or ">-" in before, (
            f"{path.name}:{number}: blank line missing above {line.strip()!r}"
        )


def test_a_misspelt_key_is_caught(tmp_path):
    recipe = tmp_path / "rl.yaml"
    recipe.write_text((ROOT / "recipes/tiny_cpu/rl.yaml").read_text().replace("    length: 0.1", "    lengths: 0.1"))
    base = composed(parent_of(recipe))
    OmegaConf.set_struct(base, True)
    with pytest.raises(OmegaConfBaseException, match="lengths"):
        OmegaConf.merge(base, own_keys(recipe))
