# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Every name of verl, TransferQueue and vLLM that we rely on, and the parameters that we pass or override.

A failure here says what moved upstream before a job fails in some worker. Names that only tests use are not listed.
The second part reads our own sources for names that the lists lack. The third shows what is replaced at run time:
nothing where verl runs on GPUs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from verl.plugin.platform import PlatformBase

import longshort_verl
from longshort_verl.adapters.cpu_platform import PlatformCPU

SIGNATURES = {
    # the trainer: what we override or call
    "verl.trainer.ppo.v1.trainer_base.register_trainer": ["name"],
    "verl.trainer.ppo.v1.trainer_base.get_trainer_cls": ["name"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.__init__": ["self", "config"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._setup": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync.fit": ["self", "agent_loop_manager"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._init_dataloader": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._init_resource_pool_mgr": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._validate": ["self"],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._val_metrics_update": [
        "self",
        "data_sources",
        "sample_uids",
        "reward_extra_infos_dict",
        ...,
    ],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._dump_generations": [
        "self",
        "inputs",
        "outputs",
        "gts",
        "scores",
        "reward_extra_infos_dict",
        "dump_path",
    ],
    "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync._log_rollout_data": [
        "self",
        "batch",
        "timing_raw",
        "rollout_data_dir",
    ],
    "verl.trainer.ppo.utils.need_reference_policy": ["config"],
    "verl.trainer.ppo.core_algos.get_kl_controller": ["kl_ctrl"],
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
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer._wait_for_next_poll": ["self", "partition_id", "last_debug_time"],
    "ray._private.state.actors": ["actor_id", "job_id", "actor_state_name"],
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
    # a round's new reference and optimizer
    "verl.workers.engine_workers.TrainingWorker.save_checkpoint": ["self", "local_path", ...],
    "verl.workers.engine_workers.TrainingWorker.load_checkpoint": ["self", "local_path", ...],
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngine._build_optimizer": ["self", "module"],
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngine._build_lr_scheduler": ["self", "optimizer"],
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
    "verl.single_controller.base.decorator.register": ["dispatch_mode", ...],
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
    "verl.workers.engine_workers.TrainingWorker.train_batch": ["self", "data"],
    "verl.utils.tensordict_utils.get": ["tensordict", "key", "default"],
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
    "verl.utils.dataset.multiturn_sft_dataset.MultiTurnSFTDataset._read_files_and_process": ["self"],
    "verl.utils.device.auto_set_device": ["config"],
    "verl.utils.distributed.initialize_global_process_group": [...],
    "verl.utils.distributed.destroy_global_process_group": [...],
    # platform and registries
    "verl.plugin.platform.PlatformRegistry.register": ["platform"],
    "verl.plugin.platform.get_platform": [...],
    "verl.plugin.platform.PlatformRegistry.get": ["name"],
    "verl.workers.engine.EngineRegistry.register": ["model_type", "backend", "device", "vendor"],
    # export and preflight
    "verl.model_merger.fsdp_model_merger.FSDPModelMerger.__init__": ["self", "config"],
    "verl.model_merger.fsdp_model_merger.FSDPModelMerger.merge_and_save": ["self"],
    "verl.workers.rollout.utils.get_max_position_embeddings": ["hf_config"],
    # vLLM in a process of ours
    "vllm.v1.engine.async_llm.AsyncLLM.from_engine_args": ["engine_args", ...],
    "vllm.v1.engine.async_llm.AsyncLLM.generate": ["self", "prompt", "sampling_params", "request_id", ...],
    "vllm.v1.engine.async_llm.AsyncLLM.check_health": ["self"],
    "vllm.v1.engine.async_llm.AsyncLLM.reset_prefix_cache": ["self", ...],
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
    "verl.__version__",
    "ray._private.worker._post_init_hooks",
    "ray.core.generated.common_pb2.ActorDiedErrorContext.WORKER_DIED",
    "ray.core.generated.common_pb2.ActorDiedErrorContext.NODE_DIED",
    "verl.experimental.agent_loop.agent_loop._agent_loop_registry",
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
    "verl.trainer.ppo.core_algos.ADV_ESTIMATOR_REGISTRY",
    "verl.trainer.ppo.core_algos.ADV_ESTIMATOR_REGISTRY.items",
    "verl.utils.config.omega_conf_to_dataclass",
    "verl.utils.debug.marked_timer",
    "verl.utils.metric.reduce_metrics",
    "verl.utils.py_functional.rename_dict",
    "verl.utils.profiler.simple_timer",
    "verl.trainer.constants_ppo.get_ppo_ray_runtime_env",
    "verl.utils.device.get_device_name",
    "verl.DataProto",
    "verl.model_merger.base_model_merger.ModelMergerConfig",
    "verl.single_controller.base.decorator.Dispatch.ONE_TO_ALL",
    "verl.single_controller.ray.RayResourcePool",
    "vllm.AsyncEngineArgs",
    "vllm.config.StructuredOutputsConfig",
    "vllm.sampling_params.StructuredOutputsParams",
    "vllm.SamplingParams",
    "vllm.TokensPrompt",
    "vllm.outputs.CompletionOutput",
    "vllm.outputs.RequestOutput",
    "vllm.platforms.current_platform.is_cpu",
    "vllm.sampling_params.RequestOutputKind.CUMULATIVE",
    "vllm.sampling_params.RequestOutputKind.FINAL_ONLY",
    "vllm.v1.engine.exceptions.EngineDeadError",
    "vllm.v1.engine.exceptions.EngineGenerateError",
    # the platform's interface: what ours overrides
    *(f"verl.plugin.platform.PlatformBase.{name}" for name in vars(PlatformCPU) if name in vars(PlatformBase)),
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
    source = inspect.getsource(resolve("verl.utils.checkpoint.checkpoint_manager.BaseCheckpointManager.__init__"))
    for name in ("optimizer", "lr_scheduler", "checkpoint_save_contents", "checkpoint_load_contents"):
        assert f"self.{name} = " in source


def test_the_trainer_and_the_loop_are_registered():
    from verl.experimental.agent_loop import agent_loop
    from verl.trainer.ppo.v1 import get_trainer_cls

    assert get_trainer_cls("longshort").__module__ == "longshort_verl.adapters.rl.trainer"
    assert agent_loop._agent_loop_registry["longshort"] == {
        "_target_": "longshort_verl.adapters.rl.agent_loop.LongShortAgentLoop"
    }


def test_the_single_models_advantages_are_registered():
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    assert get_adv_estimator_fn("longshort_single").__module__ == "longshort_verl.adapters.rl.single_model"


# ---------------------------------------------------------------- the lists are whole

UPSTREAM = ("verl", "vllm", "transfer_queue")
PACKAGE = Path(longshort_verl.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One upstream name as a source file of ours uses it."""

    name: str
    """Dotted, from the package on."""
    where: str
    """File and line."""


def is_upstream(name: str) -> bool:
    return name.split(".")[0] in UPSTREAM or name.startswith(("ray._", "torch.distributed._"))


def bindings(tree: ast.AST) -> dict[str, tuple[str, int]]:
    """Local name → upstream's dotted name and line, of every import of a file."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and is_upstream(node.module):
            for one in node.names:
                found[one.asname or one.name] = (f"{node.module}.{one.name}", node.lineno)
        elif isinstance(node, ast.Import):
            for one in node.names:
                if is_upstream(one.name):
                    found[one.asname or one.name] = (one.name, node.lineno)
    return found


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def used_names(path: Path) -> list[Found]:
    """Imported names; of an imported module what is read of it; of a class that we extend what we override or use."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound = bindings(tree)
    modules = {local for local, (name, _) in bound.items() if is_module(name)}
    attributes = [
        (node.value.id, node.attr, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
    ]
    read = {local for local, _, _ in attributes}
    found = [(name, line) for local, (name, line) in bound.items() if local not in modules & read]
    found += [(f"{bound[local][0]}.{attr}", line) for local, attr, line in attributes]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in bound:
                    found += inherited(node, bound[base.id][0])
    return [Found(name=name, where=f"{path.relative_to(PACKAGE)}:{line}") for name, line in found]


def methods(ours: ast.ClassDef) -> dict[str, int]:
    return {one.name: one.lineno for one in ours.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def inherited(ours: ast.ClassDef, base: str) -> list[tuple[str, int]]:
    """Methods of an upstream class that ours overrides, calls or reads."""
    theirs, lines = resolve(base), methods(ours)
    for node in ast.walk(ours):
        if isinstance(node, ast.Attribute):
            of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            of_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
            if of_self or of_super:
                lines.setdefault(node.attr, node.lineno)
    plain = {name for name in dir(object) if name != "__init__"}
    return [(f"{base}.{name}", line) for name, line in lines.items() if hasattr(theirs, name) and name not in plain]


def listed(name: str) -> bool:
    """Whether the lists hold a name, something of it, or the same object under another path."""
    keys = [*SIGNATURES, *ATTRIBUTES]
    if any(key == name or key.startswith(f"{name}.") for key in keys):
        return True
    found = resolve(name)
    return any(resolve(key) is found for key in keys if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_upstream_name_is_listed(path):
    missing = [found for found in used_names(path) if not listed(found.name)]
    assert not missing, "\n".join(f"{found.name} ({found.where})" for found in missing)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_keyword_is_a_parameter(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound, refused = bindings(tree), []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in bound:
            name = bound[node.func.id][0]
        elif isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", None) in bound:
            name = f"{bound[node.func.value.id][0]}.{node.func.attr}"
        else:
            continue
        refused += [f"{name}({one.arg}=…), line {node.lineno}" for one in node.keywords if not takes(name, one.arg)]
    assert not refused, "\n".join(refused)


def takes(name: str, keyword: str | None) -> bool:
    found = resolve(name)
    if issubclass(type(found), type) and issubclass(found, dict):  # a TypedDict
        return keyword in found.__annotations__
    parameters = inspect.signature(inspect.unwrap(found)).parameters
    return keyword is None or keyword in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def test_attributes_that_the_trainer_reads_are_set_by_verl():
    rl = PACKAGE / "adapters" / "rl"
    trees = [ast.parse((rl / name).read_text(encoding="utf-8")) for name in ("guarded.py", "trainer.py")]
    ours = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef) and "Trainer" in node.name]
    assert len(ours) == 3
    of_self = [
        node
        for one in ours
        for node in ast.walk(one)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    ]
    # the tokenizer is verl's, and ours only for as long as it validates
    set_by_us = {node.attr for node in of_self if isinstance(node.ctx, ast.Store)} - {"tokenizer"}
    named_here = {"stall_key", *(name for one in ours for name in methods(one))}
    theirs = {node.attr for node in of_self} - set_by_us - named_here
    base = resolve("verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync")
    source = "".join(inspect.getsource(one) for one in base.__mro__ if one.__module__.startswith("verl."))
    assert {"llm_server_manager", "actor_rollout_wg", "tokenizer", "timing_raw"} <= theirs
    for name in theirs:
        assert hasattr(base, name) or re.search(rf"self\.{name}\b[^=\n]*=(?!=)", source), name


# ---------------------------------------------------------------- what is replaced at run time

REPLACED_ON_CPU = {
    "importlib.metadata.version",
    "torch.distributed.init_process_group",
    "verl.utils.fsdp_utils._select_fsdp2_wrap_targets",
    "verl.workers.engine.fsdp.transformer_impl.CPUOffloadPolicy",
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngine._merged_lora_per_tensor_param",
    "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm",
}

WALK = """
import importlib, inspect, sys
import verl
for name in {modules}:
    importlib.import_module(name)
import vllm.model_executor.layers.utils
import vllm.platforms
from longshort_verl.adapters import compat
{before}
compat.keep_vllm_cpu_weights()

def ours(found):
    if not (inspect.isroutine(found) or inspect.isclass(found)):
        return False
    module = getattr(found, "__module__", None)  # some of C have none
    return hasattr(found, compat.MARK) or str(module).startswith("longshort_verl")

replaced = {{}}
upstream = ("verl", "vllm", "transfer_queue", "ray", "torch.distributed", "importlib.metadata")
for name, module in list(sys.modules.items()):
    if not any(name == one or name.startswith(one + ".") for one in upstream):
        continue
    for key, found in list(vars(module).items()):
        if inspect.isclass(found) and found.__module__ == name:
            for attribute, method in list(vars(found).items()):
                if ours(method):
                    replaced.setdefault(id(method), []).append(f"{{name}}.{{key}}.{{attribute}}")
        if ours(found):
            replaced.setdefault(id(found), []).append(f"{{name}}.{{key}}")
# What other modules have imported from there is no second replacement.
for names in replaced.values():
    print("REPLACED", min(names, key=len))
"""


def replaced(platform: str, before: str = "") -> set[str]:
    """What of upstream's loaded modules and classes is ours, in a process that has loaded all of our adapters."""
    adapters = [path.relative_to(PACKAGE.parent).with_suffix("") for path in (PACKAGE / "adapters").rglob("*.py")]
    modules = [".".join(path.parts) for path in adapters if path.name != "__init__"]
    done = subprocess.run(
        [sys.executable, "-c", WALK.format(modules=modules, before=before)],
        env={**os.environ, "VERL_PLATFORM": platform},
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("REPLACED ")}


@pytest.mark.process
def test_nothing_is_replaced_where_verl_runs_on_gpus():
    # The tests' vLLM is built for CPUs, and finds that out by itself.
    on_gpu = "vllm.platforms.current_platform.is_cpu = lambda: False"
    assert replaced("nvidia", before=on_gpu) == set()


@pytest.mark.process
def test_what_is_replaced_on_a_cpu():
    assert replaced("cpu") == REPLACED_ON_CPU


def test_only_compat_replaces():
    for path in SOURCES:
        if path.name in ("compat.py", "vllm_cpu.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bound = bindings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                assert getattr(node.value, "id", None) not in bound, f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "setattr":
                assert getattr(node.args[0], "id", None) not in bound, f"{path}:{node.lineno}"
