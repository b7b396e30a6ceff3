# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Loaded into the benchmark's job: who learns at which step, and when a batch was handed over.

Both are what the trainer has settings for, or none: the benchmark wants them side by side in one run.
"""

from __future__ import annotations

import time

from wrapt import when_imported

from longshort_verl.types import Role

L, S, B = frozenset({Role.LONG}), frozenset({Role.SHORT}), frozenset(Role)
CYCLE = (L, L, S, S, B, B)
"""Learning roles, step after step; the second of each pair follows a step of its own kind."""
CYCLES = 7
"""The first one warms up."""
POLLS = 12
"""Steps of the long role alone after the cycles, with our poll interval and verl's in turn."""
STEPS = len(CYCLE) * CYCLES + POLLS
VERLS_POLL_S = 2.0


@when_imported("longshort_verl.config.schema")
def learn_in_a_cycle(module) -> None:
    """Replace the schedule."""

    def learning(self, step: int) -> frozenset[Role]:
        return CYCLE[(step - 1) % len(CYCLE)] if step <= len(CYCLE) * CYCLES else L

    module.LongShortConfig.learning = learning
    module.LongShortConfig.trained = property(lambda self: B)


@when_imported("longshort_verl.adapters.trainer")
def log_the_wait(module) -> None:
    """Log how long a batch lay ready before the trainer had it."""
    trainer = module.LongShortTrainer
    build, episode = trainer._build_replay_buffer, module._episode_metrics

    def build_replay_buffer(self):
        buffer = build(self)
        ours, sample = buffer.poll_interval, buffer.sample

        def sample_and_note(*args, **kwargs):
            step = kwargs["global_steps"]
            polls = step > len(CYCLE) * CYCLES and step % 2 == 0
            buffer.poll_interval = VERLS_POLL_S if polls else ours
            batch, metrics = sample(*args, **kwargs)
            return batch, {**metrics, "bench/handed_over": time.time()}

        buffer.sample = sample_and_note
        return buffer

    def episode_metrics(outcomes, fields, rewards):
        return episode(outcomes, fields, rewards) | {
            "bench/last_row": max(extra[module.ROW]["finished_at"] for extra in fields)
        }

    trainer._build_replay_buffer = build_replay_buffer
    module._episode_metrics = episode_metrics
