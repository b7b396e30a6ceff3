# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are another kind than their name says; problem files and files of chains refuse each by its message."""

from __future__ import annotations

import gzip
import re

import pytest

from longshort_verl.files.inputs import check_kind, only_list

TEXT = '{"problem": "1+1", "answer": "2"}\n'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"

OTHER_KINDS = [
    (TEXT.encode("utf-16"), "is UTF-16 text; save it again as UTF-8"),
    (b"\xfe\xff" + TEXT.encode("utf-16-be"), "is UTF-16 text; save it again as UTF-8"),
    (TEXT.encode("utf-32"), "is UTF-32 text; save it again as UTF-8"),
    (
        TEXT.encode("utf-16-le"),
        "begins with null bytes: it is UTF-16 text without a mark, or no text; save it again as UTF-8",
    ),
    (POINTER, "is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`"),
    (
        PAGE,
        "is an HTML page, not the file itself, as a link to a viewer or to a log-in gives it; download the raw file",
    ),
    (
        b"<!-- saved from a browser -->" + PAGE,
        "is an HTML page, not the file itself, as a link to a viewer or to a log-in gives it; download the raw file",
    ),
    (gzip.compress(TEXT.encode(), mtime=0), "is compressed with gzip; unpack it"),
]


@pytest.mark.parametrize(("data", "message"), OTHER_KINDS)
def test_another_kind_is_named(tmp_path, data, message):
    path = tmp_path / "toy.jsonl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_kind(path)


@pytest.mark.parametrize("data", [b"", TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), b'["<html>"]', b"\xf6,1\n"])
def test_text_is_text(tmp_path, data):
    (tmp_path / "toy.jsonl").write_bytes(data)
    check_kind(tmp_path / "toy.jsonl")


def test_parquet_under_another_name(tmp_path):
    (tmp_path / "toy.jsonl").write_bytes(b"PAR1\x15\x04")
    with pytest.raises(ValueError, match="is a Parquet file; name it .parquet, or write it as JSONL"):
        check_kind(tmp_path / "toy.jsonl")
    (tmp_path / "toy.parquet").write_bytes(b"PAR1\x15\x04")
    check_kind(tmp_path / "toy.parquet")


def test_the_only_list_of_an_object():
    rows = [{"a": 1}]
    assert only_list({"version": 2, "data": rows}, ("problem",)) == rows
    for value in (rows, {"a": rows, "b": rows}, {"problem": "x", "data": rows}, {"data": []}, {"data": ["x"]}, {}):
        assert only_list(value, ("problem",)) is None
