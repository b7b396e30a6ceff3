# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What crashed jobs leave in /dev/shm: named so that it can be told from other programs' memory, found, and removed."""

from __future__ import annotations

import logging
import multiprocessing.process
import os
import re
import secrets
import time
from multiprocessing import shared_memory
from pathlib import Path

logger = logging.getLogger(__name__)

SHARED = Path("/dev/shm")
_PREFIX = "longshort-"
_OURS = re.compile(rf"(?:sem\.)?{_PREFIX}(\d+)-(\d+)-\w+")
_VERLS = "verl_weights_"  # buckets of a weight update; their name holds no process
_YOUNG_S = 60.0  # a bucket may not be mapped yet


def name_shared_memory() -> None:
    """Name what this process leaves in /dev/shm after itself: ``longshort-<namespace>-<process id>-<random>``.

    Containers may share /dev/shm and not their process ids, hence the number of the namespace of those ids. Python, and
    with it vLLM, names it at random. The names of Python's own module are private: without them nothing changes.
    """
    if hasattr(shared_memory, "_make_filename"):
        shared_memory._make_filename = _name  # pyright: ignore[reportAttributeAccessIssue]: private
    settings = getattr(multiprocessing.process.current_process(), "_config", {})
    if "semprefix" in settings:
        settings["semprefix"] = f"/{_PREFIX}{_namespace()}-{os.getpid()}"


def _name() -> str:
    return f"/{_PREFIX}{_namespace()}-{os.getpid()}-{secrets.token_hex(4)}"


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux, or no /proc
        return 0


def leftovers(folder: Path = SHARED) -> list[Path]:
    """Files of ours whose process has ended, and verl's weight buckets, of those that no process maps."""
    import psutil

    mapped = _mapped(folder)
    found = []
    for path in sorted(folder.glob("*") if folder.is_dir() else ()):
        ours = _OURS.fullmatch(path.name)
        if path.name in mapped or not (ours or path.name.startswith(_VERLS)):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if ours:
            ended = int(ours[1]) == _namespace() and not psutil.pid_exists(int(ours[2]))
        else:
            ended = time.time() - status.st_mtime > _YOUNG_S
        if ended and status.st_uid == os.getuid():
            found.append(path)
    return found


def remove_leftovers(folder: Path = SHARED) -> None:
    """Remove those :func:`leftovers` that carry our name, and log how many bytes they held."""
    num_files = num_bytes = 0
    for path in filter(lambda path: _OURS.fullmatch(path.name), leftovers(folder)):
        size = path.stat().st_blocks * 512 if path.exists() else 0
        path.unlink(missing_ok=True)
        num_files, num_bytes = num_files + 1, num_bytes + size
    if num_files:
        logger.warning("removed from %s what crashed jobs left: %d files, %d bytes", folder, num_files, num_bytes)


def _mapped(folder: Path) -> set[str]:
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text(errors="replace")
        except OSError:  # it ended, or is another user's
            continue
        names.update(re.findall(rf"{re.escape(str(folder))}/(\S+)", text))
    return names
