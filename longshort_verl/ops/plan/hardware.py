# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""GPUs by name, and what is assumed of them. Nothing here was compared with a GPU yet."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
"""Bytes."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device."""

    name: str
    """As users give it."""
    memory_gib: float
    """What CUDA reports as the device's total, which is a little less than the data sheet says."""
    tflops: float
    """Dense bfloat16 with float32 accumulation, 10^12 operations a second."""
    bandwidth: float
    """Of the device's memory, 10^9 bytes a second."""
    link: float
    """To the other devices of a node, each way, 10^9 bytes a second."""
    host_link: float
    """To the node's main memory, each way, 10^9 bytes a second."""

    @property
    def memory(self) -> float:
        """Bytes."""
        return self.memory_gib * GIB


# Memory: totals as PyTorch's out-of-memory messages give them; where cards of one name differ, the lower one. All else
# from NVIDIA's data sheets and architecture white papers, without sparsity: GA102 (3090), Ada (4090), L4, A10G (as in
# AWS's G5), L40S, A100, H100 SXM, H200 SXM, DGX B200. Cards without NVLink talk over PCI Express.
GPUS = (
    Gpu(name="RTX-3090-24GB", memory_gib=23.5, tflops=71, bandwidth=936, link=32, host_link=32),
    Gpu(name="RTX-4090-24GB", memory_gib=23.5, tflops=165, bandwidth=1008, link=32, host_link=32),
    Gpu(name="L4-24GB", memory_gib=22.0, tflops=121, bandwidth=300, link=32, host_link=32),
    Gpu(name="A10G-24GB", memory_gib=22.0, tflops=70, bandwidth=600, link=32, host_link=32),
    Gpu(name="L40S-48GB", memory_gib=44.4, tflops=362, bandwidth=864, link=32, host_link=32),
    Gpu(name="A100-40GB", memory_gib=39.4, tflops=312, bandwidth=1555, link=300, host_link=32),
    Gpu(name="A100-80GB", memory_gib=79.1, tflops=312, bandwidth=2039, link=300, host_link=32),
    Gpu(name="H100-80GB", memory_gib=79.1, tflops=989, bandwidth=3350, link=450, host_link=64),
    Gpu(name="H200-141GB", memory_gib=139.7, tflops=989, bandwidth=4800, link=450, host_link=64),
    Gpu(name="B200-180GB", memory_gib=178.3, tflops=2250, bandwidth=8000, link=900, host_link=64),
)


def find_gpu(name: str) -> Gpu:
    """The GPU of a name, or of the beginning of one.

    Raises:
        ValueError: no GPU begins so, or several do.
    """

    def plain(text: str) -> str:
        return "".join(char for char in text.lower() if char.isalnum())

    found = [
        gpu for gpu in GPUS if plain(gpu.name).startswith(plain(name)) or plain(gpu.name)[3:].startswith(plain(name))
    ]
    exact = [gpu for gpu in found if plain(gpu.name) == plain(name)]
    if len(exact) == 1 or len(found) == 1:
        return (exact or found)[0]
    known = ", ".join(gpu.name for gpu in (found or GPUS))
    raise ValueError(f"{name!r} names {len(found)} GPUs; give one of {known}")


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What no config says. Every estimate prints them."""

    context_gib: float = 0.6
    """On the device, of each process: CUDA context, cuBLAS and NCCL buffers. An actor and an engine are one each."""
    fragmentation: float = 0.03
    """Share of the device's memory that allocators lose."""
    cuda_graphs_gib: float = 1.0
    """Of an engine without rollout.enforce_eager; it stays while the engine sleeps."""
    pinned: float = 1.4
    """What an off-loaded byte takes in main memory: pinned allocations are rounded up to powers of two."""
    host_gib_per_worker: float = 3.0
    """Main memory of an actor's and an engine's process, their code and buffers, for each device and policy."""
    host_gib_per_job: float = 16.0
    """Main memory of Ray, trainer, agent loops and reward workers, on the first node."""
    train_efficiency: float = 0.35
    """Share of the GPU's arithmetic that an update reaches."""
    forward_efficiency: float = 0.45
    """The same of log-probabilities and prefill."""
    decode_efficiency: float = 0.6
    """Share of the memory bandwidth that decoding reaches."""
    link_efficiency: float = 0.7
    """Share of a link's bandwidth that transfers reach."""
    network: float = 25.0
    """Between nodes, of each device, 10^9 bytes a second."""
    decode_overhead_s: float = 0.005
    """Of a decoding step: scheduling, sampling, launches."""


ASSUMED = Assumptions()
