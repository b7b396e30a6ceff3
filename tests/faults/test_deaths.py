# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A process of a job dies, in any phase: the job ends within a minute, non-zero, and says who died."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from tests.support.faults import SENT
from tests.support.jobs import HALF_A_STEP, SHORT_CHAINS, nightly_job, start_job

WITHIN_S = 60.0

CLUSTER = """
import os, signal, sys, time
import ray
from longshort_verl.adapters.rl import watch

watch.POLL_S, watch.GRACE_S = 0.5, 2.0

@ray.remote(num_cpus=0)
class Helper:
    def pid(self):
        return os.getpid()

@ray.remote(num_cpus=0)
class Runner:
    def run(self, kill):
        watch.POLL_S, watch.GRACE_S = 0.5, 2.0
        seen = watch.Watch()
        victim, living, ended, forgotten = [Helper.options(name=n).remote() for n in ("v", "l", "e", "f")]
        pids = ray.get([helper.pid.remote() for helper in (victim, living, ended, forgotten)])
        ray.kill(ended)
        del forgotten
        time.sleep(3)
        seen.check()
        print("NOBODY DIED", flush=True)
        if kill:
            os.kill(pids[0], signal.SIGKILL)
            print("KILLED", pids[0], flush=True)
            time.sleep(3600)  # as a call that never returns
        seen.stop()

ray.init(num_cpus=2, include_dashboard=False)
ray.get(Runner.remote().run.remote(sys.argv[1] == "kill"))
"""


@pytest.mark.job
@pytest.mark.timeout(300)
def test_a_process_that_waits_for_ever_is_ended_and_the_dead_one_is_named():
    run = [sys.executable, "-c", CLUSTER]
    done = subprocess.run([*run, "spare"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "NOBODY DIED" in done.stdout) == (0, True), done.stdout + done.stderr
    done = subprocess.run([*run, "kill"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    (pid,) = re.findall(r"KILLED (\d+)", done.stdout)
    assert re.search(rf"Helper v died \(process {pid} on [\d.]+\): .*; the job ends", done.stdout + done.stderr)


def repeat(call, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        call()


def test_a_rollout_without_progress_ends():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    from longshort_verl.adapters.rl.watch import RolloutStalled, RolloutWait

    buffer = ReplayBuffer("sync", {}, None, "drop", {}, poll_interval=0.01)
    wait = RolloutWait(buffer, SimpleNamespace(check=lambda: None), stall_s=0.3, key="the.key")
    buffer.running_keys["train"] = {"a", "b"}
    partition = buffer.partitions["train"]

    def one_more_row():
        partition[str(len(partition))] = {}
        wait("train", 0.0)

    repeat(one_more_row, seconds=0.6)  # a row now and then is progress
    with pytest.raises(
        RolloutStalled, match=r"no dialogue ended in 0.3 s \(the.key\), and 2 prompts of the batch are unf"
    ):
        repeat(lambda: wait("train", 0.0), seconds=10)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    import make_problems

    folder = tmp_path_factory.mktemp("problems")
    make_problems.main(folder, num_train=64, num_val=8, min_steps=2, max_steps=6, seed=11)
    return folder


def ended_by(tmp_path, problems, fault, *overrides, name="rl"):
    """A job, in which a process gets a signal; its log. With ``rl`` both roles learn."""
    job = start_job(
        tmp_path,
        *HALF_A_STEP,
        *(["long_short.schedule=joint"] if name == "rl" else []),
        f"data.train_files={problems}/train.parquet",
        f"data.val_files={problems}/val.parquet",
        "trainer.total_training_steps=100",
        f"trainer.val_before_train={'validation' in fault}",
        "trainer.test_freq=-1",
        "trainer.save_freq=1",
        *overrides,
        name=name,
        environment={"VERL_USE_EXTERNAL_MODULES": "tests.support.faults", "LONGSHORT_TEST_SIGNAL": fault},
    )
    status = job.process.wait(timeout=1200)
    took = time.time() - float((tmp_path / SENT).read_text())
    assert status != 0, job.log[-6000:]
    assert took < WITHIN_S, f"{took:.0f} s:\n{job.log[-6000:]}"
    assert job.leftovers(within=30) == []
    print(f"{fault}: status {status} after {took:.0f} s")
    return job.log


@pytest.mark.job
@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_a_job_without_its_agent_loop_worker_ends(tmp_path, problems):
    log = ended_by(tmp_path, problems, "AgentLoopWorkerTQ@rollout@1")
    assert re.search(r"ProcessDied: AgentLoopWorkerTQ\S*( \S+)? died \(process \d+ on [\d.]+\)", log)


DEATHS = [
    ("AgentLoopWorkerTQ", "validation", 0),
    ("AgentLoopWorkerTQ", "update", 1),
    ("RewardLoopWorker", "rollout", 1),
    ("RewardLoopWorker", "save", 1),
    ("WorkerDict", "rollout", 1),
    ("WorkerDict", "update", 1),
    ("WorkerDict", "save", 1),
    ("vLLMHttpServer", "rollout", 1),
    ("vLLMHttpServer", "push", 1),
    ("LoadBalancer", "rollout", 1),
    ("TransferQueueController", "rollout", 1),
    ("TransferQueueController", "update", 1),
    ("SimpleStorageUnit", "rollout", 1),
    ("SimpleStorageUnit", "update", 1),
    ("TaskRunner", "update", 1),
]


@nightly_job
@pytest.mark.parametrize(("kind", "phase", "step"), DEATHS)
def test_a_job_without_one_of_its_processes_ends(tmp_path, problems, kind, phase, step):
    log = ended_by(tmp_path, problems, f"{kind}@{phase}@{step}")
    assert re.search(rf"{kind}\S*( \S+)? died \(process \d+ on|class_name: \S*{kind}", log), log[-6000:]


@nightly_job
def test_a_job_without_its_engine_ends(tmp_path, problems):
    log = ended_by(tmp_path, problems, "EngineCore@rollout@1")
    assert "an engine failed in" in log or "EngineDeadError" in log


@nightly_job
def test_a_job_whose_agent_loop_worker_hangs_ends(tmp_path, problems):
    log = ended_by(tmp_path, problems, "AgentLoopWorkerTQ@rollout@1@SIGSTOP", "long_short.rollout_stall_s=15")
    assert "RolloutStalled: no dialogue ended in 15 s (long_short.rollout_stall_s), and 8 prompts of" in log


@nightly_job
def test_a_single_models_job_without_its_agent_loop_worker_ends(tmp_path, problems):
    log = ended_by(tmp_path, problems, "AgentLoopWorkerTQ@rollout@1", *SHORT_CHAINS, name="single")
    assert re.search(r"ProcessDied: AgentLoopWorkerTQ\S*( \S+)? died \(process \d+ on [\d.]+\)", log)
