# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Kinds of answers that graders get wrong, as people reported them to the public trackers of graders and trainers.

``kinds.jsonl`` has reported kinds; ``neighbours.jsonl`` has answers of the same kinds with other numbers and words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.grading.cases import is_right

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "count", "num_right"), [("kinds.jsonl", 63, 43), ("neighbours.jsonl", 476, 336), ("hedges.jsonl", 170, 86)]
)
def test_every_row_is_judged_as_a_mathematician_would(name: str, count: int, num_right: int) -> None:
    cases = rows(name)
    assert (len(cases), sum(case["right"] for case in cases)) == (count, num_right)
    assert [case for case in cases if is_right(case["answer"], case["gold"]) is not case["right"]] == []
