# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A job to plan, without a config: two 7B models on one node."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

from longshort_verl.ops.plan.hardware import find_gpu
from longshort_verl.ops.plan.job import Engine, Job, Policy, Pool, Training
from longshort_verl.ops.plan.shape import ModelShape, read_shape
from tests.support.model_configs import write_model_config

KEYS = ("trainer.nnodes", "trainer.n_gpus_per_node")


@functools.cache
def shape(name: str) -> ModelShape:
    """The shape of a published architecture."""
    with tempfile.TemporaryDirectory() as folder:
        return read_shape(str(write_model_config(Path(folder), name)))


TRAINING = Training(
    fsdp2=False,
    fsdp_size=-1,
    param_bytes=4,
    compute_bytes=2,
    reduce_bytes=4,
    param_offload=True,
    optimizer_offload=True,
    offload_policy=False,
    checkpointing=True,
    activation_offload=False,
    max_update_tokens=16384,
    max_log_prob_tokens=16384,
    row_tokens=8192,
    least_tokens=8192,
    update_rows=512,
    log_prob_rows=1024,
    sequence_parallel=1,
    fused_head=False,
    entropy="compiled",
    entropy_chunk=2048,
    update_entropy=False,
    scaled_logits=False,
    whole_gradients=False,
    lora_rank=0,
    ref_param_bytes=0,
    ref_tokens=16384,
    export=False,
)
ENGINE = Engine(
    utilization=0.4,
    devices=2,
    tensor_parallel=2,
    data_parallel=1,
    weight_bytes=2,
    sleeps=True,
    eager=False,
    max_num_seqs=256,
    max_batched_tokens=8192,
    max_model_len=8192,
    bucket=2 << 30,
    adapter=False,
    cache=None,
)


def policy(name: str = "long", model: str = "qwen2_5_7b", **training) -> Policy:
    """A policy; further arguments are of its training."""
    prefix = "long_short.short" if name == "short" else "actor_rollout_ref"
    keys = ("param_offload", "optimizer_offload", "fsdp2", "checkpointing", "entropy", "fused_head", "sleeps")
    keys += ("max_update_tokens", "max_log_prob_tokens", "utilization", "tensor_parallel", "bucket", "max_model_len")
    return Policy(
        name=name,
        pool="devices",
        shape=shape(model),
        training=replace(TRAINING, **training),
        engine=ENGINE,
        learns=True,
        keys={key: f"{prefix}.{key}" for key in keys},
    )


def job(gpu: str = "H100-80GB", nnodes: int = 1, gpus_per_node: int = 8, policies: tuple[Policy, ...] = ()) -> Job:
    """Both policies on the same devices."""
    pool = Pool(name="devices", nnodes=nnodes, gpus_per_node=gpus_per_node, keys=KEYS)
    return Job(gpu=find_gpu(gpu), pools=(pool,), policies=policies or (policy("long"), policy("short")))
