# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Measures the long role's turns in a dialogue: rollouts in which the short model must answer at once."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from longshort_verl.adapters.server_client import ServerClient
from longshort_verl.importance import ImportanceRewardSettings, MeasuredTurns
from longshort_verl.types import Dialogue, FinishReason, Role, Sampling, StopReason


class ForcedRollouts:
    """Rollouts of the short model at the boundaries of one dialogue's long turns, concurrent with the dialogue.

    Each rollout continues the short role's transcript, token by token, so that the engine has it in its prefix cache.
    Boundaries are measured while their rollouts fit in ``settings.max_dialogue_tokens``.
    """

    def __init__(
        self,
        client: ServerClient,
        tokenizer: Any,
        settings: ImportanceRewardSettings,
        *,
        request_id: str,
        sampling: Sampling,
    ):
        self._client, self._settings, self._request_id = client, settings, request_id
        self._sampling = replace(sampling, max_tokens=settings.max_tokens, stop=settings.stop)
        self._forcing_ids = tokenizer.encode(settings.forcing_text, add_special_tokens=False)
        self._boundaries: list[asyncio.Future[list[str | None]]] = []
        self._num_tokens = 0

    def start(self, prompt_ids: Sequence[int]) -> None:
        """Start the rollouts of the next boundary, whose transcript is ``prompt_ids``."""
        if len(self._boundaries) >= self._settings.max_boundaries:
            return
        boundary, ids = len(self._boundaries), [*prompt_ids, *self._forcing_ids]
        rollouts = [self._rollout(ids, boundary, i) for i in range(self._settings.num_rollouts)]
        self._boundaries.append(asyncio.gather(*rollouts))

    async def measured(self, dialogue: Dialogue) -> MeasuredTurns:
        """The measured turns, once all rollouts have ended; those after a failed rollout are left out."""
        began = time.perf_counter()
        replies: list[tuple[str, ...]] = []
        for texts in await asyncio.gather(*self._boundaries):
            written = tuple(text for text in texts if text is not None)
            if len(written) < len(texts):
                break
            replies.append(written)
        return replace(
            unmeasured(dialogue),
            replies=tuple(replies),
            num_tokens=self._num_tokens,
            wait_s=time.perf_counter() - began,
        )

    async def _rollout(self, prompt_ids: list[int], boundary: int, number: int) -> str | None:
        """The short role's answer; None if the engine failed or had no room."""
        seed = self._sampling.seed
        if seed is not None:
            seed = zlib.crc32(f"{seed}/{boundary}/{number}".encode())
        completion = await self._client.complete(self._request_id, prompt_ids, replace(self._sampling, seed=seed))
        reply = completion.generation
        if reply.finish is FinishReason.ERROR or not reply.num_tokens:
            return None
        self._num_tokens += reply.num_tokens
        return self._settings.forcing_text + reply.text


def unmeasured(dialogue: Dialogue) -> MeasuredTurns:
    """The long turns of a dialogue without any measurement."""
    last = dialogue.turns[-1].role if dialogue.turns else None
    return MeasuredTurns(
        lengths=tuple(turn.num_tokens for turn in dialogue.turns if turn.role is Role.LONG),
        # No answer can follow a last long turn, unless an engine failed.
        ends_with_long=last is Role.LONG and dialogue.stop_reason is not StopReason.ENGINE_ERROR,
    )
