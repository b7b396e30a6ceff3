# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a generator is; one that is scripted; prompts as token ids; and what the engines' generators share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from longshort_verl.types import FinishReason, Generation, Likelihood, Message, Sampling

_MAX_ERROR_CHARS = 300
"""Servers answer errors with whole HTML pages; the head is enough for a log line."""


class Generator(Protocol):
    """Writes one reply to a conversation."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Generation:
        """Return the model's next reply; where the last message is the assistant's, return what follows its text.

        An engine's failure is returned as ``finish=ERROR`` with its cause in ``error``, never raised, so that one
        lost request does not end a run of thousands. A mistake in the program or its configuration raises.
        ``text`` holds the stop string that ended it and not the end-of-turn token. A prompt that fills the model's
        context gives LENGTH with no token. A cancelled call ends the generation in the engine.
        """
        ...


OnText = Callable[[str], None]
"""Takes what is written, piece by piece, as it is written."""


class StreamingGenerator(Generator, Protocol):
    """A generator that also tells what it writes while it writes it."""

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Generator.generate`.

        ``on_text`` is given the text in pieces that together are ``text``; of a failed reply, those until it failed.
        One who cannot tell earlier gives it whole at the end.
        """
        ...


class LikelihoodGenerator(Generator, Protocol):
    """A generator that also says how likely its model finds a text."""

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """Probability that the model goes on with ``text`` after an assistant's message, at temperature 1.

        An engine's failure is returned in ``error``, as :meth:`Generator.generate` does.
        """
        ...


class ScriptedGenerator:
    """Replays replies in the order in which they are asked for, and records what was asked.

    A string is cut after the first stop string in it, as an engine would; a :class:`Generation` is returned as it
    is, which is how to script LENGTH and ERROR. ``count_tokens`` defaults to one token a non-blank character.
    """

    def __init__(self, replies: Sequence[str | Generation], count_tokens: Callable[[str], int] | None = None) -> None:
        self.replies = deque(replies)
        """Replies not yet given."""
        self.requests: list[tuple[tuple[Message, ...], Sampling]] = []
        """What was asked, in order."""
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


def _num_characters(text: str) -> int:
    return sum(not character.isspace() for character in text)


class Prompts:
    """Conversations as the token ids that a model was trained on."""

    def __init__(self, model: str) -> None:
        """Load the model's tokenizer.

        Raises:
            ValueError: it has no chat template.
        """
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {model!r} has no chat template; use an instruction-tuned model or add one"
            )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the model writes on; after an assistant's last message that is right after its text.

        Such a message stands after the generation prompt as it is: templates of reasoning models would drop the
        thinking from it. Where the generation prompt opens the thinking itself, the message need not.
        """
        to_continue = messages[-1].role == "assistant"
        said = messages[:-1] if to_continue else messages
        text = self.tokenizer.apply_chat_template(
            [message.as_dict() for message in said], add_generation_prompt=True, tokenize=False
        )
        if to_continue:
            content = messages[-1].content
            if text.rstrip().endswith(_THINK) and content.lstrip().startswith(_THINK):
                text = text[: text.rindex(_THINK)]
            text += content
        return self.tokenizer.encode(text, add_special_tokens=False)


_THINK = "<think>"


async def token_by_token(
    prompts: Prompts,
    messages: Sequence[Message],
    text: str,
    ask: Callable[[list[int], int], Awaitable[tuple[float, int]]],
    max_model_len: int,
) -> Likelihood:
    """Likelihood of ``text`` from one request for each of its tokens.

    Args:
        prompts: of the model.
        messages: the last one the assistant's.
        text: what would follow it.
        ask: log-probability of a token after token ids, and how many of these were cached.
        max_model_len: most tokens of a request.

    Raises:
        ValueError: the last message is not the assistant's, or ``text`` has no token.
    """
    last = messages[-1]
    if last.role != "assistant" or not text:
        raise ValueError("a likelihood needs an assistant's message to go on from, and a text")
    before = prompts.encode(messages)
    whole = prompts.encode([*messages[:-1], Message(role="assistant", content=last.content + text)])
    # Where the text's first characters join the message's last token, the likelihood begins with that token.
    first = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    places = range(first, len(whole))
    if not places:
        raise ValueError(f"the text {text!r} has no token")
    if len(whole) > max_model_len:
        return no_likelihood(f"{len(whole)} tokens do not fit into the model's context of {max_model_len}")
    answers = await asyncio.gather(*(ask(whole[:place], whole[place]) for place in places))
    return Likelihood(
        log_prob=float(sum(log_prob for log_prob, _ in answers)),
        num_prompt_tokens=sum(places),
        num_cached_tokens=sum(cached for _, cached in answers),
        num_tokens=len(places),
    )


class Pieces:
    """Gives a text that grows on, piece by piece."""

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self._num_given = 0

    @property
    def wanted(self) -> bool:
        return self._on_text is not None

    def so_far(self, text: str) -> None:
        if self._on_text is not None and len(text) > self._num_given:
            self._on_text(text[self._num_given :])
            self._num_given = len(text)


class OneLoop:
    """Holds an object to the event loop that first used it: from another, its sockets hang or die unexplained."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError(f"this {self._owner} belongs to another event loop; build one in each asyncio.run")


def no_likelihood(error: str) -> Likelihood:
    return Likelihood(log_prob=0.0, num_prompt_tokens=0, num_cached_tokens=0, num_tokens=0, error=failure(error).error)


def failure(error: str) -> Generation:
    error = " ".join(error.split())[:_MAX_ERROR_CHARS]
    return Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error=error)
