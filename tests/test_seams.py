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
"""Every name of verl, TransferQueue and vLLM that we rely on, and the parameters that we pass or override.

A failure here says what moved upstream before a job fails in some worker. Names that only tests use are not listed.
"""

from __future__ import annotations

import importlib
import inspect

import pytest

SIGNATURES = {
    # the trainer: what we override or call
    "verl.trainer.ppo.v1.trainer_base.register_trainer": ["name"],
    "verl.trainer.ppo.v1.trainer_base.get_trainer_cls": ["name"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.__init__": ["self", "config"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._setup": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._init_dataloader": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._build_replay_buffer": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._load_checkpoint": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._next_train_batch": ["self", "num_prompts"],
    "verl.utils.tensordict_utils.assign_non_tensor_data": ["tensor_dict", "key", "val"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._save_checkpoint": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._step_once": [
        "self",
        "metrics",
        "timing_raw",
        "sample_batch_size",
    ],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._get_required_batch_multiple": ["self", "dp_size"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._rollout_server_managers": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._compute_old_log_prob": ["self", "batch", "metrics"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._compute_ref_log_prob": ["self", "batch", "metrics"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._compute_advantage": ["self", "batch", "metrics"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._balance_batch": [
        "self",
        "batch",
        "metrics",
        "logging_prefix",
        "keep_minibatch",
    ],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.get_llm_client": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.on_init_end": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.on_sample_begin": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.on_sample_end": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.on_step_end": ["self"],
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.sample": ["self", "global_steps", "partition_id", "batch_size"],
    # workers, engines and weights
    "verl.workers.engine_workers.ActorRolloutRefWorker.__init__": [
        "self",
        "config",
        "role",
        "distillation_config",
        ...,
    ],
    "verl.workers.engine_workers.ActorRolloutRefWorker.init_model": ["self"],
    "verl.workers.engine_workers.ActorRolloutRefWorker.update_actor": ["self", "data"],
    "verl.workers.engine_workers.ActorRolloutRefWorker.save_checkpoint": [
        "self",
        "local_path",
        "hdfs_path",
        "global_step",
        "max_ckpt_to_keep",
    ],
    "verl.workers.engine_workers.ActorRolloutRefWorker.load_checkpoint": [
        "self",
        "local_path",
        "hdfs_path",
        "del_local_after_load",
    ],
    "verl.workers.rollout.vllm_rollout.vllm_rollout.ServerAdapter.__init__": [
        "self",
        "config",
        "model_config",
        "device_mesh",
        "replica_rank",
    ],
    "verl.workers.rollout.replica.RolloutReplica.init_hybrid": ["self", "worker_group"],
    "verl.workers.rollout.llm_server.LLMServerManager.create": ["args", "kwargs"],
    "verl.workers.rollout.llm_server.LLMServerManager.__init__": [
        "self",
        "config",
        "worker_group",
        "rollout_resource_pool",
        "start_rank",
        ...,
    ],
    "verl.workers.rollout.llm_server.LLMServerManager.get_client": ["self", "client_cls", "kwargs"],
    "verl.workers.rollout.llm_server.LLMServerManager.get_replicas": ["self"],
    "verl.workers.rollout.llm_server.LLMServerClient.__init__": ["self", "config", "load_balancer_handle", "kwargs"],
    "verl.workers.rollout.llm_server.LLMServerClient.generate": ["self", "request_id", "prompt_ids", ...],
    "verl.checkpoint_engine.CheckpointEngineManager.__init__": ["self", "config", "actor_wg", "replicas"],
    "verl.workers.engine_workers.ActorRolloutRefWorker.update_weights": ["self", "global_steps", "mode"],
    "verl.workers.rollout.vllm_rollout.vllm_async_server.vLLMHttpServer.collective_rpc": ["self", "method", ...],
    "verl.checkpoint_engine.CheckpointEngineManager.sleep_replicas": ["self"],
    "verl.single_controller.ray.create_colocated_worker_cls": ["class_dict"],
    "verl.single_controller.ray.RayWorkerGroup.spawn": ["self", "prefix_set"],
    # agent loop and reward
    "verl.experimental.agent_loop.agent_loop.register": ["agent_name"],
    "verl.experimental.agent_loop.agent_loop.AgentLoopBase.run": ["self", "sampling_params", "kwargs"],
    "verl.experimental.reward_loop.reward_manager.base.RewardManagerBase.__init__": [
        "self",
        "config",
        "tokenizer",
        "compute_score",
    ],
    "verl.experimental.reward_loop.reward_manager.base.RewardManagerBase.run_single": ["self", "data"],
    # the single model that the pair is compared with
    "verl.trainer.ppo.core_algos.register_adv_est": ["name_or_enum"],
    "verl.trainer.ppo.core_algos.compute_grpo_outcome_advantage": [
        "token_level_rewards",
        "response_mask",
        "index",
        "epsilon",
        "norm_adv_by_std_in_grpo",
        ...,
    ],
    "verl.trainer.ppo.reward.get_custom_reward_fn": ["config"],
    # cold-start SFT
    "verl.trainer.sft_trainer.SFTTrainer.__init__": ["self", "config"],
    "verl.trainer.sft_trainer.SFTTrainer._build_dataset": ["self"],
    "verl.trainer.sft_trainer.SFTTrainer._build_ckpt_handler": ["self"],
    "verl.trainer.sft_trainer.SFTTrainer.fit": ["self"],
    "verl.utils.checkpoint.CheckpointHandler.save_checkpoint": ["self", "step"],
    "verl.utils.checkpoint.CheckpointHandler.load_checkpoint": ["self"],
    "verl.utils.dataset.multiturn_sft_dataset.MultiTurnSFTDataset.__init__": [
        "self",
        "parquet_files",
        "tokenizer",
        "config",
        ...,
    ],
    "verl.utils.dataset.multiturn_sft_dataset.MultiTurnSFTDataset.__getitem__": ["self", "item"],
    "verl.utils.device.auto_set_device": ["config"],
    "verl.utils.distributed.initialize_global_process_group": [...],
    "verl.utils.distributed.destroy_global_process_group": [...],
    # platform and registries
    "verl.plugin.platform.PlatformRegistry.register": ["platform"],
    "verl.workers.engine.EngineRegistry.register": ["model_type", "backend", "device", "vendor"],
    # data plane
    "transfer_queue.kv_batch_get": ["keys", "partition_id", "select_fields", ...],
    "transfer_queue.kv_batch_put": ["keys", "partition_id", "fields", "tags", ...],
    "transfer_queue.KVBatchMeta.select_keys": ["self", "keys_to_select"],
    # what the shims replace
    "torch.distributed.init_process_group": ["backend", ...],
    "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm": ["layer", "remove_weight"],
    "verl.workers.engine.fsdp.transformer_impl.merged_lora_context": ["actor", "backup_adapters"],
    "verl.workers.engine.fsdp.transformer_impl.normalize_peft_param_name": ["params"],
    "verl.workers.engine.fsdp.transformer_impl.convert_weight_keys": ["state_dict", "model"],
}
"""Name → parameters in order; ``...`` stands for any further ones."""

ATTRIBUTES = [
    "vllm.v1.worker.worker_base.WorkerBase.check_health",
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngineWithLMHead",
    "verl.workers.engine.fsdp.transformer_impl.CPUOffloadPolicy",
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngine._merged_lora_per_tensor_param",
    "verl.workers.engine.fsdp.transformer_impl.offload_fsdp_model_to_cpu",
    "verl.workers.engine.fsdp.transformer_impl.DTensor",
    "verl.experimental.agent_loop.agent_loop.AgentLoopOutput",
    "verl.experimental.agent_loop.agent_loop.AgentLoopMetrics",
    "verl.single_controller.ray.RayClassWithInitArgs",
    "verl.trainer.ppo.utils.Role.ActorRolloutRef",
    "verl.trainer.ppo.utils.Role.ActorRollout",
    "verl.trainer.main_ppo.main",
    "verl.trainer.sft_trainer.main",
    "verl.utils.config.omega_conf_to_dataclass",
    "verl.utils.debug.marked_timer",
    "verl.utils.metric.reduce_metrics",
    "verl.utils.py_functional.rename_dict",
    "verl.utils.profiler.simple_timer",
    "verl.trainer.constants_ppo.get_ppo_ray_runtime_env",
    "verl.utils.device.get_device_name",
]


def resolve(name: str):
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    expected = SIGNATURES[name]
    found = list(inspect.signature(inspect.unwrap(resolve(name))).parameters)
    if found and found[0] == "cls":
        found = found[1:]
    if expected[-1] is ...:
        assert found[: len(expected) - 1] == expected[:-1]
    else:
        assert found == expected


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute(name):
    resolve(name)


def test_fields_that_the_worker_sets_for_us():
    source = inspect.getsource(resolve("verl.workers.engine_workers.TrainingWorker.train_mini_batch"))
    for key in ("num_mini_batch", "epochs", "dataloader_kwargs"):
        assert f'key="{key}"' in source
    source = inspect.getsource(resolve("verl.experimental.agent_loop.agent_loop.AgentLoopWorker._compute_score"))
    assert '"tool_extra_fields"' in source


def test_the_trainer_and_the_loop_are_registered():
    from verl.experimental.agent_loop import agent_loop
    from verl.trainer.ppo.v1 import get_trainer_cls

    assert get_trainer_cls("longshort").__module__ == "longshort_verl.adapters.trainer"
    assert agent_loop._agent_loop_registry["longshort"] == {
        "_target_": "longshort_verl.adapters.agent_loop.LongShortAgentLoop"
    }


def test_the_single_models_advantages_are_registered():
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    assert get_adv_estimator_fn("longshort_single").__module__ == "longshort_verl.adapters.single_model"
