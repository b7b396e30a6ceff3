# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal chat against the endpoint."""

from __future__ import annotations

import importlib.util

import pytest
import typer
from typer.testing import CliRunner

from tests.serving.scripted import rethinking
from tests.support.configs import ROOT


@pytest.fixture(scope="module")
def chat():
    """Runs the chat on typed lines; returns what it prints."""
    spec = importlib.util.spec_from_file_location("chat", ROOT / "examples" / "chat.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = typer.Typer()
    app.command()(module.main)

    def run(url, typed):
        done = CliRunner().invoke(app, ["--url", url, "--model", "pair"], input=typed, catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    return run


def test_both_roles_are_shown_and_earlier_messages_are_sent(serve, chat):
    served = serve(*rethinking())
    shown = chat(f"{served.url}/v1", "twice\nonce\n")
    turns = [line.split(maxsplit=1) for line in shown.splitlines() if line.startswith(("you> ", " long", "short"))]
    assert [turn[0] for turn in turns[:4]] == ["you>", "short", "long", "short"], "the first turn stands after you>"
    assert "<answer>more</rethink>" in shown
    assert "answered; tokens: long 34, short 50" in shown
    (asked, _) = served.long.requests[-1]
    assert [message.content for message in asked][1:4] == ["twice", "it is twice", "once"]


def test_an_endpoint_that_does_not_answer(chat):
    assert "APIConnectionError" in chat("http://127.0.0.1:9/v1", "1+1\n")
