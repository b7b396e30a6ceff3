# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Units of measurement, as words of an answer name them, by pint."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from functools import cache
from typing import Any

_ALIASES = {
    **{"hrs": "hour", "mins": "minute", "secs": "second", "yrs": "year", "yr": "year", "lbs": "pound", "cc": "cm**3"},
    **{"kph": "km/hour", "kmph": "km/hour", "kmh": "km/hour", "kmhr": "km/hour", "ft.": "foot", "in.": "inch"},
    **{"cents": "money_cent", "cent": "money_cent", "dollars": "dollar", "usd": "dollar", "bucks": "dollar"},
    **{"euros": "euro", "celsius": "degC", "fahrenheit": "degF", "metric": "", "metres": "meter", "degrees": "degree"},
}
_NO_UNITS = frozenset({"am", "pm", "men", "as", "at", "is", "pin", "pas", "mas", "gas"})
"""Words that pint reads as a unit with a prefix, such as attometres."""


class OtherDimensionError(ValueError):
    """Two units measure different things, such as a length and a mass."""


@cache
def registry() -> Any:
    """pint's units, with exact fractions and money. Takes a second."""
    placeholder = "numpy" not in sys.modules
    if placeholder:
        sys.modules["numpy"] = None  # type: ignore[assignment]  # pint would import it, for arrays of quantities
    try:
        import pint
    finally:
        if placeholder:
            del sys.modules["numpy"]
    fraction: Any = Fraction  # annotated as a float; documented with Decimal and Fraction
    units = pint.UnitRegistry(non_int_type=fraction, autoconvert_offset_to_baseunit=True)
    units.define("dollar = [money]")
    units.define("money_cent = dollar / 100")
    units.define("euro = [money_in_euros]")
    return units


@cache
def unit(words: str) -> Any:
    """pint's unit of words such as ``km/h``, ``square centimeters`` or ``degree C``; None if they name none."""
    text = words.strip().replace("\\", "")
    text = re.sub(r"\bdegrees? ?(?:C\b|celsius)", "degC", text, flags=re.IGNORECASE)
    text = re.sub(r"\bdegrees? ?(?:F\b|fahrenheit)", "degF", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:square|sq\.?) +([a-z]+)", r"\1^2", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:cubic|cu\.?) +([a-z]+)", r"\1^3", text, flags=re.IGNORECASE)
    text = re.sub(r"([a-z]+) squared\b", r"\1^2", text, flags=re.IGNORECASE)
    text = re.sub(r"([a-z]+) cubed\b", r"\1^3", text, flags=re.IGNORECASE)
    text = re.sub(r" +(?:per|an?|each) +", "/", text)
    names = re.sub(r"[A-Za-z.]+", lambda match: _name(match[0]), text)
    names = re.sub(r"(?<=[A-Za-z0-9]) *[ -] *(?=[A-Za-z])", "*", names.replace("^", "**"))
    if not re.fullmatch(r"[A-Za-z_]+[A-Za-z_0-9*/ -]*", names) or len(names) > 60:
        return None
    try:
        return registry().parse_units(names)
    except Exception:  # pint raises a dozen kinds, some of Python's own tokenizer, on words that are no units
        return None


def _name(word: str) -> str:
    if word.casefold() in _NO_UNITS:
        return "no_unit"
    alias = _ALIASES.get(word.casefold())
    if alias is not None:
        return alias
    return word if len(word) <= 3 or word not in {word.title(), word.upper()} else word.lower()


@cache
def convert(words: str, into: str) -> tuple[Fraction, Fraction] | None:
    """Factor and offset that take numbers of one unit to another: y = factor · x + offset.

    None if either is no unit.

    Raises:
        OtherDimensionError: they measure different things.
    """
    source, target = unit(words), unit(into)
    if source is None or target is None:
        return None
    if source == target:
        return Fraction(1), Fraction(0)
    quantity = registry().Quantity
    try:
        zero = quantity(Fraction(0), source).to(target).magnitude
        one = quantity(Fraction(1), source).to(target).magnitude
    except Exception as error:  # pint's errors of dimension and of offset
        raise OtherDimensionError(f"{words} and {into}") from error
    return Fraction(one) - Fraction(zero), Fraction(zero)
