# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Turns scored chains of thought into dialogues that teach each role its style (paper, section 4.1).

Important thoughts become turns of the long role. The thoughts between them become a turn of the short role: a model
writes them from their kinds, or states them briefly, or they are dropped. A short turn ends in ``</rethink>`` before
another important thought; the last one ends in ``</answer>`` with the chain's own answer. A dialogue is kept if it
follows the protocol, is right and is shorter than its chain; every other chain gets a named outcome. Ours: this filter,
and that thoughts are dropped where turns would be too many (:func:`pieces`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from longshort_verl.cold_start.select import Keep, SelectionSettings, file_threshold, select
from longshort_verl.cold_start.writer import Run, Writer, WriterEngineError, WriterError, without_tags
from longshort_verl.dialogue import DialogueSettings, ending, read_turn
from longshort_verl.types import Chain, ChainOutcome, FinishReason, Generation, Grade, Problem, Role, StopReason, Turn


class ColdStartOutcome(str, Enum):
    """Whether a chain gave a dialogue, or why not."""

    KEPT = "kept"
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
    outcome: ColdStartOutcome
    detail: str = ""
    """The reason of a rejection, in words."""
    problem: Problem | None = None
    turns: tuple[Turn, ...] = ()
    """The dialogue; empty unless kept."""
    num_trace_tokens: int = 0
    """Tokens of the chain, its answer included; 0 if not counted."""

    def num_tokens(self, role: Role | None = None) -> int:
        """Tokens of one role's turns, or of both."""
        return sum(turn.num_tokens for turn in self.turns if role is None or turn.role is role)


def pieces(chain: Chain, chosen: frozenset[int], settings: DialogueSettings) -> list[Run]:
    """Alternating runs of important and of other thoughts, one for each turn.

    Neighbouring important thoughts form one run. If there are more important runs than the short role's turns allow,
    those with the fewest tokens between them are joined, and the thoughts between are dropped. If the long role opens,
    the thoughts before the first important one are dropped.
    """
    runs: list[Run] = []
    for i, (thought, length) in enumerate(zip(chain.thoughts, chain.lengths, strict=True)):
        run = Run(long=i in chosen, thoughts=(thought,), num_tokens=length)
        if runs and runs[-1].long is run.long:
            runs[-1] = _joined(runs[-1], run)
        else:
            runs.append(run)
    opens = settings.opening_role is Role.LONG
    if opens and runs and not runs[0].long:
        del runs[0]
    most = settings.max_short_turns - (0 if opens else 1)
    while sum(run.long for run in runs) > most:
        gaps = [i for i in range(1, len(runs) - 1) if not runs[i].long]
        if most < 1 or not gaps:
            return []
        gap = min(gaps, key=lambda i: runs[i].num_tokens)
        runs[gap - 1 : gap + 2] = [_joined(runs[gap - 1], runs[gap + 1])]
    return runs


def _joined(run: Run, after: Run) -> Run:
    return replace(run, thoughts=run.thoughts + after.thoughts, num_tokens=run.num_tokens + after.num_tokens)


class _Unusable(Exception):
    """A chain that gives no dialogue."""

    def __init__(self, outcome: ColdStartOutcome, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


@dataclass(frozen=True, kw_only=True)
class DialogueMaker:
    """Makes the dialogues of scored chains; never raises for any chain or reply."""

    selection: SelectionSettings
    writer: Writer | None
    """Writes the short turns; None drops their thoughts."""
    rethink_text: str
    """The short role's words before another thought if nothing was written."""
    dialogue: DialogueSettings
    grade: Callable[[str, str], Grade]
    """Grades a text against the gold answer; called in a thread."""
    count_tokens: Callable[[str], int]
    """Tokens of a text by the tokenizer of the models to be trained."""
    forbidden: Sequence[str] = ()
    """Strings that would be control tokens in a transcript."""

    async def make_all(
        self, chains: Sequence[Chain], *, max_chains: int, on_done: Callable[[], None] = lambda: None
    ) -> list[ColdDialogue]:
        """The dialogue of each chain, or why there is none, in order; ``max_chains`` are in progress at once."""
        scored = [chain for chain in chains if chain.outcome is ChainOutcome.SCORED]
        threshold = file_threshold(scored, self.selection)
        slots = asyncio.Semaphore(max_chains)

        async def make(chain: Chain) -> ColdDialogue:
            if chain.outcome is ChainOutcome.SCORED:
                async with slots:
                    made = await self.make(chain, select(chain, self.selection, threshold))
            else:
                outcome = ColdStartOutcome.BAD_ROW if chain.problem is None else ColdStartOutcome.NOT_SCORED
                detail = f"{chain.outcome.value}: {chain.detail}".removesuffix(": ")
                made = ColdDialogue(key=chain.key, outcome=outcome, detail=detail)
            on_done()
            return made

        return list(await asyncio.gather(*map(make, chains)))

    async def make(self, chain: Chain, chosen: frozenset[int]) -> ColdDialogue:
        """The dialogue of a scored chain whose thoughts ``chosen`` become long turns, or why there is none."""
        size = self.count_tokens(chain.text)
        whole = ColdDialogue(key=chain.key, problem=chain.problem, outcome=ColdStartOutcome.KEPT, num_trace_tokens=size)
        assert chain.problem is not None
        gold = chain.problem.answer
        try:
            verdict = await asyncio.to_thread(self.grade, chain.text, gold)
            if verdict.extracted is None:
                raise _Unusable(ColdStartOutcome.NO_ANSWER, verdict.reason)
            if not verdict.correct:
                raise _Unusable(ColdStartOutcome.WRONG, f"{verdict.extracted} is not {gold}")
            bodies = await self._bodies(chain, pieces(chain, chosen, self.dialogue), verdict.extracted)
            turns = self._turns(bodies)
            final = await asyncio.to_thread(self.grade, turns[-1].parsed.body, gold)
            if not final.correct:
                raise _Unusable(ColdStartOutcome.WRONG, f"the dialogue's answer is {final.extracted}")
            num_tokens = sum(turn.num_tokens for turn in turns)
            if self.selection.keep is not Keep.ALL and num_tokens >= size:
                raise _Unusable(ColdStartOutcome.NOT_SHORTER, f"{num_tokens} tokens of {size}")
        except _Unusable as reason:
            return replace(whole, outcome=reason.outcome, detail=reason.detail)
        return replace(whole, turns=turns)

    async def _bodies(self, chain: Chain, runs: Sequence[Run], answer: str) -> list[tuple[Role, str]]:
        """Role and body of each turn; the last one answers."""
        opens = self.dialogue.opening_role is Role.LONG
        if opens and not any(run.long for run in runs):
            raise _Unusable(ColdStartOutcome.NOTHING_IMPORTANT)
        written = iter(await self._written(chain, runs, answer))
        bodies: list[tuple[Role, str]] = []
        for run in runs:
            if not run.long:
                bodies.append((Role.SHORT, next(written)))
                continue
            if not bodies and not opens:
                bodies.append((Role.SHORT, self.rethink_text))
            bodies.append((Role.LONG, without_tags(run.text)))
        boxed = f"\\boxed{{{answer}}}"
        if not bodies or bodies[-1][0] is Role.LONG:
            return [*bodies, (Role.SHORT, boxed)]
        last = "" if self.writer is None else f"{bodies[-1][1]}\n"
        return [*bodies[:-1], (Role.SHORT, last + boxed)]

    async def _written(self, chain: Chain, runs: Sequence[Run], answer: str) -> list[str]:
        """The body of each short turn."""
        if self.writer is None:
            return [self.rethink_text for run in runs if not run.long]
        assert chain.problem is not None
        try:
            return await self.writer.write(chain.key, chain.problem.prompt, runs, answer)
        except WriterEngineError as error:
            raise _Unusable(ColdStartOutcome.ENGINE_ERROR, str(error)) from error
        except WriterError as error:
            raise _Unusable(ColdStartOutcome.WRITER, str(error)) from error

    def _turns(self, bodies: Sequence[tuple[Role, str]]) -> tuple[Turn, ...]:
        """The turns as the protocol parses them, each within its limits, the last one an answer."""
        turns: list[Turn] = []
        for number, (role, body) in enumerate(bodies):
            last = number == len(bodies) - 1
            end_tag = "</answer>" if last else "</rethink>"
            text = f"<think>{body}</think>" if role is Role.LONG else f"<answer>{body}{end_tag}"
            num_tokens = self.count_tokens(text)
            reply = Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=0, num_tokens=num_tokens)
            turns.append(read_turn(role, reply, self.forbidden))
            if num_tokens > self.dialogue.max_turn_tokens[role]:
                limit = f"dialogue.max_turn_tokens.{role.value} is {self.dialogue.max_turn_tokens[role]}"
                raise _Unusable(ColdStartOutcome.TOO_LONG, f"a {role.value} turn has {num_tokens} tokens; {limit}")
            end = ending(turns, self.dialogue)
            if end is not None and end[0] is not StopReason.ANSWERED:
                raise _Unusable(ColdStartOutcome.MALFORMED, end[1])
            if turns[-1].parsed.text != text or (end is not None) is not last:
                raise _Unusable(ColdStartOutcome.MALFORMED, f"a {role.value} turn ends before its end")
        num_tokens = sum(turn.num_tokens for turn in turns)
        if num_tokens > self.dialogue.max_dialogue_tokens:
            limit = f"dialogue.max_dialogue_tokens is {self.dialogue.max_dialogue_tokens}"
            raise _Unusable(ColdStartOutcome.TOO_LONG, f"{num_tokens} tokens; {limit}")
        return tuple(turns)
