# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longshort_verl.generation.base import OneLoop, OnText, Pieces, failure
from longshort_verl.types import FinishReason, Generation, Message, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NO_ROOM = "maximum context length"
"""By which OpenAI's and vLLM's servers tell that a request does not fit."""


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How :class:`EndpointGenerator` calls its servers."""

    timeout_s: float
    """Seconds that one attempt may stay without an answer."""
    max_retries: int
    """Attempts after the first, made by the openai client: on time-outs, lost connections, 408, 409, 429 and 5xx."""
    max_concurrency: int
    """Most requests in flight, over all servers."""
    vllm_extensions: bool
    """The servers are vLLM: an assistant's message can be continued, and special tokens are kept in the text. Without
    it a vLLM server drops tags that are special tokens of its model."""

    def __post_init__(self) -> None:
        for name, smallest in (("timeout_s", 0.001), ("max_retries", 0), ("max_concurrency", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {smallest}")


@dataclass
class _Server:
    client: AsyncOpenAI
    name: str
    num_in_flight: int = 0
    unreachable: bool = False
    """Its last request found nobody. It fails faster than others answer, so by load alone it would draw every call."""


class EndpointGenerator:
    """One or more OpenAI-compatible chat-completions servers of the same model, through the official client.

    Requests that begin with the same messages, up to the first user message, go to the same server, whose prefix
    cache knows them; new conversations go to the least loaded one. A server that cannot be reached comes last until
    it answers again.

    Servers cut the stop string off. It is put back where it is known: from vLLM's ``stop_reason``, or, on servers
    without that field, where exactly one stop string was asked for. The latter also marks a reply that ended by
    itself as closed, because such servers do not tell the two apart; with several stop strings the text stays cut.
    """

    def __init__(self, base_urls: Sequence[str], model: str, api_key: str, settings: EndpointSettings) -> None:
        from openai import AsyncOpenAI

        if isinstance(base_urls, str) or not base_urls:
            raise ValueError(f"base_urls is {base_urls!r}; give a list with at least one URL")
        if not all(url.startswith(("http://", "https://")) for url in base_urls):
            raise ValueError("every base URL must begin with http:// or https://, as http://127.0.0.1:8000/v1 does")
        if not api_key:
            raise ValueError("api_key is empty; any text will do for a server that asks for none")
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
        """Hash of a conversation's first messages → its server; a collision only shares a server."""
        self._loop = OneLoop("EndpointGenerator")

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Generator.generate`. Token counts are the server's; an answer without them is an ERROR.

        A vLLM server refuses a request that has not room for ``max_tokens``; it is asked again for what there is.
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
                            return Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=0, num_tokens=0)
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
        pieces.so_far(generation.text)
        return generation

    async def _answer(self, server: _Server, request: dict[str, Any], pieces: Pieces) -> Any:
        """The server's answer as JSON values; of a streamed one, what it would have been in one piece."""
        create = server.client.chat.completions.with_raw_response.create
        if not pieces.wanted:
            return json.loads((await create(**request)).text)
        answered: Any = await create(**request, stream=True, stream_options={"include_usage": True})
        answer: dict[str, Any] = {"choices": [{"message": {"content": ""}, "finish_reason": None}], "usage": None}
        choice = answer["choices"][0]
        async for chunk in answered.parse():
            said = chunk.to_dict()
            answer["usage"] = said.get("usage") or answer["usage"]
            for part in said.get("choices") or []:
                choice["message"]["content"] += part["delta"].get("content") or ""
                choice |= {name: part[name] for name in ("finish_reason", "stop_reason") if name in part}
                pieces.so_far(choice["message"]["content"])
        return answer

    async def check(self) -> str:
        """What is the matter with the servers; empty where each answers and has the model."""
        from openai import OpenAIError

        for server in self._servers:
            try:
                models = [model.id async for model in server.client.with_options(max_retries=0).models.list()]
            except OpenAIError as error:
                return self._failure(server, f"{type(error).__name__}: {error}").error
            if self._model not in models:
                return self._failure(server, f"it has no model {self._model!r}, but {models}").error
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
        to_continue = messages[-1].role == "assistant"
        if self._vllm_extensions:
            # Not `include_stop_str_in_output`: it would keep the text of the end-of-turn token too, which nothing in
            # the answer tells from the reply. `stop_reason` says which string to put back.
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
            raise ValueError("the answer has no usage, and token counts are never guessed")
        finish = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(choice["finish_reason"])
        if finish is None:
            raise ValueError(f"the server ended the request with {choice['finish_reason']!r}")
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise ValueError("the answer has no content; a vLLM server must run without --reasoning-parser")
        if finish is FinishReason.STOP:
            text += self._cut_stop(choice, text, sampling.stop)
        details = usage.get("prompt_tokens_details") or {}
        return Generation(
            text=text,
            finish=finish,
            num_prompt_tokens=int(usage["prompt_tokens"]),
            num_tokens=int(usage["completion_tokens"]),
            num_cached_tokens=details.get("cached_tokens"),  # vLLM says it with --enable-prompt-tokens-details
        )

    def _cut_stop(self, choice: dict[str, Any], text: str, stop: Sequence[str]) -> str:
        """The stop string that the server cut off ``text``; empty where none was, or none is known."""
        if self._vllm_extensions or "stop_reason" in choice:
            cut = choice.get("stop_reason")  # the string, or None or a token id where a token ended the reply
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
