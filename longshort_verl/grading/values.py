# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""From text to one of few typed values.

An answer is read once, beside the answer that it is compared with, because some spellings mean nothing alone: ``3:10``
is a ratio or a time of day, ``1,234`` a number or a list, ``5 m`` five metres or five times m, ``2e-1`` a number or
two times e less one. What stays mathematics is an :class:`Expression`, which only ``mathematics`` parses.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from longshort_verl.grading.text import UNIT_LETTERS, is_balanced, tidy, without_fonts


class SideBySideError(ValueError):
    """Two numbers stand side by side, as in ``5 7``."""


@dataclass(frozen=True)
class Number:
    """An exact rational number."""

    value: Fraction
    is_plain: bool
    """Written with digits alone, not as a fraction."""
    is_decimal: bool
    """Written with a decimal point."""


@dataclass(frozen=True)
class Quantity:
    """A value with words: a unit, or anything else that is counted or said of it."""

    value: Value
    words: str


@dataclass(frozen=True)
class Sum:
    """Quantities that add up, such as 5 feet 3 inches."""

    parts: tuple[Quantity, ...]


@dataclass(frozen=True)
class Time:
    """A time of day."""

    seconds: int
    """Since midnight; since midnight or noon if ``is_half`` and no half of the day is named."""
    half: str
    """am or pm; empty if it is not said."""


@dataclass(frozen=True)
class Ratio:
    """Three or more parts, as in 1:2:3. A ratio of two is a quotient."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Based:
    """Digits with a base, such as 2516_8."""

    digits: str
    base: str


@dataclass(frozen=True)
class Group:
    """Values between brackets, or a bare list."""

    brackets: str
    """Two of ``()[]``, ``{}`` for a set, or empty for a bare list."""
    items: tuple[Value, ...]
    is_union: bool
    """Joined by "or"."""


@dataclass(frozen=True)
class Expression:
    """LaTeX for the parser."""

    latex: str


@dataclass(frozen=True)
class Words:
    """Text without mathematics, casefolded."""

    text: str


Value = Number | Quantity | Sum | Time | Ratio | Based | Group | Expression | Words

# Multiple choice -----------------------------------------------------------------------------------------------------

_BARE_LETTER = re.compile(r"[\s{}()\[\].:]*([A-Ja-j])[\s{}()\[\].:]*")
_LABEL = re.compile(
    r"(?:(?:the )?(?:correct )?(?:final )?(?:answer|option|choice)(?: is)?[ :]*)?"
    r"\{?(?:[(\[]\s*([A-Ja-j])\s*[)\]][.:]?|([A-Ja-j])\s*[.:)](?![0-9.])|([A-J])(?=\s+(?:[-0-9\\(]))|([A-J])$)\}?\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_SECOND_LABEL = re.compile(
    r"[(\[]\s*[A-J]\s*[)\]]|(?<![\w\\])[A-J]\s*[.:)](?!\w)|^\W*(?:and|or|not)?\W*[A-J]\W*(?:$|[.:,;)]|(?:and|or)\b)"
    r"|^\W*(?:and|or|&|\\&|/|\+)\W*[A-J]\b"
)


def choice(text: str) -> str | None:
    """The one letter A to J that a text chooses, in capitals: bare, or as the label of its text. Else None."""
    text = without_fonts(text)
    if bare := _BARE_LETTER.fullmatch(text):
        return bare[1].upper()
    label = _LABEL.fullmatch(text)
    if label is None or _SECOND_LABEL.search(label[5]):
        return None
    return next(letter for letter in label.groups()[:4] if letter).upper()


def is_choice(gold: str) -> bool:
    """Whether a gold answer is one capital letter A to J, also as ``(C)``, or with its text, as in ``(C) 12``."""
    text = without_fonts(gold)
    bare = _BARE_LETTER.fullmatch(text)
    if bare:
        return bare[1].isupper()
    return re.match(r"\([A-J]\)\s*[^\s,;]", text) is not None and choice(gold) is not None


# Words ---------------------------------------------------------------------------------------------------------------

_MULTIPLIERS = {
    **{"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12},
    **{"hundreds": 10**2, "thousands": 10**3, "millions": 10**6, "billions": 10**9, "trillions": 10**12, "dozens": 12},
    **{"quadrillion": 10**15, "lakh": 10**5, "crore": 10**7, "mn": 10**6, "bn": 10**9},
}
_NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NO_SOLUTION = re.compile(r"no (?:real )?solutions?|(?:the )?empty set")
_NEGATIVE = re.compile(r"(?i)\b(?:negative|minus)$")
_OTHER_VALUE_BEFORE = re.compile(
    r"(?i)\b(?:not|never|cannot)\b|\b(?:than|at least|at most|over|under|above|below|up to|between|half(?: of)?|twice"
    r"|double|triple|except)$"
)
_OTHER_VALUE_AFTER = re.compile(r"(?i)(?:squared|cubed|factorial|halves|or (?:more|less|fewer|greater)|plus|minus)\b")
"""Words beside a number that mean another value or many, so that they are not dropped."""
_FILLERS = {
    *("a", "an", "the", "of", "about", "approximately", "approx", "approx.", "around", "roughly", "exactly", "only"),
    *("total", "is", "are", "and", "unit", "units"),
}
_ABBREVIATIONS = (
    "mm|cm|dm|km|nm|mi|ft|in|yd|mg|kg|lbs?|oz|m[lL]|cl|dl|kL|ms|mins?|hrs?|secs?|mph|kph|kmph|kmh|kWh?|[kM]?Hz|k?Pa"
    "|[ap]m|[AP]M|pct|deg|rad|mol|ha|sq|cu|day|cc|mn|bn|USD|Rs"
)
_BARE_WORD = (
    rf"(?<![\\a-zA-Z{{}}])(?:{_ABBREVIATIONS}|[ap]\.\s?m"
    r"|(?=[a-zA-Z]*[aeiouAEIOU])[A-Za-z]{4,}"
    r"(?:'s|s')?|(?:per|cubic|square|and|of|the|feet|foot|inch|men|pie|day|way|toy|car|cup|egg|pen|box)(?:s|es)?)"
    r"(?![a-zA-Z(])\.?"
)
_TEXT = r"\\text\{[^{}]*\}"
_POWER = r"(?: ?\^\{?-?[0-9]\}?)?"
_FRACTION_OF_UNITS = rf"\\frac\{{\s*{_TEXT}\s*\}}\{{\s*{_TEXT}{_POWER}\s*\}}"


def _suffix(letters: str) -> re.Pattern[str]:
    letter = rf"|(?<![a-zA-Z\\])[{letters}](?![a-zA-Z({{_])" if letters else ""
    word = rf"(?:{_FRACTION_OF_UNITS}|{_TEXT}|\^\\circ(?:\s*[CF](?![a-zA-Z]))?|\\?%|{_BARE_WORD}{letter}){_POWER}"
    # One way only to match a blank between two words: the text comes from a model, and `\s*,?\s*` would take 2^n steps.
    return re.compile(rf" ?{word}(?:(?: ?(?:/|\\cdot|\*|-|,) ?| ?){word})* ?$")


_SUFFIX = _suffix("")
_SUFFIX_WITH_LETTERS = _suffix(UNIT_LETTERS)
_PREFIX = re.compile(
    rf"(?:{_TEXT}|(?<![\\a-zA-Z])(?:Rs\.?|about|around|approximately|roughly|exactly|only|USD|\\pounds|\\euro)(?![a-zA-Z])"
    r"|\\(?:approx|sim)(?![a-zA-Z]))\s*:?\s*"
)
_PAIR = re.compile(rf"([-0-9./,]+|[0-9]*\s*\\frac\{{[0-9]+\}}\{{[0-9]+\}})({_SUFFIX.pattern[:-1]})")


def words_of(text: str) -> str:
    """The words of a piece of LaTeX, in one spelling: ``\\text{ cm}^{2}`` → ``cm^2``, ``p.m.`` → ``pm``."""
    text = re.sub(r"\^\{(-?[0-9])\}", r"^\1", re.sub(r"\^\\circ", " degree ", text))
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\?%|\bper\s?cent(?:age)?\b|\bpercentage\b|\bpct\b", " percent ", text, flags=re.IGNORECASE)
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text, flags=re.IGNORECASE)
    text = re.sub(r"[{}]", "", text).replace("\\cdot", "*").replace("\\pounds", "pounds").replace("\\euro", "euros")
    text = re.sub(r"\s*\^\s*", "^", re.sub(r"\\(?:approx|sim)", "", text))
    # Not an inch: 5 in total.
    text = re.sub(r"(?<=[A-Za-z])\.(?=\s|$)|[,;!]|:(?![0-9])|\bin (?=[a-z]{3})", " ", text)
    return " ".join(re.sub(r"\s*([*/])\s*", r"\1", text).split())


def _with_words(core: str, words: str, other: str) -> Value:
    """A value with its words; number words multiply it and fillers are dropped."""
    value = _read(core, other)
    rest = []
    for word in words.split():
        factor = _MULTIPLIERS.get(word.casefold())
        if factor and not rest and isinstance(value, Number):
            value = Number(value.value * factor, is_plain=value.is_plain, is_decimal=value.is_decimal)
        elif factor and not rest and isinstance(value, Expression):
            value = Expression(f"({value.latex}) \\cdot {factor}")
        elif word.casefold() not in _FILLERS:
            rest.append(word)
    return Quantity(value, " ".join(rest)) if rest else value


# Times, ratios, numbers ----------------------------------------------------------------------------------------------

MAX_TIME_CHARS = 60
MAX_WORDS_CHARS = 120
"""Words are looked for in the last so many characters; a search takes the square of their number."""
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))?\s*([a-z' ]*)")
_HALVES = {"am": "am", "pm": "pm", "noon": "pm", "midnight": "am", "in the morning": "am", "in the afternoon": "pm"}
_HALVES |= {"in the evening": "pm", "at night": "pm", "o'clock": "", "hours": "", "hrs": "", "": ""}


def _time(text: str) -> Time | None:
    """``9:30``, ``9:30 p.m.``, ``11 a.m.``, ``noon``; None for anything else."""
    if len(text) > MAX_TIME_CHARS:
        return None
    said = words_of(text).casefold().replace("12 noon", "12:00 noon").replace("12 midnight", "12:00 midnight")
    said = {"noon": "12:00 noon", "midnight": "12:00 midnight"}.get(said, said)
    match = _CLOCK.fullmatch(said)
    half = _HALVES.get(match[4].strip()) if match else None
    if match is None or half is None or (match[2] is None and not half and match[4].strip() != "o'clock"):
        return None
    hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    if hour > 24 or minute > 59 or second > 59:
        return None
    if half and hour <= 12:
        hour = hour % 12 + 12 * (half == "pm")
    return Time(hour * 3600 + minute * 60 + second, half or ("pm" if hour > 12 else ""))


def _is_time(gold: str, answer: str) -> bool:
    """Whether two texts are compared as times of day: the gold answer is one, and ``3:10`` is none by itself."""
    if _time(gold) is None:
        return False
    clock = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", gold)
    if clock is None:
        return True
    looks_like_a_ratio = math.gcd(int(clock[1]), int(clock[2])) == 1 and not clock[2].startswith("0")
    answered = _time(answer)
    return not looks_like_a_ratio or (answered is not None and re.search("[a-z]", answer) is not None)


_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
MAX_FRACTION_CHARS = 200
_PLAIN = re.compile(rf"[-+]?{_DECIMAL}")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_THOUSANDS_RUN = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_SCIENTIFIC = re.compile(
    rf"([-+]?)(?:({_DECIMAL})\s*(?:\\times|\\cdot|\*|x)\s*)?10\s*\^\s*\{{?\s*([-+]?[0-9]{{1,4}})\s*\}}?"
)
_FRACTION = re.compile(
    rf"([-+]?)\s*(?:([0-9]+)\s*)?(?:\\frac\{{\s*(-?{_DECIMAL})\s*\}}\{{\s*(-?{_DECIMAL})\s*\}}"
    rf"|(?<![0-9] )({_DECIMAL})\s*/\s*({_DECIMAL}))"
)
_MIXED = re.compile(r"(?<![0-9.,/^])([0-9]+) +([0-9]+)/([0-9]+)(?![0-9.])")
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,^_])[0-9]{1,3}(?: +[0-9]{3})+(?![0-9])")
_E_NOTATION = re.compile(r"(?<![\w.\\])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([-+]?[0-9]+)(?![\w.])")
_E_CONSTANT = re.compile(r"(?<![a-zA-Z\\])e(?![a-zA-Z]|[-+]?[0-9])|(?<![a-zA-Z0-9.\\])e")
_BASED = re.compile(r"([0-9A-F]+)_\{?\s*(?:\\text\{)?\s*([0-9a-z]+)\s*\}?\}?")
_SIDE_BY_SIDE = re.compile(r"[0-9.] +[0-9]")


def _number(text: str) -> Number | None:
    """An integer, decimal, fraction, mixed number or power of ten; None for anything else."""
    if _PLAIN.fullmatch(text) or _THOUSANDS.fullmatch(text):
        return Number(Fraction(text.replace(",", "")), is_plain=True, is_decimal="." in text)
    if len(text) > MAX_FRACTION_CHARS:
        return None
    if match := _SCIENTIFIC.fullmatch(text):
        value = Fraction(match[2] or "1") * Fraction(10) ** int(match[3])
        return Number(-value if match[1] == "-" else value, is_plain=True, is_decimal="." in text)
    if match := _FRACTION.fullmatch(text):
        above, below = Fraction(match[3] or match[5]), Fraction(match[4] or match[6])
        if below == 0 or (match[2] and (match[5] or above <= 0 or "." in text)):
            return None
        value = int(match[2] or 0) + above / below
        return Number(-value if match[1] == "-" else value, is_plain=False, is_decimal=False)
    return None


# Lists ---------------------------------------------------------------------------------------------------------------

_TOKENS = re.compile(
    r"\\begin|\\end|\\[{}]|\\[a-zA-Z]+(?:\{(?:\s*,?\s*)(?:and|or)(?:\s*,?\s*)\})?|\\.|[a-zA-Z]+|.", re.DOTALL
)
_OPENING, _CLOSING = ("(", "[", "{", "\\{", "\\begin"), (")", "]", "}", "\\}", "\\end")
_JOINT = re.compile(r"\\text\{\s*,?\s*(and|or)\s*,?\s*\}|(and|or)")


def _split(text: str) -> tuple[list[str], bool]:
    """Items of a list at the top level, and whether "or" joins them."""
    items, depth, is_union = [""], 0, False
    for token in _TOKENS.findall(text):
        depth += (token in _OPENING) - (token in _CLOSING)
        joint = _JOINT.fullmatch(token)
        if depth == 0 and (token in ",;" or joint or token == "\\lor"):
            is_union = is_union or token == "\\lor" or (joint is not None and "or" in joint.groups())
            items.append("")
        else:
            items[-1] += token
    items = [item.strip() for item in items]
    # ``3, 5, and 7`` has an empty item before "and".
    return [item for i, item in enumerate(items) if item or i in (0, len(items) - 1)], is_union


def _brackets(text: str) -> tuple[str, str] | None:
    """Brackets around the whole text, and what they hold; None without such a pair."""
    for begin, end in (("\\{", "\\}"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")")):
        if text.startswith(begin) and text.endswith(end) and len(text) >= len(begin + end):
            inner = text[len(begin) : -len(end)]
            return ((begin + end).replace("\\", ""), inner.strip()) if is_balanced(inner, _OPENING, _CLOSING) else None
    return None


def _is_list_of_long_numbers(text: str) -> bool:
    """``101,103,107``: three or more numbers of three digits that rise, and no number with thousands."""
    parts = text.split(",")
    return len(parts) > 2 and all(len(part) == 3 for part in parts) and parts == sorted(set(parts))


def _is_list(text: str, other: str) -> bool:
    """Whether commas between three digits separate numbers: by themselves, or because they do so in the other text."""
    if _is_list_of_long_numbers(text) or re.search(r"[0-9], +[0-9]", other):
        return True
    return text.count(",") > 1 and _is_list_of_long_numbers(other)


_TWO_SIGNS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")


def _signs(item: str) -> list[str]:
    """``1 \\pm 2`` as its two values."""
    if len(_TWO_SIGNS.findall(item)) != 1:
        return [item]
    upper, lower = ("+", "-") if "\\pm" in item else ("-", "+")
    return [_TWO_SIGNS.sub(sign, item).removeprefix("+").strip() for sign in (upper, lower)]


# Reading -------------------------------------------------------------------------------------------------------------

_SET_BUILDER = re.compile(
    r"\\\{\s*\(?\s*([a-zA-Z])\s*\)?\s*(?:\\in\s*(?:\\mathbb\{R\}|R)\s*)?(?:\\mid|\\vert|\\colon|\||:)\s*(.*)\\\}",
    re.DOTALL,
)
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|mod|sqrt|frac)")


def read_pair(answer: str, gold: str) -> tuple[Value, Value]:
    """Two answers as typed values, each read beside the other.

    Raises:
        SideBySideError: the answer has two numbers side by side.
    """
    answer, gold = tidy(answer), tidy(gold)
    if _is_time(gold, answer) and (left := _time(answer)) and (right := _time(gold)):
        return left, right
    return read(answer, gold, is_gold=False), read(gold, answer, is_gold=True)


def read(text: str, other: str, *, is_gold: bool) -> Value:
    """One tidy text as a typed value; ``other`` is the tidy text that it is compared with."""
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _MIXED.sub(r"\1 \\frac{\2}{\3}", text)
    if not _E_CONSTANT.search(other):
        text = _E_NOTATION.sub(lambda match: f"{match[1]} \\cdot 10^{{{int(match[2])}}}", text)
    if is_gold and re.search(rf"[0-9][{UNIT_LETTERS}](?![a-zA-Z])", text) and "\\text" not in other:
        other += " g"  # 5m is a product here, so that the other's letters are variables, too
    return _read(text, other)


def _read(text: str, other: str) -> Value:
    text = text.strip()
    if (number := _number(text)) is not None and not (_THOUSANDS.fullmatch(text) and _is_list(text, other)):
        return number
    runs = _THOUSANDS_RUN.findall(text)
    if len(runs) == 1 and runs[0].count(",") == text.count(",") and not _is_list_of_long_numbers(runs[0]):
        text = text.replace(runs[0], runs[0].replace(",", "")) if runs[0] != text.strip("()[] ") else text
    if match := _SET_BUILDER.fullmatch(text):
        return _read(match[2], other)
    enclosed = _brackets(text)
    if enclosed is not None and (group := _group(*enclosed, other)) is not None:
        return group
    if (group := _group("", text, other)) is not None:
        return group
    return _read_words(text, other)


def _group(brackets: str, text: str, other: str) -> Value | None:
    """The list that a text is; None if it is one item without brackets of its own."""
    if ", " in text:  # then a comma without a blank belongs to a number
        text = _THOUSANDS_RUN.sub(lambda match: match[0].replace(",", ""), text)
    texts, is_union = _split(text)
    if len(texts) > 1 and not all(texts):
        return None
    if brackets in ("", "{}"):
        texts = [signed for item in texts for signed in _signs(item)]
    if len(texts) == 1:
        if not brackets or brackets in ("(]", "[)"):
            return None
        inner = _read(texts[0], other)
        return Group("{}", (inner,), False) if brackets == "{}" or isinstance(inner, Group) else inner
    return Group(brackets, tuple(_read(item, other) for item in texts), is_union)


def _read_words(text: str, other: str) -> Value:
    """A text that is no list: words, a value with words, a ratio, digits with a base, or mathematics."""
    bare_other = re.sub(rf"{_TEXT}|\\[a-zA-Z]+|{_BARE_WORD}", "", other)
    suffix_pattern = _SUFFIX if re.search("[a-zA-Z]", bare_other) else _SUFFIX_WITH_LETTERS
    if _is_words(text):
        said = words_of(text).casefold()
        if said in _NUMBER_WORDS:
            return Number(Fraction(_NUMBER_WORDS.index(said)), is_plain=True, is_decimal=False)
        return Expression("\\emptyset ") if _NO_SOLUTION.fullmatch(said) else Words(said)
    pairs = _PAIR.findall(text) if len(text) <= MAX_WORDS_CHARS else []
    if len(pairs) > 1 and _PAIR.sub("", text).strip() == "":
        return Sum(tuple(_quantity(number.strip(), words, other) for number, words in pairs))
    prefix = _PREFIX.match(text)
    if prefix and prefix.end() < len(text):
        rest = text[prefix.end() :]
        if not rest.startswith(("=", "^", "_", "+", "-\\text", "/", "<", ">", "\\le", "\\ge", "(")):
            words, count = _NEGATIVE.subn("", words_of(prefix[0]))
            if _OTHER_VALUE_BEFORE.search(words):
                return Words(words_of(text).casefold())
            return _more_words(_read("-" * count + rest, other), words)
    suffix = suffix_pattern.search(text, max(0, len(text) - MAX_WORDS_CHARS))
    if suffix and _OTHER_VALUE_AFTER.match(words_of(suffix[0])):
        return Words(words_of(text).casefold())
    if suffix and _may_have_words(text[: suffix.start()], suffix[0], other):
        return _with_words(text[: suffix.start()], words_of(suffix[0]), other)
    parts = text.split(":")
    if len(parts) > 2 and all(parts):
        return Ratio(tuple(_read(part, other) for part in parts))
    if match := _BASED.fullmatch(text):
        return Based(match[1].lstrip("0"), match[2])
    if _SIDE_BY_SIDE.search(text):
        raise SideBySideError(text)
    return Expression(text)


def _may_have_words(core: str, words: str, other: str) -> bool:
    """Whether words that end a text belong to all of it, and not to a part, as those of ``\\sin 30^\\circ`` do."""
    if not core or re.search(r"[-+=<>(,/^_]\s*$|\\(?!pi|infty)[a-z]+\s*$", core):
        return False
    # Beside \frac{\pi}{6} degrees are a factor and no word.
    in_radians = "\\pi" in other and "\\circ" not in other and "\\pi" not in core
    return "\\circ" not in words or not (in_radians or re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", core))


def _more_words(value: Value, words: str) -> Value:
    if isinstance(value, Quantity):
        return Quantity(value.value, f"{value.words} {words}".strip())
    words = " ".join(word for word in words.split() if word.casefold() not in _FILLERS)
    return Quantity(value, words) if words else value


def _quantity(number: str, words: str, other: str) -> Quantity:
    words = re.sub(r"^and\b|\band$", "", words_of(words)).strip()
    return Quantity(_read(number.strip(" ,"), other), words)


def _is_words(text: str) -> bool:
    """Whether a text has words and nothing else."""
    rest = re.sub(_TEXT, "", text)
    if re.search(r"[^A-Za-z '.!?-]", rest):
        return False
    bare = re.findall(r"[A-Za-z]+", rest)
    if rest == text:
        return any(len(word) > 3 and re.search("[aeiouAEIOU]", word) for word in bare) and not _FUNCTION.fullmatch(text)
    return all(len(word) > 1 for word in bare)
