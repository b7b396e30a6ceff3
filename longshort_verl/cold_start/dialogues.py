# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Scored chains of thought to dialogues that teach each role its style, with no model unless a writer is asked.

The thoughts that matter become the long role's turns; what lies between them becomes a turn of the short role, written
briefly by a writer model or left out. A short turn before another important thought ends in ``</rethink>``, the last
one in ``</answer>`` with the trace's own answer. The paper (arXiv 2505.11827) says that thoughts of high importance go
to the long-thought model and the others to the short one; how turns are cut and who writes them it does not say, so
both are our reconstruction. A dialogue is kept if it follows the protocol, is right and is shorter than its trace; what
became of every other trace has a name.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from longshort_verl.chains.scored_files import BadRow, ScoredTrace
from longshort_verl.cold_start.select import Keep, SelectionSettings, file_threshold, select
from longshort_verl.dialogue import PROTOCOL_TAGS, DialogueSettings, ending, read_turn
from longshort_verl.files.journal import Journal
from longshort_verl.generation.base import Generator
from longshort_verl.types import (
    FinishReason,
    Generation,
    Grade,
    Message,
    Problem,
    Role,
    Sampling,
    StopReason,
    Turn,
)


class WriterKind(str, Enum):
    """What becomes of thoughts that are not important."""

    NONE = "none"
    """They are left out; no model is needed."""
    MODEL = "model"
    """A model says briefly what they establish."""


class ColdStartOutcome(str, Enum):
    """What became of a trace."""

    KEPT = "kept"
    """There is a dialogue."""
    BAD_ROW = "unusable row"
    """Its line is not what `longshort importance` writes, or its thoughts do not concatenate to its trace."""
    NOT_SCORED = "not scored"
    """It has no importance; the detail is the outcome of its scoring."""
    NO_ANSWER = "no answer"
    """The trace does not box an answer."""
    WRONG = "wrong answer"
    """The trace's answer is wrong."""
    NOTHING_IMPORTANT = "nothing important"
    """No thought was selected, and the long role opens."""
    MALFORMED = "malformed"
    """A turn would break the protocol: the trace has tags or control tokens in it."""
    TOO_LONG = "over the dialogue's limits"
    """A turn, or the dialogue, has more tokens than ``dialogue`` allows."""
    NOT_SHORTER = "not shorter"
    """The dialogue has at least as many tokens as the trace."""
    WRITER = "no usable short turn"
    """The writer's replies could not be used, as often as it was asked."""
    ENGINE_ERROR = "engine error"
    """The writer could not be asked; another run goes on from what was written."""


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """How a model writes short turns. No defaults here: they live in ``longshort_verl/config``."""

    kind: WriterKind
    """Whether a model writes them at all."""
    max_words: int
    """How many words it is asked for."""
    max_tokens: int
    """Most tokens of one reply."""
    temperature: float
    """Of the first attempt; asking again at 0 would give the same reply, so later ones use at least 0.5."""
    max_attempts: int
    """How often it is asked for one turn."""
    seed: int
    """Each reply's own seed follows from this one, its trace, its turn and its attempt."""

    def __post_init__(self) -> None:
        for name in ("max_words", "max_tokens", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"writer: {name} is {getattr(self, name)!r}; give at least 1")
        if self.temperature < 0:
            raise ValueError(f"writer: temperature is {self.temperature!r}; give at least 0")


@dataclass(frozen=True, kw_only=True)
class ColdDialogue:
    """What came of one trace."""

    key: str
    """Name of its trace."""
    outcome: ColdStartOutcome
    """What became of it."""
    detail: str = ""
    """What was the matter, for people."""
    problem: Problem | None = None
    """What is asked; None where its row could not be read."""
    turns: tuple[Turn, ...] = ()
    """The dialogue; empty unless it was kept."""
    num_trace_tokens: int = 0
    """Tokens of the trace, its answer included; 0 where they were not counted."""

    def num_tokens(self, role: Role | None = None) -> int:
        """Tokens of one role's turns, or of both."""
        return sum(turn.num_tokens for turn in self.turns if role is None or turn.role is role)


@dataclass(frozen=True)
class _Piece:
    """A run of thoughts, important or not."""

    long: bool
    text: str
    num_tokens: int


def pieces(trace: ScoredTrace, chosen: frozenset[int], settings: DialogueSettings) -> list[_Piece]:
    """Runs of important and of other thoughts in turn, so that turns of the two roles can follow from them.

    Neighbouring important thoughts are one run. There are no more important runs than the short role has turns for:
    those with the fewest tokens between them become one, and what was between is left out. Where the long role opens,
    what comes before the first important thought is left out.
    """
    found: list[_Piece] = []
    for i, (text, length) in enumerate(zip(trace.thoughts, trace.lengths, strict=True)):
        long = i in chosen
        if found and found[-1].long is long:
            found[-1] = _Piece(long, found[-1].text + text, found[-1].num_tokens + length)
        else:
            found.append(_Piece(long, text, length))
    opens = settings.opening_role is Role.LONG
    if opens and found and not found[0].long:
        del found[0]
    most = settings.max_short_turns - (0 if opens else 1)
    while sum(piece.long for piece in found) > most:
        gaps = [i for i in range(1, len(found) - 1) if not found[i].long]
        if most < 1 or not gaps:
            return []
        gap = min(gaps, key=lambda i: found[i].num_tokens)
        before, after = found[gap - 1], found[gap + 1]
        joined = _Piece(True, before.text + after.text, before.num_tokens + after.num_tokens)
        found[gap - 1 : gap + 2] = [joined]
    return found


class _Unusable(Exception):
    """No dialogue comes of a trace."""

    def __init__(self, outcome: ColdStartOutcome, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


class Writer:
    """Says briefly what thoughts establish, through a model; every reply is in the journal before it is used."""

    def __init__(self, generator: Generator, journal: Journal, settings: WriterSettings) -> None:
        self._generator, self._journal, self._settings = generator, journal, settings

    async def write(self, key: str, problem: str, before: str, passage: str, most: int) -> str:
        """A turn's body.

        Args:
            key: of the turn, unique in a run.
            problem: what is asked.
            before: the important thoughts before the passage.
            passage: what is said briefly.
            most: tokens of the passage; a reply with as many is no use.
        """
        settings, detail = self._settings, ""
        for attempt in range(settings.max_attempts):
            name = f"{key}/{attempt}"
            row = self._journal.get(name)
            if row is None:
                temperature = settings.temperature if attempt == 0 else max(0.5, settings.temperature)
                reply = await self._generator.generate(
                    _writer_messages(problem, before, passage, settings.max_words),
                    Sampling(
                        max_tokens=settings.max_tokens,
                        temperature=temperature,
                        seed=random.Random(f"{settings.seed}/{name}").randrange(2**31),
                    ),
                )
                if reply.finish is FinishReason.ERROR:
                    raise _Unusable(ColdStartOutcome.ENGINE_ERROR, reply.error)
                row = {"text": reply.text, "finish": reply.finish.value, "num_tokens": reply.num_tokens}
                self._journal.add(name, row)
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
        raise _Unusable(ColdStartOutcome.WRITER, detail)


def _writer_messages(problem: str, before: str, passage: str, max_words: int) -> list[Message]:
    system = (
        "You shorten worked solutions. You are given a problem, what was established so far, and a passage of the "
        f"reasoning that follows. Say in at most {max_words} words what the passage adds: results, not how they were "
        "found. Reply with that text alone, without any tag."
    )
    content = f"Problem:\n{problem}\n\nSo far:\n{before or '(nothing)'}\n\nPassage:\n{passage}"
    return [Message(role="system", content=system), Message(role="user", content=content)]


async def make_dialogue(
    trace: ScoredTrace,
    chosen: frozenset[int],
    *,
    keep: Keep,
    writer: Writer | None,
    rethink_text: str,
    dialogue: DialogueSettings,
    grade: Callable[[str, str], Grade],
    count_tokens: Callable[[str], int],
    forbidden: Sequence[str] = (),
) -> ColdDialogue:
    """The dialogue of one trace, or why there is none; never raises for any trace or reply.

    Args:
        trace: scored.
        chosen: see :func:`longshort_verl.cold_start.select.select`.
        keep: with ``all`` the dialogue need not be shorter.
        writer: writes what is not important; None to leave it out.
        rethink_text: what the short role says where nothing was written and another thought follows.
        dialogue: limits and wording.
        grade: of a text and the gold answer; called in a thread.
        count_tokens: of the tokenizer of the models that learn.
        forbidden: strings that would be control tokens in a transcript.
    """
    whole = ColdDialogue(
        key=trace.key,
        problem=trace.problem,
        outcome=ColdStartOutcome.KEPT,
        num_trace_tokens=count_tokens(trace.text),
    )
    try:
        verdict = await asyncio.to_thread(grade, trace.text, trace.problem.answer)
        if verdict.extracted is None:
            raise _Unusable(ColdStartOutcome.NO_ANSWER, verdict.reason)
        if not verdict.correct:
            raise _Unusable(ColdStartOutcome.WRONG, f"{verdict.extracted} is not {trace.problem.answer}")
        said = await _bodies(trace, pieces(trace, chosen, dialogue), writer, rethink_text, verdict.extracted, dialogue)
        turns = _turns(said, dialogue, count_tokens, forbidden)
        final = await asyncio.to_thread(grade, turns[-1].parsed.body, trace.problem.answer)
        if not final.correct:
            raise _Unusable(ColdStartOutcome.WRONG, f"the dialogue's answer is {final.extracted}")
        num_tokens = sum(turn.num_tokens for turn in turns)
        if keep is not Keep.ALL and num_tokens >= whole.num_trace_tokens:
            raise _Unusable(ColdStartOutcome.NOT_SHORTER, f"{num_tokens} tokens of {whole.num_trace_tokens}")
    except _Unusable as reason:
        return replace(whole, outcome=reason.outcome, detail=reason.detail)
    return replace(whole, turns=turns)


async def _bodies(
    trace: ScoredTrace,
    parts: Sequence[_Piece],
    writer: Writer | None,
    rethink_text: str,
    answer: str,
    dialogue: DialogueSettings,
) -> list[tuple[Role, str]]:
    """Who says what; the last one answers."""
    opens = dialogue.opening_role is Role.LONG
    if opens and not any(part.long for part in parts):
        raise _Unusable(ColdStartOutcome.NOTHING_IMPORTANT)
    said: list[tuple[Role, str]] = []
    thought = ""
    for number, part in enumerate(parts):
        if part.long:
            if not said and not opens:
                said.append((Role.SHORT, rethink_text))
            said.append((Role.LONG, _without_tags(part.text)))
            thought += part.text
            continue
        text = rethink_text
        last = number == len(parts) - 1
        if writer is not None:
            key = f"{trace.key}/{number}"
            text = await writer.write(key, trace.problem.prompt, thought, part.text, part.num_tokens)
        said.append((Role.SHORT, f"{text}\n\\boxed{{{answer}}}" if last and writer is not None else text))
    boxed = f"\\boxed{{{answer}}}"
    if not said or said[-1][0] is Role.LONG:
        said.append((Role.SHORT, boxed))
    elif writer is None:
        said[-1] = (Role.SHORT, boxed)
    return said


def _without_tags(text: str) -> str:
    """A piece of a chain without the tags around the chain."""
    text = text.strip()
    return text.removeprefix("<think>").removesuffix("</think>").strip()


def _turns(
    said: Sequence[tuple[Role, str]],
    dialogue: DialogueSettings,
    count_tokens: Callable[[str], int],
    forbidden: Sequence[str],
) -> tuple[Turn, ...]:
    """Turns as the protocol reads them, each within its limits, the last one an answer."""
    turns: list[Turn] = []
    for number, (role, body) in enumerate(said):
        last = number == len(said) - 1
        text = (
            f"<think>{body}</think>" if role is Role.LONG else f"<answer>{body}{'</answer>' if last else '</rethink>'}"
        )
        num_tokens = count_tokens(text)
        reply = Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=0, num_tokens=num_tokens)
        turns.append(read_turn(role, reply, forbidden))
        if num_tokens > dialogue.max_turn_tokens[role]:
            limit = f"dialogue.max_turn_tokens.{role.value} is {dialogue.max_turn_tokens[role]}"
            raise _Unusable(ColdStartOutcome.TOO_LONG, f"a {role.value} turn has {num_tokens} tokens; {limit}")
        end = ending(turns, dialogue)
        if end is not None and end[0] is not StopReason.ANSWERED:
            raise _Unusable(ColdStartOutcome.MALFORMED, end[1])
        if turns[-1].parsed.text != text or (end is not None) is not last:
            raise _Unusable(ColdStartOutcome.MALFORMED, f"a {role.value} turn ends before its end")
    num_tokens = sum(turn.num_tokens for turn in turns)
    if num_tokens > dialogue.max_dialogue_tokens:
        limit = f"dialogue.max_dialogue_tokens is {dialogue.max_dialogue_tokens}"
        raise _Unusable(ColdStartOutcome.TOO_LONG, f"{num_tokens} tokens; {limit}")
    return tuple(turns)


async def make_dialogues(
    rows: Sequence[ScoredTrace | BadRow],
    selection: SelectionSettings,
    *,
    writer: Writer | None,
    rethink_text: str,
    dialogue: DialogueSettings,
    grade: Callable[[str, str], Grade],
    count_tokens: Callable[[str], int],
    forbidden: Sequence[str],
    max_traces: int,
    on_done: Callable[[ColdDialogue], None],
) -> list[ColdDialogue]:
    """What becomes of each row, in their order; see :func:`make_dialogue`."""
    threshold = file_threshold([row for row in rows if isinstance(row, ScoredTrace)], selection)
    slots = asyncio.Semaphore(max_traces)

    async def one(row: ScoredTrace | BadRow) -> ColdDialogue:
        if isinstance(row, BadRow):
            outcome = ColdStartOutcome.NOT_SCORED if row.unscored else ColdStartOutcome.BAD_ROW
            done = ColdDialogue(key=row.key, outcome=outcome, detail=row.detail)
        else:
            async with slots:
                done = await make_dialogue(
                    row,
                    select(row, selection, threshold),
                    keep=selection.keep,
                    writer=writer,
                    rethink_text=rethink_text,
                    dialogue=dialogue,
                    grade=grade,
                    count_tokens=count_tokens,
                    forbidden=forbidden,
                )
        on_done(done)
        return done

    return list(await asyncio.gather(*map(one, rows)))
