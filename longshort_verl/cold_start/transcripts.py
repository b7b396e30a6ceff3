# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One role's transcripts as training data: read, checked row by row, and cut into what is trained and what is not.

A role learns its own turns and the token that ends each; the system message, the problem and the peer's turns are
context. The transcript is cut into pieces at its turns, and each piece is encoded by itself: the same tokens that the
two-agent rollout sees (:func:`longshort_verl.chat_template.text_after_turn`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_verl.chat_template import ChatTemplateError, Render
from longshort_verl.dialogue import parse_turn
from longshort_verl.types import Message, Role, TurnKind

_MAX_TOLD = 10


class RoleFileError(ValueError):
    """A file of transcripts that cannot be learnt from; every bad row is named with its reason."""


@dataclass(frozen=True, kw_only=True)
class RoleRow:
    """One transcript, which ends with a turn of the role."""

    role: Role
    """Whose transcript it is."""
    messages: tuple[Message, ...]
    """System (if any), user, assistant, user, assistant, …"""
    answer: str | None
    """The gold answer of its problem, where the file says it."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A run of text of a rendered transcript."""

    text: str
    """As the chat template renders it."""
    trained: bool
    """Whether the role wrote it, or it ends what it wrote."""


def read_role_rows(paths: Sequence[Path], role: Role | None) -> list[RoleRow]:
    """All rows of parquet files in verl's ``messages`` schema.

    Args:
        paths: the files.
        role: whose transcripts they are; None where one model plays both, and each row's first own turn tells.

    Raises:
        RoleFileError: a file cannot be read or has no row, or a row is no transcript of the role.
    """
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    rows: list[RoleRow] = []
    faults: list[str] = []
    for path in paths:
        try:
            found = pq.read_table(path).to_pylist()
        except (OSError, ArrowException, UnicodeDecodeError) as error:
            raise RoleFileError(f"{path} cannot be read: {error}") from error
        if not found:
            raise RoleFileError(f"{path} has no row")
        for number, row in enumerate(found):
            messages = _messages(row.get("messages"))
            whose = role or _role_of(messages)
            fault = messages if isinstance(messages, str) else transcript_fault(messages, whose)
            if fault or isinstance(messages, str):
                faults.append(f"{path}: row {number}: {fault}")
                continue
            info = row.get("extra_info")
            answer = info.get("answer") if isinstance(info, dict) else None
            rows.append(RoleRow(role=whose, messages=messages, answer=answer if isinstance(answer, str) else None))
    if faults:
        told = "\n".join(faults[:_MAX_TOLD])
        more = f"\n… and {len(faults) - _MAX_TOLD} more" if len(faults) > _MAX_TOLD else ""
        raise RoleFileError(f"{told}{more}")
    return rows


def _role_of(messages: tuple[Message, ...] | str) -> Role:
    """Whose transcript it can only be; the short role's where it can be neither's, which the check then says."""
    own = [] if isinstance(messages, str) else [one.content for one in messages if one.role == "assistant"]
    return Role.LONG if own and parse_turn(Role.LONG, own[0]).kind is not None else Role.SHORT


def _messages(value: Any) -> tuple[Message, ...] | str:
    if not isinstance(value, list) or not value:
        return "messages is no list of messages"
    found = []
    for number, one in enumerate(value):
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("role", "content")):
            return f"message {number} has no role or no content that is text"
        found.append(Message(role=one["role"], content=one["content"]))
    return tuple(found)


def transcript_fault(messages: Sequence[Message], role: Role) -> str:
    """Why messages are no finished transcript of ``role``, in words; empty where they are."""
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
            return f"turn {number} of the short role answers, and the dialogue goes on"
    return ""


def pieces(messages: Sequence[Message], render: Render, control: Iterable[str]) -> list[Piece]:
    """A transcript as the chat template renders it, cut into what is trained and what is not.

    Args:
        messages: a finished transcript.
        render: the template.
        control: tokens that may end a turn.

    Raises:
        ChatTemplateError: the template changes earlier turns or does not end one with a control token.
    """
    whole, place = render(messages, False), 0
    found: list[Piece] = []
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = render(messages[:number], True)
        start = len(prompt)
        if not whole.startswith(prompt) or not whole.startswith(message.content, start):
            raise ChatTemplateError(
                f"the chat template renders turn {number} as {whole[place : start + 80]!r}, not as it was written "
                f"({message.content[:80]!r}): training would see other tokens than generation"
            )
        end = start + len(message.content)
        ending = max((token for token in control if whole.startswith(token, end)), key=len, default="")
        if not ending:
            raise ChatTemplateError(
                f"the chat template ends a turn with {whole[end : end + 20]!r}, which begins with no special token: "
                "the model would not learn to stop"
            )
        found += [Piece(text=whole[place:start], trained=False), Piece(text=message.content + ending, trained=True)]
        place = end + len(ending)
    return [piece for piece in found if piece.text]
