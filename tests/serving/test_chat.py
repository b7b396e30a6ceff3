# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal chat, as a process that is typed into, against the endpoint."""

from __future__ import annotations

import subprocess
import sys

from tests.serving.scripted import rethinking
from tests.support.configs import ROOT


def chat(url, typed):
    command = [sys.executable, str(ROOT / "examples" / "chat.py"), "--url", url, "--model", "pair"]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_both_roles_are_shown_and_what_was_said_is_remembered(serve):
    served = serve(*rethinking())
    shown = chat(f"{served.url}/v1", "twice\nonce\n")
    turns = [line.split(maxsplit=1) for line in shown.splitlines() if line.startswith(("you> ", " long", "short"))]
    assert [turn[0] for turn in turns[:4]] == ["you>", "short", "long", "short"], "the first turn stands after you>"
    assert "<answer>more</rethink>" in shown
    assert "answered; tokens: long 34, short 50" in shown
    (asked, _) = served.long.requests[-1]
    assert [message.content for message in asked][1:4] == ["twice", "it is twice", "once"]


def test_an_endpoint_that_is_not_there(serve):
    assert "APIConnectionError" in chat("http://127.0.0.1:9/v1", "1+1\n")
