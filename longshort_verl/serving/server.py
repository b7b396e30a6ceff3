# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP server around the app: socket, signals, keys, limits of bytes and of time, and clients that leave.

Everything here runs before a request is parsed, so that a client without a key costs little memory. uvicorn's h11
protocol limits the bytes of an unfinished head; its httptools protocol, the default where it is installed, does not.
"""

from __future__ import annotations

import asyncio
import hmac
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from longshort_verl.serving.config import ServerSettings
from longshort_verl.serving.protocol import RequestError

_Result = TypeVar("_Result")

_MAX_HEADERS = 100
_CHECK_S = 5.0
"""Seconds between two checks of the engines."""


def bind(settings: ServerSettings) -> socket.socket:
    """Open the socket to listen on.

    Raises:
        ValueError: the port is taken, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ValueError(
            f"server.host={settings.host} server.port={settings.port} cannot be listened on: {error.strerror}; set "
            "another, or server.port=0 for any free port"
        ) from error


async def run_app(
    app: FastAPI, settings: ServerSettings, listening: socket.socket, find_fault: Callable[[], Awaitable[str]]
) -> None:
    """Serve on a bound socket until SIGINT or SIGTERM. Running dialogues finish, unless a second SIGINT comes.

    ``find_fault`` returns why the server cannot continue, "" while it can.

    Raises:
        ValueError: ``find_fault`` returned a fault.
    """
    with suppress(ValueError, OSError):  # the soft limit, often 1024 files, is below max_connections
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    config = uvicorn.Config(
        app,
        http=type("Connection", (_Connection,), {"settings": settings}),
        ws="none",
        h11_max_incomplete_event_size=settings.max_header_bytes,
        log_level="warning",
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = _Uvicorn(config)

    async def watch() -> str:
        while not (fault := await find_fault()):
            await asyncio.sleep(_CHECK_S)
        return fault

    def stop(task: asyncio.Task[str]) -> None:
        server.should_exit = True

    watching = asyncio.create_task(watch())
    watching.add_done_callback(stop)
    await server.serve(sockets=[listening])
    if watching.done():
        raise ValueError(watching.result())
    watching.cancel()


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own handler raises the signal again at its end, which would interrupt the shutdown of the engines.
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, self.handle_exit, sign, None)
        yield


class ClientGone(Exception):
    """The client closed its connection before the reply."""


async def unless_client_leaves(request: Request, work: Awaitable[_Result]) -> _Result:
    """The result of ``work``; raises ClientGone, and cancels the work, if the client leaves first."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(disconnect())
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        gone.cancel()
        task.cancel()


class _Connection(H11Protocol):
    """Closes a connection whose client takes longer than ``client_timeout_s`` to send a request or to read a reply."""

    settings: ServerSettings
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)  # pause_writing() is called as soon as the client does not read
        self.handle_events()

    def handle_events(self) -> None:
        super().handle_events()
        is_whole = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if is_whole or self.transport.is_closing():
            self._reading = _cancel(self._reading)
        elif self._reading is None:
            self._reading = self.loop.call_later(self.settings.client_timeout_s, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self.settings.client_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writing = _cancel(self._writing)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._reading, self._writing = _cancel(self._reading), _cancel(self._writing)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def error_response(error: RequestError) -> JSONResponse:
    """A refusal in OpenAI's shape."""
    headers = {"retry-after": "1"} if error.status == 429 else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.body, status_code=error.status, headers=headers)


class Gate:
    """ASGI middleware in front of every route: refuses by key, head and load before the body is read.

    Only ``/health`` needs no key; ``request.state.has_key`` tells it whether the client has it. A body of more than
    ``max_body_bytes`` is refused while it is read. A refused client cannot send the rest of its body: the connection is
    closed. Counts responses.
    """

    # Not starlette's BaseHTTPMiddleware, which hides the disconnect of a client.
    def __init__(self, app: ASGIApp, settings: ServerSettings, api_key: str | None, responses: Counter) -> None:
        self._app = app
        self._settings = settings
        self._api_key = api_key
        self._responses = responses
        self._num_posts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["has_key"] = self._has_key(headers)
        num_read = 0
        is_unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def counted_receive() -> Message:
            nonlocal num_read, is_unread
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._settings.max_body_bytes:
                raise HTTPException(413, self._too_large())
            is_unread = message.get("more_body", False)
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responses.labels(str(message["status"])).inc()
                if is_unread:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        refused = self._refusal(scope, headers)
        app = self._app if refused is None else error_response(refused)
        is_post = scope["method"] == "POST"
        self._num_posts += is_post
        try:
            await app(scope, counted_receive, counted_send)
        finally:
            self._num_posts -= is_post

    def _refusal(self, scope: Scope, headers: Headers) -> RequestError | None:
        """Why a request is refused before its body is read."""
        limits = self._settings
        num_bytes = sum(
            map(len, [scope["raw_path"], scope["query_string"], *(part for pair in headers.raw for part in pair)])
        )
        if len(headers.raw) > _MAX_HEADERS or num_bytes > limits.max_header_bytes:
            message = f"the head has more than {limits.max_header_bytes} bytes or {_MAX_HEADERS} headers"
            return RequestError(message, status=431)
        if scope["path"] != "/health" and not scope["state"]["has_key"]:
            message = "the API key is missing or wrong; send it as Authorization: Bearer <key>"
            return RequestError(message, status=401, code="invalid_api_key")
        if int(headers.get("content-length", 0)) > limits.max_body_bytes:
            return RequestError(self._too_large(), status=413)
        if scope["method"] == "POST" and self._num_posts >= limits.max_requests:
            message = f"{self._num_posts} requests are open; this server allows {limits.max_requests}; retry"
            return RequestError(message, status=429, code="rate_limit_exceeded")
        return None

    def _too_large(self) -> str:
        return f"the body has more than {self._settings.max_body_bytes} bytes"

    def _has_key(self, headers: Headers) -> bool:
        if self._api_key is None:
            return True
        kind, _, key = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(key.encode(), self._api_key.encode())
