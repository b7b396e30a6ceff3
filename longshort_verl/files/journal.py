# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""An append-only file of finished work that survives ``kill -9`` at any moment.

Each record is one line, written by one call; a line that was cut short is dropped, and one that was damaged later is
skipped with a warning. Keys are unique, so nothing counts twice. Work that has no record is done again with the same
seed. The first line holds the settings: a journal refuses to open under others once it has a record.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from longshort_verl.files.manifest import differences

logger = logging.getLogger(__name__)


class JournalError(ValueError):
    """A journal that cannot be resumed; the message says why and what to do."""


class Journal:
    """Records by key, in memory and on disk; one process may have it open."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open a journal, or begin it. ``settings``: everything that its records depend on, as JSON values.

        Raises:
            JournalError: another process has it open, it was written with other settings, or its settings are damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.num_damaged = 0
        """Lines that were skipped; their work is done again."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalError(f"another process writes {path}; wait for it or end it") from None
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
        first, *rest = whole.splitlines() or [b""]
        self._read_records(rest)
        old: dict[str, Any] | None = None
        try:
            old = dict(json.loads(first)["settings"])
        except (ValueError, LookupError, TypeError) as error:
            if self._records:
                raise JournalError(
                    f"{self.path}: line 1, its settings, is damaged ({error}); delete the file"
                ) from error
        changed = differences(old or {}, settings)
        if old is None or (changed and not self._records):  # an earlier run failed before its first record
            os.ftruncate(self._file, 0)
            self._write({"settings": settings})
        elif changed:
            lines = "\n  ".join([f"{self.path} was written with other settings:", *changed])
            raise JournalError(f"{lines}\nGive another output, or the old settings.")

    def _read_records(self, lines: list[bytes]) -> None:
        fault = ""
        for number, line in enumerate(lines, start=2):
            try:
                row = json.loads(line)
                key, value = row["key"], row["value"]
                if key in self._records:
                    raise ValueError("an earlier line has its key")
                self._records[key] = value
            except (ValueError, LookupError, TypeError) as error:
                self.num_damaged += 1
                fault = f"line {number} ({error})"
        if fault:
            message = "%s: damaged lines skipped: %d of %d, the last %s; their work is done again"
            logger.warning(message, self.path, self.num_damaged, len(lines), fault)

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        before, written, reason = os.fstat(self._file).st_size, 0, errno.ENOSPC
        try:
            written = os.write(self._file, line)
        except OSError as error:
            reason = error.errno or reason
        if written != len(line):
            os.ftruncate(self._file, before)  # or the next record would continue half a line
            raise OSError(reason, os.strerror(reason), str(self.path))

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Write a record of a new key to disk."""
        if key in self._records:
            raise ValueError(f"{self.path} has a record {key!r} already")
        self._write({"key": key, "value": value})
        self._records[key] = value

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key, or None."""
        return self._records.get(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Let other processes open it."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
