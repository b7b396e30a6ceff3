# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Turns scored chains of thought into dialogues that teach each role its style (paper, section 3.2).

Important thoughts become turns of the long role. The thoughts between them become a turn of the short role, written
briefly by a model or dropped. A short turn ends in ``</rethink>`` before another important thought; the last one ends
in ``</answer>`` with the chain's own answer. The paper (arXiv 2505.11827) assigns important thoughts to the long model
and the others to the short one; how turns are cut and who writes them is our reconstruction. A dialogue is kept if it
follows the protocol, is right and is shorter than its chain; every other chain gets a named outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from longshort_verl.cold_start.select import Keep, SelectionSettings, file_threshold, select
from longshort_verl.cold_start.writer import Writer, WriterEngineError, WriterError
from longshort_verl.dialogue import DialogueSettings, ending, read_turn
from longshort_verl.types import (
    Chain,
    ChainOutcome,
    FinishReason,
    Generation,
    Grade,
    Problem,
    Role,
    StopReason,
    Turn,
)


class ColdStartOutcome(str, Enum):
    """Whether a chain gave a dialogue, or why not."""

    KEPT = "kept"
    """It gave a dialogue."""
    BAD_ROW = "unusable row"
    """Its row is damaged, or lacks a field of `longshort importance`."""
    NOT_SCORED = "not scored"
    """It has no importance; the detail is the outcome of its scoring."""
    NO_ANSWER = "no answer"
    """The chain has no answer in a box."""
    WRONG = "wrong answer"
    """The answer of the chain, or of its dialogue, is wrong."""
    NOTHING_IMPORTANT = "nothing important"
    """No thought was selected, and the long role opens."""
    MALFORMED = "malformed"
    """A turn would break the protocol: the chain has tags or control tokens in it."""
    TOO_LONG = "over the dialogue's limits"
    """A turn or the dialogue has more tokens than ``dialogue`` allows."""
    NOT_SHORTER = "not shorter"
    """The dialogue has at least as many tokens as the chain."""
    WRITER = "no usable short turn"
    """No reply of the writer was usable."""
    ENGINE_ERROR = "engine error"
    """The writer's engine failed; the next run resumes."""


@dataclass(frozen=True, kw_only=True)
class ColdDialogue:
    """The dialogue of one chain, or why there is none."""

    key: str
    """Key of its chain."""
    outcome: ColdStartOutcome
    """Whether it was kept."""
    detail: str = ""
    """The reason of a rejection, in words."""
    problem: Problem | None = None
    """The problem; None if its row is unreadable."""
    turns: tuple[Turn, ...] = ()
    """The dialogue; empty unless kept."""
    num_trace_tokens: int = 0
    """Tokens of the chain, its answer included; 0 if not counted."""

    def num_tokens(self, role: Role | None = None) -> int:
        """Tokens of one role's turns, or of both."""
        return sum(turn.num_tokens for turn in self.turns if role is None or turn.role is role)


@dataclass(frozen=True)
class _Piece:
    """A run of thoughts, important or not."""

    long: bool
    text: str
    num_tokens: int


def pieces(chain: Chain, chosen: frozenset[int], settings: DialogueSettings) -> list[_Piece]:
    """Alternating runs of important and of other thoughts, one for each turn.

    Neighbouring important thoughts form one run. If there are more important runs than the short role's turns allow,
    those with the fewest tokens between them are joined, and the thoughts between are dropped. If the long role opens,
    the thoughts before the first important one are dropped.
    """
    runs: list[_Piece] = []
    for i, (thought, length) in enumerate(zip(chain.thoughts, chain.lengths, strict=True)):
        long = i in chosen
        if runs and runs[-1].long is long:
            runs[-1] = _Piece(long, runs[-1].text + thought.text, runs[-1].num_tokens + length)
        else:
            runs.append(_Piece(long, thought.text, length))
    opens = settings.opening_role is Role.LONG
    if opens and runs and not runs[0].long:
        del runs[0]
    most = settings.max_short_turns - (0 if opens else 1)
    while sum(piece.long for piece in runs) > most:
        gaps = [i for i in range(1, len(runs) - 1) if not runs[i].long]
        if most < 1 or not gaps:
            return []
        gap = min(gaps, key=lambda i: runs[i].num_tokens)
        before, after = runs[gap - 1], runs[gap + 1]
        joined = _Piece(True, before.text + after.text, before.num_tokens + after.num_tokens)
        runs[gap - 1 : gap + 2] = [joined]
    return runs


class _Unusable(Exception):
    """A chain that gives no dialogue."""

    def __init__(self, outcome: ColdStartOutcome, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


async def make_dialogue(
    chain: Chain,
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
    """The dialogue of a scored chain, or why there is none; never raises for any chain or reply.

    Args:
        chain: a scored chain.
        chosen: see :func:`longshort_verl.cold_start.select.select`.
        keep: with ``all`` the dialogue need not be shorter.
        writer: writes the unimportant thoughts; None drops them.
        rethink_text: the short role's words before another thought if nothing was written.
        dialogue: limits and wording.
        grade: of a text and the gold answer; called in a thread.
        count_tokens: tokens of a text by the tokenizer of the models to be trained.
        forbidden: strings that would be control tokens in a transcript.
    """
    whole = ColdDialogue(
        key=chain.key,
        problem=chain.problem,
        outcome=ColdStartOutcome.KEPT,
        num_trace_tokens=count_tokens(chain.text),
    )
    assert chain.problem is not None
    gold = chain.problem.answer
    try:
        verdict = await asyncio.to_thread(grade, chain.text, gold)
        if verdict.extracted is None:
            raise _Unusable(ColdStartOutcome.NO_ANSWER, verdict.reason)
        if not verdict.correct:
            raise _Unusable(ColdStartOutcome.WRONG, f"{verdict.extracted} is not {gold}")
        bodies = await _bodies(
            chain, pieces(chain, chosen, dialogue), writer, rethink_text, verdict.extracted, dialogue
        )
        turns = _turns(bodies, dialogue, count_tokens, forbidden)
        final = await asyncio.to_thread(grade, turns[-1].parsed.body, gold)
        if not final.correct:
            raise _Unusable(ColdStartOutcome.WRONG, f"the dialogue's answer is {final.extracted}")
        num_tokens = sum(turn.num_tokens for turn in turns)
        if keep is not Keep.ALL and num_tokens >= whole.num_trace_tokens:
            raise _Unusable(ColdStartOutcome.NOT_SHORTER, f"{num_tokens} tokens of {whole.num_trace_tokens}")
    except _Unusable as reason:
        return replace(whole, outcome=reason.outcome, detail=reason.detail)
    return replace(whole, turns=turns)


async def _bodies(
    chain: Chain,
    parts: Sequence[_Piece],
    writer: Writer | None,
    rethink_text: str,
    answer: str,
    dialogue: DialogueSettings,
) -> list[tuple[Role, str]]:
    """Role and body of each turn; the last one answers."""
    opens = dialogue.opening_role is Role.LONG
    if opens and not any(part.long for part in parts):
        raise _Unusable(ColdStartOutcome.NOTHING_IMPORTANT)
    bodies: list[tuple[Role, str]] = []
    thought = ""
    for number, part in enumerate(parts):
        if part.long:
            if not bodies and not opens:
                bodies.append((Role.SHORT, rethink_text))
            bodies.append((Role.LONG, _without_tags(part.text)))
            thought += part.text
            continue
        text = rethink_text
        last = number == len(parts) - 1
        if writer is not None:
            assert chain.problem is not None
            try:
                text = await writer.write(
                    f"{chain.key}/{number}", chain.problem.prompt, thought, part.text, part.num_tokens
                )
            except WriterEngineError as error:
                raise _Unusable(ColdStartOutcome.ENGINE_ERROR, str(error)) from error
            except WriterError as error:
                raise _Unusable(ColdStartOutcome.WRITER, str(error)) from error
        bodies.append((Role.SHORT, f"{text}\n\\boxed{{{answer}}}" if last and writer is not None else text))
    boxed = f"\\boxed{{{answer}}}"
    if not bodies or bodies[-1][0] is Role.LONG:
        bodies.append((Role.SHORT, boxed))
    elif writer is None:
        bodies[-1] = (Role.SHORT, boxed)
    return bodies


def _without_tags(text: str) -> str:
    """A piece of a chain without the chain's own tags."""
    text = text.strip()
    return text.removeprefix("<think>").removesuffix("</think>").strip()


def _turns(
    bodies: Sequence[tuple[Role, str]],
    dialogue: DialogueSettings,
    count_tokens: Callable[[str], int],
    forbidden: Sequence[str],
) -> tuple[Turn, ...]:
    """The turns as the protocol parses them, each within its limits, the last one an answer."""
    turns: list[Turn] = []
    for number, (role, body) in enumerate(bodies):
        last = number == len(bodies) - 1
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
    chains: Sequence[Chain],
    selection: SelectionSettings,
    *,
    writer: Writer | None,
    rethink_text: str,
    dialogue: DialogueSettings,
    grade: Callable[[str, str], Grade],
    count_tokens: Callable[[str], int],
    forbidden: Sequence[str],
    max_traces: int,
    on_done: Callable[[], None] = lambda: None,
) -> list[ColdDialogue]:
    """The dialogue of each chain, or why there is none, in their order; see :func:`make_dialogue`."""
    threshold = file_threshold([chain for chain in chains if chain.outcome is ChainOutcome.SCORED], selection)
    slots = asyncio.Semaphore(max_traces)

    async def make(chain: Chain) -> ColdDialogue:
        if chain.outcome is ChainOutcome.SCORED:
            async with slots:
                dialogue_of_chain = await make_dialogue(
                    chain,
                    select(chain, selection, threshold),
                    keep=selection.keep,
                    writer=writer,
                    rethink_text=rethink_text,
                    dialogue=dialogue,
                    grade=grade,
                    count_tokens=count_tokens,
                    forbidden=forbidden,
                )
        elif chain.problem is None:
            detail = f"{chain.outcome.value}: {chain.detail}"
            dialogue_of_chain = ColdDialogue(key=chain.key, outcome=ColdStartOutcome.BAD_ROW, detail=detail)
        else:
            detail = f"{chain.outcome.value} {chain.detail}".strip()
            dialogue_of_chain = ColdDialogue(key=chain.key, outcome=ColdStartOutcome.NOT_SCORED, detail=detail)
        on_done()
        return dialogue_of_chain

    return list(await asyncio.gather(*map(make, chains)))
