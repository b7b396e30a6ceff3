# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a run logs of its dialogues, per role and of the pair, and when it warns; plain numbers from plain records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from longshort_verl.rewards import Outcome
from longshort_verl.types import Reward, Role, StopReason

PAIR_METRICS = (
    "reward",
    "acc",
    "format",
    "num_tokens",
    "num_rethinks",
    *(f"{name}_{role.value}" for name in ("format", "num_tokens", "num_turns") for role in Role),
)
"""What validation reports of the pair, by the name that verl logs it under."""

CUT_OFF = (StopReason.TRUNCATED, StopReason.TOKEN_BUDGET)
"""Endings by a limit on tokens."""

MAX_FAILED = 0.5
"""Share of a batch's dialogues that failing engines may not reach."""


@dataclass(frozen=True, kw_only=True)
class AlarmSettings:
    """Limits past which a run warns; None turns an alarm off. The defaults live in ``config/longshort_rl.yaml``."""

    probs_diff: float | None
    """Mean difference of token probabilities between engine and actor, in [0, 1]."""
    zero_variance_groups: float | None
    """Share of a role's groups whose rewards are all equal."""
    truncated: float | None
    """Share of dialogues that a limit on tokens cut off."""
    useful_turns: float | None
    """Smallest share of a role's turns that say something new."""

    def __post_init__(self) -> None:
        for name in ("probs_diff", "zero_variance_groups", "truncated", "useful_turns"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"long_short.alarms.{name} is {value}; set it to a number from 0 to 1, or to null")


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
        turns = sum(record[f"num_turns_{role.value}"] for record in records)
        if turns:
            useful = sum(record[f"num_useful_turns_{role.value}"] for record in records)
            metrics[f"{role.value}/useful_turns"] = useful / turns
    for reason in StopReason:
        metrics[f"dialogue/stop/{reason.value}"] = fmean(record["stop_reason"] == reason.value for record in records)
    return metrics


def importance_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What measuring the long role's turns found and cost; empty where nothing is measured.

    Args:
        records: one per dialogue; where turns are measured, with ``rollouts`` and what the reward manager made of them.
    """
    records = [record for record in records if "rollouts" in record]
    if not records:
        return {}
    turns = [json.loads(record["importance_turns"]) for record in records]
    scores = [score for of_dialogue in turns for score, *_ in of_dialogue]
    spent = sum(record["num_tokens_rollouts"] for record in records)
    dialogues = sum(record[f"num_tokens_{role.value}"] for record in records for role in Role)
    num_turns = sum(record["num_turns_long"] for record in records)
    metrics = {
        "importance/measured_turns": len(scores) / num_turns if num_turns else 0.0,
        "importance/num_tokens": spent / len(records),
        "importance/tokens_share": spent / dialogues if dialogues else 0.0,
        "importance/wait_s": fmean(record["rollout_wait_s"] for record in records),
    }
    if scores:
        metrics["importance/turn"] = fmean(scores)
        metrics["importance/gain"] = fmean(gain for of_dialogue in turns for *_, gain in of_dialogue)
        metrics["importance/interval"] = fmean(high - low for of_dialogue in turns for _, low, high, _ in of_dialogue)
    return metrics


class EnginesFailed(RuntimeError):
    """An engine is gone: it does not answer, or most dialogues of a batch were lost to it."""


def check_engines(failed: float | None, where: str) -> None:
    """End a run whose engines are gone.

    Args:
        failed: share of dialogues in which an engine failed, in [0, 1]; None where none was held.
        where: what was under way, for the message.

    Raises:
        EnginesFailed: half of the dialogues failed, or more.
    """
    if failed is not None and failed >= MAX_FAILED:
        raise EnginesFailed(
            f"{where}: an engine failed in {failed:.0%} of the dialogues; the first 'a request to the rollout servers "
            "failed' in the log, and what vLLMHttpServer logged before it, say why"
        )


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


def alarms(metrics: Mapping[str, float], limits: AlarmSettings) -> dict[str, str]:
    """What is wrong with a step, judged by what it logs: name of the alarm → one message with value, limit and cure."""
    found: dict[str, str] = {}
    for name in ("long", "short", "shared"):
        difference = metrics.get(f"{name}/training/rollout_probs_diff_mean")
        # Not "greater": a difference that is not a number is no agreement.
        if limits.probs_diff is not None and difference is not None and not difference <= limits.probs_diff:
            found[f"engine_out_of_step/{name}"] = (
                f"the {name} engine's token probabilities differ from its actor's by {difference:.2g} on average, "
                f"more than {limits.probs_diff:g}: it may hold old weights, or the other role's. Training on its "
                "rollouts is off-policy; stop and look at the push of weights"
            )
        zero = metrics.get(f"{name}/zero_variance_groups")
        if limits.zero_variance_groups is not None and zero is not None and zero > limits.zero_variance_groups:
            found[f"zero_variance_groups/{name}"] = (
                f"{zero:.0%} of the {name} role's groups have equal rewards and teach nothing: the problems are too "
                "easy or too hard for it, or rollout.n is too small"
            )
        useful = metrics.get(f"{name}/useful_turns")
        if limits.useful_turns is not None and useful is not None and useful < limits.useful_turns:
            found[f"lazy_agent/{name}"] = (
                f"only {useful:.0%} of the {name} role's turns say anything new: it may leave the work to its peer; "
                "look at the dialogues, and at long_short.reward.length"
            )
    cut = sum(metrics.get(f"dialogue/stop/{reason.value}", 0.0) for reason in CUT_OFF)
    if limits.truncated is not None and cut > limits.truncated:
        found["truncated"] = (
            f"{cut:.0%} of the dialogues were cut off by a limit on tokens: raise long_short.dialogue.max_turn_tokens "
            "or max_dialogue_tokens, or start from models that close their turns"
        )
    return found
