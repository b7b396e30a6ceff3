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
"""``python -m tests.bench``: run the benchmarks, print a table, write the machine's file."""

from __future__ import annotations

import sys

from tests.bench import two_policies
from tests.bench.results import show, write
from tests.configs import ROOT

# The recipe's own modules, as its scripts see them.
sys.path.insert(0, str(ROOT / "recipes" / "tiny_cpu"))

results = two_policies.run()
show(results)
print(f"written to {write(results).relative_to(ROOT)}")
