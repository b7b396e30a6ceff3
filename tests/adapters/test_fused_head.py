# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's fused kernels on a CPU: the same log-probabilities, entropies and gradients as without them, under FSDP2."""

from __future__ import annotations

import re
import types

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from tensordict import TensorDict
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import fsdp_utils
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from longshort_verl.adapters import compat
from tests.support.model_configs import write_model_config

LENGTHS = (40, 25, 60)
VOCAB = 1000


@pytest.fixture(scope="module")
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.fixture
def step(mesh, monkeypatch):
    """A function that returns log-probabilities, entropies and gradients of one micro-batch."""

    def run(*, tied, lora, fused, packed):
        # verl replaces the class's forward.
        monkeypatch.setattr(LlamaForCausalLM, "forward", FORWARD)
        torch.manual_seed(0)
        shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": VOCAB}
        config = LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=tied)
        config._attn_implementation = "sdpa"
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        apply_monkey_patch(model, use_remove_padding=packed, use_fused_kernels=fused, fused_kernels_backend="torch")
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if lora:
            model.enable_input_require_grads()
            adapter = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
            model = get_peft_model(model, adapter)
        fsdp_utils.apply_fsdp2(model, {"mesh": mesh, "reshard_after_forward": True}, {})
        log_probs, entropy = _outputs(model.train(), fused=fused, packed=packed)
        (entropy.sum() / 10 - log_probs.sum()).backward()
        gradients = [weight.grad.full_tensor().flatten() for weight in model.parameters() if weight.grad is not None]
        return {"log_probs": log_probs.detach(), "entropy": entropy.detach(), "gradients": torch.cat(gradients)}

    return run


FORWARD = LlamaForCausalLM.forward


def _outputs(model, *, fused, packed):
    """What verl's engine makes of three rows; without a row's last token, whose label is not in the row."""
    engine = object.__new__(FSDPEngineWithLMHead)
    engine.pad_to_length = engine.use_ulysses_sp = False
    engine.ulysses_sequence_parallel_size = 1
    engine.engine_config = types.SimpleNamespace(
        entropy_checkpointing=False, entropy_from_logits_with_chunking=False, pad_to_length=False
    )
    engine.compute_entropy_from_logits = entropy_from_logits
    ids = torch.randint(VOCAB, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    offsets, jagged = torch.tensor([0, *LENGTHS]).cumsum(0), torch.nested.nested_tensor_from_jagged
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    rows = TensorDict({"input_ids": jagged(ids, offsets), "position_ids": jagged(positions, offsets)}, [len(LENGTHS)])
    settings = {"use_remove_padding": packed, "use_fused_kernels": fused}
    tu.assign_non_tensor(rows, **settings, calculate_entropy=True, temperature=0.7)
    inputs, given = engine.prepare_model_inputs(rows)
    outputs = engine.prepare_model_outputs(model(**inputs, use_cache=False), given, rows, None)
    kept = torch.ones(sum(LENGTHS), dtype=torch.bool)
    kept[offsets[1:] - 1] = False
    return outputs["log_probs"].values()[kept], outputs["entropy"].values()[kept]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [False, True])
def test_fused_kernels_change_nothing_but_memory(tied, lora, step):
    plain = step(tied=tied, lora=lora, fused=False, packed=False)
    assert len(plain["log_probs"]) == 40 + 25 + 60 - 3
    for packed in (False, True):
        fused = step(tied=tied, lora=lora, fused=True, packed=packed)
        for name, values in plain.items():
            torch.testing.assert_close(fused[name], values, rtol=1e-4, atol=1e-5)


def test_only_a_fused_head_joins_the_root():
    def targets(fused, tied=False):
        config = LlamaConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
        )
        config.tie_word_embeddings = tied
        model = LlamaForCausalLM(config)
        if fused:
            model._verl_fused_kernels_backend = "torch"
        names = {module: name for name, module in model.named_modules()}
        return [names[one] for one in fsdp_utils._select_fsdp2_wrap_targets(model, ["LlamaDecoderLayer"])]

    assert targets(fused=False) == ["model.embed_tokens", "model.layers.0", "lm_head"]
    assert targets(fused=True) == ["model.embed_tokens", "model.layers.0"]
    assert targets(fused=True, tied=True) == ["model.layers.0"]


@pytest.mark.parametrize(
    ("shape", "said"), [("qwen2_5_7b", "tie_word_embeddings is false.*7520"), ("qwen2_5_0_5b", "")]
)
def test_on_gpus_an_untied_head_is_refused(shape, said, tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM")
    model = OmegaConf.create({"path": str(write_model_config(tmp_path, shape)), "use_fused_kernels": True})
    assert re.search(said, compat.fused_head_fault(model, "fsdp2"))
    assert bool(compat.fused_head_fault(model, "fsdp2")) is bool(said)
    assert compat.fused_head_fault(model, "fsdp") == ""
    model.use_fused_kernels = False
    assert compat.fused_head_fault(model, "fsdp2") == ""
