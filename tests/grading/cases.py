# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Settings and short cuts of the grading tests."""

from __future__ import annotations

from longshort_verl.grading import GradingSettings, grade

PATIENT = GradingSettings(timeout_s=30.0, max_answer_chars=2000, max_workers=2)
"""For verdicts: a busy machine must not make a right answer late."""
HASTY = GradingSettings(timeout_s=0.8, max_answer_chars=2000, max_workers=2)
"""For the time limit."""


def boxed(answer: str) -> str:
    return f"So it is $\\boxed{{{answer}}}$."


def is_right(answer: str, gold: str) -> bool:
    return grade(boxed(answer), gold, PATIENT).correct
