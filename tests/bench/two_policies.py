# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Measures the cost of a second policy: joint steps, role switches, waiting and memory, all in one job.

The rows come from a file (tests/support/replay.py) and are the same at every step: steps differ only in the roles that
learn. The steps include no generation; with generation, every ratio to a step is smaller.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import psutil

from longshort_verl.report.progress import open_progress
from tests.bench.plan import CYCLE, CYCLES, STEPS
from tests.bench.results import Result, result
from tests.support.jobs import Job, start_job
from tests.support.replay_rows import write_rows

COMMAND = "make bench"
PROMPTS, SAMPLES = 16, 8


def run() -> list[Result]:
    """Run the job and compute the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, prompts=PROMPTS, samples=SAMPLES)
        job = start_job(
            folder / "job",
            f"data.train_files={folder}/train.parquet",
            f"data.val_files={folder}/val.parquet",
            f"trainer.total_training_steps={STEPS}",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
            environment={
                "VERL_USE_EXTERNAL_MODULES": "tests.support.replay,tests.bench.cycle",
                "LONGSHORT_TEST_REPLAY": f"{folder}/rows.json",
                "LONGSHORT_BENCH_READY": f"{folder}/ready",
            },
        )
        try:
            memory = _follow(job)
        finally:
            if job.process.poll() is None:
                job.interrupt()
                job.process.wait()
        if job.process.returncode:
            raise RuntimeError(f"the benchmark's job failed:\n{job.log[-4000:]}")
        return [*ratios(job.steps()), *memory]


def ratios(steps: Mapping[int, Mapping[str, float]]) -> list[Result]:
    """Per cycle, from its steps: long, long, short, short, long, both, both."""
    joint, switch, wait = [], [], []
    for cycle in range(1, CYCLES):
        first = cycle * len(CYCLE) + 1
        times = [steps[first + i]["timing_s/step"] for i in range(len(CYCLE))]
        joint.append(times[6] / (times[1] + times[3]))
        switch += [(times[2] - times[3]) / times[3], (times[4] - times[1]) / times[1]]
        for i in range(len(CYCLE)):
            wait.append(steps[first + i]["bench/waited_s"] / times[i])
    polls = range(len(CYCLE) * CYCLES + 1, STEPS + 1)
    ours = [steps[step] for step in polls if step % 2]
    verls = [steps[step] for step in polls if step % 2 == 0]
    slower = [b["timing_s/step"] / a["timing_s/step"] for a, b in zip(ours, verls, strict=True)]
    return [
        result("joint step over the sum of two single-role steps", joint, at_most=1.1, command=COMMAND),
        result("cost of a role switch over one step", switch, at_most=1.0, command=COMMAND),
        result("share of a step spent waiting for the replay buffer", wait, at_most=0.05, command=COMMAND),
        result("step with verl's 2 s poll over a step with ours", slower, command=COMMAND),
    ]


def _follow(job: Job) -> list[Result]:
    """Wait for the end; peak of each process's proportional set size, which counts shared pages once."""
    peaks: dict[int, float] = defaultdict(float)
    names: dict[int, str] = {}
    with open_progress() as progress:
        bar = progress.add_task("two policies", total=STEPS)
        while job.process.poll() is None:
            for process in job.members():
                try:
                    names[process.pid] = _name(process)
                    peaks[process.pid] = max(peaks[process.pid], process.memory_full_info().pss / 2**30)
                except psutil.Error:
                    continue
            progress.update(bar, completed=max(job.steps(), default=0))
            try:
                job.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue
    by_name: dict[str, list[float]] = defaultdict(list)
    for pid, peak in peaks.items():
        by_name[names[pid]].append(peak)
    return [
        result(f"peak memory of {name} ({len(values)}), GiB", values, command=COMMAND)
        for name, values in sorted(by_name.items(), key=lambda item: -max(item[1]))
        if max(values) > 0.1
    ]


def _name(process: psutil.Process) -> str:
    title = " ".join(process.cmdline()) or process.name()
    if title.startswith(("ray::", "VLLM::")):
        return title.split(".")[0].split(" ")[0]
    return "the driver" if "verl.trainer.main_ppo" in title else Path(title.split(" ")[0]).name
