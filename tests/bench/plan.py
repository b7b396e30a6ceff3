# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Which step of the benchmark's job measures what. Apart from ``cycle``, whose import changes the trainer."""

from __future__ import annotations

from longshort_verl.types import Role

L, S, B = frozenset({Role.LONG}), frozenset({Role.SHORT}), frozenset(Role)
CYCLE = (L, L, S, S, L, B, B)
"""Learning roles, step after step; the second of each pair follows a step of its own kind, the third L and the first S
a switch."""
CYCLES = 5
"""The first one warms up."""
POLLS = 8
"""Steps of the long role alone after the cycles, with our poll interval and verl's in turn."""
STEPS = len(CYCLE) * CYCLES + POLLS
VERLS_POLL_S = 2.0
