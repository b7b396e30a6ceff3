# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A local OpenAI-compatible server whose replies a test scripts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

AT_ONCE = {"retry-after-ms": "1"}
"""Tells the openai client not to back off for half a second."""


def completion(text: Any = "hello", finish: Any = "stop", **extra: Any) -> dict[str, Any]:
    """A chat completion; ``extra`` goes into its choice."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **extra}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


@dataclass
class Server:
    """A local HTTP server that answers ``POST /v1/chat/completions`` by its script, the last entry for ever."""

    script: list[dict[str, Any] | Callable[[], Response]] = field(default_factory=lambda: [completion()])
    """Each entry is a completion, answered with status 200, or builds the response."""
    delay_s: float = 0.0
    answer_to: Callable[[dict[str, Any]], dict[str, Any] | Response] | None = None
    """Instead of a script, where the answer depends on the request."""
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    num_in_flight: int = 0
    most_in_flight: int = 0

    async def answer(self, request: Request) -> Response:
        self.authorizations.append(request.headers["authorization"])
        self.requests.append(await request.json())
        if self.answer_to:
            answer = self.answer_to(self.requests[-1])
            return JSONResponse(answer) if isinstance(answer, dict) else answer
        scripted = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.num_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        await asyncio.sleep(self.delay_s)
        self.num_in_flight -= 1
        return JSONResponse(scripted) if isinstance(scripted, dict) else scripted()


@contextmanager
def apps() -> Iterator[Callable[..., str]]:
    """Runs ASGI applications on ports of 127.0.0.1, each in a thread; gives their addresses, stops all at the end."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: FastAPI, port: int = 0) -> str:
        host = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level=logging.CRITICAL + 1))
        thread = threading.Thread(target=host.run, daemon=True)
        thread.start()
        running.append((host, thread))
        while not host.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        return f"http://127.0.0.1:{host.servers[0].sockets[0].getsockname()[1]}"

    try:
        yield start
    finally:
        for host, thread in running:
            host.should_exit = host.force_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()


@contextmanager
def servers() -> Iterator[Callable[..., Server]]:
    """Starts servers on free ports of 127.0.0.1, each in a thread; all are stopped at the end."""

    def start(
        *script: dict[str, Any] | Callable[[], Response],
        delay_s: float = 0.0,
        port: int = 0,
        answer_to: Callable[[dict[str, Any]], dict[str, Any] | Response] | None = None,
    ) -> Server:
        server = Server(script=list(script) or [completion()], delay_s=delay_s, answer_to=answer_to)
        app = FastAPI()
        app.post("/v1/chat/completions")(server.answer)
        server.url = f"{running(app, port)}/v1"
        return server

    with apps() as running:
        yield start
