# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Generates with OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longshort_verl.generation.base import OneLoop, OnText, Pieces, failure, no_room
from longshort_verl.generation.settings import EndpointSettings
from longshort_verl.types import FinishReason, Generation, Message, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NO_ROOM = "maximum context length"
"""Part of the error of OpenAI's and vLLM's servers for a request that does not fit."""


@dataclass
class _Server:
    client: AsyncOpenAI
    name: str
    num_in_flight: int = 0
    unreachable: bool = False
    """Whether its last request found no server. It fails faster than others answer, so load alone would choose it."""


class EndpointGenerator:
    """One or more OpenAI-compatible chat-completions servers of the same model, called by the official client.

    Requests that begin with the same messages, up to the first user message, go to the same server, for its prefix
    cache; a new conversation goes to the least loaded server that is reachable.

    Servers remove the stop string. This class appends it if it is known: from vLLM's ``stop_reason`` or, without that
    field, if the request has exactly one stop string, which then also closes a reply that ended by itself.
    """

    def __init__(self, base_urls: Sequence[str], model: str, api_key: str, settings: EndpointSettings) -> None:
        from openai import AsyncOpenAI

        if isinstance(base_urls, str) or not base_urls:
            raise ValueError(f"base_urls is {base_urls!r}; give a list with at least one URL")
        if not all(url.startswith(("http://", "https://")) for url in base_urls):
            raise ValueError("every base URL must begin with http:// or https://, as http://127.0.0.1:8000/v1 does")
        if not api_key:
            raise ValueError("api_key is empty; give any text for a server without keys")
        self._model = model
        self._api_key = api_key
        self._vllm_extensions = settings.vllm_extensions
        self._servers: list[_Server] = []
        for url in base_urls:
            client = AsyncOpenAI(
                base_url=url, api_key=api_key, timeout=settings.timeout_s, max_retries=settings.max_retries
            )
            self._servers.append(_Server(client=client, name=client.base_url.netloc.decode()))
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._server_of: dict[int, _Server] = {}
        """Hash of a conversation's first messages → its server; a hash collision is harmless."""
        self._loop = OneLoop("EndpointGenerator")

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Writer.generate`. Token counts are the server's; an answer without them is an ERROR.

        A vLLM server refuses a request without room for ``max_tokens``; the request is repeated without that limit.
        """
        from openai import APIConnectionError, BadRequestError, OpenAIError

        self._loop.check()
        request = self._request(messages, sampling)
        pieces = Pieces(on_text)
        async with self._slots:
            server = self._route(messages)
            server.num_in_flight += 1
            try:
                while True:
                    try:
                        answer = await self._answer(server, request, pieces)
                        break
                    except BadRequestError as error:
                        if _NO_ROOM not in str(error):
                            raise
                        if request.pop("max_tokens", None) is None:
                            return no_room(0)
                server.unreachable = False
                generation = self._parse(answer, sampling)
            except OpenAIError as error:
                server.unreachable = isinstance(error, APIConnectionError)
                cause = f" ({error.__cause__!r})" if error.__cause__ else ""
                return self._failure(server, f"{type(error).__name__}: {error}{cause}")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                return self._failure(server, f"unusable answer: {error!r}")
            finally:
                server.num_in_flight -= 1
        pieces.send(generation.text)
        return generation

    async def _answer(self, server: _Server, request: dict[str, Any], pieces: Pieces) -> Any:
        """The server's answer as JSON values; a streamed answer is joined into the same form."""
        create = server.client.chat.completions.with_raw_response.create
        if not pieces.wanted:
            return json.loads((await create(**request)).text)
        answered: Any = await create(**request, stream=True, stream_options={"include_usage": True})
        answer: dict[str, Any] = {"choices": [{"message": {"content": ""}, "finish_reason": None}], "usage": None}
        choice = answer["choices"][0]
        async for chunk in answered.parse():
            values = chunk.to_dict()
            answer["usage"] = values.get("usage") or answer["usage"]
            for part in values.get("choices") or []:
                choice["message"]["content"] += part["delta"].get("content") or ""
                choice |= {name: part[name] for name in ("finish_reason", "stop_reason") if name in part}
                pieces.send(choice["message"]["content"])
        return answer

    async def check(self) -> str:
        """See :meth:`Generator.check`: every server must answer and have the model."""
        from openai import OpenAIError

        for server in self._servers:
            try:
                models = [model.id async for model in server.client.with_options(max_retries=0).models.list()]
            except OpenAIError as error:
                return self._failure(server, f"{type(error).__name__}: {error}").error
            if self._model not in models:
                return self._failure(server, f"it has no model {self._model!r}; its models are {models}").error
        return ""

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [message.as_dict() for message in messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        if sampling.json_schema is not None:
            form = {"name": "reply", "schema": json.loads(sampling.json_schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        to_continue = messages[-1].role == "assistant"
        if self._vllm_extensions:
            # Not `include_stop_str_in_output`: it would also keep the text of the end-of-turn token, and nothing in the
            # answer distinguishes that from the reply. `stop_reason` names the string to append.
            request["extra_body"] = {
                "skip_special_tokens": False,
                "add_generation_prompt": not to_continue,
                "continue_final_message": to_continue,
            }
        elif to_continue:
            raise ValueError(
                "only vLLM servers continue an assistant's message; set vllm_extensions, or end with a user's message"
            )
        return request

    def _route(self, messages: Sequence[Message]) -> _Server:
        num_first = next((i + 1 for i, message in enumerate(messages) if message.role == "user"), len(messages))
        key = hash(tuple(messages[:num_first]))
        server = self._server_of.get(key)
        if server is None or server.unreachable:
            server = min(self._servers, key=lambda server: (server.unreachable, server.num_in_flight))
            self._server_of[key] = server
        return server

    def _parse(self, answer: Any, sampling: Sampling) -> Generation:
        choice, usage = answer["choices"][0], answer.get("usage")
        if not usage:
            raise ValueError("the answer has no usage, which holds the token counts")
        finish = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(choice["finish_reason"])
        if finish is None:
            raise ValueError(f"the server ended the request with {choice['finish_reason']!r}")
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise ValueError("the answer has no content; a vLLM server must run without --reasoning-parser")
        if finish is FinishReason.STOP:
            text += self._cut_stop(choice, text, sampling.stop)
        # JSON can spell half a surrogate pair, which no file and no reply can hold.
        text = text.encode("utf-8", "replace").decode()
        details = usage.get("prompt_tokens_details") or {}
        return Generation(
            text=text,
            finish=finish,
            num_prompt_tokens=int(usage["prompt_tokens"]),
            num_tokens=int(usage["completion_tokens"]),
            num_cached_tokens=details.get("cached_tokens"),  # vLLM needs --enable-prompt-tokens-details
        )

    def _cut_stop(self, choice: dict[str, Any], text: str, stop: Sequence[str]) -> str:
        """The stop string that the server removed from ``text``; "" if none, or unknown."""
        if self._vllm_extensions or "stop_reason" in choice:
            cut = choice.get("stop_reason")  # the string; None or a token id if a token ended the reply
        else:
            cut = stop[0] if len(stop) == 1 else None
        return cut if isinstance(cut, str) and not text.endswith(cut) else ""

    def _failure(self, server: _Server, error: str) -> Generation:
        return failure(f"{server.name}: {error}".replace(self._api_key, "***"))

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.client.close()

    async def __aenter__(self) -> EndpointGenerator:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
