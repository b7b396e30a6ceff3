# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The file of chains: one JSON object per line, the same for every stage from ``traces`` to ``cold-start``.

A user's own file needs ``problem``, ``answer`` and ``trace`` (or one of the other names below); blocks in the form of
the paper's authors are read as thoughts. A bad row becomes a chain with a named outcome, and other rows are unaffected.
Public sets of reasoning have the model's chain in ``response``, ``generations`` or ``messages``, often beside a
``solution`` that a person wrote: the model's chain is taken.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from longshort_verl.chains.chunk import by_blocks, read_blocks, split_steps
from longshort_verl.files.inputs import only_list, read_text_bytes
from longshort_verl.files.jsonl import write_jsonl
from longshort_verl.problems.columns import chat_turns, plain_answer
from longshort_verl.problems.values import canonical_answer, is_nan, kind
from longshort_verl.types import Chain, ChainOutcome, Counts, Decision, Importance, Problem, Thought, Value

logger = logging.getLogger(__name__)

_PROBLEM = ("problem", "question", "prompt")
_ANSWER = ("answer", "gold", "ground_truth")
_TRACE = ("trace", "thought", "response", "generations", "messages", "conversations", "solution")
"""First the names that users choose, then those of models' chains in public sets."""
_OF_MODELS = ("response", "generations", "messages", "conversations")
_COLUMNS = (*_PROBLEM, *_ANSWER, *_TRACE, "thoughts", "outcome")
_UNREADABLE = (ChainOutcome.NOT_UTF8, ChainOutcome.NOT_JSON, ChainOutcome.MISSING)
_WITH_WHOLE_TEXT = (ChainOutcome.READ, ChainOutcome.RIGHT, ChainOutcome.CHUNKED)
"""Outcomes whose thoughts concatenate to the whole text; later stages drop the answer from the thoughts."""


class ChainFileError(ValueError):
    """A file of chains that cannot be read at all."""


def read_chains(path: Path) -> list[Chain]:
    """All rows of a file in order, unreadable rows included; of a folder, its ``importance.jsonl``.

    Raises:
        ChainFileError: the file is missing, empty, or of another kind, or two readable rows have the same key.
    """
    if path.is_dir():
        path = path / "importance.jsonl"
    if not path.is_file():
        raise ChainFileError(f"there is no file {path}; give a file of chains, or the folder of `longshort importance`")
    notes: Counter[str] = Counter()
    chains = [_chain(number, raw, path, notes) for number, raw in enumerate(_raw_rows(path), start=1)]
    if not chains:
        raise ChainFileError(f"{path} has no row")
    for note, num_rows in notes.items():
        logger.warning("%s: %d of %d rows %s", path, num_rows, len(chains), note)
    rows: dict[str, int] = {}
    for number, chain in enumerate(chains, start=1):
        if chain.problem is not None and rows.setdefault(chain.key, number) != number:
            raise ChainFileError(
                f"{path}: rows {rows[chain.key]} and {number} have the same key {chain.key!r}; give each its own"
            )
    return chains


def usable_chains(path: Path) -> list[Chain]:
    """:func:`read_chains` of a file with at least one good row.

    Raises:
        ChainFileError: as there, or no row is good; the message counts them by outcome and gives the first reason.
    """
    chains = read_chains(path)
    if all(chain.problem is None for chain in chains):
        raise ChainFileError(f"{path} has no good row: {shown_outcomes(chains)}; correct the rows")
    return chains


def shown_outcomes(chains: Sequence[Chain]) -> str:
    """Chains by outcome, and the first reason of a rejection."""
    counts = ", ".join(f"{number} {outcome}" for outcome, number in Counter(c.outcome.value for c in chains).items())
    first = next((f"; the first one, {chain.key}: {chain.detail}" for chain in chains if chain.detail), "")
    return counts + first


def _raw_rows(path: Path) -> Iterator[bytes | Any]:
    if path.suffix.lower() in (".parquet", ".csv"):
        raise ChainFileError(f"{path} is no JSON; write the chains as JSONL, one object per line")
    try:
        data = read_text_bytes(path)
    except ValueError as error:
        raise ChainFileError(f"{path} {error}") from error
    if path.suffix.lower() != ".json":
        yield from (line for line in data.split(b"\n") if line.strip())
        return
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChainFileError(f"{path} is not JSON: {error}; give JSONL if rows may be damaged") from error
    yield from value if isinstance(value, list) else only_list(value, _COLUMNS) or [value]


def _chain(number: int, raw: bytes | Any, path: Path, notes: Counter[str]) -> Chain:
    key = str(number)
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            return Chain(key=key, outcome=ChainOutcome.NOT_UTF8, detail=str(error))
        except (ValueError, RecursionError) as error:
            return Chain(key=key, outcome=ChainOutcome.NOT_JSON, detail=str(error))
    if not isinstance(raw, dict):
        return Chain(key=key, outcome=ChainOutcome.NOT_JSON, detail="not an object")
    key = next((printable(str(raw[name])) for name in ("key", "id") if _has(raw, name)), key)
    outcome = next((o for o in ChainOutcome if o.value == raw.get("outcome")), ChainOutcome.READ)
    detail = "" if outcome is ChainOutcome.READ else str(raw.get("detail", ""))
    without_answer = not any(_has(raw, name) for name in _ANSWER)
    if outcome in _UNREADABLE or (outcome is ChainOutcome.BAD_GOLD and without_answer):
        return Chain(key=key, outcome=outcome, detail=detail)
    try:
        texts = {"problem": _problem_text(raw), "trace": _trace(raw, notes)}
    except ValueError as error:
        return Chain(key=key, outcome=ChainOutcome.MISSING, detail=str(error))
    for name, text in texts.items():
        if printable(text) != text:
            # JSON can spell half a surrogate pair, which no tokenizer accepts.
            return Chain(key=key, outcome=ChainOutcome.NOT_UTF8, detail=f"{name} has half a surrogate pair")
    try:
        answer = _answer(raw)
    except ValueError as error:
        missing = all(raw.get(name) is None for name in _ANSWER)
        return Chain(key=key, outcome=ChainOutcome.MISSING if missing else ChainOutcome.BAD_GOLD, detail=str(error))
    try:
        fields = _results(raw, texts["trace"], outcome)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        detail = str(error) if type(error) is ValueError else f"damaged thoughts or scores: {error!r}"
        return Chain(key=key, outcome=ChainOutcome.MISSING, detail=detail)
    problem = Problem(prompt=texts["problem"], answer=answer, source=path.stem, index=number - 1)
    return Chain(key=key, outcome=outcome, detail=detail, problem=problem, text=texts["trace"], **fields)


def _has(raw: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a value under a name; null, NaN and "" are none."""
    value = raw.get(name)
    return not (value is None or is_nan(value) or (isinstance(value, str) and not value.strip()))


def _problem_text(raw: Mapping[str, Any]) -> str:
    asked = next((content for role, content in chat_turns(raw) if role == "user"), None)
    return _text(next((raw[name] for name in _PROBLEM if _has(raw, name)), asked), "problem", _PROBLEM)


def _answer(raw: Mapping[str, Any]) -> str:
    name = next((name for name in _ANSWER if _has(raw, name)), "answer")
    return plain_answer(raw) if name == "answer" else canonical_answer(raw[name], name)


def _trace(raw: Mapping[str, Any], notes: Counter[str]) -> str:
    """The chain of thought: the first text under one of the names, an empty one if there is no other."""
    values = {name: _chain_text(raw, name) for name in _TRACE}
    texts = {name: text for name, text in values.items() if isinstance(text, str)}
    name = next((name for name, text in texts.items() if text.strip()), next(iter(texts), "trace"))
    if name in _OF_MODELS and _has(raw, "solution"):
        notes[f"have a solution beside {name}; {name}, the model's chain, is taken"] += 1
    if name == "solution":
        notes["have no chain but a solution: if a person wrote it, give a model's chain under trace instead"] += 1
    if name == "generations" and isinstance(raw[name], list) and len(raw[name]) > 1:
        notes["have several generations; the first with text is taken"] += 1
    return _text(values[name], "trace", _TRACE)


def _chain_text(raw: Mapping[str, Any], name: str) -> Any:
    value = raw.get(name)
    if name in ("messages", "conversations"):
        return next((content for role, content in reversed(chat_turns({name: value})) if role == "assistant"), None)
    if name == "generations" and isinstance(value, list):
        return next((text for text in value if isinstance(text, str) and text.strip()), None)
    return value


def _text(value: Any, name: str, names: Iterable[str]) -> str:
    if not isinstance(value, str):
        state = "missing" if value is None else kind(value)
        raise ValueError(f"{name} is {state}; give text under one of {', '.join(names)}")
    return value


def _results(raw: Mapping[str, Any], text: str, outcome: ChainOutcome) -> dict[str, Any]:
    """The fields that chunking and scoring fill in, as far as a row has them."""
    rows = raw.get("thoughts") or []
    thoughts = tuple(
        Thought(text=str(row["text"]), kind=printable(str(row["kind"])), num_steps=int(row["num_steps"]))
        for row in rows
    )
    joined = "".join(thought.text for thought in thoughts)
    if not text.startswith(joined) or (thoughts and outcome in _WITH_WHOLE_TEXT and joined != text):
        raise ValueError("the thoughts do not concatenate to the trace")
    if not thoughts and raw.get("block") is not None:
        # The form in which the paper's authors publish chunked chains.
        steps = split_steps(text)
        try:
            thoughts = tuple(by_blocks(steps, read_blocks(raw["block"], len(steps))))
        except ValueError as error:
            raise ValueError(f"block: {error}") from error
    if outcome is not ChainOutcome.SCORED:
        return {"thoughts": thoughts}
    fields = {
        "thoughts": thoughts,
        "lengths": tuple(int(row["num_tokens"]) for row in rows),
        "scores": tuple(Importance(**{k: float(v) for k, v in row["importance"].items()}) for row in rows),
        "values": tuple(Value(**value) for value in raw["values"]),
        "decisions": tuple(Decision(row["decision"]) for row in rows if "decision" in row),
        "likelihoods": tuple(map(float, raw.get("likelihoods", ()))),
        "restarts": {int(boundary): Counts(**counts) for boundary, counts in raw.get("restarts", {}).items()},
    }
    if not rows or min(fields["lengths"]) < 1 or len(fields["values"]) != len(rows) + 1:
        raise ValueError("it is scored, but has no thought, a thought without a token, or a value too few")
    return fields


def printable(text: str) -> str:
    """Text without halves of surrogate pairs, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def write_chains(path: Path, chains: Iterable[Chain]) -> None:
    """Write one row per chain, atomically."""
    write_jsonl(path, map(_row, chains))


def _row(chain: Chain) -> dict[str, Any]:
    row: dict[str, Any] = {"key": chain.key, "outcome": chain.outcome.value, "detail": chain.detail}
    if chain.agreement is not None:
        row["agreement"] = chain.agreement
    if chain.problem is not None:
        row |= {"problem": chain.problem.prompt, "answer": chain.problem.answer, "trace": chain.text}
    if chain.cost is not None:
        row["cost"] = vars(chain.cost)
    thoughts = [dict(vars(thought)) for thought in chain.thoughts]
    for thought, length in zip(thoughts, chain.lengths, strict=False):
        thought["num_tokens"] = length
    for thought, score in zip(thoughts, chain.scores, strict=False):
        thought["importance"] = vars(score)
    for thought, decision in zip(thoughts, chain.decisions, strict=False):
        thought["decision"] = decision.value
    if chain.scores:
        row["values"] = [vars(value) for value in chain.values]
        row["likelihoods"] = list(chain.likelihoods)
        row["rest"] = chain.text[sum(len(thought.text) for thought in chain.thoughts) :]
        row["restarts"] = {str(boundary): vars(counts) for boundary, counts in sorted(chain.restarts.items())}
    return {**row, "thoughts": thoughts} if thoughts else row
