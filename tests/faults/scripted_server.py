# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The endpoint over scripted roles as a process of its own, with the HTTP server of ``longshort serve``.

The arguments are changes of the settings, as JSON. ``hold`` in a question delays its reply by 3 s, ``big`` gives a
reply of 20 MB, and ``die`` kills the long role's engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from longshort_verl.serving import server as http_server
from longshort_verl.serving.app import Pair, build_app, find_fault
from longshort_verl.types import FinishReason, Generation, Role
from tests.serving.scripted import DIALOGUE, SAMPLING, SERVER, Writer, answer, think

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-secret-of-the-server"


class Long(Writer):
    """Thinks, waits, or dies."""

    async def generate(self, messages, sampling, on_text=None):
        asked = messages[-1].content
        if "die" in asked:
            self.state = "vLLM failed: EngineCore was killed by signal 9"
        if self.state:
            error = self.state
            return Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error=error)
        await asyncio.sleep(3 if "hold" in asked else 0)
        return await super().generate(messages, sampling, on_text)


class Short(Writer):
    async def generate(self, messages, sampling, on_text=None):
        if "big" in messages[-1].content:
            text = f"<answer>{'x' * 20_000_000}</answer>"
            return Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=1, num_tokens=1)
        return await super().generate(messages, sampling, on_text)


def main(changes: str) -> None:
    http_server._CHECK_S = 0.2
    settings = replace(SERVER, **json.loads(changes))
    generators = {Role.LONG: Long(think), Role.SHORT: Short(answer)}
    pair = Pair(generators=generators, forbidden=["<|im_end|>"])
    app = build_app(pair, DIALOGUE, SAMPLING, settings, api_key=os.environ.get("SCRIPTED_KEY"))
    listening = http_server.bind(settings)
    print(listening.getsockname()[1], flush=True)
    try:
        asyncio.run(http_server.run_app(app, settings, listening, lambda: find_fault(generators, [*Role])))
    except ValueError as error:
        sys.exit(f"Error: {error}")


@dataclass
class Process:
    """A running server."""

    port: int
    running: subprocess.Popen
    log: Path
    """Its standard error."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def num_bytes(self) -> int:
        """Resident memory."""
        return psutil.Process(self.running.pid).memory_info().rss

    def num_connections(self) -> int:
        """Open connections of clients."""
        return sum(one.status == "ESTABLISHED" for one in psutil.Process(self.running.pid).net_connections("tcp"))

    def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s; {self.num_connections()} connections"
            time.sleep(0.02)


@contextmanager
def processes(folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts servers as processes of their own; all are ended at the end."""
    started: list[subprocess.Popen] = []

    def start(api_key: str | None = KEY, shell: str = "", **changes: object) -> Process:
        command = [sys.executable, "-m", "tests.faults.scripted_server", json.dumps(changes)]
        if shell:
            command = ["bash", "-c", f'{shell}; exec "$@"', "bash", *command]
        environment = {**os.environ, **({"SCRIPTED_KEY": api_key} if api_key else {})}
        log = folder / f"{len(started)}.log"
        with log.open("w") as file:
            running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=file)
        started.append(running)
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line, log.read_text()
        return Process(int(line), running, log)

    try:
        yield start
    finally:
        for running in started:
            running.kill()
            running.communicate()


if __name__ == "__main__":
    main(sys.argv[1])
