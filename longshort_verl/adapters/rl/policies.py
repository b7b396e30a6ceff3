# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The trainer's policies, and the construction of the short one.

The short policy is a second worker group with vLLM replicas of its own, built after verl's set-up. Its replicas are
numbered after the long policy's.
"""

# verl binds a worker's methods to its group, and awaits its managers' coroutines, at the call; type checkers cannot
# see that.
# pyright: reportAttributeAccessIssue=false, reportUnusedCoroutine=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.checkpoint_engine import CheckpointEngineManager
from verl.single_controller.base.decorator import Dispatch, register
from verl.single_controller.ray import (
    RayClassWithInitArgs,
    RayResourcePool,
    RayWorkerGroup,
    create_colocated_worker_cls,
)
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import Role as VerlRole
from verl.trainer.ppo.utils import need_reference_policy
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.rollout.llm_server import LLMServerManager
from verl.workers.rollout.replica import RolloutReplica

from longshort_verl.adapters.finite import first_bad_weight
from longshort_verl.adapters.rl.settings import Placement, Policies, has_lora, role_config
from longshort_verl.adapters.server_client import HEALTH_TIMEOUT_S, engine_error
from longshort_verl.metrics import EnginesFailed
from longshort_verl.types import Role

logger = logging.getLogger(__name__)

SHORT_GROUP = "short"
"""Name of the short policy's worker group and of its folder in a checkpoint; the long policy's is verl's "actor"."""


PARTS = {Role.LONG: "actor", Role.SHORT: SHORT_GROUP}
"""Folder of each role's policy in a checkpoint."""


class PolicyWorker(ActorRolloutRefWorker):
    """verl's worker with what a round of ``long_short.rounds`` needs, for its FSDP engine."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_model(self, folder: str) -> None:
        """Save the actor's parameters as verl's checkpoint does, without those of the optimizer."""
        manager = self.actor.engine.checkpoint_manager
        saved, manager.checkpoint_save_contents = manager.checkpoint_save_contents, ["model"]
        try:
            self.actor.save_checkpoint(folder)
        finally:
            manager.checkpoint_save_contents = saved

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def first_bad_weight(self) -> str:
        """Name of the actor's first parameter with NaN or infinity in this worker's share; "" if none has."""
        return first_bad_weight(self.actor.engine.module)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_reference(self, folder: str) -> None:
        """Load the reference's parameters from what :meth:`save_model` wrote."""
        self.ref.engine.checkpoint_manager.checkpoint_load_contents = ["model"]
        self.ref.load_checkpoint(folder)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def reset_optimizer(self) -> None:
        """Build the actor's optimizer and lr schedule anew; verl's engine has built them in the same way."""
        engine = self.actor.engine
        engine.optimizer = engine._build_optimizer(engine.module)
        engine.lr_scheduler = engine._build_lr_scheduler(engine.optimizer)
        engine.checkpoint_manager.optimizer = engine.optimizer
        engine.checkpoint_manager.lr_scheduler = engine.lr_scheduler


class ShortPolicyWorker(PolicyWorker):
    """:class:`PolicyWorker`, except that its weights go to the short policy's engines.

    Remove when verl numbers the replicas of a second worker group itself: see :func:`_numbered_by_verl`.
    """

    def __init__(self, *args: Any, first_replica: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._first_replica = first_replica

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """Build as verl does, then point the rollout adapter at the short policy's replicas instead of the long's."""
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
    """A worker group for replicas whose ranks begin at ``first_replica``.

    verl's replica r uses ``workers[r * size : (r + 1) * size]``; gaps replace the long policy's workers.
    """

    workers: Sequence[Any]
    world_size: int


@dataclass
class Policy:
    """One model: its roles, config, actor and engines."""

    roles: tuple[Role, ...]
    config: DictConfig
    """The job's config with this policy's ``actor_rollout_ref``."""
    tokenizer: Any
    worker_group: RayWorkerGroup
    servers: LLMServerManager
    engines: CheckpointEngineManager
    learns: bool
    """Whether any step of the run updates it."""
    unchecked: bool = True
    """Whether its engine has not been compared with its actor since the last push."""
    updated: bool = False
    """Whether its actor was updated since the last push."""

    def __post_init__(self) -> None:
        algorithm = self.config.algorithm
        self.use_reference_policy = need_reference_policy(self.config)
        self.kl_controller = core_algos.get_kl_controller(algorithm.kl_ctrl) if algorithm.use_kl_in_reward else None

    @property
    def name(self) -> str:
        """Prefix of its metrics."""
        return self.roles[0].value if len(self.roles) == 1 else Policies.SHARED.value

    @property
    def ref_in_actor(self) -> bool:
        """Whether the reference is the actor without its LoRA adapter."""
        return has_lora(self.config.actor_rollout_ref)

    @property
    def sleeps(self) -> bool:
        """Whether its engine drops its weights while the actors train, and needs them pushed again."""
        return bool(self.config.actor_rollout_ref.rollout.free_cache_engine)

    def push(self, step: int) -> None:
        """Push the actor's weights to the engines, as verl's ``CheckpointEngineManager.update_weights`` does.

        verl waits for ever for a dead engine's answer, so engines are checked before the push and during a long one.
        Raises EnginesFailed if one is dead.
        """
        self._check_health(step)
        pending = self.worker_group.update_weights(global_steps=step, mode="naive")
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=HEALTH_TIMEOUT_S)
            ray.get(done)
            if pending:
                self._check_health(step)

    def call_up_to_date(self, step: int) -> None:
        """Tell the engines that they hold the weights of ``step``, for the rows' versions; without a push."""
        servers = [server for replica in self.servers.get_replicas() for server in replica.servers]
        ray.get([server.set_global_steps.remote(step) for server in servers])

    def _check_health(self, step: int) -> None:
        error = engine_error(self.servers.get_replicas())
        if error is not None:
            raise EnginesFailed(
                f"step {step}: an engine of the {self.name} policy is dead and cannot receive its weights; for the "
                "cause see the messages of vLLMHttpServer before this one"
            ) from error


def short_config(job: DictConfig) -> DictConfig:
    """The short policy's config: the job's, with its own ``actor_rollout_ref``, and its own nodes under ``split``."""
    config = OmegaConf.create(OmegaConf.to_container(job, resolve=True))
    assert isinstance(config, DictConfig)
    with open_dict(config):
        config.actor_rollout_ref = role_config(job, Role.SHORT)
        if job.long_short.placement == Placement.SPLIT.value:
            # Workers of a replica per node; verl would read the trainer's number.
            config.actor_rollout_ref.rollout.n_gpus_per_node = job.long_short.short_pool.n_gpus_per_node
    return config


def build_short_policy(
    job: DictConfig, *, tokenizer: Any, pool: RayResourcePool, first_replica: int, learns: bool
) -> Policy:
    """Start the short policy's actor and its engines; the engines sleep.

    ``first_replica`` is the number of its first vLLM replica: how many the long policy has.
    """
    config = short_config(job)
    own_reference = need_reference_policy(config) and not has_lora(config.actor_rollout_ref)
    role = VerlRole.ActorRolloutRef if own_reference else VerlRole.ActorRollout
    numbered = _numbered_by_verl()
    worker = RayClassWithInitArgs(
        cls=ray.remote(PolicyWorker if numbered else ShortPolicyWorker),
        config=config.actor_rollout_ref,
        distillation_config=config.get("distillation"),
        role=str(role),
        **{"first_replica_rank" if numbered else "first_replica": first_replica},
    )
    group = RayWorkerGroup(
        resource_pool=pool,
        ray_cls_with_init=create_colocated_worker_cls({SHORT_GROUP: worker}),
        device_name=config.trainer.device,
    ).spawn(prefix_set={SHORT_GROUP})[SHORT_GROUP]
    group.init_model()
    logger.info("the short policy's actor is ready")
    gaps = [None] * (first_replica * _replica_size(config.actor_rollout_ref.rollout))
    shifted = _ShiftedWorkers(workers=[*gaps, *group.workers], world_size=group.world_size)
    servers = LLMServerManager.create(
        config=config,
        worker_group=group if numbered else shifted,
        rollout_resource_pool=pool,
        start_rank=first_replica,
    )
    engine_config = omega_conf_to_dataclass(config.actor_rollout_ref.rollout.checkpoint_engine)
    engine_config.backend = "naive"
    engines = CheckpointEngineManager(config=engine_config, actor_wg=group, replicas=servers.get_replicas())
    engines.sleep_replicas()
    return Policy(
        roles=(Role.SHORT,),
        config=config,
        tokenizer=tokenizer,
        worker_group=group,
        servers=servers,
        engines=engines,
        learns=learns,
    )


def _numbered_by_verl() -> bool:
    """Whether verl numbers a second worker group's replicas after the first group's (patch 0006).

    The patch has two halves: which workers a replica uses, and to which replica a worker pushes its weights.
    """
    supported = {
        "first_replica_rank" in inspect.signature(function).parameters
        for function in (RolloutReplica.init_hybrid, ActorRolloutRefWorker.__init__)
    }
    if len(supported) > 1:
        raise RuntimeError("verl has half of patch 0006: weights would reach a wrong engine")
    return supported.pop()


def _replica_size(rollout: Any) -> int:
    """Devices of one vLLM replica."""
    return rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
