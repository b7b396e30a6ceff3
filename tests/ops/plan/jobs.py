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


@functools.cache
def shape(name: str) -> ModelShape:
    """The shape of a published architecture."""
    with tempfile.TemporaryDirectory() as folder:
        return read_shape(str(write_model_config(Path(folder), name)))


TRAINING = Training(
    fsdp_size=-1,
    param_bytes=4,
    compute_bytes=2,
    reduce_bytes=4,
    param_offload=True,
    optimizer_offload=True,
    checkpointing=True,
    fused_head=False,
    entropy_tokens=0,
    lora_rank=0,
    max_update_tokens=16384,
    least_tokens=8192,
    max_log_prob_tokens=16384,
    ref_tokens=16384,
)
ENGINE = Engine(
    utilization=0.4,
    devices=2,
    weight_bytes=2,
    sleeps=True,
    eager=False,
    max_num_seqs=256,
    max_batched_tokens=8192,
    max_model_len=8192,
    row_tokens=8192,
    bucket_mb=2048,
    adapter=False,
)
ONE_GPU = ["trainer.n_gpus_per_node=1", "actor_rollout_ref.rollout.tensor_model_parallel_size=1"]
ON_NODE = ["trainer.n_gpus_per_node=8"]
NODE = Pool(name="devices", nnodes=1, gpus_per_node=8)


def policy(name: str = "long", model: str = "qwen2_5_7b", pool: Pool = NODE, **training) -> Policy:
    """A policy; further arguments are of its training."""
    prefix = "long_short.short" if name == "short" else "actor_rollout_ref"
    keys = ("param_offload", "optimizer_offload", "checkpointing", "fused_head", "sleeps", "max_update_tokens")
    keys += ("max_log_prob_tokens", "utilization", "devices", "bucket_mb", "max_model_len")
    return Policy(
        name=name,
        pool=pool,
        shape=shape(model),
        training=replace(TRAINING, **training),
        engine=ENGINE,
        learns=True,
        keys={key: f"{prefix}.{key}" for key in keys},
    )


def job(*policies: Policy, gpu: str = "H100-80GB", pool: Pool = NODE) -> Job:
    """These policies, or two on the same devices."""
    return Job(gpu=find_gpu(gpu), policies=policies or (policy("long", pool=pool), policy("short", pool=pool)))
