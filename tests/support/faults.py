# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Faults for real jobs: a job imports this module in every process through ``VERL_USE_EXTERNAL_MODULES``."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
from wrapt import when_imported


@when_imported("longshort_verl.adapters.rl.trainer")
def leave_out_a_push(module) -> None:
    """``LONGSHORT_TEST_NO_PUSH=<policy>@<step>``: what that policy learns at that step does not reach its engine."""
    trainer = module.LongShortTrainer
    on_step_end = trainer.on_step_end

    def without_one_push(self) -> None:
        for policy in self._policies:
            if f"{policy.name}@{self.global_steps}" == os.environ.get("LONGSHORT_TEST_NO_PUSH"):
                policy.updated, policy.unchecked = False, True
        on_step_end(self)

    trainer.on_step_end = without_one_push


@when_imported("longshort_verl.adapters.rl.trainer")
def kill_an_engine_before_its_push(module) -> None:
    """``LONGSHORT_TEST_KILL_ENGINE=<step>``: all engines' processes die after the updates of that step."""
    trainer = module.LongShortTrainer
    on_step_end = trainer.on_step_end

    def without_engines(self) -> None:
        if str(self.global_steps) == os.environ.get("LONGSHORT_TEST_KILL_ENGINE"):
            mark = os.environ["LONGSHORT_TEST_JOB"]
            for process in psutil.process_iter():
                try:
                    if "EngineCore" in process.name() and process.environ().get("LONGSHORT_TEST_JOB") == mark:
                        process.kill()
                except psutil.NoSuchProcess:
                    continue
        on_step_end(self)

    trainer.on_step_end = without_engines


PHASES = {
    "validation": "_validate",
    "rollout": "on_sample_begin",
    "update": "_update_policy",
    "save": "_save_checkpoint",
    "push": "on_step_end",
}
"""Method of the trainer that begins with the phase."""
SENT = "signal_sent"
"""File in the job's folder with the time at which the signal was sent."""


@when_imported("longshort_verl.adapters.rl.trainer")
def signal_a_process(module) -> None:
    """``LONGSHORT_TEST_SIGNAL=<class of Ray actors, or EngineCore>@<phase>@<step>[@<signal>]``: one such process gets
    SIGKILL, or another signal, shortly after the phase began."""
    asked = os.environ.get("LONGSHORT_TEST_SIGNAL")
    if asked is None:
        return
    kind, phase, step, *name = asked.split("@")
    number = getattr(signal, *name or ["SIGKILL"])
    sent: list[int] = []

    def send() -> None:
        pid = _process_of(kind)
        Path(os.environ["LONGSHORT_TEST_JOB"], SENT).write_text(str(time.time()))
        os.kill(pid, number)

    def with_a_signal(method):
        def run(self, *args, **kwargs):
            if str(self.global_steps) == step and not sent:
                sent.append(1)
                threading.Thread(target=send, daemon=True).start()
            return method(self, *args, **kwargs)

        return run

    for trainer in module.GuardedTrainer.__subclasses__():
        if method := getattr(trainer, PHASES[phase], None):
            setattr(trainer, PHASES[phase], with_a_signal(method))


def _process_of(kind: str) -> int:
    """A process of this job, of those with the kind in the name of their class or in their own, the last."""
    end = time.monotonic() + 120
    while not (pids := _processes_of(kind)) and time.monotonic() < end:
        time.sleep(0.2)
    return max(pids)


def _processes_of(kind: str) -> list[int]:
    import ray
    from ray._private import state

    assert ray.is_initialized()
    pids = [
        actor["Pid"] for actor in state.actors(actor_state_name="ALIVE").values() if kind in actor["ActorClassName"]
    ]
    mark = os.environ["LONGSHORT_TEST_JOB"]
    for process in () if pids else psutil.process_iter():
        try:
            if kind in process.name() and process.environ().get("LONGSHORT_TEST_JOB") == mark:
                pids.append(process.pid)
        except psutil.Error:
            continue
    return pids


def jump_with_the_clock() -> None:
    """``LONGSHORT_TEST_CLOCK=<file>``: the wall clock of every Python process of the job is off by its seconds."""
    file = os.environ.get("LONGSHORT_TEST_CLOCK")
    if file is None:
        return
    now, now_ns, read = time.time, time.time_ns, [0.0, 0.0]

    def jump() -> float:
        if time.monotonic() - read[0] > 0.2:
            read[:] = time.monotonic(), float(Path(file).read_text())
        return read[1]

    time.time = lambda: now() + jump()
    time.time_ns = lambda: now_ns() + int(jump() * 1e9)


jump_with_the_clock()


@when_imported("longshort_verl.adapters.rl.trainer")
def write_nan(module) -> None:
    """``LONGSHORT_TEST_NAN=<field>@<step>``: one token's value of that field of the transfer queue is NaN."""
    asked = os.environ.get("LONGSHORT_TEST_NAN")
    if asked is None:
        return
    import torch
    import transfer_queue as tq
    from tensordict import TensorDict

    field, step = asked.split("@")
    trainer = module.GuardedTrainer
    check_rows = trainer._check_rows

    def with_nan(self, rows, where) -> None:
        if str(self.global_steps) == step:
            of = {"keys": rows.keys, "partition_id": rows.partition_id}
            values = list(tq.kv_batch_get(**of, select_fields=[field])[field].unbind())
            values[0] = torch.full_like(values[0], float("nan"))
            nested = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            tq.kv_batch_put(**of, fields=TensorDict({field: nested}, batch_size=len(values)))
        check_rows(self, rows, where)

    trainer._check_rows = with_nan


@when_imported("longshort_verl.adapters.rl.trainer")
def push_to_the_wrong_engine(module) -> None:
    """``LONGSHORT_TEST_WRONG_ENGINE``: the short policy pushes to the long policy's engine, not to its own."""
    if os.environ.get("LONGSHORT_TEST_WRONG_ENGINE") is None:
        return
    from longshort_verl.adapters.rl import policies

    worker = policies.RayClassWithInitArgs

    def of_the_first_replica(**arguments):
        names = {"first_replica", "first_replica_rank"} & arguments.keys()
        return worker(**arguments | dict.fromkeys(names, 0))

    policies.RayClassWithInitArgs = of_the_first_replica
