# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reads and checks a problem file: the first stage of the pipeline.

A file is JSON, JSONL, CSV or Parquet. Its columns are *plain* (``problem`` or ``question``, and ``answer``), *verl's*
(``prompt``, ``reward_model``), or those of another format of ``columns``; ``data_source`` is optional in all. A file
with the columns of both is read as verl reads it.

A bad file fails here, before any model loads, with one `ProblemFileError` that names every bad row: by its line,
counted from 1, in a ``.jsonl`` file, and elsewhere by its index, counted from 0. Prompts and text answers are kept
byte for byte, except that of GSM8K's solutions the text after ``####`` is the answer; numbers become canonical text
(``27.0`` → ``27``).
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from longshort_verl.files.inputs import check_kind, only_list, read_text_bytes
from longshort_verl.grading import check_gold
from longshort_verl.problems.columns import COLUMNS, PLAIN, VERL, format_of, read_row
from longshort_verl.problems.values import RowFault, check_text, is_text_only, kind, lost_backslash, shorten
from longshort_verl.types import Problem

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row")
_Result = TypeVar("_Result")

_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_MAX_FAULTS_IN_FULL = 10
_MAX_RANGES = 50


class ProblemFileError(ValueError):
    """A problem file cannot be used. The message names the file, the rows, what is wrong and the cure."""

    rows: tuple[int, ...] = ()
    """Index from 0 of every bad row; empty if the whole file is at fault."""


def read_problems(path: str | Path, *, source: str | None = None) -> list[Problem]:
    """Read and check a problem file with plain or verl's columns.

    ``Problem.index`` is the row's position in this file. ``Problem.source`` is ``source``, else the row's
    ``data_source``, else the file's stem. Unused columns, such as verl's ``ability`` and ``extra_info``, are ignored
    and logged.

    Raises:
        ProblemFileError: the file is missing, of another kind, unreadable or without rows, or any row is bad; the
            error names all bad rows.
    """
    path = Path(path)
    try:
        if source is not None:
            check_text(source, "the source name", "pass another name")
        columns, rows = _read_rows(path)
    except RowFault as fault:
        raise ProblemFileError(f"{path}: {fault}") from fault
    return problems_from_rows(rows, where=path, source=source, columns=columns)


def problems_from_rows(
    rows: Sequence[Any], *, where: str | Path, source: str | None, columns: Sequence[str] | None = None
) -> list[Problem]:
    """The problems of rows in memory; ``where`` names the rows in messages. See :func:`read_problems`.

    Raises:
        ProblemFileError: there is no row, or any row is bad.
    """
    if not rows:
        raise ProblemFileError(f"{where}: has no rows; give it at least one problem")
    if columns is None:
        columns = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    try:
        # Without any object, each row has its own fault.
        format = format_of(columns) if any(isinstance(row, dict) for row in rows) else PLAIN
    except RowFault as fault:
        raise ProblemFileError(f"{where}: {fault}") from fault

    def read(index: int, row: Any) -> Problem:
        prompt, answer, name = read_row(row, format, source)
        return Problem(prompt=prompt, answer=answer, source=name or Path(where).stem, index=index)

    problems = for_each_row(list(enumerate(rows)), read, path=where, what="cannot be used")
    unused = sorted(set(columns) - set(format.columns))
    if unused:
        logger.info("%s: columns not used: %s", where, ", ".join(unused))
    _warn_of_duplicates(where, problems)
    _warn_of_texts(where, problems)
    _warn_of_lost_backslashes(where, problems)
    return problems


def check_verl_reads(path: str | Path) -> None:
    """Check that a file, which :func:`read_problems` reads, has a suffix and columns that verl's data set reads too.

    Raises:
        ProblemFileError: it does not; verl would fail after Ray and the models have started.
    """
    path = Path(path)
    columns, rows = _read_rows(path)
    if path.suffix.lower() == ".csv" or format_of(columns or rows[0]) is not VERL:
        raise ProblemFileError(
            f"{path}: verl reads .parquet, .json and .jsonl files with the columns prompt and reward_model; write such "
            f"a file with `longshort problems {path} --out FOLDER`"
        )


def check_prompt_lengths(
    problems: Sequence[Problem], count_tokens: Callable[[str], int], limit: int, *, path: str | Path
) -> None:
    """Check that every prompt has at most ``limit`` tokens. Messages name ``path``, the file of the problems.

    Raises:
        ValueError: the limit is below 1.
        ProblemFileError: a prompt is longer; verl would drop it without naming it.
    """
    if limit < 1:
        raise ValueError(f"the prompt limit is {limit} tokens; set data.max_prompt_length to 1 or more")
    lengths = [count_tokens(problem.prompt) for problem in problems]

    def check(index: int, row: tuple[str, int]) -> None:
        prompt, length = row
        if length > limit:
            raise RowFault(f"{length} tokens: {shorten.repr(prompt)}")

    rows = [(problem.index, (problem.prompt, length)) for problem, length in zip(problems, lengths, strict=True)]
    cure = f"Raise data.max_prompt_length to {max(lengths, default=limit)} or more, or remove these rows."
    for_each_row(rows, check, path=path, what=f"are longer than the prompt limit of {limit} tokens", cure=cure)


def check_answers(problems: Sequence[Problem], *, path: str | Path) -> None:
    """Check every gold answer (:func:`longshort_verl.grading.check_gold`). Messages name ``path``, the problems' file.

    Raises:
        ProblemFileError: an answer cannot be graded.
    """
    what, cure = "have an answer that cannot be graded", "Correct these answers or remove the rows."
    answers = [(problem.index, problem.answer) for problem in problems]
    for_each_row(answers, lambda index, answer: check_gold(answer), path=path, what=what, cure=cure)


def _read_rows(path: Path) -> tuple[list[str] | None, list[Any]]:
    """Columns, if the file names them, and rows; a row that cannot be read is a `RowFault` in its place."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise RowFault(f"unsupported suffix {path.suffix!r}; convert the file to one of {', '.join(_SUFFIXES)}")
    if path.is_dir():
        raise RowFault("is a folder; name the file in it")
    if not path.exists():
        raise RowFault("no such file; check the path")
    try:
        if suffix == ".parquet":
            check_kind(path)
            return _read_parquet(path)
        data = read_text_bytes(path)
    except OSError as error:
        raise RowFault(f"cannot be read: {error}") from error
    except RowFault:
        raise
    except ValueError as error:
        raise RowFault(str(error)) from error
    if not data.strip():
        return None, []
    if suffix == ".csv":
        return _read_csv(data)
    if suffix == ".json":
        return None, _read_json(data)
    # Not str.splitlines(), which would also break a row at a raw U+2028 inside a string.
    return None, [_read_jsonl_line(line) for line in data.rstrip().split(b"\n")]


def _read_json(data: bytes) -> list[Any]:
    rows = _parse_json(data, cure="correct it, or rename the file to .jsonl if it has one object per line")
    if (only := only_list(rows, COLUMNS)) is not None:
        return only
    if not isinstance(rows, list):
        raise RowFault(
            f"its top level is {kind(rows)}, expected a list of objects; write it as "
            '[{"problem": …, "answer": …}, …] (in pandas: to_json(orient="records"))'
        )
    return rows


def _read_csv(data: bytes) -> tuple[list[str], list[Any]]:
    """Header and rows; a cell is text."""
    lines = csv.DictReader(io.StringIO(_decode(data), newline=""), strict=True)
    try:
        columns = list(lines.fieldnames or ())
        rows = [_whole(row, len(columns)) for row in lines]
    except csv.Error as error:
        raise RowFault(
            f"invalid CSV after line {lines.line_num}: {error}; write it again with a CSV library"
        ) from error
    if len(columns) == 1 and any(sign in columns[0] for sign in ";\t|"):
        raise RowFault(f"its header {shorten.repr(columns[0])} has no comma; separate the columns by commas")
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise RowFault(f"has columns of the same name: {', '.join(repeated)}; rename or remove all but one")
    return columns, rows


def _whole(row: dict[Any, Any], number: int) -> Any:
    more = row.get(None)
    if more is None and None not in row.values():
        return row
    has = number + len(more) if more else sum(value is not None for value in row.values())
    return RowFault(f"has {has} fields, but the header has {number}; quote fields that hold commas or line breaks")


def _read_jsonl_line(line: bytes) -> Any:
    if not line.strip():
        return RowFault("is blank; remove the line")  # so that the line number is always the index plus one
    try:
        return _parse_json(line, one_line=True, cure="put one whole JSON object on each line")
    except RowFault as fault:
        return fault


def _parse_json(data: bytes, *, cure: str, one_line: bool = False) -> Any:
    try:
        return json.loads(_decode(data), object_pairs_hook=_object_from_pairs)
    except RowFault:
        raise
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if one_line else f"line {error.lineno}, column {error.colno}"
        raise RowFault(f"invalid JSON at {where}: {error.msg}; {cure}") from error
    except RecursionError as error:
        raise RowFault(f"JSON is nested too deeply to be a row; {cure}") from error
    except ValueError as error:  # a number of thousands of digits
        raise RowFault(f"JSON holds a number that Python cannot read ({error}); write it as text") from error


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"at byte {error.start}" + (f" (line {line})" if b"\n" in data else "")
        raise RowFault(f"is not UTF-8: byte 0x{data[error.start]:02x} {where}; save it again as UTF-8") from error


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RowFault:
    """An object; a fault in its place if one key is repeated, since Python would silently drop the first value."""
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
    return RowFault(f"has the key {shorten.repr(key)} more than once; keep one")


def _read_parquet(path: Path) -> tuple[list[str], list[Any]]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise RowFault(f"is not a parquet file: {error}; write it again") from error
    with file:
        columns: list[str] = file.schema_arrow.names
        repeated = [name for name, count in Counter(columns).items() if count > 1]
        if repeated:
            raise RowFault(f"has columns of the same name: {', '.join(repeated)}; rename or remove all but one")
        if not columns or not file.metadata.num_rows:
            return columns, []
        format = format_of(columns)
        _check_answer_type(file.schema_arrow, format.answer_column)
        try:
            table = file.read(columns=[name for name in columns if name in format.columns])
        except pa.ArrowException as error:
            raise RowFault(f"its data cannot be read: {error}; write it again") from error
    try:
        return columns, table.to_pylist()
    except ValueError:  # text that is not UTF-8, a time stamp that Python cannot hold, …: find the rows
        return columns, [_read_parquet_row(table.slice(index, 1)) for index in range(table.num_rows)]


def _read_parquet_row(row: pa.Table) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowFault(f"holds text that is not UTF-8: {shorten.repr(error.object)}; write it again as UTF-8")
    except ValueError as error:
        return RowFault(f"cannot be read: {error}; store the value as text")


def _check_answer_type(schema: pa.Schema, name: str) -> None:
    """Refuse half and single precision: 0.1 would be read as 0.10000000149011612, a wrong gold answer."""
    column, _, key = name.partition(".")
    if column not in schema.names:
        return
    type_ = schema.field(column).type
    if key:
        if not pa.types.is_struct(type_) or type_.get_field_index(key) < 0:
            return
        type_ = type_.field(key).type
    if pa.types.is_float16(type_) or pa.types.is_float32(type_):
        raise RowFault(f"column {name} is of type {type_}, which cannot hold decimals exactly; store answers as text")


def text_key(text: str) -> str:
    """Two problems are the same if this is equal: their text with each run of white space as one space."""
    return " ".join(text.split())


def _warn_of_duplicates(path: str | Path, problems: Sequence[Problem]) -> None:
    first: dict[str, Problem] = {}
    pairs = [(first.setdefault(text_key(problem.prompt), problem), problem) for problem in problems]
    conflicts = [earlier.answer != problem.answer for earlier, problem in pairs if earlier is not problem]
    if conflicts:
        message = "%s: %d of %d rows repeat an earlier problem, %d of them with another answer; all are kept"
        logger.warning(message, path, len(conflicts), len(problems), sum(conflicts))


def _warn_of_texts(path: str | Path, problems: Sequence[Problem]) -> None:
    texts = [problem.answer for problem in problems if is_text_only(problem.answer)]
    if texts:
        message = "%s: %d of %d gold answers can only be compared as text, the first of them %r"
        logger.warning(message, path, len(texts), len(problems), texts[0])


def _warn_of_lost_backslashes(path: str | Path, problems: Sequence[Problem]) -> None:
    """A gold in this state is refused; a problem is not, since public sets (AIME 2024) have some."""
    faults = [(problem.index, fault) for problem in problems if (fault := lost_backslash(problem.prompt))]
    if faults:
        message = "%s: %d of %d problems lost a backslash of their LaTeX and are kept; the one of index %d %s"
        logger.warning(message, path, len(faults), len(problems), *faults[0])


def for_each_row(
    rows: Sequence[tuple[int, _Row]],
    read: Callable[[int, _Row], _Result],
    *,
    path: str | Path,
    what: str,
    cure: str = "",
) -> list[_Result]:
    """``read`` of every index and row.

    Raises:
        ProblemFileError: ``read`` raises ValueError for a row. Names all such rows, the first ones with their faults.
    """
    results, faults = [], []
    for index, row in rows:
        try:
            results.append(read(index, row))
        except ValueError as fault:
            faults.append((index, str(fault)))
    if not faults:
        return results
    word, first = ("line", 1) if Path(path).suffix.lower() == ".jsonl" else ("row", 0)
    lines = [f"{Path(path)}: {len(faults)} of {len(rows)} rows {what} ({word}s counted from {first})."]
    lines += [f"  {word} {index + first}: {fault}" for index, fault in faults[:_MAX_FAULTS_IN_FULL]]
    rest = [index + first for index, _ in faults[_MAX_FAULTS_IN_FULL:]]
    if rest:
        lines.append(f"  and {len(rest)} more, {word}s {_ranges(rest)}")
    error = ProblemFileError("\n".join(lines + ([cure] if cure else [])))
    error.rows = tuple(index for index, _ in faults)
    raise error


def _ranges(numbers: Sequence[int]) -> str:
    """``[3, 4, 5, 9]`` as ``3-5, 9``, cut after _MAX_RANGES."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(start) if start == end else f"{start}-{end}" for start, end in runs[:_MAX_RANGES]]
    return ", ".join(parts + (["…"] if len(runs) > _MAX_RANGES else []))
