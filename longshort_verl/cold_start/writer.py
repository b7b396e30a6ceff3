# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the short role's turns: a model states the unimportant thoughts of a chain.

``complete`` follows the paper (arXiv 2505.11827, section 4.1 and appendix A.3). One request per chain holds the
problem, the important thoughts with their text and the others by their kind alone. The reply is JSON with one entry for
each missing thought, none split, renumbered or repeated from the given ones. The content of the prompt is the paper's.
Ours: its wording, the refusal of tags, of broken LaTeX and of replies without the answer, the repeated requests, and
``model``: one request per turn shortens the text of its thoughts.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.dialogue import PROTOCOL_TAGS
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator
from longshort_verl.types import FinishReason, Message, Sampling, Thought

_T = TypeVar("_T")


class WriterKind(str, Enum):
    """What happens to thoughts that are not important."""

    NONE = "none"
    """They are dropped; no model is needed."""
    MODEL = "model"
    """A model states briefly what they establish, one request per turn."""
    COMPLETE = "complete"
    """A model writes them from their kinds, one request per chain."""


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """How a model writes short turns. The defaults are in ``config/longshort_cold_start.yaml``."""

    kind: WriterKind
    max_words: Annotated[int, Field(ge=1)]
    """``model``: word limit in the request."""
    max_tokens: Annotated[int, Field(ge=1)]
    """Token limit of one reply; of ``complete``, for each missing thought."""
    temperature: Annotated[float, Field(ge=0)]
    """Of the first attempt. Later attempts use at least 0.5: at 0 the model would repeat its reply."""
    structured: bool
    """``complete``: whether the engine holds the reply to the JSON that is asked for."""
    says_answer: bool
    """``complete``: whether a reply is refused that, with the given thoughts, lacks a number of the answer."""
    max_attempts: Annotated[int, Field(ge=1)]
    """Requests for one turn; with ``complete``, for one chain."""
    seed: int
    """Each reply has its own seed, derived from this one, its chain, its turn and its attempt."""


@plain_dataclass(frozen=True, kw_only=True)
class Run:
    """Neighbouring thoughts that become one turn."""

    long: bool
    """Whether they are important, and the turn is the long role's."""
    thoughts: tuple[Thought, ...]
    num_tokens: int

    @property
    def text(self) -> str:
        """Their text in the chain."""
        return "".join(thought.text for thought in self.thoughts)


def without_tags(text: str) -> str:
    """The text of a thought without white space around it and without the chain's own thinking tags."""
    return text.strip().removeprefix("<think>").removesuffix("</think>").strip()


class WriterError(Exception):
    """No reply of the writer was usable."""


class WriterEngineError(WriterError):
    """A request to the writer failed in the engine."""


class BadReplyError(ValueError):
    """A reply that is unusable; the message gives the reason."""


class Writer:
    """Writes short turns with a model; the journal stores every reply before it is used."""

    def __init__(
        self, generator: Generator, journal: Journal, settings: WriterSettings, forbidden: Sequence[str] = ()
    ) -> None:
        """``forbidden``: strings that would be control tokens in a transcript."""
        self._generator, self._journal, self._settings = generator, journal, settings
        self._forbidden = (*PROTOCOL_TAGS, *forbidden)
        self.num_tokens = 0
        """Tokens of the replies used or rejected so far, those from the journal included."""

    async def write(self, key: str, problem: str, runs: Sequence[Run], answer: str) -> list[str]:
        """The body of each short turn of a chain, in order. ``key`` is unique to it; ``answer`` follows in a box.

        Raises:
            WriterError: all replies were unusable, or the engine failed.
        """
        if self._settings.kind is WriterKind.COMPLETE:
            return await self._complete(key, problem, runs, answer)
        bodies, before = [], ""
        for number, run in enumerate(runs):
            if run.long:
                before += run.text
                continue
            messages = _shorten_messages(problem, before, run.text, self._settings.max_words)
            read = self._shorter_than(run.num_tokens)
            bodies.append(await self._ask(f"{key}/{number}", messages, self._settings.max_tokens, read))
        return bodies

    async def _complete(self, key: str, problem: str, runs: Sequence[Run], answer: str) -> list[str]:
        """All missing thoughts by one request; those of one turn are joined by blank lines."""
        thoughts = list(enumerate([(run.long, thought) for run in runs for thought in run.thoughts], start=1))
        given = {number: without_tags(thought.text) for number, (long, thought) in thoughts if long}
        kinds = {number: " ".join(thought.kind.split()) for number, (long, thought) in thoughts if not long}
        if not kinds:
            return []

        def read(text: str, num_tokens: int) -> dict[int, str]:
            contents = read_completion(text, given, list(kinds))
            for number, content in contents.items():
                self._check(content, f"thought {number}: ")
                if _COPIED_LABEL.sub("", content.lower()).strip(" .:") in {kind.lower() for kind in kinds.values()}:
                    raise BadReplyError(f"thought {number}: the writer wrote the name of a kind alone")
            said = _numbers(" ".join([*given.values(), *contents.values()]))
            if self._settings.says_answer and (unsaid := _numbers(answer) - said):
                raise BadReplyError(f"no thought says the {min(unsaid):g} of the answer {answer}")
            return contents

        max_tokens = self._settings.max_tokens * len(kinds)
        schema = completion_schema(list(kinds)) if self._settings.structured else None
        contents = await self._ask(key, complete_messages(problem, given, kinds), max_tokens, read, schema)
        written = iter([contents[number] for number in kinds])
        return ["\n\n".join(next(written) for _ in run.thoughts) for run in runs if not run.long]

    async def _ask(
        self,
        key: str,
        messages: Sequence[Message],
        max_tokens: int,
        read: Callable[[str, int], _T],
        schema: str | None = None,
    ) -> _T:
        """What ``read`` makes of the first usable reply; it gets the text and its tokens, and raises BadReplyError."""
        settings, detail = self._settings, ""
        for attempt in range(settings.max_attempts):
            name = f"{key}/{attempt}"
            row = self._journal.get(name)
            if row is None:
                temperature = settings.temperature if attempt == 0 else max(0.5, settings.temperature)
                seed = random.Random(f"{settings.seed}/{name}").randrange(2**31)
                sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed, json_schema=schema)
                reply = await self._generator.generate(messages, sampling)
                if reply.finish is FinishReason.ERROR:
                    raise WriterEngineError(reply.error)
                row = {"text": reply.text, "finish": reply.finish.value, "num_tokens": reply.num_tokens}
                self._journal.add(name, row)
            self.num_tokens += row["num_tokens"]
            try:
                if row["finish"] == FinishReason.LENGTH.value:
                    early = row["num_tokens"] < max_tokens
                    context = f"; its context ended after {row['num_tokens']}" if early else ""
                    raise BadReplyError(f"the writer did not end within {max_tokens} tokens{context}")
                return read(row["text"].strip(), row["num_tokens"])
            except BadReplyError as error:
                detail = str(error)
        raise WriterError(detail)

    def _shorter_than(self, most: int) -> Callable[[str, int], str]:
        def read(text: str, num_tokens: int) -> str:
            self._check(text)
            if num_tokens >= most:
                raise BadReplyError(f"the writer wrote {num_tokens} tokens of {most}")
            return text

        return read

    def _check(self, text: str, where: str = "") -> None:
        """Refuse a text that no turn may contain."""
        if not text:
            raise BadReplyError(f"{where}the writer wrote nothing")
        if found := [one for one in self._forbidden if one in text or one in text.lower()]:
            raise BadReplyError(f"{where}the writer wrote {found[0]}")


_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*)\n```", re.DOTALL)
_COPIED_LABEL = re.compile(r"(?:(?:thought|step) \d+[.:]?\s*|\(missing\)\s*)*")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_STEPS, _ENTRY = "Completed Steps", ["content", "thought"]
_MIN_REPEATED = 40
"""Characters from which a passage that stands in a given thought too is a repetition; results such as "a = 3" recur."""

# \boxed, \frac, \rho, \times and \neq with one backslash in JSON.
_BROKEN_LATEX = re.compile(r"[\x08\f\r]|\t[a-z]|\n(?:abla|eg|eq|ewline|ot|otin)\b")


def _numbers(text: str) -> frozenset[float]:
    """The numbers of a text by value, without their signs: of "-1,200.50" 1200.5."""
    return frozenset(float(found.replace(",", "")) for found in _NUMBER.findall(text.replace("{,}", ",")))


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def completion_schema(missing: Sequence[int]) -> str:
    """JSON Schema of a reply: an entry for each missing thought, in order."""
    content = {"type": "string", "minLength": 1}
    entries = [_object({"thought": {"const": number}, "content": content}) for number in missing]
    steps = {"type": "array", "prefixItems": entries, "items": False, "minItems": len(entries)}
    return json.dumps(_object({_STEPS: steps}))


def read_completion(text: str, given: Mapping[int, str], missing: Sequence[int]) -> dict[int, str]:
    """The content of each missing thought by its number, from a stripped reply.

    A code fence around the whole reply is allowed, because instruction models add one unasked.

    Raises:
        BadReplyError: the reply is not the JSON that was asked for, or an entry is missing, too many or a repetition.
    """
    fenced = _FENCE.fullmatch(text)
    try:
        reply = json.loads(fenced[1] if fenced else text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise BadReplyError(f"the reply is not JSON alone: {error}") from error
    if not isinstance(reply, dict) or list(reply) != [_STEPS] or not isinstance(reply[_STEPS], list):
        raise BadReplyError(f'the reply is not an object with a list "{_STEPS}" alone')
    contents: dict[int, str] = {}
    for place, entry in enumerate(reply[_STEPS], start=1):
        if not isinstance(entry, dict) or sorted(entry) != _ENTRY:
            raise BadReplyError(f'entry {place} is not an object with "thought" and "content" alone')
        number, content = entry["thought"], entry["content"]
        if type(number) is not int or not isinstance(content, str):
            raise BadReplyError(f"entry {place} has no number as its thought, or no text as its content")
        if number in given:
            raise BadReplyError(f"entry {place} is for thought {number}, which is given")
        if number not in missing:
            raise BadReplyError(f"entry {place} is for thought {number}, which does not exist")
        if number in contents:
            raise BadReplyError(f"entry {place} is for thought {number} again")
        try:
            content.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
            raise BadReplyError(f"entry {place} is not Unicode text") from error
        if _BROKEN_LATEX.search(content):
            raise BadReplyError(f"entry {place} has LaTeX whose backslashes JSON reads as control characters")
        repeated = [other for other, thought in given.items() if _repeats(content, thought)]
        if repeated:
            raise BadReplyError(f"entry {place} repeats the text of thought {repeated[0]}")
        contents[number] = content.strip()
    if len(contents) < len(missing):
        raise BadReplyError(f"{len(contents)} entries for {len(missing)} missing thoughts")
    return contents


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two equal keys, Python would drop one in silence."""
    if len(dict(pairs)) < len(pairs):
        raise BadReplyError("an object has the same key twice")
    return dict(pairs)


def _repeats(content: str, thought: str) -> bool:
    """Whether a text is another, or one contains the other, up to case and white space."""
    short, long = sorted((" ".join(text.lower().split()) for text in (content, thought)), key=len)
    return short == long or (len(short) >= _MIN_REPEATED and short in long)


def complete_messages(problem: str, given: Mapping[int, str], kinds: Mapping[int, str]) -> list[Message]:
    """The request for a chain's missing thoughts (paper, A.3).

    ``given`` holds texts and ``kinds`` the kinds of the missing thoughts, by number; an empty kind reads "unnamed".
    """
    system = (
        "You complete worked solutions. You are given a problem and its solution as numbered thoughts. Some thoughts "
        "are given with their text; of the others only the kind is given. Write each missing thought so that all "
        "thoughts in order are one correct solution.\n"
        f'Reply with JSON alone: {{"{_STEPS}": [{{"thought": <number>, "content": <text>}}, ...]}}\n'
        "- Write exactly one entry for each missing thought, under its number.\n"
        "- Do not split, merge or renumber thoughts.\n"
        "- Do not repeat the text of a given thought.\n"
        "- Write each backslash of LaTeX twice, as JSON demands.\n"
        "- Do not write tags such as <think>."
    )
    kinds = {number: kind or "unnamed" for number, kind in kinds.items()}
    thoughts = {number: f"(missing) {kind}" for number, kind in kinds.items()} | dict(given)
    solution = "\n\n".join(f"Thought {number}: {thoughts[number]}" for number in sorted(thoughts))
    wanted = "\n".join(f"Thought {number}: {kind}" for number, kind in kinds.items())
    content = f"Problem:\n{problem}\n\nSolution:\n{solution}\n\nMissing thoughts:\n{wanted}"
    return [Message(role="system", content=system), Message(role="user", content=content)]


def _shorten_messages(problem: str, before: str, passage: str, max_words: int) -> list[Message]:
    system = (
        "You shorten worked solutions. You are given a problem, what was established so far, and a passage of the "
        f"reasoning that follows. Say in at most {max_words} words what the passage adds: results, not how they were "
        "found. Reply with that text alone, without any tag."
    )
    content = f"Problem:\n{problem}\n\nSo far:\n{before or '(nothing)'}\n\nPassage:\n{passage}"
    return [Message(role="system", content=system), Message(role="user", content=content)]
