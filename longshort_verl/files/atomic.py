# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writing a file as a whole: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Create the folder of ``path``, let ``write`` fill a temporary file in it, and rename that to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile, whose files only their owner may read. The name is unique across hosts that share a folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically.

    Raises:
        TypeError, ValueError: ``value`` holds what JSON cannot, NaN and infinity included.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
