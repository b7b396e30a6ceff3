# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Requests and replies in the shapes of OpenAI's chat completions.

A request for something that this server would silently ignore is refused. A field that is null counts as absent, as
clients send those that their user did not set.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from longshort_verl.types import Dialogue, Message, Role, StopReason

_FINISH: Mapping[StopReason, Literal["stop", "length"]] = {
    StopReason.TRUNCATED: "length",
    StopReason.TOKEN_BUDGET: "length",
    StopReason.CONTEXT: "length",
}
"""All other stop reasons are "stop"; the reply's ``longshort.stop_reason`` names them."""


_ERROR_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 502: "server_error"}
"""OpenAI's error types by HTTP status; that of all others is "invalid_request_error"."""


class RequestError(Exception):
    """A request that is refused, with its HTTP status and its body in OpenAI's error shape."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = _ERROR_TYPES.get(status, "invalid_request_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


# Types of validation errors. The context of the first has ``field``, which does not exist, and ``known``.
UNKNOWN_FIELD = "unknown_field"
PART_TYPE = "part_type"
MISSING_CONTENT = "missing_content"


class _Strict(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = {name: item for name, item in value.items() if item is not None}
        for name in given:
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                message = "this server does not know this field; it knows {known}"
                raise PydanticCustomError(UNKNOWN_FIELD, message, {"field": name, "known": known})
        return given


class TextPart(_Strict):
    type: Literal["text"]
    text: str
    # Hints for caches of other servers, and what replies of other servers have; they change nothing here.
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None
    annotations: Any = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in (None, "text"):
            message = "parts of type {type} are not supported; give text, or a list of parts of type text"
            raise PydanticCustomError(PART_TYPE, message, {"type": repr(kind)[:40]})
        return value


class ChatMessage(_Strict):
    """One message of a request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] = ""
    name: str | None = None
    # A client may send these fields of an earlier reply back; the models do not see them.
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] = []
    # Of these there are none here.
    tool_calls: list[Any] = Field(default=[], max_length=0)
    function_call: None = None
    audio: None = None

    @model_validator(mode="after")
    def _only_an_assistant_may_be_silent(self) -> ChatMessage:
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise PydanticCustomError(MISSING_CONTENT, "Field required")
        return self

    @property
    def text(self) -> str:
        """All parts joined."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    @property
    def is_system(self) -> bool:
        """Whether it is part of the system prompt."""
        return self.role in ("system", "developer")


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(BaseModel):
    type: Literal["text"]


class ChatRequest(_Strict):
    """The body of ``POST /v1/chat/completions``.

    Fields without effect here, such as ``user``, are accepted and ignored. Fields that would change the reply are
    accepted only with the value that changes nothing.
    """

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
    # Accepted with the value that changes nothing.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=0)
    response_format: TextFormat | None = None
    tools: list[Any] | None = Field(default=None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    # Accepted and ignored.
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

    @model_validator(mode="before")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        if isinstance(value, bytes):
            raise ValueError("the body is not declared as JSON; send it with the header Content-Type: application/json")
        # JSON can spell half a surrogate pair, which neither a tokenizer nor a reply can hold.
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(
                f"the body has half a surrogate pair ({half}), which is no Unicode text; remove it"
            ) from error
        except RecursionError as error:
            raise ValueError("the body is nested too deeply") from error
        return value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and not all([value] if isinstance(value, str) else value):
            raise ValueError("a stop string is empty")
        return value

    @model_validator(mode="after")
    def _roles_alternate(self) -> ChatRequest:
        roles = [message.role for message in self.messages if not message.is_system]
        systems = [message.is_system for message in self.messages]
        if any(systems[sum(systems) :]):
            raise ValueError("messages: a system message stands after others; put it first")
        if roles != ["user", *["assistant", "user"] * (len(roles) // 2)]:
            raise ValueError(
                f"messages: roles are {', '.join(roles) or 'none'}; after the system message they must alternate, user "
                "first and user last"
            )
        if any(not message.text.strip() for message in self.messages if message.role == "user"):
            raise ValueError("messages: a user message is empty")
        return self

    @property
    def system(self) -> str:
        """The client's system prompt; empty without one."""
        return "\n\n".join(message.text for message in self.messages if message.is_system and message.text)

    @property
    def history(self) -> list[Message]:
        """Earlier messages of user and assistant."""
        chat = [message for message in self.messages if not message.is_system]
        return [Message(role=message.role, content=message.text) for message in chat[:-1]]  # pyright: ignore

    @property
    def question(self) -> str:
        """The last user message."""
        return self.messages[-1].text

    @property
    def stops(self) -> list[str]:
        """Strings that end the reply."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def token_limit(self, maximum: int) -> int:
        """Most tokens of both roles together.

        Raises:
            RequestError: the request asks for more than ``maximum``, or sets two different limits.
        """
        limits = {limit for limit in (self.max_completion_tokens, self.max_tokens) if limit is not None}
        if len(limits) > 1:
            raise RequestError("max_tokens and max_completion_tokens differ; give one", param="max_tokens")
        limit = limits.pop() if limits else maximum
        if limit > maximum:
            raise RequestError(
                f"{limit} tokens are requested, but this server generates at most {maximum} for both roles together",
                param="max_tokens" if self.max_tokens else "max_completion_tokens",
            )
        return limit


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One finished dialogue as a choice."""

    content: str
    """Body of the answering turn, which evaluation grades; ``server.no_answer`` without an answer."""
    dialogue: Dialogue

    @property
    def finish(self) -> Literal["stop", "length"]:
        """OpenAI's finish reason."""
        return _FINISH.get(self.dialogue.stop_reason, "stop")

    @property
    def extension(self) -> dict[str, Any]:
        """The field ``longshort`` of a choice."""
        return {"stop_reason": self.dialogue.stop_reason.value, "detail": self.dialogue.detail}


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else text


def usage(dialogues: Sequence[Dialogue]) -> CompletionUsage:
    """Tokens of all turns, in total and per role; reasoning tokens are those outside of the answering turns."""
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    answers = sum(
        dialogue.turns[-1].num_tokens for dialogue in dialogues if dialogue.stop_reason is StopReason.ANSWERED
    )
    num_read, num_written = sum(turn.num_prompt_tokens for turn in turns), sum(turn.num_tokens for turn in turns)
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
            "prompt_tokens": num_read,
            "completion_tokens": num_written,
            "total_tokens": num_read + num_written,
            "completion_tokens_details": {"reasoning_tokens": num_written - answers},
            "longshort": roles,
        }
    )


class Envelope:
    """Builds the parts of one reply, all with the same id."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, replies: Sequence[Reply], *, with_reasoning: bool) -> dict[str, Any]:
        """The whole reply."""
        choices = [
            {
                "index": number,
                "message": {
                    "role": "assistant",
                    "content": reply.content,
                    # All turns with their tags.
                    **({"reasoning": "\n\n".join(turn.raw for turn in reply.dialogue.turns)} if with_reasoning else {}),
                },
                "finish_reason": reply.finish,
                "longshort": reply.extension,
            }
            for number, reply in enumerate(replies)
        ]
        tokens = usage([reply.dialogue for reply in replies]).to_dict()
        completion = {**self._head, "object": "chat.completion", "choices": choices, "usage": tokens}
        return ChatCompletion.model_validate(completion).to_dict()

    def chunk(self, index: int, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """A chunk of one choice."""
        return self._chunk([{"index": index, "delta": dict(delta), "finish_reason": finish, **more}])

    def usage_chunk(self, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        """The last chunk, if the client requests it."""
        return self._chunk([], usage=usage(dialogues).to_dict())

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return ChatCompletionChunk.model_validate(chunk).to_dict()
