# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Installed versions against those that ran and those that are allowed."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from longshort_verl.ops.doctor.versions import TESTED, allowed_ranges, check_version, version_findings

RANGE = SpecifierSet(">=0.9.1,<0.10")


@pytest.mark.parametrize(
    ("installed", "status", "said"),
    [
        ("0.9.1", "ok", "0.9.1"),
        ("0.9.1+cu130", "ok", "0.9.1+cu130"),
        ("0.9.2", "warning", "0.9.2 may work; tested is 0.9.1"),
        ("0.9.0", "failure", "0.9.0 is not in the range <0.10,>=0.9.1"),
        ("0.10.0", "failure", "not in the range"),
        (None, "failure", "not installed"),
    ],
)
def test_a_version_in_the_range_but_not_run_is_a_warning(installed, status, said):
    found = check_version("verl", installed, RANGE, "0.9.1")
    assert found.status == status
    assert said in found.found
    assert found.cure == ("" if status == "ok" else "pip install 'verl==0.9.1'")


@pytest.mark.parametrize(("running", "status"), [("3.11.7", "ok"), ("3.12.1", "warning"), ("3.13.0", "failure")])
def test_python(running, status):
    assert check_version("Python", running, SpecifierSet(">=3.10,<3.13"), "3.11.*").status == status


def test_ranges_join_and_leave_extras_out():
    found = allowed_ranges(
        ["verl>=0.9.1", "Transfer_Queue<2", "verl<0.10; python_version>'3'", "vllm==9; extra=='gpu'"]
    )
    assert found == {"verl": RANGE, "transfer-queue": SpecifierSet("<2")}


def test_what_was_run_on_a_cpu_is_what_requirements_pin(root):
    pins = {}
    for line in (root / "requirements" / "cpu.txt").read_text().splitlines():
        if line and not line.startswith(("#", "    --hash")):
            requirement = Requirement(line.removesuffix(" \\"))
            pins.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier))
    (cpu,) = (one for one in TESTED if one.hardware == "CPU")
    for name, version in cpu.packages.items():
        assert pins[name.lower()] == {f"=={version}"}, name


def test_this_environments_versions():
    found = {finding.name: finding for finding in version_findings(on_gpu=False)}
    assert {"Python", "longshort-verl", "verl", "torch", "transformers", "ray", "tensordict"} <= found.keys()
    assert not [finding for finding in found.values() if finding.status == "failure"]
    assert found["other packages"].found.startswith("all ")
    assert "flash-attn" not in found
    assert "flash-attn" in {finding.name for finding in version_findings(on_gpu=True)}
