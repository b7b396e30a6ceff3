# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a person is shown of a run: table, picture, progress."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.report.curves import Step, comparison_table, plot_curves, read_run, summary_table
from longshort_verl.report.follow import follow_run


def validation(acc: float, tokens: float, source: str = "a/b") -> dict:
    return {
        f"val-core/{source}/acc/mean@1": acc,
        f"val-aux/{source}/format/mean@1": 0.5,
        f"val-aux/{source}/num_tokens/mean@1": tokens,
        f"val-aux/{source}/num_tokens_long/mean@1": tokens - 10,
        f"val-aux/{source}/num_tokens_short/mean@1": 10.0,
        f"val-aux/{source}/num_rethinks/mean@1": 0.25,
        f"val-aux/{source}/reward/mean@1": 2 * acc,
        f"val-aux/{source}/acc_success_only/mean@1": 9.0,
    }


ROWS = [
    {"step": 0, "data": validation(0.5, 60)},
    {"step": 1, "data": {"long/training/rollout_probs_diff_mean": 1e-7}},
    {"step": 2, "data": {"long/training/rollout_probs_diff_mean": 2e-7} | validation(0.75, 40)},
]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def shown(table) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_table_of_first_and_last_validation(log):
    text = shown(summary_table([read_run(log)]))
    rows = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:4]]
        for line in text.splitlines()
        if "│" in line
    }
    assert rows["accuracy"] == ["50.0%", "75.0%"]
    assert rows["reward"] == ["1.000", "1.500"]
    assert rows["tokens, both roles"] == ["60.0", "40.0"]
    assert rows["tokens, long role"] == ["50.0", "30.0"]
    assert rows["rethinks per dialogue"] == ["0.25", "0.25"]
    assert "step 0" in text
    assert "step 2" in text
    assert max(map(len, text.splitlines())) <= 80


def test_table_of_several_seeds(log):
    run = read_run(log)
    other = [Step(step=0, metrics=validation(0.25, 60)), Step(step=2, metrics=validation(1.0, 40))]
    text = shown(summary_table([run, other]))
    assert "37.5% (25.0% to 50.0%)" in text
    assert "87.5% (75.0% to 100.0%)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_systems_side_by_side_at_equal_steps(log):
    def run(*accuracies):
        return [Step(step=10 * i, metrics=validation(acc, 60)) for i, acc in enumerate(accuracies)]

    # The last step that all of them validated is 10; what one of them did later does not count.
    runs = [("frozen", run(0.5, 0.25)), ("frozen", run(0.5, 0.75)), ("joint", run(0.5, 1.0, 0.0))]
    text = shown(comparison_table(runs))
    assert "after 10 steps" in text
    assert "frozen (2)" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert "50.0%" in rows["accuracy"]
    assert "100.0%" in rows["accuracy"]
    assert "(25.0% to 75.0%)" in text
    assert max(map(len, text.splitlines())) <= 80
    with pytest.raises(ValueError, match="no validated step in common"):
        comparison_table([("a", run(0.5)), ("b", [Step(step=5, metrics=validation(0.5, 60))])])


def test_several_sources_are_averaged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 0, "data": validation(0.5, 60) | validation(1.0, 20, "c")}) + "\n")
    step = read_run(path)[0]
    assert (step.validation("acc"), step.validation("num_tokens")) == (0.75, 40)


def test_half_a_line_at_the_end_and_a_resumed_step(log):
    with log.open("a") as file:
        file.write(json.dumps({"step": 2, "data": validation(1.0, 30)}) + '\n{"step": 3, "da')
    run = read_run(log)
    assert [step.step for step in run] == [0, 1, 2]
    assert run[-1].validation("acc") == 1.0


@pytest.mark.parametrize(
    ("text", "message"), [("", "has no step yet"), ("[1]\n{}\n", "line 1, is not a line"), ("nonsense\n\n", "line 1")]
)
def test_logs_that_are_none(tmp_path, text, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(path)


def test_run_without_validation(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(ROWS[1]) + "\n")
    with pytest.raises(ValueError, match="no validation; set trainer.test_freq"):
        summary_table([read_run(path)])


def test_picture(log, tmp_path):
    run = read_run(log)
    plot_curves([("", run)], tmp_path / "one.png", title="one run")
    plot_curves([("a", run), ("a", run), ("b", run)], tmp_path / "three.png", title="three runs")
    for name in ("one", "three"):
        image = Image.open(tmp_path / f"{name}.png").convert("RGB")
        assert image.width > 800
        assert len(image.getcolors(maxcolors=1 << 24)) > 50, "something is drawn"


def test_command(log, tmp_path):
    done = CliRunner().invoke(app, ["report", "rl", str(log), "--out", str(tmp_path / "c.png")])
    assert done.exit_code == 0
    assert "75.0%" in done.output
    assert (tmp_path / "c.png").stat().st_size > 10_000
    folder = tmp_path / "lr=3"
    folder.mkdir()
    copy = folder / "metrics.jsonl"
    copy.write_bytes(log.read_bytes())
    for systems, message in (([f"a={log}", f"b={copy}"], "b (1)"), ([str(copy)], "step 0")):
        done = CliRunner().invoke(app, ["report", "rl", *systems, "--out", str(tmp_path / "e.png")])
        assert done.exit_code == 0, done.output
        assert message in done.output
    missing = CliRunner().invoke(app, ["report", "rl", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "d.png")])
    assert missing.exit_code == 1
    assert "Traceback" not in missing.output


def test_command_problems(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{i}+1", "answer": i + 1}) + "\n" for i in range(20)))
    done = CliRunner().invoke(app, ["problems", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "15 problems in" in done.output
    assert "5 problems in" in done.output
    path.write_text('{"problem": "1+1"}\n')
    refused = CliRunner().invoke(app, ["problems", str(path), "--out", str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert "mine.jsonl" in refused.output


JOB = """
import json, sys, time
log, metrics, last, code = sys.argv[1:]
print("ray init kwargs", flush=True)
print("Total training steps: 2", flush=True)
print("Creating file logger", flush=True)
for row in json.loads(open(metrics + ".rows").read())[: int(last) + 1]:
    time.sleep(0.3)
    open(metrics, "a").write(json.dumps(row) + chr(10))
print("the very last words", flush=True)
sys.exit(int(code))
"""


@pytest.mark.parametrize(("last", "code", "fine"), [(2, 0, True), (1, 1, False)])
def test_following_a_job(tmp_path, capsys, last, code, fine):
    metrics, log = tmp_path / "metrics.jsonl", tmp_path / "run.log"
    (tmp_path / "metrics.jsonl.rows").write_text(json.dumps(ROWS))
    with log.open("wb") as file:
        job = subprocess.Popen([sys.executable, "-c", JOB, str(log), str(metrics), str(last), str(code)], stdout=file)
        assert follow_run(metrics, job.pid, log) is fine
        job.wait()
    output = capsys.readouterr().out
    assert "Ray is starting" in output
    assert "validation at step 0: accuracy 50.0%" in output
    assert ("the very last words" in output) is not fine
    assert ("validation at step 2: accuracy 75.0%" in output) is fine


def test_the_rate_of_a_job_that_goes_on_is_that_of_its_own_steps(tmp_path, capsys):
    rows = [{"step": step, "data": {"loss": 1.0}} for step in (1, 2)]
    (tmp_path / "metrics-20260101T000000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = tmp_path / "run.log"
    log.write_text("Total training steps: 6\n")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"]) as job:
        assert not follow_run(tmp_path, job.pid, log)
    assert re.search(r"training: 2 of 6 done, \d:\d\d so far", capsys.readouterr().out)
    # Its first step comes after the job's own start, of unknown length.
    script = "import sys, time; time.sleep(1); open(sys.argv[1], 'a').write(sys.argv[2]); time.sleep(1)"
    row = json.dumps({"step": 3, "data": {"loss": 1.0}}) + "\n"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "metrics-20260101T000000.jsonl"), row]) as job:
        assert not follow_run(tmp_path, job.pid, log)
    assert re.search(r"training: 3 of 6 done, \d:\d\d so far", capsys.readouterr().out)


def test_a_folder_holds_one_log_per_start_and_the_later_one_counts(tmp_path):
    def log(start, **losses):
        lines = [json.dumps({"step": int(step[1:]), "data": {"loss": loss}}) + "\n" for step, loss in losses.items()]
        (tmp_path / f"metrics-{start}.jsonl").write_text("".join(lines))

    log("20260101T000000", s1=1.0, s2=2.0, s3=3.0)
    with (tmp_path / "metrics-20260101T000000.jsonl").open("a") as file:
        file.write('{"step": 4, "da')  # killed
    log("20260101T010000", s3=30.0, s4=40.0)
    steps = read_run(tmp_path)
    assert [(step.step, step.metrics["loss"]) for step in steps] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]
