# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The sums that docs/laptop.md counts: which equations are taken, and which of them are true."""

from __future__ import annotations

import runpy

import pytest

from tests.support.configs import ROOT

sums = runpy.run_path(str(ROOT / "recipes" / "laptop" / "count_sums.py"))["sums"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("87 + 290 = 1180", [False]),
        (r"\(4 - 4 = 0\) and then 3 × 1,000 = 3,000.", [True, True]),
        (r"\[ 120 \text{ pages} \times 2 \text{ books} = 240 \text{ pages} \]", [True]),
        ("24 apps - 9 files = 11 apps", [False]),
        (r"\frac{250 \text{ dollars}}{2} = \$125", [True]),
        ("100 / 3 = 33.33; 100 / 3 = 34", [True, False]),
        ("17 - 18 = -1", [True]),
        ("7 / 0 = 0", [False]),
        ("1 + 2 + 3 = 6, (2 + 3) * 4 = 20, 2 + 3 = 1 + 4, x + 3 = 7", []),
        ("3 + 4 = 7. Check: 3 + 4 = 7", [True]),
        (r"12.5 * 2 = 25; 9 − 4 = 5; 8 ÷ 2 = 4; 2 \cdot 3 = 6", [True] * 4),
    ],
)
def test_sums(text, expected):
    assert list(sums(text)) == expected
