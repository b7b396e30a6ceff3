# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.grading.disagreements MATH500.json OUT.jsonl``: where our verdict differs from math-verify's own.

Every gold answer of the file is changed in 20 ways. A change either keeps the value or makes it another by
construction, so that each pair has a known truth. OUT lists every pair on which the two verdicts differ, and every pair
that we misjudge; the table counts both for each change.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from longshort_verl.grading import mathematics
from longshort_verl.grading.compare import equal
from longshort_verl.grading.values import choice, is_choice, read_pair

LIMIT_S = 20
NUM_CHANGES = 20
Change = Callable[[str], str | None]


def _scalar(template: str) -> Change:
    """A change of one number or expression; None for lists, words, relations, units and bases."""
    other = re.compile(r"[,=<>&_%$]|\\(?:text|mbox|in|cup|pm|circ|infty|begin|left)")
    return lambda gold: None if other.search(gold) else template.replace("G", gold)


def _sub(pattern: str, new: str | Callable[[re.Match[str]], str], *, unless: str = r"\\text|\\mbox") -> Change:
    """A change of the first match; None where there is none."""

    def change(gold: str) -> str | None:
        if re.search(unless, gold):
            return None
        changed, count = re.subn(pattern, new, gold, count=1)
        return changed if count else None

    return change


def _number(template: str) -> Change:
    return lambda gold: template.replace("G", gold) if re.fullmatch(r"-?\d+", gold) else None


def _next_digit(match: re.Match[str]) -> str:
    return str(int(match[0]) % 9 + 1)


KEEP: dict[str, Change] = {
    "dollars": lambda gold: f"${gold}$",
    "bold": lambda gold: None if "\\text" in gold else f"\\boldsymbol{{{gold}}}",
    "final full stop": lambda gold: f"{gold}.",
    "blanks": _sub(r"(?<=[-+,=])(?! )", "~", unless=r"\\text|\\mbox|\\!"),
    "large fractions": _sub(r"\\frac(?![a-z])", r"\\dfrac"),
    "large brackets": lambda gold: None if "left" in gold else _sub(r"^\((.*)\)$", r"\\left(\1\\right)")(gold),
    "upright": _number("\\text{G}"),
    "unit": _number("G\\text{ units}"),
    "decimal": _number("G.0"),
    "e-notation": _number("Ge0"),
    "assigned": _number("n = G"),
    "times two over two": _scalar("\\frac{2(G)}{2}"),
    "plus one less one": _scalar("G + 1 - 1"),
    "minus minus": _scalar("-(-(G))"),
    "braces": lambda gold: f"{{{gold}}}",
    "slash": _sub(r"^\\d?frac\{(\d+)\}\{(\d+)\}$", r"\1/\2"),
}
OTHER: dict[str, Change] = {
    "plus one": _scalar("G + 1"),
    "negative": lambda gold: None if gold == "0" else _scalar("-(G)")(gold),
    "doubled": lambda gold: None if gold == "0" else _scalar("2(G)")(gold),
    "plus 1e-20": _scalar("G + 10^{-20}"),
    "million": lambda gold: None if gold == "0" else _number("G\\text{ million}")(gold),
    "first digit": _sub(r"(?<![_\d])\d", _next_digit),
    "last digit": _sub(r"\d(?=\D*$)", _next_digit),
    "other sign": _sub(r"(?<=[\d\w}]) ?\+ ?", " - ", unless=r"\\text|\\mbox|\\pm"),
    "closed": _sub(r"^\((.*,.*)\)$", r"[\1]", unless=r"\\cup"),
    "one more": lambda gold: None if re.search(r"[=<>]|\\begin|\\text", gold) else f"{gold}, 1234567",
    "first dropped": _sub(r"^([^,()]*),\s*", "", unless=r"\\text|\\!|\d,\d{3}(?!\d)"),
    "upside down": lambda gold: _sub(r"^(-?)\\d?frac\{(\d+)\}\{(\d+)\}$", r"\1\\frac{\3}{\2}")(gold),
    "no root": _sub(r"\\sqrt\{?(\d+)\}?", r"\1"),
    "squared": lambda gold: None if gold in ("0", "1") else _scalar("(G)^2")(gold),
    "ellipsis": _number("G\\ldots"),
    "thousandth": _number("G.001"),
    "imaginary": _scalar("G + i"),
    "an unknown more": _scalar("G + q"),
    "tenfold": lambda gold: None if gold == "0" else _number("G0")(gold),
    "words": lambda gold: "\\text{none of these}",
}


def changes(gold: str) -> Iterator[tuple[str, str, bool]]:
    """Up to 20 changed answers: the name of the change, the answer, and whether it is still right."""
    kept = [(name, changed, True) for name, change in KEEP.items() if (changed := change(gold)) is not None]
    other = [(name, changed, False) for name, change in OTHER.items() if (changed := change(gold)) not in (None, gold)]
    num_kept = max(NUM_CHANGES // 2, NUM_CHANGES - len(other))
    yield from kept[:num_kept]
    yield from ((name, str(changed), right) for name, changed, right in other[: NUM_CHANGES - len(kept[:num_kept])])


def ours(answer: str, gold: str) -> bool:
    """Our verdict, in this process."""
    if is_choice(gold):
        return choice(answer) == choice(gold)
    try:
        return equal(*read_pair(answer, gold), mathematics.decide)
    except Exception:  # unreadable, or whatever a library raises: wrong, as in a grading process
        return False


def theirs(answer: str, gold: str) -> bool:
    """math-verify's own verdict with its defaults."""
    from math_verify import parse, verify

    no_limit: dict = {"parsing_timeout": None}
    try:
        parsed = [parse(f"\\boxed{{{text}}}", **no_limit) for text in (gold, answer)]
        return bool(verify(*parsed, timeout_seconds=None))
    except Exception:
        return False


def _late(*_: object) -> None:
    raise TimeoutError


def main(source: Path, out: Path) -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _late)
    rows, total = [], Counter[str]()
    for row in json.loads(source.read_text()):
        for name, answer, right in changes(row["answer"]):
            verdicts = []
            for judge in (ours, theirs):
                signal.alarm(LIMIT_S)
                try:
                    verdicts.append(judge(answer, row["answer"]))
                except TimeoutError:
                    verdicts.append(False)
                signal.alarm(0)
            total["pairs"] += 1
            total["ours wrong"] += verdicts[0] != right
            total["theirs wrong"] += verdicts[1] != right
            if verdicts[0] != verdicts[1] or verdicts[0] != right:
                keys = ("change", "gold", "answer", "right", "ours", "theirs")
                rows.append(dict(zip(keys, (name, row["answer"], answer, right, *verdicts), strict=True)))
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    counts = Counter((row["change"], "ours" if row["ours"] == row["right"] else "math-verify") for row in rows)
    total["disagreements"] = sum(row["ours"] != row["theirs"] for row in rows)
    print(
        json.dumps(
            {**total, **{f"{name}: {who} right": count for (name, who), count in sorted(counts.items())}}, indent=1
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
