# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a client asks for and what it is told, in the shapes of OpenAI's chat completions.

A request is refused where it asks for something that would otherwise be left out in silence.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from longshort_verl.types import Dialogue, Message, Role, StopReason

_FINISH: Mapping[StopReason, Literal["stop", "length"]] = {
    StopReason.TRUNCATED: "length",
    StopReason.TOKEN_BUDGET: "length",
}
"""All other endings are "stop"; which one it was, ``longshort.stop_reason`` tells."""


class RequestError(Exception):
    """A request that is not served, with what HTTP and OpenAI's error shape say of it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type_: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": type_, "param": param, "code": code}}
        """In OpenAI's shape."""


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a request."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    # What an earlier reply of ours held may come back with it; it is not shown to the models again.
    reasoning: str | None = None
    refusal: None = None

    @property
    def text(self) -> str:
        """All parts together."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """What a stream brings besides."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(BaseModel):
    """The only format of a reply."""

    type: Literal["text"]


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``.

    Fields of OpenAI's that change nothing here, such as ``user``, are taken and not used; those that would change the
    reply are taken only with the value that changes nothing.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: int = Field(default=1, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    include_reasoning: bool = False
    # Taken with the value that changes nothing.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=0)
    response_format: TextFormat | None = None
    tools: list[Any] | None = Field(default=None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    # Of the client's own books.
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("frequency_penalty", "presence_penalty", "logprobs", "top_logprobs", mode="before")
    @classmethod
    def _zero(cls, value: Any) -> Any:
        return 0 if value == 0 and not isinstance(value, bool) else value

    @field_validator("stop")
    @classmethod
    def _stop_says_something(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and not all([value] if isinstance(value, str) else value):
            raise ValueError("a stop string is empty")
        return value

    @model_validator(mode="after")
    def _roles_alternate(self) -> ChatRequest:
        said = [message.role for message in self.messages if message.role not in ("system", "developer")]
        systems = [message.role in ("system", "developer") for message in self.messages]
        if any(systems[sum(systems) :]):
            raise ValueError("messages: a system message stands after others; put it first")
        expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(said))]
        if said != expected or said[-1:] != ["user"]:
            raise ValueError(
                f"messages: roles are {', '.join(said) or 'none'}; after the system message they must alternate, user "
                "first and user last"
            )
        if any(not message.text.strip() for message in self.messages if message.role == "user"):
            raise ValueError("messages: a user message is empty")
        return self

    @property
    def system(self) -> str:
        """What the client tells the pair about itself."""
        said = [message.text for message in self.messages if message.role in ("system", "developer")]
        return "\n\n".join(filter(None, said))

    @property
    def history(self) -> list[Message]:
        """What was said before."""
        said = [message for message in self.messages if message.role in ("user", "assistant")]
        return [Message(role=message.role, content=message.text) for message in said[:-1]]  # pyright: ignore

    @property
    def question(self) -> str:
        """What is asked now."""
        return self.messages[-1].text

    @property
    def stops(self) -> list[str]:
        """Strings that end the reply."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def token_limit(self, most: int) -> int:
        """Most tokens of both roles together.

        Raises:
            RequestError: more are asked for than the server gives, or two different numbers.
        """
        given = {limit for limit in (self.max_completion_tokens, self.max_tokens) if limit is not None}
        if len(given) > 1:
            raise RequestError("max_tokens and max_completion_tokens differ; give one", param="max_tokens")
        limit = given.pop() if given else most
        if limit > most:
            raise RequestError(
                f"{limit} tokens are asked for, but this server generates at most {most} for a reply, both roles "
                "together",
                param="max_tokens" if self.max_tokens else "max_completion_tokens",
            )
        return limit


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One finished dialogue as a choice."""

    content: str
    """The answer, as it is graded: the body of the answering turn; where there is none, what is said instead."""
    dialogue: Dialogue
    """All of it."""

    @property
    def finish(self) -> Literal["stop", "length"]:
        """OpenAI's word for how it ended."""
        return _FINISH.get(self.dialogue.stop_reason, "stop")

    @property
    def extension(self) -> dict[str, Any]:
        """How it ended, in our own words."""
        return {"stop_reason": self.dialogue.stop_reason.value, "detail": self.dialogue.detail}


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text


def reasoning(dialogue: Dialogue) -> str:
    """Everything that was written, turn by turn, with its tags."""
    return "\n\n".join(turn.raw for turn in dialogue.turns)


def usage(dialogues: Sequence[Dialogue]) -> CompletionUsage:
    """Tokens of all turns: what the engines read and wrote, and by role.

    ``reasoning_tokens`` are those outside the answering turns.
    """
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    answers = sum(
        dialogue.turns[-1].num_tokens for dialogue in dialogues if dialogue.stop_reason is StopReason.ANSWERED
    )
    read, written = sum(turn.num_prompt_tokens for turn in turns), sum(turn.num_tokens for turn in turns)
    roles = {
        role.value: {
            "prompt_tokens": sum(turn.num_prompt_tokens for turn in turns if turn.role is role),
            "completion_tokens": sum(turn.num_tokens for turn in turns if turn.role is role),
            "turns": sum(turn.role is role for turn in turns),
        }
        for role in Role
    }
    return CompletionUsage.model_validate(
        {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "completion_tokens_details": {"reasoning_tokens": written - answers},
            "longshort": roles,
        }
    )


class Envelope:
    """Identity of one reply, the same in all its chunks."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, replies: Sequence[Reply], *, with_reasoning: bool) -> dict[str, Any]:
        """The reply in one piece."""
        choices = [
            {
                "index": number,
                "message": {
                    "role": "assistant",
                    "content": reply.content,
                    **({"reasoning": reasoning(reply.dialogue)} if with_reasoning else {}),
                },
                "finish_reason": reply.finish,
                "longshort": reply.extension,
            }
            for number, reply in enumerate(replies)
        ]
        counted = usage([reply.dialogue for reply in replies])
        made = ChatCompletion.model_validate(
            {**self._head, "object": "chat.completion", "choices": choices, "usage": counted.to_dict()}
        )
        return made.to_dict()

    def chunk(self, index: int, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """A piece of one choice."""
        choice = {"index": index, "delta": dict(delta), "finish_reason": finish, **more}
        return self._chunk([choice])

    def usage_chunk(self, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        """The last piece, where it was asked for."""
        return self._chunk([], usage=usage(dialogues).to_dict())

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        said = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return ChatCompletionChunk.model_validate(said).to_dict()
