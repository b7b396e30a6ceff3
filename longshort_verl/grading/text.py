# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The text of an answer without what carries no meaning: fonts, blanks, dollars, stars, a final full stop.

Different spellings of one sign become one spelling, and arguments get their braces (``\\frac12`` → ``\\frac{1}{2}``).
Words stay, each run of words as ``\\text{…}``. Nothing is computed here, except that repeating decimals become
fractions. All functions are linear in the text's length, which the caller limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from fractions import Fraction
from functools import lru_cache

UNIT_LETTERS = "mgshlLANWJVKCFT"
"""A single one of these in an upright font is a unit and not a variable."""

_SIGNS = str.maketrans(
    {
        **{"−": "-", "×": r"\times ", "·": r"\cdot ", "±": r"\pm ", "π": r"\pi ", "∞": r"\infty ", "∅": r"\emptyset "},
        **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "√": r"\sqrt "},
        **{"°": r"^\circ ", "…": r"\ldots ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "’": "'"},
        **{"²": "^{2}", "³": "^{3}", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "–": "-"},
        **{"€": r"\text{euros}", "£": r"\text{pounds}", "¥": r"\text{yen}", "¢": r"\text{cents}"},
    }
)
_ARGUMENT = r"([0-9a-zA-Z]|\\(?!frac|sqrt|text|left|begin)[a-zA-Z]+)"
_SIMPLE_GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"
# In this order.
_REWRITES: tuple[tuple[str, str], ...] = (
    (r"\\!\s*", ""),
    (r"(?<!\\)\\[ ,;:>]|(?<!\\)~|\\(?:q?quad|(?:thin|med|thick|en)space)(?![a-zA-Z])|\\[hv]space\*?\{[^{}]*\}", " "),
    (
        r"\\(?:displaystyle|textstyle|limits|nolimits|large|Large|huge|Huge|small|checkmark|therefore|bf|rm|it|sf|tt)(?![a-zA-Z])",
        "",
    ),
    (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])(?:\s*\.(?![0-9]))?", ""),
    (r"\{\s*([,:.])\s*\}", r"\1"),
    (r"\\(?:dfrac|tfrac|cfrac)(?![a-zA-Z])", r"\\frac"),
    (r"\\(?:varnothing|O)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
    (r"\\(?:leqslant|leqq|leq)(?![a-zA-Z])", r"\\le "),
    (r"\\(?:geqslant|geqq|geq)(?![a-zA-Z])", r"\\ge "),
    (r"\\neq(?![a-zA-Z])", r"\\ne "),
    (r"\\(?:dots|cdots|dotsc|dotso)(?![a-zA-Z])|\.\.\.", r"\\ldots "),
    (r"\\(?:lbrace|rbrace)(?![a-zA-Z])", lambda match: "\\{" if "lb" in match[0] else "\\}"),  # type: ignore[arg-type]
    (r"\\(?:langle)(?![a-zA-Z])", "("),
    (r"\\(?:rangle)(?![a-zA-Z])", ")"),
    (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
    (
        r"(?:\{\s*\})?\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-zA-Z]))|\\(?:text)?degrees?(?![a-zA-Z])"
        r"|(?<=[0-9])\s*\\deg(?![a-zA-Z])",
        r"^\\circ ",
    ),
)
_COMPILED: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), new) for pattern, new in _REWRITES
]
_BRACES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (rf"\\(frac|binom)\s*{_ARGUMENT}\s*{_ARGUMENT}", r"\\\1{\2}{\3}"),
        (rf"\\(frac|binom)\s*{_ARGUMENT}\s*\{{", r"\\\1{\2}{"),
        (rf"\\(frac|binom)\s*({_SIMPLE_GROUP})\s*{_ARGUMENT}", r"\\\1\2{\3}"),
        (rf"\\sqrt\s*{_ARGUMENT}", r"\\sqrt{\1}"),
        (r"\{?\b([0-9a-z]+)\s*\\choose\s*([0-9a-z]+)\b\}?", r"\\binom{\1}{\2}"),
        (r"\\pmod\s*(?:\{([^{}]*)\}|([0-9a-z]))", r"\\text{mod \1\2}"),
        (r"\^\s*\{?\s*\\text\{(st|nd|rd|th)\}\s*\}?", r"\\text{\1}"),
        (r"\\log_\s*([0-9])([0-9]+)(?=\s*(?:$|[-+=,)]))", r"\\log_{\1} \2"),
        (r"\^\s*(-?[0-9]+|[a-zA-Z])", r"^{\1}"),
        (r"_\s*([0-9]+|[a-zA-Z])", r"_{\1}"),
    )
]
_UPRIGHT = r"text|textrm|textnormal|textup|mathrm|mbox|hbox"
_OTHER_FONTS = (
    r"textbf|textit|textsf|texttt|textsl|textsc|emph|mathbf|mathit|mathsf|mathtt|mathcal|mathscr|mathnormal|boldsymbol"
    r"|pmb|bm|bf|it|bold|underline|uline|ensuremath|textcolor\{[a-z]*\}|color\{[a-z]*\}"
)
_FONT = re.compile(rf"\\({_UPRIGHT}|{_OTHER_FONTS})\s*\{{([^{{}}]*)\}}")
_BARE_FONT = re.compile(rf"\\(?:{_UPRIGHT}|{_OTHER_FONTS})(?![a-zA-Z])\s*(?=\{{)")
_WORD = r"[A-Za-z]+(?:[.'-][A-Za-z]+)*\.?"
_WORD_RUN = re.compile(rf"{_WORD}(?:[ /]+{_WORD})*")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)(?:\\(?:overline|bar|dot)\s*\{?([0-9]+)\}?|\(([0-9]+)\))(?![0-9])")
_TWO_DOTS = re.compile(r"\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?")
_CONTINUED = re.compile(r"([0-9]*)\.([0-9]{0,9}?)([0-9]{1,9}?)\3{2,}\s*\\ldots(?![a-zA-Z])")
_ANY_FONT = re.compile(r"\\(?:(?:text|math)[a-z]*|mbox|left|right)(?![a-zA-Z])")
_SLASHES = re.compile(r"\\\\(?=[a-zA-Z])")
_STARS = re.compile(r"(?<![\w)*])\*\*(?=\S)([^*]+?)\*\*(?![\w(*])")
_AROUND = re.compile(r"([*_`]+)([^*_`].*?)\1", re.DOTALL)


def without_fonts(text: str) -> str:
    """Text without fonts, dollars and stars; for labels and words, which need no mathematics."""
    for _ in range(4):
        text, count = _FONT.subn(r"\2", text)
        if not count:
            break
    text = _BARE_FONT.sub("", text)
    text = re.sub(r"\\(?:left|right)(?![a-zA-Z])|[$*`]|\\!", "", text)
    text = re.sub(r"\\colon(?![a-zA-Z])", ":", text)
    return re.sub(r"(?<!\\)\\[ ,;:]|~|\\q?quad(?![a-zA-Z])|\s+", " ", text).strip().removesuffix("\\").strip()


def words(text: str) -> str:
    """Text without fonts, braces, case and runs of white space."""
    return " ".join(re.sub(r"[{}$]", "", _ANY_FONT.sub("", text)).casefold().split())


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """The text in one spelling; see the head of this file."""
    text = _unwrap(text.translate(_SIGNS))
    if "\\begin" not in text:
        text = _SLASHES.sub(r"\\", text)
    for pattern, new in _COMPILED:
        text = pattern.sub(new, text)
    for _ in range(4):
        text, count = _FONT.subn(_font, text)
        if not count:
            break
    text = _unwrap(_BARE_FONT.sub("", text).replace("\x01", "\\text{").replace("\x02", "}"))
    text = re.sub(r"(?<=[0-9])\s*\\text\{\s*to\s*\}\s*(?=[0-9])", ":", text)
    text = re.sub(r"\\\$|(?<!\\)\$(?=[0-9.])", r"\\text{dollars} ", text).replace("$", "")
    for pattern, new in _BRACES:
        text = pattern.sub(new, text)
    return " ".join(_repeating_decimals(text).split())


def _unwrap(text: str) -> str:
    """Removes white space, dollars, stars, braces and a full stop around the whole."""
    while True:
        before = text
        text = text.strip()
        for begin, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("{", "}")):
            inner = text[len(begin) : -len(end)]
            is_around = text.startswith(begin) and text.endswith(end) and len(text) >= len(begin + end)
            if is_around and (begin != "{" or is_balanced(inner, "{", "}")):
                text = inner.strip()
        text = _STARS.sub(r"\1", text)
        if match := _AROUND.fullmatch(text):
            text = match[2]
        if (text.endswith(".") and not text.endswith("..")) or re.search(r"(?<!\\)\\$", text):
            text = text[:-1]  # a full stop, or the backslash of a blank
        if text == before:
            return text


def is_balanced(text: str, opening: Collection[str], closing: Collection[str]) -> bool:
    """Whether no bracket of a text, also ``\\{``, closes one outside of it, and all are closed."""
    depth = 0
    for token in re.findall(r"\\.|[()\[\]{}]", text):
        depth += (token in opening) - (token in closing)
        if depth < 0:
            return False
    return depth == 0


def _font(match: re.Match[str]) -> str:
    """The contents of a font command: words as ``\\text{…}`` (with marks for its braces), anything else bare."""
    upright = re.fullmatch(_UPRIGHT, match[1]) is not None
    content = match[2]
    if "\x01" in content or "\\" in content.replace("\\$", "").replace("\\%", ""):
        return content

    def word(run: re.Match[str]) -> str:
        is_unit = upright and all(letter in UNIT_LETTERS for letter in re.findall("[A-Za-z]", run[0]))
        is_word = is_unit or re.search(r"[A-Za-z]{2}|[A-Za-z]\.[A-Za-z]", run[0])
        return f"\x01{run[0]}\x02" if is_word else run[0]

    if re.search(r"[0-9=<>+^_]", content) is None and re.search("[A-Za-z]{2}", content):
        return f"\x01{content}\x02"
    return _WORD_RUN.sub(word, content)


def _repeating_decimals(text: str) -> str:
    """``0.1\\overline{6}``, ``0.(3)``, ``0.\\dot{3}`` and ``0.333\\ldots`` as fractions."""
    text = _TWO_DOTS.sub(r"\\overline{\1\2\3}", text)
    text = _REPEATING.sub(lambda match: _fraction(match[1], match[2], match[3] or match[4]), text)
    return _CONTINUED.sub(lambda match: _fraction(match[1], match[2], match[3]), text)


def _fraction(whole: str, fixed: str, period: str) -> str:
    """0.fixed(period) = (fixed·(10^p − 1) + period) / (10^f·(10^p − 1))."""
    nines = 10 ** len(period) - 1
    value = int(whole or "0") + Fraction(int(fixed or "0") * nines + int(period), 10 ** len(fixed) * nines)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
