# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's platform interface for machines without an accelerator, chosen by ``VERL_PLATFORM=cpu``.

Real FSDP2, vLLM and Ray then run on any laptop; the quick start and the tests use it. The logical GPUs of Ray
(``ray_kwargs.ray_init.num_gpus``) are only slots for workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from longshort_verl.generation.vllm_cpu import KVCACHE, KVCACHE_GIB


class _CPUDeviceModule(ModuleType):
    """``torch.cpu`` with the calls that verl makes on ``torch.cuda``; memory statistics are 0."""

    def __init__(self) -> None:
        super().__init__("longshort_verl.adapters.cpu_platform.cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def _zero(self, *args: Any, **kwargs: Any) -> int:
        return 0

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return None

    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = _zero
    reset_peak_memory_stats = empty_cache = ipc_collect = set_device = _nothing

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_name(self, *args: Any, **kwargs: Any) -> str:
        return "CPU"

    def mem_get_info(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return 0, 0

    def get_rng_state(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        torch.set_rng_state(state)

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One process, one CPU device; collectives by gloo, weights to vLLM through shared memory."""

    _module = _CPUDeviceModule()

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return None

    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Never detected, because the head node of a GPU cluster has no GPU either; VERL_PLATFORM=cpu selects it.
        return False

    def current_device(self) -> Any:
        # torch's default build takes an int for a cuda device.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        defaults = {
            # vLLM otherwise takes half of the machine's memory for its cache …
            KVCACHE: str(KVCACHE_GIB),
            # … and binds each engine to the same cores.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            # Compiling the sampler costs the better part of a minute per engine, even with enforce_eager.
            "TORCHDYNAMO_DISABLE": "1",
        }
        return {name: os.environ.get(name, value) for name, value in defaults.items()}
