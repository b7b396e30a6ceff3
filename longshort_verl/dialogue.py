# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The dialogue protocol: tags, parser, transcripts and state machine, independent of the engine.

Cold-start data, rollouts, rewards and evaluation all use it; tags and turn order are defined only here. A long turn is
``<think>…</think>``. A short turn is ``<answer>…</answer>``, which ends the dialogue, or ``<answer>…</rethink>``, which
asks the long role for another thought (paper, section 4; the authors' code).

Each role keeps its own chat transcript: system = its instructions, user = the problem and later the peer's turns,
assistant = its own turns. A transcript thus only grows at its end, so that prefix caches hit, and a dialogue yields one
training sequence per role. Replies of models are untrusted input: nothing here raises on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as settings_dataclass

from longshort_verl.types import (
    Dialogue,
    FinishReason,
    Generation,
    Message,
    ParsedTurn,
    Problem,
    Role,
    Sampling,
    StopReason,
    Turn,
    TurnKind,
)

if TYPE_CHECKING:
    from longshort_verl.generation.base import Writer

OPENING_TAG: Mapping[Role, str] = {Role.LONG: "<think>", Role.SHORT: "<answer>"}
CLOSING_TAGS: Mapping[Role, Mapping[str, TurnKind]] = {
    Role.LONG: {"</think>": TurnKind.THOUGHT},
    Role.SHORT: {"</answer>": TurnKind.ANSWER, "</rethink>": TurnKind.RETHINK},
}
PROTOCOL_TAGS = ("<think>", "</think>", "<answer>", "</answer>", "</rethink>")
"""Every tag that models write; a chat template must not change them."""

_SEPARATOR = "\n\n"
"""Separator of the parts of a user message: the problem, the peer's turns and the notice of the last turn."""


_Tokens = Annotated[int, Field(ge=1)]


@settings_dataclass(frozen=True, kw_only=True)
class DialogueSettings:
    """Limits and wording of a dialogue; the defaults are in ``config/longshort_dialogue.yaml``."""

    opening_role: Role
    """The role of the first turn: ``long`` as in the paper, or ``short``, which may then answer without any thought."""
    max_short_turns: Annotated[int, Field(ge=1)]
    """Maximum turns of the short role; in its last turn it must answer. It also limits the long role's turns."""
    max_turn_tokens: Mapping[Role, _Tokens]
    """Maximum tokens of one turn, per role."""
    max_dialogue_tokens: _Tokens
    """Maximum generated tokens of a dialogue, both roles summed."""
    system_prompt: Mapping[Role, str]
    """System message per role; "" for none."""
    must_answer_notice: str
    """Appended to the user message of the short role's last allowed turn."""


@dataclass(frozen=True, kw_only=True)
class TurnRequest:
    """The request for the next turn."""

    role: Role
    messages: tuple[Message, ...]
    """The role's transcript so far; its last message is from the user."""
    max_tokens: int
    """Token limit of the turn: the turn's own limit or the rest of the dialogue's budget."""
    stop: tuple[str, ...]


def parse_turn(role: Role, text: str) -> ParsedTurn:
    """Parse one reply as a turn of ``role``, in linear time; never raises.

    The first closing tag of the role ends the turn. Text after it is dropped, because an engine that stops at the tag
    still returns the rest of its last token. A "<" outside the five tags is ordinary text.
    """
    opening, stripped = OPENING_TAG[role], text.lstrip()
    if not stripped.startswith(opening):
        written = stripped[: len(opening)]
        fault = f"does not begin with {opening}"
        if written.lower() == opening:
            fault += f" (wrong case: {written})"
        return _malformed(text, fault)
    start = len(opening)
    ends = [(stripped.find(tag, start), tag) for tag in CLOSING_TAGS[role]]
    ends = [(at, tag) for at, tag in ends if at >= 0]
    if not ends:
        return _malformed(text, f"has no closing {' or '.join(CLOSING_TAGS[role])}")
    at, closing = min(ends)
    body = stripped[start:at]
    lowered = body.lower()
    nested = [tag for tag in PROTOCOL_TAGS if tag in lowered]
    if nested:
        return _malformed(text, f"has {nested[0]} inside the turn")
    if not body.strip():
        return _malformed(text, "is empty")
    return ParsedTurn(kind=CLOSING_TAGS[role][closing], text=stripped[: at + len(closing)], body=body.strip(), fault="")


def _malformed(text: str, fault: str) -> ParsedTurn:
    return ParsedTurn(kind=None, text=text, body="", fault=fault)


def transcript(
    problem: str, turns: Sequence[Turn], role: Role, settings: DialogueSettings, history: Sequence[Message] = ()
) -> list[Message]:
    """The chat of ``role`` before its next turn: system, user (problem and peer), assistant (own), user (peer), …

    User and assistant alternate strictly after the system message, as most chat templates demand. Every transcript of a
    role is a prefix of its later ones. ``history`` is an earlier chat of a user with the pair, in alternating messages;
    both roles see it.
    """
    messages = []
    if settings.system_prompt[role]:
        messages.append(Message(role="system", content=settings.system_prompt[role]))
    messages.extend(history)
    pending = [problem]
    for turn in turns:
        if turn.role is role:
            messages.append(Message(role="user", content=_SEPARATOR.join(pending)))
            messages.append(Message(role="assistant", content=turn.parsed.text))
            pending = []
        else:
            pending.append(turn.parsed.text)
    if role is Role.SHORT and _num_turns(turns, Role.SHORT) == settings.max_short_turns - 1:
        pending.append(settings.must_answer_notice)
    messages.append(Message(role="user", content=_SEPARATOR.join(filter(None, pending))))
    return messages


def next_request(
    problem: str, turns: Sequence[Turn], settings: DialogueSettings, history: Sequence[Message] = ()
) -> TurnRequest | StopReason:
    """The next request, after well-formed ``turns`` that did not end the dialogue.

    Returns ``StopReason.TOKEN_BUDGET`` if the dialogue's budget is spent.
    """
    role = turns[-1].role.peer if turns else settings.opening_role
    left = settings.max_dialogue_tokens - sum(turn.num_tokens for turn in turns)
    if left < 1:
        return StopReason.TOKEN_BUDGET
    return TurnRequest(
        role=role,
        messages=tuple(transcript(problem, turns, role, settings, history)),
        max_tokens=min(settings.max_turn_tokens[role], left),
        stop=tuple(CLOSING_TAGS[role]),
    )


def read_turn(role: Role, reply: Generation, forbidden: Sequence[str] = ()) -> Turn:
    """Parse one reply into a turn.

    ``forbidden`` are strings that would become control tokens in the peer's chat template, such as ``<|im_end|>``. A
    turn that contains one is malformed, so that no model can forge its peer's transcript.
    """
    parsed = parse_turn(role, reply.text)
    control_tokens = [text for text in forbidden if text in parsed.text]
    if parsed.kind is not None and control_tokens:
        parsed = _malformed(reply.text, f"has the control token {control_tokens[0]} inside the turn")
    return Turn(
        role=role,
        parsed=parsed,
        raw=reply.text,
        finish=reply.finish,
        num_prompt_tokens=reply.num_prompt_tokens,
        num_tokens=reply.num_tokens,
    )


def ending(turns: Sequence[Turn], settings: DialogueSettings) -> tuple[StopReason, str] | None:
    """Stop reason and details if the dialogue ends after the last of ``turns``; None if it continues."""
    last = turns[-1]
    if last.parsed.kind is TurnKind.ANSWER:
        return StopReason.ANSWERED, ""
    if last.parsed.kind is None and last.finish is FinishReason.LENGTH:
        if last.num_tokens >= settings.max_turn_tokens[last.role]:
            return StopReason.TRUNCATED, f"{last.role.value} turn reached its {last.num_tokens} tokens"
        if sum(turn.num_tokens for turn in turns) >= settings.max_dialogue_tokens:
            return StopReason.TOKEN_BUDGET, f"no room left in the middle of a {last.role.value} turn"
        return StopReason.CONTEXT, f"the {last.role.value} model's context ended in the middle of its turn"
    if last.parsed.kind is None:
        reason = StopReason.MALFORMED_LONG if last.role is Role.LONG else StopReason.MALFORMED_SHORT
        return reason, f"{last.role.value} turn {last.parsed.fault}"
    if last.role is Role.SHORT and _num_turns(turns, Role.SHORT) == settings.max_short_turns:
        return StopReason.TURN_CAP, f"asked for another thought in its last of {settings.max_short_turns} turns"
    return None


async def run_dialogue(
    problem: Problem,
    generators: Mapping[Role, Writer],
    settings: DialogueSettings,
    *,
    temperature: float,
    top_p: float = 1.0,
    seed: int | None = None,
    forbidden: Sequence[str] = (),
    history: Sequence[Message] = (),
    on_text: Callable[[Role, int, str], None] | None = None,
) -> Dialogue:
    """Run a dialogue: the two roles take turns until it ends with a named reason.

    Dialogues are independent, so callers run many at once. :func:`read_turn` documents ``forbidden`` and
    :func:`transcript` documents ``history``. ``on_text`` receives each piece of text with its role and turn (from 0);
    it needs generators that stream.
    """
    turns: list[Turn] = []
    while True:
        request = next_request(problem.prompt, turns, settings, history)
        if isinstance(request, StopReason):
            return Dialogue(problem=problem, turns=tuple(turns), stop_reason=request, detail="budget spent")
        sampling = Sampling(
            max_tokens=request.max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=request.stop,
            # Each turn needs its own random numbers.
            seed=None if seed is None else seed + len(turns),
        )
        on_piece = None if on_text is None else partial(on_text, request.role, len(turns))
        reply = await generators[request.role].generate(request.messages, sampling, on_piece)
        if reply.finish is FinishReason.ERROR:
            detail = f"{request.role.value}: {reply.error}"
            return Dialogue(problem=problem, turns=tuple(turns), stop_reason=StopReason.ENGINE_ERROR, detail=detail)
        turns.append(read_turn(request.role, reply, forbidden))
        end = ending(turns, settings)
        if end is not None:
            return Dialogue(problem=problem, turns=tuple(turns), stop_reason=end[0], detail=end[1])


def _num_turns(turns: Sequence[Turn], role: Role) -> int:
    return sum(turn.role is role for turn in turns)
