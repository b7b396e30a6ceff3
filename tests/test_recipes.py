# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Every recipe composes, has only known keys, and states nothing that its base or a sibling states already."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from longshort_verl.adapters.rl.check import check_settings
from longshort_verl.adapters.rl.settings import read_long_short
from longshort_verl.chains.config import read_importance, read_traces_config
from longshort_verl.cold_start.config import read_cold_start
from longshort_verl.config.compose import CONFIG, ConfigError, compose_config
from longshort_verl.evaluation.config import read_evaluate
from longshort_verl.serving.config import read_serve
from tests.support.configs import ROOT

FOLDERS = [ROOT / "recipes" / name for name in ("tiny_cpu", "gsm8k_0_5b", "math", "laptop")]
MATH = ROOT / "recipes" / "math"
ABLATIONS = sorted(ROOT.glob("recipes/ablations/*/*.yaml"))
VARIANTS = sorted(
    path
    for folder in FOLDERS
    for kind in (
        "rl",
        "single",
        "sft_long",
        "sft_short",
        "sft_distilled",
        "importance",
        "cold_start",
        "solo",
        "evaluate",
    )
    for path in folder.glob(f"{kind}/*.yaml")
)
"""A recipe's own options, as ``+rl=nodes``."""
PLAIN_SFT = [ROOT / "recipes" / name for name in ("tiny_cpu/sft.yaml", "laptop/sft_distilled.yaml")]
"""Of verl's own SFT trainer."""
RL = ("rl", "rl_pair", "rl_paper", "rl_authors_code")
SFT = ("sft", "sft_long", "sft_short", "sft_shared")
READERS: dict[str, Callable[[Path | None, list[str]], Any]] = {
    "traces": read_traces_config,
    "importance": read_importance,
    "cold_start": read_cold_start,
    "evaluate": read_evaluate,
    "serve": read_serve,
}
"""Stage → reader of its config; verl's trainers read the others."""
NEEDED = {
    "cold_start": ["tokenizer=a"],
    "evaluate": ["long.path=a", "short.path=b"],
    "serve": ["long.path=a", "short.path=b"],
}
"""Settings that a base leaves to its user."""
RECIPES = [
    path
    for folder in (*FOLDERS, ROOT / "tests" / "gpu")
    for path in sorted(folder.glob("*.yaml"))
    if path.stem in (*RL, *SFT, *READERS, "single") and path not in PLAIN_SFT
]
"""What a command takes. Other files are parts of these."""
PARTS = [
    path
    for folder in FOLDERS
    for path in sorted(folder.glob("*.yaml"))
    if path not in RECIPES and path not in PLAIN_SFT
]
FAMILIES = sorted(MATH.glob("family/*.yaml"))
LAPTOP = sorted((ROOT / "recipes" / "laptop").glob("family/*.yaml"))
BASES = sorted(CONFIG.glob("*.yaml"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_recipe = pytest.mark.parametrize("path", RECIPES, ids=name_of)


def composed(name: str, folder: Path, *overrides: str) -> DictConfig:
    """A config that the caller may change."""
    return copy.deepcopy(_composed(name, folder, overrides))


@functools.cache
def _composed(name: str, folder: Path, overrides: tuple[str, ...]) -> DictConfig:
    return compose_config(folder, name, overrides)


def body(path: Path) -> DictConfig:
    """What a file sets itself."""
    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(plain, dict)
    return OmegaConf.create({key: value for key, value in plain.items() if key not in ("defaults", "hydra")})


def entries(path: Path) -> list[tuple[str, str]]:
    """A file's defaults as (name, package)."""
    pairs = []
    for entry in OmegaConf.load(path).get("defaults", []):
        if entry != "_self_":
            key, option = next(iter(entry.items())) if isinstance(entry, DictConfig) else (entry, None)
            name, _, package = key.lstrip("/").partition("@")
            pairs.append((f"{name}/{option}", package or name) if option else (name, package))
    return pairs


def layers(path: Path, package: str = "") -> Iterator[tuple[Path, str]]:
    """The files of a recipe's folder that it is composed of, in order, with the section that each one fills."""
    for name, place in entries(path):
        part = path.parent / f"{name}.yaml"
        if part.exists():
            yield from layers(part, place)
    yield path, package


@functools.cache
def foundation(path: Path, tmp: Path) -> DictConfig:
    """The bases of a recipe, without what its own folder says."""
    bases = [
        f"{name}@{package}" if package else name
        for layer, _ in layers(path)
        for name, package in entries(layer)
        if not (path.parent / f"{name}.yaml").exists()
    ]
    # What the recipe's section of a dialogue inherits is in the base already.
    bases = [base for base in bases if not base.startswith("longshort_dialogue")]
    (tmp / "foundation.yaml").write_text(yaml.safe_dump({"defaults": [*bases, "_self_"]}))
    return compose_config(tmp, "foundation")


def leaves(config: DictConfig, prefix: str = "") -> dict[str, Any]:
    """Values as written, by dotted key; an empty section is a value."""
    plain = OmegaConf.to_container(config, resolve=False)

    def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for name, child in value.items():
                yield from walk(child, f"{key}.{name}" if key else str(name))
        elif key and value != "???":
            yield key, value

    return dict(walk(plain, prefix))


@each_recipe
def test_a_recipe_has_known_keys_only_and_repeats_no_inherited_value(path, tmp_path):
    config = copy.deepcopy(foundation(path, tmp_path))
    if "long_short" in config:
        # The short policy takes whatever the long one takes.
        OmegaConf.set_struct(config, False)
        config.long_short.short = OmegaConf.merge(config.actor_rollout_ref, config.long_short.short)
        OmegaConf.set_struct(config, True)
    for layer, package in layers(path):
        if package == "family":
            continue
        inherited = leaves(config)
        for key, value in leaves(body(layer), package).items():
            assert inherited.get(key, "???") != value, f"{name_of(layer)} repeats {key}: {value}"
        own = body(layer)
        if package:
            own, section = OmegaConf.create(), own
            OmegaConf.update(own, package, section)
        try:
            merged = OmegaConf.merge(config, own)
        except OmegaConfBaseException as error:
            pytest.fail(f"{name_of(layer)} has a key that nothing reads: {error}")
        assert isinstance(merged, DictConfig)
        config = merged


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_no_base_repeats_an_inherited_value(path, tmp_path):
    parents = [f"{name}@{package}" if package else name for name, package in entries(path)]
    (tmp_path / "parents.yaml").write_text(yaml.safe_dump({"defaults": [*parents, "_self_"]}))
    inherited = leaves(compose_config(tmp_path, "parents"))
    for key, value in leaves(body(path)).items():
        assert inherited.get(key, "???") != value, key


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_siblings_share_few_settings(folder):
    """What two files say alike belongs into a file that both inherit."""
    files = {path: leaves(body(path)) for path in sorted(folder.rglob("*.yaml")) if path not in (*FAMILIES, *LAPTOP)}
    for (a, left), (b, right) in itertools.combinations(files.items(), 2):
        shared = sorted(key for key in left.keys() & right.keys() if left[key] == right[key])
        assert len(shared) <= 4, f"{name_of(a)} and {name_of(b)} both say {shared}"


@pytest.mark.parametrize("path", PLAIN_SFT, ids=name_of)
def test_plain_sft_composes_for_a_cpu(path):
    assert composed(path.stem, path.parent).trainer.device == "cpu"


def test_every_part_belongs_to_a_recipe():
    used = {layer for path in (*RECIPES, *PLAIN_SFT) for layer, _ in layers(path)}
    assert set(PARTS) <= used


@pytest.mark.parametrize("stage", READERS)
def test_each_stages_recipes_fit_its_settings_class(stage):
    READERS[stage](None, NEEDED.get(stage, []))
    for folder in FOLDERS:
        READERS[stage](folder / f"{stage}.yaml", [])


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem in RL], ids=name_of)
def test_an_rl_recipe_fits_its_settings_class(path):
    assert check_settings(composed(path.stem, path.parent)).short["model"]["path"]


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem in (*RL, "single")], ids=name_of)
def test_an_rl_recipe_that_saves_often_keeps_a_number_of_checkpoints(path):
    trainer = composed(path.stem, path.parent).trainer
    saves_once = 1 <= trainer.save_freq == trainer.total_training_steps
    assert trainer.save_freq < 1 or saves_once or trainer.max_actor_ckpt_to_keep


# ----------------------------------------------------------------------------------------------------------- families


def test_a_family_is_one_short_file_and_all_families_say_the_same_things():
    assert [path.stem for path in FAMILIES] == ["llama3_1_8b", "qwen2_5_7b"]
    for path in FAMILIES:
        assert len(path.read_text().splitlines()) <= 40
        assert list(body(path)) == ["name", "instruct", "thinker"]
        assert body(path).name == path.stem


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent == MATH], ids=lambda path: path.stem)
def test_every_stage_takes_a_new_family(path, tmp_path):
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "mine.yaml").write_text("name: mine\ninstruct: me/instruct\nthinker: me/thinker\n")
    overrides = [f"hydra.searchpath=[pkg://longshort_verl.config,file://{tmp_path}]", "family=mine"]
    config = compose_config(MATH, path.stem, overrides)
    values = {key: OmegaConf.select(config, key) for key in leaves(config) if not key.startswith("family.")}
    of_family = [str(value) for value in values.values() if re.search(r"qwen|llama|\bmine\b|\bme/", str(value), re.I)]
    assert of_family
    assert all(re.search(r"\bme/|\bmath/mine/|^math_mine$", value) for value in of_family)
    if path.stem in READERS:
        READERS[path.stem](path, overrides)
    elif path.stem in RL:
        read_long_short(OmegaConf.to_container(config.long_short, resolve=True))


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"Could not find 'family/gemma'.*llama3_1_8b qwen2_5_7b"):
        compose_config(MATH, "rl_pair", ["family=gemma"])


# ---------------------------------------------------------------------------------------------------------- ablations

ABLATED = {"rl": "rl_pair", "solo": "evaluate"}
"""Stage → recipe that its ablations and variants change, where the stage is not its name."""


@pytest.mark.parametrize("path", [*ABLATIONS, *VARIANTS], ids=name_of)
def test_an_ablation_changes_its_keys_and_nothing_else(path):
    stage = path.parent.name
    folder = FOLDERS[0] if path in ABLATIONS else path.parents[1]
    # As a recipe's user adds it: Hydra refuses a key that the recipe does not know.
    added = [f"hydra.searchpath=[pkg://longshort_verl.config,file://{path.parents[1]}]", f"+{stage}={path.stem}"]
    name = ABLATED.get(stage, stage)
    changed = composed(name, folder, *added)
    own = set(leaves(body(path)))
    for section, package in entries(path):
        own |= set(leaves(body(CONFIG / f"{section}.yaml"), package))
    # As written: what follows from a changed key by interpolation is no change of its own.
    before, after = leaves(composed(name, folder)), leaves(changed)
    for key in before | after:
        assert (before.get(key) != after.get(key)) is (key in own), key
    if stage == "rl":
        # One model plays both roles of `shared`.
        models = ["actor_rollout_ref.model.path=a", "long_short.short.model.path=a"]
        check_settings(composed(name, folder, *added, *models))
    elif stage in READERS:
        READERS[stage](folder / f"{stage}.yaml", added)


# -------------------------------------------------------------------------------------------------------------- others


def test_cold_start_evaluation_and_rl_hold_the_same_dialogues():
    base = OmegaConf.to_container(composed("longshort_rl", CONFIG).long_short.dialogue)
    for stage in ("cold_start", "evaluate", "serve"):
        assert OmegaConf.to_container(composed(f"longshort_{stage}", CONFIG).dialogue) == base
    for folder in FOLDERS:
        dialogue = OmegaConf.to_container(composed("rl_pair", folder).long_short.dialogue)
        for stage in ("cold_start", "evaluate", "serve"):
            assert OmegaConf.to_container(composed(stage, folder).dialogue) == dialogue, (folder.name, stage)


@pytest.mark.parametrize("path", [*BASES, *RECIPES, *PARTS, *FAMILIES, *LAPTOP, *ABLATIONS, *VARIANTS], ids=name_of)
def test_yaml_layout(path):
    """Comments above their key, a blank line only between top-level keys, and a comment at the head of the file."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#")
    for number, (line, after) in enumerate(itertools.pairwise([*lines, "end"]), start=1):
        assert line.lstrip().startswith("#") or " #" not in line, f"{path.name}:{number}: a comment beside its key"
        assert line.strip() or after[:1].strip(), f"{path.name}:{number}: a blank line inside a section"


def test_a_misspelt_key_is_caught(tmp_path):
    for name in ("rl", "train", "dialogue"):
        text = (FOLDERS[0] / f"{name}.yaml").read_text()
        (tmp_path / f"{name}.yaml").write_text(text.replace("    length: 0.1", "    lengths: 0.1"))
    own = body(tmp_path / "rl.yaml")
    assert "lengths" in own.long_short.reward
    with pytest.raises(OmegaConfBaseException, match="lengths"):
        OmegaConf.merge(foundation(FOLDERS[0] / "rl.yaml", tmp_path), own)
