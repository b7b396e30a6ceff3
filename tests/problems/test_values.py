# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Gold answers: which texts are refused, and which stay as they are."""

from __future__ import annotations

import json

import pytest

from longshort_verl.problems.values import after_final_mark, canonical_answer, is_text_only
from tests.problems.samples import GOOD, refusal, save, verl_row

ONE_VALUE = "give only the final value: "
PLACEHOLDERS = ["proof", "notfound", "None", "null", "N/A", "undefined", "[]", "-", "?"]
PLACEHOLDERS += ["Proof.", " not found ", "NULL", "$-$", "--", "–", "unknown", "NaN", "{}"]
PLACEHOLDERS += ["---", "...", "…", "''", "()", "_", "no answer", "see solution", "See the solution."]


@pytest.mark.parametrize("answer", PLACEHOLDERS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_placeholders_are_refused(tmp_path, answer, suffix):
    first = "line 2" if suffix == ".jsonl" else "row 1"
    for name, row in (("answer", {**GOOD, "answer": answer}), ("reward_model.ground_truth", verl_row(None, answer))):
        good = GOOD if name == "answer" else verl_row()
        assert (
            f"\n  {first}: {name} is {answer!r}, a placeholder for a missing answer; give the row its gold answer or "
            "remove it (if the word itself is the answer, write \\text{…})"
        ) in refusal(save(tmp_path, [good, row], suffix))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Half of 48 is 24.\n#### 72", "has ####, as in a GSM8K solution: name the columns question and answer"),
        (
            "#### 72",
            "has ####, as in a GSM8K solution: name the columns question and answer, as GSM8K does, or give only",
        ),
        ("48/2 = <<48/2=24>>24", f"has a calculator mark <<…>>, so it is a worked solution; {ONE_VALUE}"),
        ("24 in May\n72", f"has a line break, so it is more than an answer; {ONE_VALUE}'24 in May\\n72'"),
        ("24\r\n72", "has a line break, so it is more than an answer;"),
        ("24\r72", "has a line break, so it is more than an answer;"),
        ("The answer is 72", f"is a sentence, which no answer can equal; {ONE_VALUE}'The answer is 72'"),
        ("So the total is $72$.", "is a sentence,"),
        ("\\text{The answer is } 72", "is a sentence,"),
        ("It is 5.", "is a sentence,"),
        ("There are 72", "is a sentence,"),
        ("Weng earns $10.", "is a sentence,"),
        ("Natalia sold 72 clips altogether in April and May.", "is a sentence,"),
        ("Natalia and her sister went shopping together", "is a sentence,"),
        ("Draw the height from the apex.", "is a sentence,"),
    ],
)
def test_solutions_and_sentences_are_refused(tmp_path, answer, fault):
    assert f"\n  row 0: answer {fault}" in refusal(save(tmp_path, [{"problem": "x", "answer": answer}], ".json"))


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ('"5\\text{ cm}"', r"answer has '\t' at character 1 (from 0) where LaTeX's \text was meant"),
        ('"x \\neq 0"', r"answer has '\n' at character 2 (from 0) where LaTeX's \neq was meant"),
        ('"\\rho"', r"answer has '\r' at character 0 (from 0) where LaTeX's \rho was meant"),
        ('"\\frac{1}{2}"', r"answer has '\x0c' at character 0 (from 0) where LaTeX's \frac was meant"),
        ('"\\binom{5}{2}"', r"answer has '\x08' at character 0 (from 0) where LaTeX's \binom was meant"),
        ('"3\\times10^4"', r"where LaTeX's \times was meant: a string read \t as an escape; write \\times in the file"),
        ('"\\theta"', r"where LaTeX's \theta was meant"),
        ('"\\tan 1"', r"where LaTeX's \tan was meant"),
        ('"x \\nleq 3"', r"where LaTeX's \nleq was meant"),
        ('"a \\rightarrow b"', r"where LaTeX's \rightarrow was meant"),
        ('"\\nu + 1"', r"where LaTeX's \nu was meant"),
        ('"(1,2\\right)"', r"where LaTeX's \right was meant"),
        ('"\\beta"', r"where LaTeX's \beta was meant"),
        ('"\\forall x"', r"where LaTeX's \forall was meant"),
    ],
)
def test_latex_that_lost_its_backslash_is_refused(tmp_path, written, fault):
    path = tmp_path / "toy.jsonl"
    path.write_text(f'{{"problem": "x", "answer": {written}}}')  # one backslash in the file
    assert fault in refusal(path)
    path.write_text(f'{{"problem": "x", "answer": {json.dumps(written.strip(chr(34)))}}}')  # two, as the cure says
    assert "answer" not in str(canonical_answer(json.loads(path.read_text())["answer"]))


@pytest.mark.parametrize(
    "answer",
    [
        "72\n",  # a line break around it is white space
        "\\text{undefined}",
        "\\text{does not exist}",
        "no real solutions",
        "Navin, Luke, Ali, Bob, Carl and Dan",
        "6 hours and 30 minutes",
        "12 cubic feet of water per square foot per hour",
        "11 a.m.",
        "\\begin{cases} n/2 & \\text{if } n \\text{ is even} \\\\ 1 & \\text{if } n \\text{ is odd} \\end{cases}",
        "n \\text{ is even}",
        "12 girls and 15 boys",
        "a << b",
        "-1",
        "5\tcm",
        "\\{\\}",
    ],
)
def test_other_texts_stay_as_they_are(answer):
    assert canonical_answer(answer) == answer


def test_the_golds_of_the_benchmarks_stay_as_they_are(shared_data):
    answers = [row["answer"] for row in json.loads((shared_data / "math500.json").read_text())]
    assert [canonical_answer(answer) for answer in answers] == answers
    assert sum(map(is_text_only, answers)) == 5  # Evelyn, east, even, ellipse and Navin


@pytest.mark.parametrize(
    ("gold", "text"),
    [("east", True), ("\\text{no}", True), ("red, white and blue", True), ("\\mathrm{cm}", True)]
    + [(gold, False) for gold in ("7", "xy", "x", "C", "\\text{(C)}", "\\pi", "2\\text{ cm}", "\\sin x", "10:30 p.m.")],
)
def test_text_only(gold, text):
    assert is_text_only(gold) is text


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("4 * 250 = <<4*250=1000>>1000\n#### 1,000", "1000"),
        ("#### -1,234,567", "-1234567"),
        ("#### $1,000.50", "$1000.50"),
        ("#### (1,2)", "(1,2)"),
        ("#### 7 ", "7"),
        ("none", None),
    ],
)
def test_the_answer_after_gsm8ks_mark(solution, answer):
    assert after_final_mark(solution) == answer
