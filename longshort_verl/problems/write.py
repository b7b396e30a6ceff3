# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Splits problems and writes them in verl's RL schema, which every later stage and verl's own loader read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longshort_verl.files.atomic import write_atomically
from longshort_verl.files.manifest import Artefact
from longshort_verl.problems.read import for_each_row, text_key
from longshort_verl.problems.sets import PUBLISHED, read_problem_set, read_training_problems
from longshort_verl.problems.values import check_text
from longshort_verl.types import Problem

VERL_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string())])),
    ]
)
"""One row of verl's RL data, as verl's loader and reward managers read it."""


def make_training_files(given: str, out: Path, *, num_val: int | None, seed: int, suffix: str) -> list[str]:
    """Read, check and split problems; write ``train.parquet``, ``val.parquet`` and a manifest into a folder.

    ``num_val`` problems are held out for validation; None for a quarter, at most 64. ``suffix`` is added to each
    problem. A set of :data:`PUBLISHED`, which is to evaluate on, is written whole to ``val.parquet`` alone, of multiple
    choice the first order of the letters. Returns lines that report what was written and left out.

    Raises:
        ValueError: the problems cannot be read, or the folder was written with other settings.
    """
    name, _, copy = ("", "", given) if Path(given).exists() else given.partition("=")
    config = {"set": name or None, "num_val": num_val, "seed": seed, "suffix": suffix}
    # Before the artefact is opened, so that a file with bad rows leaves no manifest.
    if name in PUBLISHED:
        left_out, parts = (), {"val": read_problem_set(given).problems_of(0)}
    else:
        training_set = read_training_problems(given)
        left_out, problems = training_set.left_out, training_set.problems
        num_val = min(64, max(1, len(problems) // 4)) if num_val is None else num_val
        parts = dict(zip(("train", "val"), split_problems(problems, num_validation=num_val, seed=seed), strict=True))
    parts = {split: [replace(one, prompt=one.prompt + suffix) for one in part] for split, part in parts.items()}
    with Artefact(out, config=config, inputs={"problems": copy or given}) as artefact:
        if artefact.finished:
            return [artefact.nothing_to_do]
        lines = [f"left out: {line}" for line in left_out]
        counts = {"left_out": len(lines)}
        for split, part in parts.items():
            path = write_problems(part, out / f"{split}.parquet", split=split)
            counts[split] = len(part)
            lines.append(f"{len(part)} problems in {path}")
        artefact.finish(counts=counts)
    return lines


def write_problems(problems: Sequence[Problem], path: str | os.PathLike[str], *, split: str) -> Path:
    """Write verl's RL parquet schema; return the path.

    Atomic: a reader sees the old file or the new one. The same problems and split give the same bytes under one
    pyarrow version. ``extra_info.index`` is ``Problem.index``: after `split_problems` it still names the row of the
    file that was read.

    Raises:
        ValueError: the path does not end in ``.parquet``, there are no problems, or the split has no name.
        ProblemFileError: a problem has an empty text, or one that cannot be encoded.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"cannot write {str(path)!r}: verl loads only files that end in .parquet; rename it")
    if not problems:
        raise ValueError(f"cannot write {path}: there are no problems; verl cannot train on an empty file")
    if not split.strip():
        raise ValueError(f"split is {split!r}; name it, for example 'train' or 'test'")

    def row_of(index: int, problem: Problem) -> dict[str, Any]:
        for name in ("prompt", "answer", "source"):
            check_text(getattr(problem, name), name, "correct the Problem")
        return {
            "data_source": problem.source,
            "prompt": [{"role": "user", "content": problem.prompt}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"index": index, "split": split},
        }

    indexed = [(problem.index, problem) for problem in problems]
    rows = for_each_row(indexed, row_of, path=path, what="cannot be written")
    table = pa.Table.from_pylist(rows, schema=VERL_SCHEMA)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    return path


def split_problems(
    problems: Sequence[Problem], *, num_validation: int, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """Split into (training, validation), each in the order of the input.

    Validation holds ``num_validation`` distinct problems with all their duplicates: texts that differ only in white
    space count as one problem, and no problem is on both sides. A hash of seed and text decides, so neither the order
    of the rows nor the Python version changes the split.

    Raises:
        ValueError: ``num_validation`` is below 1, or no distinct problem would be left to train on.
    """
    texts = {text_key(problem.prompt) for problem in problems}
    if num_validation < 1:
        raise ValueError(f"num_validation is {num_validation}; a validation set needs at least 1 problem")
    if len(texts) <= num_validation:
        raise ValueError(
            f"{len(problems)} rows with {len(texts)} distinct problems are too few for {num_validation} validation "
            f"problems and at least 1 to train on; add rows or lower num_validation"
        )
    order = sorted(texts, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
    chosen = set(order[:num_validation])
    training = [problem for problem in problems if text_key(problem.prompt) not in chosen]
    validation = [problem for problem in problems if text_key(problem.prompt) in chosen]
    return training, validation
