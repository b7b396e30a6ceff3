# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Thoughts concatenate to their trace whatever it is; a model's blocks are taken only where they are sound."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort_verl.chains.chunk import (
    UNASSIGNED,
    Block,
    BlockError,
    Chunker,
    ChunkSettings,
    boundary_f1,
    by_blocks,
    by_rules,
    chunk,
    chunk_messages,
    read_blocks,
    split_steps,
)
from longshort_verl.types import Chain, ChainOutcome, FinishReason, Generation, Problem
from tests.support.scripted import ScriptedGenerator

SETTINGS = {
    chunker: ChunkSettings(chunker=chunker, min_steps=2, max_attempts=3, max_tokens=500, temperature=0.0)
    for chunker in Chunker
}
texts = st.text(alphabet=st.sampled_from("ab \n\t\r=:,.<>/\\WNthinkow\u00a0\u2028√{}"), max_size=200) | st.text()


def chain(trace: str) -> Chain:
    problem = Problem(prompt="1+1?", answer="2", source="test", index=0)
    return Chain(key="1", outcome=ChainOutcome.READ, problem=problem, text=trace)


def run(trace: str, chunker: Chunker = Chunker.RULES, *replies: str | Generation) -> Chain:
    return asyncio.run(chunk(chain(trace), SETTINGS[chunker], ScriptedGenerator(replies)))


@given(trace=texts, chunker=st.sampled_from([Chunker.RULES, Chunker.STEPS]))
def test_thoughts_concatenate_to_the_trace(trace, chunker):
    chunked = run(trace, chunker)
    if chunked.outcome is ChainOutcome.CHUNKED:
        assert "".join(thought.text for thought in chunked.thoughts) == trace
        assert sum(thought.num_steps for thought in chunked.thoughts) == len(split_steps(trace))
    else:
        assert chunked.thoughts == ()


@given(trace=texts, ends=st.lists(st.integers(1, 40)))
def test_blocks_and_what_they_leave_concatenate_to_the_trace(trace, ends):
    steps = split_steps(trace)
    ends = sorted({end for end in ends if end <= len(steps)})
    if not ends:
        return
    starts = [1, *(end + 1 for end in ends[:-1])]
    blocks = [Block(first=first, last=last, kind="x") for first, last in zip(starts, ends, strict=True)]
    thoughts = by_blocks(steps, blocks)
    assert "".join(thought.text for thought in thoughts) == trace
    assert [thought.kind for thought in thoughts[len(ends) :]] == [UNASSIGNED] * (ends[-1] < len(steps))


@given(steps=st.lists(st.text(alphabet="ab= ", min_size=1).filter(str.strip), min_size=1, max_size=20))
def test_steps_are_what_stands_between_blank_lines(steps):
    assert [step.strip() for step in split_steps("\n\n".join(steps))] == [step.strip() for step in steps]
    assert [step.strip() for step in split_steps("\n \n\n".join(steps))] == [step.strip() for step in steps]


def test_the_authors_own_blocks(shared_data):
    (example,) = json.loads((shared_data / "long_cot_chunked_example.json").read_text())
    steps = split_steps(example["thought"])
    assert [step.strip() for step in steps] == [step.strip() for step in example["thought"].split("\n\n")]
    assert len(steps) == 150
    blocks = read_blocks(json.dumps(example["block"], ensure_ascii=False), len(steps))
    assert len(blocks) == 8
    thoughts = by_blocks(steps, blocks)
    assert [thought.num_steps for thought in thoughts] == [4, 8, 16, 20, 16, 27, 40, 2, 17]
    assert thoughts[-1].kind == UNASSIGNED
    assert "".join(thought.text for thought in thoughts) == example["thought"]
    rules = by_rules(steps, 2)
    assert sum(thought.num_steps for thought in rules) == 150


def test_rules_by_hand():
    steps = [
        "<think>\nOkay, so we need the sum.",  # understanding
        "First, add:",
        "2 + 2 = 4",  # introduced
        "So that makes 4.",
        "Wait, let me double-check:",  # verification
        "2 + 2 = 4. Yes.",
        "Alternatively, count on fingers.",  # alternative
        "1, 2, 3, 4.",
        "So the answer is 4.\n</think>",  # conclusion
        "The sum is 4.",  # write-up
    ]
    thoughts = by_rules([step + "\n\n" for step in steps], 2)
    assert [(thought.kind, thought.num_steps) for thought in thoughts] == [
        ("understanding", 4),
        ("verification", 2),
        ("alternative", 2),
        ("conclusion", 1),
        ("write-up", 1),
    ]


@pytest.mark.parametrize(
    ("trace", "outcome", "num"),
    [
        ("", ChainOutcome.EMPTY, 0),
        (" \n\n\t ", ChainOutcome.EMPTY, 0),
        ("<think>\n\n</think>", ChainOutcome.ONLY_TAGS, 0),
        ("no blank line at all, one step", ChainOutcome.CHUNKED, 1),
        ("one\ntwo\nthree", ChainOutcome.CHUNKED, 1),
        ("\n\n  leading\n\ntrailing\n\n\n", ChainOutcome.CHUNKED, 1),
    ],
)
def test_odd_traces_have_a_name(trace, outcome, num):
    chunked = run(trace)
    assert (chunked.outcome, len(chunked.thoughts)) == (outcome, num)


@pytest.mark.parametrize("trace", ["Wait, x.\n\n" * 10_000, "\n \n" * 50_000 + "x", "a" * 1_000_000, "\n" * 1_000_000])
def test_large_traces_take_no_time_to_speak_of(trace):
    start = time.process_time()
    run(trace)
    run(trace, Chunker.STEPS)
    assert time.process_time() - start < 10


GOOD = '[{"first": 1, "last": 2, "kind": "plan"}, {"first": 3, "last": 3, "kind": "check"}]'
TRACE = "a\n\nb\n\nc\n\nd"


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f"Sure! Here [they] are:\n```json\n{GOOD}\n```\nAnything {{else}}?",
        f'{{"blocks": {GOOD}}}',
        '{"block 1": {"start": 1, "end": 2, "block type": "plan"}, "block 2": {"start": 3, "end": 3, "type": "check"}}',
    ],
)
def test_a_models_blocks_are_read(reply):
    assert read_blocks(reply, 4) == [Block(first=1, last=2, kind="plan"), Block(first=3, last=3, kind="check")]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", "no JSON"),
        ("I cannot do that.", "no JSON"),
        ("[]", "no JSON"),
        ("[1, 2]", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('[{"first": 1, "last": 2, "kind": "pl', "no JSON"),
        ('[{"first": 2, "last": 3}]', "a gap before block 1: it begins at step 2, not at 1"),
        ('[{"first": 1, "last": 1}, {"first": 3, "last": 4}]', "a gap before block 2"),
        ('[{"first": 1, "last": 2}, {"first": 2, "last": 4}]', "an overlap before block 2"),
        ('[{"first": 1, "last": 2}, {"first": 4, "last": 3}]', "block 2 is reversed: steps 4 to 3"),
        ('[{"first": 1, "last": 5}]', "block 1 is out of range: steps 1 to 5 of 4"),
        ('[{"first": 0, "last": 1}]', "block 1 is out of range"),
        ('[{"first": "1", "last": 2}]', "block 1 has '1' and 2"),
        ('[{"first": true, "last": 2}]', "block 1 has True"),
        ('[{"first": 1}]', "block 1 has 1 and None"),
    ],
)
def test_unsound_blocks_are_refused(reply, fault):
    with pytest.raises(BlockError, match=fault):
        read_blocks(reply, 4)


@given(reply=texts)
def test_no_reply_breaks_the_reader(reply):
    with contextlib.suppress(BlockError):
        read_blocks(reply, 4)


def test_a_model_is_asked_again():
    chunked = run(TRACE, Chunker.LLM, "nonsense", GOOD)
    assert chunked.outcome is ChainOutcome.CHUNKED
    assert [thought.text for thought in chunked.thoughts] == ["a\n\nb\n\n", "c\n\n", "d"]
    assert [thought.kind for thought in chunked.thoughts] == ["plan", "check", UNASSIGNED]
    assert chunked.cost.num_tokens == len("nonsense") + len(GOOD.replace(" ", ""))


def test_it_is_not_asked_for_the_same_reply_again():
    model = ScriptedGenerator(["nonsense", "nonsense", GOOD])
    asyncio.run(chunk(chain(TRACE), SETTINGS[Chunker.LLM], model))
    assert [sampling.temperature for _, sampling in model.requests] == [0.0, 0.5, 0.5]


def test_the_number_of_attempts_is_limited():
    chunked = run(TRACE, Chunker.LLM, "no", "no", '[{"first": 2, "last": 3}]')
    assert chunked.outcome is ChainOutcome.BAD_REPLY
    assert chunked.detail == "a gap before block 1: it begins at step 2, not at 1"


def test_an_engine_that_fails_has_a_name():
    error = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="429")
    chunked = run(TRACE, Chunker.LLM, error)
    assert (chunked.outcome, chunked.detail) == (ChainOutcome.ENGINE_ERROR, "429")


def test_without_a_model_llm_is_refused():
    with pytest.raises(ValueError, match="chunk.chunker=llm needs a model"):
        asyncio.run(chunk(chain(TRACE), SETTINGS[Chunker.LLM]))


def test_the_question_holds_problem_and_numbered_steps():
    system, user = chunk_messages("1+1?", split_steps("a\n\nb"))
    assert (system.role, user.role) == ("system", "user")
    assert "1+1?" in user.content
    assert "Step 1: a\n\nStep 2: b" in user.content


@pytest.mark.parametrize(
    ("found", "expected", "score"),
    [
        ([5, 13], [5, 13], 1.0),
        ([4, 14], [5, 13], 1.0),
        ([3], [5], 0.0),
        ([5, 6], [5], 2 / 3),
        ([], [], 1.0),
        ([], [3], 0.0),
    ],
)
def test_boundary_agreement_by_hand(found, expected, score):
    assert boundary_f1(found, expected) == pytest.approx(score)
