# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Thoughts concatenate to their trace whatever it is; a model's blocks are taken only where they are sound."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshort_verl.chains.chunk import (
    UNASSIGNED,
    Block,
    BlockError,
    Chunker,
    ChunkSettings,
    boundaries,
    boundary_f1,
    by_blocks,
    by_rules,
    chunk,
    chunk_messages,
    read_blocks,
    read_reply,
    reply_schema,
    split_lines,
    split_steps,
)
from longshort_verl.types import Chain, ChainOutcome, FinishReason, Generation, Problem
from tests.support.scripted import ScriptedGenerator

SETTINGS = {
    chunker: ChunkSettings(
        chunker=chunker, min_chars=200, max_attempts=3, max_tokens=500, temperature=0.0, structured=False
    )
    for chunker in Chunker
}
texts = (
    st.text(alphabet=st.sampled_from("ab \n\t\r=:,.<>/\\WNthinkow\u00a0\u2028√{}"), max_size=200)
    | st.text()
    | st.lists(
        st.sampled_from(
            ["1. ", "2) ", "Step 2: ", "**Step 3**", "### ", "First, ", ". Next, ", "\n", "\n\n", " ", "\r\n", "$$",
             "```", "\\[", "\\]", "\n```\n", "\\begin{a}", "\\end{a}", "</think>", "Wait, ", "the sum of them", "x = 1"]
        ),
        max_size=60,
    ).map("".join)
)  # fmt: skip


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
        split = split_lines if chunker is Chunker.RULES else split_steps
        assert sum(thought.num_steps for thought in chunked.thoughts) == len(split(trace))
        assert all(thought.text.strip() and thought.kind for thought in chunked.thoughts)
    else:
        assert chunked.thoughts == ()


def scripted_blocks(ends: list[int]) -> str:
    """A model's reply of blocks that end at the steps ``ends``, counted from 0."""
    starts = [0, *(end + 1 for end in ends[:-1])]
    return json.dumps([{"first": a, "last": b, "kind": "x"} for a, b in zip(starts, ends, strict=True)])


@given(trace=texts, ends=st.sets(st.integers(0, 40), min_size=1))
def test_blocks_and_what_they_leave_concatenate_to_the_trace(trace, ends):
    steps = split_steps(trace)
    ends = sorted(end for end in ends if end < len(steps))
    if not ends:
        return
    chunked = run(trace, Chunker.LLM, scripted_blocks(ends))
    if chunked.outcome is ChainOutcome.ONLY_TAGS:
        return
    assert "".join(thought.text for thought in chunked.thoughts) == trace
    assert [thought.kind for thought in chunked.thoughts[len(ends) :]] == [UNASSIGNED] * (ends[-1] < len(steps) - 1)


@given(steps=st.lists(st.text(alphabet="ab= ", min_size=1).filter(str.strip), min_size=1, max_size=20))
def test_steps_are_what_stands_between_blank_lines(steps):
    assert [step.strip() for step in split_steps("\n\n".join(steps))] == [step.strip() for step in steps]
    assert [step.strip() for step in split_steps("\n \n\n".join(steps))] == [step.strip() for step in steps]


def test_the_authors_own_blocks(shared_data):
    (example,) = json.loads((shared_data / "long_cot_chunked_example.json").read_text())
    steps = split_steps(example["thought"])
    assert [step.strip() for step in steps] == [step.strip() for step in example["thought"].split("\n\n")]
    assert len(steps) == 150
    blocks = read_blocks(example["block"], len(steps))
    assert len(blocks) == 8
    # Their code shows the steps from "Step 1" and takes steps[start - 1 : end]; their first block is steps 1 to 4.
    assert (blocks[0], blocks[-1].last) == (Block(first=0, last=3, kind="问题理解"), 132)
    thoughts = by_blocks(steps, blocks)
    assert [thought.num_steps for thought in thoughts] == [4, 8, 16, 20, 16, 27, 40, 2, 17]
    assert thoughts[-1].kind == UNASSIGNED
    assert "".join(thought.text for thought in thoughts) == example["thought"]


def test_rules_on_the_authors_own_chain(shared_data):
    (example,) = json.loads((shared_data / "long_cot_chunked_example.json").read_text())
    blocks = by_blocks(split_steps(example["thought"]), read_blocks(example["block"], 150))
    # 14 of 23 boundaries match (rules 15, authors 8, hits 7): 2 * 7 / 23.
    assert boundary_f1(boundaries(by_rules(example["thought"], 200)), boundaries(blocks)) == pytest.approx(14 / 23)


WORK = "and so on " * 25
"""250 characters of work without a marker."""

RULES = {
    "R1": [
        ("understanding", "<think>\nOkay, so we need the sum.\n\n", f"Add:\n\n2 + 2 = 4\n\n{WORK}\n\n"),
        ("reflection", f"Wait, I may be wrong.\n\n{WORK}\n\n"),
        ("verification", f"Let me double-check:\n\n2 + 2 = 4. Yes.\n\n{WORK}\n\n"),
        ("alternative", f"Alternatively, count on fingers. Wait, how?\n\n{WORK}\n\n"),
        ("subgoal", f"Now, the fingers are 1, 2, 3, 4.\n\n{WORK}\n\n"),
        ("conclusion", "So the answer is 4.\n</think>\n\n"),
        ("write-up", "The sum is 4.\n\n1. Two.\n\n2. Two more.\n\nTherefore, the answer is 4."),
    ],
    "a short check is part of the next goal's neighbour": [
        ("planning", f"Let me start with z. {WORK}\n\nSo z = 2.\n\n", "Wait, let me check: yes.\n\n"),
        ("subgoal", f"Now y. {WORK}\n\n"),
    ],
    "numbered": [
        ("planning", "To find the total, follow these steps:\n\n"),
        ("step", "1. **April**: 48 clips.\n   - This is given.\n   - Therefore, the answer is not yet known.\n\n"),
        ("step", "2. **May**: half as many.\n   \\[\n   48 / 2 = 24\n\n   \\]\n\n"),
        ("step", "3. **Total**: add\n   \\[ 48 + 24 = 72 \\]\n\n"),
        ("conclusion", "Therefore, she sold \\(\\boxed{72}\\) clips."),
    ],
    "numbered without blank lines": [
        ("step", "1) April is 48.\n"),
        ("step", "2) May is 48/2 = 24.\n"),
        ("step", "3) The sum is 48 + 24 = 72.\n"),
        ("conclusion", "The answer is 72."),
    ],
    "a list within a thought": [
        ("understanding", f"We know two facts:\n\n1. x = y + 1 is given.\n\n2. y = 2 is given.\n\n{WORK * 4}\n\n"),
        ("subgoal", f"Now, x follows. {WORK}"),
    ],
    "Step 1:": [
        ("step", "Step 1: Find April.\n48\n"),
        ("step", "Step 2: Find May.\n48/2 = 24\n"),
        ("step", "Step 3: Add.\n48+24 = 72"),
    ],
    "Step 1: on one line": [
        ("step", "Step 1: April is 48. "),
        ("step", "Step 2: May is 24. "),
        ("step", "Step 3: 72."),
    ],
    "**Step 1**": [
        ("step", "**Step 1**\n\nShe sold 48 clips in April.\n\n"),
        ("step", "**Step 2**\n\nShe sold 24 clips in May.\n\n"),
        ("conclusion", "**Final Answer**\n\nAll are 72 clips."),
    ],
    "### Step 1": [
        ("step", "# Solution\n\n### Step 1: April\nShe sold 48 clips.\n\nThen she stopped.\n\n"),
        ("step", "### Step 2: May\nShe sold 24 clips.\n"),
        ("step", "### Step 3: Total\n72"),
    ],
    "First, Next": [
        ("planning", "First, she sold 48 clips in April. "),
        ("continuation", "Next, she sold half as many in May, which is 24. "),
        ("continuation", "Then we add both, 48 + 24 = 72. "),
        ("continuation", "Finally, we are done."),
    ],
    "display formulas": [
        ("understanding", "In May she sold half as many as in April:\n\\[ 48/2 = 24 \\]\n"),
        ("step", "Altogether she sold the sum of both months:\n$$\n48 + 24\n\n= 72\n$$\n"),
        ("step", "So the number of clips that she sold is 72."),
    ],
    "single line breaks": [
        ("understanding", "Natalia sold 48/2 = 24 clips in May.\n"),
        ("step", "She sold 48+24 = 72 clips altogether.\n"),
        ("step", "Each clip costs 2 dollars, which makes 144 dollars."),
    ],
    "nothing is cut inside": [
        ("understanding", "Solve:\n\\begin{a}\nx = 1\\\\\n\nNext, y = \\begin{a}2\\end{a}\n\nThen, z\n\\end{a}\n"),
        ("continuation", "Next, we run it.\n```python\nfirst = 1\n\nNext = 2\n# Step 3: print\nprint(Next)\n```\n"),
        ("step", "The printed result of this program is 3."),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rules_by_hand(name):
    rows = [(kind, "".join(texts)) for kind, *texts in RULES[name]]
    thoughts = by_rules("".join(text for _, text in rows), 200)
    assert [(thought.kind, thought.text) for thought in thoughts] == rows


@pytest.mark.parametrize("opening", ["\\[", "$$", "```", "\\begin{align}", "\\]", "\\end{align}"])
def test_a_mark_without_its_partner_encloses_nothing(opening):
    assert len(split_lines(f"one\n{opening}\n\ntwo\nthree")) == 4


@pytest.mark.parametrize(
    ("trace", "outcome", "num"),
    [
        ("", ChainOutcome.EMPTY, 0),
        (" \n\n\t ", ChainOutcome.EMPTY, 0),
        ("<think>\n\n</think>", ChainOutcome.ONLY_TAGS, 0),
        ("no blank line at all, one step", ChainOutcome.CHUNKED, 1),
        ("one\ntwo\nthree", ChainOutcome.CHUNKED, 3),
        ("\n\n  leading\n\ntrailing\n\n\n", ChainOutcome.CHUNKED, 2),
    ],
)
def test_odd_traces_have_a_name(trace, outcome, num):
    chunked = run(trace)
    assert (chunked.outcome, len(chunked.thoughts)) == (outcome, num)


@pytest.mark.parametrize(
    "trace",
    [
        "Wait, x.\n\n" * 10_000,
        "\n \n" * 50_000 + "x",
        "a" * 1_000_000,
        "\n" * 1_000_000,
        *(mark * 30_000 + "x" for mark in ("\\[", "$$", "```\n", "\\begin{a}", "1. a\n", "**", "#", "Next. ", "\n \t")),
    ],
)
def test_large_traces_take_no_time_to_speak_of(trace):
    start = time.process_time()
    run(trace)
    run(trace, Chunker.STEPS)
    assert time.process_time() - start < 10


GOOD = '[{"first": 0, "last": 1, "kind": "plan"}, {"first": 2, "last": 2, "kind": "check"}]'
AUTHORS = (
    '{"block 1": {"start": 0, "end": 1, "block type": "plan"}, "block 2": {"start": 2, "end": 2, "type": "check"}}'
)
TRACE = "a\n\nb\n\nc\n\nd"


def generation(text: str, finish: FinishReason = FinishReason.STOP) -> Generation:
    return Generation(text=text, finish=finish, num_prompt_tokens=1, num_tokens=500)


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f"Here are the blocks:\n{GOOD}\nAnything else?",
        f"Sure! Here [they] are:\n```json\n{GOOD}\n```\nAnything {{else}}?",
        f"```\n{GOOD}",  # a fence that the model does not close
        f'{{"blocks": {GOOD}}}',
        AUTHORS,
        f"```json\n{AUTHORS}\n```",
        AUTHORS.replace("0", '"0"').replace("1,", '"1",'),  # numbers in quotes, as in the authors' prompt
        f"<think>Perhaps {GOOD.replace('plan', 'draft')}.</think>\n{GOOD}",
        f"I begin with [1, 2].</think>{GOOD}",  # a template may open the thinking itself
    ],
)
def test_a_models_blocks_are_read(reply):
    blocks = [Block(first=0, last=1, kind="plan"), Block(first=2, last=2, kind="check")]
    assert read_reply(generation(reply), 4) == blocks


CUT = '[{"first": 0, "last": 1, "kind": "plan"}'


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", "no JSON"),
        ("I cannot do that.", "no JSON"),
        ("[]", "no blocks"),
        ("[1, 2]", "no blocks"),
        ("{}", "no blocks"),
        ("[" * 100_000, "the JSON is broken"),
        ("[" * 100_000 + "]", "the JSON is broken"),
        ('[{"first": 1, "last": 2, "kind": "pl', "the JSON is broken"),
        (CUT, "the JSON is broken"),  # the first block is whole
        (CUT + ', {"first": 2, "la', "the JSON is broken"),
        (CUT + ', {"first": 2, "last": 2 "kind": "check"}]', "the JSON is broken"),
        (GOOD.replace("[", "").replace("]", ""), "the JSON is broken"),  # objects without a list around them
        (f"{GOOD}\nor {GOOD}", "the JSON is broken"),
        (f"```json\n{GOOD}\n```\nor\n```json\n{GOOD}\n```", "2 code blocks"),
        (f"```json\n{CUT}\n```", "the JSON is broken"),
        (AUTHORS.replace("block 2", "block 1"), "a key is repeated"),
        (f"<think>{GOOD}</think>", "only thinking"),
        (f"<think>Perhaps {GOOD}", "only thinking"),
        (f"<think>Perhaps {GOOD}</think>\n{CUT}", "the JSON is broken"),
        ('{"block 1": {"start": 0, "end": 1, "block type": "plan"}, "block 2": null}', "block 2 is not an object"),
        ('[{"first": 1, "last": 3}]', "a gap before block 1: it begins at step 1, not at 0"),
        ('[{"first": 0, "last": 0, "kind": "a"}, {"first": 2, "last": 3}]', "a gap before block 2"),
        ('[{"first": 0, "last": 2, "kind": "a"}, {"first": 2, "last": 3}]', "an overlap before block 2"),
        ('[{"first": 0, "last": 2, "kind": "a"}, {"first": 3, "last": 2}]', "block 2 is reversed: steps 3 to 2"),
        ('[{"first": 0, "last": 4}]', "block 1 is out of range: steps 0 to 4, but the steps are 0 to 3"),
        ('[{"first": -1, "last": 1}]', "block 1 is out of range"),
        ('[{"first": "one", "last": 2}]', "block 1 has 'one' and 2"),
        ('[{"first": true, "last": 2}]', "block 1 has True"),
        ('[{"first": 0}]', "block 1 has 0 and None"),
        ('[{"first": 0, "last": 1}]', "block 1 has no kind"),
        ('[{"first": 0, "last": 1, "kind": " "}]', "block 1 has no kind"),
    ],
)
def test_unsound_blocks_are_refused(reply, fault):
    with pytest.raises(BlockError, match=fault):
        read_reply(generation(reply), 4)


def test_a_reply_cut_by_its_limit_is_refused_even_if_it_parses():
    with pytest.raises(BlockError, match="the reply is cut at its limit of 500 tokens"):
        read_reply(generation(GOOD, FinishReason.LENGTH), 4)


def test_a_file_may_number_steps_from_0_or_from_1():
    from_0, from_1 = (
        {
            "block 1": {"start": i, "end": i + 1, "block type": "a"},
            "block 2": {"start": i + 2, "end": i + 3, "type": "b"},
        }
        for i in (0, 1)
    )
    blocks = [Block(first=0, last=1, kind="a"), Block(first=2, last=3, kind="b")]
    assert read_blocks(from_0, 4) == read_blocks(from_1, 4) == blocks
    # In a reply the numbers are those of the request, so the same object from 1 leaves out the first step.
    assert read_reply(generation(json.dumps(from_0)), 4) == blocks
    with pytest.raises(BlockError, match="a gap before block 1"):
        read_reply(generation(json.dumps(from_1)), 5)


pieces = st.sampled_from(
    ["<think>", "</think>", "```", "```json\n", "[", "]", "{", "}", ",", '"first": ', "0", "1", GOOD]
)


@given(
    replies=st.lists(texts | st.lists(pieces).map("".join), min_size=3, max_size=3),
    finish=st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]),
)
def test_no_reply_raises(replies, finish):
    chunked = run(TRACE, Chunker.LLM, *(generation(reply, finish) for reply in replies))
    if chunked.outcome is ChainOutcome.CHUNKED:
        assert finish is FinishReason.STOP
        assert "".join(thought.text for thought in chunked.thoughts) == TRACE
    else:
        assert (chunked.outcome, chunked.detail != "") == (ChainOutcome.BAD_REPLY, True)


def test_a_model_is_asked_again_and_told_the_fault():
    replies = [generation(GOOD, FinishReason.LENGTH), f"<think>{GOOD}", CUT, GOOD]
    model = ScriptedGenerator(replies)
    chunked = asyncio.run(chunk(chain(TRACE), replace(SETTINGS[Chunker.LLM], max_attempts=4), model))
    assert chunked.outcome is ChainOutcome.CHUNKED
    assert [thought.text for thought in chunked.thoughts] == ["a\n\nb\n\n", "c\n\n", "d"]
    assert [thought.kind for thought in chunked.thoughts] == ["plan", "check", UNASSIGNED]
    sizes = [len(reply.replace(" ", "")) for reply in replies[1:]]
    assert chunked.cost.num_tokens == 500 + sum(sizes)
    faults = [
        messages[-1].content.partition("\n\nAn earlier reply was unusable: ")[2] for messages, _ in model.requests
    ]
    assert [fault[:24] for fault in faults] == [
        "",
        "the reply is cut at its ",
        "the reply is only thinki",
        "the JSON is broken: Expe",
    ]


def test_it_is_not_asked_for_the_same_reply_again():
    model = ScriptedGenerator(["nonsense", "nonsense", GOOD])
    asyncio.run(chunk(chain(TRACE), SETTINGS[Chunker.LLM], model))
    assert [sampling.temperature for _, sampling in model.requests] == [0.0, 0.5, 0.5]


def test_the_number_of_attempts_is_limited():
    chunked = run(TRACE, Chunker.LLM, "no", "no", '[{"first": 1, "last": 3}]')
    assert chunked.outcome is ChainOutcome.BAD_REPLY
    assert chunked.detail == "a gap before block 1: it begins at step 1, not at 0"


def test_an_engine_that_fails_has_a_name():
    error = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="429")
    chunked = run(TRACE, Chunker.LLM, error)
    assert (chunked.outcome, chunked.detail) == (ChainOutcome.ENGINE_ERROR, "429")


def test_the_engine_is_held_to_blocks_of_the_chains_steps():
    for structured in (True, False):
        generator = ScriptedGenerator([GOOD])
        asyncio.run(chunk(chain(TRACE), replace(SETTINGS[Chunker.LLM], structured=structured), generator))
        schema = reply_schema(len(split_steps(TRACE))) if structured else None
        assert [sampling.json_schema for _, sampling in generator.requests] == [schema]


def test_without_a_model_llm_is_refused():
    with pytest.raises(ValueError, match="chunk.chunker=llm needs a model"):
        asyncio.run(chunk(chain(TRACE), SETTINGS[Chunker.LLM]))


def test_the_question_holds_problem_and_numbered_steps():
    system, user = chunk_messages("1+1?", split_steps("a\n\nb"))
    assert (system.role, user.role) == ("system", "user")
    assert "1+1?" in user.content
    assert "Step 0: a\n\nStep 1: b" in user.content


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
