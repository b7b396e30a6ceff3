# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""How findings are collected and printed, and the command's exit status."""

from __future__ import annotations

import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.ops.doctor import job
from longshort_verl.ops.doctor.findings import Finding, Status, findings_table, isolated, summary_line, verdict

OK, WARNING, FAILURE, NOT_APPLICABLE = Status.OK, Status.WARNING, Status.FAILURE, Status.NOT_APPLICABLE


def test_a_check_that_raises_is_a_finding_and_the_others_go_on():
    def broken():
        raise RuntimeError("the sensor\nfell off")

    def refused():
        raise ValueError("x is 3; set it to 2")

    (found,) = isolated("broken", broken)
    assert (found.status, found.found) == (FAILURE, "could not be checked: RuntimeError: the sensor")
    assert isolated("refused", refused)[0].found == "x is 3; set it to 2"


def test_the_table_fits_a_terminal_and_says_each_status_in_words():
    findings = [Finding(status.value, status, "[bold] " + "word " * 30, "do " * 40) for status in Status]
    console = Console(width=80, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(findings_table(findings))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.findall(r"^\S+", text, flags=re.M) == ["ok", "warning", "failure", "n/a"]
    assert text.count("[bold]") == 4, "what was found is no markup"
    assert text.count("→") == 4


@pytest.mark.parametrize(
    ("given", "line", "worst"),
    [
        ([OK, NOT_APPLICABLE], "no failures", OK),
        ([OK, WARNING], "no failures, 1 warning", WARNING),
        ([FAILURE, WARNING, WARNING], "1 failure, 2 warnings", FAILURE),
    ],
)
def test_the_verdict(given, line, worst):
    findings = [Finding("x", status, "") for status in given]
    assert summary_line(findings) == line
    assert verdict(findings) is worst


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-dir", "recipes/tiny_cpu"], "come together"),
        (["trainer.nnodes=2"], "is a setting of a job"),
        (["--config-dir", "recipes/tiny_cpu", "--config-name", "absent"], "there is no"),
        (["--config-dir", "recipes/tiny_cpu", "--config-name", "rl", "nnodes"], "is not key=value"),
        (["--config-dir", "no/such/folder", "--config-name", "rl"], "does not exist"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(arguments, said, root, monkeypatch):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_json_holds_what_the_table_says(monkeypatch):
    # tests/ops/doctor/test_job.py has the real examination; this is about how its findings are printed.
    findings = [Finding("port 6379", FAILURE, "taken", "ray stop")]
    monkeypatch.setattr(job, "examine", lambda *_: findings)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "verdict": "failure",
        "next": "fix the failures and run this again",
        "findings": [{"name": "port 6379", "status": "failure", "found": "taken", "cure": "ray stop"}],
    }
