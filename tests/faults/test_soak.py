# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Long runs: memory and open files of all processes stay flat after the warm-up; the slopes are printed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean, linear_regression

import httpx
import psutil
import pytest

from tests.serving.test_serve_job import served
from tests.support.jobs import nightly_job, start_job

STEPS, REQUESTS = 200, 20_000
MIB = 1 << 20


@dataclass
class Gauge:
    """Memory (USS, in MiB) and open files of processes, by name, over the progress of a run."""

    seen: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))

    def read(self, progress: float, processes: Iterable[psutil.Process]) -> None:
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for process in processes:
            with suppress(psutil.Error):
                memory, files = process.memory_full_info().uss / MIB, process.num_fds()
                for name in (process.name().split("::")[-1].split(".")[0], "all"):
                    sums[name][0] += memory
                    sums[name][1] += files
        for name, (memory, files) in sums.items():
            self.seen[name].append((progress, memory, files))

    def growth(self, start: float, end: float) -> dict[str, tuple[float, float, float]]:
        """By name: mean memory after ``start``, and what memory and files grow by from ``start`` to ``end``."""
        found = {}
        print(json.dumps(self.seen))
        for name, rows in sorted(self.seen.items()):
            late = [row for row in rows if row[0] >= start]
            if len({row[0] for row in late}) < 10:
                continue  # a process that came and went
            progress, memory, files = zip(*late, strict=True)
            slopes = [linear_regression(progress, values).slope * (end - start) for values in (memory, files)]
            found[name] = (fmean(memory), *slopes)
            print(
                f"{name:24} {found[name][0]:6.0f} MiB {slopes[0]:+7.1f} MiB {slopes[1]:+5.1f} files, {len(late)} times"
            )
        return found


def assert_flat(growth: dict[str, tuple[float, float, float]]) -> None:
    memory, grown, files = growth["all"]
    assert grown < 0.03 * memory
    assert files < 5


@nightly_job
@pytest.mark.timeout(5400)
def test_a_job_of_200_steps_stays_flat(tmp_path):
    import make_problems

    make_problems.main(tmp_path / "problems", num_train=400, num_val=8, min_steps=2, max_steps=6, seed=11)
    job = start_job(
        tmp_path / "run",
        "data.train_batch_size=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "long_short.schedule=joint",
        f"data.train_files={tmp_path}/problems/train.parquet",
        f"data.val_files={tmp_path}/problems/val.parquet",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        "trainer.test_freq=40",
        "trainer.save_freq=20",
        "trainer.max_actor_ckpt_to_keep=1",
        # Ray's gcs_server keeps the last 100,000 tasks for its dashboard, and grows until there are so many.
        environment={"RAY_task_events_max_num_task_in_gcs": "2000"},
    )
    gauge = Gauge()
    # Not at the end: pages that ended processes shared would count as grown.
    while job.process.poll() is None and (step := max(job.steps(), default=0)) < STEPS - 1:
        gauge.read(step, job.members())
        time.sleep(3)
    job.process.wait(timeout=300)
    assert job.process.returncode == 0, job.log[-4000:]
    assert max(job.steps()) == STEPS
    assert_flat(gauge.growth(60, STEPS))


@nightly_job
@pytest.mark.timeout(5400)
def test_an_endpoint_stays_flat_over_20_000_requests(tmp_path):
    with served(tmp_path) as (url, running, _log):
        gauge, statuses, stops = Gauge(), Counter[int](), Counter[str]()
        server = psutil.Process(running.pid)

        async def client(number: int, todo: list[int]) -> None:
            numbers = random.Random(number)
            async with httpx.AsyncClient(base_url=url, timeout=300) as http:
                while todo:
                    todo.pop()
                    # Now and then a request that is refused, and one whose client leaves.
                    kind, *given = numbers.randrange(20), *(numbers.randrange(10) for _ in range(3))
                    messages = [{"role": "user", "content": "{}+{}*{}".format(*given)}] if kind else "none"
                    request = http.post("/v1/chat/completions", json={"model": "longshort", "messages": messages})
                    try:
                        reply = await asyncio.wait_for(request, 0.05 if kind == 1 else 300)
                        statuses[reply.status_code] += 1
                        if reply.status_code == 200:
                            stops[reply.json()["choices"][0]["longshort"]["stop_reason"]] += 1
                    except asyncio.TimeoutError:
                        statuses[0] += 1

        async def all_clients() -> None:
            todo = list(range(REQUESTS))

            async def read() -> None:
                while todo:
                    processes = [server, *server.children(recursive=True)]
                    await asyncio.to_thread(gauge.read, REQUESTS - len(todo), processes)
                    await asyncio.sleep(5)

            await asyncio.gather(read(), *(client(number, todo) for number in range(32)))

        asyncio.run(all_clients())
        print(statuses, stops)
        assert sum(statuses.values()) == REQUESTS
        assert set(statuses) <= {0, 200, 400, 422}
        assert statuses[200] > 0.85 * REQUESTS
        assert stops["answered"] > 0.5 * statuses[200]
        assert_flat(gauge.growth(4_000, REQUESTS))
