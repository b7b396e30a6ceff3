# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the short role's turns: a model states briefly what the unimportant thoughts establish.

In the paper (arXiv 2505.11827, section 4.1) a model completes all short thoughts of a chain in one request from their
kinds; here it shortens the text of one turn per request.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.dialogue import PROTOCOL_TAGS
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator
from longshort_verl.types import FinishReason, Message, Sampling


class WriterKind(str, Enum):
    """What happens to thoughts that are not important."""

    NONE = "none"
    """They are dropped; no model is needed."""
    MODEL = "model"
    """A model states briefly what they establish."""


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """How a model writes short turns. The defaults are in ``config/longshort_cold_start.yaml``."""

    kind: WriterKind
    max_words: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    """Token limit of one reply."""
    temperature: Annotated[float, Field(ge=0)]
    """Of the first attempt. Later attempts use at least 0.5: at 0 the model would repeat its reply."""
    max_attempts: Annotated[int, Field(ge=1)]
    """Requests for one turn."""
    seed: int
    """Each reply has its own seed, derived from this one, its chain, its turn and its attempt."""


class WriterError(Exception):
    """No reply of the writer was usable."""


class WriterEngineError(WriterError):
    """A request to the writer failed in the engine."""


class Writer:
    """Writes short turns with a model; the journal stores every reply before it is used."""

    def __init__(self, generator: Generator, journal: Journal, settings: WriterSettings) -> None:
        self._generator, self._journal, self._settings = generator, journal, settings
        self.num_tokens = 0
        """Tokens of the replies used or rejected so far, those from the journal included."""

    async def write(self, key: str, problem: str, before: str, passage: str, most: int) -> str:
        """The body of a turn, in fewer than ``most`` tokens.

        ``key`` is unique to the turn; ``before`` holds the important thoughts before the passage that is shortened.

        Raises:
            WriterError: all replies were unusable, or the engine failed.
        """
        settings, detail = self._settings, ""
        for attempt in range(settings.max_attempts):
            name = f"{key}/{attempt}"
            row = self._journal.get(name)
            if row is None:
                temperature = settings.temperature if attempt == 0 else max(0.5, settings.temperature)
                reply = await self._generator.generate(
                    _messages(problem, before, passage, settings.max_words),
                    Sampling(
                        max_tokens=settings.max_tokens,
                        temperature=temperature,
                        seed=random.Random(f"{settings.seed}/{name}").randrange(2**31),
                    ),
                )
                if reply.finish is FinishReason.ERROR:
                    raise WriterEngineError(reply.error)
                row = {"text": reply.text, "finish": reply.finish.value, "num_tokens": reply.num_tokens}
                self._journal.add(name, row)
            self.num_tokens += row["num_tokens"]
            text = row["text"].strip()
            tags = [tag for tag in PROTOCOL_TAGS if tag in text.lower()]
            if row["finish"] == FinishReason.LENGTH.value:
                detail = f"the writer did not end within {settings.max_tokens} tokens"
            elif not text:
                detail = "the writer wrote nothing"
            elif tags:
                detail = f"the writer wrote {tags[0]}"
            elif row["num_tokens"] >= most:
                detail = f"the writer wrote {row['num_tokens']} tokens of {most}"
            else:
                return text
        raise WriterError(detail)


def _messages(problem: str, before: str, passage: str, max_words: int) -> list[Message]:
    system = (
        "You shorten worked solutions. You are given a problem, what was established so far, and a passage of the "
        f"reasoning that follows. Say in at most {max_words} words what the passage adds: results, not how they were "
        "found. Reply with that text alone, without any tag."
    )
    content = f"Problem:\n{problem}\n\nSo far:\n{before or '(nothing)'}\n\nPassage:\n{passage}"
    return [Message(role="system", content=system), Message(role="user", content=content)]
