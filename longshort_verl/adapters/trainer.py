# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The two-policy trainer: ``trainer.v1.trainer_mode=longshort``.

verl's synchronous V1 trainer with a second policy beside its own. ``actor_rollout_ref`` is the long policy and stays
where verl puts it; the short policy is a second worker group in the same placement group with its own vLLM replicas,
built after verl's set-up and never in its place. A step samples dialogues from both engines, scores each role's rows
within their group, and lets every role that learns at this step run verl's own log-prob, advantage and update code
on its own rows, with ``self`` pointed at that role for as long (:meth:`LongShortTrainer._acting_as`).
"""

# verl binds a worker's methods to its group, and awaits its managers' coroutines, when they are called; types cannot
# follow that.
# pyright: reportAttributeAccessIssue=false, reportUnusedCoroutine=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.checkpoint_engine import CheckpointEngineManager
from verl.single_controller.base.decorator import Dispatch, register
from verl.single_controller.ray import RayClassWithInitArgs, RayWorkerGroup, create_colocated_worker_cls
from verl.trainer.ppo.utils import Role as VerlRole
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager

from longshort_verl.adapters.agent_loop import ROW, TwoPolicyClient
from longshort_verl.adapters.preflight import (
    TRAINER_MODE,
    as_sync,
    check_config,
    check_files,
    load_tokenizer,
    role_config,
)
from longshort_verl.metrics import dialogue_metrics, role_metrics
from longshort_verl.rewards import Outcome, Reward, group_rewards
from longshort_verl.types import Role

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

SHORT_GROUP = "short"
"""Name of the short policy's worker group and of its folder in a checkpoint; the long policy's is verl's "actor"."""


class ShortPolicyWorker(ActorRolloutRefWorker):
    """verl's worker for the short policy: the same, except for which engine its weights go to."""

    def __init__(self, *args: Any, first_replica: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._first_replica = first_replica

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """Build actor and reference as verl does, then aim the rollout adapter at the short policy's replicas.

        verl derives the replica from the rank within the worker group, which would be one of the long policy's.
        """
        super().init_model()
        rollout = self.rollout
        self.rollout = type(rollout)(
            config=rollout.config,
            model_config=rollout.model_config,
            device_mesh=rollout.device_mesh,
            replica_rank=self._first_replica + int(os.environ["RANK"]) // _replica_size(rollout.config),
        )


@dataclass(frozen=True)
class _ShiftedWorkers:
    """A worker group as seen by replicas whose ranks begin at ``first_replica``.

    verl's replica r takes ``workers[r * size : (r + 1) * size]``; the leading gaps stand for the long policy's.
    """

    workers: Sequence[Any]
    world_size: int


@dataclass
class Policy:
    """One role's model: who trains it, who serves it, and how it is configured."""

    role: Role
    config: DictConfig
    """The job's config with this role's ``actor_rollout_ref``."""
    tokenizer: Any
    worker_group: RayWorkerGroup
    servers: LLMServerManager
    checkpoints: CheckpointEngineManager
    learns: bool
    """Whether any step of the run updates it."""
    unchecked: bool = field(default=True)
    """Whether its engine still has to be compared with its actor since the last push."""

    @property
    def sleeps(self) -> bool:
        """Whether its engine gives its weights up while the actors train, and needs them pushed back."""
        return bool(self.config.actor_rollout_ref.rollout.free_cache_engine)


@register_trainer(TRAINER_MODE)
class LongShortTrainer(PPOTrainerSync):
    """Trains one of two policies that take turns; the other one is served and stays as it is."""

    def __init__(self, config: DictConfig):
        self.settings = check_config(config, cluster_cpus=ray.cluster_resources().get("CPU", 0))
        as_sync(config)
        super().__init__(config)
        self._policies: dict[Role, Policy] = {}

    # ------------------------------------------------------------------ set-up

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        # verl polls every 2 s, which would be most of a short step.
        buffer.poll_interval = min(buffer.poll_interval, 0.05)
        return buffer

    def _init_dataloader(self) -> None:
        tokenizers = [load_tokenizer(role_config(self.config, role)) for role in Role]
        check_files(self.config, *tokenizers)
        self._short_tokenizer = tokenizers[1]
        super()._init_dataloader()

    def _setup(self) -> None:
        super()._setup()
        self._policies[Role.LONG] = Policy(
            role=Role.LONG,
            config=self.config,
            tokenizer=self.tokenizer,
            worker_group=self.actor_rollout_wg,
            servers=self.llm_server_manager,
            checkpoints=self.checkpoint_manager,
            learns=Role.LONG in self.settings.schedule.trained,
        )
        self._policies[Role.SHORT] = self._build_short_policy()
        self._load_checkpoint()

    def _build_short_policy(self) -> Policy:
        config = OmegaConf.create(OmegaConf.to_container(self.config, resolve=True))
        with open_dict(config):
            config.actor_rollout_ref = role_config(self.config, Role.SHORT)
        pool = self.resource_pool_manager.get_resource_pool(next(iter(self.role_worker_mapping)))
        first_replica = len(self.llm_server_manager.get_replicas())
        role = VerlRole.ActorRolloutRef if self.use_reference_policy else VerlRole.ActorRollout
        worker = RayClassWithInitArgs(
            cls=ray.remote(ShortPolicyWorker),
            config=config.actor_rollout_ref,
            distillation_config=config.get("distillation"),
            role=str(role),
            first_replica=first_replica,
        )
        group = RayWorkerGroup(
            resource_pool=pool,
            ray_cls_with_init=create_colocated_worker_cls({SHORT_GROUP: worker}),
            device_name=config.trainer.device,
        ).spawn(prefix_set={SHORT_GROUP})[SHORT_GROUP]
        group.init_model()
        logger.info("the short policy's actor is ready")
        gaps = [None] * (first_replica * _replica_size(config.actor_rollout_ref.rollout))
        servers = LLMServerManager.create(
            config=config,
            worker_group=_ShiftedWorkers(workers=[*gaps, *group.workers], world_size=group.world_size),
            rollout_resource_pool=pool,
            start_rank=first_replica,
        )
        engine_config = omega_conf_to_dataclass(config.actor_rollout_ref.rollout.checkpoint_engine)
        engine_config.backend = "naive"
        checkpoints = CheckpointEngineManager(config=engine_config, actor_wg=group, replicas=servers.get_replicas())
        checkpoints.sleep_replicas()
        return Policy(
            role=Role.SHORT,
            config=config,
            tokenizer=self._short_tokenizer,
            worker_group=group,
            servers=servers,
            checkpoints=checkpoints,
            learns=Role.SHORT in self.settings.schedule.trained,
        )

    def get_llm_client(self) -> LLMServerClient:
        """The client of both policies, for the agent loops."""
        short = self._policies[Role.SHORT].servers.get_client()
        return self.llm_server_manager.get_client(client_cls=TwoPolicyClient, short=short)

    def _rollout_server_managers(self) -> list:
        return [policy.servers for policy in self._policies.values()]

    # ------------------------------------------------------------------ weights

    def on_init_end(self) -> None:
        """Push both policies' weights, except where the engine serves from disk what never changes."""
        resumed = self.global_steps > 0
        for policy in self._policies.values():
            if policy.learns or policy.sleeps or resumed:
                policy.checkpoints.update_weights(self.global_steps)

    def on_sample_end(self) -> None:
        """Put both engines to sleep; verl's own hook does the long one's."""
        super().on_sample_end()
        self._policies[Role.SHORT].checkpoints.sleep_replicas()

    def on_step_end(self) -> None:
        """Push what was updated at this step, and what sleep dropped."""
        for policy in self._policies.values():
            if policy.learns or policy.sleeps:
                with marked_timer(f"update_weights/{policy.role.value}", self.timing_raw):
                    policy.checkpoints.update_weights(self.global_steps)
                policy.unchecked = True

    # ------------------------------------------------------------------ one step

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        with marked_timer("gen", timing_raw):
            self.on_sample_begin()
            batch, sampling_metrics = self.replay_buffer.sample(
                global_steps=self.global_steps, partition_id="train", batch_size=sample_batch_size
            )
            metrics.update(sampling_metrics)
            self.on_sample_end()
        outcomes = self._score(batch, metrics)
        keys, tags = [], []
        for policy in self._policies.values():
            rows = [key for key, outcome in outcomes.items() if outcome.role is policy.role]
            live = [key for key in rows if outcomes[key].num_tokens > 0]
            inert = [key for key in rows if outcomes[key].num_tokens == 0]
            with self._acting_as(policy):
                trained = self._step_role(policy, batch.select_keys(live), metrics, timing_raw)
            if inert:
                self._write_inert(batch.select_keys(inert))
            keys += [*trained.keys, *inert]
            tags += [*trained.tags, *batch.select_keys(inert).tags]
        return KVBatchMeta(partition_id=batch.partition_id, keys=keys, tags=tags)

    def _score(self, batch: KVBatchMeta, metrics: dict) -> dict[str, Outcome]:
        """Compute each row's reward within its group and write it where verl expects it; outcome by key."""
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "extra_fields", "response_mask"]
        )
        masks = data["response_mask"]
        fields = data.pop("extra_fields").tolist()
        outcomes = {
            key: _outcome(uid, extra)
            for key, uid, extra in zip(batch.keys, data.pop("uid").tolist(), fields, strict=True)
        }
        live = {key: outcome for key, outcome in outcomes.items() if outcome.num_tokens > 0}
        rewards = dict(zip(live, group_rewards(list(live.values()), self.settings.reward), strict=True))
        scores = []
        for key, mask in zip(batch.keys, masks.unbind(), strict=True):
            score = torch.zeros(mask.shape, dtype=torch.float32)
            if key in rewards:
                score[-1] = rewards[key].total
            scores.append(score)
        self._write(batch, {"rm_scores": scores})
        metrics.update(_episode_metrics(outcomes, fields, rewards))
        return outcomes

    def _step_role(self, policy: Policy, batch: KVBatchMeta, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """verl's own stages on one role's rows; ``self`` acts as that role."""
        name = policy.role.value
        own: dict[str, Any] = {}
        if not batch.keys:
            logger.warning("step %s: the %s role wrote no turn in any dialogue", self.global_steps, name)
            return batch
        batch.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        num_live = len(batch)
        if not policy.learns:
            if policy.unchecked:
                batch = self._balance_batch(batch, metrics=own)
                with marked_timer(f"old_log_prob/{name}", timing_raw):
                    batch = self._compute_old_log_prob(batch, metrics=own)
                policy.unchecked = False
            self._write_inert(batch)
        else:
            batch = self._balance_batch(batch, metrics=own)
            with marked_timer(f"old_log_prob/{name}", timing_raw):
                batch = self._compute_old_log_prob(batch, metrics=own)
            if self.use_reference_policy:
                with marked_timer(f"ref/{name}", timing_raw):
                    batch = self._compute_ref_log_prob(batch, metrics=own)
            with marked_timer(f"adv/{name}", timing_raw):
                batch = self._compute_advantage(batch, metrics=own)
            with marked_timer(f"update_actor/{name}", timing_raw):
                batch = self._update_role(batch, num_live, own)
        metrics.update({f"{name}/{key}": value for key, value in own.items()})
        return batch

    def _update_role(self, batch: KVBatchMeta, num_live: int, metrics: dict) -> KVBatchMeta:
        """verl's actor update with a fixed number of optimizer steps, however many rows there are.

        The base class cuts mini-batches of a fixed number of rows, so that the number of optimizer steps would follow
        the number of rows. Losses are normalised by live rows; padding carries no weight.
        """
        actor = self.config.actor_rollout_ref.actor
        steps = self._num_mini_batch()
        num_padding = len(batch) - num_live
        if len(batch) // steps <= num_padding:
            # A mini-batch of nothing but padding has no tokens to average over.
            logger.warning(
                "step %s: %s live rows are too few for %s optimizer steps; no update",
                self.global_steps,
                num_live,
                steps,
            )
            metrics["actor/skipped_update"] = 1.0
            return batch
        batch.extra_info.update(
            {
                "calculate_entropy": actor.calculate_entropy or actor.entropy_coeff != 0.0,
                "distillation_use_topk": False,
                "distillation_only": False,
                "global_batch_size": num_live / steps,
                "num_mini_batch": steps,
                "epochs": actor.ppo_epochs,
                "seed": actor.data_loader_seed,
                "dataloader_kwargs": {"shuffle": actor.shuffle},
                "temperature": self.config.actor_rollout_ref.rollout.temperature,
            }
        )
        output = rename_dict(self.actor_rollout_wg.update_actor(batch)["metrics"], "actor/")
        output["perf/mfu/actor"] = output.pop("actor/mfu")
        metrics.update(reduce_metrics(output))
        metrics["actor/skipped_update"] = 0.0
        return batch

    def _num_mini_batch(self) -> int:
        return self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size * self._num_mini_batch()

    @contextmanager
    def _acting_as(self, policy: Policy) -> Iterator[None]:
        """Point what verl's stages read at one policy: config, tokenizer, worker groups."""
        names = ("config", "tokenizer", "actor_rollout_wg", "ref_policy_wg")
        saved = {name: getattr(self, name) for name in names if hasattr(self, name)}
        try:
            self.config, self.tokenizer = policy.config, policy.tokenizer
            self.actor_rollout_wg = self.ref_policy_wg = policy.worker_group
            yield
        finally:
            for name in names:
                if name in saved:
                    setattr(self, name, saved[name])
                else:
                    delattr(self, name)

    def _write_inert(self, batch: KVBatchMeta) -> None:
        """Give rows that teach nothing the fields that verl's metrics read of every row."""
        masks = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        zeros = [torch.zeros(mask.shape, dtype=torch.float32) for mask in masks["response_mask"].unbind()]
        self._write(batch, {"advantages": zeros, "returns": zeros})

    @staticmethod
    def _write(batch: KVBatchMeta, fields: dict[str, list[torch.Tensor]]) -> None:
        nested = {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in fields.items()}
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(nested, batch_size=len(batch))
        )

    # ------------------------------------------------------------------ checkpoints

    def _save_checkpoint(self) -> None:
        # verl writes the file that names the latest checkpoint last, so the short policy must be on disk before.
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}", SHORT_GROUP)
        self._policies[Role.SHORT].worker_group.save_checkpoint(
            folder, None, self.global_steps, max_ckpt_to_keep=self.config.trainer.get("max_actor_ckpt_to_keep", None)
        )
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        if not self._policies:
            return  # called by verl's set-up, before the short policy exists; ours calls again
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        root = self.config.trainer.resume_from_path
        if self.config.trainer.resume_mode == "auto":
            root = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        self._policies[Role.SHORT].worker_group.load_checkpoint(
            local_path=os.path.join(os.path.abspath(root), SHORT_GROUP),
            del_local_after_load=self.config.trainer.del_local_ckpt_after_load,
        )


def _replica_size(rollout: Any) -> int:
    """Devices of one vLLM replica."""
    return rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size


def _outcome(uid: str, extra: dict[str, Any]) -> Outcome:
    record, info = extra[ROW], extra["reward_extra_info"]
    role = Role(record["role"])
    return Outcome(
        group=uid,
        role=role,
        accuracy=info["acc"],
        format=record[f"format_{role.value}"],
        num_tokens=record[f"num_tokens_{role.value}"],
    )


def _episode_metrics(
    outcomes: dict[str, Outcome], fields: Sequence[dict[str, Any]], rewards: dict[str, Reward]
) -> dict[str, float]:
    """Metrics of the sampled dialogues; each is counted once, by its long row."""
    metrics = dialogue_metrics(
        [
            extra[ROW] | extra["reward_extra_info"]
            for outcome, extra in zip(outcomes.values(), fields, strict=True)
            if outcome.role is Role.LONG
        ]
    )
    for role in Role:
        rows = [key for key, outcome in outcomes.items() if outcome.role is role]
        live = [key for key in rows if key in rewards]
        metrics[f"{role.value}/silent_share"] = 1 - len(live) / len(rows)
        if live:
            metrics.update(role_metrics(role, [outcomes[key] for key in live], [rewards[key] for key in live]))
    return metrics
