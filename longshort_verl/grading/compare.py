# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Whether two typed values are equal, as far as their structure and exact fractions decide it.

What only a library decides (mathematics, units, sets of numbers) is passed to ``decide``: in the calling process it
raises :class:`NeedsMathematics`, and in a grading process it is ``mathematics.decide``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from longshort_verl.grading.values import Based, Expression, Group, Number, Quantity, Ratio, Sum, Time, Value, Words

Decide = Callable[[Value, Value], bool]
HALF_DAY_S = 12 * 3600


class NeedsMathematics(Exception):
    """The two values cannot be compared without a library."""


def ask(answer: Value, gold: Value) -> bool:
    """A ``decide`` that decides nothing."""
    raise NeedsMathematics


def equal(answer: Value, gold: Value, decide: Decide) -> bool:
    """Whether an answer equals a gold answer. Raises what ``decide`` raises."""
    answer, gold = _without_braces(answer), _without_braces(gold)
    if answer == gold:
        return True
    if isinstance(answer, Number) and isinstance(gold, Number):
        return _equal_numbers(answer, gold)
    if isinstance(answer, Quantity) != isinstance(gold, Quantity) and not _any((Sum, Words, Time), answer, gold):
        return equal(_bare(answer), _bare(gold), decide)  # where one side has no words, the other's are dropped
    if isinstance(answer, Time) and isinstance(gold, Time):
        return _equal_times(answer, gold)
    if isinstance(answer, Ratio) and isinstance(gold, Ratio):
        return _equal_ratios(answer, gold, decide)
    if isinstance(answer, Words) and isinstance(gold, Words):
        return _essence(answer.text) == _essence(gold.text)
    if _any((Time, Ratio, Words), answer, gold) or (isinstance(answer, Based) and isinstance(gold, Based)):
        return False  # two kinds; or other digits or another base
    if _any((Based,), answer, gold):
        return _digits(answer) is not None and _digits(answer) == _digits(gold)
    if isinstance(answer, Group) and isinstance(gold, Group):
        return _equal_groups(answer, gold, decide)
    return decide(answer, gold)


def _any(kinds: tuple[type, ...], *values: Value) -> bool:
    return any(isinstance(value, kinds) for value in values)


def _without_braces(value: Value) -> Value:
    """The one item of a set or list that has no other."""
    return value.items[0] if isinstance(value, Group) and len(value.items) == 1 else value


def _bare(value: Value) -> Value:
    return value.value if isinstance(value, Quantity) else value


def _equal_numbers(answer: Number, gold: Number) -> bool:
    """Exactly; but a decimal equals a fraction up to rounding."""
    if answer.is_decimal != gold.is_decimal and not (answer.is_plain and gold.is_plain):
        return is_rounded(answer.value, gold.value)
    return answer.value == gold.value


def is_rounded(left: Fraction, right: Fraction) -> bool:
    """Whether two numbers agree in six decimals and, so that 0.00 is not 1e-8, in four digits."""
    return round(left, 6) == round(right, 6) and abs(left - right) * 10**4 <= max(abs(left), abs(right))


def _equal_times(answer: Time, gold: Time) -> bool:
    if answer.half and gold.half:
        return answer.seconds % (2 * HALF_DAY_S) == gold.seconds % (2 * HALF_DAY_S)
    later = max(answer.seconds, gold.seconds)
    is_12_hours = min(answer.seconds, gold.seconds) <= HALF_DAY_S and (answer.half or gold.half) != ""
    return answer.seconds == gold.seconds or (is_12_hours and abs(answer.seconds - gold.seconds) == HALF_DAY_S <= later)


def _equal_ratios(answer: Ratio, gold: Ratio, decide: Decide) -> bool:
    if len(answer.parts) != len(gold.parts):
        return False
    left = [part.value for part in answer.parts if isinstance(part, Number)]
    right = [part.value for part in gold.parts if isinstance(part, Number)]
    if len(left) == len(right) == len(gold.parts):
        return all(one * right[0] == other * left[0] for one, other in zip(left, right, strict=True))
    return all(equal(one, other, decide) for one, other in zip(answer.parts, gold.parts, strict=True))


def _digits(value: Value) -> str | None:
    """Digits of a whole number, which equal those with a base."""
    if isinstance(value, Based):
        return value.digits
    return str(value.value) if isinstance(value, Number) and value.is_plain else None


def _essence(text: str) -> list[list[str]]:
    """The words of each item; items joined by "and" have no order."""
    items = re.split(r",|\band\b", text.replace("-", " ").strip(" .!"))
    return sorted([word for word in item.split() if word not in {"the", "a", "an"}] for item in items if item.strip())


def _equal_groups(answer: Group, gold: Group, decide: Decide) -> bool:
    if gold.is_union and answer.is_union and any(isinstance(item, Expression) for item in gold.items + answer.items):
        try:
            return _same_items(answer, gold, decide) or decide(answer, gold)
        except ValueError:
            return False
    if gold.brackets not in ("", "{}") or (answer.brackets not in ("", "{}") and gold.brackets == "{}"):
        if (answer.brackets and answer.brackets != gold.brackets) or len(answer.items) != len(gold.items):
            return False
        return all(equal(left, right, decide) for left, right in zip(answer.items, gold.items, strict=True))
    is_interval = len(gold.items) == 2 and answer.brackets in ("[]", "(]", "[)")
    return not is_interval and _same_items(answer, gold, decide)


def _same_items(answer: Group, gold: Group, decide: Decide) -> bool:
    """Whether two sets or bare lists have the same items in any order, each once."""
    left, right = list(dict.fromkeys(answer.items)), list(dict.fromkeys(gold.items))
    if len(left) != len(right):
        return False
    for item in left:
        match = next((other for other in right if equal(item, other, decide)), None)
        if match is None:
            return False
        right.remove(match)
    return True
