# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Chat with the pair of a running `longshort serve`, in a terminal: ``python examples/chat.py``.

The long role is violet, the short role green. Ctrl-D or an empty line ends the chat.
"""

from __future__ import annotations

import os
from typing import Annotated

import openai
import typer
from rich.console import Console
from rich.text import Text

STYLES = {"long": "magenta", "short": "green"}


def main(
    url: Annotated[str, typer.Option(help="URL of the endpoint.")] = "http://127.0.0.1:8000/v1",
    model: Annotated[str, typer.Option(help="Name of the model at the endpoint.")] = "longshort",
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature. Default: the server's.")] = None,
    remember: Annotated[bool, typer.Option(help="Send the earlier messages with each question.")] = True,
) -> None:
    """Read questions and print the replies of both models."""
    client = openai.OpenAI(base_url=url, api_key=os.environ.get("LONGSHORT_API_KEY") or "none")
    console = Console(highlight=False)
    history: list[dict[str, str]] = []
    while True:
        try:
            question = console.input("[bold]you[/bold]> ").strip()
        except (EOFError, KeyboardInterrupt):
            break
        if not question:
            break
        history.append({"role": "user", "content": question})
        try:
            content = reply(client, console, model, history if remember else history[-1:], temperature)
        except openai.OpenAIError as error:
            console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
            history.pop()
            continue
        history.append({"role": "assistant", "content": content})


def reply(
    client: openai.OpenAI,
    console: Console,
    model: str,
    messages: list[dict[str, str]],
    temperature: float | None,
) -> str:
    """Print one reply while it streams in, and return its answer."""
    more = {} if temperature is None else {"temperature": temperature}
    stream = client.chat.completions.create(
        model=model,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"include_reasoning": True},
        **more,
    )
    answer, turn, ended, usage = "", None, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            answer += choice.delta.content or ""
            about = getattr(choice, "longshort", None) or {}
            text = getattr(choice.delta, "reasoning", None)
            if text:
                if (about["role"], about["turn"]) != turn:
                    turn = (about["role"], about["turn"])
                    console.print(Text(f"\n{turn[0]:>5}  " if turn[1] else f"{turn[0]:>5}  ", style="dim"), end="")
                # Control characters would change the terminal.
                plain = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
                console.print(Text(plain.replace("\n", "\n       "), style=STYLES[turn[0]]), end="", soft_wrap=True)
            elif "stop_reason" in about:
                ended = about
    roles = usage.longshort if usage is not None else {}
    tokens = ", ".join(f"{role} {of['completion_tokens']}" for role, of in roles.items())
    console.print(Text(f"\n       {ended.get('stop_reason', '')}; tokens: {tokens}", style="dim"))
    return answer


if __name__ == "__main__":
    typer.run(main)
