# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The two-policy trainer: ``trainer.v1.trainer_mode=longshort``.

verl's synchronous V1 trainer with a second policy (``policies.py``). A step samples dialogues from both engines, scores
each role's rows within their group (``rows.py``), and runs verl's log-prob, advantage and update code on the rows of
every policy that learns at this step, with ``self`` pointed at that policy (:meth:`LongShortTrainer._acting_as`).
"""

# verl binds a worker's methods to its group, and awaits its managers' coroutines, at the call; type checkers cannot
# see that.
# pyright: reportAttributeAccessIssue=false, reportUnusedCoroutine=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.single_controller.ray import RayResourcePool
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils import tensordict_utils
from verl.utils.debug import marked_timer
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.workers.rollout.llm_server import LLMServerClient

from longshort_verl.adapters import compat
from longshort_verl.adapters.finite import check_metrics, check_weights
from longshort_verl.adapters.rl import checkpoints, notice
from longshort_verl.adapters.rl.agent_loop import IN_TRAINING, RECORD, TwoPolicyClient
from longshort_verl.adapters.rl.check import TRAINER_MODE, check_config, check_files
from longshort_verl.adapters.rl.guarded import AT_THE_START, GuardedTrainer
from longshort_verl.adapters.rl.policies import SHORT_GROUP, Policy, build_short_policy
from longshort_verl.adapters.rl.rounds import Rounds
from longshort_verl.adapters.rl.rows import score_rows, token_scores
from longshort_verl.adapters.rl.settings import Placement, Policies, Schedule, load_tokenizer, role_config
from longshort_verl.metrics import alarms, check_engines, validation_mean
from longshort_verl.rewards import Outcome
from longshort_verl.types import Role

logger = logging.getLogger(__name__)

SHORT_POOL = "short_pool"
"""Name of the short policy's resource pool under the placement ``split``."""
ALARM = "longshort alarm:"
"""Beginning of every alarm's line in the log."""
MAX_CHECKED_ROWS = 64
"""Rows on which the engine of a policy that does not learn is compared with its actor after a push. Of a policy that
learns, all rows are compared."""


@register_trainer(TRAINER_MODE)
class LongShortTrainer(GuardedTrainer):
    """Trains two policies that take turns, or one policy that plays both roles."""

    stall_key = "long_short.rollout_stall_s"

    def __init__(self, config: DictConfig):
        compat.log_in_worker()
        self.settings = check_config(config, cluster=ray.cluster_resources())
        in_rounds = self.settings.schedule is Schedule.ROUNDS
        self._rounds = Rounds(self.settings.rounds, config.trainer.default_local_dir) if in_rounds else None
        super().__init__(config)
        self._policies: list[Policy] = []
        self._warned: set[str] = set()
        self._turn_credits: dict[str, torch.Tensor] = {}

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        # verl polls every 2 s, which would be most of a small model's step.
        buffer.poll_interval = min(buffer.poll_interval, 0.05)
        return buffer

    def _init_dataloader(self) -> None:
        tokenizers = [load_tokenizer(role_config(self.config, role)) for role in Role]
        check_files(self.config, *tokenizers)
        self._short_tokenizer = tokenizers[1]
        super()._init_dataloader()
        if self._rounds:
            # The lr schedule is that of a round; verl has set it to all steps.
            with open_dict(self.config):
                self.config.actor_rollout_ref.actor.optim.total_training_steps = self.settings.rounds.steps

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if self.settings.placement is Placement.SPLIT:
            pool = self.settings.short_pool
            self.resource_pool_manager.resource_pool_spec[SHORT_POOL] = [pool.n_gpus_per_node] * pool.nnodes

    def _setup(self) -> None:
        super()._setup()
        shared = self.settings.policies is Policies.SHARED
        first = Policy(
            roles=tuple(Role) if shared else (Role.LONG,),
            config=self.config,
            tokenizer=self.tokenizer,
            worker_group=self.actor_rollout_wg,
            servers=self.llm_server_manager,
            engines=self.checkpoint_manager,
            learns=shared or Role.LONG in self.settings.trained,
        )
        self._policies = [first] if shared else [first, self._short_policy()]
        self._load_checkpoint()
        self._check_weights(AT_THE_START)

    def _short_devices(self) -> RayResourcePool:
        """Devices of the short policy: the trainer's, or its own under ``split``."""
        pools = self.resource_pool_manager
        if self.settings.placement is Placement.SPLIT:
            return pools.resource_pool_dict[SHORT_POOL]
        return pools.get_resource_pool(next(iter(self.role_worker_mapping)))

    def _short_policy(self) -> Policy:
        return build_short_policy(
            self.config,
            tokenizer=self._short_tokenizer,
            pool=self._short_devices(),
            first_replica=len(self.llm_server_manager.get_replicas()),
            learns=Role.SHORT in self.settings.trained,
        )

    def get_llm_client(self) -> LLMServerClient:
        """The agent loops' client of both policies."""
        short = self._policies[-1].servers.get_client()
        return self.llm_server_manager.get_client(client_cls=TwoPolicyClient, short=short)

    def _rollout_server_managers(self) -> list:
        return [policy.servers for policy in self._policies]

    def on_init_end(self) -> None:
        """Push all policies' weights, except to an engine that serves frozen weights from disk."""
        resumed = self.global_steps > 0
        for policy in self._policies:
            if policy.learns or policy.sleeps or resumed:
                policy.push(self.global_steps)
            else:
                policy.call_up_to_date(self.global_steps)

    def on_sample_end(self) -> None:
        """Put all engines to sleep; verl's own hook handles the first policy's."""
        super().on_sample_end()
        for policy in self._policies[1:]:
            policy.engines.sleep_replicas()
        if self._rounds:
            self._rounds.begin(self.global_steps, self._policies)

    def on_step_end(self) -> None:
        """Push the weights that were updated at this step, and those that sleep dropped."""
        if self.settings.save_on_sigterm and notice.given(Path(self._run_folder)):
            if not checkpoints.is_complete(os.path.join(self._run_folder, f"global_step_{self.global_steps}")):
                self._save_checkpoint()
            self.total_training_steps = self.global_steps  # ends verl's loop once the step is logged
        if self._rounds and self.settings.rounds.ends(self.global_steps):
            self._check_weights()
            self._rounds.end(self.global_steps, self._policies)
        for policy in self._policies:
            if policy.updated or policy.sleeps:
                with marked_timer(f"update_weights/{policy.name}", self.timing_raw):
                    policy.push(self.global_steps)
                policy.unchecked, policy.updated = True, False
            else:
                policy.call_up_to_date(self.global_steps)

    def _next_train_batch(self, *args: Any, **kwargs: Any) -> TensorDict:
        batch = super()._next_train_batch(*args, **kwargs)
        tensordict_utils.assign_non_tensor_data(batch, IN_TRAINING, True)
        return batch

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
        for policy in self._policies:
            rows = batch.select_keys([key for key, outcome in outcomes.items() if outcome.role in policy.roles])
            # A selection shares extra_info, the instructions to workers; each policy needs its own.
            rows.extra_info = {}
            with self._acting_as(policy):
                done = self._step_policy(policy, rows, outcomes, metrics, timing_raw)
            keys += done.keys
            tags += done.tags
        self._warn(metrics)
        return KVBatchMeta(partition_id=batch.partition_id, keys=keys, tags=tags)

    def _score(self, batch: KVBatchMeta, metrics: dict) -> dict[str, Outcome]:
        """Score all rows (:mod:`.rows`) and write the scores where verl expects them; the rows' facts by key."""
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "extra_fields", "response_mask"]
        )
        masks = dict(zip(batch.keys, data["response_mask"].unbind(), strict=True))
        scored = score_rows(
            dict(zip(batch.keys, data.pop("uid").tolist(), strict=True)),
            dict(zip(batch.keys, data.pop("extra_fields").tolist(), strict=True)),
            masks,
            self.settings,
            self.global_steps,
        )
        check_engines(scored.failed, f"step {self.global_steps}")
        self._write(batch, {"rm_scores": [token_scores(masks[key], scored.rewards.get(key)) for key in batch.keys]})
        self._turn_credits = scored.turn_credits
        metrics.update(scored.metrics)
        asked = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n * len(Role)
        metrics["dialogue/lost"] = max(0.0, 1 - len(batch.keys) / asked)
        return scored.outcomes

    def _add_turn_credits(self, batch: KVBatchMeta) -> None:
        """Add the turns' credits to verl's advantages, token by token."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
        rows = data["advantages"].unbind()
        added = [row + self._turn_credits[key].to(row) for key, row in zip(batch.keys, rows, strict=True)]
        self._write(batch, {"advantages": added})

    @staticmethod
    def _zero_advantages(batch: KVBatchMeta) -> float:
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
        return fmean(not bool(row.any()) for row in data["advantages"].unbind())

    def _step_policy(
        self, policy: Policy, batch: KVBatchMeta, outcomes: Mapping[str, Outcome], metrics: dict, timing_raw: dict
    ) -> KVBatchMeta:
        """Run verl's stages on the rows of one policy, as which ``self`` acts; all its rows, and padding rows."""
        own: dict[str, Any] = {}
        live = [key for key in batch.keys if outcomes[key].live]
        learning = self.settings.learning(self.global_steps)
        trained = [key for key in live if outcomes[key].role in learning]
        for role in policy.roles:
            if not any(outcomes[key].role is role for key in live):
                logger.warning("step %s: the %s role wrote no turn in any dialogue", self.global_steps, role.value)
        self._write_inert(batch.select_keys([key for key in batch.keys if key not in set(trained)]))
        padding = batch.select_keys([])
        if trained:
            rows = self._balance_batch(batch.select_keys(trained), metrics=own)
            padding = rows.select_keys([key for key in rows.keys if key not in outcomes])
            self._write_inert(padding)
            self._log_probs(policy, rows, own, timing_raw)
            if self.use_reference_policy:
                with marked_timer(f"ref/{policy.name}", timing_raw):
                    rows = self._compute_ref_log_prob(rows, metrics=own)
            with marked_timer(f"adv/{policy.name}", timing_raw):
                for role in policy.roles:
                    of_role = [key for key in trained if outcomes[key].role is role]
                    if of_role:
                        self._compute_advantage(rows.select_keys(of_role), metrics=own)
                        if role is Role.LONG and self._turn_credits:
                            self._add_turn_credits(rows.select_keys(of_role))
                        metrics[f"{role.value}/zero_advantages"] = self._zero_advantages(rows.select_keys(of_role))
            self._check_rows(rows.select_keys(trained), self._where(policy))
            with marked_timer(f"update_actor/{policy.name}", timing_raw):
                policy.updated |= self._update_policy(rows, len(trained), own)
            check_metrics(own, self._where(policy))
        elif policy.unchecked and live:
            rows = self._balance_batch(batch.select_keys(live[:MAX_CHECKED_ROWS]), metrics=own)
            padding = rows.select_keys([key for key in rows.keys if key not in outcomes])
            self._write_inert(padding)
            self._log_probs(policy, rows, own, timing_raw)
            self._check_rows(rows.select_keys([key for key in rows.keys if key in outcomes]), self._where(policy))
        metrics.update({f"{policy.name}/{key}": value for key, value in own.items()})
        return KVBatchMeta(
            partition_id=batch.partition_id, keys=[*batch.keys, *padding.keys], tags=[*batch.tags, *padding.tags]
        )

    def _where(self, policy: Policy) -> str:
        return f"step {self.global_steps}: the {policy.name} policy"

    def _check_weights(self, *cure: str) -> None:
        """End the run at weights that are not finite."""
        for policy in self._policies:
            check_weights(policy.worker_group.first_bad_weight(), self._where(policy), *cure)

    def _log_probs(self, policy: Policy, rows: KVBatchMeta, metrics: dict, timing_raw: dict) -> None:
        """Compute the actor's log-probabilities; verl also compares them with the engine's."""
        rows.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        with marked_timer(f"old_log_prob/{policy.name}", timing_raw):
            self._compute_old_log_prob(rows, metrics=metrics)
        policy.unchecked = False

    def _update_policy(self, batch: KVBatchMeta, num_live: int, metrics: dict) -> bool:
        """Run verl's actor update; whether it ran.

        The base class makes more optimizer steps of more rows; here their number is fixed. Padding has no weight.
        """
        actor = self.config.actor_rollout_ref.actor
        steps = self._num_mini_batch()
        num_padding = len(batch) - num_live
        metrics["actor/skipped_update"] = float(len(batch) // steps <= num_padding)
        if metrics["actor/skipped_update"]:
            # A mini-batch of padding only has no tokens to average over.
            message = "step %s: %s live rows are too few for %s optimizer steps; no update"
            logger.warning(message, self.global_steps, num_live, steps)
            return False
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
        return True

    def _num_mini_batch(self) -> int:
        return self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size * self._num_mini_batch()

    def _warn(self, metrics: dict) -> None:
        """Log the alarms of this step as metrics, and warn once of each."""
        for name, message in alarms(metrics, self.settings.alarms).items():
            metrics[f"alarm/{name}"] = 1.0
            if name not in self._warned:
                self._warned.add(name)
                logger.warning("%s step %s: %s", ALARM, self.global_steps, message)

    @contextmanager
    def _acting_as(self, policy: Policy) -> Iterator[None]:
        """Point the attributes that verl's stages read at one policy: config, tokenizer, worker groups, reference."""
        acting = {
            "config": policy.config,
            "tokenizer": policy.tokenizer,
            "actor_rollout_wg": policy.worker_group,
            "ref_policy_wg": policy.worker_group,
            "use_reference_policy": policy.use_reference_policy,
            "ref_in_actor": policy.ref_in_actor,
            "kl_ctrl_in_reward": policy.kl_controller,
        }
        saved = {name: getattr(self, name) for name in acting if hasattr(self, name)}
        try:
            for name, value in acting.items():
                setattr(self, name, value)
            yield
        finally:
            for name in acting:
                if name in saved:
                    setattr(self, name, saved[name])
                else:
                    delattr(self, name)

    def _write_inert(self, batch: KVBatchMeta) -> None:
        """Write zeros for the fields that verl's metrics read, for rows that are not trained on."""
        if not batch.keys:
            return
        masks = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        zeros = [torch.zeros(mask.shape, dtype=torch.float32) for mask in masks["response_mask"].unbind()]
        self._write(batch, {"advantages": zeros, "returns": zeros})

    @staticmethod
    def _write(batch: KVBatchMeta, fields: dict[str, list[torch.Tensor]]) -> None:
        nested = {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in fields.items()}
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(nested, batch_size=len(batch))
        )

    def _validate(self) -> dict[str, float]:
        # verl decodes all rows with one tokenizer; it reports a session's last row, which is the short role's.
        saved, self.tokenizer = self.tokenizer, _LenientDecoder(self._policies[-1].tokenizer)
        try:
            metrics = super()._validate()
        finally:
            self.tokenizer = saved
        check_engines(validation_mean(metrics, "engine_failed"), f"validation at step {self.global_steps}")
        self._keep_best(metrics)
        return metrics

    def _val_metrics_update(self, data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs):
        records = reward_extra_infos_dict.pop(RECORD, None)
        if self._rounds and records:
            self._rounds.write_validation(self.global_steps, records)
        return super()._val_metrics_update(data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs)

    def _dump_generations(self, inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path):
        """Write one line per validation dialogue, with both roles' turns, instead of one line per row."""
        infos = dict(reward_extra_infos_dict)
        infos.pop(RECORD, None)
        dialogues = infos.pop("dialogue", None)
        if dialogues is None:
            return super()._dump_generations(inputs, outputs, gts, scores, infos, dump_path)
        last = [i for i, key in enumerate(infos["uid"]) if key.endswith(f"_{len(Role) - 1}")]
        return super()._dump_generations(
            [inputs[i] for i in last],
            [dialogues[i] for i in last],
            [gts[i] for i in last],
            [scores[i] for i in last],
            {name: [values[i] for i in last] for name, values in infos.items()},
            dump_path,
        )

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        """Write sampled rows, one folder per role, each decoded by its policy's tokenizer."""
        real = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        for number, role in enumerate(Role):
            policy = next(policy for policy in self._policies if role in policy.roles)
            rows = batch.select_keys([key for key in real if key.endswith(f"_{number}")])
            with self._acting_as(policy):
                super()._log_rollout_data(rows, timing_raw, os.path.join(rollout_data_dir, role.value))

    def _save_checkpoint(self, note: Mapping[str, Any] | None = None) -> None:
        """Save all policies, optimizers and the data position, crash-safe (:mod:`.checkpoints`)."""
        root = self.config.trainer.default_local_dir
        folder = os.path.join(root, f"global_step_{self.global_steps}")
        keep = self.config.trainer.get("max_actor_ckpt_to_keep", None)
        self._check_weights()
        # verl writes the file that names the latest checkpoint last, so the short policy is saved first. verl would
        # delete old checkpoints before the new one is complete, so prune() does that instead.
        with checkpoints.saving(folder), self._with_trainer_keys(max_actor_ckpt_to_keep=None):
            for policy in self._policies[1:]:
                policy.worker_group.save_checkpoint(
                    os.path.join(folder, SHORT_GROUP), None, self.global_steps, max_ckpt_to_keep=None
                )
            super()._save_checkpoint()
            schedule = {"schedule": self.settings.schedule.value, "policies": self.settings.policies.value}
            checkpoints.complete(folder, {"step": self.global_steps, **schedule, **(note or {})}, self._run_folder)
        checkpoints.prune(root, keep)

    def _load_checkpoint(self) -> None:
        if not self._policies:
            return  # verl's set-up calls this before the short policy exists; _setup calls it again
        trainer = self.config.trainer
        if trainer.resume_mode == "auto":
            checkpoints.repair(trainer.default_local_dir, hashes=False)  # the driver has compared them
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        root = os.path.abspath(trainer.resume_from_path or "")
        if trainer.resume_mode == "auto":
            root = os.path.abspath(os.path.join(trainer.default_local_dir, f"global_step_{self.global_steps}"))
        checkpoints.check(root, policies=self.settings.policies.value)
        # With another gen_batch_size a step may take any number of batches.
        if self.config.data.get("gen_batch_size") in (None, self.config.data.train_batch_size):
            checkpoints.restore_loader(self.train_dataloader, os.path.join(root, "data.pt"), self.global_steps)
        for policy in self._policies[1:]:
            policy.worker_group.load_checkpoint(
                local_path=os.path.join(root, SHORT_GROUP), del_local_after_load=trainer.del_local_ckpt_after_load
            )
        if self._rounds:
            self._rounds.resume(self.global_steps, self._policies)

    def _keep_best(self, validation: Mapping[str, float]) -> None:
        """Save the pair, in addition to the last ones, if it is the best so far by ``long_short.best``."""
        best = self.settings.best
        if best.metric is None or self.config.trainer.get("val_only", False):
            return
        value = validation_mean(validation, best.metric)
        if value is None:
            raise KeyError(f"long_short.best.metric is {best.metric!r}, which validation did not report")
        root = os.path.join(self.config.trainer.default_local_dir, "best")
        previous = checkpoints.latest(root)
        if previous is not None:
            old = previous.get("value") if previous.get("metric") == best.metric else None
            if old is not None and (value <= old if best.mode == "max" else value >= old):
                return
        with self._with_trainer_keys(default_local_dir=root, default_hdfs_dir=None, max_actor_ckpt_to_keep=1):
            self._save_checkpoint(note={"metric": best.metric, "value": value})
        logger.info("best pair so far: %s %.4g at step %s, in %s", best.metric, value, self.global_steps, root)

    @contextmanager
    def _with_trainer_keys(self, **values: Any) -> Iterator[None]:
        trainer = self.config.trainer
        saved = {key: trainer.get(key) for key in values}
        with open_dict(trainer):
            trainer.update(values)
        try:
            yield
        finally:
            trainer.update(saved)


class _LenientDecoder:
    """A tokenizer whose ``decode`` skips unknown ids, which come from the other role's tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._size = max(tokenizer.get_vocab().values()) + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode(self, ids: Any, **kwargs: Any) -> str:
        return self._tokenizer.decode([i for i in torch.as_tensor(ids).tolist() if i < self._size], **kwargs)
