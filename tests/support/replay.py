# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Rows from a file instead of from an engine, so that two trainers learn from the very same ones.

A job imports this module in every process through ``VERL_USE_EXTERNAL_MODULES``. ``LONGSHORT_TEST_REPLAY`` names the
file: index of a problem → its sessions, each with both roles' rows. With ``LONGSHORT_TEST_REPLAY_ROLE`` the loop yields
that role's row alone, with its reward, as stock verl takes it; without, both, as the two-policy trainer takes them.
``LONGSHORT_TEST_BATCH_MULTIPLE`` makes the two-policy trainer pad every batch to a multiple of it;
``LONGSHORT_TEST_ESTIMATORS``, a list separated by commas, makes its step i use the i-th advantage estimator.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from wrapt import when_imported


@when_imported("longshort_verl.adapters.rl.agent_loop")
def replace_the_loop(module) -> None:
    """Answer to the name of the two-agent loop, which the preflight asks for."""
    from verl.experimental.agent_loop import agent_loop

    agent_loop._agent_loop_registry[module.AGENT_LOOP] = {"_target_": "tests.support.replay.ReplayLoop"}


@when_imported("longshort_verl.adapters.rl.trainer")
def pad_more(module) -> None:
    """Make padding rows where one device and one mini-batch need none."""
    multiple = os.environ.get("LONGSHORT_TEST_BATCH_MULTIPLE")
    if multiple:
        module.LongShortTrainer._get_required_batch_multiple = lambda self, dp_size: int(multiple)


@when_imported("longshort_verl.adapters.rl.trainer")
def take_estimators_in_turn(module) -> None:
    """All estimators in one job."""
    names = os.environ.get("LONGSHORT_TEST_ESTIMATORS", "").split(",")
    step_policy = module.LongShortTrainer._step_policy

    def with_estimator(self, policy, *args, **kwargs):
        if names != [""]:
            policy.config.algorithm.adv_estimator = names[self.global_steps - 1]
        return step_policy(self, policy, *args, **kwargs)

    module.LongShortTrainer._step_policy = with_estimator


class ReplayLoop:
    """An agent loop as verl builds it, without a server."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._sessions = json.loads(Path(os.environ["LONGSHORT_TEST_REPLAY"]).read_text())
        self._role = os.environ.get("LONGSHORT_TEST_REPLAY_ROLE")

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any):
        """One session's rows."""
        index = str(int(kwargs["index"]))
        session = self._sessions[index][kwargs["session_id"]]
        step = int(kwargs["global_steps"])
        if self._role:
            return [self._row(session, self._role, index, step, reward=session["reward"][self._role])]
        return [self._row(session, role, index, step) for role in ("long", "short")]

    @staticmethod
    def _row(session: dict, role: str, index: str, step: int, reward: float | None = None):
        from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

        row = session[role]
        return AgentLoopOutput(
            prompt_ids=row["prompt"],
            response_ids=row["response"],
            response_mask=row["mask"],
            response_logprobs=[0.0] * len(row["response"]),
            num_turns=2,
            metrics=AgentLoopMetrics(),
            reward_score=reward,
            extra_fields={
                "min_global_steps": step - 1,
                "max_global_steps": step - 1,
                "reward_extra_info": {},
                "long_short": {**session["record"], "role": role, "problem": index, "finished_at": time.time()},
            },
        )
