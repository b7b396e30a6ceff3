# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The file of verl's file logger. verl empties what it opens, so every start of a run gets a file of its own.

``longshort report rl`` reads all files of a run's folder, the later start last.
"""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path
from typing import Any

VARIABLE = "VERL_FILE_LOGGER_PATH"
"""verl's environment variable for the path of the file."""
ROOT = "VERL_FILE_LOGGER_ROOT"
"""verl's environment variable for the folder of ``<project_name>/<experiment_name>.jsonl``."""


def name_metrics_file(trainer: Any, folder: Path) -> None:
    """Set :data:`VARIABLE` for this process and those that it starts to a file that holds no metrics yet.

    A file that the user named is used if it is new or empty; else a time is added to its name. Without a name, the file
    is ``metrics-<time>.jsonl`` in ``folder``, that of the run. ``trainer`` is the section of verl's config.
    """
    if "file" not in (trainer.get("logger") or ()):
        return
    named = os.environ.get(VARIABLE)
    if named is None and ROOT in os.environ:
        root = Path(os.environ[ROOT]).expanduser()
        named = str(root / trainer.project_name / f"{trainer.experiment_name}.jsonl")
    path = Path(named or folder / "metrics.jsonl").absolute()
    if named is None or (path.is_file() and path.stat().st_size):
        start = time.strftime("%Y%m%dT%H%M%S")
        names = (f"{path.stem}-{start}{f'-{number}' if number else ''}{path.suffix}" for number in count())
        path = next(new for name in names if not (new := path.with_name(name)).exists())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.environ[VARIABLE] = str(path)
