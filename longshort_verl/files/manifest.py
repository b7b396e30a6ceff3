# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Where an evaluation comes from: ``run.json`` beside its records, which reports read."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

PROVENANCE = "run.json"
KEYS = ("command", "commit", "seed", "minutes", "machine")


def write_provenance(folder: Path, *, command: str | None, seed: int, seconds: float) -> None:
    """Write ``run.json``.

    Args:
        folder: of the evaluation.
        command: what made the models that were evaluated; None for the command of this process.
        seed: of the run.
        seconds: that it took, what came before the evaluation included.
    """
    found = {
        "command": command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "machine": machine(),
    }
    (folder / PROVENANCE).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> dict[str, Any]:
    """``command``, ``commit``, ``seed``, ``minutes`` and ``machine`` of an evaluation; what is not known is None.

    Raises:
        ValueError: the file is not an object of JSON.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        return dict.fromkeys(KEYS)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: found.get(key) for key in KEYS}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no object of JSON: {error}") from error


def commit() -> str | None:
    """Of the checkout that the process runs in, marked where something in it was changed; None outside of any."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=7"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def machine() -> str:
    """In words: cores, memory, accelerators, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cores} CPU cores, {memory:.0f} GiB, {_accelerators()}, Python {platform.python_version()}"


def _accelerators() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
