# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort evaluate`` with real vLLM: killed and resumed, and graded again, it says what it says undisturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.problems.write import write_problems
from longshort_verl.types import Problem
from tests.support.configs import ROOT
from tests.support.engines import engine_environment

pytestmark = [pytest.mark.job, pytest.mark.alone, pytest.mark.timeout(900)]

TINY = ROOT / "recipes" / "tiny_cpu"
SETTINGS = [
    f"solo.path={TINY / 'models' / 'solo'}",
    f"long.path={TINY / 'models' / 'long'}",
    f"short.path={TINY / 'models' / 'short'}",
    "sampling.samples=2",
    "sampling.solo_max_tokens=400",
    "max_requests=16",
]


def start(problems, out, *more):
    command = [sys.executable, "-m", "longshort_verl.cli", "evaluate", problems, "--out", out]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "VLLM_LOGGING_LEVEL": "WARNING"}
    return subprocess.Popen(
        [*map(str, command), "--recipe", str(TINY / "evaluate.yaml"), *SETTINGS, *more],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(running):
    shown, _ = running.communicate(timeout=600)
    assert running.returncode == 0, shown[-3000:]
    return shown


def toy_problems(number):
    return [
        Problem(prompt=f"{i % 10}+{i // 10}*2", answer=str((i % 10 + i // 10) * 2 % 10), source="toy", index=i)
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Sixty problems, evaluated without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    path = write_problems(toy_problems(60), folder / "toy.parquet", split="test")
    with engine_environment():
        finish(start(path, folder / "out"))
    return folder / "out"


@pytest.mark.slow
@pytest.mark.nightly
def test_killed_and_resumed_and_graded_again(whole, tmp_path):
    path, broken = whole.parent / "toy.parquet", tmp_path / "broken"
    with engine_environment():
        # Once in the middle of each system.
        for system in ("solo", "pair"):
            running = start(path, broken)
            journal = broken / f"{system}.journal"
            while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
                assert running.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
            children = psutil.Process(running.pid).children(recursive=True)
            assert any("EngineCore" in child.name() for child in children)
            running.kill()
            _, orphans = psutil.wait_procs(children, timeout=60)
            assert orphans == [], "every process ends with the command"
            running.communicate()
            assert not (broken / f"{system}.jsonl").exists()
            assert 19 <= journal.read_bytes().count(b"\n") - 1 < 120
        finish(start(path, broken))
        # All is there: nothing is asked again.
        before = (broken / "pair.journal").read_bytes()
        finish(start(path, broken, "max_requests=8"))
        assert (broken / "pair.journal").read_bytes() == before
    for system in ("solo", "pair"):
        rows, resumed = (
            [json.loads(line) for line in (folder / f"{system}.jsonl").read_text().splitlines()]
            for folder in (whole, broken)
        )
        assert len(rows) == 120
        assert [(row["index"], row["sample"]) for row in rows] == [(i, k) for k in range(2) for i in range(60)]
        assert resumed == rows
        # Two samples of a problem are not the same sample twice.
        texts = {(row["index"], row["sample"]): json.dumps(row.get("turns", row.get("text"))) for row in rows}
        assert sum(texts[i, 0] != texts[i, 1] for i in range(60)) > 20
    results = [json.loads((folder / "results.json").read_text())["systems"] for folder in (whole, broken)]
    assert results[0] == results[1]
    assert 0 < results[0]["solo"]["accuracy"] < 1
    done = CliRunner().invoke(app, ["score", str(whole), "--out", str(tmp_path / "scored")])
    assert done.exit_code == 0, done.output
    assert "now right and was wrong: 0; now wrong and was right: 0" in done.output
    for name in ("pair.jsonl", "solo.jsonl"):
        assert (tmp_path / "scored" / name).read_text() == (whole / name).read_text()
    assert json.loads((tmp_path / "scored" / "results.json").read_text())["systems"] == results[0]


@pytest.mark.slow
@pytest.mark.nightly
def test_verls_rollout_servers_play_both_roles(whole, tmp_path):
    """Two models on one Ray cluster: their servers may not share a name, or one would answer for the other."""
    path = write_problems(toy_problems(10), tmp_path / "toy.parquet", split="test")
    with engine_environment():
        finish(start(path, tmp_path / "ray", "solo.path=null", "long.engine=ray", "short.engine=ray"))
    ours, theirs = (
        {(row["index"], row["sample"]): row["turns"] for row in map(json.loads, path.read_text().splitlines())}
        for path in (whole / "pair.jsonl", tmp_path / "ray" / "pair.jsonl")
    )
    assert len(theirs) == 20
    assert sum(ours[key] == turns for key, turns in theirs.items()) >= 18, "the same seeds, the same models"
