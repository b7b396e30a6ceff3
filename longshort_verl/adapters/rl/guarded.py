# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's synchronous trainer, ended by what its runs do not survive, and the single model's trainer.

A run ends at a process that died, at a rollout without progress (``watch.py``), and at a number that is not finite
(``finite.py``).
"""

# verl binds a worker's methods to its group at the call; type checkers cannot see that.
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role as VerlRole
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from longshort_verl.adapters import compat
from longshort_verl.adapters.finite import FIELDS, check_metrics, check_rows, check_weights
from longshort_verl.adapters.metrics_file import name_metrics_file
from longshort_verl.adapters.rl.check import as_sync
from longshort_verl.adapters.rl.policies import PolicyWorker
from longshort_verl.adapters.rl.watch import RolloutWait, Watch

AT_THE_START = "look at the files of its model, or of the checkpoint if this is a resume"


class GuardedTrainer(PPOTrainerSync):
    """verl's synchronous trainer with the watch, and with workers that look at their weights."""

    stall_key: str
    """The setting that limits a rollout without progress, in seconds."""

    def __init__(self, config: DictConfig):
        compat.log_in_worker()
        self._run_folder = config.trainer.default_local_dir
        as_sync(config, PPOTrainerSync)
        self._watch = Watch()
        super().__init__(config)

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        limit = OmegaConf.select(self.config, self.stall_key)
        buffer._wait_for_next_poll = RolloutWait(buffer, self._watch, limit, self.stall_key)
        return buffer

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (VerlRole.ActorRollout, VerlRole.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(PolicyWorker)

    def fit(self, agent_loop_manager: Any) -> None:
        """Train; the metrics file is named here too, because a cluster's processes lack the driver's environment."""
        name_metrics_file(self.config.trainer, Path(self._run_folder))
        try:
            super().fit(agent_loop_manager)
        finally:
            self._watch.stop()

    def _check_rows(self, rows: KVBatchMeta, where: str) -> None:
        """End the run at a reward, log-probability or advantage that is not finite."""
        check_rows(tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=list(FIELDS)), where)


@register_trainer("longshort_single")
class SingleModelTrainer(GuardedTrainer):
    """Trains one model, as verl does."""

    stall_key = "trainer.rollout_stall_s"

    @property
    def _where(self) -> str:
        return f"step {self.global_steps}: the model"

    def _setup(self) -> None:
        super()._setup()
        check_weights(self.actor_rollout_wg.first_bad_weight(), self._where, AT_THE_START)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        live = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        self._check_rows(batch.select_keys(live), self._where)
        batch = super()._update_actor(batch, metrics)
        check_metrics(metrics, self._where)
        return batch

    def _save_checkpoint(self) -> None:
        check_weights(self.actor_rollout_wg.first_bad_weight(), self._where)
        super()._save_checkpoint()
