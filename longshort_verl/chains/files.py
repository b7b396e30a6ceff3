# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Chains of thought in files: read, chunk, score, write. One bad row never spoils another.

In:  JSONL (or a JSON list) with ``problem``, ``answer`` and ``trace``; other names of the same are read too.
Out: JSONL, a line a row in the same order, each with the name of its outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from longshort_verl.chains.chunk import BlockError, Thought, by_blocks, read_blocks, split_steps
from longshort_verl.types import Problem

_NAMES = {
    "problem": ("problem", "question", "prompt"),
    "answer": ("answer", "gold", "ground_truth"),
    "trace": ("trace", "thought", "solution", "response"),
}


class RowOutcome(str, Enum):
    """What became of a row before anything was done with it."""

    READ = "read"
    """It has a problem, an answer and a trace."""
    NOT_UTF8 = "not utf-8"
    """Its bytes are no text."""
    NOT_JSON = "not json"
    """Its line is no JSON object."""
    MISSING = "missing field"
    """It lacks the problem, the answer or the trace, or one of them is no text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a file of traces."""

    key: str
    """Its name: what the row says under ``key`` or ``id``, else its number."""
    outcome: RowOutcome
    """Whether it could be read."""
    detail: str = ""
    """What was the matter."""
    problem: Problem | None = None
    """What was asked, where it could be read."""
    trace: str = ""
    """The chain of thought."""
    thoughts: tuple[Thought, ...] = ()
    """Its thoughts, where the file has them, or blocks."""


class TraceFileError(ValueError):
    """A file of traces of which nothing can be read."""


def read_traces(path: Path) -> list[Row]:
    """All rows of a file, unreadable ones included.

    Raises:
        TraceFileError: the file is missing or empty, or two rows have the same key.
    """
    if not path.is_file():
        raise TraceFileError(f"there is no file {path}")
    rows = [_row(number, raw, path) for number, raw in enumerate(_raw_rows(path), start=1)]
    if not rows:
        raise TraceFileError(f"{path} has no row")
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if row.key in seen:
            raise TraceFileError(f"{path}: rows {seen[row.key]} and {number} have the same key {row.key!r}")
        seen[row.key] = number
    return rows


def _raw_rows(path: Path) -> Iterator[bytes | Any]:
    data = path.read_bytes()
    if path.suffix == ".json":
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise TraceFileError(f"{path} is not JSON: {error}; give JSONL where rows may be damaged") from error
        yield from value if isinstance(value, list) else [value]
    else:
        yield from (line for line in data.split(b"\n") if line.strip())


def _row(number: int, raw: bytes | Any, path: Path) -> Row:
    key = str(number)
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            return Row(key=key, outcome=RowOutcome.NOT_UTF8, detail=str(error))
        except (ValueError, RecursionError) as error:
            return Row(key=key, outcome=RowOutcome.NOT_JSON, detail=str(error))
    if not isinstance(raw, dict):
        return Row(key=key, outcome=RowOutcome.NOT_JSON, detail="not an object")
    key = str(raw.get("key", raw.get("id", key)))
    found: dict[str, str] = {}
    for name, names in _NAMES.items():
        value = next((raw[other] for other in names if other in raw), None)
        if name == "answer" and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            detail = f"{name} is {type(value).__name__}; give text under one of {', '.join(names)}"
            return Row(key=key, outcome=RowOutcome.MISSING, detail=detail)
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON can spell half a surrogate pair, which no tokenizer takes.
            return Row(key=key, outcome=RowOutcome.NOT_UTF8, detail=f"{name} has half a surrogate pair")
        found[name] = value
    thoughts = _thoughts(raw.get("thoughts"), found["trace"])
    if not thoughts and raw.get("block") is not None:
        thoughts = _blocks(raw["block"], found["trace"])
    if isinstance(thoughts, str):
        return Row(key=key, outcome=RowOutcome.MISSING, detail=thoughts)
    problem = Problem(prompt=found["problem"], answer=found["answer"], source=path.stem, index=number - 1)
    return Row(key=key, outcome=RowOutcome.READ, problem=problem, trace=found["trace"], thoughts=thoughts)


def _thoughts(value: Any, trace: str) -> tuple[Thought, ...] | str:
    """Thoughts as :func:`thought_rows` writes them, or what is the matter with them."""
    if value is None:
        return ()
    try:
        thoughts = tuple(
            Thought(text=str(row["text"]), kind=str(row["kind"]), num_steps=int(row["num_steps"])) for row in value
        )
    except (LookupError, TypeError, ValueError) as error:
        return f"thoughts are not those of `longshort chunk`: {error!r}"
    if "".join(thought.text for thought in thoughts) != trace:
        return "the thoughts do not concatenate to the trace"
    return thoughts


def _blocks(value: Any, trace: str) -> tuple[Thought, ...] | str:
    """Thoughts from blocks of steps, as the authors of the paper publish them, or what is the matter with them."""
    steps = split_steps(trace)
    try:
        return tuple(by_blocks(steps, read_blocks(json.dumps(value), len(steps))))
    except BlockError as error:
        return f"block: {error}"


def thought_rows(thoughts: Sequence[Thought]) -> list[Mapping[str, Any]]:
    """Thoughts as JSON values."""
    return [vars(thought) for thought in thoughts]
