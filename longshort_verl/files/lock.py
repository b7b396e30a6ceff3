# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time in an output: a file with the host and the process that use it.

On one machine the kernel's lock on the file decides; it ends with its process, however that ends. Machines that share a
file system may not share locks. Between them the file's time decides: its holder renews it, and a holder that has not
done so for :data:`STALE_S` is gone.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LOCK = "lock.json"
RENEW_S = 20.0
STALE_S = 180.0

_held: set[int] = set()


def _close_in_child() -> None:
    """A forked child that outlives its parent must not keep the parent's lock."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


class LockError(ValueError):
    """An output that another process uses; the message names it and says what to do."""


class OutputLock:
    """The lock of one output, free until :meth:`take`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._owner = 0
        self._released = threading.Event()
        self._renewer: threading.Thread | None = None

    def take(self) -> None:
        """Take the lock, or take it over from a process that ended without releasing it, with a warning. Idempotent.

        Raises:
            LockError: another process has it, on this machine or another.
            OSError: the file cannot be written.
        """
        if self._file is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._open()
        body = {"host": socket.gethostname(), "pid": os.getpid(), "command": shlex.join(sys.argv)}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(body).encode() + b"\n", 0)
        self._file, self._owner = file, os.getpid()
        _held.add(file)
        self._released.clear()
        self._renewer = threading.Thread(target=self._renew, args=(file,), name="longshort-lock", daemon=True)
        self._renewer.start()

    def _open(self) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._check(file)
                if self._is_current(file):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # its holder removed it in between

    def _is_current(self, file: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), self._path.stat())
        return False

    def _check(self, file: int) -> None:
        kernel_knows = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockError(self._message(_holder(file), "")) from None
        except OSError:  # a file system without locks
            kernel_knows = False
        holder = _holder(file)
        if not holder:
            return
        if not (kernel_knows and holder.get("host") == socket.gethostname()):
            left = STALE_S - self._age(file)
            if left > 0:
                cure = f"; if that process is gone, try again in {left:.0f} s or delete {self._path}"
                raise LockError(self._message(holder, cure))
        logger.warning("%s is of %s, which has ended: taken over", self._path, _described(holder))

    def _message(self, holder: dict[str, Any], cure: str) -> str:
        return (
            f"{self._path.parent} is in use by {_described(holder)}: {holder.get('command', 'unknown command')}; wait "
            f"for it, end it, or give another output{cure}"
        )

    def _age(self, file: int) -> float:
        """Seconds since the holder renewed the file, by the clock of the file system and not of this machine."""
        with tempfile.TemporaryFile(dir=self._path.parent) as now:
            return os.fstat(now.fileno()).st_mtime - os.fstat(file).st_mtime

    def _renew(self, file: int) -> None:
        while not self._released.wait(RENEW_S):
            with suppress(OSError):  # a server that is away for a moment
                os.utime(file)

    def release(self) -> None:
        """Remove the file, if this process has the lock. Idempotent."""
        if self._file is None or self._owner != os.getpid():
            return
        self._released.set()
        if self._renewer is not None:
            self._renewer.join()
        if self._is_current(self._file):
            self._path.unlink(missing_ok=True)
        _held.discard(self._file)
        os.close(self._file)
        self._file = None


def _holder(file: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(file, 1 << 16, 0)))
    except (ValueError, TypeError):  # a holder that has not written it yet
        return {}


def _described(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
