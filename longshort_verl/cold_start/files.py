# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Files of the cold start, split into training and validation by problem, never by row.

For each role ``<role>_train.parquet`` and ``<role>_val.parquet`` in verl's ``messages`` schema, a row a transcript or a
turn (:class:`longshort_verl.cold_start.transcripts.Rows`); for each side the problems in verl's RL schema
(``problems_<side>.parquet``); and ``dialogues.jsonl`` with the outcome of every chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longshort_verl.cold_start.dialogues import ColdDialogue
from longshort_verl.cold_start.transcripts import Rows
from longshort_verl.dialogue import DialogueSettings, transcript
from longshort_verl.files.atomic import write_atomically
from longshort_verl.files.jsonl import write_jsonl
from longshort_verl.problems.write import split_problems, write_problems
from longshort_verl.types import Message, Problem, Role, Turn


class ColdStartError(ValueError):
    """The chains give no cold-start data; the message gives the reason and the cure."""


def role_messages(
    problem: str, turns: Sequence[Turn], role: Role, settings: DialogueSettings, rows: Rows
) -> list[list[Message]]:
    """The rows of one role from a finished dialogue, none if the role has no turn.

    A row is the transcript up to the role's last turn, or one for each of its turns, up to that turn.
    """
    own = [number for number, turn in enumerate(turns) if turn.role is role]
    return [
        [
            *transcript(problem, turns[:number], role, settings),
            Message(role="assistant", content=turns[number].parsed.text),
        ]
        for number in (own if rows is Rows.TURN else own[-1:])
    ]


def write_cold_start(
    dialogues: Sequence[ColdDialogue], out: Path, settings: DialogueSettings, *, rows: Rows, val_share: float, seed: int
) -> dict[str, Any]:
    """Write all files; the same arguments give the same bytes.

    Returns:
        ``outcomes`` (chains), ``num_problems``, ``num_rows`` and ``num_tokens``, each by name.

    Raises:
        ColdStartError: no dialogue was kept, or too few problems; only ``dialogues.jsonl`` is written then.
    """
    write_jsonl(out / "dialogues.jsonl", map(_record, dialogues))
    outcomes = dict(sorted(Counter(dialogue.outcome.value for dialogue in dialogues).items()))
    kept = [(dialogue, dialogue.problem) for dialogue in dialogues if dialogue.turns and dialogue.problem is not None]
    if not kept:
        listed = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
        first = next((f"; the first one, {one.key}: {one.detail}" for one in dialogues if one.detail), "")
        raise ColdStartError(f"no chain gave a dialogue: {listed}{first}")
    num_distinct = len({" ".join(problem.prompt.split()) for _, problem in kept})
    num_val = max(1, round(val_share * num_distinct))
    if num_distinct <= num_val:
        raise ColdStartError(
            f"{len(kept)} dialogues are of {num_distinct} distinct problems, and {num_val} would be held out; give "
            "chains on more problems, or lower val_share"
        )
    _, val = split_problems([problem for _, problem in kept], num_validation=num_val, seed=seed)
    held_out = {problem.prompt for problem in val}
    counts: dict[str, Any] = {"outcomes": outcomes, "num_problems": {}, "num_rows": {}}
    for side in ("train", "val"):
        part = [(dialogue, problem) for dialogue, problem in kept if (problem.prompt in held_out) is (side == "val")]
        distinct = {problem.prompt: problem for _, problem in part}
        problems = [replace(problem, index=number) for number, problem in enumerate(distinct.values())]
        write_problems(problems, out / f"problems_{side}.parquet", split=side)
        counts["num_problems"][side] = len(problems)
        for role in Role:
            listed = [row for dialogue, problem in part for row in _sft_rows(dialogue, problem, role, settings, rows)]
            if not listed and side == "train":
                raise ColdStartError(f"no dialogue has a turn of the {role.value} role: the role has no training data")
            _write_parquet(listed, out / f"{role.value}_{side}.parquet")
            counts["num_rows"][f"{role.value}_{side}"] = len(listed)
    counts["num_tokens"] = {
        "traces": sum(dialogue.num_trace_tokens for dialogue, _ in kept),
        **{role.value: sum(dialogue.num_tokens(role) for dialogue, _ in kept) for role in Role},
    }
    return counts


def _sft_rows(one: ColdDialogue, problem: Problem, role: Role, settings: DialogueSettings, rows: Rows) -> list[Any]:
    info = {"key": one.key, "role": role.value, "problem": problem.prompt, "answer": problem.answer, "rows": rows.value}
    return [
        {"messages": [message.as_dict() for message in messages], "extra_info": info}
        for messages in role_messages(problem.prompt, one.turns, role, settings, rows)
    ]


def _write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    message = pa.struct([("role", text), ("content", text)])
    extra = pa.struct([(name, text) for name in ("key", "role", "problem", "answer", "rows")])
    table = pa.Table.from_pylist(list(rows), schema=pa.schema([("messages", pa.list_(message)), ("extra_info", extra)]))
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def _record(one: ColdDialogue) -> dict[str, Any]:
    row: dict[str, Any] = {"key": one.key, "outcome": one.outcome.value, "detail": one.detail}
    if one.problem is not None:
        row |= {"problem": one.problem.prompt, "answer": one.problem.answer, "num_trace_tokens": one.num_trace_tokens}
    if one.turns:
        row["turns"] = [
            {"role": turn.role.value, "text": turn.parsed.text, "num_tokens": turn.num_tokens} for turn in one.turns
        ]
    return row
