# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""GPUs by name, and the assumptions of every estimate. docs/cluster.md compares two with an H200."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GIB = 1 << 30  # bytes


@dataclass(frozen=True)
class Gpu:
    """One device. Rates are in 10^9 bytes per second, of links in each direction."""

    name: str
    memory_gib: float  # total that CUDA reports, which is slightly less than the data sheet's
    tflops: float  # dense bfloat16 with float32 accumulation, 10^12 operations per second
    bandwidth: float  # of the device's memory
    link: float  # to the other devices of the node
    host_link: float  # to the node's main memory

    @property
    def memory(self) -> float:
        """Bytes."""
        return self.memory_gib * GIB


# Memory: totals in PyTorch's out-of-memory messages; where cards of one name differ, the lower total. Everything else:
# NVIDIA's data sheets and white papers, without sparsity. Cards without NVLink communicate over PCI Express.
GPUS = (
    Gpu("RTX-3090-24GB", memory_gib=23.5, tflops=71, bandwidth=936, link=32, host_link=32),
    Gpu("RTX-4090-24GB", memory_gib=23.5, tflops=165, bandwidth=1008, link=32, host_link=32),
    Gpu("L4-24GB", memory_gib=22.0, tflops=121, bandwidth=300, link=32, host_link=32),
    Gpu("A10G-24GB", memory_gib=22.0, tflops=70, bandwidth=600, link=32, host_link=32),
    Gpu("A100-40GB", memory_gib=39.4, tflops=312, bandwidth=1555, link=300, host_link=32),
    Gpu("A100-80GB", memory_gib=79.1, tflops=312, bandwidth=2039, link=300, host_link=32),
    Gpu("H100-80GB", memory_gib=79.1, tflops=989, bandwidth=3350, link=450, host_link=64),
    Gpu("H200-141GB", memory_gib=139.7, tflops=989, bandwidth=4800, link=450, host_link=64),
    Gpu("B200-180GB", memory_gib=178.3, tflops=2250, bandwidth=8000, link=900, host_link=64),
)


def find_gpu(name: str) -> Gpu:
    """The GPU whose name starts with ``name``; "4090" and "a100 80gb" match too.

    Raises:
        ValueError: no GPU or several GPUs match.
    """

    def plain(text: str) -> str:
        return "".join(char for char in text.lower() if char.isalnum()).removeprefix("rtx")

    matches = [gpu for gpu in GPUS if plain(gpu.name).startswith(plain(name))]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(gpu.name for gpu in (matches or GPUS))
    raise ValueError(f"{name!r} matches {len(matches)} GPUs; give one of {known}")


def _assume(value: float, unit: str, meaning: str) -> Any:
    return field(default=value, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What no config states. Every estimate prints them."""

    context_gib: float = _assume(0.6, "GiB", "device memory of each actor's and engine's process")
    fragmentation: float = _assume(0.03, "%", "device memory lost to allocators")
    cuda_graphs_gib: float = _assume(1.0, "GiB", "CUDA graphs of an engine, awake or asleep")
    pinned: float = _assume(1.4, "bytes", "main memory per offloaded byte (pinned)")
    host_gib_per_worker: float = _assume(3.0, "GiB", "main memory of processes, per device and policy")
    host_gib_per_job: float = _assume(16.0, "GiB", "main memory of Ray, trainer and workers")
    train_efficiency: float = _assume(0.35, "%", "peak arithmetic reached in updates")
    forward_efficiency: float = _assume(0.45, "%", "peak arithmetic reached in forward passes, prefill")
    decode_efficiency: float = _assume(0.6, "%", "peak memory bandwidth reached in decoding")
    link_efficiency: float = _assume(0.7, "%", "peak bandwidth reached on links")
    network: float = _assume(25.0, "GB/s", "bandwidth between nodes, per device")
    decode_overhead_s: float = _assume(0.005, "s", "fixed time of a decoding step")


ASSUMED = Assumptions()
