# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Grading: does the boxed answer of a text equal the gold answer?

``answers`` takes the answer out of a text and grades it. ``text`` and ``values`` read it as a typed value, and
``compare`` compares two of them. ``workers`` runs ``judge`` in processes with a time limit, where ``mathematics`` and
``units`` ask the libraries. The accuracy reward, the cold-start filter, Monte-Carlo importance and evaluation all
grade with :func:`grade`.
"""

from longshort_verl.grading.answers import GradingSettings, check_gold, grade, last_boxed, warm_up

__all__ = ["GradingSettings", "check_gold", "grade", "last_boxed", "warm_up"]
