# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The script of one grading process: compares answers with math-verify until its parent closes the connection.

``workers`` starts it by path, so that it imports math-verify and nothing of this package. It reads requests from
standard input, which is a socket: JSON ``[answer, gold, timeout_s]``. It replies with JSON ``[verdict, worn]``.
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
from multiprocessing.connection import Connection
from typing import Any

EQUAL = "equal"
DIFFERENT = "different"
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
    judge("\\frac{\\sqrt{2}}{2} x^2", "(1, \\pi) \\cup [2, \\infty)")  # fills the caches of the parser and of `re`
    judge("\\frac{x}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2} x")
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
    """Imports math-verify; returns a function from answer and gold answer to one of the verdicts above."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # LaTeX only: the parser of plain expressions would pick a number out of unreadable text.
    extraction = [LatexExtractionConfig(boxed_match_priority=0)]

    def read(text: str) -> list:
        no_limit: Any = None  # annotated as int, documented as None
        return parse(f"\\boxed{{{text}}}", extraction, fallback_mode="no_fallback", parsing_timeout=no_limit)

    def judge(answer: str, gold: str) -> str:
        try:
            gold_values = read(gold)
            if not gold_values:
                return GOLD_AS_TEXT
            answer_values = read(answer)
            if not answer_values:
                return UNREADABLE
            equal = verify(gold_values, answer_values, timeout_seconds=None, raise_on_error=True)
        except Exception:  # any exception at all: sympy runs on text that a model wrote
            return FAILED
        return EQUAL if equal else DIFFERENT

    return judge


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    serve()
