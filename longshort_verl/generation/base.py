# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of every model, and what its engines share.

Every stage asks a :class:`Generator` for text and does not know which engine answers: vLLM in this process
(``vllm.py``), OpenAI-compatible servers (``endpoint.py``) or verl's rollout servers (``adapters/server_client.py``).
vllm, transformers and openai are imported when they are first needed, because each import takes seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from longshort_verl.config.compose import ConfigError
from longshort_verl.types import FinishReason, Generation, Likelihood, Message, Sampling

_MAX_ERROR_CHARS = 300
"""Maximum length of an error message; some servers send whole HTML pages."""

OnText = Callable[[str], None]
"""Receives pieces of a reply while the engine writes it."""


class Writer(Protocol):
    """Writes replies to conversations."""

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """Return the model's next reply; if the last message is the assistant's, return what follows its text.

        An engine's failure is returned as ``finish=ERROR`` with its cause in ``error``, never raised.
        ``text`` includes the stop string that ended it and excludes the end-of-turn token. A prompt that fills the
        model's context gives LENGTH with no token. A cancelled call ends the generation in the engine.

        ``on_text`` receives pieces that together are ``text``; of a failed reply, the pieces before the failure. An
        engine that cannot stream sends one piece at the end.
        """
        ...


class Generator(Writer, Protocol):
    """A model that an engine serves."""

    async def check(self) -> str:
        """Return "" if the engine is healthy, else its fault."""
        ...


class LikelihoodGenerator(Generator, Protocol):
    """A generator that also computes the likelihood of a given text."""

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """Probability that ``text`` follows the last message, which is the assistant's, at temperature 1.

        An engine's failure is returned in ``error``, as :meth:`Writer.generate` does.
        """
        ...


def load_tokenizer(path: str, hint: str = "", **options: Any) -> Any:
    """The Hugging Face tokenizer at a path or hub name.

    Raises:
        ConfigError: there is no tokenizer; ``hint`` is added to the message.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no tokenizer could be loaded from {path!r}: {error}{hint}") from error


class Prompts:
    """Conversations as token ids of one model."""

    def __init__(self, model: str) -> None:
        """Load the model's tokenizer; a ValueError if there is none, or it has no chat template."""
        self.tokenizer = load_tokenizer(model)
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {model!r} has no chat template; use an instruction-tuned model or add one"
            )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to the position where the model continues.

        An assistant's last message follows the generation prompt unchanged, because templates of reasoning models
        would delete its thinking. If the generation prompt already opens the thinking, the opening tag is not repeated.
        """
        to_continue = messages[-1].role == "assistant"
        text = self.tokenizer.apply_chat_template(
            [message.as_dict() for message in (messages[:-1] if to_continue else messages)],
            add_generation_prompt=True,
            tokenize=False,
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
    """Likelihood of ``text`` after the last message, the assistant's, from one request per token.

    ``ask`` returns the log-probability of a token after token ids, and how many of these ids were cached.

    Raises:
        ValueError: the last message is not the assistant's, or ``text`` has no token.
    """
    last = messages[-1]
    if last.role != "assistant" or not text:
        raise ValueError("a likelihood needs an assistant's message to continue, and a text")
    before = prompts.encode(messages)
    whole = prompts.encode([*messages[:-1], Message(role="assistant", content=last.content + text)])
    # If the text's first characters join the message's last token, the likelihood begins with that token.
    first = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    positions = range(first, len(whole))
    if not positions:
        raise ValueError(f"the text {text!r} has no token")
    if len(whole) > max_model_len:
        return no_likelihood(f"{len(whole)} tokens do not fit into the model's context of {max_model_len}")
    answers = await asyncio.gather(*(ask(whole[:position], whole[position]) for position in positions))
    return Likelihood(
        log_prob=float(sum(log_prob for log_prob, _ in answers)),
        num_prompt_tokens=sum(positions),
        num_cached_tokens=sum(cached for _, cached in answers),
        num_tokens=len(positions),
    )


class Pieces:
    """Sends the new part of a growing text to ``on_text``."""

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self._num_sent = 0

    @property
    def wanted(self) -> bool:
        return self._on_text is not None

    def send(self, text: str) -> None:
        """Send what ``text``, the whole text so far, adds."""
        if self._on_text is not None and len(text) > self._num_sent:
            self._on_text(text[self._num_sent :])
            self._num_sent = len(text)


class OneLoop:
    """Raises if an object is used from a second event loop, where its sockets would hang."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError(f"this {self._owner} belongs to another event loop; build one in each asyncio.run")


def failure(error: str) -> Generation:
    """A failed reply."""
    error = " ".join(error.split())[:_MAX_ERROR_CHARS]
    return Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error=error)


def no_room(num_prompt_tokens: int) -> Generation:
    """The reply to a prompt that fills the model's context."""
    return Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=num_prompt_tokens, num_tokens=0)


def no_likelihood(error: str) -> Likelihood:
    """A failed likelihood."""
    return Likelihood(log_prob=0.0, num_prompt_tokens=0, num_cached_tokens=0, num_tokens=0, error=failure(error).error)
