# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What the GPU tests run and how they write it down; tests/test_gpu_configs.py checks it without a GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM

from longshort_verl.types import Role
from tests.bench.results import commit, machine
from tests.gpu.speaking import write_speaking_model
from tests.support.configs import ROOT
from tests.support.full_size import build_config, build_tokenizer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
VERSIONS = ("verl", "torch", "vllm", "transformers", "ray", "flash-attn", "TransferQueue", "longshort-verl")


def attention(section: str) -> list[str]:
    """torch's own attention where flash-attention, verl's default, is not installed; ``section`` is the model's."""
    if importlib.util.find_spec("flash_attn"):
        return []
    return [f"++{section}.override_config.attn_implementation=sdpa"]


def prepare_pair(folder: Path, **shape) -> list[str]:
    """Write both models and the problems that ``rl.yaml`` names into ``folder``; returns the overrides of the run."""
    import make_problems

    for seed, role in enumerate(Role):
        write_speaking_model(folder / "models" / role.value, role, seed=seed, **shape)
    make_problems.main(folder / "problems", num_train=64, num_val=8, min_steps=2, max_steps=4, seed=3)
    # Ray would wait for its page.
    return [*attention("actor_rollout_ref.model"), "++ray_kwargs.ray_init.include_dashboard=false"]


def prepare_sft(folder: Path, **shape) -> list[str]:
    """Write the model and the transcripts that ``sft.yaml`` names into ``folder``; returns the overrides of the run."""
    from task import dialogue, sample_problem, solve

    rng = random.Random(1)
    for side, number in (("train", 16), ("val", 8)):
        rows = []
        for _ in range(number):
            problem = sample_problem(rng, 2, 4)
            rows.append(
                {
                    "messages": dialogue(problem, rng)[Role.LONG.value],
                    "extra_info": {"answer": solve(problem).answer},
                }
            )
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{Role.LONG.value}_{side}.parquet")
    torch.manual_seed(1)
    Qwen2ForCausalLM(build_config("qwen2_5_0_5b", **shape)).to(torch.bfloat16).save_pretrained(folder / "start")
    build_tokenizer("qwen2_5").save_pretrained(folder / "start")
    return attention("model")


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Highest memory in use on the first GPU within the block, all processes together, in GiB, by ``nvidia-smi``."""
    found, done = {"peak_gib": 0.0}, threading.Event()
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]

    def look() -> None:
        while not done.wait(0.5):
            used = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found["peak_gib"] = max(found["peak_gib"], float(used) / 1024)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def plan(name: str, *overrides: str) -> dict[str, Any]:
    """What ``longshort plan`` expects of a config of this folder.

    Raises:
        AssertionError: it could not read the config.
    """
    command = [sys.executable, "-m", "longshort_verl.cli", "plan", "--config-dir", str(HERE), "--config-name", name]
    done = subprocess.run([*command, *overrides, "--json"], cwd=ROOT, capture_output=True, text=True)
    # 1 says that it would not fit, which is an estimate too.
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def write_result(test: str, found: Mapping[str, Any]) -> Path:
    """Put a result into the machine's file, in place of an older one of the same test, with the versions it is of."""
    path = RESULTS / f"{machine()}.json"
    RESULTS.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    versions = {}
    for package in VERSIONS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader", "--id=0"]
    known[test] = {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "gpu": subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip(),
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "versions": versions,
        **found,
    }
    path.write_text(json.dumps(known, indent=2) + "\n")
    return path


def unmoved(before: Path, after: Path) -> list[str]:
    """Names of the projections that are the same in two model folders, element by element.

    Norms and biases are left out: their steps may be too small for bfloat16.
    """
    old, new = _weights(before), _weights(after)
    names = [name for name in old if "proj.weight" in name]
    assert names
    assert set(names) <= set(new)
    return [name for name in names if bool((old[name].float() == new[name].float()).all())]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
