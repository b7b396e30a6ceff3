# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scored chains of thought, as ``longshort importance`` writes them, read back for the cold start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_verl.types import Problem


class ColdStartError(ValueError):
    """No cold-start data can be made; the message says of what file, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class ScoredTrace:
    """A trace whose thoughts have an importance."""

    key: str
    """Its name, unique in a file."""
    problem: Problem
    """What is asked."""
    text: str
    """The whole trace, its answer included."""
    thoughts: tuple[str, ...]
    """Its thoughts, which begin it; what follows them is its answer."""
    lengths: tuple[int, ...]
    """Tokens of each thought, at least 1."""
    scores: tuple[float, ...]
    """Importance of each thought."""
    gains: tuple[float, ...]
    """p_i − p_{i−1} of each thought."""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that has no scored trace."""

    key: str
    """What the row says, else ``row <number>``."""
    detail: str
    """What is the matter."""
    unscored: bool
    """Whether it is sound but was not scored."""


def read_scored_traces(path: Path) -> list[ScoredTrace | BadRow]:
    """All rows of a file, in their order.

    Raises:
        ColdStartError: the file is missing, or has no row.
    """
    if path.is_dir():
        path = path / "importance.jsonl"
    if not path.is_file():
        raise ColdStartError(f"there is no file {path}; give the folder that `longshort importance` wrote")
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    if not lines:
        raise ColdStartError(f"{path} has no row")
    rows: list[ScoredTrace | BadRow] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        row = _row(number, line, path.stem)
        if row.key in seen:
            detail = f"row {number} has the key of row {seen[row.key]}"
            row = BadRow(key=f"row {number}", detail=detail, unscored=False)
        seen.setdefault(row.key, number)
        rows.append(row)
    return rows


def _row(number: int, line: bytes, source: str) -> ScoredTrace | BadRow:
    key = f"row {number}"
    try:
        row = json.loads(line.decode("utf-8"))
        key = str(row["key"])
        if row["outcome"] != "scored":
            return BadRow(
                key=key, detail=f"row {number}: {row['outcome']} {row.get('detail', '')}".strip(), unscored=True
            )
        thoughts = row["thoughts"]
        trace = ScoredTrace(
            key=key,
            problem=Problem(prompt=_text(row["problem"]), answer=_text(row["answer"]), source=source, index=number - 1),
            text=_text(row["trace"]),
            thoughts=tuple(_text(thought["text"]) for thought in thoughts),
            lengths=tuple(int(thought["num_tokens"]) for thought in thoughts),
            scores=tuple(float(thought["importance"]["score"]) for thought in thoughts),
            gains=tuple(float(thought["importance"]["gain"]) for thought in thoughts),
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        detail = f"row {number} is not one of `longshort importance`: {error!r}"
        return BadRow(key=key, detail=detail, unscored=False)
    if not trace.text.startswith("".join(trace.thoughts)):
        return BadRow(key=key, detail=f"row {number}: the thoughts do not concatenate to the trace", unscored=False)
    if not trace.thoughts or min(trace.lengths) < 1:
        return BadRow(key=key, detail=f"row {number}: no thoughts, or one without a token", unscored=False)
    return trace


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text should be")
    value.encode()  # half a surrogate pair, which JSON can spell, is no text
    return value
