# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Small problems, good and bad rows, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longshort_verl.problems.read import ProblemFileError, read_problems
from longshort_verl.types import Problem

GOOD = {"problem": "What is 1 + 1?", "answer": "2"}


def make_problem(prompt: str, *, answer: str = "2", index: int = 0, source: str = "toy") -> Problem:
    return Problem(prompt=prompt, answer=answer, source=source, index=index)


def make_problems(*prompts: str) -> list[Problem]:
    return [make_problem(prompt, index=index) for index, prompt in enumerate(prompts)]


def verl_row(prompt: Any = None, ground_truth: Any = "2", **changes: Any) -> dict[str, Any]:
    row = {
        "data_source": "toy",
        "prompt": [{"role": "user", "content": "What is 1 + 1?"}] if prompt is None else prompt,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {"index": 0, "split": "train"},
    }
    return {**row, **changes}


def save(folder: Path, rows: list[Any], suffix: str) -> Path:
    path = folder / f"toy{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """The message of the error that reading a file raises; it starts with the path."""
    with pytest.raises(ProblemFileError) as caught:
        read_problems(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message
