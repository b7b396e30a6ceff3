# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Real jobs for tests: verl's own main in a session of its own, and a check for processes that outlive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "LONGSHORT_TEST_JOB"
"""In the environment of all processes of a job: its folder."""
HALF_A_STEP = ("data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8")
"""Overrides of recipes/tiny_cpu for a step of 64 dialogues in place of 128."""
SHORT_CHAINS = ("data.max_response_length=128",)
"""Override of recipes/tiny_cpu's ``single`` for a step of seconds: most chains are cut off."""
_started: list[Job] = []


def nightly_job(test):
    """Mark a test of a real job that takes minutes and the machine to itself, and that a change rarely breaks."""
    for mark in (pytest.mark.job, pytest.mark.alone, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(3000)):
        test = mark(test)
    return test


@dataclass
class Job:
    """One run of ``python -m verl.trainer.main_ppo``."""

    folder: Path
    process: subprocess.Popen

    @property
    def log(self) -> str:
        """Its output so far."""
        return (self.folder / "run.log").read_text(errors="replace")

    def steps(self) -> dict[int, dict]:
        """Logged metrics by step, of all starts in its folder; of a step that was made twice, the later one."""
        logs = sorted(self.folder.glob("metrics*.jsonl"), key=lambda log: log.stem)
        rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return {row["step"]: row["data"] for row in rows}

    def wait_for(self, text: str, timeout: float) -> None:
        """Wait until the job has printed ``text``."""
        end = time.monotonic() + timeout
        while text not in self.log:
            assert self.process.poll() is None, f"the job ended before {text!r}:\n{self.log[-4000:]}"
            assert time.monotonic() < end, f"no {text!r} within {timeout:.0f} s:\n{self.log[-4000:]}"
            time.sleep(0.5)

    def wait_for_step(self, step: int, timeout: float) -> None:
        """Wait until a step is logged."""
        end = time.monotonic() + timeout
        while step not in self.steps():
            assert self.process.poll() is None, f"the job ended before step {step}:\n{self.log[-4000:]}"
            assert time.monotonic() < end, f"no step {step} within {timeout:.0f} s:\n{self.log[-4000:]}"
            time.sleep(0.5)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def leftovers(self, within: float) -> list[str]:
        """Processes of the job that are still alive after ``within`` seconds, whoever their parent is now."""
        end = time.monotonic() + within
        while (found := self._processes()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def members(self) -> list[psutil.Process]:
        """Processes of the job that are alive, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                # Ray and vLLM rewrite their command lines; the environment they inherited stays.
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self.members():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=30)

    def _processes(self) -> list[str]:
        found = []
        for process in self.members():
            try:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
            except psutil.Error:
                continue
        return found


def end_jobs() -> None:
    """End what failed tests left running."""
    while _started:
        _started.pop().end()


def start_job(
    folder: Path,
    *overrides: str,
    environment: dict[str, str] | None = None,
    recipe: str = "recipes/tiny_cpu",
    name: str = "rl",
    platform: str = "cpu",
    cwd: Path = ROOT,
) -> Job:
    """Start a job that writes everything into ``folder``; ``environment`` is added to this process's.

    The config is ``name`` of the folder ``recipe`` in ``cwd``, and ``platform`` is verl's; "" leaves that to verl.

    Two jobs may not fit into the memory, so a job that a failed test left running is ended first.
    """
    end_jobs()
    folder.mkdir(parents=True, exist_ok=True)
    # A shell that runs the tests in the background makes their child processes ignore SIGINT; restore the default.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "verl.trainer.main_ppo"]
    command += ["--config-dir", recipe, "--config-name", name]
    command += [f"trainer.default_local_dir={folder}", f"hydra.run.dir={folder}/hydra", *overrides]
    environment = {
        **os.environ,
        **(environment or {}),
        "VERL_PLATFORM": platform,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
        MARK: str(folder),
    }
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    _started.append(Job(folder=folder, process=process))
    return _started[-1]
