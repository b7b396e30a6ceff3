# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reads one role's transcripts, checks them row by row, and cuts them into trained and untrained pieces.

A role is trained on its own turns and their end tokens; the system message, the problem and the peer's turns are
context. A row is a whole transcript, or one turn after its history (paper, section 4.1); then earlier own turns are
context too. Each piece is encoded by itself, into the same tokens as in the two-agent rollout
(:func:`longshort_verl.chat_template.text_after_turn`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from longshort_verl.chat_template import Render, own_turns
from longshort_verl.dialogue import parse_turn
from longshort_verl.types import Message, Role, TurnKind

_MAX_LISTED = 10


class RoleFileError(ValueError):
    """A file of transcripts that is unusable; the message names the bad rows with their reasons."""


class Rows(str, Enum):
    """What a row of the training data is; ``extra_info.rows`` of a file says it, ``transcript`` if absent."""

    TRANSCRIPT = "transcript"
    """A whole transcript, of which all own turns are trained."""
    TURN = "turn"
    """A transcript up to one turn, of which that turn alone is trained, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class RoleRow:
    """One transcript, which ends with a turn of the role."""

    role: Role
    messages: tuple[Message, ...]
    """System (optional), user, assistant, user, assistant, …"""
    answer: str | None
    """The gold answer of its problem; None if the file has none."""
    rows: Rows = Rows.TRANSCRIPT

    @property
    def system_prompt(self) -> str:
        """The system message; "" if there is none."""
        return self.messages[0].content if self.messages[0].role == "system" else ""

    @property
    def trained(self) -> list[int]:
        """Places of the trained messages, from 0."""
        return trained_messages(self.messages, self.rows)


def trained_messages(messages: Sequence[Message], rows: Rows) -> list[int]:
    """Places of the trained messages of a transcript, from 0."""
    own = [number for number, message in enumerate(messages) if message.role == "assistant"]
    return own if rows is Rows.TRANSCRIPT else own[-1:]


def rows_of(extra_info: Any) -> Rows:
    """What a row of a file is, by its ``extra_info``.

    Raises:
        RoleFileError: ``extra_info.rows`` is unknown.
    """
    value = extra_info.get("rows") if isinstance(extra_info, dict) else None
    try:
        return Rows.TRANSCRIPT if value is None else Rows(value)
    except ValueError:
        raise RoleFileError(f"extra_info.rows is {value!r}; give transcript or turn") from None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A run of text of a rendered transcript."""

    text: str
    trained: bool
    """Whether it is a turn to learn, with its end token."""


def read_role_rows(paths: Sequence[Path], role: Role | None) -> list[RoleRow]:
    """All rows of parquet files in verl's ``messages`` schema.

    ``role`` is that of all transcripts; None if one model plays both roles: the first assistant turn then decides.

    Raises:
        RoleFileError: a file is unreadable or has no row, or a row is not a transcript of the role.
    """
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    rows: list[RoleRow] = []
    faults: list[str] = []
    for path in paths:
        try:
            table = pq.read_table(path).to_pylist()
        except (OSError, ArrowException, UnicodeDecodeError) as error:
            raise RoleFileError(f"{path} cannot be read: {error}") from error
        if not table:
            raise RoleFileError(f"{path} has no row")
        for number, row in enumerate(table):
            messages, fault = _messages(row.get("messages"))
            row_role = role or _role_of(messages)
            info = row.get("extra_info")
            answer = info.get("answer") if isinstance(info, dict) else None
            answer, kind = answer if isinstance(answer, str) else None, Rows.TRANSCRIPT
            try:
                kind = rows_of(info)
            except RoleFileError as error:
                fault = fault or str(error)
            fault = fault or transcript_fault(messages, row_role)
            if fault:
                faults.append(f"{path}: row {number}: {fault}")
                continue
            rows.append(RoleRow(role=row_role, messages=messages, answer=answer, rows=kind))
    if faults:
        listed = "\n".join(faults[:_MAX_LISTED])
        more = f"\n… and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
        raise RoleFileError(f"{listed}{more}")
    return rows


def _role_of(messages: Sequence[Message]) -> Role:
    """The long role if the first assistant turn is a long turn, else the short role."""
    first = next((message.content for message in messages if message.role == "assistant"), "")
    return Role.LONG if parse_turn(Role.LONG, first).kind is not None else Role.SHORT


def _messages(value: Any) -> tuple[tuple[Message, ...], str]:
    """The messages of a row, and the fault of an unusable row."""
    if not isinstance(value, list) or not value:
        return (), "messages is not a list of messages"
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            return (), f"message {number} has no text as its role or its content"
    return tuple(Message(role=message["role"], content=message["content"]) for message in value), ""


def transcript_fault(messages: Sequence[Message], role: Role) -> str:
    """Why messages are not a finished transcript of ``role``; empty if they are."""
    turns = messages[1:] if messages[0].role == "system" else messages
    for number, message in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            return f"message {number} after the system's is the {message.role}'s, not the {expected}'s"
    if not turns or turns[-1].role != "assistant":
        return f"it does not end with a turn of the {role.value} role"
    own = turns[1::2]
    for number, message in enumerate(own):
        parsed = parse_turn(role, message.content)
        if parsed.kind is None:
            return f"turn {number} of the {role.value} role {parsed.fault}"
        if parsed.text != message.content:
            return f"turn {number} of the {role.value} role has text around its tags"
        if parsed.kind is TurnKind.ANSWER and number < len(own) - 1:
            return f"turn {number} of the short role answers, but the dialogue continues"
    return ""


def pieces(
    messages: Sequence[Message], render: Render, control: Iterable[str], rows: Rows = Rows.TRANSCRIPT
) -> list[Piece]:
    """A transcript as rendered by the chat template, cut into trained and untrained pieces.

    ``messages`` is a finished transcript, ``render`` the chat template; a token of ``control`` may end a turn. Earlier
    turns are pieces of their own also where they are not trained, so that a turn has the same tokens as its context in
    both kinds of rows.

    Raises:
        ChatTemplateError: the template changes earlier turns or does not end one with a control token.
    """
    whole, turns = own_turns(messages, render, control)
    place, trained = 0, trained_messages(messages, rows)
    cut: list[Piece] = []
    for number, turn in turns.items():
        cut.append(Piece(text=whole[place : turn.start], trained=False))
        cut.append(Piece(text=whole[turn], trained=number in trained))
        place = turn.stop
    return [piece for piece in cut if piece.text]
