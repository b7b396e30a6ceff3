# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The pair as one chat model over HTTP: OpenAI's chat completions, models, health and Prometheus metrics.

Only the closing tag of a short turn shows whether it is an answer or a request for another thought. A stream therefore
sends the answer when its turn is complete. With ``include_reasoning`` it also sends both roles' text as it is written.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from longshort_verl.chat_template import control_tokens
from longshort_verl.dialogue import DialogueSettings, run_dialogue
from longshort_verl.generation.base import Generator, load_tokenizer
from longshort_verl.generation.open import open_pair
from longshort_verl.generation.settings import Engine
from longshort_verl.serving.config import ServeConfig, ServerSampling, ServerSettings
from longshort_verl.serving.metrics import Metrics
from longshort_verl.serving.protocol import (
    MISSING_CONTENT,
    PART_TYPE,
    UNKNOWN_FIELD,
    ChatRequest,
    Envelope,
    Reply,
    RequestError,
    cut,
)
from longshort_verl.serving.server import ClientGone, Gate, bind, error_response, run_app, unless_client_leaves
from longshort_verl.types import Problem, Role, StopReason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two models."""

    generators: Mapping[Role, Generator]
    """One per role; the same one twice for a shared model."""
    forbidden: Sequence[str]
    """Control tokens of their templates (:func:`longshort_verl.dialogue.read_turn`)."""


def serve_pair(config: ServeConfig, api_key: str | None, *, announce: Callable[[str], None]) -> None:
    """Load the models and serve them until SIGINT or SIGTERM; ``announce`` gets one line once they answer.

    Raises:
        ValueError: a model cannot be loaded, the address cannot be listened on, or an engine of this server died. A
            server that is given by address may come back, so that its failure ends requests only.
    """
    models = (config.long, config.short)
    forbidden = control_tokens([load_tokenizer(model.tokenizer or model.path or "") for model in models])
    listening = bind(config.server)  # before models load, so that an occupied port is reported at once
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def run() -> None:
        async with open_pair(*models) as generators:
            pair = Pair(generators=generators, forbidden=forbidden)
            app = build_app(pair, config.dialogue, config.sampling, config.server, api_key=api_key)
            announce(f"{config.server.name} answers at {address}/v1 (metrics: {address}/metrics)")
            own = [role for role, model in zip(Role, models, strict=True) if model.engine is not Engine.ENDPOINT]
            await run_app(app, config.server, listening, lambda: find_fault(generators, own))

    asyncio.run(run())


async def find_fault(generators: Mapping[Role, Generator], roles: Sequence[Role]) -> str:
    """The first of these roles whose engine died, and the cause; "" if all engines are healthy."""
    for role in roles:
        if fault := await generators[role].check():
            return f"the engine of the {role.value} role died: {fault}"
    return ""


def build_app(
    pair: Pair, dialogue: DialogueSettings, sampling: ServerSampling, settings: ServerSettings, *, api_key: str | None
) -> FastAPI:
    """The endpoint as an ASGI application, over the pair's open generators."""
    server = _Server(pair, dialogue, sampling, settings)
    app = FastAPI(title="longshort", openapi_url=None)
    app.add_middleware(Gate, settings=settings, api_key=api_key, responses=server.metrics.responses)
    app.post("/v1/chat/completions", response_model=None)(server.chat)
    app.get("/v1/models")(server.models)
    app.get("/v1/models/{name:path}")(server.model)
    app.get("/health", response_model=None)(server.health)
    app.get("/metrics", response_model=None)(server.metrics_page)
    app.add_exception_handler(RequestError, server.refuse)
    app.add_exception_handler(RequestValidationError, server.refuse_invalid)
    app.add_exception_handler(HTTPException, server.refuse_http)
    app.add_exception_handler(Exception, server.fail)
    return app


@dataclass(eq=False)
class _Server:
    _pair: Pair
    _dialogue: DialogueSettings
    _sampling: ServerSampling
    _settings: ServerSettings
    _num_running: int = 0
    _created: int = field(default_factory=lambda: int(time.time()))
    metrics: Metrics = field(default_factory=Metrics)

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        if body.model != self._settings.name:
            raise _no_model(body.model, self._settings.name)
        if body.n > self._settings.max_choices:
            raise RequestError(f"n is {body.n}; this server allows at most {self._settings.max_choices}", param="n")
        limit = body.token_limit(self._dialogue.max_dialogue_tokens)
        if self._num_running + body.n > self._settings.max_requests:
            raise RequestError(
                f"{self._num_running} dialogues are running; this server allows {self._settings.max_requests}; retry",
                status=429,
                code="rate_limit_exceeded",
            )
        # Reserved before anything is awaited, so that simultaneous requests cannot exceed the limit.
        self._num_running += body.n
        try:
            if body.stream:
                return await self._stream(body, limit, request)
            try:
                replies = await unless_client_leaves(request, self._all(body, limit, lambda *text: None))
            finally:
                self._num_running -= body.n
        except ClientGone:
            return Response(status_code=499)  # the client does not receive it
        return JSONResponse(Envelope(body.model).whole(replies, with_reasoning=body.include_reasoning))

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._card()]}

    async def model(self, name: str) -> dict[str, Any]:
        if name != self._settings.name:
            raise _no_model(name, self._settings.name)
        return self._card()

    async def health(self, request: Request) -> Response:
        """200 if both engines work, else 503 and which one fails. Only a client with the key also reads why."""
        faults = {role.value: await generator.check() for role, generator in self._pair.generators.items()}
        has_key = request.state.has_key
        states = {role: (fault if has_key else "failed") if fault else "ok" for role, fault in faults.items()}
        return JSONResponse(states, status_code=503 if any(faults.values()) else 200)

    async def metrics_page(self) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def _card(self) -> dict[str, Any]:
        return {"id": self._settings.name, "object": "model", "created": self._created, "owned_by": "longshort"}

    async def _all(self, body: ChatRequest, limit: int, on_text: Callable[[int, Role, int, str], None]) -> list[Reply]:
        """All choices, concurrently. Raises RequestError if an engine fails or the messages are too long."""
        tasks = [
            asyncio.create_task(self._one(body, limit, number, lambda *text, number=number: on_text(number, *text)))
            for number in range(body.n)
        ]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _one(
        self, body: ChatRequest, limit: int, number: int, on_text: Callable[[Role, int, str], None]
    ) -> Reply:
        own_prompts = self._dialogue.system_prompt.items()
        prompts = {role: "\n\n".join(filter(None, (prompt, body.system))) for role, prompt in own_prompts}
        settings = dataclasses.replace(self._dialogue, max_dialogue_tokens=limit, system_prompt=prompts)
        start = time.monotonic()
        self.metrics.running.inc()
        try:
            result = await run_dialogue(
                Problem(prompt=body.question, answer="", source="request", index=0),
                self._pair.generators,
                settings,
                temperature=self._sampling.temperature if body.temperature is None else body.temperature,
                top_p=self._sampling.top_p if body.top_p is None else body.top_p,
                # No two turns of all choices may have the same seed; a dialogue counts its turns up from its own.
                seed=None if body.seed is None else (body.seed + 1_000_003 * number) % 2**31,
                forbidden=self._pair.forbidden,
                history=body.history,
                on_text=on_text if body.stream else None,
            )
        except asyncio.CancelledError:
            self.metrics.cancelled.inc()
            raise
        finally:
            self.metrics.running.dec()
        self.metrics.add_dialogue(result, time.monotonic() - start)
        if result.stop_reason is StopReason.ENGINE_ERROR:
            logger.error("a dialogue failed: %s", result.detail)
            role = result.detail.partition(":")[0]
            message = f"the engine of the {role} role failed; see the server's log"
            raise RequestError(message, status=502, code="engine_error")
        if result.stop_reason is StopReason.CONTEXT and result.num_tokens() == 0:
            message = "the messages fill the model's context; shorten them"
            raise RequestError(message, param="messages", code="context_length_exceeded")
        content = cut(result.answer_text, body.stops)
        if result.stop_reason is not StopReason.ANSWERED:
            content = self._settings.no_answer.replace("{stop_reason}", result.stop_reason.value)
        return Reply(content=content, dialogue=result)

    async def _stream(self, body: ChatRequest, limit: int, request: Request) -> StreamingResponse:
        envelope = Envelope(body.model)
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        started: set[tuple[int, int]] = set()

        def on_text(number: int, role: Role, turn: int, text: str) -> None:
            if body.include_reasoning:
                writer = {"role": role.value, "turn": turn}
                pieces.put_nowait(_event(envelope.chunk(number, {"reasoning": text}, longshort=writer)))
            elif (number, turn) not in started:
                # A comment, which clients ignore; it keeps proxies from closing a silent connection.
                pieces.put_nowait(f": turn {turn}\n\n")
            started.add((number, turn))

        async def work() -> list[Reply]:
            try:
                return await self._all(body, limit, on_text)
            finally:
                self._num_running -= body.n
                pieces.put_nowait(None)

        task = asyncio.create_task(work())
        # A request that fails before its first token still gets an error status.
        try:
            first = await unless_client_leaves(request, pieces.get())
        except ClientGone:
            task.cancel()
            raise
        if first is None and task.done() and (error := task.exception()) is not None:
            raise error

        async def events() -> AsyncIterator[str]:
            try:
                for number in range(body.n):
                    yield _event(envelope.chunk(number, {"role": "assistant", "content": ""}))
                piece = first
                while piece is not None:
                    yield piece
                    piece = await pieces.get()
                try:
                    replies = await task
                except RequestError as error:
                    # The status is already sent; OpenAI's client raises on an error in the stream.
                    yield _event(error.body)
                    return
                for number, reply in enumerate(replies):
                    if reply.content:
                        yield _event(envelope.chunk(number, {"content": reply.content}))
                    yield _event(envelope.chunk(number, {}, finish=reply.finish, longshort=reply.extension))
                if body.stream_options is not None and body.stream_options.include_usage:
                    yield _event(envelope.usage_chunk([reply.dialogue for reply in replies]))
                yield "data: [DONE]\n\n"
            finally:
                # Also if the client left: starlette then closes this generator.
                task.cancel()

        return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def refuse(self, request: Request, error: Any) -> Response:
        return error_response(error)

    async def refuse_invalid(self, request: Request, error: Any) -> Response:
        """Refuse a body that is not JSON or has a bad field: reply with place and reason, never with the value."""
        errors = error.errors()
        # Content is text or a list of parts; the first error says only that a list is no text.
        first = next((one for one in errors if one["type"] in (UNKNOWN_FIELD, PART_TYPE)), errors[0])
        if first["type"] == "json_invalid":
            return await self.refuse(request, RequestError(f"the body is not valid JSON: {first['ctx']['error']}"))
        place, message = _place_and_reason(first)
        text = f"{place}: {message}" if place else message
        return await self.refuse(request, RequestError(text, param=place or None))

    async def refuse_http(self, request: Request, error: Any) -> Response:
        place = f"{request.method} {request.url.path[:100]}"
        refused = RequestError(f"{place}: {error.detail}", status=error.status_code)
        return await self.refuse(request, refused)

    async def fail(self, request: Request, error: Exception) -> Response:
        """An error of the server: its details go to the log only."""
        logger.error("a request failed", exc_info=error)
        return await self.refuse(request, RequestError("the server failed", status=500))


_UNSUPPORTED = ("tools", "logit_bias", "tool_calls", "function_call", "audio")


def _place_and_reason(error: Mapping[str, Any]) -> tuple[str, str]:
    """The field of a validation error, as in ``messages.0.content``, and what is wrong with it."""
    parts = [str(part) for part in error["loc"][1:] if not str(part).startswith("list[")]
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == UNKNOWN_FIELD:
        return ".".join([*parts, error["ctx"]["field"][:100]]), reason
    if error["type"] == MISSING_CONTENT:
        return ".".join([*parts, "content"]), reason
    if parts[:1] == ["messages"] and "content" in parts:
        place = ".".join(parts[: parts.index("content") + 1])
        return place, reason if error["type"] == PART_TYPE else "give text, or a list of parts of type text"
    if error["type"] == "literal_error" or (parts and parts[-1] in _UNSUPPORTED):
        reason = f"this server does not support that value ({reason})"
    return ".".join(parts), reason


def _event(data: Mapping[str, Any]) -> str:
    # In ASCII: many clients take U+2028 and other characters, which a model may write, for the end of a line.
    return f"data: {json.dumps(data)}\n\n"


def _no_model(asked: str, name: str) -> RequestError:
    message = f"there is no model {asked[:100]!r}; this server has {name!r}"
    return RequestError(message, status=404, param="model", code="model_not_found")
