# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Grading of a reply in lm-evaluation-harness, the same as in `longshort evaluate`."""

from longshort_verl.grading import GradingSettings, grade
from longshort_verl.problems.read import canonical_answer

SETTINGS = GradingSettings(timeout_s=2.0, max_answer_chars=1000, max_workers=2)


def process_results(doc, results):
    return {"accuracy": float(grade(results[0], canonical_answer(doc["answer"]), SETTINGS).correct)}
