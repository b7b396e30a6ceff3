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
"""How well a role writes its turns: every turn of held-out dialogues, generated anew after what came before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from longshort_verl.data.role_rows import RoleRow
from longshort_verl.dialogue import parse_turn
from longshort_verl.types import Grade, Message, Role, TurnKind


@dataclass(frozen=True, kw_only=True)
class TurnCase:
    """One turn to write."""

    messages: tuple[Message, ...]
    """The transcript before it; the last message is the user's."""
    kind: TurnKind
    """What the reference's turn is."""
    answer: str | None
    """The gold answer, where it is known."""


@dataclass(frozen=True, kw_only=True)
class TurnReply:
    """What the model wrote."""

    text: str
    """The turn, up to its stop string."""
    num_tokens: int
    """Tokens of it."""


def turn_cases(rows: Sequence[RoleRow], role: Role, most: int) -> list[TurnCase]:
    """The role's turns of all rows, in their order, ``most`` at most."""
    cases: list[TurnCase] = []
    for row in rows:
        for number, message in enumerate(row.messages):
            if message.role == "assistant":
                kind = parse_turn(role, message.content).kind
                assert kind is not None  # rows are checked when they are read
                cases.append(TurnCase(messages=row.messages[:number], kind=kind, answer=row.answer))
    return cases[:most]


def turn_metrics(
    role: Role, cases: Sequence[TurnCase], replies: Sequence[TurnReply], grade: Callable[[str, str], Grade]
) -> dict[str, float]:
    """Means over all turns.

    ``well_formed``: share that follows the protocol. ``same_kind``: share that is what the reference's turn is, so that
    the short role asks again where it should. ``num_tokens``: mean. ``accuracy``, where turns answer and the gold
    answers are known: share of these that are answered right.
    """
    parsed = [parse_turn(role, reply.text) for reply in replies]
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
    return metrics
