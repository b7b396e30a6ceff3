# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Progress where the output is no terminal: lines with what is done, of how many, the rate and the time left."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.progress import Task, TaskID

from longshort_verl.report.progress import EVERY_S, open_progress, progress_line
from tests.support.configs import ROOT
from tests.support.servers import completion, servers


def lines_of(work, every_s, **console):
    """What ``work`` with the progress leaves on a console, line by line."""
    stream = io.StringIO()
    with open_progress(Console(file=stream, width=200, **console), every_s) as progress:
        work(progress)
    return stream.getvalue().splitlines()


def test_a_line_at_least_every_30_seconds():
    assert EVERY_S <= 30


def test_lines_come_also_while_nothing_is_done():
    def work(progress):
        advance = progress.bar("pair", 4)
        time.sleep(0.25)
        for _ in range(4):
            advance()

    lines = lines_of(work, 0.1)
    assert lines == ["pair: 0 of 4 done, 0:00 so far"] * 2 + ["pair: 4 of 4 done in 0:00"]


def test_the_first_unfinished_bar_is_described():
    def work(progress):
        first, second = progress.bar("solo", 1), progress.bar("pair", 2)
        time.sleep(0.15)
        first()
        second()
        time.sleep(0.1)
        second()

    lines = lines_of(work, 0.1)
    assert lines[0].startswith("solo: 0 of 1 done")
    assert re.fullmatch(r"pair: 1 of 2 done, \d+\.\d/s, 0:00 left", lines[1])
    assert lines[-1].startswith("pair: 2 of 2 done in ")


def test_a_terminal_shows_bars_and_no_lines():
    def work(progress):
        progress.bar("pair", 1)()

    shown = "\n".join(lines_of(work, 0.01, force_terminal=True))
    assert "━" in shown
    assert "1/1" in shown
    assert "done" not in shown


@pytest.mark.parametrize(
    ("completed", "elapsed", "line"),
    [
        (120, 60, "pair: 120 of 500 done, 2.0/s, 3:10 left"),
        (1, 120, "pair: 1 of 500 done, 0.5/min, 16:38:00 left"),
        (0, 95, "pair: 0 of 500 done, 1:35 so far"),
        (500, 3661, "pair: 500 of 500 done in 1:01:01"),
    ],
)
def test_lines_by_hand(completed, elapsed, line):
    clock = iter([0.0, *[float(elapsed)] * 9])
    task = Task(TaskID(0), "pair", 500, completed, _get_time=lambda: next(clock))
    task.start_time = task.get_time()
    if completed == 500:
        task.finished_time = float(elapsed)
    assert progress_line(task) == line


def test_a_jobs_start_and_what_an_earlier_one_had_done_have_no_share_in_the_rate():
    task = Task(TaskID(0), "training", 6, 2, _get_time=lambda: 480.0, fields={"begun": (2, 480.0)})
    task.start_time = 0.0
    assert progress_line(task) == "training: 2 of 6 done, 8:00 so far"
    task.completed, task._get_time = 3, lambda: 660.0
    assert progress_line(task) == "training: 3 of 6 done, 0.3/min, 9:00 left"


def test_an_unknown_total_is_the_time_so_far():
    task = Task(TaskID(0), "starting", None, 0, _get_time=lambda: 75.0)
    task.start_time = 0.0
    assert progress_line(task) == "starting: 1:15 so far"


def test_a_command_without_a_terminal_ends_with_what_is_done(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{i}+1", "answer": i + 1}) + "\n" for i in range(3)))
    with servers() as serve:
        url = serve(completion("\\boxed{2}")).url
        settings = ["solo.path=tiny", "solo.engine=endpoint", f"solo.endpoint.base_urls=[{url}]"]
        command = ["evaluate", str(path), *settings, "--out", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-m", "longshort_verl.cli", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^solo: 3 of 3 done in \d+:\d\d$", done.stderr, re.MULTILINE)


def test_lines_reach_the_output_while_an_engine_starts():
    script = (
        "import time; from longshort_verl.report.progress import open_progress\n"
        "from longshort_verl.generation.engine_log import _output_to; import tempfile\n"
        "handle, _ = tempfile.mkstemp()\n"
        "with open_progress(every_s=0.1) as progress:\n"
        "    progress.bar('solo', 5)\n"
        "    with _output_to(handle):\n"
        "        time.sleep(0.35)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["solo: 0 of 5 done, 0:00 so far"] * 4
