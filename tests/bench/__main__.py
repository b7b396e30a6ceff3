# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench [part …]``: run benchmarks, print tables, write the results. Parts are those of `Part`."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from tests.bench.results import show, write
from tests.support.configs import ROOT


class Part(str, Enum):
    """Benchmarks that can run alone."""

    TWO_POLICIES = "two_policies"
    IMPORTANCE = "importance"
    PRUNING = "pruning"
    GRADING = "grading"


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="Benchmarks to run; all by default.")] = None,
) -> None:
    """Run benchmarks, each of which measures ratios in one process or job."""
    from tests.bench import grading, importance, pruning, two_policies

    # The recipe's own modules, as its scripts see them.
    sys.path.insert(0, str(ROOT / "recipes" / "tiny_cpu"))
    runs = {
        Part.TWO_POLICIES: two_policies.run,
        Part.IMPORTANCE: importance.run,
        Part.PRUNING: pruning.run,
        Part.GRADING: grading.run,
    }
    for part in parts or Part:
        results = runs[part]()
        show(results)
        print(f"written to {write(results).relative_to(ROOT)}")


if __name__ == "__main__":
    typer.run(main)
