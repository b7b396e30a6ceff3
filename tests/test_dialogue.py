# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The dialogue protocol: parser, transcripts, state machine and stop reasons."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longshort_verl.dialogue import (
    CLOSING_TAGS,
    OPENING_TAG,
    PROTOCOL_TAGS,
    DialogueSettings,
    next_request,
    parse_turn,
    read_turn,
    run_dialogue,
    transcript,
)
from longshort_verl.types import (
    Dialogue,
    FinishReason,
    Generation,
    Message,
    Problem,
    Role,
    StopReason,
    Turn,
    TurnKind,
)
from tests.support.scripted import ScriptedGenerator

SETTINGS = DialogueSettings(
    opening_role=Role.LONG,
    max_short_turns=2,
    max_turn_tokens={Role.LONG: 100, Role.SHORT: 50},
    max_dialogue_tokens=1000,
    system_prompt={Role.LONG: "think", Role.SHORT: ""},
    must_answer_notice="Answer now.",
)
PROBLEM = Problem(prompt="1+1?", answer="2", source="test", index=0)


def talk(long: list, short: list, settings: DialogueSettings = SETTINGS, **kwargs) -> Dialogue:
    generators = {Role.LONG: ScriptedGenerator(long), Role.SHORT: ScriptedGenerator(short)}
    return asyncio.run(run_dialogue(PROBLEM, generators, settings, temperature=1.0, **kwargs))


def turn(role: Role, text: str) -> Turn:
    reply = Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=1, num_tokens=len(text))
    return read_turn(role, reply)


def test_a_useful_turn_says_what_nobody_had_said():
    turns = (
        turn(Role.LONG, "<think>x = 2</think>"),
        turn(Role.SHORT, "<answer>x  =\n2</rethink>"),  # the peer's words
        turn(Role.LONG, "<think> x = 2 </think>"),  # its own, again
        turn(Role.SHORT, "no tags"),
        turn(Role.LONG, "<think>x = 3</think>"),
        turn(Role.SHORT, "<answer>\\boxed{3}</answer>"),
    )
    dialogue = Dialogue(problem=PROBLEM, turns=turns, stop_reason=StopReason.ANSWERED)
    assert (dialogue.num_useful_turns(Role.LONG), dialogue.num_turns(Role.LONG)) == (2, 3)
    assert (dialogue.num_useful_turns(Role.SHORT), dialogue.num_turns(Role.SHORT)) == (1, 3)


# ---------------------------------------------------------------------------------------------------- the parser


@pytest.mark.parametrize(
    ("role", "text", "kind", "body"),
    [
        (Role.LONG, "<think>a</think>", TurnKind.THOUGHT, "a"),
        (Role.LONG, " \n<think> if x < 3 and 2<y then </ x> </think>", TurnKind.THOUGHT, "if x < 3 and 2<y then </ x>"),
        (Role.LONG, "<think>a</think>.", TurnKind.THOUGHT, "a"),
        (Role.LONG, "<think>a</think> and on <think>b</think>", TurnKind.THOUGHT, "a"),
        (Role.SHORT, "<answer>\\boxed{2}</answer>", TurnKind.ANSWER, "\\boxed{2}"),
        (Role.SHORT, "<answer>why?</rethink>", TurnKind.RETHINK, "why?"),
        (Role.SHORT, "<answer>why?</rethink><answer>2</answer>", TurnKind.RETHINK, "why?"),
        (Role.SHORT, "<answer>a < b </ answer></answer>", TurnKind.ANSWER, "a < b </ answer>"),
    ],
)
def test_well_formed_turns(role, text, kind, body):
    parsed = parse_turn(role, text)
    assert (parsed.kind, parsed.body, parsed.fault) == (kind, body, "")


@pytest.mark.parametrize(
    ("role", "text", "fault"),
    [
        (Role.LONG, "", "does not begin with <think>"),
        (Role.LONG, "a</think>", "does not begin with <think>"),
        (Role.LONG, "so <think>a</think>", "does not begin with <think>"),
        (Role.LONG, "<Think>a</Think>", "does not begin with <think> (wrong case: <Think>)"),
        (Role.LONG, "<think>a", "has no closing </think>"),
        (Role.LONG, "<think>a</THINK>", "has no closing </think>"),
        (Role.LONG, "<think>a</thin", "has no closing </think>"),
        (Role.LONG, "<think><think>a</think></think>", "has <think> inside the turn"),
        (Role.LONG, "<think>a<ANSWER>b</think>", "has <answer> inside the turn"),
        (Role.LONG, "<think> \n</think>", "is empty"),
        (Role.LONG, "<answer>a</answer>", "does not begin with <think>"),
        (Role.SHORT, "<think>a</think>", "does not begin with <answer>"),
        (Role.SHORT, "<answer>a</think>", "has no closing </answer> or </rethink>"),
        (Role.SHORT, "<answer>a<answer>b</answer>", "has <answer> inside the turn"),
        (Role.SHORT, "<answer></rethink>", "is empty"),
    ],
)
def test_malformed_turns(role, text, fault):
    parsed = parse_turn(role, text)
    assert parsed.kind is None
    assert parsed.fault == fault
    assert parsed.text == text


pieces = st.lists(st.one_of(st.text(), st.sampled_from([*PROTOCOL_TAGS, "<Think>", "</ANSWER>", "<", "</", ">"])))


@given(role=st.sampled_from(Role), text=pieces.map("".join))
@example(role=Role.LONG, text="<think>" * 3000 + "</think>" * 3000)
def test_parser_reads_any_text(role, text):
    parsed = parse_turn(role, text)
    if parsed.kind is None:
        assert parsed.fault
        assert parsed.body == ""
    else:
        closing = next(tag for tag, kind in CLOSING_TAGS[role].items() if kind is parsed.kind)
        assert parsed.text.startswith(OPENING_TAG[role])
        assert parsed.text.endswith(closing)
        assert parsed.text in text
        assert parsed.body.strip() == parsed.body != ""
        inside = parsed.text[len(OPENING_TAG[role]) : -len(closing)]
        assert not any(tag in inside.lower() for tag in PROTOCOL_TAGS)


@given(body=st.text(min_size=1).filter(lambda s: s.strip() and not any(t in s.lower() for t in PROTOCOL_TAGS)))
def test_any_body_without_tags_is_kept(body):
    parsed = parse_turn(Role.LONG, f"<think>{body}</think>")
    assert parsed.kind is TurnKind.THOUGHT
    assert parsed.text == f"<think>{body}</think>"
    assert parsed.body == body.strip()


@given(text=pieces.map("".join), tail=st.text())
def test_text_after_the_closing_tag_changes_nothing(text, tail):
    whole = f"<answer>x{text}</answer>"
    first = parse_turn(Role.SHORT, whole)
    second = parse_turn(Role.SHORT, whole + tail)
    assert (first.kind, first.body) == (second.kind, second.body)


# ---------------------------------------------------------------------------------------------------- transcripts


def test_transcripts_of_both_roles():
    turns = [
        turn(Role.LONG, "<think>a</think>"),
        turn(Role.SHORT, "<answer>b</rethink>"),
        turn(Role.LONG, "<think>c</think>"),
    ]
    assert transcript("1+1?", turns[:2], Role.LONG, SETTINGS) == [
        Message(role="system", content="think"),
        Message(role="user", content="1+1?"),
        Message(role="assistant", content="<think>a</think>"),
        Message(role="user", content="<answer>b</rethink>"),
    ]
    assert transcript("1+1?", turns, Role.SHORT, SETTINGS) == [
        Message(role="user", content="1+1?\n\n<think>a</think>"),
        Message(role="assistant", content="<answer>b</rethink>"),
        Message(role="user", content="<think>c</think>\n\nAnswer now."),
    ]


def test_short_may_open():
    settings = dataclasses.replace(SETTINGS, opening_role=Role.SHORT)
    assert transcript("1+1?", [], Role.SHORT, settings) == [Message(role="user", content="1+1?")]
    rethink = [turn(Role.SHORT, "<answer>help</rethink>")]
    assert transcript("1+1?", rethink, Role.LONG, settings) == [
        Message(role="system", content="think"),
        Message(role="user", content="1+1?\n\n<answer>help</rethink>"),
    ]
    dialogue = talk(["<think>a</think>"], ["<answer>help</rethink>", "<answer>2</answer>"], settings)
    assert dialogue.stop_reason is StopReason.ANSWERED
    assert [t.role for t in dialogue.turns] == [Role.SHORT, Role.LONG, Role.SHORT]


@given(number=st.integers(1, 6), opening=st.sampled_from(Role))
def test_a_transcript_only_grows_at_its_end(number, opening):
    settings = dataclasses.replace(SETTINGS, opening_role=opening, max_short_turns=10)
    text = {Role.LONG: "<think>a</think>", Role.SHORT: "<answer>b</rethink>"}
    turns, role, before = [], opening, {Role.LONG: [], Role.SHORT: []}
    for _ in range(number):
        now = transcript("p", turns, role, settings)
        assert now[: len(before[role])] == before[role]
        alternating = [m.role for m in now if m.role != "system"]
        assert alternating == ["user", "assistant"] * (len(alternating) // 2) + ["user"]
        turns.append(turn(role, text[role]))
        before[role] = [*now, Message(role="assistant", content=text[role])]
        role = role.peer


# ---------------------------------------------------------------------------------------------------- stop reasons


def test_answered():
    dialogue = talk(["<think>a</think>", "<think>b</think>"], ["<answer>?</rethink>", "<answer>\\boxed{2}</answer>"])
    assert dialogue.stop_reason is StopReason.ANSWERED
    assert dialogue.answer_text == "\\boxed{2}"
    assert dialogue.num_rethinks == 1
    assert dialogue.num_turns(Role.LONG) == dialogue.num_turns(Role.SHORT) == 2
    # "<think>a</think>" has 16 characters, which the scripted generator counts as tokens, and there are two of them.
    assert dialogue.num_tokens(Role.LONG) == 32
    assert dialogue.num_tokens() == 32 + len("<answer>?</rethink>") + len("<answer>\\boxed{2}</answer>")


def test_turn_cap():
    dialogue = talk(["<think>a</think>"] * 2, ["<answer>?</rethink>"] * 2)
    assert dialogue.stop_reason is StopReason.TURN_CAP
    assert dialogue.answer_text == ""


@pytest.mark.parametrize(
    ("long", "short", "reason"),
    [
        (["nonsense"], [], StopReason.MALFORMED_LONG),
        (["<think>a</think>"], ["nonsense"], StopReason.MALFORMED_SHORT),
        (["<think>a</think>"], ["<answer>a<|im_end|></answer>"], StopReason.MALFORMED_SHORT),
    ],
)
def test_malformed(long, short, reason):
    dialogue = talk(long, short, forbidden=["<|im_end|>"])
    assert dialogue.stop_reason is reason
    assert dialogue.detail


def cut(text: str, num_tokens: int) -> Generation:
    return Generation(text=text, finish=FinishReason.LENGTH, num_prompt_tokens=1, num_tokens=num_tokens)


def test_truncated_turn():
    dialogue = talk([cut("<think>a", 100)], [])
    assert dialogue.stop_reason is StopReason.TRUNCATED


def test_a_turn_that_closes_at_its_very_limit_is_whole():
    dialogue = talk([cut("<think>a</think>", 100)], ["<answer>2</answer>"])
    assert dialogue.stop_reason is StopReason.ANSWERED


def test_budget_in_the_middle_of_a_turn():
    settings = dataclasses.replace(SETTINGS, max_dialogue_tokens=60)
    assert talk([cut("<think>a", 60)], [], settings).stop_reason is StopReason.TOKEN_BUDGET


def test_a_turn_that_no_limit_of_ours_cut_off():
    dialogue = talk([cut("<think>a", 60)], [])
    assert dialogue.stop_reason is StopReason.CONTEXT
    assert dialogue.detail == "the long model's context ended in the middle of its turn"


def test_budget_between_turns():
    settings = dataclasses.replace(SETTINGS, max_dialogue_tokens=16)
    dialogue = talk(["<think>a</think>"], [], settings)
    assert dialogue.stop_reason is StopReason.TOKEN_BUDGET
    assert len(dialogue.turns) == 1


def test_the_budget_limits_the_request():
    settings = dataclasses.replace(SETTINGS, max_dialogue_tokens=30)
    request = next_request("p", [turn(Role.LONG, "<think>a</think>")], settings)
    assert request.max_tokens == 30 - 16
    assert request.stop == ("</answer>", "</rethink>")


def test_engine_error():
    failed = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="dead")
    dialogue = talk(["<think>a</think>"], [failed])
    assert dialogue.stop_reason is StopReason.ENGINE_ERROR
    assert dialogue.detail == "short: dead"
    assert len(dialogue.turns) == 1


@given(
    long=st.lists(st.one_of(pieces.map("".join), st.just("<think>a</think>")), min_size=4, max_size=4),
    short=st.lists(
        st.one_of(pieces.map("".join), st.just("<answer>a</rethink>"), st.just("<answer>b</answer>")),
        min_size=4,
        max_size=4,
    ),
)
def test_every_dialogue_ends_with_a_named_reason(long, short):
    dialogue = talk(long, short)
    assert isinstance(dialogue.stop_reason, StopReason)
    assert 1 <= len(dialogue.turns) <= 4


@pytest.mark.parametrize("key", ["max_short_turns", "max_dialogue_tokens"])
def test_impossible_settings_are_refused(key):
    with pytest.raises(ValueError, match=key):
        dataclasses.replace(SETTINGS, **{key: 0})
