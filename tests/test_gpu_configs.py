# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What tests/gpu runs, without a GPU: its configs pass all checks, and its models speak the protocol.

The configs are composed as the jobs compose them, with the same overrides and the files that they name; only the models
are small.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from longshort_verl.adapters.rl.check import check_config, check_files
from longshort_verl.adapters.rl.settings import Schedule, load_tokenizer, role_config
from longshort_verl.adapters.sft.trainer import check_sft
from longshort_verl.dialogue import parse_turn
from longshort_verl.types import Role, TurnKind
from tests.gpu.runs import HERE, prepare_pair, prepare_sft
from tests.gpu.speaking import write_speaking_model
from tests.support.configs import ROOT, compose_config
from tests.support.full_size import build_config

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


@pytest.fixture
def on_gpus(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM")


def test_the_joint_steps_config_passes_every_check(on_gpus, tmp_path):
    overrides = prepare_pair(tmp_path, **SMALL)
    config = compose_config("rl", HERE, f"trainer.default_local_dir={tmp_path}", *overrides)
    settings = check_config(config, cluster={"CPU": 16.0, "GPU": 1.0})
    assert settings.schedule is Schedule.JOINT
    check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))
    # The settings that the base has for GPUs.
    for role in Role:
        policy = role_config(config, role)
        assert policy.model.use_remove_padding
        assert policy.actor.strategy == policy.ref.strategy == "fsdp2"
        assert policy.actor.fsdp_config.param_offload
        assert policy.actor.fsdp_config.optimizer_offload
        assert policy.rollout.free_cache_engine
        assert policy.rollout.gpu_memory_utilization == 0.4
        assert not policy.rollout.enforce_eager
        assert policy.rollout.calculate_log_probs
    assert config.trainer.device == "cuda"


def test_the_sft_steps_config_passes_every_check(on_gpus, tmp_path):
    overrides = prepare_sft(tmp_path, **SMALL)
    config = compose_config("sft", HERE, f"trainer.default_local_dir={tmp_path}", *overrides)
    found = check_sft(config)
    assert found.settings.only is Role.LONG
    # One step.
    assert len(found.train) == config.data.train_batch_size
    assert config.trainer.total_epochs == 1
    assert config.engine.strategy == "fsdp2"
    assert config.model.use_remove_padding
    assert config.trainer.device == "cuda"


@pytest.mark.parametrize("role", Role)
def test_random_weights_speak_the_protocol(role, tmp_path):
    folder = write_speaking_model(tmp_path, role, seed=3, **SMALL)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "8+2+2"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    torch.manual_seed(1)
    written = model.generate(ids.repeat(64, 1), do_sample=True, temperature=1.0, top_k=0, max_new_tokens=32)
    texts = [tokenizer.decode(row[ids.shape[1] :]) for row in written]
    kinds = [parse_turn(role, text).kind for text in texts]
    assert sum(kind is not None for kind in kinds) > 60
    if role is Role.SHORT:
        # Two to one by the grammar, of 64.
        assert 0.4 < kinds.count(TurnKind.ANSWER) / 64 < 0.9
        assert kinds.count(TurnKind.RETHINK) > 0
    # Digits differ, so that a group has something to compare.
    assert len(set(texts)) > 10


def test_the_models_are_of_the_size_that_is_told():
    with torch.device("meta"):
        tied = AutoModelForCausalLM.from_config(build_config("qwen2_5_0_5b"))
        own = AutoModelForCausalLM.from_config(build_config("qwen2_5_0_5b", tie_word_embeddings=False))
    # The second one's output layer: 151,936 tokens of 896 numbers, 136,134,656.
    assert sum(parameter.numel() for parameter in tied.parameters()) == 494_032_768
    assert sum(parameter.numel() for parameter in own.parameters()) == 494_032_768 + 136_134_656 == 630_167_424


@pytest.mark.process
def test_without_a_gpu_they_are_skipped_with_the_reason():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "8 skipped" in done.stdout
    assert "finds no CUDA device: tests/gpu runs real FSDP2 and vLLM on one" in done.stdout


def test_recipes_of_gpu_tests_name_no_machine():
    for name in ("rl", "sft"):
        assert "/tmp" not in OmegaConf.to_yaml(OmegaConf.load(HERE / f"{name}.yaml"))
