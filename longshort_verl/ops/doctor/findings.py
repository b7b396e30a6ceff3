# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a check of ``longshort doctor`` reports, and how all reports are printed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from rich.console import Console
from rich.markup import escape
from rich.table import Table

GIB = 2**30
_ONE_LINE = 300


class Status(str, Enum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    NOT_APPLICABLE = "n/a"


@dataclass(frozen=True)
class Finding:
    """Report of one check."""

    name: str
    status: Status
    found: str
    """The value, and what is wrong with it."""
    cure: str = ""
    """What to do; "" where nothing is to do or ``found`` holds it."""


def ok(name: str, found: str) -> Finding:
    """A check that passed."""
    return Finding(name, Status.OK, found)


def warning(name: str, found: str, cure: str) -> Finding:
    """A job may run, but worse or not everywhere."""
    return Finding(name, Status.WARNING, found, cure)


def failure(name: str, found: str, cure: str = "") -> Finding:
    """A job cannot run."""
    return Finding(name, Status.FAILURE, found, cure)


def not_applicable(name: str, found: str) -> Finding:
    """A check that has nothing to look at here."""
    return Finding(name, Status.NOT_APPLICABLE, found)


def isolated(name: str, check: Callable[[], Finding | Iterable[Finding]]) -> list[Finding]:
    """The findings of a check; an exception becomes a failure, so that the other checks still run."""
    try:
        found = check()
        return [found] if isinstance(found, Finding) else list(found)
    except ValueError as error:  # our own refusals hold the cure
        return [failure(name, one_line(error))]
    except Exception as error:  # a broken machine may raise anything
        return [failure(name, f"could not be checked: {type(error).__name__}: {one_line(error)}")]


def one_line(error: BaseException | str) -> str:
    """The first line of a message that has text, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else repr(error)
    return line if len(line) <= _ONE_LINE else f"{line[: _ONE_LINE - 1]}…"


def gib(num_bytes: float) -> str:
    """Bytes as GiB, with the unit."""
    return f"{num_bytes / GIB:.1f} GiB"


# ------------------------------------------------------------------------------------------ printing

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red", Status.NOT_APPLICABLE: "dim"}


def verdict(findings: Sequence[Finding]) -> Status:
    """The worst of all; OK where there is neither failure nor warning."""
    statuses = {finding.status for finding in findings}
    return next((status for status in (Status.FAILURE, Status.WARNING) if status in statuses), Status.OK)


def print_findings(findings: Sequence[Finding], next_step: str, *, as_json: bool) -> None:
    """Print JSON, or a table with a summary and the next command."""
    console = Console()
    if as_json:
        rows = [{**dataclasses.asdict(finding), "status": finding.status.value} for finding in findings]
        text = {"verdict": verdict(findings).value, "next": next_step, "findings": rows}
        text = json.dumps(text, indent=2, ensure_ascii=False)
    else:
        console.print(findings_table(findings))
        text = f"\n{summary_line(findings)}\nnext: {next_step}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def findings_table(findings: Sequence[Finding]) -> Table:
    """All findings, with each cure below its finding."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=16)
    table.add_column(overflow="fold")
    for finding in findings:
        style = _STYLES[finding.status]
        table.add_row(f"[{style}]{finding.status.value}[/]", escape(finding.name), escape(finding.found))
        if finding.cure:
            table.add_row("", "", f"[{style}]→[/] {escape(finding.cure)}")
    return table


def summary_line(findings: Sequence[Finding]) -> str:
    """Numbers of failures and warnings in words."""
    counts = [sum(finding.status is status for finding in findings) for status in (Status.FAILURE, Status.WARNING)]
    words = [
        f"{count} {word}{'' if count == 1 else 's'}" for count, word in zip(counts, ("failure", "warning"), strict=True)
    ]
    return ", ".join(words) if counts[0] else f"no failures, {words[1]}" if counts[1] else "no failures"
