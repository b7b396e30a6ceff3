# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Loaded into the benchmark's job: who learns at which step, when a batch lay ready and when it was handed over.

The trainer has a setting for the first and none for the others; the benchmark wants all side by side in one run.
``LONGSHORT_BENCH_READY`` names a file for the time at which the newest prompt's rows were all in the queue.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from wrapt import when_imported

from longshort_verl.types import Role
from tests.bench.plan import CYCLE, CYCLES, VERLS_POLL_S, B, L


@when_imported("longshort_verl.adapters.rl.settings")
def learn_in_a_cycle(module) -> None:
    """Replace the schedule."""

    def learning(self, step: int) -> frozenset[Role]:
        return CYCLE[(step - 1) % len(CYCLE)] if step <= len(CYCLE) * CYCLES else L

    module.LongShortConfig.learning = learning
    module.LongShortConfig.trained = property(lambda self: B)


@when_imported("verl.trainer.ppo.v1.agent_loop_tq")
def note_when_rows_are_ready(module) -> None:
    """verl marks a prompt in the queue when its last row is there."""
    put = module.tq.async_kv_put

    async def put_and_note(*args, **kwargs):
        await put(*args, **kwargs)
        if (kwargs.get("tag") or {}).get("status") != "running":
            Path(os.environ["LONGSHORT_BENCH_READY"]).write_text(repr(time.time()))

    module.tq.async_kv_put = put_and_note


@when_imported("longshort_verl.adapters.rl.trainer")
def log_the_wait(module) -> None:
    """Log how long a batch lay ready before the trainer had it."""
    trainer = module.LongShortTrainer
    build = trainer._build_replay_buffer

    def build_replay_buffer(self):
        buffer = build(self)
        ours, sample = buffer.poll_interval, buffer.sample

        def sample_and_note(*args, **kwargs):
            step = kwargs["global_steps"]
            polls = step > len(CYCLE) * CYCLES and step % 2 == 0
            buffer.poll_interval = VERLS_POLL_S if polls else ours
            batch, metrics = sample(*args, **kwargs)
            ready = float(Path(os.environ["LONGSHORT_BENCH_READY"]).read_text())
            return batch, {**metrics, "bench/waited_s": time.time() - ready}

        buffer.sample = sample_and_note
        return buffer

    trainer._build_replay_buffer = build_replay_buffer
