# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in a command: one line with what is kept, and a second run that continues."""

from __future__ import annotations

import signal
import subprocess
import sys

COMMAND = """
import asyncio
from pathlib import Path
import typer
from longshort_verl.cli.common import user_errors
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import Artefact

async def work(journal):
    for number in range(len(journal), len(journal) + 3):
        journal.add(str(number), {})
    print("ready", flush=True)
    await asyncio.sleep(60)

def main(out: Path) -> None:
    with user_errors(out), Artefact(out, config={"seed": 1}), Journal(out / "journal.jsonl", {}) as journal:
        asyncio.run(work(journal))

typer.run(main)
"""


def test_ctrl_c_prints_one_line_and_loses_nothing(tmp_path):
    for kept in (3, 6):
        # A shell that runs the tests in the background makes their child processes ignore SIGINT.
        command = ["env", "--default-signal=INT", sys.executable, "-c", COMMAND, str(tmp_path / "out")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate()
        resumes = f"{kept} records of {tmp_path}/out are kept, and the same command resumes from them"
        assert (process.returncode, shown) == (130, f"longshort: interrupted; {resumes}\n")
