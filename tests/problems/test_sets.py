# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Public problem sets from local copies: their columns, letters of multiple choice, gold and wrong answers."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from longshort_verl.grading import GradingSettings, check_gold, grade
from longshort_verl.problems import sets as problem_sets
from longshort_verl.problems.read import ProblemFileError
from longshort_verl.problems.sets import PUBLISHED, TRAINING, read_problem_set, read_training_problems

GRADING = GradingSettings(timeout_s=5.0, max_answer_chars=1000, max_workers=1)
COPIES = {"math500": "math500.json", "aime_2024": "aime_2024.json", "amc_2023": "amc_2023.json"}


def gpqa_rows(number=198):
    return [
        {
            "Record ID": f"rec{i}",
            "Question": f"What is {i} + 1?",
            "Correct Answer": str(i + 1),
            **{f"Incorrect Answer {k}": str(i + 1 + k) for k in (1, 2, 3)},
        }
        for i in range(number)
    ]


def gpqa(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"gpqa_diamond={path}"


@pytest.mark.parametrize("name", COPIES)
def test_gold_answers_are_right_and_others_wrong(name, shared_data):
    problem_set = read_problem_set(f"{name}={shared_data / COPIES[name]}")
    problems = problem_set.problems_of(0)
    assert (problem_set.name, problem_set.num_samples) == (name, PUBLISHED[name].num_samples)
    assert len(problems) == PUBLISHED[name].num_problems
    assert problems == problem_set.problems_of(1)
    for problem in problems:
        check_gold(problem.answer)
        assert grade(f"so \\boxed{{{problem.answer}}}", problem.answer, GRADING).correct, problem
    # tests/grading holds what is wrong against all of them.
    assert not any(grade("so \\boxed{123456789}", problem.answer, GRADING).correct for problem in problems[:20])


def test_a_folder_is_read_as_datasets_reads_the_hub(tmp_path):
    rows = [{"problem": f"Add {i} and {i}.", "answer": 2 * i} for i in range(PUBLISHED["aime_2024"].num_problems)]
    (tmp_path / "aime.json").write_text(json.dumps(rows))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = read_problem_set(f"aime_2024={tmp_path / 'copy'}").problems_of(0)
    assert len(problems) == len(rows)
    assert problems == read_problem_set(f"aime_2024={tmp_path / 'aime.json'}").problems_of(0)


def test_letters_are_spread_and_fixed(tmp_path):
    problem_set = read_problem_set(gpqa(tmp_path / "gpqa.jsonl", gpqa_rows()))
    problems = problem_set.problems_of(0)
    assert problems == problem_set.problems_of(0), "an order comes from the question and the sample alone"
    letters = Counter(problem.answer for problem in problems)
    # Of 198 questions each letter is right for 49.5 on average, standard deviation 6.1.
    assert set(letters) == set("ABCD")
    assert all(28 <= number <= 71 for number in letters.values()), letters
    moved = sum(a.answer != b.answer for a, b in zip(problems, problem_set.problems_of(1), strict=True))
    assert 120 <= moved <= 175, "three of four letters change from sample to sample"
    for problem in problems[:20]:
        line = next(line for line in problem.prompt.splitlines() if line.startswith(f"{problem.answer}) "))
        assert int(line[3:]) == problem.index + 1, "the letter is that of the right choice"
        assert len([line for line in problem.prompt.splitlines() if line[1:3] == ") "]) == 4
        for letter in "ABCD":
            assert grade(f"\\boxed{{{letter}}}", problem.answer, GRADING).correct is (letter == problem.answer)


def test_order_of_rows_changes_no_letter(tmp_path):
    rows = gpqa_rows()
    there = read_problem_set(gpqa(tmp_path / "a.jsonl", rows)).problems_of(3)
    back = read_problem_set(gpqa(tmp_path / "b.jsonl", rows[::-1])).problems_of(3)
    assert [problem.prompt for problem in there] == [problem.prompt for problem in back][::-1]


def test_a_file_is_a_set_by_its_name(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"problem": "1+1", "answer": 2}\n')
    problem_set = read_problem_set(str(path))
    assert (problem_set.name, problem_set.num_samples) == ("mine", 1)
    assert [(problem.prompt, problem.answer) for problem in problem_set.problems_of(0)] == [("1+1", "2")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Question": " "}, "row 3 has no text in Question"),
        ({"Record ID": None}, "row 3 has no text in Record ID"),
        ({"Incorrect Answer 2": "4"}, "row 3 has the same choice twice"),
    ],
)
def test_a_bad_question_is_refused(tmp_path, change, message):
    rows = gpqa_rows()
    rows[3] |= change
    with pytest.raises(ProblemFileError, match=message):
        read_problem_set(gpqa(tmp_path / "gpqa.jsonl", rows))


def test_what_is_no_set_is_refused(tmp_path):
    with pytest.raises(ProblemFileError, match="has 5 rows, but gpqa_diamond has 198"):
        read_problem_set(gpqa(tmp_path / "part.jsonl", gpqa_rows(5)))
    with pytest.raises(ProblemFileError, match="there is no nowhere.json"):
        read_problem_set("math500=nowhere.json")
    with pytest.raises(ProblemFileError, match="'math501' is no file and no known set; .* math500, aime_2024"):
        read_problem_set("math501")
    (tmp_path / "page.jsonl").write_text("<!doctype html><html></html>")
    with pytest.raises(ProblemFileError, match=r"page.jsonl cannot be loaded: is an HTML page, not the file itself"):
        read_problem_set(f"gsm8k={tmp_path / 'page.jsonl'}")
    (tmp_path / "bad.txt").write_text("x")
    with pytest.raises(ProblemFileError, match=r"suffix is none of .json.* give a local copy as NAME=FILE"):
        read_problem_set(f"gpqa_diamond={tmp_path / 'bad.txt'}")


GSM8K_SOLUTION = "She has 4 * 250 = <<4*250=1000>>1000 marbles.\n#### 1,000"
"""Written as GSM8K's are."""


def training_copy(path, rows, name, monkeypatch, num_problems=None):
    """A local copy of a public set, whose size is set to the number of these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = dataclasses.replace(TRAINING[name], num_problems=num_problems or len(rows))
    monkeypatch.setattr(problem_sets, "TRAINING", {**TRAINING, name: whole})
    return f"{name}={path}"


def test_gsm8ks_answer_is_what_follows_its_mark(tmp_path, monkeypatch):
    rows = [{"question": "How many?", "answer": GSM8K_SOLUTION}]
    training = read_training_problems(training_copy(tmp_path / "gsm8k.jsonl", rows, "gsm8k_train", monkeypatch))
    (problem,) = training.problems
    assert [(problem.prompt, problem.answer, problem.source)] == [("How many?", "1000", "gsm8k_train")]
    assert training.left_out == []


def test_gsm8k_is_measured_on_its_test_split(tmp_path, monkeypatch):
    rows = [{"question": "How many?", "answer": GSM8K_SOLUTION}]
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n")
    whole = dataclasses.replace(PUBLISHED["gsm8k"], num_problems=1)
    monkeypatch.setattr(problem_sets, "PUBLISHED", {**PUBLISHED, "gsm8k": whole})
    assert [one.answer for one in read_problem_set(f"gsm8k={path}").problems_of(0)] == ["1000"]
    path.write_text(json.dumps({"question": "How many?", "answer": "Nobody knows."}) + "\n")
    with pytest.raises(ProblemFileError, match="no row can be graded; row 0: gold answer '' is empty"):
        read_problem_set(f"gsm8k={path}")


def test_maths_answer_is_in_its_last_box_with_or_without_braces(tmp_path, monkeypatch):
    solutions = [
        "First $\\boxed{1}$, no: $\\boxed{\\frac12}$.",
        "So it is $\\boxed 2$.",
        "No answer.",
        "So $\\boxed{\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}}$.",
        "$\\boxed{\\text{The answer is } 2}$",
    ]
    rows = [{"problem": f"p{i}", "solution": solution, "level": "Level 1"} for i, solution in enumerate(solutions)]
    training = read_training_problems(training_copy(tmp_path / "math.jsonl", rows, "math_train", monkeypatch))
    assert [(problem.prompt, problem.answer) for problem in training.problems] == [
        ("p0", "\\frac12"),
        ("p1", "2"),
        ("p3", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ]
    assert [line.split(":")[0] for line in training.left_out] == ["row 2", "row 4"], "reported, not silently dropped"


def test_training_sets_that_are_none_are_refused(tmp_path, monkeypatch):
    rows = [{"question": "How many?", "answer": GSM8K_SOLUTION}]
    with pytest.raises(ProblemFileError, match="has 1 rows, but gsm8k_train has 7473"):
        read_training_problems(training_copy(tmp_path / "a.jsonl", rows, "gsm8k_train", monkeypatch, 7473))
    with pytest.raises(ProblemFileError, match="row 0 has no text in question or in answer"):
        read_training_problems(training_copy(tmp_path / "b.jsonl", [{"q": "?"}], "gsm8k_train", monkeypatch))
    with pytest.raises(ProblemFileError, match="'gsm8k' is no file and no known set; .* gsm8k_train, math_train"):
        read_training_problems("gsm8k")
    with pytest.raises(ProblemFileError, match="there is no nowhere"):
        read_training_problems("math_train=nowhere")
