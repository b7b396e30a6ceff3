# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Fuzzing by coverage of what reads a model's text, beside Hypothesis's examples: ``make fuzz`` runs it.

``python -m tests.faults.fuzz parser [-max_total_time=<seconds>] [libFuzzer's other flags]``; or chunker, completion.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["longshort_verl"]):
    from tests.faults import test_hostile_output as tests
    from tests.faults.hostile import CASES

PIECES = sorted({*tests.PROTOCOL_TAGS, *tests.CONTROL_TOKENS, *tests._PIECES, *CASES.values()})


def parser(text: str) -> None:
    tests.check_parser(text)
    tests.check_dialogue(text)


TARGETS = {"parser": parser, "chunker": tests.check_chunker, "completion": tests.check_completion}


def main() -> None:
    check = TARGETS[sys.argv.pop(1)]

    def one_input(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        parts = []
        while source.remaining_bytes():
            kind = source.ConsumeIntInRange(0, 3)
            parts.append(source.PickValueInList(PIECES) if kind else source.ConsumeUnicodeNoSurrogates(8))
        check("".join(parts))

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
