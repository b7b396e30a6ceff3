# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Values of a row: texts, and gold answers in the one form that can be graded."""

from __future__ import annotations

import math
import re
import reprlib
from decimal import Decimal
from typing import Any

_MAX_EXACT_FLOAT = 2**53  # beyond it neighbouring integers share one double
_GIVE_ANSWER = "give the row its gold answer or remove it"
# What public sets and pandas write where there is no answer.
_PLACEHOLDER = re.compile(
    r"(?i)nan|none|null|nil|undefined|unknown|missing|tbd|todo|proof|not_?found|noanswer|notavailable|see(?:the)?solution"
    r"|<na>|#?n/a|[][(){}.…?!_'\"#~–—-]*"
)

shorten = reprlib.Repr()
shorten.maxstring = shorten.maxother = 80


class RowFault(ValueError):
    """One thing wrong with a row, or with the file as a whole; becomes part of a ProblemFileError."""


def canonical_answer(value: Any, name: str = "answer") -> str:
    """A gold answer as text: text unchanged, a number in plain decimal notation without trailing zeros.

    Raises:
        ValueError: the value is missing, not finite, too large for an exact float, neither text nor a number, or text
            that is no answer: a placeholder, a worked solution, a sentence, or LaTeX that lost its backslash.
    """
    if value is None or isinstance(value, str) or is_nan(value):
        return _check_gold_text(check_text(value, name, _GIVE_ANSWER), name)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise RowFault(f"{name} is {shown(value)}, expected text or a number; write it as text")
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        raise RowFault(f"{name} is infinite ({value}); write it as text, for example '\\infty'")
    if isinstance(value, float):
        if abs(value) >= _MAX_EXACT_FLOAT:
            raise RowFault(f"{name} is {value!r}, a float too large to be an exact integer; write it as text")
        value = Decimal(repr(value))
    text = format(value, "f")  # never 1e-07, which graders do not read
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def check_text(value: Any, name: str, cure: str) -> str:
    """The value itself. Raises ValueError if it is not text, is blank, or cannot be encoded as UTF-8."""
    if value is None or is_nan(value):
        raise RowFault(f"{name} is missing{'' if value is None else ' (NaN)'}; {cure}")
    if not isinstance(value, str):
        raise RowFault(f"{name} is {shown(value)}, expected text; {cure}")
    if not value.strip():
        raise RowFault(f"{name} is empty ({shorten.repr(value)}); {cure}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON may hold half of a surrogate pair ("\ud83d"); neither parquet nor a tokenizer can.
        raise RowFault(
            f"{name} has a lone surrogate U+{ord(value[error.start]):04X} at character {error.start} (from 0), which "
            "is no Unicode text; correct or remove the character"
        ) from error
    return value


# Golds ---------------------------------------------------------------------------------------------------------------

_ONE_VALUE = "give only the final value"


def after_final_mark(solution: str) -> str | None:
    """The answer of a GSM8K solution, which follows ``####``, without commas of thousands; None without the mark."""
    _, mark, answer = solution.rpartition("####")
    return re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", answer.strip()) if mark else None


def is_text_only(gold: str) -> bool:
    """Whether a gold answer is words, such as ``\\text{east}``, so that an answer can only be compared as text.

    An estimate without parsing: a file has thousands of golds. A choice, a symbol and a number with a unit are values.
    """
    words = re.findall(r"[^\s,.;:'’-]+", _without_fonts(gold))
    longest = max(map(len, words), default=0)
    return all(map(str.isalpha, words)) and longest >= (2 if _FONT.search(gold) else 3)


def _check_gold_text(gold: str, name: str) -> str:
    """The text itself. Raises ValueError if it is no answer."""
    if (fault := lost_backslash(gold, _LOST_IN_GOLD)) is not None:
        raise RowFault(f"{name} {fault}: {shorten.repr(gold)}")
    text = gold.strip()
    if _PLACEHOLDER.fullmatch(text.strip("$.").replace(" ", "")):
        cure = f"{_GIVE_ANSWER} (if the word itself is the answer, write \\text{{…}})"
        raise RowFault(f"{name} is {gold!r}, a placeholder for a missing answer; {cure}")
    marks = {
        "has ####, as in a GSM8K solution: name the columns question and answer, as GSM8K does, or": "####",
        "has a calculator mark <<…>>, so it is a worked solution;": "<<.*>>",
        "has a line break, so it is more than an answer;": r"[\n\r]",
    }
    for fault, mark in marks.items():
        if re.search(mark, text):
            raise RowFault(f"{name} {fault} {_ONE_VALUE}: {shorten.repr(gold)}")
    if _is_sentence(text):
        raise RowFault(f"{name} is a sentence, which no answer can equal; {_ONE_VALUE}: {shorten.repr(gold)}")
    return gold


_FONT = re.compile(r"\\(?:text|math)(?:rm|bf|it|sf|tt|normal)?(?![a-zA-Z])|\\[mf]box(?![a-zA-Z])")
# Words of statements; names, units, dates and short phrases such as "does not exist" have none of them.
_STATEMENT = re.compile(
    r"(?i)\b(?:is|are|was|were|has|have|had|equals|because|since|therefore|thus|hence|so|answer|"
    r"we|she|he|they|it|there|this|makes|gets|costs|needs|earns|sold|spent|paid)\b"
)
_MIN_SENTENCE_WORDS = 6


def _without_fonts(text: str) -> str:
    return re.sub(r"[{}$~]|\\[ ,;:!]", " ", _FONT.sub(" ", text))


def _is_sentence(text: str) -> bool:
    """Whether a text states something: it has a word of statements, or many words without a comma or a `per`."""
    if "\\begin{" in text:  # the cases of a function have words
        return False
    plain = re.sub(r"\\[a-zA-Z]+", " ", _without_fonts(text))
    counts = [len(re.findall(r"[^\W\d_]{2,}", part)) for part in re.split("[,;]", plain)]
    ends = plain.rstrip().endswith((".", "!")) and not re.search(r"\b\w\.\s*\w\.\s*$", plain)  # not 11 a.m.
    if num_statements := len(_STATEMENT.findall(plain)):
        return ends or num_statements > 1 or sum(counts) > 2
    return max(counts) >= _MIN_SENTENCE_WORDS - 2 * ends and not re.search(r"\bper\b", plain)


# LaTeX ---------------------------------------------------------------------------------------------------------------

# A JSON string reads \t, \n, \r, \b and \f, and a Python string also \a and \v, as one character each.
_LETTERS = {"\t": "t", "\n": "n", "\r": "r", "\b": "b", "\f": "f", "\a": "a", "\v": "v"}
_END = "(?![a-zA-Z])"
_LOST_IN_TEXT = re.compile(
    r"[\a\b\v](?=[a-zA-Z])|\f(?=rac|orall)"
    rf"|\t(?=ext[a-z]*\s*\{{|(?:imes|heta|riangle|herefore){_END}|frac\s*[{{0-9])"
    rf"|\n(?=(?:eq|abla|otin){_END})|\r(?=(?:ho|ight){_END})"
)
_LOST_IN_GOLD = re.compile(
    r"[\a\b\v\f](?=[a-zA-Z])"
    rf"|\t(?=ext[a-z]*\s*\{{|(?:imes|heta|riangle|herefore|an|anh|au|o|op){_END}|(?:frac|binom|ilde)\s*[{{0-9a-z])"
    rf"|\n(?=(?:eq|e|abla|otin|ot|i|u|eg|mid|parallel|exists|leq|geq|cong|sim|subseteq){_END})"
    rf"|\r(?=(?:ho|ight|ightarrow|angle|ceil|floor|brace|m){_END})"
)


def lost_backslash(text: str, lost: re.Pattern[str] = _LOST_IN_TEXT) -> str | None:
    """What is wrong with a text if an escape of a string took the backslash of a LaTeX command; else None."""
    if (found := lost.search(text)) is None:
        return None
    letter = _LETTERS[found[0]]
    rest = re.match("[a-zA-Z]*", text[found.end() :])
    command = letter + (rest[0] if rest else "")
    return (
        f"has {found[0]!r} at character {found.start()} (from 0) where LaTeX's \\{command} was meant: a string read "
        f"\\{letter} as an escape; write \\\\{command} in the file, as json.dumps does"
    )


# Words of messages ---------------------------------------------------------------------------------------------------


def is_nan(value: Any) -> bool:
    """Whether it is a number that is none."""
    return isinstance(value, (float, Decimal)) and math.isnan(value)


def shown(value: Any) -> str:
    """Kind and value, shortened."""
    return f"{kind(value)}: {shorten.repr(value)}"


def kind(value: Any) -> str:
    """The kind of a value, in JSON's words where it has some."""
    if isinstance(value, RowFault):
        return f"an object that {value}"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")
