# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a fresh process finds of the package, the plugin and what it registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from longshort_verl.ops.doctor.findings import Status
from longshort_verl.ops.doctor.plugin import plugin_findings, run_probe
from tests.support.configs import ROOT


def environment(**more):
    """This one, with the checkout in front, as an installation would be."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.mark.process
def test_plugins_that_are_turned_off_are_named_with_the_cure(tmp_path):
    command = [sys.executable, "-m", "longshort_verl.cli", "doctor", "--json"]
    off = environment(VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="none")
    done = subprocess.run(command, cwd=tmp_path, env=off, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert (told["verdict"], told["next"]) == ("failure", "fix the failures and run this again")
    found = {finding["name"]: finding for finding in told["findings"]}
    assert found["plugin"] == {
        "name": "plugin",
        "status": "failure",
        "found": "not loaded: VERL_USE_EXTERNAL_PLUGINS is 'none'",
        "cure": "unset VERL_USE_EXTERNAL_PLUGINS, or add longshort to it",
    }
    # And a job would not know the trainer, the loop or the platform.
    assert {found[name]["status"] for name in ("trainer", "agent loop", "platform")} == {"failure"}
    assert found["other processes"]["status"] == "ok"


@pytest.mark.parametrize(
    ("policy", "entry_points", "said", "what"),
    [
        (
            "other",
            [{"name": "longshort", "distribution": "longshort-verl"}],
            "",
            "VERL_USE_EXTERNAL_PLUGINS is 'other'",
        ),
        ("auto", [], "", "none; there must be one"),
        (
            "auto",
            [{"name": "longshort", "distribution": name} for name in ("longshort-verl", "a-fork")],
            "",
            "longshort of longshort-verl, longshort of a-fork",
        ),
        (
            "longshort",
            [{"name": "longshort", "distribution": "longshort-verl"}],
            "ERROR:x\nTraceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'wrapt'\n",
            "not loaded: ModuleNotFoundError: No module named 'wrapt'",
        ),
    ],
)
def test_a_plugin_that_is_not_loaded(policy, entry_points, said, what):
    facts = {
        "package": str(ROOT / "longshort_verl"),
        "entry_points": entry_points,
        "verl": {"version": "0.9.1", "plugin": False},
        **{key: {"error": "ValueError: Unknown trainer"} for key in ("trainer", "agent_loop", "platform")},
    }
    found = by_name(plugin_findings(facts, said, {"VERL_USE_EXTERNAL_PLUGINS": policy}))["plugin"]
    assert found.status is Status.FAILURE
    assert what in found.found
    assert found.cure


def test_a_package_that_is_only_in_the_working_folder(tmp_path):
    # A Python that does not find the package, as on a node where it was forgotten: something else has its name.
    (tmp_path / "longshort_verl.py").touch()
    found = plugin_findings(*run_probe(environment(PYTHONPATH=str(tmp_path))), environment())
    assert [finding.name for finding in found] == ["other processes"]
    assert found[0].status is Status.FAILURE
    assert found[0].found.startswith("cannot use longshort_verl: Error while finding module specification")
    assert "pip install longshort-verl" in found[0].cure


def test_a_process_that_hangs_is_given_up():
    facts, said = run_probe(environment(), timeout=0.01)
    assert (facts, said) == ({}, "it did not end within 0 s")
