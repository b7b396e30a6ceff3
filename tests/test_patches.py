# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Fixes offered to verl: each applies to the released version, has a test that fails without it, and retires our shim.

verl is copied once as released and once with all patches; their tests run in both copies, and so does a probe that
says which of our shims are at work. Importing verl is what costs here, so each patch by itself is a slow test.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from longshort_verl.adapters import compat

ROOT = Path(__file__).resolve().parents[1]
PATCHES = sorted((ROOT / "patches" / "verl-0.9.1").glob("*.patch"))
if not PATCHES:
    pytest.skip("patches/ was deleted", allow_module_level=True)

pytestmark = pytest.mark.process
"""Each starts processes that import verl."""

each_patch = pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem[:4])

# What is ours to be at work where verl is as released, by patch. 0007 and 0008 need nothing of ours to step aside.
PROBE = """
import json, sys
import verl
import longshort_verl
assert verl.__file__.startswith(sys.argv[1]), verl.__file__
assert longshort_verl.__file__.startswith(sys.argv[2]), longshort_verl.__file__

from wrapt import when_imported
registered = []

@when_imported("verl.workers.engine.base")
def listen(base):
    register = base.EngineRegistry.register
    base.EngineRegistry.register = lambda **keys: registered.append(keys.get("device")) or register(**keys)

import torch
import verl.utils.distributed
import verl.workers.engine.fsdp.transformer_impl as fsdp
from omegaconf import OmegaConf
from verl.plugin.platform import get_platform
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from longshort_verl.adapters.rl import check as preflight, policies
from longshort_verl.adapters.compat import MARK

assert "cpu" in fsdp.EngineRegistry._engines["language_model"]["fsdp2"]
config = OmegaConf.create({"trainer": {"v1": {"trainer_mode": "longshort"}}})
preflight.as_sync(config, PPOTrainerSync)
at_work = {
    "0001": type(get_platform()).__module__.startswith("longshort_verl"),
    "0002": hasattr(torch.distributed.init_process_group, MARK),
    "0003": "cpu" in registered,
    "0004": hasattr(fsdp.CPUOffloadPolicy, MARK),
    "0005": hasattr(fsdp.FSDPEngine._merged_lora_per_tensor_param, MARK),
    "0006": not policies._numbered_by_verl(),
    "0009": config.trainer.v1.trainer_mode == "sync",
}
print("AT WORK", json.dumps(at_work))
"""
WITH_SHIM = ["0001", "0002", "0003", "0004", "0005", "0006", "0009"]


def git(*args: str, cwd: Path) -> None:
    identity = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    # Never the repository that the folder may lie in.
    env = {**os.environ, **identity, "GIT_CEILING_DIRECTORIES": str(cwd.parent)}
    done = subprocess.run(["git", *args], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def copy_of_verl(folder: Path) -> Path:
    [package] = importlib.util.find_spec("verl").submodule_search_locations
    shutil.copytree(package, folder / "verl")
    return folder


def files_of_tests(patch: Path) -> list[str]:
    return re.findall(r"^\+\+\+ b/(tests/\S+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)


def run_python(verl: Path, *args: str, **environment: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    env |= {"PYTHONPATH": os.pathsep.join([str(verl), str(ROOT)]), **environment}
    return subprocess.run([sys.executable, *args], cwd=verl, env=env, capture_output=True, text=True, check=False)


def outcomes(verl: Path, tests: list[str]) -> dict[str, list[bool]]:
    """Whether each test of verl's passed, by file; run as verl would, without us."""
    report = verl / "report.xml"
    options = [
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        "-o",
        "junit_family=xunit1",
    ]
    done = run_python(verl, "-m", "pytest", *options, *tests, VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, list[bool]] = {test: [] for test in tests}
    for case in ElementTree.parse(report).iter("testcase"):
        passed = case.find("failure") is None and case.find("error") is None
        assert case.find("skipped") is None
        found[case.attrib["file"]].append(passed)
    return found


def shims_at_work(verl: Path) -> dict[str, bool]:
    done = run_python(verl, "-c", PROBE, str(verl), str(ROOT), VERL_PLATFORM="cpu")
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("AT WORK"))[len("AT WORK") :])


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """verl as it is installed, with the patches' tests beside it."""
    folder = copy_of_verl(tmp_path_factory.mktemp("released"))
    for patch in PATCHES:
        git("apply", "--include=tests/*", str(patch), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def patched(tmp_path_factory) -> Path:
    """verl with all patches, as commits in their order."""
    folder = copy_of_verl(tmp_path_factory.mktemp("patched"))
    git("init", "-q", cwd=folder)
    git("add", "-A", "-f", cwd=folder)
    git("commit", "-q", "-m", "verl as released", cwd=folder)
    git("am", "-q", *map(str, PATCHES), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def outcomes_released(released) -> dict[str, list[bool]]:
    return outcomes(released, [test for patch in PATCHES for test in files_of_tests(patch)])


@pytest.fixture(scope="module")
def outcomes_patched(patched) -> dict[str, list[bool]]:
    return outcomes(patched, [test for patch in PATCHES for test in files_of_tests(patch)])


@pytest.fixture(scope="module")
def work_released(released) -> dict[str, bool]:
    return shims_at_work(released)


@pytest.fixture(scope="module")
def work_patched(patched) -> dict[str, bool]:
    return shims_at_work(patched)


@each_patch
def test_a_patch_is_shaped_as_verl_wants_it(patch):
    head, _, diff = patch.read_text(encoding="utf-8").partition("\n---\n")
    assert re.search(r"^Subject: \[PATCH\] \[[a-z, ]+\] (feat|fix): \S", head, re.MULTILINE)
    assert head.partition("\n\n")[2].strip(), "no body: symptom and cause"
    files = re.findall(r"^diff --git a/(\S+) b/\1$", diff, re.MULTILINE)
    assert all(file.startswith(("verl/", "tests/")) for file in files)
    [test] = [file for file in files if file.startswith("tests/")]
    assert re.fullmatch(r"test_\w+_on_cpu\.py", Path(test).name)


@each_patch
def test_a_patch_applies_alone(patch, released):
    git("apply", "--check", "--exclude=tests/*", str(patch), cwd=released)


@each_patch
def test_its_test_fails_without_it_and_passes_with_it(patch, outcomes_released, outcomes_patched):
    [test] = files_of_tests(patch)
    assert not all(outcomes_released[test])
    assert outcomes_patched[test]
    assert all(outcomes_patched[test])


@pytest.mark.parametrize("number", WITH_SHIM)
def test_our_shim_stands_aside(number, work_released, work_patched):
    assert work_released[number]
    assert not work_patched[number]


@pytest.mark.slow
@each_patch
def test_a_patch_suffices_for_its_test(patch, tmp_path):
    folder = copy_of_verl(tmp_path / "alone")
    git("apply", str(patch), cwd=folder)
    [(_, passed)] = outcomes(folder, files_of_tests(patch)).items()
    assert passed
    assert all(passed)


def test_each_patch_with_a_shim_names_it_in_its_docstring():
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(compat.__file__).parent.rglob("*.py"))
    # The registration of the platform documents its own condition.
    assert [number for number in WITH_SHIM if number != "0001" and f"patch {number}" not in sources] == []
