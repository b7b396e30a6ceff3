# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the endpoint."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from longshort_verl.types import Dialogue, Role

_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Metrics of one app, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        self.running = Gauge("longshort_dialogues_running", "Running dialogues.", registry=self.registry)
        self.responses = counter("longshort_responses", "Responses by status.", ["status"])
        self.dialogues = counter("longshort_dialogues", "Dialogues by stop reason.", ["stop_reason"])
        cancelled = "Dialogues cancelled: the client left, or another choice of the request failed."
        self.cancelled = counter("longshort_dialogues_cancelled", cancelled)
        self.tokens = counter("longshort_tokens", "Generated tokens by role.", ["role"])
        self.prompt_tokens = counter("longshort_prompt_tokens", "Prompt tokens of all turns by role.", ["role"])
        self.length = histogram("longshort_dialogue_tokens", "Generated tokens of a dialogue.", buckets=_BUCKETS)
        self.turns = histogram("longshort_dialogue_turns", "Turns of a dialogue.", buckets=range(1, 17))
        self.seconds = histogram("longshort_dialogue_seconds", "Seconds of a dialogue.")

    def add_dialogue(self, dialogue: Dialogue, seconds: float) -> None:
        """Count a dialogue that ended."""
        self.dialogues.labels(dialogue.stop_reason.value).inc()
        for role in Role:
            self.tokens.labels(role.value).inc(dialogue.num_tokens(role))
            num_prompt_tokens = sum(turn.num_prompt_tokens for turn in dialogue.turns if turn.role is role)
            self.prompt_tokens.labels(role.value).inc(num_prompt_tokens)
        self.length.observe(dialogue.num_tokens())
        self.turns.observe(len(dialogue.turns))
        self.seconds.observe(seconds)
