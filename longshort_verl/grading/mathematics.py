# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What libraries decide about two typed values: mathematics (latex2sympy2 and sympy) and units (pint).

math-verify compares with ``evalf(chop=True)`` at 15 digits, which makes zeros of factors below 1e-16. Here numbers are
compared relative to the larger one, at as many digits as their exact form may need. Functions are compared at rational
points where both are real; equations by the quotient of their sides; inequalities as sets. math-verify's own
comparison is asked only for what none of these covers. It runs in grading processes: importing it takes a second.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any

import sympy
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, _Latex2Sympy, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import is_expr_of_only_symbols as is_symbols
from math_verify import verify
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from longshort_verl.grading.compare import equal, is_rounded
from longshort_verl.grading.units import OtherDimensionError, convert
from longshort_verl.grading.values import Expression, Group, Number, Quantity, Sum, Value

FEW_DIGITS = 50
MANY_DIGITS = 10_000
"""Most digits of a comparison."""
NUM_POINTS = 8
"""Points at which functions are compared; as many more are tried where some have no real value."""
_SYNTAX = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)


class _FastParser(_Latex2Sympy):
    """The parser in antlr's fast mode, which halves its time."""

    def create_parser(self, latex_str: str) -> Any:
        parser: Any = super().create_parser(latex_str)
        parser._interp.predictionMode = PredictionMode.SLL
        return parser


class UnreadableError(ValueError):
    """The parser cannot read a text as mathematics."""

    is_gold = False
    """Whether it is the gold answer, or a part of it."""


# Reading -------------------------------------------------------------------------------------------------------------

_FUNCTIONS = r"\\(?:log|ln|sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(?:\s*[_^]\{[^{}]*\})*"
_ARGUMENT = r"(?:[0-9a-zA-Z. ]|\\(?:pi|theta|alpha|beta)(?![a-zA-Z])|\\sqrt\{[^{}]*\}|\\frac\{[^{}]*\}\{[^{}]*\})+?"
_REWRITES = (
    # The parser takes a factor into the argument: \log_4 5 \cdot \log_5 6 would be \log_4(5 \cdot \log_5 6).
    (re.compile(rf"({_FUNCTIONS})\s*(?!\s*\()({_ARGUMENT})\s*(?=\\cdot|\\times|\*|/)"), r"\1(\2)"),
    (re.compile(r"\\(?:lg|log_\{10\})(?![a-zA-Z])"), r"\\log_{10}"),
    # It drops what follows these signs.
    (re.compile(r"\\(?:approx|equiv|simeq)(?![a-zA-Z])"), "="),
    # It adds up numbers side by side, as in mixed fractions: 2(3) would be 5.
    (re.compile(r"(?<=[0-9])\s*\((?!\s*\))"), r" \\cdot ("),
    (re.compile(r"\)\s*(?=[(0-9])"), r") \\cdot "),
    # An angle in degrees, inside an expression.
    (re.compile(r"([0-9.]+|\))\s*\^\\circ"), r"(\1 \\cdot \\frac{\\pi}{180})"),
)
_SUBSCRIPT_OR_I = re.compile(
    r"\\(?:begin|end|mathbb)\{[a-zA-Z*]*\}|\\[a-zA-Z]+|_\{[^{}]*\}|_[a-zA-Z]|i(?=nfinity)|[a-zA-Z]"
)


@lru_cache(maxsize=4096)
def parse(latex: str) -> Any:
    """A sympy object, not evaluated, with exact decimals in place of floats.

    Raises:
        UnreadableError: the parser cannot read it.
    """
    if "\\ldots" in latex or not latex.strip():
        raise UnreadableError(latex)
    for pattern, new in _REWRITES:
        latex = pattern.sub(new, latex)
    if not re.search(r"\\(?:sum|prod)", latex):
        # The parser's imaginary unit is I, whose power it drops without brackets.
        latex = _SUBSCRIPT_OR_I.sub(lambda match: "(I)" if match[0] in ("i", "\\imath") else match[0], latex)
    latex = normalize_latex(latex, _SYNTAX)
    try:
        # The fast mode of antlr fails on some texts, and agrees with the full one on all others.
        return _FastParser().parse(latex)
    except Exception:
        pass
    try:
        return latex2sympy(latex, is_real=None, normalization_config=None)
    except Exception as error:  # any exception at all: the parser runs on text that a model wrote
        raise UnreadableError(latex) from error


def read(value: Value) -> Any:
    """The sympy object of a number or an expression. Raises :class:`UnreadableError` for other values."""
    if isinstance(value, Number):
        number = sympy.Rational(value.value.numerator, value.value.denominator)
        return number if not value.is_decimal else sympy.Float(str(number.evalf(40)), 40)
    if isinstance(value, Expression):
        return parse(value.latex)
    raise UnreadableError(str(value))


def exact(expression: Any) -> Any:
    """The expression with rational numbers in place of floats."""
    floats = expression.atoms(sympy.Float) if hasattr(expression, "atoms") else ()
    return expression.xreplace({one: sympy.Rational(str(one)) for one in floats}) if floats else expression


# Deciding ------------------------------------------------------------------------------------------------------------


def decide(answer: Value, gold: Value) -> bool:
    """Whether an answer equals a gold answer, where ``compare`` alone cannot say.

    Raises:
        UnreadableError: one of them is no mathematics.
    """
    if isinstance(answer, Quantity) and isinstance(gold, Quantity):
        return _equal_quantities(answer, gold)
    kinds = {type(answer), type(gold)}
    if kinds <= {Sum, Group, Quantity} and kinds != {Group}:
        return _equal_sums(answer, gold)
    if Group in kinds:  # an interval or set in brackets against a relation, or alternatives against a union
        sets = _read_both(answer, gold, _group_set)
        return None not in sets and _equal_sets(*sets)
    return _equal_objects(*_read_both(answer, gold, read))


def _read_both(answer: Value, gold: Value, reader: Callable[[Value], Any]) -> tuple[Any, Any]:
    """Both by one reader, the gold answer first, which is named if it cannot be read."""
    try:
        right = reader(gold)
    except UnreadableError as error:
        error.is_gold = True
        raise
    return reader(answer), right


def _equal_objects(answer: Any, gold: Any) -> bool:
    sides, answer, gold = _constant_sides(answer), _first_and_last(answer), _first_and_last(gold)
    if not all(_same_constant(side, sides[-1]) for side in sides):
        return False
    if isinstance(answer, sympy.Eq) and not isinstance(gold, Relational):
        return any(_equal_objects(side, gold) for side in sides or [answer.rhs])
    if isinstance(gold, sympy.Eq) and is_symbols(gold.lhs) and not isinstance(answer, Relational):
        gold = gold.rhs
    if isinstance(answer, sympy.MatrixBase) or isinstance(gold, sympy.MatrixBase):
        return _equal_matrices(answer, gold)
    if isinstance(answer, sympy.Expr) and isinstance(gold, sympy.Expr):
        return equal_expressions(answer, gold)
    if all(isinstance(one, sympy.Eq) and isinstance(one.rhs, sympy.Expr) for one in (answer, gold)):
        return _proportional(answer, gold, direction=False)
    sets = as_set(answer), as_set(gold)
    if sets[0] is not None and sets[1] is not None and _variables(answer) >= _variables(gold):
        return _equal_sets(*sets)
    if isinstance(answer, Relational) and isinstance(gold, Relational):
        return _proportional(answer, gold, direction=True)
    return bool(verify([exact(gold)], [exact(answer)], timeout_seconds=None, raise_on_error=True))


def _variables(thing: Any) -> set:
    """Names of a relation's variables; a set has none, and equals any."""
    return thing.free_symbols if isinstance(thing, (Relational, sympy.And, sympy.Or)) else set()


def _chain(thing: Any) -> tuple[Any, ...]:
    """The equations of ``x = 2 + 3 = 5``; none for anything else."""
    equations = getattr(thing, "_unsorted_args", ()) if isinstance(thing, sympy.And) else (thing,)
    return equations if all(isinstance(one, sympy.Eq) for one in equations) else ()


def _first_and_last(thing: Any) -> Any:
    chain = _chain(thing)
    return sympy.Eq(chain[0].lhs, chain[-1].rhs, evaluate=False) if len(chain) > 1 else thing


def _constant_sides(thing: Any) -> list[Any]:
    sides = [side for equation in _chain(thing) for side in equation.args]
    return [one for one in sides if isinstance(one, sympy.Expr) and not (one.free_symbols or one.has(AppliedUndef))]


def _same_constant(left: Any, right: Any) -> bool:
    """Whether two sides of an equation are equal; 4 = 5 is no answer, but 2/3 = 0.67 is."""
    if equal_expressions(left, right):
        return True
    decimals = [str(exact(side).evalf(20)).rstrip("0") for side in (left, right) if side.is_Float]
    places = min((len(decimal.partition(".")[2]) for decimal in decimals), default=FEW_DIGITS)
    return bool(abs(exact(left) - exact(right)).evalf(FEW_DIGITS) * 2 * 10**places <= 1)


def _equal_matrices(answer: Any, gold: Any) -> bool:
    both = isinstance(answer, sympy.MatrixBase) and isinstance(gold, sympy.MatrixBase)
    if not both or answer.shape != gold.shape:
        return False
    return all(equal_expressions(left, right) for left, right in zip(answer.flat(), gold.flat(), strict=True))


# Numbers and functions -----------------------------------------------------------------------------------------------


def equal_expressions(answer: Any, gold: Any) -> bool:
    """Whether two expressions are equal, as numbers or as functions."""
    if answer == gold and not answer.has(sympy.nan, sympy.zoo):
        return True
    has_decimal = bool(answer.atoms(sympy.Float)), bool(gold.atoms(sympy.Float))
    answer, gold = exact(answer), exact(gold)
    if answer.free_symbols or gold.free_symbols:
        return _equal_functions(answer, gold)
    return _equal_numbers(answer, gold, rounded=has_decimal[0] != has_decimal[1])


def _equal_numbers(answer: Any, gold: Any, *, rounded: bool) -> bool:
    if answer.has(sympy.oo, -sympy.oo, sympy.nan, sympy.zoo) or gold.has(sympy.oo, -sympy.oo, sympy.nan, sympy.zoo):
        return answer == gold and not answer.has(sympy.nan, sympy.zoo)
    values = evaluate(answer, FEW_DIGITS), evaluate(gold, FEW_DIGITS)
    if rounded:
        parts = zip(_parts(values[0]), _parts(values[1]), strict=True)
        return all(left == right or is_rounded(_fraction(left), _fraction(right)) for left, right in parts)
    if not _agree(*values, FEW_DIGITS):
        return False
    digits = min(MANY_DIGITS, round(2 * (_size(answer) + _size(gold))))
    return digits <= FEW_DIGITS or _agree(evaluate(answer, digits), evaluate(gold, digits), digits)


def evaluate(expression: Any, digits: int, at: dict | None = None) -> Any:
    """The value to so many digits; zero if twice as many and 50 show none other.

    Raises:
        ArithmeticError: it has no value.
    """
    try:
        value = expression.evalf(digits, maxn=2 * digits + FEW_DIGITS, strict=True, subs=at)
    except PrecisionExhausted:
        return sympy.Integer(0)
    if not all(part.is_Number and part.is_finite for part in _parts(value)):
        raise ArithmeticError(f"{expression} has no value")
    return value


def _parts(value: Any) -> tuple[Any, Any]:
    return (value, sympy.Integer(0)) if value.is_Number else value.as_real_imag()


def _fraction(number: Any) -> Fraction:
    return Fraction(str(sympy.Rational(number)))


def _agree(left: Any, right: Any, digits: int) -> bool:
    """Whether two values agree in all but the last ten digits, relative to the largest part of both."""
    parts = [*_parts(left), *_parts(right)]
    largest = max(abs(part) for part in parts)
    difference = max(abs(parts[0] - parts[2]), abs(parts[1] - parts[3]))
    return bool(difference * 10 ** (digits - 10) <= largest)


def _size(expression: Any) -> float:
    """About how many digits the exact numbers in an expression have."""
    if expression.is_Rational:
        return (abs(expression.p).bit_length() + expression.q.bit_length()) * 0.302 + 1
    if expression.is_Pow and expression.exp.is_Integer:
        return min(1e6, _size(expression.base) * min(10**6, abs(int(expression.exp))) + 1)
    if isinstance(expression, sympy.factorial) and expression.args[0].is_Integer:
        number = min(10**5, abs(int(str(expression.args[0]))))
        return number * len(str(number)) + 1
    return min(1e6, sum(_size(argument) for argument in expression.args) + 1)


def _points(symbols: list, *, integers: bool) -> Iterator[dict]:
    """Points for comparing functions: the first two positive, then each variable of both signs."""
    chance = random.Random(11)
    for index in range(2, 2 + 2 * NUM_POINTS):
        point = {}
        for position, symbol in enumerate(symbols):
            sign = -1 if index > 3 and index >> (position % 3) & 1 else 1
            value = sympy.Rational(chance.randint(1, 29), chance.choice((31, 7, 3)))
            point[symbol] = sympy.Integer(chance.randint(1, 12)) if integers else sign * value
        yield point


def _equal_functions(answer: Any, gold: Any) -> bool:
    symbols = sorted(answer.free_symbols | gold.free_symbols, key=str)
    for integers in (False, True):
        values = list(islice(_values(answer, gold, symbols, integers=integers), NUM_POINTS))
        if not all(_agree(left, right, FEW_DIGITS) for left, right in values):
            return False
        if len(values) >= 2:
            return True
    return bool(sympy.simplify(answer - gold) == 0)


def _values(answer: Any, gold: Any, symbols: list, *, integers: bool) -> Iterator[tuple[Any, Any]]:
    """Values of two expressions at points where both have one; without an i in them, where both are real."""
    is_complex = answer.has(sympy.I) or gold.has(sympy.I)
    for point in _points(symbols, integers=integers):
        if not is_complex and not (_is_real(answer, point) and _is_real(gold, point)):
            continue
        try:
            yield evaluate(answer, FEW_DIGITS, point), evaluate(gold, FEW_DIGITS, point)
        except (ArithmeticError, ValueError, TypeError, AttributeError):
            continue


def _is_real(expression: Any, point: dict) -> bool:
    """Whether all roots and logarithms of an expression are real at a point."""
    powers = [one for one in expression.atoms(sympy.Pow) if not one.exp.is_integer]
    arguments = [one.base for one in powers if not one.exp.subs(point).is_integer]
    arguments += [one.args[0] for one in expression.atoms(sympy.log)]
    for argument in arguments:
        if argument.is_positive:
            continue
        value = argument.evalf(15, subs=point)
        if not value.is_real or value < 0:
            return False
    return True


# Relations and sets --------------------------------------------------------------------------------------------------


def _proportional(answer: Any, gold: Any, *, direction: bool) -> bool:
    """Whether left minus right side of one relation is a constant times that of the other, with the same direction."""
    left, right = exact(answer.lhs - answer.rhs), exact(gold.lhs - gold.rhs)
    if left.free_symbols != right.free_symbols:
        return False
    symbols = sorted(left.free_symbols, key=str)
    values = islice(_values(left, right, symbols, integers=False), NUM_POINTS)
    quotients = [one / other for one, other in values if other != 0]
    if len(quotients) < 2 or quotients[0] == 0:
        return False
    if not all(_agree(one, other, FEW_DIGITS) for one, other in pairwise(quotients)):
        return False
    return not direction or type(answer) is type(gold if quotients[0] > 0 else gold.reversed)


def as_set(thing: Any) -> Any:
    """The set that an inequality, a membership or a set means; None for anything else."""
    try:
        if isinstance(thing, sympy.Set):
            return exact(thing).doit()
        if isinstance(thing, sympy.Eq) and isinstance(thing.rhs, sympy.Set):
            return exact(thing.rhs).doit()
        if isinstance(thing, (Relational, sympy.And, sympy.Or)) and len(thing.free_symbols) == 1:
            (symbol,) = thing.free_symbols
            return exact(thing).subs(symbol, sympy.Symbol("x", real=True)).as_set()
    except (NotImplementedError, TypeError, ValueError):
        return None
    return None


def _equal_sets(answer: Any, gold: Any) -> bool:
    pieces = _pieces(answer), _pieces(gold)
    if None in pieces:
        return answer == gold or answer.symmetric_difference(gold).is_empty is True
    left, right = pieces
    return len(left) == len(right) and all(_equal_pieces(*pair) for pair in zip(left, right, strict=True))


def _pieces(whole: Any) -> Any:
    """Intervals and points of a set of real numbers in ascending order; None for other sets."""
    if whole == sympy.S.Reals:
        whole = sympy.Interval(-sympy.oo, sympy.oo)
    parts = whole.args if isinstance(whole, sympy.Union) else (whole,)
    pieces = []
    for part in parts:
        if isinstance(part, sympy.Interval):
            pieces.append((part.start, part.end, bool(part.left_open), bool(part.right_open)))
        elif isinstance(part, sympy.FiniteSet):
            pieces += [(point, point, False, False) for point in part.args]
        elif part != sympy.S.EmptySet:
            return None
    try:
        return sorted(pieces, key=lambda piece: float(piece[0]))
    except TypeError:
        return None


def _equal_pieces(left: tuple, right: tuple) -> bool:
    return left[2:] == right[2:] and equal_expressions(left[0], right[0]) and equal_expressions(left[1], right[1])


def _group_set(value: Value) -> Any:
    if not isinstance(value, Group):
        return as_set(read(value))
    objects = [_first_and_last(read(item)) for item in value.items]
    objects = [exact(item.rhs if isinstance(item, sympy.Eq) else item) for item in objects]
    if value.brackets == "{}":
        return sympy.FiniteSet(*objects)
    if value.brackets and len(objects) == 2:
        left, right = objects
        if value.brackets != "[]" and right.is_comparable and left.is_comparable and right <= left:
            return None
        return sympy.Interval(left, right, value.brackets[0] == "(", value.brackets[1] == ")")
    if value.brackets:
        return None
    relations = [as_set(read(item)) for item in value.items]
    if None in relations:
        return sympy.FiniteSet(*objects) if all(isinstance(one, sympy.Expr) for one in objects) else None
    return sympy.Union(*relations) if value.is_union else sympy.Intersection(*relations)


# Quantities ----------------------------------------------------------------------------------------------------------

_NEGATIONS = frozenset({"no", "not", "non", "never", "less", "more", "loss", "gain"})


def _equal_quantities(answer: Quantity, gold: Quantity) -> bool:
    """With units on both sides, in one unit; with other words, the words of one are among those of the other."""
    try:
        line = convert(answer.words, gold.words)
    except OtherDimensionError:
        return False
    if line is not None:
        return equal(_scaled(answer.value, *line), gold.value, decide)
    if not _agree_in_words(answer.words, gold.words):
        return False
    return equal(answer.value, gold.value, decide)


def _agree_in_words(answer: str, gold: str) -> bool:
    left, right = _word_set(answer), _word_set(gold)
    return left == right or ((left < right or right < left) and not ((left ^ right) & _NEGATIONS))


def _word_set(words: str) -> set[str]:
    return {word.rstrip(".").removesuffix("s") for word in re.split(r"[ /*-]+", words.casefold()) if word}


def _scaled(value: Value, factor: Fraction, offset: Fraction) -> Value:
    if factor == 1 and offset == 0:
        return value
    if isinstance(value, Number):
        return Number(value.value * factor + offset, is_plain=value.is_plain, is_decimal=value.is_decimal)
    if isinstance(value, Expression):
        return Expression(
            f"({value.latex}) \\cdot \\frac{{{factor.numerator}}}{{{factor.denominator}}}"
            f" + \\frac{{{offset.numerator}}}{{{offset.denominator}}}"
        )
    if isinstance(value, Group):
        return Group(value.brackets, tuple(_scaled(item, factor, offset) for item in value.items), value.is_union)
    return value


def _equal_sums(answer: Value, gold: Value) -> bool:
    """Whether 5 feet 3 inches are 63 inches; sums of other things are equal part by part."""
    left, right = _quantities(answer), _quantities(gold)
    if not left or not right:
        return False
    unit = right[-1].words
    try:
        totals = _total(left, unit), _total(right, unit)
    except OtherDimensionError:
        return False
    if totals[0] is not None and totals[1] is not None:
        return totals[0] == totals[1]
    return len(left) == len(right) and all(_equal_quantities(*pair) for pair in zip(left, right, strict=True))


def _quantities(value: Value) -> tuple[Quantity, ...]:
    parts = value.parts if isinstance(value, Sum) else value.items if isinstance(value, Group) else (value,)
    quantities = tuple(part for part in parts if isinstance(part, Quantity))
    return quantities if len(quantities) == len(parts) else ()


def _total(parts: tuple[Quantity, ...], unit: str) -> Fraction | None:
    total = Fraction(0)
    for part in parts:
        line = convert(part.words, unit)
        if line is None or line[1] or not isinstance(part.value, Number):
            return None
        total += part.value.value * line[0]
    return total
