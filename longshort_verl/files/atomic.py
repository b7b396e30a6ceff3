# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writing a file as a whole: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Create the folder of ``path``, let ``write`` fill a temporary file in it, sync that, and rename it to ``path``.

    Raises:
        OSError: the file cannot be written; it names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile, whose files only their owner may read. The name is unique across hosts that share a folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Write what the operating system still holds of a file, or of a folder's list of files, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def disk_message(error: OSError) -> str | None:
    """One line for the user on a file that cannot be opened or written, with the cure; None if it names no file."""
    if error.filename is None:
        return None
    path = Path(os.fsdecode(error.filename))
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{path} cannot be opened or written: {error.strerror}; change its permissions, or give another path"
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    free = f"{shutil.disk_usage(folder).free} bytes are free in {folder}"
    cure = "free some and start the same command again: what was written before is kept"
    return f"{path} cannot be written: {error.strerror}, {free}; {cure}"


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically.

    Raises:
        TypeError, ValueError: ``value`` holds what JSON cannot, NaN and infinity included.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
