# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found: a table for people, and a file per kind of machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.support.configs import ROOT

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured number with its spread over the run's repetitions."""

    measure: str
    """What it is, with its unit where it is no ratio."""
    ratio: float
    """The median."""
    low: float
    """The lowest."""
    high: float
    """The highest."""
    goal: str
    """What it should be; empty where it is only reported."""
    holds: bool | None
    """Whether the median reaches the goal."""
    command: str
    """What was run."""
    commit: str
    """Of the code that was measured; ends in "+" where files were changed."""


def result(
    measure: str,
    values: Sequence[float],
    *,
    command: str,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Result:
    """Median and range of repetitions, against the largest or the smallest value that would do."""
    middle = median(values)
    goal, holds = "", None
    if at_most is not None:
        goal, holds = f"at most {at_most:g}", middle <= at_most
    if at_least is not None:
        goal, holds = f"at least {at_least:g}", middle >= at_least
    return Result(
        measure=measure,
        ratio=round(middle, 4),
        low=round(min(values), 4),
        high=round(max(values), 4),
        goal=goal,
        holds=holds,
        command=command,
        commit=commit(),
    )


def write(results: Sequence[Result]) -> Path:
    """Put results into the machine's file, each in place of an older one of the same measure."""
    path = FOLDER / f"{machine()}.json"
    FOLDER.mkdir(exist_ok=True)
    known = {row["measure"]: row for row in (json.loads(path.read_text()) if path.exists() else [])}
    known.update({row.measure: asdict(row) for row in results})
    path.write_text(json.dumps(list(known.values()), indent=2, ensure_ascii=False) + "\n")
    return path


def show(results: Sequence[Result]) -> None:
    """Print a table that fits a terminal."""
    table = Table(title=f"{machine()}, {commit()}")
    for column in ("measure", "median", "lowest", "highest", "goal", "holds"):
        table.add_column(column, justify="left" if column in ("measure", "goal") else "right")
    for row in results:
        holds = {None: "", True: "yes", False: "no"}[row.holds]
        table.add_row(row.measure, f"{row.ratio:.3g}", f"{row.low:.3g}", f"{row.high:.3g}", row.goal, holds)
    Console().print(table)


def machine() -> str:
    """Kind of this machine: architecture, processors, memory, and the accelerator where there is one."""
    import torch

    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    device = torch.cuda.get_device_name().lower().replace(" ", "-") if torch.cuda.is_available() else "no-gpu"
    return f"{platform.machine()}-{os.cpu_count()}cpu-{gib:.0f}gib-{device}"


def commit() -> str:
    """Of this code; ends in "+" where files were changed."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    measured = ("longshort_verl", "recipes", "tests", ":(exclude)tests/*/results")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *measured)
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
