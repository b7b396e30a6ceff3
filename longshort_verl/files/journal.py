# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""An append-only file of finished work that survives ``kill -9`` at any moment.

Each record is one line, written by one call; a line that was cut short is not a record. Keys are unique, so nothing is
counted twice; what was not written is done again with the same seed. The first line names the settings: a journal is
not continued under others.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class JournalError(ValueError):
    """A journal that cannot be gone on with; the message says why and what to do."""


class Journal:
    """Records by key, in memory and on disk; one process at a time."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or begin a journal.

        Args:
            path: the file; its folder is made.
            settings: everything that its records depend on, as JSON values.

        Raises:
            JournalError: another process writes it, it was written with other settings, or a line is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalError(f"{path} is being written by another process; wait for it or end it") from None
            self._records: dict[str, dict[str, Any]] = {}
            self._read(json.loads(json.dumps(settings)))
        except BaseException:
            os.close(self._file)
            raise

    def _read(self, settings: dict[str, Any]) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.ftruncate(self._file, len(whole))
        lines = whole.splitlines()
        if not lines:
            self._write({"settings": settings})
            return
        found: dict[str, Any] = {}
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if number == 1:
                    found = dict(row["settings"])
                elif row["key"] in self._records:
                    raise ValueError("its key was there before")
                else:
                    self._records[row["key"]] = row["value"]
            except (ValueError, LookupError, TypeError) as error:
                raise JournalError(f"{self.path}: line {number} is damaged ({error}); delete the file") from error
        if found != settings:
            names = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
            raise JournalError(
                f"{self.path} was written with other settings ({', '.join(names)}); give another output, or the old "
                "settings"
            )

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Write a record; it is there for good when this returns.

        Raises:
            ValueError: there is a record of that key.
        """
        if key in self._records:
            raise ValueError(f"{self.path} has a record {key!r} already")
        self._write({"key": key, "value": value})
        self._records[key] = value

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key."""
        return self._records.get(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Let others write it."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
