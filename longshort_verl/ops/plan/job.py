# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a job is made of, and what is in a device's memory: policies with engine and trainer, pools, phases, parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from longshort_verl.ops.plan.hardware import ASSUMED, Assumptions, Gpu
from longshort_verl.ops.plan.shape import ModelShape


class Kind(str, Enum):
    """What memory is taken for, in the order in which a phase takes it."""

    OVERHEAD = "overhead"
    """CUDA contexts, what sleeping engines keep, and what allocators lose."""
    ENGINES = "engines"
    """vLLM's weights, KV caches and buffers."""
    STATES = "states"
    """Shards of parameters, gradients and optimizer."""
    GATHERED = "gathered"
    """Whole layers and tensors, put together from their shards to be used or sent."""
    ACTIVATIONS = "activations"
    """What the layers keep for the backward pass, or need at once."""
    LOGITS = "logits"
    """Scores over the vocabulary, and what is computed from them."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Devices that belong together."""

    name: str
    """"devices", or the role's under the placement split."""
    nnodes: int
    """Nodes."""
    gpus_per_node: int
    """Devices on each."""
    keys: tuple[str, str]
    """The settings of both."""

    @property
    def size(self) -> int:
        """Devices."""
        return self.nnodes * self.gpus_per_node


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a policy is trained: what matters of verl's FSDP engine."""

    fsdp2: bool
    """FSDP2, or FSDP1, which is verl's default."""
    fsdp_size: int
    """Devices among which one copy is sharded; -1 for all."""
    param_bytes: int
    """Of a stored parameter, and of its gradient and each of its optimizer's states."""
    compute_bytes: int
    """Of a gathered parameter and of activations."""
    reduce_bytes: int
    """Of a gradient while it is summed over devices."""
    param_offload: bool
    """Parameters wait in main memory while they are not used."""
    optimizer_offload: bool
    """So do the optimizer's states."""
    offload_policy: bool
    """FSDP2 keeps both in main memory, and updates them there."""
    checkpointing: bool
    """Activations are computed anew in the backward pass."""
    activation_offload: bool
    """What is kept of them waits in main memory."""
    max_update_tokens: int
    """Most tokens of a micro-batch on a device in an update."""
    max_log_prob_tokens: int
    """The same for log-probabilities."""
    row_tokens: int
    """Most tokens of one row."""
    least_tokens: int
    """The least that both limits may be: a whole context."""
    update_rows: int
    """Rows of one optimizer step, over all devices."""
    log_prob_rows: int
    """Rows of a step, over all devices."""
    sequence_parallel: int
    """Devices that share a sequence (Ulysses)."""
    fused_head: bool
    """No scores over the whole vocabulary are kept (use_fused_kernels)."""
    entropy: str
    """How it is computed: compiled, chunked or eager."""
    entropy_chunk: int
    """Rows at once where it is chunked."""
    update_entropy: bool
    """Whether updates compute it. Log-probabilities of the actor do always."""
    scaled_logits: bool
    """Whether the sampling temperature makes another copy of the scores."""
    whole_gradients: bool
    """Gradients are summed over devices only at the last micro-batch (use_no_sync_for_gradient_accumulation)."""
    lora_rank: int
    """Rank of the adapter; 0 where all parameters learn."""
    ref_param_bytes: int
    """Of a stored parameter of the reference model; 0 where there is none of its own."""
    ref_tokens: int
    """Most tokens of a micro-batch of the reference on a device."""
    export: bool
    """Checkpoints hold a Hugging Face folder, which one process puts together in main memory."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A policy's vLLM engine."""

    utilization: float
    """rollout.gpu_memory_utilization: share of the device's memory for weights, cache and buffers."""
    devices: int
    """Devices of a replica, which share weights: tensor times pipeline parallel."""
    tensor_parallel: int
    """Devices that share each layer."""
    data_parallel: int
    """Copies in one replica."""
    weight_bytes: int
    """Of a weight."""
    sleeps: bool
    """Whether it gives up its memory while the actors work (free_cache_engine)."""
    eager: bool
    """No CUDA graphs."""
    max_num_seqs: int
    """Most requests at once."""
    max_batched_tokens: int
    """Most tokens of a forward pass."""
    max_model_len: int
    """The longest context, in tokens."""
    bucket: int
    """Bytes of the buffer through which weights arrive."""
    adapter: bool
    """Only the LoRA adapter is pushed; base weights wait in main memory while it sleeps."""
    cache: float | None
    """Bytes of the cache alone, where the engine is told (kv_cache_memory_bytes)."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One model of the job."""

    name: str
    """long, short, shared or model."""
    pool: str
    """Where it lives."""
    shape: ModelShape
    """Its model."""
    training: Training
    """Its actor."""
    engine: Engine | None
    """Its engine; none in supervised fine-tuning."""
    learns: bool
    """Whether any step updates it."""
    keys: Mapping[str, str] = field(hash=False)
    """What may be changed → the setting of this policy alone."""
    shared_keys: frozenset[str] = frozenset()
    """What of these another policy inherits from this one."""


@dataclass(frozen=True, kw_only=True)
class Sft:
    """What supervised fine-tuning does beside updates."""

    turns: int
    """Held-out turns at once on a device; 0 for none."""
    turn_tokens: int
    """Most tokens of such a turn and its prompt."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is planned."""

    gpu: Gpu
    pools: tuple[Pool, ...]
    policies: tuple[Policy, ...]
    """In the order in which the trainer serves them."""
    sft: Sft | None = None
    assumed: Assumptions = ASSUMED

    def pool(self, name: str) -> Pool:
        """The pool of a name."""
        return next(pool for pool in self.pools if pool.name == name)

    def policy(self, name: str) -> Policy:
        """The policy of a name."""
        return next(policy for policy in self.policies if policy.name == name)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that takes memory."""

    name: str
    """What, with its policy."""
    kind: Kind
    num_bytes: float


STAGES = {
    "load": "the actor is loaded",
    "start": "the engine starts",
    "cache": "the engine lays out its cache",
    "rollout": "engines generate, in training and validation",
    "log-prob": "the actor computes log-probabilities",
    "reference": "the reference computes log-probabilities",
    "update": "the actor is updated",
    "push": "the engine gets the actor's weights",
    "held-out": "the model writes held-out turns",
}
"""First word of a phase's name → what happens."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A time in the job's life, on the fullest device of a pool."""

    name: str
    pool: str
    policy: str | None
    """Whose work it is; None where all policies' is."""
    parts: tuple[Part, ...]
    limit: float
    """Bytes that may be taken."""
    why: str = ""
    """What the limit is, where it is not the device's memory."""

    @property
    def total(self) -> float:
        """Bytes."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def missing(self) -> float:
        """Bytes that do not fit; 0 where all does."""
        return max(0.0, self.total - self.limit)

    def of(self, kind: Kind) -> float:
        """Bytes of one kind."""
        return sum(part.num_bytes for part in self.parts if part.kind is kind)

    @property
    def first_missing(self) -> Part:
        """The part at which the memory is at its end."""
        taken = 0.0
        for part in sorted(self.parts, key=lambda part: list(Kind).index(part.kind)):
            taken += part.num_bytes
            if taken > self.limit:
                return part
        return self.parts[-1]


# ------------------------------------------------------------------------------------------ one policy
