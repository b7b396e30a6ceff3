# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A user's problem file, checked and written in verl's RL schema: the first stage of the pipeline.

``problems ─▶ chunk ─▶ importance ─▶ …``: every later stage reads what `write_problems` wrote, and so does
verl's own loader (``datasets.load_dataset("parquet", …)``). A file comes in one of two shapes, told apart by its
columns: *plain* (``problem`` or ``question``, and ``answer``) or *verl* (``prompt``, ``reward_model`` and
optionally ``data_source``). Where a file has the columns of both, verl's are read, as verl itself would.

A bad file fails here, before any model loads, with one `ProblemFileError` that names every bad row. In a
``.jsonl`` file a row is named by its line, counted from 1; elsewhere by its index, counted from 0. Prompts and
text answers are kept byte for byte; numbers become canonical text (``27.0`` → ``27``).

Pure: no verl, no ray, no torch.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import math
import os
import platform
import reprlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longshort_verl.files.atomic import write_atomically
from longshort_verl.types import Problem

logger = logging.getLogger(__name__)

VERL_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string())])),
    ]
)
"""One row of verl's RL data, as its loader and reward managers read it."""

_SUFFIXES = (".json", ".jsonl", ".parquet")
_PROMPT_COLUMNS = ("problem", "question")
_MEDIA_COLUMNS = ("images", "videos", "audios")  # verl's names; a Problem is text
_USED_COLUMNS = (*_PROMPT_COLUMNS, "answer", "prompt", "reward_model", "data_source")
_MISSING_TEXTS = ("nan", "<na>")  # what pandas' astype(str) makes of a missing value; no gold answer reads so
_MAX_EXACT_FLOAT = 2**53  # beyond it neighbouring integers share one double
_MAX_FAULTS_IN_FULL = 10
_MAX_RANGES = 50

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 80


class ProblemFileError(ValueError):
    """A problem file cannot be used. The message names the file, the rows, what is wrong and the cure."""

    rows: tuple[int, ...] = ()
    """Index from 0 of every bad row; empty when the fault is the file's as a whole."""


class _Fault(ValueError):
    """One thing wrong with one row, or with the file before it has rows; becomes part of a ProblemFileError."""


class _Shape(Enum):
    """Which columns hold the problem and its answer."""

    PLAIN = "plain"
    VERL = "verl"


class _RepeatedKey:
    """Stands for a JSON object that has one key twice, of which Python would drop the first in silence."""

    def __init__(self, key: str) -> None:
        self.key = key


def read_problems(path: str | os.PathLike[str], *, source: str | None = None) -> list[Problem]:
    """Read and validate a problem file in either shape.

    ``Problem.index`` is the row's position in this file. ``Problem.source`` is ``source``, else the row's
    ``data_source``, else the file's stem. Columns that are not used, verl's ``ability`` and ``extra_info`` among
    them, are ignored, and logged.

    Raises:
        ProblemFileError: the file is missing, of another kind, unreadable or without rows, or any row is
            bad; all bad rows are in the one error.
    """
    path = Path(path)
    try:
        if source is not None:
            _check_text(source, "the source name", "pass another name")
        columns, rows = _read_rows(path)
    except _Fault as fault:
        raise ProblemFileError(f"{path}: {fault}") from fault
    return _read_all(columns, rows, where=path, source=source, default_source=path.stem)


def problems_from_rows(rows: Sequence[Mapping[str, Any]], *, where: str, source: str) -> list[Problem]:
    """The problems of rows that another reader has read, in either shape; ``where`` names them in messages.

    Raises:
        ProblemFileError: there is no row, or any row is bad.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not rows:
        raise ProblemFileError(f"{where}: has no rows; give it at least one problem")
    return _read_all(columns, [dict(row) for row in rows], where=Path(where), source=source, default_source=source)


def _read_all(
    columns: Sequence[str], rows: Sequence[Any], *, where: Path, source: str | None, default_source: str
) -> list[Problem]:
    try:
        has_objects = any(isinstance(row, dict) for row in rows)
        shape = _find_shape(columns) if has_objects else None
    except _Fault as fault:
        raise ProblemFileError(f"{where}: {fault}") from fault

    problems: list[Problem] = []
    faults: list[tuple[int, str]] = []
    for index, row in enumerate(rows):
        try:
            problems.append(_read_row(row, shape=shape, source=source, default_source=default_source, index=index))
        except _Fault as fault:
            faults.append((index, str(fault)))
    if faults:
        raise _error(where, faults, num_rows=len(rows), what="cannot be used")

    unused = sorted(set(columns) - set(_USED_COLUMNS))
    if shape is _Shape.VERL:
        unused = sorted(set(columns) - {"prompt", "reward_model", "data_source"})
    if unused:
        logger.info("%s: columns not used: %s", where, ", ".join(unused))
    _warn_of_duplicates(where, problems)
    return problems


def write_problems(
    problems: Sequence[Problem],
    path: str | os.PathLike[str],
    *,
    split: str,
    inputs: Mapping[str, Path] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write verl's RL parquet schema and, beside it, ``<path>.manifest.json``; return the parquet's path.

    Atomic: a reader sees the old file or the new one. The same problems and split give the same bytes (under one
    pyarrow version). ``extra_info.index`` is ``Problem.index``, so after `split_problems` it still names the
    row of the file that was read. ``inputs`` and ``settings`` go into the manifest.

    Raises:
        ValueError: the path does not end in ``.parquet``, there are no problems, or the split has no name.
        ProblemFileError: a problem has an empty text or one that cannot be encoded.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"cannot write {str(path)!r}: verl loads only files that end in .parquet; rename it")
    if not problems:
        raise ValueError(f"cannot write {path}: there are no problems; verl cannot train on an empty file")
    if not split.strip():
        raise ValueError(f"split is {split!r}; name it, for example 'train' or 'test'")
    faults: list[tuple[int, str]] = []
    for problem in problems:
        try:
            for name in ("prompt", "answer", "source"):
                _check_text(getattr(problem, name), name, "correct the Problem")
        except _Fault as fault:
            faults.append((problem.index, str(fault)))
    if faults:
        raise _error(path, faults, num_rows=len(problems), what="cannot be written")

    table = pa.Table.from_pylist(
        [
            {
                "data_source": problem.source,
                "prompt": [{"role": "user", "content": problem.prompt}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": problem.answer},
                "extra_info": {"index": problem.index, "split": split},
            }
            for problem in problems
        ],
        schema=VERL_SCHEMA,
    )
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    write_manifest(
        path,
        inputs=inputs or {},
        counts={
            "rows": len(problems),
            "distinct_problems": len({_text_key(problem.prompt) for problem in problems}),
            "rows_by_source": dict(Counter(problem.source for problem in problems)),
        },
        settings={**(settings or {}), "split": split},
    )
    return path


def write_manifest(
    path: str | os.PathLike[str],
    *,
    inputs: Mapping[str, Path],
    counts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Path:
    """Write ``<path>.manifest.json``, which says what the artefact at ``path`` was made from; return its path.

    Holds no time stamp, so that the same inputs, code and place give the same manifest. A commit or a package
    version that cannot be found is null.

    Raises:
        OSError: the artefact or an input cannot be read.
        TypeError, ValueError: counts or settings hold what JSON cannot.
    """
    path = Path(path)
    manifest = {
        "output": {"path": path.name, "sha256": _sha256(path)},
        "inputs": {name: {"path": str(file), "sha256": _sha256(Path(file))} for name, file in inputs.items()},
        "counts": counts,
        "settings": settings,
        "longshort_verl": _package_version(),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    manifest_path = path.with_name(path.name + ".manifest.json")
    write_atomically(manifest_path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return manifest_path


def check_prompt_lengths(
    problems: Sequence[Problem],
    count_tokens: Callable[[str], int],
    limit: int,
    *,
    path: str | os.PathLike[str],
) -> None:
    """Check that every prompt has at most ``limit`` tokens; ``count_tokens`` counts what the model will see.

    ``path`` is the file that the problems were read from, for the message.

    Raises:
        ValueError: the limit is below 1.
        ProblemFileError: at least one prompt is longer; verl would drop it without a word about which.
    """
    if limit < 1:
        raise ValueError(f"the prompt limit is {limit} tokens; set data.max_prompt_length to 1 or more")
    faults: list[tuple[int, str]] = []
    longest = 0
    for problem in problems:
        num_tokens = count_tokens(problem.prompt)
        longest = max(longest, num_tokens)
        if num_tokens > limit:
            faults.append((problem.index, f"{num_tokens} tokens: {_shorten.repr(problem.prompt)}"))
    if faults:
        cure = f"Raise data.max_prompt_length to {longest} or more, or remove these rows."
        what = f"are longer than the prompt limit of {limit} tokens"
        raise _error(Path(path), faults, num_rows=len(problems), what=what, cure=cure)


def check_answers(problems: Sequence[Problem], check: Callable[[str], None], *, path: str | os.PathLike[str]) -> None:
    """Run a gold-answer check (``grading.check_gold``), which raises ValueError, on every answer.

    ``path`` is the file that the problems were read from, for the message.

    Raises:
        ProblemFileError: the check refused at least one answer; anything but a ValueError passes through.
    """
    faults: list[tuple[int, str]] = []
    for problem in problems:
        try:
            check(problem.answer)
        except ValueError as fault:
            faults.append((problem.index, f"answer {_shorten.repr(problem.answer)}: {fault}"))
    if faults:
        cure = "Correct these answers or remove the rows."
        raise _error(Path(path), faults, num_rows=len(problems), what="have an answer that is refused", cure=cure)


def split_problems(
    problems: Sequence[Problem], *, num_validation: int, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """Split into (training, validation), each in the order of the input.

    Validation holds ``num_validation`` distinct problems, with all their duplicates: texts that differ in
    white space only count as one, and none is ever on both sides. Which ones is decided by a hash of seed and
    text, so neither the order of the rows nor the Python version changes the split.

    Raises:
        ValueError: ``num_validation`` is below 1, or not one distinct problem would be left to train on.
    """
    texts = {_text_key(problem.prompt) for problem in problems}
    if num_validation < 1:
        raise ValueError(f"num_validation is {num_validation}; a validation set needs at least 1 problem")
    if len(texts) <= num_validation:
        raise ValueError(
            f"{len(problems)} rows with {len(texts)} distinct problems are too few for {num_validation} validation "
            f"problems and at least 1 to train on; add rows or lower num_validation"
        )
    order = sorted(texts, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
    chosen = set(order[:num_validation])
    training = [problem for problem in problems if _text_key(problem.prompt) not in chosen]
    validation = [problem for problem in problems if _text_key(problem.prompt) in chosen]
    return training, validation


# Reading files -------------------------------------------------------------------------------------------------------


def _read_rows(path: Path) -> tuple[list[str], list[Any]]:
    """Columns and rows of a file; a row that cannot be read is a `_Fault` in its place."""
    if path.suffix.lower() not in _SUFFIXES:
        raise _Fault(f"unsupported suffix {path.suffix!r}; convert the file to one of {', '.join(_SUFFIXES)}")
    if path.is_dir():
        raise _Fault("is a folder; name the file in it")
    if not path.exists():
        raise _Fault("no such file; check the path")
    try:
        if path.suffix.lower() == ".parquet":
            columns, rows = _read_parquet(path)
        else:
            read = _read_jsonl if path.suffix.lower() == ".jsonl" else _read_json
            # Windows editors write a byte order mark; it is no part of the text.
            data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
            rows = read(data) if data.strip() else []
            columns = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    except OSError as error:
        raise _Fault(f"cannot be read: {error}") from error
    if not rows:
        raise _Fault("has no rows; give it at least one problem")
    return columns, rows


def _read_json(data: bytes) -> list[Any]:
    cure = "correct it, or rename the file to .jsonl if it has one object per line"
    rows = _parse_json(_decode(data), one_line=False, cure=cure)
    if not isinstance(rows, list):
        raise _Fault(
            f"its top level is {_kind(rows)}, expected a list of objects; write it as "
            '[{"problem": …, "answer": …}, …] (in pandas: to_json(orient="records"))'
        )
    return rows


def _read_jsonl(data: bytes) -> list[Any]:
    # Not str.splitlines(), which would also break a row at a raw U+2028 inside a string.
    lines = data.split(b"\n")
    while not lines[-1].strip():
        lines.pop()
    return [_read_jsonl_line(line) for line in lines]


def _read_jsonl_line(line: bytes) -> Any:
    if not line.strip():
        return _Fault("is blank; remove the line")  # so that the line number is always the index plus one
    try:
        return _parse_json(_decode(line), one_line=True, cure="put one whole JSON object on each line")
    except _Fault as fault:
        return fault


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"at byte {error.start}" + (f" (line {line})" if b"\n" in data else "")
        raise _Fault(f"is not UTF-8: byte 0x{data[error.start]:02x} {where}; save it again as UTF-8") from error


def _parse_json(text: str, *, one_line: bool, cure: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object_from_pairs)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if one_line else f"line {error.lineno}, column {error.colno}"
        raise _Fault(f"invalid JSON at {where}: {error.msg}; {cure}") from error
    except RecursionError as error:
        raise _Fault(f"JSON is nested too deeply to be a row; {cure}") from error
    except ValueError as error:  # a number of thousands of digits
        raise _Fault(f"JSON holds a number that Python cannot read ({error}); write it as text") from error


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
    return _RepeatedKey(key)


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
        if columns and file.metadata.num_rows:
            _check_answer_type(file.schema_arrow, _find_shape(columns))
        wanted = [name for name in columns if name in _USED_COLUMNS]
        try:
            table = file.read(columns=wanted)
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


def _check_answer_type(schema: pa.Schema, shape: _Shape) -> None:
    """Refuse half and single precision: 0.1 would come back as 0.10000000149011612, a wrong gold answer."""
    name = "answer"
    kind = None
    if shape is _Shape.PLAIN:
        kind = schema.field("answer").type
    else:
        name = "reward_model.ground_truth"
        struct = schema.field("reward_model").type
        if pa.types.is_struct(struct) and struct.get_field_index("ground_truth") >= 0:
            kind = struct.field("ground_truth").type
    if kind is not None and (pa.types.is_float16(kind) or pa.types.is_float32(kind)):
        raise _Fault(f"column {name} is of type {kind}, which cannot hold decimals exactly; store answers as text")


def _find_shape(columns: Iterable[str]) -> _Shape:
    columns = list(columns)
    media = [name for name in _MEDIA_COLUMNS if name in columns]
    if media:
        raise _Fault(f"has columns of media ({', '.join(media)}), but problems are text only; remove the columns")
    if "prompt" in columns and "reward_model" in columns:
        return _Shape.VERL
    has_problem = any(name in columns for name in _PROMPT_COLUMNS)
    if has_problem and "answer" in columns:
        return _Shape.PLAIN
    if "prompt" in columns or "reward_model" in columns:
        missing = [name for name in ("prompt", "reward_model") if name not in columns]
    else:
        missing = ([] if has_problem else ["problem (or question)"]) + ([] if "answer" in columns else ["answer"])
    raise _Fault(
        f"missing columns: {', '.join(missing)}; it has: {_shorten.repr(sorted(columns))}. A file needs either problem "
        "and answer, or verl's prompt and reward_model; rename its columns"
    )


# Reading rows --------------------------------------------------------------------------------------------------------


def _read_row(row: Any, *, shape: _Shape | None, source: str | None, default_source: str, index: int) -> Problem:
    if isinstance(row, _Fault):
        raise row
    if isinstance(row, _RepeatedKey):
        raise _Fault(f"has the key {_shorten.repr(row.key)} more than once; keep one")
    if not isinstance(row, dict):
        raise _Fault(f"is {_kind(row)}: {_shorten.repr(row)}, expected an object; write it as {{…}} with the columns")
    prompt = answer = ""
    name = source or default_source
    faults: list[str] = []
    try:
        prompt = _plain_prompt(row) if shape is _Shape.PLAIN else _verl_prompt(row)
    except _Fault as fault:
        faults.append(str(fault))
    try:
        answer = canonical_answer(row.get("answer")) if shape is _Shape.PLAIN else _verl_answer(row)
    except _Fault as fault:
        faults.append(str(fault))
    try:
        if source is None and row.get("data_source") is not None:
            name = _check_text(row["data_source"], "data_source", "name the data set, or pass a source")
    except _Fault as fault:
        faults.append(str(fault))
    if faults:
        raise _Fault("; also: ".join(faults))
    return Problem(prompt=prompt, answer=answer, source=name, index=index)


def _plain_prompt(row: dict[str, Any]) -> str:
    found = [name for name in _PROMPT_COLUMNS if row.get(name) is not None]
    if len(found) == 2 and row["problem"] != row["question"]:
        raise _Fault("problem and question differ; keep the one that is to be asked")
    name = found[0] if found else next((name for name in _PROMPT_COLUMNS if name in row), "problem")
    return _check_text(row.get(name), name, "write the problem's text or remove the row")


def _verl_prompt(row: dict[str, Any]) -> str:
    """Text of a prompt that is one user message."""
    expected = 'expected [{"role": "user", "content": "…"}]'
    messages = row.get("prompt")
    if messages is None:
        raise _Fault(f"prompt is missing; {expected}")
    if not isinstance(messages, list):
        raise _Fault(f"prompt is {_kind(messages)}: {_shorten.repr(messages)}; {expected}")
    if not messages:
        raise _Fault(f"prompt has no messages; {expected}")
    for message in messages:
        if not isinstance(message, dict):
            raise _Fault(f"prompt holds {_kind(message)}: {_shorten.repr(message)}, which is no message; {expected}")
    roles = [message.get("role") for message in messages]
    if "system" in roles:
        content = messages[roles.index("system")].get("content")
        raise _Fault(
            f"prompt has a system message: {_shorten.repr(content)}; remove it: the system prompts of the long and "
            "the short role are the package's own"
        )
    if roles[-1] != "user":
        raise _Fault(f"the last message of prompt is from {_shorten.repr(roles[-1])}, not from user; {expected}")
    if len(roles) > 1:
        raise _Fault(
            f"prompt has {len(roles)} messages, from {_shorten.repr(roles)}, expected exactly one user message; "
            "put the whole problem into one"
        )
    return _check_text(messages[0].get("content"), "the prompt's content", "write the problem's text or remove the row")


def _verl_answer(row: dict[str, Any]) -> str:
    reward_model = row.get("reward_model")
    if not isinstance(reward_model, dict):
        state = "missing" if reward_model is None else f"{_kind(reward_model)}: {_shorten.repr(reward_model)}"
        raise _Fault(f'reward_model is {state}; expected {{"style": "rule", "ground_truth": "…"}}')
    style = reward_model.get("style")
    if style is not None and style != "rule":
        raise _Fault(f"reward_model.style is {_shorten.repr(style)}; answers are graded by rule only: set it to 'rule'")
    return canonical_answer(reward_model.get("ground_truth"), "reward_model.ground_truth")


def canonical_answer(value: Any, name: str = "answer") -> str:
    """An answer as text: text as it is, a number in plain decimal notation without a needless fraction."""
    cure = "give the row its gold answer or remove it"
    if isinstance(value, str):
        if value.strip().lower() in _MISSING_TEXTS:
            raise _Fault(f"{name} is {value!r}, the trace of a missing value; {cure}")
        return _check_text(value, name, cure)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, type(None))):
        raise _Fault(f"{name} is {_kind(value)}: {_shorten.repr(value)}, expected text or a number; write it as text")
    if isinstance(value, int):
        return str(value)
    if value is None or math.isnan(value):
        raise _Fault(f"{name} is missing{'' if value is None else ' (NaN)'}; {cure}")
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


def _check_text(value: Any, name: str, cure: str) -> str:
    """The value itself, if it is text that says something and that UTF-8 can hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise _Fault(f"{name} is missing{'' if value is None else ' (NaN)'}; {cure}")
    if not isinstance(value, str):
        raise _Fault(f"{name} is {_kind(value)}: {_shorten.repr(value)}, expected text; {cure}")
    if not value.strip():
        raise _Fault(f"{name} is empty ({_shorten.repr(value)}); {cure}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON may write half of a surrogate pair ("\ud83d"); neither parquet nor a tokenizer can hold it.
        raise _Fault(
            f"{name} has a lone surrogate U+{ord(value[error.start]):04X} at character {error.start} (from 0), which "
            "is no Unicode text; correct or remove the character"
        ) from error
    return value


def _kind(value: Any) -> str:
    """What a value is, in the words of JSON where it has some."""
    if isinstance(value, _RepeatedKey):
        return f"an object with the key {_shorten.repr(value.key)} more than once"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def _text_key(text: str) -> str:
    """What makes two problems the same: their text, whatever its white space."""
    return " ".join(text.split())


def _warn_of_duplicates(path: Path, problems: Sequence[Problem]) -> None:
    first: dict[str, Problem] = {}
    num_repeats = num_conflicts = 0
    for problem in problems:
        earlier = first.setdefault(_text_key(problem.prompt), problem)
        if earlier is not problem:
            num_repeats += 1
            num_conflicts += earlier.answer != problem.answer
    if num_repeats:
        logger.warning(
            "%s: %d of %d rows repeat an earlier problem, %d of them with another answer; all are kept",
            path,
            num_repeats,
            len(problems),
            num_conflicts,
        )


# Messages ------------------------------------------------------------------------------------------------------------


def _error(
    path: Path, faults: Sequence[tuple[int, str]], *, num_rows: int, what: str, cure: str = ""
) -> ProblemFileError:
    """One error for all bad rows: the first in full, the others by number."""
    by_line = path.suffix.lower() == ".jsonl"
    word, first = ("line", 1) if by_line else ("row", 0)
    lines = [f"{path}: {len(faults)} of {num_rows} rows {what} ({word}s counted from {first})."]
    lines += [f"  {word} {index + first}: {fault}" for index, fault in faults[:_MAX_FAULTS_IN_FULL]]
    rest = [index + first for index, _ in faults[_MAX_FAULTS_IN_FULL:]]
    if rest:
        lines.append(f"  and {len(rest)} more, {word}s {_ranges(rest)}")
    error = ProblemFileError("\n".join(lines + ([cure] if cure else [])))
    error.rows = tuple(index for index, _ in faults)
    return error


def _ranges(numbers: Sequence[int]) -> str:
    """``[3, 4, 5, 9]`` as ``3-5, 9``; cut after many, so that a log line stays one."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(start) if start == end else f"{start}-{end}" for start, end in runs[:_MAX_RANGES]]
    return ", ".join(parts + (["…"] if len(runs) > _MAX_RANGES else []))


# Writing -------------------------------------------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _package_version() -> str | None:
    try:
        return metadata.version("longshort-verl")
    except metadata.PackageNotFoundError:
        return None  # run from a checkout that is not installed


def _git_commit() -> str | None:
    """Commit of the repository around the working folder."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=30, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None  # no git here
    return result.stdout.strip() if result.returncode == 0 else None
