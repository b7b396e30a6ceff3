# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""An endpoint whose two roles are scripted, on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai

from longshort_verl.dialogue import DialogueSettings
from longshort_verl.serving.app import Pair, build_app
from longshort_verl.serving.config import ServerSampling, ServerSettings
from longshort_verl.types import FinishReason, Generation, Role
from tests.support.servers import apps

DIALOGUE = DialogueSettings(
    opening_role=Role.LONG,
    max_short_turns=2,
    max_turn_tokens={Role.LONG: 500, Role.SHORT: 500},
    max_dialogue_tokens=1000,
    system_prompt={Role.LONG: "think", Role.SHORT: ""},
    must_answer_notice="Now.",
)
SAMPLING = ServerSampling(temperature=0.6, top_p=0.95)
SERVER = ServerSettings(
    name="pair",
    host="127.0.0.1",
    port=0,
    api_key_variable="KEY",
    max_header_bytes=16_384,
    max_body_bytes=20_000,
    max_connections=2_048,
    client_timeout_s=30,
    max_requests=200,
    max_choices=4,
    shutdown_s=5,
    no_answer="[none: {stop_reason}]",
)
KEY = "sk-secret-of-the-server"


class Writer:
    """Writes a reply that is a function of what it is asked, a token a character; knows who is still waiting."""

    def __init__(self, reply: Callable[[str], str | Generation], delay_s: float = 0.0) -> None:
        self.reply = reply
        self.delay_s = delay_s
        self.requests = []
        self.num_running = 0
        self.num_cancelled = 0
        self.state = ""

    async def generate(self, messages, sampling, on_text=None):
        self.requests.append((messages, sampling))
        self.num_running += 1
        try:
            reply = self.reply("\n\n".join(message.content for message in messages if message.role == "user"))
            if isinstance(reply, Generation):
                return reply
            for character in reply:
                await asyncio.sleep(self.delay_s)
                if on_text is not None:
                    on_text(character)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_running -= 1
        read = sum(len(message.content) for message in messages)
        return Generation(text=reply, finish=FinishReason.STOP, num_prompt_tokens=read, num_tokens=len(reply))

    async def check(self):
        return self.state


def think(asked):
    return f"<think>{asked.splitlines()[0]}?</think>"


def answer(asked):
    # One rethink, where the question asks for it.
    if "twice" in asked and "Now." not in asked:
        return "<answer>more</rethink>"
    return f"<answer>it is {asked.splitlines()[0]}</answer>"


def rethinking():
    """Two thoughts and two short turns."""
    return Writer(lambda asked: "<think>so</think>"), Writer(answer)


@dataclass
class Served:
    url: str
    long: Writer
    short: Writer
    client: openai.OpenAI

    def ask(self, content="1+1", **more):
        messages = more.pop("messages", [{"role": "user", "content": content}])
        return self.client.chat.completions.create(model=more.pop("model", "pair"), messages=messages, **more)

    def metrics(self):
        return httpx.get(f"{self.url}/metrics", headers={"authorization": f"Bearer {self.client.api_key}"}).text


@contextmanager
def endpoints() -> Iterator[Callable[..., Served]]:
    """Starts endpoints on free ports of 127.0.0.1."""

    def start(long=None, short=None, dialogue=DIALOGUE, settings=SERVER, api_key=None):
        long, short = long or Writer(think), short or Writer(answer)
        pair = Pair(generators={Role.LONG: long, Role.SHORT: short}, forbidden=["<|im_end|>"])
        url = running(build_app(pair, dialogue, SAMPLING, settings, api_key=api_key))
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=api_key or "none", max_retries=0, timeout=30)
        return Served(url, long, short, client)

    with apps() as running:
        yield start
