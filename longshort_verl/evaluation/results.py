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
"""Results of an evaluation as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

_ROWS = (
    ("problems", "num_problems", "{:.0f}"),
    ("accuracy", "accuracy", "{:.1%}"),
    ("tokens", "num_tokens", "{:.1f}"),
    ("tokens, long role", "num_tokens_long", "{:.1f}"),
    ("tokens, short role", "num_tokens_short", "{:.1f}"),
    ("well-formed turns, long role", "well_formed_long", "{:.1%}"),
    ("well-formed turns, short role", "well_formed_short", "{:.1%}"),
    ("rethinks a dialogue", "num_rethinks", "{:.2f}"),
    ("cut off by a limit", "truncated", "{:.1%}"),
    ("lost to an engine", "engine_error", "{:.1%}"),
)


def evaluation_table(results: Mapping[str, Mapping[str, float]]) -> Table:
    """A column a system, a row a number that any of them has."""
    table = Table(title="evaluation")
    table.add_column()
    for system in results:
        table.add_column(system, justify="right")
    for label, name, form in _ROWS:
        if any(name in found for found in results.values()):
            table.add_row(label, *(form.format(found[name]) if name in found else "" for found in results.values()))
    return table
