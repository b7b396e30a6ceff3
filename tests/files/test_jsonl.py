# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from longshort_verl.files.jsonl import read_jsonl, write_jsonl


def test_rows_are_read_as_written(tmp_path):
    rows = [{"text": "ü \u2028 \n"}, {}]
    write_jsonl(tmp_path / "deep" / "x.jsonl", rows)
    assert list(read_jsonl(tmp_path / "deep" / "x.jsonl")) == [(1, rows[0]), (2, rows[1])]
    write_jsonl(tmp_path / "x.jsonl", [])
    assert list(read_jsonl(tmp_path / "x.jsonl")) == []


@pytest.mark.parametrize(("line", "fault"), [("{", "is not JSON"), ("[1]", "is not a JSON object"), ("", "not JSON")])
def test_a_bad_line_is_named(tmp_path, line, fault):
    (tmp_path / "x.jsonl").write_text(f"{{}}\n{line}\n")
    with pytest.raises(ValueError, match=rf"x\.jsonl, line 2, .*{fault.split()[-1]}"):
        list(read_jsonl(tmp_path / "x.jsonl"))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"n": 1}])
    with pytest.raises(TypeError):
        write_jsonl(tmp_path / "x.jsonl", [{"n": 2}, {"n": object()}])
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [(1, {"n": 1})]
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
