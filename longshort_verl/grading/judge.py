# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The script of one grading process: compares answers until its parent closes the connection.

``workers`` starts it by path, so that it imports nothing of the parent's main module. It reads requests from standard
input, which is a socket: JSON ``[answer, gold, timeout_s]``. It replies with JSON ``[verdict, worn]``.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.connection import Connection

EQUAL = "equal"
DIFFERENT = "different"
SIDE_BY_SIDE = "two numbers side by side"
UNREADABLE = "not readable as mathematics"
FAILED = "comparison failed"
GOLD_AS_TEXT = "gold answer is not mathematics, text differs"

_MEMORY_BYTES = 1 << 30
"""Address space of one process, which needs about 0.2 GiB: ``10^{10^{12}}`` must not fill the machine's memory."""


def serve() -> None:
    """Answers requests until the parent closes its end of the socket or dies."""
    connection = Connection(os.dup(0))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()

    judge = load_judge()
    # Fills the caches of the parser, of `re` and of pint.
    for answer, gold in (
        ("0 < x \\le \\sqrt{2}", "(0, \\sqrt{2}]"),
        ("\\frac{x}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2} x"),
        ("(1, \\pi) \\cup [2, \\infty)", "x > 1"),
        ("500\\text{ cm}", "5\\text{ m}"),
    ):
        judge(answer, gold)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    os.dup2(null, 2)  # start-up errors were visible on standard error; from here on only antlr writes to it
    connection.send_bytes(b"ready")
    while True:
        answer, gold, timeout_s = json.loads(requests.get())
        # If the parent has died, the kernel ends even a computation that blocks every other thread.
        signal.setitimer(signal.ITIMER_REAL, timeout_s + 1.0)
        verdict = judge(answer, gold)
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(json.dumps([verdict, _is_worn()]).encode())


def _receive(connection: Connection, requests: queue.SimpleQueue[bytes]) -> None:
    """Runs in a thread, so that the parent's death ends this process in the middle of a comparison."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _is_worn() -> bool:
    """Whether memory that was not freed could make the next comparison fail: each must start from the same state."""
    if sys.platform != "linux":
        return False
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    return pages * resource.getpagesize() > _MEMORY_BYTES // 2


def load_judge() -> Callable[[str, str], str]:
    """Imports the libraries; returns a function from answer and gold answer to one of the verdicts above."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    from longshort_verl.grading import mathematics, units
    from longshort_verl.grading.compare import equal
    from longshort_verl.grading.values import SideBySideError, read_pair

    units.registry()

    @lru_cache(maxsize=4096)  # samples of one prompt repeat each other
    def judge(answer: str, gold: str) -> str:
        try:
            return EQUAL if equal(*read_pair(answer, gold), mathematics.decide) else DIFFERENT
        except mathematics.UnreadableError as unreadable:
            return GOLD_AS_TEXT if unreadable.is_gold else UNREADABLE
        except SideBySideError:
            return SIDE_BY_SIDE
        except Exception:  # any exception at all: sympy runs on text that a model wrote
            return FAILED

    return judge


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    serve()
