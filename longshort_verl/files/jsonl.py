# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""JSONL: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from longshort_verl.files.atomic import write_text


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line, counted from 1, and its object. An empty file yields nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not a JSON object; the message names the line.
    """
    # Not splitlines(), which also splits at a raw U+2028 that a model wrote.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}, is not a JSON object")
        yield number, row


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one line per row, atomically; text stays readable (not ASCII escapes)."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
