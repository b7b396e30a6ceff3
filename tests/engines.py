# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""vLLM on a CPU, small and soon there, for tests that start an engine of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from longshort_verl.generation import VLLMSettings


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
