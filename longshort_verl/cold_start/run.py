# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort cold-start``: scored chains of thought to training data for both roles."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from longshort_verl.chains.config import NOT_IN_RESULTS
from longshort_verl.chains.files import usable_chains
from longshort_verl.chat_template import control_tokens
from longshort_verl.cold_start.config import ColdStartConfig
from longshort_verl.cold_start.dialogues import ColdDialogue, ColdStartOutcome, DialogueMaker
from longshort_verl.cold_start.files import write_cold_start
from longshort_verl.cold_start.writer import Writer, WriterKind
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import Artefact
from longshort_verl.generation.base import load_tokenizer
from longshort_verl.generation.model_files import require_model
from longshort_verl.generation.open import open_generator
from longshort_verl.grading import grade
from longshort_verl.types import OpenProgress

_MAY_CHANGE = ("max_traces", *(f"writer_{name}" if name.startswith("model.") else name for name in NOT_IN_RESULTS))


def run_cold_start(config: ColdStartConfig, scored: Path, out: Path, progress: OpenProgress) -> dict[str, Any] | None:
    """Turn scored chains into the cold-start files of a folder; the writer's replies resume from its journal.

    ``scored`` is the folder of ``longshort importance``, or its ``importance.jsonl``. Returns the counts of
    :func:`longshort_verl.cold_start.files.write_cold_start`; None if ``out`` is finished.

    Raises:
        ValueError: the file is unreadable, ``out`` was begun with other settings, or no data results.
    """
    file = scored / "importance.jsonl" if scored.is_dir() else scored
    with Artefact(out, config=config, inputs={"scored": file}, may_change=_MAY_CHANGE) as artefact:
        if artefact.finished:
            return None
        chains = usable_chains(file)
        if config.writer.kind is not WriterKind.NONE:
            require_model(config.writer_model)
        tokenizer = load_tokenizer(config.tokenizer or "")
        forbidden = control_tokens([tokenizer])
        num_written = 0

        async def make() -> list[ColdDialogue]:
            nonlocal num_written
            async with AsyncExitStack() as stack:
                writer = None
                if config.writer.kind is not WriterKind.NONE:
                    settings = {"model": config.writer_model.path, "writer": dataclasses.asdict(config.writer)}
                    journal = stack.enter_context(Journal(out / "writer.jsonl", settings))
                    generator = await stack.enter_async_context(open_generator(config.writer_model))
                    writer = Writer(generator, journal, config.writer, forbidden)
                maker = DialogueMaker(
                    selection=config.select,
                    writer=writer,
                    rethink_text=config.rethink_text,
                    dialogue=config.dialogue,
                    grade=lambda text, gold: grade(text, gold, config.grading),
                    count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False)),
                    forbidden=forbidden,
                )
                on_done = stack.enter_context(progress("cold start", len(chains)))
                dialogues = await maker.make_all(chains, max_chains=config.max_traces, on_done=on_done)
                num_written = writer.num_tokens if writer else 0
                return dialogues

        dialogues = asyncio.run(make())
        counts = write_cold_start(
            dialogues, out, config.dialogue, rows=config.rows, val_share=config.val_share, seed=config.seed
        )
        if ColdStartOutcome.ENGINE_ERROR.value not in counts["outcomes"]:
            artefact.finish(counts=counts, tokens={"writer": num_written})
    return counts
