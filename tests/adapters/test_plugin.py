# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The plugin in verl's own import: cheap, loud when broken, active where its host module is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process
"""Each starts a process that imports verl."""

MAX_EXTRA_SECONDS = 0.3


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_importing_verl_loads_nothing_heavy():
    # The plugin's own share, with verl already there, in processor time: the machine is shared.
    code = """
import os, sys, time
os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"
import verl
before, start = set(sys.modules), time.process_time()
import longshort_verl.adapters.plugin
print(time.process_time() - start)
new = set(sys.modules) - before
heavy = [m for m in new if m.startswith(("verl.trainer", "verl.workers", "vllm", "verl.experimental"))]
assert not heavy, heavy
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < MAX_EXTRA_SECONDS


def test_a_broken_plugin_is_loud(tmp_path):
    # Our package is found first in a copy whose platform module fails.
    code = """
import sys, types
sys.modules["longshort_verl.adapters.cpu_platform"] = None
import verl
print("went on")
"""
    done = run_python(code, VERL_PLATFORM="cpu")
    assert "longshort_verl could not be loaded into verl; its trainer and agent loop are missing" in done.stderr
    assert "Traceback" in done.stderr
    assert "cpu_platform" in done.stderr
    # verl swallows what a plugin raises; where nothing does, it is an error like any other.
    direct = run_python(code.replace("import verl", "import longshort_verl.adapters.plugin"), VERL_PLATFORM="cpu")
    assert direct.returncode != 0
    assert "went on" not in direct.stdout


def test_an_unfit_verl_is_refused_by_the_shims():
    code = """
import importlib.metadata
original = importlib.metadata.version
importlib.metadata.version = lambda name: "0.11.0" if name == "verl" else original(name)
from longshort_verl.adapters import compat
compat.install_cpu_shims()
"""
    done = run_python(code, VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode != 0
    assert "written for verl >=0.9.1,<0.10, found 0.11.0" in done.stderr


def test_the_shims_stand_aside_on_other_platforms():
    code = """
import torch.distributed
from longshort_verl.adapters import compat
before = torch.distributed.init_process_group
compat.install_cpu_shims()
assert torch.distributed.init_process_group is before
"""
    done = run_python(code, VERL_PLATFORM="", VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode == 0, done.stderr
