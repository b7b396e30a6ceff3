# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Ends a job when one of its processes has died, and a rollout in which no dialogue ends any more.

verl 0.9.1 waits for the rows of a dead agent-loop worker for ever, and so does TransferQueue for a dead storage unit.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import ray
from ray._private import state
from ray.core.generated import common_pb2

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

logger = logging.getLogger(__name__)

POLL_S = 5.0
"""Seconds between two looks at the job's processes."""
GRACE_S = 20.0
"""Seconds for an orderly end after a death; most calls to a dead process fail by themselves."""
_CONTEXT = common_pb2.ActorDiedErrorContext  # pyright: ignore[reportAttributeAccessIssue]: made at run time
_DIED = (_CONTEXT.WORKER_DIED, _CONTEXT.NODE_DIED)


class ProcessDied(RuntimeError):
    """A process of the job has died."""


class RolloutStalled(RuntimeError):
    """No dialogue ended for the longest time that a rollout may take without progress."""


class Watch:
    """Watches Ray's actors of this job from a thread, until :meth:`stop`.

    After a death this process gets ``GRACE_S`` to fail by itself and is ended then: the call in which it waits may
    never return.
    """

    def __init__(self) -> None:
        self._job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
        self._died = ""
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Deaths are of no interest any more."""
        self._stopped.set()

    def check(self) -> None:
        """Raises ProcessDied if a process has died."""
        if self._died:
            raise ProcessDied(self._died)

    def _run(self) -> None:
        while not self._died:
            if self._stopped.wait(POLL_S):
                return
            actors = state.actors(job_id=self._job, actor_state_name="DEAD").values()
            self._died = "; ".join(_describe(actor) for actor in actors if _died(actor))
        logger.error("%s; the job ends", self._died)
        if not self._stopped.wait(GRACE_S):
            os._exit(1)


def _died(actor: dict[str, Any]) -> bool:
    """Whether an actor ended neither by ``ray.kill`` nor because nobody refers to it."""
    cause = actor["DeathCause"]
    return cause.HasField("oom_context") or cause.actor_died_error_context.reason in _DIED


def _describe(actor: dict[str, Any]) -> str:
    """Class, name, process, node and cause."""
    cause = actor["DeathCause"]
    message = cause.oom_context.error_message or cause.actor_died_error_context.error_message
    name = f" {actor['Name']}" if actor["Name"] else ""
    where = f"process {actor['Pid']} on {actor['Address']['IPAddress']}"
    return f"{actor['ActorClassName']}{name} died ({where}): {' '.join(message.split())[:300]}"


class RolloutWait:
    """verl's wait between two looks at the rows of a rollout, with an end where nobody writes them any more."""

    def __init__(self, buffer: ReplayBuffer, watch: Watch, stall_s: float, key: str) -> None:
        """``stall_s``: most seconds without progress, which the setting ``key`` holds."""
        self._buffer, self._watch, self._stall_s, self._key = buffer, watch, stall_s, key
        self._wait = buffer._wait_for_next_poll
        self._state: Any = None
        self._since = 0.0

    def __call__(self, partition_id: str, last_debug_time: float) -> float:
        self._watch.check()
        unfinished = self._buffer.pending_keys[partition_id] | self._buffer.running_keys[partition_id]
        seen, now = (unfinished, len(self._buffer.partitions[partition_id])), time.monotonic()
        if seen != self._state:
            self._state, self._since = seen, now
        elif now - self._since > self._stall_s:
            raise RolloutStalled(
                f"no dialogue ended in {self._stall_s:g} s ({self._key}), and {len(unfinished)} prompts "
                "of the batch are unfinished; see the messages of agent loops and engines before this one, or raise "
                "the limit if a dialogue may take longer"
            )
        return self._wait(partition_id, last_debug_time)
