# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Shapes are exact: the published numbers of parameters, from a config alone."""

from __future__ import annotations

import pytest
from transformers import Qwen3MoeConfig

from longshort_verl.adapters.shape import ShapeError, read_shape
from longshort_verl.ops.plan.hardware import GPUS, find_gpu
from tests.ops.plan.jobs import shape


@pytest.mark.parametrize(
    ("name", "params", "embedding", "tied"),
    [
        ("qwen2_5_0_5b", 494_032_768, 151936 * 896, True),
        ("qwen2_5_7b", 7_615_616_512, 152064 * 3584, False),
        ("llama3_1_8b", 8_030_261_248, 128256 * 4096, False),
    ],
)
def test_published_numbers_of_parameters(name, params, embedding, tied):
    found = shape(name)
    assert found.params == params
    assert found.embedding == embedding
    assert found.tied is tied
    # A token is multiplied by all but the embedding, in which it is looked up.
    assert found.active == params - (0 if tied else embedding)


def test_a_layer_by_hand():
    found = shape("llama3_1_8b")
    # q and o 4096 × 4096, k and v 4096 × 1024, gate, up and down 4096 × 14336, two norms of 4096.
    assert found.layer == 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert found.layers * found.layer + 2 * 128256 * 4096 + 4096 == found.params
    # Inputs plus outputs: q, o 8192 each; k, v 5120 each; gate, up, down 18432 each; in 32 layers.
    assert found.adapter_width == 32 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert (found.heads * found.head_dim, found.kv_heads * found.head_dim) == (4096, 1024)


def test_no_config(tmp_path):
    with pytest.raises(ShapeError, match="no config.json could be read for the model"):
        read_shape(str(tmp_path))


def test_no_causal_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ShapeError, match="is not of a causal language model"):
        read_shape(str(tmp_path))


def test_a_mixture_of_experts(tmp_path):
    Qwen3MoeConfig(num_hidden_layers=1, num_experts=2, vocab_size=10).save_pretrained(tmp_path)
    with pytest.raises(ShapeError, match="mixture of experts; only dense models are planned"):
        read_shape(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "found"),
    [("h100", "H100-80GB"), ("4090", "RTX-4090-24GB"), ("a100 80gb", "A100-80GB"), ("L4-24GB", "L4-24GB")],
)
def test_a_gpu_by_the_beginning_of_its_name(name, found):
    assert find_gpu(name).name == found


@pytest.mark.parametrize("name", ["A100", "V100", ""])
def test_a_gpu_that_is_not_one(name):
    with pytest.raises(ValueError, match="give one of"):
        find_gpu(name)


def test_cards_report_less_than_their_name_says():
    for gpu in GPUS:
        assert 0.9 < gpu.memory_gib / float(gpu.name.rsplit("-", 1)[1].removesuffix("GB")) < 1
