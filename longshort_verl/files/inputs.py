# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Files that users give: what a file is that is not the text it should be."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LOOK_AT = 512
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<!--", b"<head", b"<body")


def check_kind(path: Path) -> None:
    """Check by a file's first bytes that it can be what its name says.

    Raises:
        ValueError: it is UTF-16, a pointer of Git LFS, a web page, or compressed; the message is without the path.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_LOOK_AT)
    for mark, name in _ENCODINGS.items():
        if head.startswith(mark):
            raise ValueError(f"is {name} text; save it again as UTF-8")
    for mark, name in _PACKED.items():
        if head.startswith(mark):
            raise ValueError(f"is compressed with {name}; unpack it")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise ValueError("is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`")
    if start.lower().startswith(_PAGES):
        raise ValueError(
            "is an HTML page, not the file itself, as a link to a viewer or to a log-in gives it; download the raw file"
        )
    parquet = head.startswith(b"PAR1")
    if parquet and path.suffix.lower() != ".parquet":
        raise ValueError("is a Parquet file; name it .parquet, or write it as JSONL where Parquet is not read")
    if not parquet and b"\0" in head[:4]:
        raise ValueError("begins with null bytes: it is UTF-16 text without a mark, or no text; save it again as UTF-8")


def read_text_bytes(path: Path) -> bytes:
    """The bytes of a text file without a byte order mark of UTF-8, which is logged. Raises as :func:`check_kind`."""
    check_kind(path)
    data = path.read_bytes()
    if data.startswith(codecs.BOM_UTF8):
        logger.warning("%s begins with a byte order mark (UTF-8 with BOM), which is skipped", path)
    return data.removeprefix(codecs.BOM_UTF8)


def only_list(value: Any, columns: Collection[str]) -> list[Any] | None:
    """The one list of objects in an object, such as ``{"data": [{…}, …]}``; None if it is not alone.

    An object with one of ``columns`` is a row itself.
    """
    if not isinstance(value, dict) or any(name in value for name in columns):
        return None
    lists = [item for item in value.values() if isinstance(item, list)]
    return lists[0] if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict) else None
