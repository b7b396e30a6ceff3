# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Ends a process when the process that started it has ended, however that was.

vLLM's engines wait for requests for ever when their parent was killed, and keep their memory. The kernel's own signal
(``PR_SET_PDEATHSIG``) does not fit: it is sent when the parent's *thread* ends, and engines may start from threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

POLL_S = 1.0
"""Seconds between two looks at the parent."""
GRACE_S = 5.0
"""Seconds for an orderly end, which removes shared memory; then the process is killed."""


def end_with_parent() -> None:
    """End this process with its parent if ``multiprocessing`` started it, and its own forked children with it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_after(parent.pid or 0)
    # vLLM forks where it does not spawn, and a forked child does not load its plug-ins again.
    os.register_at_fork(before=_remember, after_in_child=lambda: end_after(_forking))


_forking = 0
"""Process that forked last, as its child sees it."""


def _remember() -> None:
    global _forking
    _forking = os.getpid()


def end_after(parent: int) -> None:
    """End this process when its parent, a process id, has ended; also if it has by now."""
    threading.Thread(target=_end_after, args=(parent,), name="end_after_parent", daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:  # an orphan has another parent at once
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
