# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A generator that replays replies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from longshort_verl.generation.base import OnText
from longshort_verl.types import FinishReason, Generation, Message, Sampling


class ScriptedGenerator:
    """Replays replies in the order of the requests, and records the requests.

    A string is cut after the first stop string in it, as an engine would; a :class:`Generation` is returned
    unchanged, which scripts LENGTH and ERROR. ``count_tokens`` defaults to one token per non-blank character.
    """

    def __init__(self, replies: Sequence[str | Generation], count_tokens: Callable[[str], int] | None = None) -> None:
        self.replies = deque(replies)
        self.requests: list[tuple[tuple[Message, ...], Sampling]] = []
        self._count_tokens = count_tokens or _num_characters

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """The next scripted reply, character by character; AssertionError when there is none left."""
        self.requests.append((tuple(messages), sampling))
        assert self.replies, f"the script has no reply left for request {len(self.requests)}: {messages[-1]}"
        reply = self.replies.popleft()
        if isinstance(reply, Generation):
            if on_text is not None and reply.text:
                on_text(reply.text)
            return reply
        ends = [reply.find(stop) + len(stop) for stop in sampling.stop if stop in reply]
        text = reply[: min(ends)] if ends else reply
        if on_text is not None:
            for character in text:
                on_text(character)
                await asyncio.sleep(0)
        return Generation(
            text=text,
            finish=FinishReason.STOP,
            num_prompt_tokens=sum(self._count_tokens(message.content) for message in messages),
            num_tokens=self._count_tokens(text),
        )

    async def check(self) -> str:
        """Healthy while the script has replies."""
        return "" if self.replies else "the script has no reply left"


def _num_characters(text: str) -> int:
    return sum(not character.isspace() for character in text)
