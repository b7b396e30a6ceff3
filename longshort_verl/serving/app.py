# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The pair as one chat model over HTTP: OpenAI's chat completions, models, health and Prometheus metrics.

The answer of a short turn cannot be told from a request for another thought before its closing tag, so a stream brings
the answer when its turn is whole; what both roles write is streamed as it is written, where ``include_reasoning`` asks
for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import json
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longshort_verl.dialogue import DialogueSettings, run_dialogue
from longshort_verl.generation.base import Generator
from longshort_verl.serving.config import ServerSampling, ServerSettings
from longshort_verl.serving.protocol import ChatRequest, Envelope, Reply, RequestError, cut
from longshort_verl.types import Dialogue, Problem, Role, StopReason

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class _Metrics:
    """Of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge("longshort_dialogues_running", "Dialogues under way.", registry=self.registry)
        self.responses = Counter("longshort_responses", "Responses by status.", ["status"], registry=self.registry)
        self.dialogues = Counter(
            "longshort_dialogues", "Dialogues by how they ended.", ["stop_reason"], registry=self.registry
        )
        self.cancelled = Counter(
            "longshort_dialogues_cancelled",
            "Dialogues given up: their client left, or another choice of its request failed.",
            registry=self.registry,
        )
        self.tokens = Counter("longshort_tokens", "Generated tokens by role.", ["role"], registry=self.registry)
        self.prompt_tokens = Counter(
            "longshort_prompt_tokens", "Prompt tokens of all turns by role.", ["role"], registry=self.registry
        )
        self.length = Histogram(
            "longshort_dialogue_tokens", "Generated tokens of a dialogue.", buckets=_BUCKETS, registry=self.registry
        )
        self.turns = Histogram(
            "longshort_dialogue_turns", "Turns of a dialogue.", buckets=range(1, 17), registry=self.registry
        )
        self.seconds = Histogram("longshort_dialogue_seconds", "Seconds of a dialogue.", registry=self.registry)

    def ended(self, dialogue: Dialogue, seconds: float) -> None:
        self.dialogues.labels(dialogue.stop_reason.value).inc()
        for role in Role:
            self.tokens.labels(role.value).inc(dialogue.num_tokens(role))
            read = sum(turn.num_prompt_tokens for turn in dialogue.turns if turn.role is role)
            self.prompt_tokens.labels(role.value).inc(read)
        self.length.observe(dialogue.num_tokens())
        self.turns.observe(len(dialogue.turns))
        self.seconds.observe(seconds)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models that answer together."""

    generators: Mapping[Role, Generator]
    """Who writes each role."""
    forbidden: Sequence[str]
    """Control tokens of their templates (:func:`longshort_verl.dialogue.read_turn`)."""


def build_app(
    pair: Pair,
    dialogue: DialogueSettings,
    sampling: ServerSampling,
    settings: ServerSettings,
    *,
    api_key: str | None,
) -> FastAPI:
    """The endpoint as an ASGI application, over a pair that is open."""
    server = _Server(pair, dialogue, sampling, settings, api_key)
    app = FastAPI(title="longshort", openapi_url=None)
    app.add_middleware(_Gate, most=settings.max_body_bytes, responses=server.metrics.responses)
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


def bind(settings: ServerSettings) -> socket.socket:
    """The socket to listen on.

    Raises:
        ValueError: the port is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ValueError(
            f"server.host={settings.host} server.port={settings.port} cannot be listened on: {error.strerror}; set "
            "another, or server.port=0 for any that is free"
        ) from error


async def run_app(app: FastAPI, settings: ServerSettings, listening: socket.socket) -> None:
    """Answer on a bound socket until SIGINT or SIGTERM ends it: after what is under way, a second SIGINT at once."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=settings.shutdown_s)
    await _Uvicorn(config).serve(sockets=[listening])


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would raise the signal again when it ends, in the midst of the end of the engines.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class _Server:
    def __init__(
        self,
        pair: Pair,
        dialogue: DialogueSettings,
        sampling: ServerSampling,
        settings: ServerSettings,
        api_key: str | None,
    ) -> None:
        self._pair = pair
        self._dialogue = dialogue
        self._sampling = sampling
        self._settings = settings
        self._api_key = api_key
        self.metrics = _Metrics()
        self._num_running = 0
        self._began = int(time.time())

    # Endpoints -------------------------------------------------------------------------------------------------------

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        self._authorize(request)
        if body.model != self._settings.name:
            raise _no_model(body.model, self._settings.name)
        if body.n > self._settings.max_choices:
            raise RequestError(f"n is {body.n}; this server gives at most {self._settings.max_choices}", param="n")
        limit = body.token_limit(self._dialogue.max_dialogue_tokens)
        if self._num_running + body.n > self._settings.max_requests:
            raise RequestError(
                f"{self._num_running} dialogues are under way, the most that this server takes at once; try again",
                status=429,
                type_="rate_limit_error",
                code="rate_limit_exceeded",
            )
        # Taken here, before anything is awaited: else all that come together would find room.
        self._num_running += body.n
        try:
            if body.stream:
                return await self._stream(body, limit, request)
            try:
                replies = await _unless_gone(request, self._all(body, limit, lambda number, role, turn, text: None))
            finally:
                self._num_running -= body.n
        except _ClientGone:
            return Response(status_code=499)  # nobody hears it
        return JSONResponse(Envelope(body.model).whole(replies, with_reasoning=body.include_reasoning))

    async def models(self, request: Request) -> dict[str, Any]:
        self._authorize(request)
        return {"object": "list", "data": [self._card()]}

    async def model(self, name: str, request: Request) -> dict[str, Any]:
        self._authorize(request)
        if name != self._settings.name:
            raise _no_model(name, self._settings.name)
        return self._card()

    async def health(self, request: Request) -> Response:
        """200 while both engines answer, 503 and which one does not otherwise; why not, to those who have the key."""
        try:
            self._authorize(request)
            told = True
        except RequestError:
            told = False
        found = {}
        for role, generator in self._pair.generators.items():
            trouble = await generator.check()
            found[role.value] = (trouble if told else "failed") if trouble else "ok"
        well = all(state == "ok" for state in found.values())
        return JSONResponse(found, status_code=200 if well else 503)

    async def metrics_page(self) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def _card(self) -> dict[str, Any]:
        return {"id": self._settings.name, "object": "model", "created": self._began, "owned_by": "longshort"}

    def _authorize(self, request: Request) -> None:
        if self._api_key is None:
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise RequestError(
                "the API key is missing or wrong; send it as Authorization: Bearer <key>",
                status=401,
                type_="authentication_error",
                code="invalid_api_key",
            )

    # Dialogues -------------------------------------------------------------------------------------------------------

    async def _all(self, body: ChatRequest, limit: int, on_text: Callable[[int, Role, int, str], None]) -> list[Reply]:
        """All choices, at once; RequestError where an engine fails or the messages are too long."""
        tasks = [
            asyncio.create_task(self._one(body, limit, number, lambda *said, number=number: on_text(number, *said)))
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
        prompts = {
            role: "\n\n".join(filter(None, (prompt, body.system)))
            for role, prompt in self._dialogue.system_prompt.items()
        }
        settings = dataclasses.replace(
            self._dialogue, max_dialogue_tokens=min(limit, self._dialogue.max_dialogue_tokens), system_prompt=prompts
        )
        begun = time.monotonic()
        self.metrics.running.inc()
        try:
            found = await run_dialogue(
                Problem(prompt=body.question, answer="", source="request", index=0),
                self._pair.generators,
                settings,
                temperature=self._sampling.temperature if body.temperature is None else body.temperature,
                top_p=self._sampling.top_p if body.top_p is None else body.top_p,
                # Choices must not repeat each other's random numbers, nor run into those of each other's turns.
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
        self.metrics.ended(found, time.monotonic() - begun)
        if found.stop_reason is StopReason.ENGINE_ERROR:
            logger.error("a dialogue failed: %s", found.detail)
            raise RequestError(
                f"the engine of the {found.detail.partition(':')[0]} role failed; the server's log says more",
                status=502,
                type_="server_error",
                code="engine_error",
            )
        if found.stop_reason is StopReason.TOKEN_BUDGET and found.num_tokens() == 0:
            raise RequestError(
                "the messages fill the model's context; shorten them",
                param="messages",
                code="context_length_exceeded",
            )
        content = cut(found.answer_text, body.stops)
        if found.stop_reason is not StopReason.ANSWERED:
            content = self._settings.no_answer.replace("{stop_reason}", found.stop_reason.value)
        return Reply(content=content, dialogue=found)

    async def _stream(self, body: ChatRequest, limit: int, request: Request) -> StreamingResponse:
        envelope = Envelope(body.model)
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        begun: set[tuple[int, int]] = set()

        def heard(number: int, role: Role, turn: int, text: str) -> None:
            if body.include_reasoning:
                said = {"role": role.value, "turn": turn}
                pieces.put_nowait(_event(envelope.chunk(number, {"reasoning": text}, longshort=said)))
            elif (number, turn) not in begun:
                # A comment, which clients pass over; it keeps what is between from closing a silent connection.
                pieces.put_nowait(f": turn {turn}\n\n")
            begun.add((number, turn))

        async def work() -> list[Reply]:
            try:
                return await self._all(body, limit, heard)
            finally:
                self._num_running -= body.n
                pieces.put_nowait(None)

        task = asyncio.create_task(work())
        # A request that fails before its first token still gets a status that says so.
        try:
            first = await _unless_gone(request, pieces.get())
        except _ClientGone:
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
                    # The status is out already; OpenAI's client raises on an error in the stream.
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
                # Also where the client left: starlette ends this generator then.
                task.cancel()

        return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    # Errors ----------------------------------------------------------------------------------------------------------

    async def refuse(self, request: Request, error: Any) -> Response:
        headers = {"retry-after": "1"} if error.status == 429 else {}
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(error.body, status_code=error.status, headers=headers)

    async def refuse_invalid(self, request: Request, error: Any) -> Response:
        """A body that is no JSON, or has a field that is not taken; only places and reasons, never what was sent."""
        try:
            self._authorize(request)
        except RequestError as unauthorized:
            return await self.refuse(request, unauthorized)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            return await self.refuse(request, RequestError(f"the body is not valid JSON: {first['ctx']['error']}"))
        if first["type"] == "extra_forbidden":
            message = "this server does not know it"
        elif place.startswith("messages.") and ".content." in place:
            place, message = place.partition(".content.")[0] + ".content", "give text, or a list of parts of type text"
        elif first["type"].startswith("literal_error") or place.split(".")[0] in ("tools", "logit_bias"):
            message = f"this server does not support that value ({message})"
        text = f"{place}: {message}" if place else message
        return await self.refuse(request, RequestError(text, param=place or None))

    async def refuse_http(self, request: Request, error: Any) -> Response:
        refused = RequestError(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code)
        return await self.refuse(request, refused)

    async def fail(self, request: Request, error: Exception) -> Response:
        """A mistake of ours: named in the log, and to the client as nothing but that."""
        logger.error("a request failed", exc_info=error)
        body = RequestError("the server failed", status=500, type_="server_error").body
        return JSONResponse(body, status_code=500)


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _no_model(asked: str, name: str) -> RequestError:
    return RequestError(
        f"there is no model {asked[:100]!r} here, but {name!r}", status=404, param="model", code="model_not_found"
    )


class _ClientGone(Exception):
    """The client left before its answer."""


async def _unless_gone(request: Request, work: Awaitable[_Result]) -> _Result:
    """What comes of the work, which is cancelled where the client leaves before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientGone
        return await task
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Gate:
    """Counts responses, and refuses a body that is too large before it is read whole."""

    # Not a middleware of starlette's own kind, behind which no client is seen to leave.
    def __init__(self, app: ASGIApp, most: int, responses: Counter) -> None:
        self._app = app
        self._most = most
        self._responses = responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_read = 0

        async def counted() -> Message:
            nonlocal num_read
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._most:
                raise HTTPException(413, f"the body has more than {self._most} bytes")
            return message

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responses.labels(str(message["status"])).inc()
            await send(message)

        await self._app(scope, counted, answered)
