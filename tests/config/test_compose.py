# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One way to compose: the same config as verl's mains compose, and one message for each thing that cannot work."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic.dataclasses
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pydantic import Field

from longshort_verl.chains.config import TracesConfig
from longshort_verl.config.compose import CONFIG, ConfigError, compose_config, read_recipe, read_settings
from tests.support.configs import ROOT

TINY = ROOT / "recipes" / "tiny_cpu"


@pytest.mark.parametrize("overrides", [[], ["trainer.total_training_steps=7", "+trainer.mine=1"]])
def test_it_composes_what_verls_main_composes(overrides):
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(TINY), "--config-name", "rl"]
    printed = subprocess.run(
        [*command, *overrides, "--cfg", "job"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert OmegaConf.to_container(compose_config(TINY, "rl", overrides)) == yaml.safe_load(printed.stdout)


def test_a_recipes_own_search_path_and_an_override_of_it_count(tmp_path):
    for name, steps in (("mine", 7), ("yours", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sizes.yaml").write_text(f"trainer: {{total_training_steps: {steps}}}\n")
    (tmp_path / "rl.yaml").write_text(
        f"hydra: {{searchpath: ['file://{tmp_path}/mine']}}\ndefaults: [longshort_rl, sizes@_global_, _self_]\n"
    )
    assert compose_config(tmp_path, "rl").trainer.total_training_steps == 7
    other = compose_config(tmp_path, "rl.yaml", [f"hydra.searchpath=[file://{tmp_path}/yours]"])
    assert other.trainer.total_training_steps == 8
    assert "hydra" not in other


def test_hydras_global_state_stays_as_it_is():
    GlobalHydra.instance().clear()
    compose_config(CONFIG, "longshort_traces")
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (None, [], r"Cannot find primary config 'rl'"),
        ("defaults: [absent, _self_]\n", [], "Could not load 'absent'"),
        ("a: [\n", [], "rl.yaml.*line 2"),
        ("a: 1\n", ["b=2"], r"Could not override 'b'. To append to your config use \+b=2 Key 'b' is not in struct"),
        ("a: 1\n", ["a.b"], r"a.b"),
    ],
)
def test_what_does_not_compose_is_named_in_one_line(text, overrides, message, tmp_path):
    if text is not None:
        (tmp_path / "rl.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        compose_config(tmp_path, "rl", overrides)
    assert str(error.value).startswith(f"{tmp_path}/rl.yaml: ")
    assert "\n" not in str(error.value)


def test_a_folder_that_does_not_exist():
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        compose_config(Path("nowhere"), "rl")


@dataclass(frozen=True, kw_only=True)
class Inner:
    count: int


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    share: Annotated[float, Field(gt=0, le=1)]


def test_each_fault_of_a_section_is_a_line_that_names_key_value_and_cure():
    assert read_settings({"inner": {"count": 1}, "share": 0.5}, Outer, "a", base="b.yaml").inner.count == 1
    with pytest.raises(ConfigError) as error:
        read_settings({"inner": {"count": "many"}, "share": 2}, Outer, "a", base="b.yaml")
    integer, share = str(error.value).splitlines()
    assert integer.startswith("a.inner.count is 'many': Input should be a valid integer")
    assert share == "a.share is 2: Input should be less than or equal to 1"
    with pytest.raises(ConfigError, match="a.inner.count is missing; the base YAML longshort_verl/config/b.yaml"):
        read_settings({"inner": {}, "share": 1}, Outer, "a", base="b.yaml")
    with pytest.raises(ConfigError, match="a.inner.size is no setting; known ones here are count"):
        read_settings({"inner": {"count": 1, "size": 2}, "share": 1}, Outer, "a", base="b.yaml")


def test_a_recipe_is_read_as_its_settings_class(tmp_path):
    with pytest.raises(ConfigError, match="there is no recipe"):
        read_recipe(tmp_path / "traces.yaml", [], TracesConfig, base="longshort_traces.yaml")
    assert read_recipe(None, ["max_requests=3"], TracesConfig, base="longshort_traces.yaml").max_requests == 3
    # What its settings refer to is no setting.
    (tmp_path / "traces.yaml").write_text(
        "defaults: [longshort_traces, _self_]\nfamily: {thinker: a}\nmodel: {path: '${family.thinker}'}\n"
    )
    assert read_recipe(tmp_path / "traces.yaml", [], TracesConfig, base="longshort_traces.yaml").model.path == "a"
    with pytest.raises(ConfigError, match="absent"):
        read_recipe(
            tmp_path / "traces.yaml", ["model.path=${family.absent}"], TracesConfig, base="longshort_traces.yaml"
        )


STAGES = [
    *("chains.config", "cold_start.config", "evaluation.config", "serving.config"),
    *("adapters.rl.settings", "generation.settings"),
]


@pytest.mark.parametrize("module", STAGES)
def test_reading_a_config_imports_no_web_framework_and_no_engine(module):
    heavy = "fastapi uvicorn starlette torch vllm verl ray transformers openai"
    code = f"import longshort_verl.{module}, sys; print(*(set('{heavy}'.split()) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_composing_does_not_import_verl():
    code = (
        "import sys; from longshort_verl.config.compose import CONFIG, compose_config; "
        "compose_config(CONFIG, 'longshort_rl'); print('verl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
