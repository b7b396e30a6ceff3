# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a crash: which folders are whole, which one is in use, which may go.

A checkpoint is verl's folder ``global_step_<n>`` with the short policy beside the long one. It counts as whole once its
file ``long_short.json`` is there, which is written last; old ones go only after that. verl's own file that names the
latest checkpoint is not written in one piece, so :func:`repair` looks at it before a resume.
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
"""File of a whole checkpoint: step, schedule, policies, and why it was kept where it is the best one."""
TRACKER = "latest_checkpointed_iteration.txt"
"""verl's file that names the step of the latest checkpoint."""
_FOLDER = re.compile(r"global_step_(\d+)")


def begin(folder: str | os.PathLike) -> None:
    """Before a checkpoint is written: what stands there already, whole or not, no longer counts."""
    (Path(folder) / MARK).unlink(missing_ok=True)


def complete(folder: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """After all of a checkpoint is written: declare it whole."""
    _write(Path(folder) / MARK, json.dumps(record, indent=2) + "\n")


def latest(root: str | os.PathLike) -> dict[str, Any] | None:
    """Record of the newest whole checkpoint under ``root``; None where there is none."""
    steps = _whole(Path(root))
    return json.loads((Path(root) / f"global_step_{max(steps)}" / MARK).read_text()) if steps else None


def prune(root: str | os.PathLike, keep: int | None) -> None:
    """Delete all but the newest ``keep`` whole checkpoints, and what crashed before them; None keeps all."""
    if keep is None:
        return
    kept = sorted(_whole(Path(root)))[-keep:]
    if not kept:
        return
    for step, folder in _folders(Path(root)).items():
        if step not in kept and step < kept[-1]:
            begin(folder)  # so that a deletion that is cut short leaves nothing that looks whole
            shutil.rmtree(folder)


def repair(root: str | os.PathLike) -> None:
    """Point verl's tracker at the newest whole checkpoint where it names none: a crash may have cut a save short.

    Checkpoints that carry no mark at all, as other trainers' do, are left as they are.
    """
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
    """Refuse a checkpoint of another kind.

    Raises:
        ConfigError: it holds two policies and one is wanted, or the other way round.
    """
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
    return [step for step, folder in _folders(root).items() if (folder / MARK).exists()]


def _write(path: Path, text: str) -> None:
    """All or nothing, whenever the process dies."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
