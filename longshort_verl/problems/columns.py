# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Formats of a problem file's rows: which columns a file has, and the prompt and the answer of a row.

============  ==========================================================  ============================================
format        prompt                                                      answer
============  ==========================================================  ============================================
verl's        ``prompt``, one user message                                ``reward_model.ground_truth``
plain         ``problem`` or ``question``                                 ``answer``
GSM8K's       ``question``                                                what follows ``####`` in ``answer``
Alpaca's      ``instruction``, and ``input`` below it                     ``answer``, else ``output``
chats         the user's turn in ``messages`` or ``conversations``        ``answer``, else the assistant's turn
============  ==========================================================  ============================================

A file with the columns of several formats has the first of them. Whatever the column, an answer is a gold answer: a
worked solution is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from longshort_verl.problems.values import (
    RowFault,
    after_final_mark,
    canonical_answer,
    check_text,
    shorten,
    shown,
)

_PROMPT_COLUMNS = ("problem", "question")
_CHAT_COLUMNS = ("messages", "conversations")
_MEDIA_COLUMNS = ("images", "videos", "audios")  # verl's names; a Problem is text
_ONE_MESSAGE = 'expected [{"role": "user", "content": "…"}]'
_WRITE_PROBLEM = "write the problem's text or remove the row"


class Format(NamedTuple):
    """One way to write a problem."""

    columns: Sequence[str]
    """All columns that are read."""
    prompt: Callable[[dict[str, Any]], str]
    answer: Callable[[dict[str, Any]], str]
    answer_column: str = "answer"
    """Column of the answer; after a point the key in it."""


def format_of(columns: Sequence[str]) -> Format:
    """The format of a file with these columns.

    Raises:
        ValueError: the columns are those of no format, or of media.
    """
    media = [name for name in _MEDIA_COLUMNS if name in columns]
    if media:
        raise RowFault(f"has columns of media ({', '.join(media)}), but problems are text only; remove the columns")
    missing = [name for name in ("prompt", "reward_model") if name not in columns]
    has_problem = any(name in columns for name in _PROMPT_COLUMNS)
    if not missing:
        return VERL
    if has_problem and "answer" in columns:
        return PLAIN
    if len(missing) == 2 and not has_problem:
        if "instruction" in columns:
            return _ALPACA
        if any(name in columns for name in _CHAT_COLUMNS):
            return _CHAT
    if len(missing) == 2:
        missing = ([] if has_problem else ["problem (or question)"]) + ([] if "answer" in columns else ["answer"])
    raise RowFault(
        f"missing columns: {', '.join(missing)}; it has: {shorten.repr(sorted(columns))}. A file needs either problem "
        "and answer, or verl's prompt and reward_model; rename its columns"
    )


def read_row(row: Any, format: Format, source: str | None) -> tuple[str, str, str]:
    """Prompt, answer and data source: ``source`` if given, else the row's own, empty if it has none.

    Raises:
        ValueError: the row cannot be used; the message has all its faults.
    """
    if isinstance(row, RowFault):
        raise row
    if not isinstance(row, dict):
        raise RowFault(f"is {shown(row)}, expected an object; write it as {{…}} with the columns")
    values, faults = [], []
    for read in (format.prompt, format.answer, _source if source is None else lambda row: source):
        try:
            values.append(read(row))
        except RowFault as fault:
            faults.append(str(fault))
    if faults:
        raise RowFault("; also: ".join(dict.fromkeys(faults)))
    return values[0], values[1], values[2]


def chat_turns(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Role and content of each message in ``messages`` or in ShareGPT's ``conversations``; empty without any."""
    names = {"human": "user", "gpt": "assistant"}
    messages = next((row[name] for name in _CHAT_COLUMNS if row.get(name) is not None), [])
    turns = []
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict):
            return []
        role = str(message.get("role", message.get("from")))
        turns.append((names.get(role, role), message.get("content", message.get("value"))))
    return turns


def _source(row: dict[str, Any]) -> str:
    source = row.get("data_source")
    return "" if source is None else check_text(source, "data_source", "name the data set, or pass a source")


def _plain_prompt(row: dict[str, Any]) -> str:
    names = [name for name in _PROMPT_COLUMNS if row.get(name) is not None]
    if len(names) == 2 and row["problem"] != row["question"]:
        raise RowFault("problem and question differ; keep the one to ask")
    name = next((name for name in (*names, *_PROMPT_COLUMNS) if name in row), "problem")
    return check_text(row.get(name), name, _WRITE_PROBLEM)


def plain_answer(row: Mapping[str, Any]) -> str:
    """The gold in ``answer``; beside ``question`` it may be a GSM8K solution. Raises as :func:`canonical_answer`."""
    answer = row.get("answer")
    if "question" in row and isinstance(answer, str) and (final := after_final_mark(answer)) is not None:
        return canonical_answer(final, "what follows #### in answer")
    return canonical_answer(answer)


def _verl_prompt(row: dict[str, Any]) -> str:
    """Text of a prompt that is one user message."""
    messages = row.get("prompt")
    if not isinstance(messages, list):
        raise RowFault(f"prompt is {'missing' if messages is None else shown(messages)}; {_ONE_MESSAGE}")
    if not messages:
        raise RowFault(f"prompt has no messages; {_ONE_MESSAGE}")
    for message in messages:
        if not isinstance(message, dict):
            raise RowFault(f"prompt holds {shown(message)}, which is no message; {_ONE_MESSAGE}")
    roles = [message.get("role") for message in messages]
    if "system" in roles:
        content = messages[roles.index("system")].get("content")
        raise RowFault(
            f"prompt has a system message: {shorten.repr(content)}; remove it: the package has its own system prompts "
            "for the long and the short role"
        )
    if roles[-1] != "user":
        raise RowFault(f"the last message of prompt is from {shorten.repr(roles[-1])}, not from user; {_ONE_MESSAGE}")
    if len(roles) > 1:
        raise RowFault(
            f"prompt has {len(roles)} messages, from {shorten.repr(roles)}, expected exactly one user message; "
            "put the whole problem into one"
        )
    return check_text(messages[0].get("content"), "the prompt's content", _WRITE_PROBLEM)


def _verl_answer(row: dict[str, Any]) -> str:
    reward_model = row.get("reward_model")
    if not isinstance(reward_model, dict):
        state = "missing" if reward_model is None else shown(reward_model)
        raise RowFault(f'reward_model is {state}; expected {{"style": "rule", "ground_truth": "…"}}')
    style = reward_model.get("style")
    if style not in (None, "rule"):
        raise RowFault(
            f"reward_model.style is {shorten.repr(style)}; answers are graded by rule only: set it to 'rule'"
        )
    return canonical_answer(reward_model.get("ground_truth"), "reward_model.ground_truth")


def _alpaca_prompt(row: dict[str, Any]) -> str:
    instruction, given = check_text(row.get("instruction"), "instruction", _WRITE_PROBLEM), row.get("input")
    return f"{instruction}\n\n{check_text(given, 'input', _WRITE_PROBLEM)}" if given else instruction


def _alpaca_answer(row: dict[str, Any]) -> str:
    name = "answer" if row.get("answer") is not None else "output"
    return canonical_answer(row.get(name), name)


def _chat(row: dict[str, Any]) -> dict[str, Any]:
    """The user's and the assistant's content. Raises ValueError if the chat is not one question and its reply."""
    turns = chat_turns(row)
    roles = [role for role, _ in turns]
    if roles not in (["user"], ["user", "assistant"]):
        raise RowFault(
            f"messages are from {shorten.repr(roles)}, expected one user message and at most one reply to it; remove "
            "the others (the package has its own system prompts)"
        )
    return dict(turns)


def _chat_prompt(row: dict[str, Any]) -> str:
    return check_text(_chat(row)["user"], "the user's message", _WRITE_PROBLEM)


def _chat_answer(row: dict[str, Any]) -> str:
    if row.get("answer") is not None:
        return canonical_answer(row["answer"])
    return canonical_answer(_chat(row).get("assistant"), "the assistant's message")


VERL = Format(
    ("prompt", "reward_model", "data_source"), _verl_prompt, _verl_answer, answer_column="reward_model.ground_truth"
)
PLAIN = Format((*_PROMPT_COLUMNS, "answer", "data_source"), _plain_prompt, plain_answer)
_ALPACA = Format(("instruction", "input", "output", "answer", "data_source"), _alpaca_prompt, _alpaca_answer)
_CHAT = Format((*_CHAT_COLUMNS, "answer", "data_source"), _chat_prompt, _chat_answer)
COLUMNS = frozenset(column for format in (VERL, PLAIN, _ALPACA, _CHAT) for column in format.columns)
"""Every column that some format reads."""
