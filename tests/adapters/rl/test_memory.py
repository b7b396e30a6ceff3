# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Main memory on a machine without GPU: by hand, against jobs that ran, and against what verl's functions allocate."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from torch.profiler import ProfilerActivity, profile
from verl.utils import tensordict_utils as tu
from verl.utils.experimental.torch_functional import FusedLinearForPPO
from verl.utils.torch_functional import entropy_from_logits
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from longshort_verl.adapters.rl import memory
from longshort_verl.adapters.rl.check import PreflightCallback
from longshort_verl.adapters.rl.memory import (
    GIB,
    CpuJob,
    CpuPolicy,
    check_fit,
    check_memory,
    estimate,
    logits_bytes,
    pass_parts,
    read_cpu_job,
    total,
)
from longshort_verl.adapters.shape import read_shape
from longshort_verl.config.compose import ConfigError
from longshort_verl.ops.doctor import job as doctor
from longshort_verl.ops.plan.hardware import find_gpu
from longshort_verl.ops.plan.job import read_job
from tests.support.configs import ROOT, compose_config, tiny_config
from tests.support.model_configs import write_model_config

MACHINE = 24_105 << 20  # "24 GiB", as psutil counts it on the machine of the measured jobs
TOKENS = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
LENGTHS = (
    "long_short.dialogue.max_dialogue_tokens=768",
    "actor_rollout_ref.model.enable_gradient_checkpointing=true",
    "data.max_prompt_length=256",
    "data.max_response_length=768",
    "long_short.schedule=joint",
)


@pytest.fixture(scope="module")
def smollm(tmp_path_factory):
    return write_model_config(tmp_path_factory.mktemp("models"), "smollm2_135m")


@pytest.fixture
def laptop(smollm, tiny_problems):
    """Two SmolLM2-135M that both learn; further arguments are overrides."""
    return lambda *overrides: tiny_config({"long": smollm, "short": smollm}, tiny_problems, *LENGTHS, *overrides)


@pytest.fixture
def policy(smollm):
    shape = read_shape(str(smollm))
    return CpuPolicy(name="long", shape=shape, update_tokens=4096, forward_tokens=4096, row_tokens=1024)


def sizes(job):
    return {part.name: part.num_bytes / GIB for part in estimate(job)}


# ------------------------------------------------------------------------------------------ by hand

PARAMS = 134_515_008


def test_the_parts_of_two_small_models(policy):
    parts = sizes(CpuJob(policies=(policy, replace(policy, name="short"))))
    # Driver, trainer, controller; 3 workers; for each policy a balancer, an actor, a server, a core, an engine: 16.
    assert parts["16 processes"] == pytest.approx(16 * 0.6 + 0.7)
    # For each engine 1 GiB of cache, and the float32 weights twice.
    assert parts["engines"] == pytest.approx(2 * (1 + 2 * 4 * PARAMS / GIB))
    assert parts["parameters"] == pytest.approx(2 * 4 * PARAMS / GIB)
    assert parts["optimizers"] == pytest.approx(2 * 8 * PARAMS / GIB)
    # 4096 tokens × 49152 words × 4 bytes are 0.75 GiB; 3.5 copies, and 1.9 of rows padded by a half.
    assert parts["long update: logits of 4096 tokens"] == pytest.approx(0.75 * (3.5 + 1.9 * 1.5))
    assert len(parts) == 6


def test_the_layers_of_an_update(policy):
    packed = replace(policy, packed=True)
    # Inputs of 30 layers of 576 values; within a layer both norms 13,832 bytes, attention 8 × 12 × 64 + 36, the
    # feed-forward part 16 × 1536, and at once 4 × (3 × 1536 + 4 × 576).
    of_token = 30 * 576 * 4 + 13_832 + 8 * 12 * 64 + 36 + 16 * 1536 + 4 * (3 * 1536 + 4 * 576)
    # Gathered: embedding, two layers of 3,540,096; the embedding's gradients before and after the sum; all gradients.
    gathered = 4 * (49152 * 576 + 2 * 3_540_096) + 8 * 49152 * 576 + 4 * PARAMS
    layers, _ = pass_parts(packed, backward=True)
    assert layers.num_bytes == pytest.approx(4096 * of_token + gathered)
    # An adapter: inputs and outputs of the linear maps (q, o 1152 each; k, v 768 each; three of 2112) × rank.
    adapter = 16 * 30 * (2 * 1152 + 2 * 768 + 3 * 2112)
    layers, _ = pass_parts(replace(packed, lora_rank=16), backward=True)
    gathered = 4 * (49152 * 576 + 2 * 3_540_096) + 8 * adapter / 30 + 4 * adapter
    assert layers.num_bytes == pytest.approx(4096 * of_token + gathered)


def test_who_needs_what(policy):
    pair = CpuJob(policies=(policy, replace(policy, name="short")))
    both = total(estimate(pair))

    def saved(**changes):
        return (both - total(estimate(replace(pair, policies=(policy, replace(policy, **changes)))))) / GIB

    # A role that never learns has no optimizer.
    assert saved(learns=False) == pytest.approx(8 * PARAMS / GIB)
    assert saved(has_reference=True) == pytest.approx(-4 * PARAMS / GIB)
    # An adapter's optimizer is 4 % of the whole one.
    assert sizes(replace(pair, policies=(replace(policy, lora_rank=16),)))["optimizers"] == pytest.approx(
        0.036, abs=0.001
    )
    # Policies on devices of their own are updated at the same time.
    assert len(estimate(replace(pair, parallel=True))) == 8
    # Two workers: two actors, engines' workers, servers and cores, each with its pass.
    more = sizes(CpuJob(policies=(replace(policy, slots=2, engines=2),)))
    one = sizes(CpuJob(policies=(policy,)))
    assert more["15 processes"] - one["11 processes"] == pytest.approx(4 * 0.6)
    assert more["long update: logits of 4096 tokens"] == 2 * one["long update: logits of 4096 tokens"]
    # A frozen pair only computes log-probabilities: logits, softmax and product.
    frozen = sizes(CpuJob(policies=(replace(policy, learns=False),)))
    assert frozen["long log-probabilities: logits of 4096 tokens"] == pytest.approx(3 * 1.5 * 0.75)


# ------------------------------------------------------------------------------------------ jobs that ran


def test_the_job_that_ran_out_of_memory_is_refused(laptop):
    report = check_memory(laptop(f"{TOKENS}=4096"), MACHINE)
    assert report.status == "failure"
    assert str(report).splitlines() == [
        "this machine has 23.5 GiB of main memory, but the job needs about 23.7 GiB: 16 processes 10.3, engines 4.0, "
        "parameters 1.0, optimizers 2.0, long update: layers 1.7, long update: logits of 4096 tokens 4.8",
        f"  set {TOKENS}=2048: then about 20.9 GiB",
        "  actor_rollout_ref.model.lora_rank=16 needs no gradients and optimizer of all parameters",
    ]


def test_the_job_that_ran_is_accepted(laptop):
    config = laptop(f"{TOKENS}=1536")
    assert check_memory(config, MACHINE).status == "ok"
    # It took 18 GiB.
    assert total(estimate(read_cpu_job(config))) / GIB == pytest.approx(18, rel=0.15)


@pytest.mark.parametrize("name", ["rl", "rl_pair", "rl_paper"])
def test_the_smallest_recipes_fit_on_what_they_ask_for(name, tiny_models):
    models = (
        f"actor_rollout_ref.model.path={tiny_models['long']}",
        f"long_short.short.model.path={tiny_models['short']}",
    )
    config = compose_config(name, ROOT / "recipes" / "tiny_cpu", *models)
    assert check_memory(config, 14 * GIB).status == "warning"
    assert check_memory(config, 16e9).status == "ok"
    assert check_memory(config, 12 * GIB).status == "failure"


# ------------------------------------------------------------------------------------------ settings and cures


def test_an_adapter_fits_where_all_parameters_do_not(laptop):
    adapter = ("actor_rollout_ref.model.lora_rank=16", f"{TOKENS}=4096")
    report = check_memory(laptop(*adapter), MACHINE)
    assert report.status == "ok"
    assert "optimizers 0.1" in report.found
    assert "lora_rank" not in str(check_memory(laptop(*adapter), 20 * GIB))


@pytest.mark.parametrize(
    ("gib", "overrides", "cure"),
    [
        (23.5, [f"{TOKENS}=8192"], [f"{TOKENS}=2048"]),
        # Even micro-batches of one row are not enough without chunks.
        (21.5, [f"{TOKENS}=4096"], [f"{TOKENS}=2304", "actor_rollout_ref.model.use_fused_kernels=true"]),
        (
            23.5,
            [f"{TOKENS}=4096", "actor_rollout_ref.model.enable_gradient_checkpointing=false"],
            [f"{TOKENS}=2048", "actor_rollout_ref.model.enable_gradient_checkpointing=true"],
        ),
        (24, ["++long_short.short.actor.ppo_max_token_len_per_gpu=8192", f"{TOKENS}=1024"],
         ["long_short.short.actor.ppo_max_token_len_per_gpu=2304"]),
    ],
)  # fmt: skip
def test_the_cure_cures(gib, overrides, cure, laptop):
    report = check_memory(laptop(*overrides), gib * GIB)
    assert report.status == "failure"
    settings = report.cure.splitlines()[0].removeprefix("  set ").partition(":")[0].split()
    assert settings == cure
    assert check_memory(laptop(*overrides, *(f"++{one}" for one in settings)), gib * GIB).status == "ok"


def test_what_no_setting_cures(laptop):
    report = check_memory(laptop(f"{TOKENS}=4096"), 16 * GIB)
    assert report.cure.splitlines()[0] == (
        f"  {TOKENS}=1024 actor_rollout_ref.model.use_fused_kernels=true needs about 19.1 GiB, still too much"
    )


def test_what_the_config_says(laptop):
    config = laptop(
        "actor_rollout_ref.model.use_remove_padding=true",
        "actor_rollout_ref.actor.use_kl_loss=true",
        "actor_rollout_ref.actor.entropy_coeff=0.1",
        "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=6000",
        "long_short.schedule=long_only",
        "long_short.short_pool.n_gpus_per_node=2",
        "long_short.placement=split",
        "++long_short.short.model.lora_rank=8",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=2",
        f"{TOKENS}=5000",
    )
    job = read_cpu_job(config, {memory.KVCACHE: "3"})
    long, short = job.policies
    assert (job.workers, job.cache_gib, job.parallel) == (4, 3, True)
    assert (long.packed, long.entropy, long.learns, long.has_reference, long.lora_rank) == (True, True, True, True, 0)
    assert (short.learns, short.has_reference, short.lora_rank, short.slots, short.engines) == (False, False, 8, 2, 2)
    assert (long.update_tokens, long.forward_tokens, short.forward_tokens, long.row_tokens) == (5000, 6000, 5000, 1024)
    assert dict(job.token_keys) == {TOKENS: 5000, "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu": 6000}
    shared = read_cpu_job(laptop("long_short.policies=shared", "data.train_batch_size=1", f"{TOKENS}=999999"))
    assert [one.name for one in shared.policies] == ["shared"]
    # One prompt, 8 rollouts, a row of each role: no more tokens than that.
    assert shared.policies[0].update_tokens == 2 * 8 * 1024
    with pytest.raises(ConfigError, match="VLLM_CPU_KVCACHE_SPACE is 'half'; set it to whole GiB"):
        read_cpu_job(config, {memory.KVCACHE: "half"})


def test_a_large_cache_is_named(policy):
    report = check_fit(CpuJob(policies=(policy,), cache_gib=12), 24 * GIB)
    assert "VLLM_CPU_KVCACHE_SPACE=1 leaves an engine 1 GiB for its cache instead of 12" in report.cure


def test_other_machines_are_not_judged(laptop, monkeypatch, tmp_path):
    # A cluster has memory of its own, and a model without a config is named by another check.
    assert check_memory(laptop("+ray_kwargs.ray_init.address=auto"), GIB) is None
    assert check_memory(laptop(f"actor_rollout_ref.model.path={tmp_path}"), GIB) is None
    monkeypatch.delenv("VERL_PLATFORM")
    assert check_memory(laptop(), GIB) is None


def test_plan_adds_main_memory_on_a_cpu(laptop):
    (note,) = read_job(laptop(f"{TOKENS}=4096"), find_gpu("H100-80GB")).notes
    assert note.startswith("on a machine without GPU the job needs about 23.7 GiB: 16 processes 10.3, engines 4.0, ")
    assert read_job(laptop("trainer.device=cuda"), find_gpu("H100-80GB")).notes == ()


def test_preflight_and_doctor_say_the_same(tiny_models, tiny_problems, monkeypatch, caplog):
    config = tiny_config(tiny_models, tiny_problems)

    def said(gib):
        monkeypatch.setattr(memory, "machine_memory", lambda: gib * GIB)
        findings = doctor.job_findings(doctor.Job(arguments=(), config=config), {}, 0)
        return next(finding for finding in findings if finding.name == "job's memory")

    finding = said(12)
    with pytest.raises(SystemExit) as ended:
        PreflightCallback().on_job_start(config)
    assert finding.status == "failure"
    assert ended.value.code == f"longshort: {finding.found}\n{finding.cure}"
    finding = said(14)
    with caplog.at_level(logging.WARNING):
        PreflightCallback().on_job_start(config)
    assert finding.status == "warning"
    assert f"{finding.found}\n{finding.cure}" in caplog.text
    assert "from 95 % of it Ray ends processes" in finding.found
    assert said(24).status == "ok"


# ------------------------------------------------------------------------------------------ against verl's functions

VOCAB, HIDDEN = 4000, 8


def most_allocated(profile):
    """Most bytes that the allocator held at once, beside what was there before."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))


def verl_pass(lengths, *, packed, fused, backward, entropy):
    """Peak of verl's own log-probabilities of rows of these lengths, and their backward pass; its values too."""
    engine = object.__new__(FSDPEngineWithLMHead)
    engine.pad_to_length = engine.use_ulysses_sp = False
    engine.ulysses_sequence_parallel_size = 1
    engine.engine_config = types.SimpleNamespace(
        entropy_checkpointing=False, entropy_from_logits_with_chunking=False, pad_to_length=False
    )
    engine.compute_entropy_from_logits = entropy_from_logits
    torch.manual_seed(0)
    ids, offsets = torch.randint(VOCAB, (sum(lengths),)), torch.tensor([0, *lengths]).cumsum(0)
    jagged = torch.nested.nested_tensor_from_jagged
    rows = TensorDict({"input_ids": jagged(ids, offsets), "position_ids": jagged(ids, offsets)}, [len(lengths)])
    settings = {"use_remove_padding": packed, "use_fused_kernels": fused}
    tu.assign_non_tensor(rows, **settings, calculate_entropy=bool(entropy), temperature=1.0)
    table, head = torch.randn(VOCAB, HIDDEN), torch.randn(VOCAB, HIDDEN, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as peak, torch.set_grad_enabled(backward):
        inputs, given = engine.prepare_model_inputs(rows)
        hidden = table[inputs["input_ids"]].requires_grad_()
        if fused:
            labels = torch.roll(inputs["input_ids"], -1, -1)
            log_probs, entropies = FusedLinearForPPO()(hidden, head, labels)
            output = types.SimpleNamespace(log_probs=log_probs, entropy=entropies)
        else:
            output = types.SimpleNamespace(logits=hidden @ head.t())
        result = engine.prepare_model_outputs(output, given, rows, None)
        output = None
        if backward:
            entropies = 0.1 * result["entropy"].values().sum() if entropy else 0
            (result["log_probs"].values().sum() + entropies).backward()
    return most_allocated(peak)


@pytest.mark.parametrize("lengths", [[96, 96, 96, 96], [192, 64, 64, 64]])
@pytest.mark.parametrize(("packed", "backward", "entropy"), [
    (False, True, False),
    (True, True, False),
    (False, False, True),
    (True, False, True),
    (False, True, True),
])  # fmt: skip
def test_logits_take_what_verl_allocates(lengths, packed, backward, entropy, policy, monkeypatch):
    tokens = sum(lengths)
    monkeypatch.setattr(memory, "PADDING", max(lengths) * len(lengths) / tokens)
    shape = replace(policy.shape, vocab=VOCAB, embedding=VOCAB * HIDDEN)
    counted = logits_bytes(
        replace(policy, shape=shape, packed=packed, entropy=entropy and backward), tokens, backward=backward
    )
    peak = verl_pass(lengths, packed=packed, fused=False, backward=backward, entropy=entropy)
    # Without allocations by row, the heap keeps nothing.
    assert 0.99 * peak <= counted <= (1.5 if backward else 1.01) * peak + 1e5


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_fused_head_takes_its_chunks(packed, backward, policy):
    shape = replace(policy.shape, vocab=VOCAB, embedding=VOCAB * HIDDEN)
    fused = replace(policy, shape=shape, fused=True, entropy=True)
    peak = verl_pass([512, 512], packed=packed, fused=True, backward=backward, entropy=True)
    assert logits_bytes(fused, 1024, backward=backward) == pytest.approx(peak, rel=0.03)


FREED = """
import ctypes, json, psutil
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
def filled(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block
libc.free(filled(16 << 20))  # from now on, glibc's own threshold is 16 MiB
activations, between = [], []
for _ in range(50):
    activations.append(filled(6 << 20))
    between.append(filled(100_000))
full = psutil.Process().memory_info().rss
for block in activations:
    libc.free(block)
print(json.dumps([full, psutil.Process().memory_info().rss]))
"""
"""Frees 300 MiB of activations, none of the blocks between them, and prints its memory before and after.

A block between is too large for the holes that Python's own start leaves in the heap.
"""


def test_a_worker_gives_back_what_an_update_has_freed(laptop):
    ours = laptop().ray_kwargs.ray_init.runtime_env.env_vars
    given_back = {}
    for name, more in (("glibc", {}), ("ours", dict(ours))):
        plain = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        done = subprocess.run(
            [sys.executable, "-c", FREED], env={**plain, **more}, check=True, capture_output=True, text=True
        )
        full, after = json.loads(done.stdout)
        given_back[name] = (full - after) / (300 << 20)
    assert given_back["glibc"] < 0.1
    assert given_back["ours"] > 0.9
