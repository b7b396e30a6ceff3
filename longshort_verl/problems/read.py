# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Reads and checks a problem file: the first stage of the pipeline.

A file is JSON, JSONL or Parquet. Its columns are *plain* (``problem`` or ``question``, and ``answer``) or *verl's*
(``prompt``, ``reward_model``); ``data_source`` is optional in both. A file with the columns of both is read as verl
reads it.

A bad file fails here, before any model loads, with one `ProblemFileError` that names every bad row: by its line,
counted from 1, in a ``.jsonl`` file, and elsewhere by its index, counted from 0. Prompts and text answers are kept
byte for byte; numbers become canonical text (``27.0`` → ``27``).
"""

from __future__ import annotations

import codecs
import json
import logging
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from longshort_verl.grading import check_gold
from longshort_verl.types import Problem

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row")
_Result = TypeVar("_Result")

_SUFFIXES = (".json", ".jsonl", ".parquet")
_PROMPT_COLUMNS = ("problem", "question")
_PLAIN_COLUMNS = (*_PROMPT_COLUMNS, "answer", "data_source")
_VERL_COLUMNS = ("prompt", "reward_model", "data_source")
_MEDIA_COLUMNS = ("images", "videos", "audios")  # verl's names; a Problem is text
_MISSING_TEXTS = ("nan", "<na>")  # what pandas' astype(str) makes of a missing value
_MAX_EXACT_FLOAT = 2**53  # beyond it neighbouring integers share one double
_MAX_FAULTS_IN_FULL = 10
_MAX_RANGES = 50
_ONE_MESSAGE = 'expected [{"role": "user", "content": "…"}]'
_WRITE_PROBLEM = "write the problem's text or remove the row"
_GIVE_ANSWER = "give the row its gold answer or remove it"

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 80


class ProblemFileError(ValueError):
    """A problem file cannot be used. The message names the file, the rows, what is wrong and the cure."""

    rows: tuple[int, ...] = ()
    """Index from 0 of every bad row; empty if the whole file is at fault."""


class _Fault(ValueError):
    """One thing wrong with a row, or with the file as a whole; becomes part of a ProblemFileError."""


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
    except _Fault as fault:
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
        used = _used_columns(columns) if any(isinstance(row, dict) for row in rows) else _PLAIN_COLUMNS
    except _Fault as fault:
        raise ProblemFileError(f"{where}: {fault}") from fault

    def read(index: int, row: Any) -> Problem:
        prompt, answer, name = _read_row(row, is_verl=used is _VERL_COLUMNS, source=source)
        return Problem(prompt=prompt, answer=answer, source=name or Path(where).stem, index=index)

    problems = for_each_row(list(enumerate(rows)), read, path=where, what="cannot be used")
    unused = sorted(set(columns) - set(used))
    if unused:
        logger.info("%s: columns not used: %s", where, ", ".join(unused))
    _warn_of_duplicates(where, problems)
    return problems


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
            raise _Fault(f"{length} tokens: {_shorten.repr(prompt)}")

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
    """Columns, if the file names them, and rows; a row that cannot be read is a `_Fault` in its place."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise _Fault(f"unsupported suffix {path.suffix!r}; convert the file to one of {', '.join(_SUFFIXES)}")
    if path.is_dir():
        raise _Fault("is a folder; name the file in it")
    if not path.exists():
        raise _Fault("no such file; check the path")
    try:
        if suffix == ".parquet":
            return _read_parquet(path)
        # Windows editors write a byte order mark; it is no part of the text.
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise _Fault(f"cannot be read: {error}") from error
    if not data.strip():
        return None, []
    if suffix == ".json":
        return None, _read_json(data)
    # Not str.splitlines(), which would also break a row at a raw U+2028 inside a string.
    return None, [_read_jsonl_line(line) for line in data.rstrip().split(b"\n")]


def _read_json(data: bytes) -> list[Any]:
    rows = _parse_json(data, cure="correct it, or rename the file to .jsonl if it has one object per line")
    if not isinstance(rows, list):
        raise _Fault(
            f"its top level is {_kind(rows)}, expected a list of objects; write it as "
            '[{"problem": …, "answer": …}, …] (in pandas: to_json(orient="records"))'
        )
    return rows


def _read_jsonl_line(line: bytes) -> Any:
    if not line.strip():
        return _Fault("is blank; remove the line")  # so that the line number is always the index plus one
    try:
        return _parse_json(line, one_line=True, cure="put one whole JSON object on each line")
    except _Fault as fault:
        return fault


def _parse_json(data: bytes, *, cure: str, one_line: bool = False) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object_from_pairs)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"at byte {error.start}" + (f" (line {line})" if b"\n" in data else "")
        raise _Fault(f"is not UTF-8: byte 0x{data[error.start]:02x} {where}; save it again as UTF-8") from error
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if one_line else f"line {error.lineno}, column {error.colno}"
        raise _Fault(f"invalid JSON at {where}: {error.msg}; {cure}") from error
    except RecursionError as error:
        raise _Fault(f"JSON is nested too deeply to be a row; {cure}") from error
    except ValueError as error:  # a number of thousands of digits
        raise _Fault(f"JSON holds a number that Python cannot read ({error}); write it as text") from error


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fault:
    """An object; a fault in its place if one key is repeated, since Python would silently drop the first value."""
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
    return _Fault(f"has the key {_shorten.repr(key)} more than once; keep one")


def _read_parquet(path: Path) -> tuple[list[str], list[Any]]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise _Fault(f"is not a parquet file: {error}; write it again") from error
    with file:
        columns: list[str] = file.schema_arrow.names
        repeated = [name for name, count in Counter(columns).items() if count > 1]
        if repeated:
            raise _Fault(f"has columns of the same name: {', '.join(repeated)}; rename or remove all but one")
        if not columns or not file.metadata.num_rows:
            return columns, []
        used = _used_columns(columns)
        _check_answer_type(file.schema_arrow, "reward_model.ground_truth" if used is _VERL_COLUMNS else "answer")
        try:
            table = file.read(columns=[name for name in columns if name in used])
        except pa.ArrowException as error:
            raise _Fault(f"its data cannot be read: {error}; write it again") from error
    try:
        return columns, table.to_pylist()
    except ValueError:  # text that is not UTF-8, a time stamp that Python cannot hold, …: find the rows
        return columns, [_read_parquet_row(table.slice(index, 1)) for index in range(table.num_rows)]


def _read_parquet_row(row: pa.Table) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return _Fault(f"holds text that is not UTF-8: {_shorten.repr(error.object)}; write it again as UTF-8")
    except ValueError as error:
        return _Fault(f"cannot be read: {error}; store the value as text")


def _check_answer_type(schema: pa.Schema, name: str) -> None:
    """Refuse half and single precision: 0.1 would be read as 0.10000000149011612, a wrong gold answer."""
    column, _, key = name.partition(".")
    kind = schema.field(column).type
    if key:
        if not pa.types.is_struct(kind) or kind.get_field_index(key) < 0:
            return
        kind = kind.field(key).type
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        raise _Fault(f"column {name} is of type {kind}, which cannot hold decimals exactly; store answers as text")


def _used_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """_PLAIN_COLUMNS or _VERL_COLUMNS, whichever the file has."""
    media = [name for name in _MEDIA_COLUMNS if name in columns]
    if media:
        raise _Fault(f"has columns of media ({', '.join(media)}), but problems are text only; remove the columns")
    missing = [name for name in ("prompt", "reward_model") if name not in columns]
    if not missing:
        return _VERL_COLUMNS
    has_problem = any(name in columns for name in _PROMPT_COLUMNS)
    if has_problem and "answer" in columns:
        return _PLAIN_COLUMNS
    if len(missing) == 2:
        missing = ([] if has_problem else ["problem (or question)"]) + ([] if "answer" in columns else ["answer"])
    raise _Fault(
        f"missing columns: {', '.join(missing)}; it has: {_shorten.repr(sorted(columns))}. A file needs either problem "
        "and answer, or verl's prompt and reward_model; rename its columns"
    )


def _read_row(row: Any, *, is_verl: bool, source: str | None) -> tuple[str, str, str]:
    """Prompt, answer and data source: ``source`` if given, else the row's own, empty if it has none."""
    if isinstance(row, _Fault):
        raise row
    if not isinstance(row, dict):
        raise _Fault(f"is {_shown(row)}, expected an object; write it as {{…}} with the columns")
    readers = (
        [_verl_prompt, _verl_answer] if is_verl else [_plain_prompt, lambda row: canonical_answer(row.get("answer"))]
    )
    readers.append(_source if source is None else lambda row: source)
    values, faults = [], []
    for read in readers:
        try:
            values.append(read(row))
        except _Fault as fault:
            faults.append(str(fault))
    if faults:
        raise _Fault("; also: ".join(faults))
    return values[0], values[1], values[2]


def _source(row: dict[str, Any]) -> str:
    source = row.get("data_source")
    return "" if source is None else check_text(source, "data_source", "name the data set, or pass a source")


def _plain_prompt(row: dict[str, Any]) -> str:
    names = [name for name in _PROMPT_COLUMNS if row.get(name) is not None]
    if len(names) == 2 and row["problem"] != row["question"]:
        raise _Fault("problem and question differ; keep the one to ask")
    name = next((name for name in (*names, *_PROMPT_COLUMNS) if name in row), "problem")
    return check_text(row.get(name), name, _WRITE_PROBLEM)


def _verl_prompt(row: dict[str, Any]) -> str:
    """Text of a prompt that is one user message."""
    messages = row.get("prompt")
    if not isinstance(messages, list):
        raise _Fault(f"prompt is {'missing' if messages is None else _shown(messages)}; {_ONE_MESSAGE}")
    if not messages:
        raise _Fault(f"prompt has no messages; {_ONE_MESSAGE}")
    for message in messages:
        if not isinstance(message, dict):
            raise _Fault(f"prompt holds {_shown(message)}, which is no message; {_ONE_MESSAGE}")
    roles = [message.get("role") for message in messages]
    if "system" in roles:
        content = messages[roles.index("system")].get("content")
        raise _Fault(
            f"prompt has a system message: {_shorten.repr(content)}; remove it: the package has its own system prompts "
            "for the long and the short role"
        )
    if roles[-1] != "user":
        raise _Fault(f"the last message of prompt is from {_shorten.repr(roles[-1])}, not from user; {_ONE_MESSAGE}")
    if len(roles) > 1:
        raise _Fault(
            f"prompt has {len(roles)} messages, from {_shorten.repr(roles)}, expected exactly one user message; "
            "put the whole problem into one"
        )
    return check_text(messages[0].get("content"), "the prompt's content", _WRITE_PROBLEM)


def _verl_answer(row: dict[str, Any]) -> str:
    reward_model = row.get("reward_model")
    if not isinstance(reward_model, dict):
        state = "missing" if reward_model is None else _shown(reward_model)
        raise _Fault(f'reward_model is {state}; expected {{"style": "rule", "ground_truth": "…"}}')
    style = reward_model.get("style")
    if style not in (None, "rule"):
        raise _Fault(f"reward_model.style is {_shorten.repr(style)}; answers are graded by rule only: set it to 'rule'")
    return canonical_answer(reward_model.get("ground_truth"), "reward_model.ground_truth")


def canonical_answer(value: Any, name: str = "answer") -> str:
    """A gold answer as text: text unchanged, a number in plain decimal notation without trailing zeros.

    Raises:
        ValueError: the value is missing, not finite, too large for an exact float, or neither text nor a number.
    """
    if isinstance(value, str) and value.strip().lower() in _MISSING_TEXTS:
        raise _Fault(f"{name} is {value!r}, the trace of a missing value; {_GIVE_ANSWER}")
    if value is None or isinstance(value, str) or _is_nan(value):
        return check_text(value, name, _GIVE_ANSWER)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _Fault(f"{name} is {_shown(value)}, expected text or a number; write it as text")
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        raise _Fault(f"{name} is infinite ({value}); write it as text, for example '\\infty'")
    if isinstance(value, float):
        if abs(value) >= _MAX_EXACT_FLOAT:
            raise _Fault(f"{name} is {value!r}, a float too large to be an exact integer; write it as text")
        value = Decimal(repr(value))
    text = format(value, "f")  # never 1e-07, which graders do not read
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def check_text(value: Any, name: str, cure: str) -> str:
    """The value itself. Raises ValueError if it is not text, is blank, or cannot be encoded as UTF-8."""
    if value is None or _is_nan(value):
        raise _Fault(f"{name} is missing{'' if value is None else ' (NaN)'}; {cure}")
    if not isinstance(value, str):
        raise _Fault(f"{name} is {_shown(value)}, expected text; {cure}")
    if not value.strip():
        raise _Fault(f"{name} is empty ({_shorten.repr(value)}); {cure}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON may hold half of a surrogate pair ("\ud83d"); neither parquet nor a tokenizer can.
        raise _Fault(
            f"{name} has a lone surrogate U+{ord(value[error.start]):04X} at character {error.start} (from 0), which "
            "is no Unicode text; correct or remove the character"
        ) from error
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, Decimal)) and math.isnan(value)


def _shown(value: Any) -> str:
    return f"{_kind(value)}: {_shorten.repr(value)}"


def _kind(value: Any) -> str:
    """The kind of a value, in JSON's words where it has some."""
    if isinstance(value, _Fault):
        return f"an object that {value}"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")


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
