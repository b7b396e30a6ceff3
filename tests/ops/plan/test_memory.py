# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Memory by phase, worked by hand, against what autograd really saves, and as properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from longshort_verl.adapters.shape import layer_bytes, read_shape
from longshort_verl.ops.plan.cure import check_fit, first_misfit
from longshort_verl.ops.plan.hardware import GIB
from longshort_verl.ops.plan.memory import Kind, host_memory, kv_bytes_per_token, phases
from tests.ops.plan.jobs import NODE, job, policy

P7 = 7_615_616_512
V7 = 152_064


def named(found, name):
    return next(phase for phase in phases(found) if phase.name == name)


def part(phase, name):
    return next(part.num_bytes for part in phase.parts if part.name == name)


# ------------------------------------------------------------------------------------------ by hand


def test_states_of_an_update_on_eight_devices():
    phase = named(job(), "update long")
    # float32: parameters, gradients and Adam's two averages, 4 + 4 + 8 bytes, an eighth on each device.
    assert part(phase, "long: parameters") == P7 * 4 / 8
    assert part(phase, "long: gradients") == P7 * 4 / 8
    assert part(phase, "long: optimizer") == P7 * 8 / 8
    assert phase.of(Kind.STATES) == P7 * 16 / 8
    # Nothing of the short policy but its engine's CUDA graphs: it waits in main memory.
    assert not [part for part in phase.parts if part.name.startswith("short") and part.kind is not Kind.OVERHEAD]
    # bfloat16 logits of 16384 tokens, once: their gradient takes their place.
    assert part(phase, "long: logits of 16384 tokens") == 16384 * V7 * 2


def test_what_is_not_off_loaded_stays_in_every_phase():
    resting = policy("short", param_offload=False, optimizer_offload=False)
    found = job(policy("long"), resting)
    for name in ("rollout", "log-prob long", "update long", "push long", "push short"):
        phase = named(found, name)
        assert part(phase, "short: optimizer") == P7 * 8 / 8, name
    assert part(named(found, "update long"), "short: parameters") == P7 * 4 / 8
    # A policy that never learns has no optimizer's states.
    frozen = replace(found, policies=(found.policies[0], replace(resting, learns=False)))
    assert named(found, "update long").of(Kind.STATES) - named(frozen, "update long").of(Kind.STATES) == P7 * 8 / 8
    assert "update short" not in [phase.name for phase in phases(frozen)]


def test_engines():
    found = job()
    assert named(found, "rollout").of(Kind.ENGINES) == pytest.approx(2 * 0.4 * 79.1 * GIB)
    assert named(found, "update long").of(Kind.ENGINES) == 0
    # The long policy's engine is wide awake while the short one's gets its weights: 2 bytes, on two devices.
    assert named(found, "push long").of(Kind.ENGINES) == P7 * 2 / 2
    assert named(found, "push short").of(Kind.ENGINES) == pytest.approx(0.4 * 79.1 * GIB + P7 * 2 / 2)
    # Sleeping engines keep their CUDA graphs.
    graphs = part(named(found, "update long"), "long: CUDA graphs of the sleeping engine")
    assert graphs == part(named(found, "push short"), "short: CUDA graphs of the sleeping engine") == 1 * GIB
    # Keys and values, 28 layers, 2 of 4 heads of 128 on each of two devices, 2 bytes.
    assert kv_bytes_per_token(found.policies[0]) == 2 * 28 * 2 * 128 * 2
    # Eight devices, four heads: each device has a whole one.
    wide = replace(found.policies[0], devices=8)
    assert kv_bytes_per_token(wide) == 2 * 28 * 1 * 128 * 2
    # Engines that do not sleep are there in every phase.
    awake = tuple(replace(policy, sleeps=False) for policy in found.policies)
    assert named(job(*awake), "update long").of(Kind.ENGINES) == pytest.approx(2 * 0.4 * 79.1 * GIB)


def test_a_push():
    # Tensor by tensor in float32, through a bucket of 2 GiB; the shards stay in main memory.
    phase = named(job(policy("long")), "push")
    assert phase.of(Kind.GATHERED) == 2 * GIB + 4 * V7 * 3584
    assert phase.of(Kind.STATES) == 0
    resident = named(job(policy("long", param_offload=False)), "push")
    assert resident.of(Kind.STATES) == P7 * 4 / 8


def test_an_adapter():
    # q, o 3584 + 3584, k, v 3584 + 512, gate, up, down 3584 + 18944; 28 layers; rank 32.
    adapter = 32 * 28 * (2 * 7168 + 2 * 4096 + 3 * 22528)
    phase = named(job(policy("long", lora_rank=32)), "update")
    assert part(phase, "long: optimizer") == adapter * 8 / 8
    assert part(phase, "long: gradients") == adapter * 4 / 8
    assert part(phase, "long: parameters") == (P7 + adapter) * 4 / 8


def test_main_memory():
    parts = {part.name: part.num_bytes for part in host_memory(job())}
    # All eight shards of a node together, 1.4 bytes for each.
    assert parts["long: parameters"] == pytest.approx(P7 * 4 * 1.4)
    assert parts["short: optimizer"] == pytest.approx(P7 * 8 * 1.4)
    # Of two nodes each has half; whole models are loaded by one process.
    two = {part.name: part.num_bytes for part in host_memory(job(pool=replace(NODE, nnodes=2)))}
    assert two["long: parameters"] == pytest.approx(P7 * 4 * 1.4 / 2)
    assert parts["loading, or an export"] == P7 * 4
    # Where embeddings are tied, verl lets every process load the model.
    tied = job(policy("long", model="qwen2_5_0_5b"))
    assert {part.name: part.num_bytes for part in host_memory(tied)}["loading, or an export"] == 8 * 494_032_768 * 4


def test_a_model_that_is_sharded_within_a_node():
    # Two copies on 16 devices: each device has an eighth, not a sixteenth.
    phase = named(job(policy("long", pool=replace(NODE, nnodes=2), fsdp_size=8)), "update")
    assert part(phase, "long: parameters") == P7 * 4 / 8


# ------------------------------------------------------------------------------------------ against autograd


@pytest.mark.parametrize("kind", [Qwen2Config, LlamaConfig])
def test_a_layer_keeps_what_autograd_saves(kind, tmp_path):
    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 8, "num_key_value_heads": 2}
    config = kind(**sizes, num_hidden_layers=2, vocab_size=100, head_dim=16)
    config._attn_implementation = "sdpa"  # keeps what flash-attention keeps: no scores between tokens
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    tokens = 64

    def saved(num_layers):
        held = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        model.model.layers = model.model.layers[:num_layers]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model.model(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
        del output
        return sum(size for size, _ in held.values())

    two, one = saved(2), saved(1)
    config.save_pretrained(tmp_path)
    assert layer_bytes(read_shape(str(tmp_path)), 2) == pytest.approx((two - one) / tokens, rel=0.01)


# ------------------------------------------------------------------------------------------ properties

JOBS = st.builds(
    lambda gpu, per_node, model, other, update, log_prob, flags: job(
        *(
            policy(
                name,
                model=which,
                pool=replace(NODE, n_gpus_per_node=per_node),
                max_update_tokens=update,
                max_log_prob_tokens=log_prob,
                param_offload=flags[0],
                optimizer_offload=flags[1],
                checkpointing=flags[2],
                logit_copies=1 + 2 * flags[3],
            )
            for name, which in (("long", model), ("short", other))
        ),
        gpu=gpu,
    ),
    st.sampled_from(["RTX-4090-24GB", "A100-80GB", "H200-141GB"]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(["qwen2_5_7b", "qwen2_5_0_5b", "llama3_1_8b"]),
    st.sampled_from(["qwen2_5_7b", "qwen2_5_0_5b"]),
    st.integers(8192, 65536),
    st.integers(8192, 65536),
    st.tuples(*[st.booleans()] * 4),
)


def totals(found):
    return {phase.name: phase.total for phase in phases(found)}


def trained(found, **settings):
    return replace(found, policies=tuple(replace(policy, **settings) for policy in found.policies))


@given(JOBS)
def test_more_devices_never_need_more_memory_of_each(found):
    pool = found.pools[0]
    for more in (replace(pool, nnodes=2), replace(pool, n_gpus_per_node=2 * pool.n_gpus_per_node)):
        after = totals(replace(found, policies=tuple(replace(policy, pool=more) for policy in found.policies)))
        assert all(after[name] <= total for name, total in totals(found).items())


@given(JOBS)
def test_what_saves_memory_never_costs_any(found):
    before = totals(found)
    for saving in (
        {"param_offload": True, "optimizer_offload": True},
        {"checkpointing": True},
        {"max_update_tokens": 8192, "max_log_prob_tokens": 8192},
    ):
        after = totals(trained(found, **saving))
        assert all(after[name] <= total for name, total in before.items()), saving


@settings(max_examples=20)
@given(JOBS)
def test_parts_are_sizes_and_a_misfit_names_its_first_part(found):
    for phase in phases(found):
        assert all(part.num_bytes >= 0 for part in phase.parts)
        assert sum(phase.of(kind) for kind in Kind) == pytest.approx(phase.total)
    misfit = first_misfit(found)
    assert (check_fit(found) is None) is (misfit is None)
    if misfit is not None:
        assert misfit.first_missing in misfit.parts
