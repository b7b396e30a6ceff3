# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM as the notice of a cluster's scheduler: the job saves when its step ends, and then ends itself."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from ray._private import worker

FILE = "sigterm"
"""File in the run's folder by which the driver tells the trainer, which may be on another node."""
STATUS = 128 + signal.SIGTERM
"""Exit status of a job that ended this way."""


def listen(folder: Path, *, save: bool) -> None:
    """Forget an earlier notice; with ``save``, take SIGTERM for one from now on, and end at once at a second one.

    Ray sets a handler of its own when the driver connects, so this one is set after that.
    """
    (folder / FILE).unlink(missing_ok=True)

    def take(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(STATUS))
        (folder / FILE).touch()
        text = f"a checkpoint follows when this step ends, and the job then ends with status {STATUS}"
        print(f"longshort: SIGTERM: {text}; another SIGTERM ends it now", file=sys.stderr, flush=True)

    if save:
        worker._post_init_hooks.append(lambda: signal.signal(signal.SIGTERM, take))


def given(folder: Path) -> bool:
    """Whether the notice has come."""
    return (folder / FILE).exists()
