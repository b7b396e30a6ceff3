# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""One role's writer in a dialogue: keeps the token ids that the engine produced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from longshort_verl.adapters.server_client import ServerClient
from longshort_verl.chat_template import hf_render, text_after_turn
from longshort_verl.generation.base import OnText
from longshort_verl.types import Generation, Message, Sampling


class RoleWriter:
    """Writes one role's turns of one dialogue, and collects the role's training sequence.

    ``mask`` and ``logprobs`` belong to the tokens after ``num_prompt_tokens``: 1 and the engine's log-probability on
    generated tokens, 0 on all others. ``versions`` holds the step of the engine's weights per turn, or -1.
    """

    def __init__(
        self,
        client: ServerClient,
        tokenizer: Any,
        *,
        request_id: str,
        on_prompt: Callable[[Sequence[int]], None] = lambda ids: None,
    ):
        self._client = client
        self._tokenizer = tokenizer
        self._request_id = request_id
        self._on_prompt = on_prompt
        self._render = hf_render(tokenizer)
        self._messages: list[Message] = []
        self.token_ids: list[int] = []
        self.num_prompt_tokens = 0
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.versions: list[int] = []

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """The role's next turn; see :meth:`longshort_verl.generation.base.Writer.generate`. Does not stream."""
        self._append_prompt(messages)
        self._on_prompt(self.token_ids)
        completion = await self._client.complete(self._request_id, self.token_ids, sampling)
        self.token_ids += completion.token_ids
        self.mask += [1] * len(completion.token_ids)
        self.logprobs += completion.log_probs
        self._messages = list(messages)
        self.versions.append(-1 if completion.version is None else completion.version)
        return completion.generation

    def _append_prompt(self, messages: Sequence[Message]) -> None:
        if not self.token_ids:
            self.token_ids = self._encode(self._render(messages, True))
            self.num_prompt_tokens = len(self.token_ids)
            return
        between = self._encode(text_after_turn(self._render, self._messages, messages[-1]))
        self.token_ids += between
        self.mask += [0] * len(between)
        self.logprobs += [0.0] * len(between)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)
