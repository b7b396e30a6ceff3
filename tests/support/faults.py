# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Faults for real jobs: a job imports this module in every process through ``VERL_USE_EXTERNAL_MODULES``."""

from __future__ import annotations

import os

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
