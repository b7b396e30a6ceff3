# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The completion of short thoughts: what is asked, which replies are refused, and a chain of five thoughts by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from longshort_verl.cold_start.dialogues import ColdStartOutcome, DialogueMaker
from longshort_verl.cold_start.files import write_cold_start
from longshort_verl.cold_start.select import Keep, Selection, SelectionSettings, running_max
from longshort_verl.cold_start.transcripts import Rows
from longshort_verl.cold_start.writer import Writer, WriterKind, WriterSettings, completion_schema
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.files.journal import Journal
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.types import Chain, ChainOutcome, FinishReason, Generation, Problem, Role, Thought
from tests.support.scripted import ScriptedGenerator

GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=100, max_workers=1)
FIRST = "<think>We need 3 apples and twice as many pears.\n\n"
FOURTH = "So all together it is 3 + 6 = 9.\n\n"
CHAIN = (
    (FIRST, "problem understanding"),
    ("Hmm, twice 3, let me think about it.\n\n", "calculation"),
    ("Wait, is that right? Yes, it is.\n\n", ""),
    (FOURTH, "sum"),
    ("Let me check it once more. 9 - 6 = 3.\n\n", "verification"),
)


def chain(thoughts=CHAIN, key="c"):
    text = "".join(text for text, _ in thoughts) + "</think>" + "As we saw above, " * 20 + "it is \\boxed{9}."
    return Chain(
        key=key,
        outcome=ChainOutcome.SCORED,
        problem=Problem(prompt="How many fruits?", answer="9", source="test", index=0),
        text=text,
        thoughts=tuple(Thought(text=text, kind=kind, num_steps=1) for text, kind in thoughts),
        lengths=tuple(len(text) for text, _ in thoughts),
    )


def dialogue_settings(**changes):
    settings = {
        "opening_role": Role.LONG,
        "max_short_turns": 3,
        "max_turn_tokens": {Role.LONG: 200, Role.SHORT: 200},
        "max_dialogue_tokens": 1000,
        "system_prompt": {Role.LONG: "Think.", Role.SHORT: ""},
        "must_answer_notice": "",
    }
    return DialogueSettings(**(settings | changes))


def completion(contents):
    return json.dumps({"Completed Steps": [{"thought": n, "content": text} for n, text in contents]})


GOOD = completion([(2, "Pears: $2 \\cdot 3 = 6$."), (3, "That is right."), (5, "9 - 6 = 3.")])


def made(
    folder, replies, one=None, chosen=(0, 3), *, dialogue=None, max_attempts=2, structured=False, says=True, **changes
):
    """The dialogue of a chain, and the generator that was asked."""
    settings = WriterSettings(
        kind=WriterKind.COMPLETE,
        max_words=1,
        max_tokens=50,
        temperature=0.1,
        structured=structured,
        says_answer=says,
        max_attempts=max_attempts,
        seed=0,
    )
    generator = ScriptedGenerator(replies)
    with Journal(folder / "writer.jsonl", {}) as journal:
        maker = DialogueMaker(
            selection=SelectionSettings(
                keep=Keep.IMPORTANT, by=Selection.SHARE, share=0.9, threshold=0.1, quantile=0.9, answers=True, seed=0
            ),
            writer=Writer(generator, journal, settings, ("<|im_end|>",)),
            rethink_text="go on",
            dialogue=dialogue or dialogue_settings(**changes),
            grade=lambda text, gold: grade(text, gold, GRADING),
            count_tokens=len,
        )
        return asyncio.run(maker.make(one or chain(), frozenset(chosen))), generator


def texts(dialogue):
    return [turn.parsed.text for turn in dialogue.turns]


DIALOGUE = [
    "<think>We need 3 apples and twice as many pears.</think>",
    "<answer>Pears: $2 \\cdot 3 = 6$.\n\nThat is right.</rethink>",
    "<think>So all together it is 3 + 6 = 9.</think>",
    "<answer>9 - 6 = 3.\n\\boxed{9}</answer>",
]


def test_a_chain_of_five_thoughts_by_hand(tmp_path):
    # Thoughts 1 and 4 are long: 3 is only as important as 1. 2 and 3 are neighbours and become one short turn.
    important = running_max([0.4, 0.2, 0.4, 0.45, -0.25])
    found, generator = made(tmp_path, [GOOD], chosen=important)
    assert found.outcome is ColdStartOutcome.KEPT, found.detail
    assert texts(found) == DIALOGUE
    ((messages, sampling),) = generator.requests
    assert [message.role for message in messages] == ["system", "user"]
    # A thought without a kind is "unnamed"; of missing thoughts no text is shown.
    assert messages[1].content == (
        "Problem:\nHow many fruits?\n\n"
        "Solution:\n"
        "Thought 1: We need 3 apples and twice as many pears.\n\n"
        "Thought 2: (missing) calculation\n\n"
        "Thought 3: (missing) unnamed\n\n"
        "Thought 4: So all together it is 3 + 6 = 9.\n\n"
        "Thought 5: (missing) verification\n\n"
        "Missing thoughts:\nThought 2: calculation\nThought 3: unnamed\nThought 5: verification"
    )
    assert '{"Completed Steps": [{"thought": <number>, "content": <text>}, ...]}' in messages[0].content
    # 50 tokens for each of three missing thoughts.
    assert (sampling.max_tokens, sampling.temperature) == (150, 0.1)

    other = replace(found, key="d", problem=Problem(prompt="And now?", answer="9", source="test", index=0))
    rows = {}
    for kind in Rows:
        write_cold_start([found, other], tmp_path / kind.value, dialogue_settings(), rows=kind, val_share=0.5, seed=0)
        for role in Role:
            read = [
                row
                for side in ("train", "val")
                for row in pq.read_table(tmp_path / kind.value / f"{role.value}_{side}.parquet").to_pylist()
                if row["extra_info"]["key"] == "c"
            ]
            assert {row["extra_info"]["rows"] for row in read} == {kind.value}
            rows[kind, role] = [[(m["role"], m["content"]) for m in row["messages"]] for row in read]
    long = [
        ("system", "Think."),
        ("user", "How many fruits?"),
        ("assistant", DIALOGUE[0]),
        ("user", DIALOGUE[1]),
        ("assistant", DIALOGUE[2]),
    ]
    short = [
        ("user", f"How many fruits?\n\n{DIALOGUE[0]}"),
        ("assistant", DIALOGUE[1]),
        ("user", DIALOGUE[2]),
        ("assistant", DIALOGUE[3]),
    ]
    assert rows == {
        (Rows.TRANSCRIPT, Role.LONG): [long],
        (Rows.TRANSCRIPT, Role.SHORT): [short],
        (Rows.TURN, Role.LONG): [long[:3], long],
        (Rows.TURN, Role.SHORT): [short[:2], short],
    }


def test_a_killed_run_asks_nothing_again(tmp_path):
    found, _ = made(tmp_path, ["no", GOOD])
    lines = (tmp_path / "writer.jsonl").read_text().splitlines()
    assert [json.loads(line).get("key") for line in lines] == [None, "c/0", "c/1"]
    again, silent = made(tmp_path, [])
    assert texts(again) == texts(found) == DIALOGUE
    assert not silent.requests
    # After the first reply was journaled, and nothing more.
    (tmp_path / "writer.jsonl").write_text("\n".join(lines[:2]) + "\n")
    again, generator = made(tmp_path, [GOOD])
    assert texts(again) == DIALOGUE
    assert [sampling.temperature for _, sampling in generator.requests] == [0.5]


def test_a_code_fence_around_the_reply_and_another_order_are_allowed(tmp_path):
    entries = [(5, "9 - 6 = 3."), (3, "That is right."), (2, "Pears: $2 \\cdot 3 = 6$.")]
    found, _ = made(tmp_path, [f"\n```json\n{completion(entries)}\n```\n"])
    assert texts(found) == DIALOGUE


def entries(*contents):
    return completion(zip((2, 3, 5), contents, strict=True))


BAD = {
    "prose before": ("Here it is: " + GOOD, "not JSON alone"),
    "prose after": (GOOD + " Done.", "not JSON alone"),
    "prose around a fence": (f"Here:\n```json\n{GOOD}\n```", "not JSON alone"),
    "cut": (GOOD[:-5], "not JSON alone"),
    "nothing": ("", "not JSON alone"),
    "deep": ("[" * 100_000, "not JSON alone"),
    "a huge number": (GOOD.replace(" 2,", f" {'9' * 5000},"), "not JSON alone"),
    "a list": ("[]", 'not an object with a list "Completed Steps" alone'),
    "another key": (GOOD.replace("Completed Steps", "Steps"), 'not an object with a list "Completed Steps" alone'),
    "more keys": (GOOD[:-1] + ', "note": "x"}', 'not an object with a list "Completed Steps" alone'),
    "no list": ('{"Completed Steps": {}}', 'not an object with a list "Completed Steps" alone'),
    "a key twice": (GOOD.replace('"thought": 3', '"thought": 1, "thought": 3'), "an object has the same key twice"),
    "an entry that is text": ('{"Completed Steps": ["x"]}', 'entry 1 is not an object with "thought" and "content"'),
    "an entry with a kind": (GOOD.replace('"thought": 2', '"kind": 0, "thought": 2'), "entry 1 is not an object"),
    "a number as text": (GOOD.replace(" 2,", ' "2",'), "entry 1 has no number"),
    "a truth": (GOOD.replace(" 2,", " true,"), "entry 1 has no number"),
    "a content that is no text": (GOOD.replace('"That is right."', "7"), "no text as its content"),
    "one too few": (completion([(2, "a"), (3, "b")]), "2 entries for 3 missing thoughts"),
    "one too many": (completion([(2, "a"), (3, "b"), (5, "c"), (6, "d")]), "entry 4 is for thought 6, which does not"),
    "split": (completion([(2, "a"), (2, "b"), (3, "c"), (5, "d")]), "entry 2 is for thought 2 again"),
    "renumbered": (completion([(1, "a"), (2, "b"), (3, "c")]), "entry 1 is for thought 1, which is given"),
    "a given thought": (
        completion([(2, "a"), (3, "b"), (4, "c"), (5, "d")]),
        "entry 3 is for thought 4, which is given",
    ),
    "counted from 0": (completion([(0, "a"), (2, "b"), (4, "c")]), "entry 1 is for thought 0, which does not exist"),
    "given text": (entries("a", "so ALL together it\nis 3 + 6 = 9.", "c"), "entry 2 repeats the text of thought 4"),
    "given text and more": (
        entries("As said: We need 3 apples and twice as many pears. Now on.", "b", "c"),
        "entry 1 repeats the text of thought 1",
    ),
    "a part of given text": (
        entries("We need 3 apples and twice as many pears", "b", "c"),
        "entry 1 repeats the text of thought 1",
    ),
    "a tag": (entries("a", "b </Think>", "c"), "thought 3: the writer wrote </think>"),
    "an escaped tag": (entries("a", "b <answer>", "c").replace("<", "\\u003c"), "thought 3: the writer wrote <answer>"),
    "a control token": (entries("a", "b", "c<|im_end|>"), "thought 5: the writer wrote <|im_end|>"),
    "a kind": (entries("a", "Verification:", "c"), "thought 3: the writer wrote the name of a kind alone"),
    "a kind by number": (entries("a", "Thought 3: verification", "c"), "thought 3: the writer wrote the name"),
    "a kind as asked": (entries("a", "Step 3: (missing) Verification", "c"), "thought 3: the writer wrote the name"),
    "a line of the request": (entries("(missing) calculation", "b", "c"), "thought 2: the writer wrote the name of"),
    "empty": (entries("a", "b", " \n"), "thought 5: the writer wrote nothing"),
    "half a surrogate pair": (entries("a", "b", "c\ud800"), "entry 3 is not Unicode text"),
    "LaTeX with one backslash": (
        entries("a", "b", "XXfrac{1}{2}").replace("XX", "\\"),
        "entry 3 has LaTeX whose backslashes JSON reads as control characters",
    ),
    "cut by its limit": (
        Generation(text=GOOD, finish=FinishReason.LENGTH, num_prompt_tokens=1, num_tokens=150),
        "did not end within 150 tokens",
    ),
    "no room in its context": (
        Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=9, num_tokens=0),
        "did not end within 150 tokens; its context ended after 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_reply_is_asked_again_and_then_named(tmp_path, name):
    reply, detail = BAD[name]
    found, generator = made(tmp_path / "again", [reply, GOOD])
    assert texts(found) == DIALOGUE
    (_, first), (_, second) = generator.requests
    assert (first.temperature, second.temperature) == (0.1, 0.5)
    assert first.seed != second.seed
    found, generator = made(tmp_path / "never", [reply] * 3, max_attempts=3)
    assert found.outcome is ColdStartOutcome.WRITER
    assert detail in found.detail
    assert (found.turns, len(generator.requests)) == ((), 3)


@pytest.mark.parametrize("latex", ["\\boxed{1}", "\\frac12", "\\rho", "\\times 2", "\\theta", "\\neq 1", "\\nabla f"])
def test_latex_whose_first_letter_is_an_escape_is_refused(tmp_path, latex):
    found, _ = made(tmp_path, [entries("a", "b", "c XX").replace("XX", latex)] * 2)
    assert "LaTeX" in found.detail
    # Line breaks and tabs that stand for themselves are text.
    found, _ = made(tmp_path / "text", [entries("a", "b\n\nNow: c\n\tE", f"c {latex}")])
    assert found.outcome is ColdStartOutcome.KEPT, found.detail


def test_short_results_may_recur(tmp_path):
    one = chain([("a = 3\n\n", "x"), ("b\n\n", "y"), ("c\n\n", "z")])
    found, _ = made(tmp_path, [completion([(2, "As a = 3, fine."), (3, "So 9.")])], one, chosen=(0,))
    assert found.outcome is ColdStartOutcome.KEPT, found.detail
    found, _ = made(tmp_path / "same", [completion([(2, "a  = 3"), (3, "So 9.")])] * 2, one, chosen=(0,))
    assert "entry 1 repeats the text of thought 1" in found.detail


def test_the_engine_is_held_to_an_entry_of_each_missing_thought(tmp_path):
    (_, sampling) = made(tmp_path / "held", [GOOD], structured=True)[1].requests[0]
    assert sampling.json_schema == completion_schema([2, 3, 5])
    assert made(tmp_path / "free", [GOOD])[1].requests[0][1].json_schema is None


# The box that follows is the chain's; small teachers conclude something else in a fifth of the chains.
@pytest.mark.parametrize(
    ("written", "answer", "unsaid"),
    [
        ("So it is 8.", "9", "9"),
        ("So it is 19 or 90 or 9.5.", "9", "9"),
        ("So it is 9.", "9", ""),
        ("It is $1,200.50$.", "1200.5", ""),
        ("It is 1200{,}000 or 1,200,000.", "1200000", ""),
        ("From -4 on.", "4", ""),
        ("It is .5.", "0.5", ""),
        ("At x = 1 and y = 3.", "(1, 3)", ""),
        ("At x = 1.", "(1, 3)", "3"),
        ("It is three quarters.", "\\frac{3}{4}", "3"),
        ("Anything.", "\\text{east}", ""),
        ("It is 9" + "9" * 100_000, "9", "9"),
    ],
)
def test_a_reply_has_to_say_the_numbers_of_the_answer(tmp_path, written, answer, unsaid):
    base = chain([("We begin.\n\n", "x"), ("b\n\n", "y")])
    assert base.problem
    one = replace(base, text=base.text.replace("{9}", f"{{{answer}}}"), problem=replace(base.problem, answer=answer))
    found, _ = made(tmp_path / "asked", [completion([(2, written)])] * 2, one, chosen=(0,), max_dialogue_tokens=10**6)
    detail = f"no thought says the {unsaid} of the answer {answer}"
    assert (found.outcome, found.detail) in [(ColdStartOutcome.WRITER, detail), (ColdStartOutcome.KEPT, "")]
    assert (found.outcome is ColdStartOutcome.KEPT) is (not unsaid)


def test_an_engine_failure_is_no_bad_reply(tmp_path):
    broken = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")
    found, generator = made(tmp_path, ["no", broken])
    assert (found.outcome, found.detail) == (ColdStartOutcome.ENGINE_ERROR, "gone")
    assert len(generator.requests) == 2
    # The next run resumes at the second attempt.
    found, generator = made(tmp_path, [GOOD])
    assert texts(found) == DIALOGUE


def test_only_thoughts_that_become_short_turns_are_asked_for(tmp_path):
    # Three important thoughts and two short turns: thoughts 2 and 4, the nearest, are joined, and 3 is dropped. The
    # first one is dropped because the long role opens. What remains is numbered anew: 1 and 2 long, 3, 4 long, 5.
    names = [("drop me", "a"), ("L1 ", "b"), ("x", "c"), ("L2 ", "d"), ("yyyy", "e"), ("L3", "f"), ("z", "g")]
    one = chain([(text + "\n\n", kind) for text, kind in names])
    reply = completion([(3, "third"), (5, "fifth")])
    found, generator = made(tmp_path, [reply], one, chosen=(1, 3, 5), says=False, max_short_turns=2)
    assert texts(found) == [
        "<think>L1 \n\nL2</think>",
        "<answer>third</rethink>",
        "<think>L3</think>",
        "<answer>fifth\n\\boxed{9}</answer>",
    ]
    assert generator.requests[0][0][1].content.endswith(
        "Solution:\nThought 1: L1\n\nThought 2: L2\n\nThought 3: (missing) e\n\nThought 4: L3\n\n"
        "Thought 5: (missing) g\n\nMissing thoughts:\nThought 3: e\nThought 5: g"
    )


def test_a_chain_without_missing_thoughts_asks_nothing(tmp_path):
    found, generator = made(tmp_path, [], chain(CHAIN[:2]), chosen=(0, 1))
    assert found.outcome is ColdStartOutcome.KEPT, found.detail
    assert texts(found)[1:] == ["<answer>\\boxed{9}</answer>"]
    assert not generator.requests


def test_a_short_role_that_opens_writes_the_first_thoughts(tmp_path):
    found, _ = made(
        tmp_path,
        [completion([(1, "first"), (3, "third")])],
        chain(CHAIN[:3]),
        chosen=(1,),
        says=False,
        opening_role=Role.SHORT,
    )
    assert texts(found) == [
        "<answer>first</rethink>",
        "<think>Hmm, twice 3, let me think about it.</think>",
        "<answer>third\n\\boxed{9}</answer>",
    ]
