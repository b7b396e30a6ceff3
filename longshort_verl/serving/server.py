# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP server around the app: socket, signals, body limit, and clients that leave."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import uvicorn
from fastapi import FastAPI, Request
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longshort_verl.serving.config import ServerSettings

_Result = TypeVar("_Result")


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


async def run_app(app: FastAPI, settings: ServerSettings, listening: socket.socket) -> None:
    """Serve on a bound socket until SIGINT or SIGTERM. Running dialogues finish, unless a second SIGINT comes."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=settings.shutdown_s)
    await _Uvicorn(config).serve(sockets=[listening])


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


class Gate:
    """ASGI middleware that counts responses and refuses a body of more than ``max_body_bytes`` while it is read."""

    # Not starlette's BaseHTTPMiddleware, which hides the disconnect of a client.
    def __init__(self, app: ASGIApp, max_body_bytes: int, responses: Counter) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._responses = responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_read = 0

        async def counted_receive() -> Message:
            nonlocal num_read
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._max_body_bytes:
                raise HTTPException(413, f"the body has more than {self._max_body_bytes} bytes")
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responses.labels(str(message["status"])).inc()
            await send(message)

        await self._app(scope, counted_receive, counted_send)
