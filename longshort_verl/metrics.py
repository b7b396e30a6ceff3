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
"""What a run logs of its dialogues, per role and of the pair; plain numbers from plain records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import Any

from longshort_verl.rewards import Outcome
from longshort_verl.types import Reward, Role, StopReason


def dialogue_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over dialogues: accuracy, tokens, turns, rethinks, and the share of each stop reason (all logged, always).

    Args:
        records: one per dialogue, with the keys of ``adapters.agent_loop.dialogue_record`` and ``acc``.
    """
    metrics = {
        "dialogue/accuracy": fmean(record["acc"] for record in records),
        "dialogue/num_tokens": fmean(sum(record[f"num_tokens_{role.value}"] for role in Role) for record in records),
        "dialogue/num_rethinks": fmean(record["num_rethinks"] for record in records),
        "dialogue/rethink_share": fmean(record["num_rethinks"] > 0 for record in records),
    }
    for role in Role:
        for what in ("num_tokens", "num_turns", "format"):
            metrics[f"{role.value}/{what}"] = fmean(record[f"{what}_{role.value}"] for record in records)
    for reason in StopReason:
        metrics[f"dialogue/stop/{reason.value}"] = fmean(record["stop_reason"] == reason.value for record in records)
    return metrics


def role_metrics(role: Role, outcomes: Sequence[Outcome], rewards: Sequence[Reward]) -> dict[str, float]:
    """Of one role's rows with a turn: mean reward, its terms, and the share of groups that teach nothing.

    A group teaches nothing where all its rewards are equal: the advantage is zero.
    """
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for outcome, reward in zip(outcomes, rewards, strict=True):
        groups[outcome.group].append(reward.total)
    name = role.value
    metrics = {
        f"{name}/reward": fmean(reward.total for reward in rewards),
        f"{name}/zero_variance_groups": fmean(max(totals) == min(totals) for totals in groups.values()),
    }
    for term in rewards[0].terms:
        metrics[f"{name}/reward/{term}"] = fmean(reward.terms[term] for reward in rewards)
    return metrics
