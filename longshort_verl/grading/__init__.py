# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Grading: does the boxed answer of a text equal the gold answer?

``answers`` reads and compares answers, ``workers`` runs math-verify in processes with a time limit, and ``judge`` is
the script of such a process. The accuracy reward, the cold-start filter, Monte-Carlo importance and evaluation all
grade with :func:`grade`.
"""

from longshort_verl.grading.answers import GradingSettings, check_gold, grade, last_boxed, warm_up

__all__ = ["GradingSettings", "check_gold", "grade", "last_boxed", "warm_up"]
