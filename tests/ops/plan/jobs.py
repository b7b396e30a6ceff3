# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A job to plan, without a config: two 7B models on one node."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from longshort_verl.adapters.shape import ModelShape, read_shape
from longshort_verl.ops.plan.hardware import find_gpu
from longshort_verl.ops.plan.job import Job, Policy, Pool
from tests.support.model_configs import write_model_config


@functools.cache
def shape(name: str) -> ModelShape:
    """The shape of a published architecture."""
    with tempfile.TemporaryDirectory() as folder:
        return read_shape(str(write_model_config(Path(folder), name)))


SETTINGS = {
    "fsdp_size": -1,
    "param_offload": True,
    "optimizer_offload": True,
    "checkpointing": True,
    "fused_head": False,
    "max_update_tokens": 16384,
    "least_tokens": 8192,
    "max_log_prob_tokens": 16384,
    "ref_tokens": 16384,
    "utilization": 0.4,
    "devices": 2,
    "sleeps": True,
    "max_num_seqs": 256,
    "max_batched_tokens": 8192,
    "max_model_len": 8192,
    "row_tokens": 8192,
    "bucket_mb": 2048,
}
ONE_GPU = ["trainer.n_gpus_per_node=1", "actor_rollout_ref.rollout.tensor_model_parallel_size=1"]
ON_NODE = ["trainer.n_gpus_per_node=8"]
NODE = Pool(name="devices", nnodes=1, n_gpus_per_node=8, key="trainer")


def policy(name: str = "long", model: str = "qwen2_5_7b", pool: Pool = NODE, **settings) -> Policy:
    """A policy; further arguments replace its settings."""
    prefix = "long_short.short" if name == "short" else "actor_rollout_ref"
    keys = {key: f"{prefix}.{key}" for key in SETTINGS}
    return Policy(name=name, pool=pool, shape=shape(model), keys=keys, **(SETTINGS | settings))


def job(*policies: Policy, gpu: str = "H100-80GB", pool: Pool = NODE) -> Job:
    """These policies, or two on the same devices."""
    return Job(gpu=find_gpu(gpu), policies=policies or (policy("long", pool=pool), policy("short", pool=pool)))
