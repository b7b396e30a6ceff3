# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Score and credit of a step's rows, as pure functions over what the transfer queue holds of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from longshort_verl.adapters.rl.agent_loop import ROW
from longshort_verl.adapters.rl.settings import LongShortConfig
from longshort_verl.importance import Credit, MeasuredTurns
from longshort_verl.metrics import MEASURED, dialogue_metrics, role_metrics
from longshort_verl.rewards import LengthOf, Outcome, group_rewards, turn_advantages, weights_at
from longshort_verl.types import Reward, Role, StopReason


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """All rows of a step, by key."""

    outcomes: dict[str, Outcome]
    """Facts of each row, in an order that does not depend on which dialogue ended first: mini-batches are cut in this
    order, so that a resumed run repeats them."""
    rewards: dict[str, Reward]
    """Rewards of the live rows."""
    turn_credits: dict[str, torch.Tensor]
    """What is added to the advantages of each live long row, per token; empty unless turns get their own credit."""
    metrics: dict[str, float]
    """What the step logs of its dialogues."""

    @property
    def failed(self) -> float:
        """Share of the rows in whose dialogue an engine failed."""
        return fmean(outcome.failed for outcome in self.outcomes.values())


def score_rows(
    uids: Mapping[str, str],
    fields: Mapping[str, Mapping[str, Any]],
    masks: Mapping[str, torch.Tensor],
    settings: LongShortConfig,
    step: int,
) -> ScoredRows:
    """Compute each row's reward within its group, by the weights of the training step.

    All mappings are by key, ``{uid}_{session}_{row}``: the prompt's name, verl's ``extra_fields`` and
    ``response_mask`` (tokens).
    """
    records = {key: _record(extra) for key, extra in fields.items()}
    outcomes = {key: _outcome(uids[key], record, settings.length_of) for key, record in records.items()}
    live = {key: outcome for key, outcome in outcomes.items() if outcome.live}
    in_force = weights_at(settings.reward, step)
    weights = dict(in_force)
    per_turn = settings.importance.credit is Credit.TURN
    if per_turn:
        weights["importance"] = 0.0  # no term of the row: each turn gets its own
    rewards = dict(zip(live, group_rewards(list(live.values()), weights), strict=True))
    credits: dict[str, torch.Tensor] = {}
    if per_turn and in_force["importance"]:
        long = {key: outcome.group for key, outcome in live.items() if outcome.role is Role.LONG}
        scores = {key: [turn.score for turn in records[key][MEASURED].importances] for key in long}
        credits = credit_turns(scores, long, masks, weight=in_force["importance"])
    order = {key: (record["problem"], *map(int, key.rsplit("_", 2)[1:])) for key, record in records.items()}
    return ScoredRows(
        outcomes={key: outcomes[key] for key in sorted(outcomes, key=order.__getitem__)},
        rewards=rewards,
        turn_credits=credits,
        metrics=_metrics(outcomes, list(records.values()), rewards, step)
        | {f"reward_weight/{name}": weight for name, weight in in_force.items()},
    )


def token_scores(mask: torch.Tensor, reward: Reward | None) -> torch.Tensor:
    """verl's ``rm_scores`` of one row, (tokens): the reward on the last token."""
    scores = torch.zeros(mask.shape, dtype=torch.float32)
    if reward is not None:
        scores[-1] = reward.total
    return scores


def credit_turns(
    scores: Mapping[str, Sequence[float]],
    groups: Mapping[str, Hashable],
    masks: Mapping[str, torch.Tensor],
    *,
    weight: float,
) -> dict[str, torch.Tensor]:
    """What each long row's tokens get in addition to their advantage, (tokens): their turn's importance.

    By key: the importance of the row's first turns, as far as measured, the prompt's name, and ``response_mask``.
    """
    credits: dict[str, torch.Tensor] = {}
    for key, values in turn_advantages(scores, groups).items():
        own = masks[key].bool()
        # The peer speaks between two turns of a role, so each run of own tokens is one turn.
        begins = own & ~torch.cat([own.new_zeros(1), own[:-1]])
        turn = torch.cumsum(begins.long(), dim=0) - 1
        of_turn = torch.zeros(int(turn.max()) + 1 if own.any() else 0)
        of_turn[: len(values)] = torch.tensor(values)
        credits[key] = torch.where(own, of_turn[turn.clamp(min=0)], 0.0) * weight
    return credits


def _record(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What agent loop and reward manager recorded of a row's dialogue."""
    record = {**extra[ROW], **extra["reward_extra_info"], "version": extra["min_global_steps"]}
    if MEASURED in record:
        record[MEASURED] = MeasuredTurns.from_json(record[MEASURED])
    return record


def _outcome(uid: str, record: Mapping[str, Any], length_of: LengthOf) -> Outcome:
    role = Role(record["role"])
    counted = Role if length_of is LengthOf.DIALOGUE else (role,)
    return Outcome(
        group=uid,
        role=role,
        accuracy=record["acc"],
        format=record[f"format_{role.value}"],
        num_tokens=record[f"num_tokens_{role.value}"],
        length=sum(record[f"num_tokens_{one.value}"] for one in counted),
        # A term that is missing must not count as 0.
        importance=0.0 if role is Role.SHORT else record[MEASURED].score if MEASURED in record else float("nan"),
        failed=record["stop_reason"] == StopReason.ENGINE_ERROR.value,
        record=record,
    )


def _metrics(
    outcomes: Mapping[str, Outcome], records: Sequence[Mapping[str, Any]], rewards: Mapping[str, Reward], step: int
) -> dict[str, float]:
    """Metrics of the sampled dialogues; each is counted once, by its long row."""
    metrics = dialogue_metrics([record for record in records if record["role"] == Role.LONG.value])
    for role in Role:
        rows = [key for key, outcome in outcomes.items() if outcome.role is role]
        live = [key for key in rows if key in rewards]
        metrics[f"{role.value}/silent_share"] = sum(outcomes[key].num_tokens == 0 for key in rows) / len(rows)
        if live:
            metrics[f"{role.value}/stale_rows"] = fmean(outcomes[key].record["version"] != step - 1 for key in live)
            metrics.update(role_metrics(role, [outcomes[key] for key in live], [rewards[key] for key in live]))
    return metrics
