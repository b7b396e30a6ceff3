# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Files of the cold start: two role files and the problems that they stand for.

For each role ``<role>_train.parquet`` and ``<role>_val.parquet`` in verl's ``messages`` schema, the problems of
both in verl's RL schema, ``dialogues.jsonl`` with what became of every trace, and ``summary.json``. The split is by
problem, never by row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longshort_verl.chains.scored_files import ColdStartError
from longshort_verl.cold_start.dialogues import ColdDialogue
from longshort_verl.dialogue import DialogueSettings, transcript
from longshort_verl.files.atomic import write_atomically
from longshort_verl.files.manifest import Artefact
from longshort_verl.problems.write import split_problems, write_problems
from longshort_verl.types import Message, Role, Turn


def role_messages(problem: str, turns: Sequence[Turn], role: Role, settings: DialogueSettings) -> list[Message]:
    """A finished dialogue as the transcript of one role, which ends with its last turn; empty where it has none."""
    own = [number for number, turn in enumerate(turns) if turn.role is role]
    if not own:
        return []
    last = turns[own[-1]]
    before = transcript(problem, turns[: own[-1]], role, settings)
    return [*before, Message(role="assistant", content=last.parsed.text)]


def write_cold_start(
    dialogues: Sequence[ColdDialogue],
    out: Path,
    settings: DialogueSettings,
    *,
    val_share: float,
    seed: int,
    inputs: Mapping[str, Path],
    config: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Write everything; returns the summary.

    The same dialogues, settings and seed give the same bytes. ``inputs`` and ``config`` go into the manifests.

    Raises:
        ColdStartError: nothing was kept, or of one problem alone. ``dialogues.jsonl`` is there all the same.
    """
    # First, so that what became of each trace can be looked at where the rest is refused.
    write_atomically(
        out / "dialogues.jsonl",
        lambda path: path.write_text(
            "".join(json.dumps(_record(one), ensure_ascii=False) + "\n" for one in dialogues), encoding="utf-8"
        ),
    )
    kept = [dialogue for dialogue in dialogues if dialogue.turns and dialogue.problem is not None]
    found = dict(sorted(Counter(dialogue.outcome.value for dialogue in dialogues).items()))
    if not kept:
        told = ", ".join(f"{number} {outcome}" for outcome, number in found.items())
        first = next((f"{one.key}: {one.detail}" for one in dialogues if one.detail), "")
        raise ColdStartError(f"no trace gave a dialogue: {told}{f'; the first one, {first}' if first else ''}")
    problems = [dialogue.problem for dialogue in kept]
    num_distinct = len({" ".join(problem.prompt.split()) for problem in problems if problem})
    num_val = max(1, round(val_share * num_distinct))
    if num_distinct <= num_val:
        raise ColdStartError(
            f"{len(kept)} dialogues are of {num_distinct} distinct problems, of which {num_val} would be held out; "
            "give traces of more problems, or lower val_share"
        )
    _, val = split_problems([problem for problem in problems if problem], num_validation=num_val, seed=seed)
    val_prompts = {problem.prompt for problem in val}
    sides = {
        "train": [dialogue for dialogue in kept if dialogue.problem and dialogue.problem.prompt not in val_prompts],
        "val": [dialogue for dialogue in kept if dialogue.problem and dialogue.problem.prompt in val_prompts],
    }
    counts: dict[str, Any] = {"outcomes": found, "num_problems": {}, "num_rows": {}, "num_tokens": {}}
    for side, part in sides.items():
        distinct = {one.problem.prompt: one.problem for one in part if one.problem}
        own = [replace(problem, index=number) for number, problem in enumerate(distinct.values())]
        write_problems(own, out / f"problems_{side}.parquet", split=side)
        counts["num_problems"][side] = len(own)
        for role in Role:
            rows = [row for one in part if (row := _sft_row(one, role, settings)) is not None]
            if not rows and side == "train":
                raise ColdStartError(
                    f"no dialogue has a turn of the {role.value} role, so that it has nothing to learn"
                )
            path = _write_parquet(rows, out / f"{role.value}_{side}.parquet")
            number = {"rows": len(rows), "outcomes": found}
            with Artefact(path, config={**config, "split": side}, inputs=inputs, anew=True) as artefact:
                artefact.finish(counts=number)
            counts["num_rows"][f"{role.value}_{side}"] = len(rows)
    counts["num_tokens"] = {
        "traces": sum(one.num_trace_tokens for one in kept),
        **{role.value: sum(one.num_tokens(role) for one in kept) for role in Role},
    }
    text = json.dumps(counts, indent=2, sort_keys=True) + "\n"
    write_atomically(out / "summary.json", lambda path: path.write_text(text, encoding="utf-8"))
    return counts


def _sft_row(one: ColdDialogue, role: Role, settings: DialogueSettings) -> dict[str, Any] | None:
    assert one.problem is not None
    messages = role_messages(one.problem.prompt, one.turns, role, settings)
    if not messages:
        return None
    return {
        "messages": [message.as_dict() for message in messages],
        "extra_info": {"key": one.key, "role": role.value, "problem": one.problem.prompt, "answer": one.problem.answer},
    }


def _write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    message = pa.struct([("role", text), ("content", text)])
    extra = pa.struct([("key", text), ("role", text), ("problem", text), ("answer", text)])
    table = pa.Table.from_pylist(list(rows), schema=pa.schema([("messages", pa.list_(message)), ("extra_info", extra)]))
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    return path


def _record(one: ColdDialogue) -> dict[str, Any]:
    row: dict[str, Any] = {"key": one.key, "outcome": one.outcome.value, "detail": one.detail}
    if one.problem is not None:
        row |= {"problem": one.problem.prompt, "answer": one.problem.answer, "num_trace_tokens": one.num_trace_tokens}
    if one.turns:
        row["turns"] = [
            {"role": turn.role.value, "text": turn.parsed.text, "num_tokens": turn.num_tokens} for turn in one.turns
        ]
    return row
