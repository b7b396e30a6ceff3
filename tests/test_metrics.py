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
"""What a run logs of its dialogues, worked by hand."""

from __future__ import annotations

import pytest

from longshort_verl.metrics import dialogue_metrics, role_metrics
from longshort_verl.rewards import Outcome
from longshort_verl.types import Reward, Role, StopReason


def record(acc: float, long: int, short: int, rethinks: int, stop: StopReason) -> dict:
    return {
        "acc": acc,
        "num_tokens_long": long,
        "num_tokens_short": short,
        "num_turns_long": 1 + rethinks,
        "num_turns_short": 1 + rethinks,
        "format_long": 1.0,
        "format_short": acc,
        "num_rethinks": rethinks,
        "stop_reason": stop.value,
    }


def test_dialogues():
    metrics = dialogue_metrics(
        [record(1.0, 30, 10, 2, StopReason.ANSWERED), record(0.0, 50, 6, 0, StopReason.MALFORMED_SHORT)]
    )
    assert metrics["dialogue/accuracy"] == 0.5
    assert metrics["dialogue/num_tokens"] == (40 + 56) / 2
    assert (metrics["long/num_tokens"], metrics["short/num_tokens"]) == (40, 8)
    assert (metrics["dialogue/num_rethinks"], metrics["dialogue/rethink_share"]) == (1, 0.5)
    assert (metrics["long/format"], metrics["short/format"], metrics["long/num_turns"]) == (1, 0.5, 2)
    stops = {reason: metrics[f"dialogue/stop/{reason.value}"] for reason in StopReason}
    assert stops.pop(StopReason.ANSWERED) == stops.pop(StopReason.MALFORMED_SHORT) == 0.5
    assert set(stops.values()) == {0}


def test_roles():
    def outcome(group):
        return Outcome(group=group, role=Role.LONG, accuracy=1, format=1, num_tokens=3)

    rewards = [Reward(total=total, terms={"accuracy": total / 2}) for total in (1.0, 3.0, 2.0, 2.0)]
    metrics = role_metrics(Role.LONG, [outcome("a"), outcome("a"), outcome("b"), outcome("b")], rewards)
    assert metrics == {
        "long/reward": 2.0,
        "long/zero_variance_groups": 0.5,
        "long/reward/accuracy": pytest.approx(1.0),
    }
