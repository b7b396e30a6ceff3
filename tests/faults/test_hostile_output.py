# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile replies through parser, grader, chunker, completion, report and endpoint.

A list of cases by hand (``hostile.py``), and Hypothesis on pieces of them: 3,000 examples in all
(:data:`NUM_EXAMPLES` for each of the six readers), about a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import html.parser
import json
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from longshort_verl.chains.chunk import BlockError, by_rules, by_steps, read_reply, split_lines, split_steps
from longshort_verl.chains.files import read_chains, write_chains
from longshort_verl.cli.app import app
from longshort_verl.cold_start.transcripts import RoleRow
from longshort_verl.cold_start.writer import BadReplyError, read_completion
from longshort_verl.dialogue import CLOSING_TAGS, OPENING_TAG, PROTOCOL_TAGS, parse_turn, run_dialogue
from longshort_verl.grading.answers import GradingSettings, grade, last_boxed, warm_up
from longshort_verl.importance import anytime, importance
from longshort_verl.report.chains import plot_importance, thoughts_table
from longshort_verl.report.chains import write_page as write_chain
from longshort_verl.report.transcripts import transcript_text
from longshort_verl.report.transcripts import write_page as write_transcripts
from longshort_verl.types import FinishReason, Generation, Message, Problem, Role, StopReason, Thought, TurnKind
from tests.faults.hostile import CASES, CONTROL_TOKENS
from tests.report.test_chains import METRIC, scored, shown
from tests.report.test_page import row, solo_row
from tests.serving.scripted import DIALOGUE, Writer, endpoints
from tests.support.browser import in_browser, needs_browser
from tests.support.scripted import ScriptedGenerator

NUM_EXAMPLES = 500
fuzzed = settings(
    max_examples=NUM_EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], database=None
)
each_case = pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=1_000, max_workers=1)
ROOMY = replace(DIALOGUE, max_turn_tokens=dict.fromkeys(Role, 10**7), max_dialogue_tokens=10**7)
HANGS_S = 20.0
"""No reader may take so long, on any machine: the work is far below a second."""

_PIECES = [piece for case in CASES.values() for piece in re.findall(r"\\?\w+|\s|[^\w\s]", case)[:60]]
texts = st.lists(
    st.sampled_from([*PROTOCOL_TAGS, *CONTROL_TOKENS, "\n\n", "\\boxed{", "}", *sorted(set(_PIECES))])
    | st.text(max_size=4),
    max_size=40,
).map("".join)


@pytest.fixture(autouse=True)
def nothing_was_run():
    """No text is run as a program or taken as a path."""
    yield
    assert not Path("/tmp/owned").exists()


@contextlib.contextmanager
def in_time():
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < HANGS_S


def test_there_are_fifty_cases():
    assert len(CASES) >= 50
    assert len(set(CASES.values())) == len(CASES)


# --- parser and dialogue --------------------------------------------------------------------------------------------


def check_parser(text):
    for role in Role:
        for reply in (text, *(f"{OPENING_TAG[role]}{text}{closing}" for closing in CLOSING_TAGS[role])):
            turn = parse_turn(role, reply)
            if turn.kind is None:
                assert (turn.text, turn.body) == (reply, "")
                assert turn.fault
                continue
            inside = turn.text.removeprefix(OPENING_TAG[role])
            inside = next(inside.removesuffix(tag) for tag, kind in CLOSING_TAGS[role].items() if kind is turn.kind)
            assert turn.text.startswith(OPENING_TAG[role])
            assert turn.body == inside.strip()
            assert not any(tag in inside.lower() for tag in PROTOCOL_TAGS)
            assert parse_turn(role, turn.text) == turn


def check_dialogue(text):
    """The other role reads the text inside of one user message, or not at all."""
    for replies in ([f"<think>{text}</think>", "<answer>7</answer>"], [text, "<answer>7</answer>"]):
        both = ScriptedGenerator(replies)
        problem = Problem(prompt="1+1", answer="7", source="s", index=0)
        dialogue = asyncio.run(
            run_dialogue(problem, dict.fromkeys(Role, both), ROOMY, temperature=1.0, forbidden=CONTROL_TOKENS)
        )
        assert dialogue.stop_reason in (StopReason.ANSWERED, StopReason.MALFORMED_LONG)
        if dialogue.stop_reason is StopReason.MALFORMED_LONG:
            assert len(both.requests) == 1, "nothing of it reaches the other role"
            continue
        (messages, _) = both.requests[1]
        assert [message.role for message in messages] == ["user"]
        assert messages[0].content.startswith("1+1\n\n<think>")
        assert messages[0].content.endswith("</think>")
        assert not any(token in messages[0].content for token in CONTROL_TOKENS)
        tags = Counter(re.findall("|".join(PROTOCOL_TAGS), messages[0].content.lower()))
        assert tags == {"<think>": 1, "</think>": 1}


@each_case
def test_parser(text):
    with in_time():
        check_parser(text)
        check_dialogue(text)


@fuzzed
@given(texts)
def test_parser_on_anything(text):
    check_parser(text)
    check_dialogue(text)


# --- grader ---------------------------------------------------------------------------------------------------------

# Those that a reader would call right: a box of 7 stands last in them.
RIGHT = {"the peer's turn", "role play", "many boxes", "forged steps", "ignore", "other case", "forged completion"}


@pytest.fixture(scope="module")
def grader():
    warm_up(GRADING)


@pytest.mark.process
@pytest.mark.parametrize("name", CASES)
def test_grader(name, grader):
    text = CASES[name]
    with in_time():
        assert grade(text, "7", GRADING).correct is (name in RIGHT)
    for wrapped in (f"\\boxed{{{text[:2_000]}}}", f"\\boxed{{7}} \\boxed{{{text[:150]}"):
        with in_time():
            verdict = grade(wrapped, "12345", GRADING)
        assert not verdict.correct
        assert verdict.extracted is None or len(verdict.extracted) <= GRADING.max_answer_chars


@fuzzed
@given(texts)
def test_boxes_of_anything(text):
    for boxed in (text, f"\\boxed{{{text}}}"):
        answer = last_boxed(boxed)
        assert answer is None or f"{{{answer}}}" in boxed


@fuzzed
@given(texts)
def test_grader_on_anything(text):
    assert not grade(f"\\boxed{{{text[:180]}}} no number", "123456789", GRADING).correct


# --- chunker --------------------------------------------------------------------------------------------------------


def check_chunker(text):
    assert "".join(split_steps(text)) == (text if text.strip() else "")
    assert "".join(split_lines(text)) == text
    assert "".join(thought.text for thought in by_steps(split_steps(text))) == (text if text.strip() else "")
    if text.strip():
        assert "".join(thought.text for thought in by_rules(text, 120)) == text
    reply = Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=1, num_tokens=1)
    with contextlib.suppress(BlockError):
        blocks = read_reply(reply, 3)
        assert blocks[0].first == 0
        assert all(0 <= block.first <= block.last <= 2 for block in blocks)


@each_case
def test_chunker(text):
    with in_time():
        check_chunker(text)


@fuzzed
@given(texts)
@example('[{"first": 0, "last": 2, "kind": "\ud83d"}]')
def test_chunker_on_anything(text):
    check_chunker(text)


# --- completion -----------------------------------------------------------------------------------------------------


def check_completion(text):
    with contextlib.suppress(BadReplyError):
        assert set(read_completion(text.strip(), {2: "given"}, [1])) == {1}
    as_content = json.dumps({"Completed Steps": [{"thought": 1, "content": text}]})
    with contextlib.suppress(BadReplyError):
        assert read_completion(as_content, {2: "given"}, [1]) == {1: text.strip()}


@each_case
def test_completion(text):
    with in_time():
        check_completion(text)


@fuzzed
@given(texts)
@example("\ud83d")
def test_completion_on_anything(text):
    check_completion(text)


# --- report ---------------------------------------------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """Counts tags with the names of their attributes."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def handle_starttag(self, tag, attributes):
        self.found[tag, " ".join(sorted(name for name, _ in attributes))] += 1


def tags(path):
    parser = Tags()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.found


def evaluation_page(folder, cases):
    """The page of an evaluation in which every text that a model writes, and every id, is one of the cases."""
    run = folder / "run"
    run.mkdir(parents=True)
    rows = []
    for index, text in enumerate(cases):
        hostile = row(index, True, text=text) | {"problem": text, "gold": text, "extracted": text, "set": "toy"}
        hostile["turns"][0]["text"] = text
        rows.append(hostile | {"id": text, "detail": text, "fault": ""})
    solo = [solo_row(one["index"], True) | {"problem": one["problem"], "gold": one["gold"]} for one in rows]
    for name, of in (("pair", rows), ("solo", solo)):
        (run / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in of))
    command = ["report", "evaluation", str(run), "--out", str(folder / "out"), "--html"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "\x1b]" not in done.output
    return folder / "out" / "results.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return evaluation_page(tmp_path_factory.mktemp("hostile"), CASES.values())


def test_the_page_of_an_evaluation_gains_no_tag(page, tmp_path):
    assert tags(page) == tags(evaluation_page(tmp_path, [f"case {number}" for number in range(len(CASES))]))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page.read_text(encoding="utf-8"))
    shown = json.loads(data)
    assert {one["problem"] for one in shown} <= set(CASES.values())
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(
        path.name for path in (tmp_path / "out").iterdir()
    )


@needs_browser
def test_the_page_of_an_evaluation_runs_nothing(page):
    shown = in_browser(page, "open=1")
    assert "<title>owned" not in shown
    # Directions end with the text that sets them: a graded answer cannot turn the correct one around.
    assert shown.count("<bdi") == 2 * shown.count('class="graded"') > 0


ON_THE_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def chain_of(texts):
    """A scored chain with a thought for each text; the first is its key, its problem and every kind as well."""
    values = (anytime(0, 8, 0.01), *[anytime(8, 8, 0.01)] * len(texts))
    lengths = (10,) * len(texts)
    return replace(
        scored(key=texts[0][:2_000], texts=texts),
        problem=Problem(prompt=texts[0], answer="7", source=texts[0], index=0),
        thoughts=tuple(Thought(text=text, kind=texts[0][:500], num_steps=1) for text in texts),
        lengths=lengths,
        values=values,
        scores=tuple(importance(values, lengths, METRIC)),
    )


def chain_page(folder, name, texts):
    chain = chain_of(texts)
    (folder / f"{name}.png").write_bytes(b"a picture")
    write_chains(folder / f"{name}.jsonl", [chain])
    (again,) = read_chains(folder / f"{name}.jsonl")
    assert "".join(thought.text for thought in again.thoughts) == "".join(texts)
    write_chain([chain], chain, folder / f"{name}.html")
    return tags(folder / f"{name}.html")


def transcript_page(folder, name, text):
    messages = tuple(Message(role=role, content=text) for role in ("user", "assistant") * 2)
    row = RoleRow(role=Role.LONG, messages=messages, answer=text)
    assert not ON_THE_TERMINAL.search(transcript_text(row, Role.LONG).plain)
    write_transcripts([row], Role.LONG, folder / f"{name}.png")
    return tags(folder / f"{name}.html")


@each_case
def test_pages_of_chains_and_transcripts(text, tmp_path):
    text = text if text.strip() else f"{text}x"  # a chain of white space is refused when it is read
    assert chain_page(tmp_path, "hostile", (text,)) == chain_page(tmp_path, "plain", ("plain",))
    assert transcript_page(tmp_path, "hostile", text) == transcript_page(tmp_path, "plain", "plain")
    assert not ON_THE_TERMINAL.search(shown(thoughts_table(chain_of((text,)))))
    assert {path.stem for path in tmp_path.iterdir()} == {"hostile", "plain"}


@pytest.mark.parametrize("part", range(4))
def test_pictures_of_chains(part, tmp_path):
    texts = list(CASES.values())[part::4]
    chain = chain_of(tuple(texts))
    plot_importance([chain_of((text,)) for text in texts[:12]], chain, tmp_path / "hostile.png")
    assert (tmp_path / "hostile.png").stat().st_size > 5_000


# --- endpoint -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint():
    """An endpoint whose roles write what ``replies`` holds."""
    replies = {}
    with endpoints() as start:
        made = start(Writer(lambda asked: replies["long"]), Writer(lambda asked: replies["short"]))
        yield made, replies


def once(text):
    """A reply in one piece."""
    return Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=1, num_tokens=1)


@each_case
def test_endpoint(text, endpoint):
    served, replies = endpoint
    url = f"{served.url}/v1/chat/completions"
    body = {"model": "pair", "messages": [{"role": "user", "content": "1+1"}], "include_reasoning": True}
    for long, short in (
        (f"<think>{text}</think>", "<answer>7</answer>"),
        ("<think>a</think>", f"<answer>{text}</answer>"),
        (text, ""),
    ):
        replies |= {"long": once(long), "short": once(short)}
        with in_time():
            whole = httpx.post(url, json=body, timeout=60)
            streamed = httpx.post(url, json={**body, "stream": True}, timeout=60)
        assert whole.status_code == streamed.status_code == 200
        (choice,) = whole.json()["choices"]
        turn = parse_turn(Role.SHORT, short)
        if choice["longshort"]["stop_reason"] == "answered":
            assert choice["message"]["content"] == turn.body
            assert turn.kind is TurnKind.ANSWER
        else:
            assert choice["message"]["content"] == f"[none: {choice['longshort']['stop_reason']}]"
        # Clients split events at whatever they take for the end of a line.
        lines = [line for line in streamed.text.splitlines() if line]
        assert all(line.startswith("data: ") for line in lines)
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert lines[-1] == "data: [DONE]"
        assert (
            "".join(part["delta"].get("content", "") for one in events for part in one["choices"])
            == choice["message"]["content"]
        )
        assert set(whole.headers) == {"content-length", "content-type", "date", "server"}


@each_case
def test_endpoint_as_a_question(text, endpoint):
    served, replies = endpoint
    replies |= {"long": once("<think>a</think>"), "short": once("<answer>7</answer>")}
    for body in (
        {"model": "pair", "messages": [{"role": "user", "content": text}]},
        {"model": text, "messages": [{"role": "user", "content": "x"}]},
        {"model": "pair", text: 1, "messages": [{"role": "user", "content": "x"}]},
    ):
        reply = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
        assert reply.status_code in (200, 400, 404, 413), reply.text[:300]
        assert len(reply.content) < 3_000
    with contextlib.suppress(httpx.InvalidURL):
        assert httpx.get(f"{served.url}/v1/models/{text[:500]}").status_code in (400, 404)
