# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Wheel and sdist of the checkout, built and installed without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
_SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


def copy_source(root: Path, folder: Path) -> Path:
    """Copy what a build reads, and also what it must leave out: the tests and an output folder."""
    for name in _SOURCES:
        shutil.copy(root / name, folder)
    for name in ("longshort_verl", "tests"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    (folder / "outputs").mkdir()
    (folder / "outputs" / "run.log").touch()
    return folder


def build(kind: str, source: Path, out: Path) -> Path:
    """Build ``sdist`` or ``wheel`` of a source tree with the installed setuptools."""
    command = [sys.executable, "-c", _BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel, without its dependencies, into a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run([str(part) for part in command], check=True)
    return folder


def installed_first(folder: Path, **more: str) -> dict[str, str]:
    """Environment in which Python finds the installed package before the checkout."""
    return {**os.environ, "PYTHONPATH": str(folder), "VERL_PLATFORM": "cpu", **more}
