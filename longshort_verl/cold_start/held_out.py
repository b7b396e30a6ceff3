# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how well a role writes its turns: each turn of held-out dialogues is generated anew after its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from longshort_verl.cold_start.transcripts import RoleRow
from longshort_verl.dialogue import parse_turn
from longshort_verl.types import Grade, Message, Role, TurnKind


@dataclass(frozen=True, kw_only=True)
class TurnCase:
    """One turn to generate."""

    role: Role
    messages: tuple[Message, ...]
    """The transcript before it; the last message is the user's."""
    kind: TurnKind
    """Kind of the reference turn."""
    answer: str | None
    """The gold answer, if known."""


@dataclass(frozen=True, kw_only=True)
class TurnReply:
    """The generated turn."""

    text: str
    """Its text, up to the stop string."""
    num_tokens: int


def turn_cases(rows: Sequence[RoleRow], most: int) -> list[TurnCase]:
    """The trained turns of all rows in order, at most ``most`` of each role, the long role's first."""
    cases: dict[Role, list[TurnCase]] = {role: [] for role in Role}
    for row in rows:
        for number in row.trained:
            kind = parse_turn(row.role, row.messages[number].content).kind
            assert kind is not None  # rows are checked when they are read
            case = TurnCase(role=row.role, messages=row.messages[:number], kind=kind, answer=row.answer)
            cases[row.role].append(case)
    return [case for own in cases.values() for case in own[:most]]


def turn_metrics(
    cases: Sequence[TurnCase], replies: Sequence[TurnReply], grade: Callable[[str, str], Grade]
) -> dict[str, float]:
    """Means over all turns; if both roles have turns, also per role under ``long/`` and ``short/``.

    ``well_formed``: share that follows the protocol. ``same_kind``: share of the same kind as the reference turn, such
    as a short turn that asks for another thought. ``num_tokens``: mean. ``accuracy``: share of right answers among the
    reference turns that answer and have a gold answer; absent without such turns.
    """
    parsed = [parse_turn(case.role, reply.text) for case, reply in zip(cases, replies, strict=True)]
    pairs = list(zip(cases, parsed, strict=True))
    metrics = {
        "well_formed": fmean(turn.kind is not None for turn in parsed),
        "same_kind": fmean(turn.kind is case.kind for case, turn in pairs),
        "num_tokens": fmean(reply.num_tokens for reply in replies),
    }
    graded = [
        turn.kind is TurnKind.ANSWER and grade(turn.body, case.answer).correct
        for case, turn in pairs
        if case.kind is TurnKind.ANSWER and case.answer is not None
    ]
    if graded:
        metrics["accuracy"] = fmean(graded)
    roles = {case.role for case in cases}
    for role in sorted(roles) if len(roles) > 1 else ():
        own = [(case, reply) for case, reply in zip(cases, replies, strict=True) if case.role is role]
        part = turn_metrics([case for case, _ in own], [reply for _, reply in own], grade)
        metrics |= {f"{role.value}/{name}": value for name, value in part.items()}
    return metrics
