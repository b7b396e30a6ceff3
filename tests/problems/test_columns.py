# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Formats of rows beside the plain one and verl's, which ``test_read`` has: GSM8K's, Alpaca's, chats."""

from __future__ import annotations

import pytest

from longshort_verl.problems.read import read_problems
from longshort_verl.problems.sets import read_problem_set, read_training_problems
from tests.problems.samples import refusal, save

SUFFIXES = [".json", ".jsonl", ".parquet"]
SOLUTION = "She has 4 * 250 = <<4*250=1000>>1000 marbles.\n#### 1,000"
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}
REPLY = {"role": "assistant", "content": "2"}


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_gsm8ks_columns_in_a_plain_file(tmp_path, suffix):
    rows = [{"question": "How many?", "answer": SOLUTION}, {"question": "And now?", "answer": "72"}]
    if suffix == ".csv":
        path = tmp_path / "toy.csv"
        path.write_text(f'question,answer\nHow many?,"{SOLUTION}"\nAnd now?,72\n')
    else:
        path = save(tmp_path, rows, suffix)
    expected = [("How many?", "1000"), ("And now?", "72")]
    for problems in (
        read_problems(path),
        read_training_problems(str(path)).problems,
        read_problem_set(str(path)).problems_of(0),
    ):
        assert [(problem.prompt, problem.answer) for problem in problems] == expected


@pytest.mark.parametrize("name", ["gsm8k_train", "gsm8k_test"])
def test_all_of_gsm8k_is_read_as_a_plain_file(shared_data, name):
    training = read_training_problems(str(shared_data / f"{name}.jsonl"))
    assert len(training.problems) == {"gsm8k_train": 7473, "gsm8k_test": 1319}[name]
    assert all(problem.answer.lstrip("-").replace(".", "").isdigit() for problem in training.problems)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("So it is 72.\n####", "what follows #### in answer is empty ('');"),
        ("24\n#### 72\nor 73", "what follows #### in answer has a line break, so it is more than an answer;"),
        ("24\n#### notfound", "what follows #### in answer is 'notfound', a placeholder for a missing answer;"),
    ],
)
def test_bad_gsm8k_solutions(tmp_path, answer, fault):
    path = save(tmp_path, [{"question": "x", "answer": answer}], ".json")
    assert f"\n  row 0: {fault}" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "Add.", "input": "1+1", "output": "2"}, "Add.\n\n1+1"),
        ({"instruction": "1+1?", "input": "", "output": "2"}, "1+1?"),
        ({"instruction": "1+1?", "output": "2"}, "1+1?"),
        ({"instruction": "1+1?", "output": "It is 2.\nSo 2.", "answer": 2}, "1+1?"),
        ({"messages": [USER, REPLY]}, "1+1?"),
        ({"messages": [USER, {**REPLY, "content": "So\n2"}], "answer": "2"}, "1+1?"),
        ({"messages": [USER], "answer": "2"}, "1+1?"),
        ({"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]}, "1+1?"),
        ({"id": 1, "conversations": [{"role": "user", "content": "1+1?"}], "answer": "2"}, "1+1?"),
    ],
)
def test_plain_rows_of_other_formats(tmp_path, suffix, row, prompt):
    (problem,) = read_problems(save(tmp_path, [row], suffix))
    assert (problem.prompt, problem.answer) == (prompt, "2")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (
            {"instruction": "1+1?", "output": "One and one.\nSo 2"},
            "output has a line break, so it is more than an answer;",
        ),
        ({"instruction": "1+1?", "output": "So it is \\boxed{2}"}, "output is a sentence, which no answer can equal;"),
        ({"instruction": "1+1?"}, "output is missing; give the row its gold answer"),
        ({"instruction": " ", "output": "2"}, "instruction is empty (' ');"),
        ({"instruction": "x", "input": " ", "output": "2"}, "input is empty (' ');"),
        ({"messages": [USER, {**REPLY, "content": "The sum is 2."}]}, "the assistant's message is a sentence,"),
        ({"messages": [USER]}, "the assistant's message is missing; give the row its gold answer"),
        ({"messages": [SYSTEM, USER, REPLY]}, "messages are from ['system', 'user', 'assistant'], expected one user"),
        ({"messages": [USER, REPLY, USER, REPLY]}, "messages are from ['user', 'assistant', 'user', 'assistant'], exp"),
        (
            {"messages": [], "answer": "2"},
            "messages are from [], expected one user message and at most one reply to it",
        ),
        ({"messages": "1+1?", "answer": "2"}, "messages are from [], expected one user message"),
        ({"conversations": [{"from": "gpt", "value": "2"}]}, "messages are from ['assistant'], expected one user"),
    ],
)
def test_other_rows_are_refused(tmp_path, suffix, row, fault):
    message = refusal(save(tmp_path, [row], suffix))
    assert f"\n  {'line 1' if suffix == '.jsonl' else 'row 0'}: {fault}" in message
    assert "; also: " not in message, "one fault is named once"


def test_a_solution_beside_messages_is_no_answer(tmp_path):
    """NuminaMath's columns: neither its solution nor its messages are a gold answer."""
    row = {"problem": "x", "solution": "So it is 2.", "messages": [USER, REPLY]}
    assert "missing columns: answer; it has: ['messages', 'problem', 'solution']." in refusal(
        save(tmp_path, [row], ".json")
    )
