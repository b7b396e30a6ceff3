# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a crash.

A checkpoint is verl's folder ``global_step_<n>``, in RL with the short policy beside the long one. It is complete when
its file ``long_short.json`` exists, which is written after all others are on disk, with their sizes and hashes; older
checkpoints are deleted only after that. A damaged one is found by them before anything loads.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import torch

from longshort_verl.config.compose import ConfigError
from longshort_verl.files.atomic import sync, write_json, write_text
from longshort_verl.files.manifest import ManifestError, content_hash, read_manifest

logger = logging.getLogger(__name__)

MARK = "long_short.json"
"""File of a complete checkpoint: step, schedule, policies, settings and inputs of its run, its files, and the metric if
it is the best one."""
SET_ASIDE = "long_short.damaged.json"
"""Name that the mark of a damaged checkpoint gets."""
TRACKER = "latest_checkpointed_iteration.txt"
"""verl's file with the step of the latest checkpoint."""
_FOLDER = re.compile(r"global_step_(\d+)")
_READERS = 8  # threads that hash


def begin(folder: str | os.PathLike) -> None:
    """Mark a folder as incomplete before a checkpoint is written to it."""
    (Path(folder) / MARK).unlink(missing_ok=True)


@contextmanager
def saving(folder: str | os.PathLike) -> Iterator[None]:
    """Around the writing of a checkpoint, which ends with :func:`complete`; a failure is logged with the free disk."""
    begin(folder)
    try:
        yield
    except Exception as error:  # of torch, of Ray, or of the disk itself
        disk = next(parent for parent in Path(folder).absolute().parents if parent.is_dir())
        message = "%s could not be written, and the checkpoint before it stays in use; %d bytes are free in %s: %s"
        logger.error(message, folder, shutil.disk_usage(disk).free, disk, f"{error!r}"[:300])
        raise


def complete(folder: str | os.PathLike, record: Mapping[str, Any], run: str | os.PathLike | None = None) -> None:
    """Mark a checkpoint as complete after all of it is written.

    ``run`` is the folder of the run, whose manifest holds the settings and inputs that a resumed run is compared with.
    """
    folder = Path(folder)
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in (MARK, SET_ASIDE)]
    for path in (*files, *(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent):
        sync(path)
    entries = zip(files, _hashes(files), strict=True)
    listed = {str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": value} for file, value in entries}
    write_json(folder / MARK, {**record, "run": _settings_of(run), "files": listed})
    sync(folder)


def _hashes(files: list[Path]) -> Iterator[str | None]:
    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(content_hash, files)


def _settings_of(run: str | os.PathLike | None) -> dict[str, Any] | None:
    try:
        manifest = read_manifest(Path(run)) if run else None
    except (OSError, ManifestError):  # a run without our callback, or on a machine that does not share its folder
        return None
    return {name: manifest[name] for name in ("config", "inputs")} if manifest else None


def damage(folder: str | os.PathLike, *patterns: str, hashes: bool = True) -> str:
    """What is wrong with a complete checkpoint, or with its files of some glob patterns; "" if nothing is.

    A checkpoint of an earlier version has no list of its files and is not compared. ``hashes``: read all files; else
    compare their sizes alone.
    """
    try:
        listed = read_mark(folder).get("files", {})
    except (ValueError, TypeError) as error:
        return f"{MARK} cannot be read ({error})"
    matching = [name for name in listed if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
    files = {Path(folder) / name: listed[name] for name in matching}
    for file, entry in files.items():
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            held = "is missing" if size is None else f"has {size} bytes"
            return f"{file.relative_to(folder)} {held}, and was written with {entry['bytes']}"
    for file, value in zip(files, _hashes(list(files)) if hashes else (), strict=hashes):
        if value != files[file]["sha256"]:
            return f"{file.relative_to(folder)} does not hold what was written (sha256)"
    return ""


def read_mark(folder: str | os.PathLike) -> dict[str, Any]:
    """The record of a complete checkpoint."""
    return dict(json.loads((Path(folder) / MARK).read_text(encoding="utf-8")))


def is_complete(folder: str | os.PathLike) -> bool:
    """Whether all of a checkpoint was written."""
    return (Path(folder) / MARK).exists()


def latest(root: str | os.PathLike) -> dict[str, Any] | None:
    """Record of the newest complete checkpoint under ``root``; None without one."""
    steps = _whole(Path(root))
    return read_mark(Path(root) / f"global_step_{max(steps)}") if steps else None


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


def repair(root: str | os.PathLike, *, hashes: bool = True) -> None:
    """Point verl's tracker, which verl does not write atomically, at the newest whole checkpoint with our mark.

    A damaged one is set aside, with a warning, for the one before it; ``hashes`` as in :func:`damage`.

    Raises:
        ConfigError: checkpoints are damaged, and there is no whole one before them.
    """
    tracker, folders = Path(root) / TRACKER, _folders(Path(root))
    steps = _whole(Path(root))
    named = tracker.read_text().strip() if tracker.exists() else ""
    if not steps:
        if tracker.exists() and not named.isdigit():
            tracker.unlink()
            logger.warning("%s names no step and no checkpoint beside it is whole: training from scratch", tracker)
        return
    step = int(named) if named.isdigit() and int(named) in steps else max(steps)
    faults = {}
    while fault := damage(folders[step], hashes=hashes):
        faults[step] = f"{folders[step]} is damaged: {fault}"
        earlier = [other for other in steps if other < step]
        if not earlier:
            cure = "restore that file, or start anew with trainer.resume_mode=disable"
            raise ConfigError(f"{faults[max(faults)]}, and no whole checkpoint is before it; {cure}")
        logger.warning("%s; the checkpoint before it is used", faults[step])
        step = max(earlier)
    for damaged in faults:
        (folders[damaged] / MARK).rename(folders[damaged] / SET_ASIDE)
    if named != str(step):
        logger.warning("%s names %r, which is no whole checkpoint: resuming from step %s", tracker, named, step)
        write_text(tracker, str(step))


def to_resume(root: Path, mode: str, path: str | None) -> Path | None:
    """The whole checkpoint that a run resumes from, by its ``trainer.resume_mode`` and ``resume_from_path``; or None.

    Raises:
        ConfigError: there is no such folder, or it is damaged; under ``auto`` as :func:`repair`.
    """
    if mode == "disable":
        return None
    if path is None:
        repair(root)
        tracker = root / TRACKER
        folder = root / f"global_step_{tracker.read_text().strip()}" if tracker.exists() else None
        return folder if folder and folder.is_dir() else None
    if not Path(path).is_dir():
        raise ConfigError(f"trainer.resume_from_path is {path}, and there is no such folder; give a global_step_<n>")
    if is_complete(path) and (fault := damage(path)):
        raise ConfigError(f"trainer.resume_from_path is {path}, which is damaged: {fault}; give another checkpoint")
    return Path(path)


def check(folder: str | os.PathLike, *, policies: str) -> None:
    """Refuse, by a ConfigError, a checkpoint of two policies if the run has a shared one, or the reverse."""
    mark = Path(folder) / MARK
    if not mark.exists():
        logger.warning("%s has no %s: whether it is whole cannot be told", folder, MARK)
        return
    found = read_mark(folder).get("policies")
    if found != policies:
        raise ConfigError(
            f"the checkpoint {folder} is of long_short.policies {found!r}, but the run's is {policies!r}; set that, or "
            "start anew with trainer.resume_mode=disable"
        )


class Loader(Iterable[Any], Sized, Protocol):
    """A ``StatefulDataLoader`` of torchdata."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def restore_loader(loader: Loader, state: str | os.PathLike, step: int) -> None:
    """Check a loader's file ``state`` in the checkpoint of ``step``; at the end of an epoch, begin the next one.

    Such a state has no batch left: verl 0.9.1's SFT trainer counts that rest as an epoch and ends one early; its RL
    trainer does not load it, and repeats the first order. RuntimeError: rows would be repeated or left out.
    """
    cure = "rows would be repeated or left out; resume from another checkpoint"
    if not Path(state).exists():
        raise RuntimeError(f"there is no {state}: {cure}")
    saved = torch.load(state, weights_only=True)
    snapshot = saved.get("_snapshot")  # with worker processes
    taken = snapshot["_snapshot_step"] + saved["_steps_since_snapshot"] if snapshot else saved["_num_yielded"]
    if taken != (expected := (step - 1) % len(loader) + 1):
        raise RuntimeError(f"{state} is at batch {taken} of an epoch, and step {step} ends batch {expected}: {cure}")
    if taken == len(loader):
        loader.load_state_dict(saved)
        list(loader)


def _folders(root: Path) -> dict[int, Path]:
    if not root.is_dir():
        return {}
    return {int(match[1]): path for path in root.iterdir() if (match := _FOLDER.fullmatch(path.name))}


def _whole(root: Path) -> list[int]:
    return [step for step, folder in _folders(root).items() if is_complete(folder)]
