# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run logs of its dialogues, and its alarms.

To log another metric, add an entry to :data:`METRICS` or :data:`ROLE_METRICS`, here or in a module of your own that
``VERL_USE_EXTERNAL_MODULES`` names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.importance import Importance
from longshort_verl.rewards import Outcome
from longshort_verl.types import Reward, Role, StopReason

Record = Mapping[str, Any]
"""What rollout and reward manager recorded of one dialogue: ``adapters.rl.agent_loop.dialogue_record``, ``acc`` and,
if its turns are measured, :class:`longshort_verl.importance.MeasuredTurns` as :data:`MEASURED`."""
MEASURED = "measured_turns"
"""Key of the measured turns in a record."""

PAIR_METRICS = (
    "reward",
    "acc",
    "format",
    "num_tokens",
    "num_rethinks",
    *(f"{name}_{role.value}" for name in ("format", "num_tokens", "num_turns") for role in Role),
)
"""Metrics of the pair that validation reports, by verl's name."""

CUT_OFF = (StopReason.TRUNCATED, StopReason.TOKEN_BUDGET)
"""Stop reasons that are token limits of the dialogue's settings."""

MAX_FAILED = 0.5
"""Share of a batch's dialogues with a failed engine at which a run stops."""

_Limit = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class AlarmSettings:
    """Limits of the alarms; None disables one. ``config/longshort_rl.yaml`` documents each."""

    probs_diff: _Limit | None
    zero_variance_groups: _Limit | None
    truncated: _Limit | None
    context: _Limit | None
    useful_turns: _Limit | None


def mean_of(value: Callable[[Record], float]) -> Callable[[Sequence[Record]], float]:
    """The mean of a value over dialogues, as a metric."""
    return lambda records: fmean(value(record) for record in records)


def _num_tokens(record: Record) -> int:
    return sum(record[f"num_tokens_{role.value}"] for role in Role)


def _useful_turns(role: Role) -> Callable[[Sequence[Record]], float | None]:
    def share(records: Sequence[Record]) -> float | None:
        turns = sum(record[f"num_turns_{role.value}"] for record in records)
        return sum(record[f"num_useful_turns_{role.value}"] for record in records) / turns if turns else None

    return share


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _if_measured(metric: Callable[[Sequence[Record]], float]) -> Callable[[Sequence[Record]], float | None]:
    """The metric over records with measured turns; None if there are none."""

    def over(records: Sequence[Record]) -> float | None:
        records = [record for record in records if MEASURED in record]
        return metric(records) if records else None

    return over


def _importances(records: Sequence[Record]) -> list[Importance]:
    return [importance for record in records if MEASURED in record for importance in record[MEASURED].importances]


def _of_turns(value: Callable[[Importance], float]) -> Callable[[Sequence[Record]], float | None]:
    """The mean over measured turns; None if there are none."""

    def mean(records: Sequence[Record]) -> float | None:
        turns = _importances(records)
        return fmean(map(value, turns)) if turns else None

    return mean


METRICS: dict[str, Callable[[Sequence[Record]], float | None]] = {
    "dialogue/accuracy": mean_of(lambda record: record["acc"]),
    "dialogue/num_tokens": mean_of(_num_tokens),
    "dialogue/num_rethinks": mean_of(lambda record: record["num_rethinks"]),
    "dialogue/rethink_share": mean_of(lambda record: record["num_rethinks"] > 0),
    **{
        f"{role.value}/{name}": mean_of(lambda record, key=f"{name}_{role.value}": record[key])
        for role in Role
        for name in ("num_tokens", "num_turns", "format")
    },
    **{f"{role.value}/useful_turns": _useful_turns(role) for role in Role},
    **{
        f"dialogue/stop/{reason.value}": mean_of(lambda record, value=reason.value: record["stop_reason"] == value)
        for reason in StopReason
    },
    # Measured importance of long turns, and its cost.
    "importance/measured_turns": _if_measured(
        lambda records: _ratio(len(_importances(records)), sum(record["num_turns_long"] for record in records))
    ),
    "importance/num_tokens": _if_measured(mean_of(lambda record: record[MEASURED].num_tokens)),
    "importance/tokens_share": _if_measured(
        lambda records: _ratio(sum(r[MEASURED].num_tokens for r in records), sum(map(_num_tokens, records)))
    ),
    "importance/wait_s": _if_measured(mean_of(lambda record: record[MEASURED].wait_s)),
    "importance/turn": _of_turns(lambda importance: importance.score),
    "importance/gain": _of_turns(lambda importance: importance.gain),
    "importance/interval": _of_turns(lambda importance: importance.high - importance.low),
}
"""Metrics by name: functions of the records of a step's dialogues. None is not logged."""


def dialogue_metrics(records: Sequence[Record]) -> dict[str, float]:
    """All of :data:`METRICS` over the dialogues of one step."""
    values = {name: metric(records) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if value is not None}


def _zero_variance_groups(outcomes: Sequence[Outcome], rewards: Sequence[Reward]) -> float:
    """Share of the groups with equal rewards: their advantages are 0, so they teach nothing."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for outcome, reward in zip(outcomes, rewards, strict=True):
        groups[outcome.group].append(reward.total)
    return fmean(max(totals) == min(totals) for totals in groups.values())


ROLE_METRICS: dict[str, Callable[[Sequence[Outcome], Sequence[Reward]], float]] = {
    "reward": lambda outcomes, rewards: fmean(reward.total for reward in rewards),
    "zero_variance_groups": _zero_variance_groups,
}
"""Metrics of one role by name: functions of its live rows and their rewards."""


def role_metrics(role: Role, outcomes: Sequence[Outcome], rewards: Sequence[Reward]) -> dict[str, float]:
    """All of :data:`ROLE_METRICS` over one role's live rows, and the mean of each reward term."""
    values = {name: metric(outcomes, rewards) for name, metric in ROLE_METRICS.items()}
    values |= {f"reward/{term}": fmean(reward.terms[term] for reward in rewards) for term in rewards[0].terms}
    return {f"{role.value}/{name}": value for name, value in values.items()}


_VALIDATION = re.compile(r"val-(?:core|aux)/(?P<source>.+)/(?P<name>[^/]+)/mean@\d+")


def validation_mean(metrics: Mapping[str, float], name: str) -> float | None:
    """Mean over data sources of a validation metric in verl's log of one step; None if the step did not validate."""
    values = [
        value for key, value in metrics.items() if (match := _VALIDATION.fullmatch(key)) and match["name"] == name
    ]
    return sum(values) / len(values) if values else None


class EnginesFailed(RuntimeError):
    """An engine does not answer, or failed in most dialogues of a batch."""


def check_engines(failed: float | None, where: str) -> None:
    """Stop a run whose engines failed. ``failed`` is a share of dialogues; None if there was no dialogue.

    Raises:
        EnginesFailed: the share is at least ``MAX_FAILED``.
    """
    if failed is not None and failed >= MAX_FAILED:
        raise EnginesFailed(
            f"{where}: an engine failed in {failed:.0%} of the dialogues; for the cause see the first 'a request to "
            "the rollout servers failed' in the log, and the messages of vLLMHttpServer before it"
        )


def alarms(metrics: Mapping[str, float], limits: AlarmSettings) -> dict[str, str]:
    """Alarms of a step, from its logged metrics: name of the alarm → message with value, limit and cure."""
    messages: dict[str, str] = {}
    for name in ("long", "short", "shared"):
        if stale := metrics.get(f"{name}/stale_rows"):
            messages[f"stale_engine/{name}"] = (
                f"{stale:.0%} of the {name} role's rows are by other weights than those of the step before: a push did "
                "not reach its engine, and training is off-policy; stop and check the push of weights"
            )
        if metrics.get(f"{name}/zero_advantages") == 1:
            messages[f"zero_advantages/{name}"] = (
                f"all advantages of the {name} role are 0, and the step taught it nothing; see {name}/reward and "
                f"{name}/zero_variance_groups, or algorithm.adv_estimator if the latter is below 1"
            )
        difference = metrics.get(f"{name}/training/rollout_probs_diff_mean")
        # Not "greater": a difference of NaN must raise the alarm too.
        if limits.probs_diff is not None and difference is not None and not difference <= limits.probs_diff:
            messages[f"engine_out_of_step/{name}"] = (
                f"the {name} engine's token probabilities differ from its actor's by {difference:.2g} on average, "
                f"more than {limits.probs_diff:g}: it may hold old weights, or the other role's. Training on its "
                "rollouts is off-policy; stop and check the push of weights"
            )
        zero = metrics.get(f"{name}/zero_variance_groups")
        if limits.zero_variance_groups is not None and zero is not None and zero > limits.zero_variance_groups:
            messages[f"zero_variance_groups/{name}"] = (
                f"{zero:.0%} of the {name} role's groups have equal rewards and teach nothing: the problems are too "
                "easy or too hard for it, or rollout.n is too small"
            )
        useful = metrics.get(f"{name}/useful_turns")
        if limits.useful_turns is not None and useful is not None and useful < limits.useful_turns:
            messages[f"lazy_agent/{name}"] = (
                f"only {useful:.0%} of the {name} role's turns say anything new: it may leave the work to its peer; "
                "read the dialogues, and check long_short.reward.length"
            )
    cut = sum(metrics.get(f"dialogue/stop/{reason.value}", 0.0) for reason in CUT_OFF)
    if limits.truncated is not None and cut > limits.truncated:
        messages["truncated"] = (
            f"{cut:.0%} of the dialogues were cut off by a token limit: raise long_short.dialogue.max_turn_tokens or "
            "max_dialogue_tokens, or start from models that close their turns"
        )
    if lost := metrics.get("dialogue/lost"):
        messages["lost"] = f"rollout or reward failed in {lost:.1%} of the dialogues: see 'Error in _run_prompt' above"
    full = metrics.get(f"dialogue/stop/{StopReason.CONTEXT.value}", 0.0)
    if limits.context is not None and full > limits.context:
        messages["context"] = (
            f"{full:.0%} of the dialogues were cut off by the context of an engine, before one of long_short.dialogue: "
            "raise data.max_response_length and rollout.max_model_len, or lower long_short.dialogue.max_dialogue_tokens"
        )
    return messages
