# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a crash.

A checkpoint is verl's folder ``global_step_<n>`` with the short policy beside the long one. It is complete when its
file ``long_short.json`` exists, which is written last; older checkpoints are deleted only after that.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longshort_verl.config.compose import ConfigError

logger = logging.getLogger(__name__)

MARK = "long_short.json"
"""File of a complete checkpoint: step, schedule, policies, and the metric if it is the best one."""
TRACKER = "latest_checkpointed_iteration.txt"
"""verl's file with the step of the latest checkpoint."""
_FOLDER = re.compile(r"global_step_(\d+)")


def begin(folder: str | os.PathLike) -> None:
    """Mark a folder as incomplete before a checkpoint is written to it."""
    (Path(folder) / MARK).unlink(missing_ok=True)


def complete(folder: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Mark a checkpoint as complete after all of it is written."""
    _write(Path(folder) / MARK, json.dumps(record, indent=2) + "\n")


def is_complete(folder: str | os.PathLike) -> bool:
    """Whether all of a checkpoint was written."""
    return (Path(folder) / MARK).exists()


def latest(root: str | os.PathLike) -> dict[str, Any] | None:
    """Record of the newest complete checkpoint under ``root``; None without one."""
    steps = _whole(Path(root))
    return json.loads((Path(root) / f"global_step_{max(steps)}" / MARK).read_text()) if steps else None


def prune(root: str | os.PathLike, keep: int | None) -> None:
    """Delete all but the newest ``keep`` complete checkpoints, and older incomplete ones; None keeps all."""
    if keep is None:
        return
    kept = sorted(_whole(Path(root)))[-keep:]
    if not kept:
        return
    for step, folder in _folders(Path(root)).items():
        if step not in kept and step < kept[-1]:
            begin(folder)  # an interrupted deletion must leave nothing that looks complete
            shutil.rmtree(folder)


def repair(root: str | os.PathLike) -> None:
    """Point verl's tracker, which verl does not write atomically, at the newest complete checkpoint with our mark."""
    tracker = Path(root) / TRACKER
    steps = _whole(Path(root))
    if not steps:
        if tracker.exists() and not tracker.read_text().strip().isdigit():
            tracker.unlink()
            logger.warning("%s names no step and no checkpoint beside it is whole: training from scratch", tracker)
        return
    found = tracker.read_text().strip() if tracker.exists() else ""
    if not found.isdigit() or int(found) not in steps:
        logger.warning("%s names %r, which is no whole checkpoint: resuming from step %s", tracker, found, max(steps))
        _write(tracker, str(max(steps)))


def check(folder: str | os.PathLike, *, policies: str) -> None:
    """Refuse, by a ConfigError, a checkpoint of two policies if the run has a shared one, or the reverse."""
    mark = Path(folder) / MARK
    if not mark.exists():
        logger.warning("%s has no %s: whether it is whole cannot be told", folder, MARK)
        return
    found = json.loads(mark.read_text()).get("policies")
    if found != policies:
        raise ConfigError(
            f"the checkpoint {folder} is of long_short.policies {found!r}, but the run's is {policies!r}; set that, or "
            "start anew with trainer.resume_mode=disable"
        )


def _folders(root: Path) -> dict[int, Path]:
    if not root.is_dir():
        return {}
    return {int(match[1]): path for path in root.iterdir() if (match := _FOLDER.fullmatch(path.name))}


def _whole(root: Path) -> list[int]:
    return [step for step, folder in _folders(root).items() if is_complete(folder)]


def _write(path: Path, text: str) -> None:
    """Write a file atomically."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
