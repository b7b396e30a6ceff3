# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Settings and environment of a small vLLM engine on a CPU, for tests that start their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from longshort_verl.generation.settings import VLLMSettings


def tiny_engine(max_model_len: int) -> VLLMSettings:
    """Settings for a model of a few megabytes."""
    return VLLMSettings(
        max_model_len=max_model_len,
        dtype="float32",
        tensor_parallel_size=1,
        gpu_memory_utilization=0.5,
        kv_cache_memory_bytes=2**30,
        max_num_seqs=32,
        block_size=None,
        enforce_eager=True,
        seed=0,
    )


@contextmanager
def engine_environment() -> Iterator[None]:
    """What engines read when they start; vLLM writes LD_PRELOAD and more there, which is taken back too."""
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # The sampler is compiled even with enforce_eager; that takes longer than everything else here.
        "TORCHDYNAMO_DISABLE": "1",
    }
    with patch.dict(os.environ, environment):
        yield
