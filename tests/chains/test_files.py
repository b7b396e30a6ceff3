# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reading files of chains: which column is the chain, keys, golds, and files that are another kind.

``test_score`` has rows that are damaged.
"""

from __future__ import annotations

import json

import pytest

from longshort_verl.chains.files import ChainFileError, read_chains, write_chains
from longshort_verl.types import ChainOutcome
from tests.files.test_inputs import OTHER_KINDS

ROW = {"problem": "1+1?", "answer": "2", "trace": "One.\n\nTwo."}
HUMAN = "Count."
CHAIN = "<think>One.</think>2"
MESSAGES = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": CHAIN}]
CONVERSATIONS = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": CHAIN}]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_one(path, row):
    (chain,) = read_chains(write(path, row))
    return chain


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"response": CHAIN}, "response"),
        ({"generations": [CHAIN]}, "generations"),
        ({"generations": CHAIN}, "generations"),
        ({"messages": MESSAGES}, "messages"),
        ({"conversations": CONVERSATIONS}, "conversations"),
    ],
)
def test_the_models_chain_is_taken_before_a_solution(tmp_path, caplog, columns, name):
    path = tmp_path / "t.jsonl"
    row = {"problem": "1+1?", "answer": "2", **columns}
    assert read_one(path, row).text == CHAIN
    assert caplog.messages == []
    for empty in ({}, {"trace": None, "thought": ""}):
        caplog.clear()
        assert read_one(path, {"solution": HUMAN, **row, **empty}).text == CHAIN
        assert caplog.messages == [
            f"{path}: 1 of 1 rows have a solution beside {name}; {name}, the model's chain, is taken"
        ]


def test_a_trace_is_taken_before_everything(tmp_path, caplog):
    row = {**ROW, "response": "no", "generations": ["no"], "messages": MESSAGES, "solution": HUMAN}
    assert read_one(tmp_path / "t.jsonl", row).text == ROW["trace"]
    assert caplog.messages == []


def test_a_solution_alone_is_read_with_a_warning(tmp_path, caplog):
    path = tmp_path / "t.jsonl"
    alone = {"problem": "1+1?", "answer": "2", "solution": HUMAN}
    empty = {**alone, "generations": [], "messages": MESSAGES[:1], "response": " "}
    assert [chain.text for chain in read_chains(write(path, alone, ROW, empty))] == [HUMAN, ROW["trace"], HUMAN]
    assert caplog.messages == [
        f"{path}: 2 of 3 rows have no chain but a solution: if a person wrote it, give a model's chain under trace "
        "instead"
    ]


def test_several_generations(tmp_path, caplog):
    path = tmp_path / "t.jsonl"
    assert read_one(path, {"problem": "1+1?", "answer": "2", "generations": ["", CHAIN, "Other."]}).text == CHAIN
    assert caplog.messages == [f"{path}: 1 of 1 rows have several generations; the first with text is taken"]


@pytest.mark.parametrize("column", [{"messages": MESSAGES}, {"conversations": CONVERSATIONS}])
def test_the_problem_of_a_chat(tmp_path, column):
    chain = read_one(tmp_path / "t.jsonl", {"answer": "2", "problem": None, **column})
    assert (chain.outcome, chain.problem.prompt, chain.text) == (ChainOutcome.READ, "1+1?", CHAIN)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"trace": None}, "trace is missing; give text under one of trace, thought, response, generations, messages,"),
        ({"trace": float("nan")}, "trace is a number; give text under one of trace,"),
        ({"trace": ["a"]}, "trace is a list; give text under one of trace,"),
        ({"problem": None}, "problem is missing; give text under one of problem, question, prompt"),
        ({"problem": ""}, "problem is missing; give text under one of problem, question, prompt"),
        ({"problem": [{"role": "user"}]}, "problem is a list; give text under one of problem, question, prompt"),
        ({"answer": None}, "answer is missing; give the row its gold answer or remove it"),
    ],
)
def test_missing_fields(tmp_path, change, detail):
    chain = read_one(tmp_path / "t.jsonl", {**ROW, **change})
    assert chain.outcome is ChainOutcome.MISSING
    assert chain.detail.startswith(detail)


NO_KEY = (None, "", " ", float("nan"))


@pytest.mark.parametrize("key", NO_KEY)
def test_what_is_no_key(tmp_path, key):
    rows = [{**ROW, "key": key}, {**ROW, "key": key, "id": "mine"}, {**ROW, "id": key}, {**ROW, "key": 0}, ROW]
    assert [chain.key for chain in read_chains(write(tmp_path / "t.jsonl", *rows))] == ["1", "mine", "3", "0", "5"]


@pytest.mark.parametrize(
    ("literal", "answer"),
    [("1e-07", "0.0000001"), ("27.0", "27"), ("3", "3"), ("0.5", "0.5"), ('" 27.0 "', " 27.0 "), ("-0.0", "0")],
)
@pytest.mark.parametrize("name", ["answer", "gold", "ground_truth"])
def test_golds_are_canonical(tmp_path, literal, answer, name):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"problem": "1+1?", "{name}": {literal}, "trace": "x"}}')
    (chain,) = read_chains(path)
    assert chain.problem.answer == answer


def test_gsm8ks_solution_is_no_gold_but_its_last_line_is(tmp_path):
    row = {"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2", "response": CHAIN}
    assert read_one(tmp_path / "t.jsonl", row).problem.answer == "2"


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ("proof", "answer is 'proof', a placeholder for a missing answer; give the row its gold answer or remove it"),
        ("So\n2", "answer has a line break, so it is more than an answer; give only the final value: 'So\\n2'"),
        ("It is 2.", "answer is a sentence, which no answer can equal; give only the final value: 'It is 2.'"),
        ("2\text{ cm}", "answer has '\\t' at character 1 (from 0) where LaTeX's \\text was meant"),
        ("", "answer is empty (''); give the row its gold answer or remove it"),
        (float("nan"), "answer is missing (NaN); give the row its gold answer or remove it"),
        (True, "answer is a boolean: True, expected text or a number; write it as text"),
    ],
)
def test_bad_golds_have_a_name_that_stays(tmp_path, answer, detail):
    first = read_one(tmp_path / "t.jsonl", {**ROW, "answer": answer})
    write_chains(tmp_path / "again.jsonl", [first])
    for chain in (first, *read_chains(tmp_path / "again.jsonl")):
        assert (chain.key, chain.outcome, chain.problem) == ("1", ChainOutcome.BAD_GOLD, None)
        assert chain.detail.startswith(detail)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_another_kind_of_file_is_named(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    for data, message in OTHER_KINDS:
        path.write_bytes(data)
        with pytest.raises(ChainFileError) as caught:
            read_chains(path)
        assert str(caught.value) == f"{path} {message}"


def test_a_byte_order_mark_is_skipped(tmp_path, caplog):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode())
    (chain,) = read_chains(path)
    assert chain.outcome is ChainOutcome.READ
    assert caplog.messages == [f"{path} begins with a byte order mark (UTF-8 with BOM), which is skipped"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_files_that_are_no_json(tmp_path, suffix):
    (tmp_path / f"t{suffix}").write_bytes(b"PAR1")
    with pytest.raises(ChainFileError, match=r"is no JSON; write the chains as JSONL, one object per line"):
        read_chains(tmp_path / f"t{suffix}")


def test_one_list_in_an_object_is_the_rows(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"version": 1, "data": [ROW, ROW]}))
    assert [chain.text for chain in read_chains(path)] == [ROW["trace"]] * 2
    path.write_text(json.dumps({**ROW, "thoughts": [{"text": ROW["trace"], "kind": "", "num_steps": 2}]}))
    (chain,) = read_chains(path)
    assert len(chain.thoughts) == 1
