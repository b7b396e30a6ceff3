# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reading and checking problem files.

What must not drift:
- the one error names every bad row, by line from 1 in .jsonl and by row from 0 elsewhere;
- nothing is dropped and no text is changed silently; numbers become canonical text.
"""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longshort_verl.problems import read as module
from longshort_verl.problems.read import ProblemFileError, check_answers, check_prompt_lengths, read_problems
from longshort_verl.problems.write import write_problems
from longshort_verl.types import Problem
from tests.files.test_inputs import OTHER_KINDS
from tests.problems.samples import GOOD, make_problem, make_problems, refusal, save, verl_row

# Good files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["problem", "question"])
def test_plain_file(tmp_path: Path, suffix: str, column: str) -> None:
    path = save(tmp_path, [{column: " Is $x$ 1? \n", "answer": " 1 "}, {column: "Zwölf?", "answer": "12"}], suffix)
    assert read_problems(path) == [
        Problem(prompt=" Is $x$ 1? \n", answer=" 1 ", source="toy", index=0),  # byte for byte
        Problem(prompt="Zwölf?", answer="12", source="toy", index=1),
    ]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_verl_file(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, [verl_row(data_source="math"), verl_row(ground_truth="3")], suffix)
    assert read_problems(path) == [
        Problem(prompt="What is 1 + 1?", answer="2", source="math", index=0),
        Problem(prompt="What is 1 + 1?", answer="3", source="toy", index=1),  # its extra_info.index says 0
    ]


def test_verl_columns_win_over_plain_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = save(tmp_path, [verl_row(problem="Other?", answer="9", level=5)], ".parquet")
    assert [(problem.prompt, problem.answer) for problem in read_problems(path)] == [("What is 1 + 1?", "2")]
    assert "columns not used: ability, answer, extra_info, level, problem" in caplog.text


def test_source_argument_then_column_then_stem(tmp_path: Path) -> None:
    path = save(tmp_path, [{**GOOD, "data_source": "mine"}, GOOD], ".json")
    assert [problem.source for problem in read_problems(path)] == ["mine", "toy"]
    assert [problem.source for problem in read_problems(path, source="given")] == ["given", "given"]


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("27.0", "27"),
        ("3", "3"),
        ("-3", "-3"),
        ("0.5", "0.5"),
        ("-0.0", "0"),
        ("100.0", "100"),  # zeros before the point stay
        ("100", "100"),
        ("1e3", "1000"),
        ("1e-7", "0.0000001"),  # not 1e-07
        ("9007199254740991.0", "9007199254740991"),  # 2**53 − 1, the last exact one
        (str(10**400), str(10**400)),  # integers have no limit, though float(10**400) overflows
        ('"27.0"', "27.0"),  # text is the author's own
        ('"\\\\frac{1}{2}"', "\\frac{1}{2}"),
    ],
)
def test_numbers_become_canonical_text(tmp_path: Path, literal: str, expected: str) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text(f'{{"problem": "?", "answer": {literal}}}')
    assert read_problems(path)[0].answer == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([27.0, 0.5]), ["27", "0.5"]),
        (pa.array([27, 5], pa.int8()), ["27", "5"]),
        (pa.array([Decimal("2.50"), Decimal("100.00")], pa.decimal128(10, 2)), ["2.5", "100"]),
        (pa.array([Decimal(100), Decimal(0)], pa.decimal128(5, 0)), ["100", "0"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),  # pandas' categories
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    ],
)
def test_parquet_answer_types(tmp_path: Path, array: pa.Array, expected: list[str]) -> None:
    path = tmp_path / "toy.parquet"
    pq.write_table(pa.table({"problem": ["x", "y"], "answer": array}), path)
    assert [problem.answer for problem in read_problems(path)] == expected


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"problem": "x", "answer": "1"}\r\n{"problem": "y", "answer": "2"}\r\n\r\n')
    assert [problem.prompt for problem in read_problems(path)] == ["x", "y"]
    assert "toy.jsonl begins with a byte order mark (UTF-8 with BOM), which is skipped" in caplog.text


def test_raw_line_separator_does_not_end_a_jsonl_row(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text('{"problem": "a\u2028b\u0085c", "answer": "1"}\n', encoding="utf-8")
    assert [problem.prompt for problem in read_problems(path)] == ["a\u2028b\u0085c"]


def test_duplicates_are_kept_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger=module.__name__)
    rows = [
        {"problem": "a b", "answer": "1"},
        {"problem": "a  b", "answer": "2"},  # same but for white space, another answer
        {"problem": "a b", "answer": "1"},
        {"problem": "c", "answer": "1"},
    ]
    assert len(read_problems(save(tmp_path, rows, ".json"))) == 4
    assert "2 of 4 rows repeat an earlier problem, 1 of them with another answer; all are kept" in caplog.text


@pytest.mark.parametrize(
    ("name", "num_rows", "row", "answer"),
    [
        ("math500", 500, 0, "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("amc_2023", 40, 0, "27"),  # 27.0 in the file
        ("aime_2024", 30, 0, "33"),  # the number 33
    ],
)
def test_benchmarks_load_fully(
    tmp_path: Path, shared_data: Path, name: str, num_rows: int, row: int, answer: str
) -> None:
    path = shared_data / f"{name}.json"
    problems = read_problems(path)
    assert [problem.prompt for problem in problems] == [row["problem"] for row in json.loads(path.read_text())]
    assert [problem.index for problem in problems] == list(range(num_rows))
    assert (problems[row].answer, problems[row].source) == (answer, name)
    assert read_problems(write_problems(problems, tmp_path / "all.parquet", split="test")) == problems


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path: Path, end: str) -> None:
    path = tmp_path / "toy.csv"
    rows = ["id,question,answer", '7,"Is $x$, then, ""1""?",\\frac{1}{2}', '8,"Two', 'lines",3.0', ""]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(rows).encode())
    assert [(problem.prompt, problem.answer) for problem in read_problems(path)] == [
        ('Is $x$, then, "1"?', "\\frac{1}{2}"),
        (f"Two{end}lines", "3.0"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("problem;answer\n1+1;2\n", "its header 'problem;answer' has no comma; separate the columns by commas"),
        ("problem,answer,answer\nx,1,2\n", "has columns of the same name: answer; rename or remove all but one"),
        ("problem,answer\nx,1,2\n", "row 0: has 3 fields, but the header has 2; quote fields that hold commas"),
        ("problem,answer\nx,1\ny\n", "row 1: has 1 fields, but the header has 2; quote fields that hold commas"),
        ("problem,answer\nx,\n", "row 0: answer is empty (''); give the row its gold answer or remove it"),
        (
            'problem,answer\n"x,1\n',
            "invalid CSV after line 1: unexpected end of data; write it again with a CSV library",
        ),
        ("text,label\nx,1\n", "missing columns: problem (or question), answer; it has: ['label', 'text']"),
        ("problem,answer\n", "has no rows; give it at least one problem"),
        ("\n", "has no rows; give it at least one problem"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "toy.csv"
    path.write_text(text)
    assert message in refusal(path)


def test_csv_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "toy.csv"
    path.write_bytes("problem,answer\nZwölf?,12\n".encode("latin-1"))
    assert "is not UTF-8: byte 0xf6 at byte 17 (line 2); save it again as UTF-8" in refusal(path)


def test_golds_that_are_text_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = ["7", "\\text{east}", "\\frac12", "Navin, Luke", "(C)", "C", "x+1", "5\\text{ cm}"]
    path = save(tmp_path, [{"problem": f"p{answer}", "answer": answer} for answer in answers], ".jsonl")
    read_problems(path)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path}: 2 of 8 gold answers can only be compared as text, the first of them '\\\\text{{east}}'"
    )


def test_lost_backslashes_of_problems_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prompts = ["Add.", "Is $x \neq 0$?", "Halve \frac12.", "Take the\nequation.", "Sum\r\nhow?", "a\tan"]
    path = save(tmp_path, [{"problem": prompt, "answer": "1"} for prompt in prompts], ".jsonl")
    assert [problem.prompt for problem in read_problems(path)] == prompts
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path}: 2 of 6 problems lost a backslash of their LaTeX and are kept; the one of index 1 has '\\n' at "
        "character 6 (from 0) where LaTeX's \\neq was meant: a string read \\n as an escape; write \\\\neq in the "
        "file, as json.dumps does"
    )


# Bad files -----------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json").endswith("none.json: no such file; check the path")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    folder = tmp_path / "data.json"
    folder.mkdir()
    assert "is a folder" in refusal(folder)


def test_unsupported_suffix(tmp_path: Path) -> None:
    path = tmp_path / "toy.xlsx"
    path.write_text("problem,answer\n1,2\n")
    assert "unsupported suffix '.xlsx'; convert the file to one of .json, .jsonl, .csv, .parquet" in refusal(path)


@pytest.mark.parametrize(
    ("suffix", "content"), [(".json", b"[]"), (".json", b""), (".jsonl", b""), (".jsonl", b"\xef\xbb\xbf \n\n")]
)
def test_no_rows(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"toy{suffix}"
    path.write_bytes(content)
    assert "has no rows; give it at least one problem" in refusal(path)


def test_no_rows_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    pq.write_table(pa.schema([("problem", pa.string()), ("answer", pa.string())]).empty_table(), path)
    assert "has no rows" in refusal(path)


def test_invalid_json(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text('[{"problem": "x",\n  "answer": }]')  # the brace stands in column 13 of line 2
    assert "invalid JSON at line 2, column 13: Expecting value" in refusal(path)


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text('{"problem": "x", "answer": 1}\n{"problem": "y", "answer": 2}\n')
    message = refusal(path)
    assert "invalid JSON at line 2, column 1: Extra data" in message
    assert "rename the file to .jsonl" in message


def test_invalid_json_line(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text('{"problem": "x", "answer": 1}\n{"problem": \n{"problem": "y", "answer": 2}\n{bad\n')
    message = refusal(path)
    assert "2 of 4 rows cannot be used (lines counted from 1)" in message
    assert "\n  line 2: invalid JSON at column 13: Expecting value" in message
    assert "\n  line 4: invalid JSON at column 2: " in message


def test_blank_line_between_rows(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text('{"problem": "x", "answer": 1}\n\n{"problem": "y", "answer": 2}\n')
    assert "\n  line 2: is blank; remove the line" in refusal(path)


def test_top_level_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text('{"problem": {"0": "x"}, "answer": {"0": "1"}}')
    message = refusal(path)
    assert "its top level is an object, expected a list of objects" in message
    assert 'orient="records"' in message


@pytest.mark.parametrize("key", ["data", "problems"])
def test_one_list_in_an_object_is_the_rows(tmp_path: Path, key: str) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({"version": 1, "about": {"by": "me"}, key: [GOOD, {**GOOD, "answer": 3}]}))
    assert [(problem.answer, problem.index) for problem in read_problems(path)] == [("2", 0), ("3", 1)]


@pytest.mark.parametrize(
    "value",
    [
        {"train": [GOOD], "test": [GOOD]},  # which of them?
        {"data": ["x", "y"]},
        {"data": []},
        {"problem": ["x"], "answer": ["1"]},
        {**GOOD, "hints": [{"text": "count"}]},  # one problem
        {"messages": [{"role": "user", "content": "x"}], "answer": "1"},
    ],
)
def test_other_objects_are_no_rows(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(value))
    assert "its top level is an object, expected a list of objects; write it as" in refusal(path)


def test_json_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + "[" * 100_000 + "]" * 100_000)
    assert "\n  line 2: JSON is nested too deeply" in refusal(path)


def test_json_number_beyond_pythons_limit(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text('{"problem": "x", "answer": ' + "1" * 5000 + "}")
    assert "\n  line 1: JSON holds a number that Python cannot read" in refusal(path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_bytes('[{"problem":\n"Zwölf", "answer": 12}]'.encode("latin-1"))
    # '[{"problem":' and the line's end are 13 bytes, '"Zw' 3 more: ö is byte 16, and 0xf6 in Latin-1.
    assert "is not UTF-8: byte 0xf6 at byte 16 (line 2); save it again as UTF-8" in refusal(path)


def test_line_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_bytes(b'{"problem": "x", "answer": 1}\n{"problem": "\xff", "answer": 1}\n')
    assert "\n  line 2: is not UTF-8: byte 0xff at byte 13; save it again as UTF-8" in refusal(path)


def test_parquet_text_not_utf8(tmp_path: Path) -> None:
    prompts = pa.array([b"good", b"\xffbad"]).view(pa.string())
    path = tmp_path / "toy.parquet"
    pq.write_table(pa.table({"problem": prompts, "answer": ["1", "2"]}), path)
    message = refusal(path)
    assert "1 of 2 rows cannot be used (rows counted from 0)" in message
    assert "\n  row 1: holds text that is not UTF-8: b'\\xffbad'" in message


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_another_kind_of_file_than_its_name_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"toy{suffix}"
    for data, message in OTHER_KINDS:
        path.write_bytes(data)
        assert refusal(path) == f"{path}: {message}"


def test_not_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    path.write_text('{"problem": "x", "answer": 1}')
    assert "is not a parquet file" in refusal(path)


def test_damaged_parquet_file(tmp_path: Path) -> None:
    path = save(tmp_path, [GOOD] * 100, ".parquet")
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(36)  # the first page; the footer stays whole
    path.write_bytes(data)
    assert "cannot be read" in refusal(path)


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    texts = pa.array(["x"])
    pq.write_table(pa.Table.from_arrays([texts, texts, texts], names=["problem", "answer", "answer"]), path)
    assert "has columns of the same name: answer;" in refusal(path)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_inexact_answer_column(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "toy.parquet"
    answers = pa.array([0.1]).cast(kind)
    pq.write_table(pa.table({"problem": ["x"], "answer": answers}), path)
    assert "column answer is of type" in refusal(path)
    row = pa.table({"prompt": [[{"role": "user", "content": "x"}]]})
    reward_model = pa.StructArray.from_arrays([answers], names=["ground_truth"])
    pq.write_table(row.append_column("reward_model", reward_model), path)
    assert "column reward_model.ground_truth is of type" in refusal(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("row", "missing"),
    [
        ({"problem": "x"}, "answer"),
        ({"answer": "1"}, "problem (or question)"),
        ({"text": "x", "label": "1"}, "problem (or question), answer"),
        ({"prompt": "x", "answer": "1"}, "reward_model"),
        ({"reward_model": {"ground_truth": "1"}}, "prompt"),
    ],
)
def test_missing_columns(tmp_path: Path, suffix: str, row: dict[str, Any], missing: str) -> None:
    message = refusal(save(tmp_path, [row], suffix))
    assert f"missing columns: {missing}; it has: {sorted(row)!r}." in message
    assert "rename its columns" in message


def test_empty_object_lacks_all_columns(tmp_path: Path) -> None:
    assert "missing columns: problem (or question), answer; it has: []" in refusal(save(tmp_path, [{}], ".json"))


def test_media_columns(tmp_path: Path) -> None:
    assert "has columns of media (images)" in refusal(save(tmp_path, [{**GOOD, "images": ["a.png"]}], ".parquet"))


BAD_PLAIN_ROWS = [
    ({"problem": None, "answer": "1"}, "problem is missing;"),
    ({"answer": "1"}, "problem is missing;"),
    ({"problem": "", "answer": "1"}, "problem is empty ('');"),
    ({"problem": " \n", "answer": "1"}, "problem is empty (' \\n');"),
    ({"question": "\t", "answer": "1"}, "question is empty ('\\t');"),
    ({"problem": 5, "answer": "1"}, "problem is a number: 5, expected text;"),
    ({"problem": ["x"], "answer": "1"}, "problem is a list: ['x'], expected text;"),
    ({"problem": "x", "question": "y", "answer": "1"}, "problem and question differ;"),
    ({"problem": "x"}, "answer is missing; give the row its gold answer"),
    ({"problem": "x", "answer": None}, "answer is missing;"),
    ({"problem": "x", "answer": float("nan")}, "answer is missing (NaN);"),
    ({"problem": "x", "answer": float("inf")}, "answer is infinite (inf);"),
    ({"problem": "x", "answer": float("-inf")}, "answer is infinite (-inf);"),
    ({"problem": "x", "answer": ""}, "answer is empty ('');"),
    ({"problem": "x", "answer": " "}, "answer is empty (' ');"),
    ({"problem": "x", "answer": "nan"}, "answer is 'nan', a placeholder for a missing answer;"),
    ({"problem": "x", "answer": True}, "answer is a boolean: True, expected text or a number;"),
    ({"problem": "x", "answer": ["1", "2"]}, "answer is a list: ['1', '2'], expected text or a number;"),
    ({"problem": "x", "answer": {"value": 1}}, "answer is an object: {'value': 1}, expected text or a number;"),
    ({"problem": "x", "answer": 9007199254740992.0}, "answer is 9007199254740992.0, a float too large"),  # 2**53
    ({"problem": "x\ud800", "answer": "1"}, "problem has a lone surrogate U+D800 at character 1 (from 0)"),
    ({"problem": "x", "answer": "\udfff"}, "answer has a lone surrogate U+DFFF at character 0 (from 0)"),
    ({**GOOD, "data_source": 3}, "data_source is a number: 3, expected text;"),
    ({**GOOD, "data_source": ""}, "data_source is empty ('');"),
    ("just text", "is text: 'just text', expected an object;"),
    (7, "is a number: 7, expected an object;"),
    (None, "is null: None, expected an object;"),
    (["x", "1"], "is a list: ['x', '1'], expected an object;"),
]


@pytest.mark.parametrize(("row", "fault"), BAD_PLAIN_ROWS)
def test_bad_plain_row(tmp_path: Path, row: Any, fault: str) -> None:
    rows = [GOOD, {"problem": "y", "answer": "2"}, row]
    message = refusal(save(tmp_path, rows, ".json"))
    assert f"1 of 3 rows cannot be used (rows counted from 0).\n  row 2: {fault}" in message
    message = refusal(save(tmp_path, rows, ".jsonl"))
    assert f"1 of 3 rows cannot be used (lines counted from 1).\n  line 3: {fault}" in message


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (pa.array(["1", None]), "answer is missing;"),
        (pa.array([1.0, float("nan")]), "answer is missing (NaN);"),
        (pa.array([None, True]), "answer is a boolean: True"),
        (pa.array([None, b"2"]), "answer is of type bytes: b'2'"),
        (pa.array([None, ["2"]]), "answer is a list: ['2']"),
    ],
)
def test_bad_parquet_row(tmp_path: Path, answers: pa.Array, fault: str) -> None:
    path = tmp_path / "toy.parquet"
    pq.write_table(pa.table({"problem": ["x", "y"], "answer": answers}), path)
    assert f"\n  row 1: {fault}" in refusal(path)


USER = {"role": "user", "content": "What is 1 + 1?"}
BAD_VERL_ROWS = [
    (verl_row(prompt=[]), "prompt has no messages;"),
    (verl_row(prompt="What?"), "prompt is text: 'What?'; expected [{"),
    (verl_row(prompt=["What?"]), "prompt holds text: 'What?', which is no message;"),
    (verl_row(prompt={"role": "user"}), "prompt is an object:"),
    (
        verl_row(prompt=[{"role": "system", "content": "Be brief."}, USER]),
        "prompt has a system message: 'Be brief.'; remove it: the package has its own system prompts",
    ),
    (verl_row(prompt=[USER, {"role": "assistant", "content": "2"}]), "the last message of prompt is from 'assistant'"),
    (verl_row(prompt=[{"content": "x"}]), "the last message of prompt is from None"),
    (verl_row(prompt=[USER, USER]), "prompt has 2 messages, from ['user', 'user'], expected exactly one user message"),
    (verl_row(prompt=[{"role": "assistant", "content": "2"}, USER]), "prompt has 2 messages, from ['assistant', "),
    (verl_row(prompt=[{"role": "user", "content": " "}]), "the prompt's content is empty (' ');"),
    (verl_row(prompt=[{"role": "user"}]), "the prompt's content is missing;"),
    (verl_row(prompt=[{"role": "user", "content": [{"type": "text"}]}]), "the prompt's content is a list:"),
    (verl_row(ground_truth=None), "reward_model.ground_truth is missing;"),
    (verl_row(ground_truth=["2"]), "reward_model.ground_truth is a list: ['2']"),
    (verl_row(reward_model=None), "reward_model is missing;"),
    (verl_row(reward_model="2"), "reward_model is text: '2';"),
    (verl_row(reward_model={"style": "model", "ground_truth": "2"}), "reward_model.style is 'model';"),
    ({"reward_model": {"ground_truth": "2"}}, "prompt is missing;"),
    ({"problem": "x", "answer": "1"}, "prompt is missing;"),  # one shape a file
]


@pytest.mark.parametrize(("row", "fault"), BAD_VERL_ROWS)
def test_bad_verl_row(tmp_path: Path, row: Any, fault: str) -> None:
    assert f"1 of 2 rows cannot be used (rows counted from 0).\n  row 1: {fault}" in refusal(
        save(tmp_path, [verl_row(), row], ".json")
    )
    assert f"\n  line 2: {fault}" in refusal(save(tmp_path, [verl_row(), row], ".jsonl"))


def test_system_message_in_parquet(tmp_path: Path) -> None:
    row = verl_row(prompt=[{"role": "system", "content": "Be brief."}, USER])
    assert "\n  row 1: prompt has a system message" in refusal(save(tmp_path, [verl_row(), row], ".parquet"))


def test_prompt_stored_as_text_in_parquet(tmp_path: Path) -> None:
    rows = [verl_row(prompt=json.dumps([USER]))]
    assert "\n  row 0: prompt is text: " in refusal(save(tmp_path, rows, ".parquet"))


def test_repeated_key_is_not_dropped_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text('{"problem": "x", "answer": 1}\n{"problem": "x", "answer": 1, "answer": 2}\n')
    assert "\n  line 2: has the key 'answer' more than once; keep one" in refusal(path)


def test_all_faults_of_a_row_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, [GOOD, {"problem": "", "answer": None, "data_source": 1}], ".json")
    assert (
        "\n  row 1: problem is empty (''); write the problem's text or remove the row; also: answer is missing; "
        "give the row its gold answer or remove it; also: data_source is a number: 1" in refusal(path)
    )


def test_offending_value_is_shortened(tmp_path: Path) -> None:
    path = save(tmp_path, [GOOD, {"problem": "x", "answer": ["z" * 10_000] * 1000}], ".json")
    assert len(refusal(path)) < len(str(path)) + 900


def test_all_bad_rows_are_collected(tmp_path: Path) -> None:
    # Rows 2, 4, 6, 8, 10 and 12..20 of 25 are bad: 5 + 9 = 14. In full: 2, 4, 6, 8, 10, 12..16; four more: 17..20.
    bad = [2, 4, 6, 8, 10, *range(12, 21)]
    rows = [{"problem": f"p{row}", "answer": "" if row in bad else "1"} for row in range(25)]
    with pytest.raises(ProblemFileError) as caught:
        read_problems(save(tmp_path, rows, ".json"))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("toy.json: 14 of 25 rows cannot be used (rows counted from 0).")
    assert [line.split(":")[0] for line in lines[1:11]] == [f"  row {row}" for row in [2, 4, 6, 8, 10, *range(12, 17)]]
    assert lines[11:] == ["  and 4 more, rows 17-20"]
    assert caught.value.rows == tuple(bad)
    again = pickle.loads(pickle.dumps(caught.value))  # as when it crosses a process
    assert (str(again), again.rows) == (str(caught.value), caught.value.rows)


def test_other_bad_lines_count_from_one(tmp_path: Path) -> None:
    rows = [{"problem": f"p{row}", "answer": ""} for row in range(12)] + [GOOD, {"problem": "x", "answer": ""}]
    assert refusal(save(tmp_path, rows, ".jsonl")).endswith("\n  and 3 more, lines 11-12, 14")


def test_an_error_stays_readable_when_everything_is_wrong() -> None:
    assert module._ranges([3, 4, 5, 9]) == "3-5, 9"
    text = module._ranges(range(0, 1000, 2))
    assert text.startswith("0, 2, 4, ")
    assert text.endswith("96, 98, …")  # 50 ranges: 0, 2, …, 98


def test_bad_source_name(tmp_path: Path) -> None:
    with pytest.raises(ProblemFileError, match="the source name is empty"):
        read_problems(save(tmp_path, [GOOD], ".json"), source=" ")


# Checks --------------------------------------------------------------------------------------------------------------


def count_words(text: str) -> int:
    return len(text.split())


def test_prompt_lengths(tmp_path: Path) -> None:
    problems = make_problems("one two three", "one two three four", "one", "one two three four five")
    check_prompt_lengths(problems, count_words, 5, path="toy.json")  # 5 words of 5: at the limit is allowed
    with pytest.raises(ProblemFileError) as caught:
        check_prompt_lengths(problems, count_words, 3, path="toy.json")
    assert str(caught.value).splitlines() == [
        "toy.json: 2 of 4 rows are longer than the prompt limit of 3 tokens (rows counted from 0).",
        "  row 1: 4 tokens: 'one two three four'",
        "  row 3: 5 tokens: 'one two three four five'",
        "Raise data.max_prompt_length to 5 or more, or remove these rows.",
    ]
    assert caught.value.rows == (1, 3)


def test_prompt_lengths_name_lines_of_jsonl() -> None:
    with pytest.raises(ProblemFileError, match=r"toy\.jsonl: 1 of 1 rows .*\(lines counted from 1\)\.\n  line 1: 2 "):
        check_prompt_lengths(make_problems("one two"), count_words, 1, path=Path("toy.jsonl"))


def test_prompt_limit_below_one() -> None:
    with pytest.raises(ValueError, match=r"the prompt limit is 0 tokens; set data\.max_prompt_length"):
        check_prompt_lengths(make_problems("one"), count_words, 0, path="toy.json")


def test_answers() -> None:
    problems = [make_problem("a", answer="7"), make_problem("b", answer="\\boxed{7}", index=1)]
    check_answers(problems[:1], path="toy.json")
    with pytest.raises(ProblemFileError) as caught:
        check_answers(problems, path="toy.jsonl")
    assert str(caught.value).splitlines() == [
        "toy.jsonl: 1 of 2 rows have an answer that cannot be graded (lines counted from 1).",
        "  line 2: gold answer '\\\\boxed{7}' has a box; give only its contents",
        "Correct these answers or remove the rows.",
    ]


def test_import_is_light() -> None:
    code = "import sys, longshort_verl.problems.read; print({'verl', 'ray', 'torch'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "set()"
