# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Properties of the comparison: spellings that keep the value are right, and small changes are wrong.

Numbers, fractions, surds, intervals and sets are drawn at random. The truth of each pair holds by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longshort_verl.grading import mathematics
from longshort_verl.grading.compare import equal
from longshort_verl.grading.values import SideBySideError, read_pair

Case = tuple[str, list[str], list[str]]
"""A gold answer, answers that are right and answers that are wrong."""


def is_equal(answer: str, gold: str) -> bool:
    """The verdict of a grading process, in this one."""
    try:
        return equal(*read_pair(answer, gold), mathematics.decide)
    except (mathematics.UnreadableError, SideBySideError):
        return False


def frac(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def integers(number: int) -> Case:
    right = [f"{number}.0", f"{number:,}", f"\\text{{{number}}}", f"${number}$", f"{number}\\text{{ apples}}"]
    right += [frac(Fraction(number)).replace("{1}", "{1}"), f"\\frac{{{3 * number}}}{{3}}", f"{number + 7} - 7"]
    right += [f"{number}e0", f"x = {number}", f"**{number}**", f"{number * number} - {number * number - number}"]
    wrong = [f"{number + 1}", f"{number - 1}", f"{number}.001", f"{number}\\text{{ million}}", f"{number}, 1"]
    wrong += [f"{-number}", f"{number}0"]
    return f"{number}", right, wrong if number else wrong[:3]


def fractions(value: Fraction, factor: int) -> Case:
    above, below = value.numerator, value.denominator
    right = [f"\\dfrac{{{factor * above}}}{{{factor * below}}}", f"{above}/{below}", f"{frac(value)}\\text{{ km}}"]
    right += [f"\\frac{{{-above}}}{{{-below}}}", f"{frac(value + 1)} - 1", f"{above} \\cdot \\frac{{1}}{{{below}}}"]
    right += [repeating(value)]
    wrong = [frac(value + Fraction(1, below)), frac(-value), f"\\frac{{{above}}}{{{below + 1}}}", f"{above}"]
    return frac(value), right, wrong


def repeating(value: Fraction) -> str:
    """The decimal of a fraction, with a bar over its period."""
    sign, value = "-" if value < 0 else "", abs(value)
    whole, rest = divmod(value.numerator, value.denominator)
    digits, seen = "", {}
    while rest and rest not in seen:
        seen[rest] = len(digits)
        digit, rest = divmod(rest * 10, value.denominator)
        digits += str(digit)
    if not rest:
        return f"{sign}{whole}.{digits or 0}"
    return f"{sign}{whole}.{digits[: seen[rest]]}\\overline{{{digits[seen[rest] :]}}}"


def surds(whole: int, factor: int, radicand: int) -> Case:
    """whole + factor √radicand, with a radicand that is no square and a factor that is not zero."""
    gold = f"{whole} + {factor}\\sqrt{{{radicand}}}"
    right = [f"{factor}\\sqrt{radicand} + {whole}" if radicand < 10 else f"{factor} \\sqrt{{{radicand}}} + {whole}"]
    right += [
        f"{whole} + \\frac{{{factor * radicand}}}{{\\sqrt{{{radicand}}}}}",
        f"{whole} + {factor}({radicand})^{{1/2}}",
    ]
    right += [f"{whole} + \\frac{{{factor}}}{{2}}\\sqrt{{{4 * radicand}}}"]
    right += [f"\\frac{{{2 * whole} + {2 * factor}\\sqrt{{{radicand}}}}}{{2}}", f"({gold})\\text{{ cm}}"]
    wrong = [f"{whole} + {factor + 1}\\sqrt{{{radicand}}}", f"{whole} + {factor}\\sqrt{{{radicand + 1}}}"]
    wrong += [f"{whole + 1} + {factor}\\sqrt{{{radicand}}}", f"{whole} - {factor}\\sqrt{{{radicand}}}", f"{whole}"]
    wrong += [f"{gold} + 10^{{-30}}"]
    return gold, right, wrong


def intervals(left: Fraction, width: Fraction, begin: str, end: str) -> Case:
    low, high = frac(left), frac(left + width)
    lower, upper = {"(": "<", "[": "\\le"}[begin], {")": "<", "]": "\\le"}[end]
    mirrored = {"<": ">", "\\le": "\\ge"}
    gold = f"{begin}{low}, {high}{end}"
    right = [f"\\left{begin}{low},{high}\\right{end}", f"{low} {lower} x {upper} {high}", f"x \\in {gold}"]
    right += [
        f"{high} {mirrored[upper]} x {mirrored[lower]} {low}",
        f"{begin}{frac(left * 1)}, {frac(left)} + {frac(width)}{end}",
    ]
    other_begin, other_end = {"(": "[", "[": "("}[begin], {")": "]", "]": ")"}[end]
    wrong = [f"{other_begin}{low}, {high}{end}", f"{begin}{low}, {high}{other_end}", f"x {upper} {high}"]
    wrong += [f"{begin}{low}, {frac(left + width + 1)}{end}", f"{low} {lower} x", f"{begin}{high}, {low}{end}"]
    return gold, right, wrong


def sets(members: list[Fraction]) -> Case:
    """A set of at least two members."""
    texts = [frac(member) for member in members]
    gold = f"\\{{{', '.join(texts)}\\}}"
    right = [f"\\{{{', '.join(reversed(texts))}\\}}", ", ".join(texts), "\\text{ and }".join(texts)]
    right += [f"\\left\\{{ {',~'.join(f'{one.numerator}/{one.denominator}' for one in members)} \\right\\}}"]
    wrong = [f"\\{{{', '.join(texts[1:])}\\}}", ", ".join([*texts, frac(max(members) + 1)])]
    wrong += [f"\\{{{', '.join([frac(max(members) + 1), *texts[1:]])}\\}}", texts[0]]
    return gold, right, wrong


small = st.fractions(min_value=-50, max_value=50, max_denominator=40)
proper = small.filter(lambda value: value.denominator > 1)
not_square = st.sampled_from([2, 3, 5, 6, 7, 10, 11, 13, 15, 21, 30])
cases = st.one_of(
    st.builds(integers, st.integers(-10_000_000, 10_000_000)),
    st.builds(fractions, proper, st.integers(2, 9)),
    st.builds(surds, st.integers(1, 40), st.integers(1, 40), not_square),
    st.builds(intervals, small, small.filter(lambda width: width > 0), st.sampled_from("(["), st.sampled_from(")]")),
    st.builds(sets, st.lists(small, min_size=2, max_size=5, unique=True)),
)


def misjudged(case: Case) -> Iterable[tuple[str, str, bool]]:
    gold, right, wrong = case
    yield from ((gold, answer, True) for answer in right if not is_equal(answer, gold))
    yield from ((gold, answer, False) for answer in wrong if is_equal(answer, gold))


def check(num_cases: int, at_least: int) -> None:
    num_pairs = 0

    @settings(max_examples=num_cases, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(cases)
    def run(case: Case) -> None:
        nonlocal num_pairs
        num_pairs += len(case[1]) + len(case[2])
        assert list(misjudged(case)) == []

    run()
    print(f"{num_pairs} pairs, none misjudged")
    assert num_pairs >= at_least


def test_spellings_are_right_and_changes_are_wrong() -> None:
    check(40, at_least=300)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thousands_of_spellings_are_right_and_changes_are_wrong() -> None:
    check(600, at_least=5000)


@pytest.mark.parametrize("make", [integers, fractions, surds, intervals, sets])
def test_a_pair_that_is_misjudged_is_noticed(make: Callable[..., Case]) -> None:
    arguments = {
        integers: (5,),
        fractions: (Fraction(2, 3), 2),
        surds: (1, 2, 3),
        intervals: (Fraction(1), Fraction(2), "(", "]"),
        sets: ([Fraction(1), Fraction(2)],),
    }
    gold, right, wrong = make(*arguments[make])
    assert list(misjudged((gold, wrong, right))) == [
        *((gold, answer, True) for answer in wrong),
        *((gold, answer, False) for answer in right),
    ]
