# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
