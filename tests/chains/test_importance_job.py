# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort importance`` with real vLLM on the solo model's own chains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from longshort_verl.chains.config import read_importance
from longshort_verl.files.manifest import read_manifest
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.types import Message, Sampling
from tests.bench.importance import RECIPE, auc, is_step, own_traces
from tests.support.configs import ROOT
from tests.support.engines import engine_environment

pytestmark = [pytest.mark.job, pytest.mark.timeout(900)]

SOLO = ROOT / "recipes" / "tiny_cpu" / "models" / "solo"
NUM_TRACES = 24


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of chains that the model wrote, and what an engine of its own says of likelihoods."""
    folder = tmp_path_factory.mktemp("traces")
    config = read_importance(RECIPE, [f"model.path={SOLO}"])

    async def run():
        async with VLLMGenerator(str(SOLO), config.model.vllm) as generator:
            traces = await own_traces(generator, NUM_TRACES, seed=2)
            asked = [Message(role="user", content="3+4*2"), Message(role="assistant", content="<think>7*2</think>")]
            likelihoods = {
                text: await generator.likelihood(asked, text) for text in (f"\\boxed{{{digit}" for digit in range(10))
            }
            greedy = await generator.generate(asked, Sampling(max_tokens=16, temperature=0.0))
            return traces, likelihoods, greedy.text

    with engine_environment():
        traces, likelihoods, greedy = asyncio.run(run())
    path = folder / "traces.jsonl"
    path.write_text(
        "".join(
            json.dumps({"problem": t.problem.prompt, "answer": t.problem.answer, "trace": t.text}) + "\n"
            for t in traces
        )
    )
    return path, likelihoods, greedy


def test_likelihoods_are_the_models_own(written):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, likelihoods, greedy = written
    model = AutoModelForCausalLM.from_pretrained(SOLO, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(SOLO)
    prompt = tokenizer.encode("<|user|>3+4*2<|im_end|><|assistant|><think>7*2</think>", add_special_tokens=False)
    for text, found in likelihoods.items():
        ids = tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            logs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        expected = sum(logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids))
        assert found.log_prob == pytest.approx(expected, abs=1e-3)
        assert found.num_tokens == len(ids)
        assert found.num_prompt_tokens == sum(len(prompt) + i for i in range(len(ids)))
    assert greedy.startswith(max(likelihoods, key=lambda text: likelihoods[text].log_prob))


def command(traces, out, *overrides):
    return [
        sys.executable,
        "-m",
        "longshort_verl.cli",
        "importance",
        str(traces),
        "--out",
        str(out),
        "--recipe",
        str(RECIPE),
        f"model.path={SOLO}",
        *overrides,
    ]


@pytest.fixture(scope="module")
def scored(written, tmp_path_factory):
    """All traces, scored by the command."""
    traces, _, _ = written
    out = tmp_path_factory.mktemp("scored") / "importance"
    return out, score(traces, out)


def score(traces, out, *overrides):
    """Run the command; what it prints."""
    with engine_environment():
        environment = {**os.environ, "VERL_PLATFORM": "cpu", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        done = subprocess.run(
            command(traces, out, *overrides), env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_working_steps_rank_above_checks(scored):
    out, shown = scored
    rows = [json.loads(line) for line in (out / "importance.jsonl").read_text().splitlines()]
    steps = [(is_step(t["text"]), t["importance"]["score"]) for row in rows for t in row["thoughts"]]
    assert auc(steps) >= 0.95
    summary = read_manifest(out)["counts"]
    assert f"{summary['num_rollouts'] / NUM_TRACES:.1f}" in shown
    assert summary["outcomes"] == {"scored": NUM_TRACES}
    assert summary["hit_rate"] > 0.9


def test_report(scored):
    out, _ = scored
    done = subprocess.run(
        [sys.executable, "-m", "longshort_verl.cli", "report", "importance", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "value after" in done.stdout
    page = (out / "importance.html").read_text()
    assert page.count('class="thought"') > 3
    assert (out / "importance.png").stat().st_size > 20_000


@pytest.mark.alone
@pytest.mark.slow
def test_kill_9_loses_and_repeats_no_rollout(written, scored, tmp_path):
    traces, _, _ = written
    with engine_environment():
        environment = {**os.environ, "VERL_PLATFORM": "cpu"}
        killed = subprocess.Popen(command(traces, tmp_path), env=environment, start_new_session=True)
        journal = tmp_path / "journal.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
            assert killed.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    before = {one["key"]: one["value"] for one in records(tmp_path)}
    score(traces, tmp_path)
    keys = [one["key"] for one in records(tmp_path)]
    assert len(keys) == len(set(keys)), "none twice"
    assert 39 <= len(before) < len(keys)
    after = {one["key"]: one["value"] for one in records(tmp_path)}
    assert all(after[key] == value for key, value in before.items()), "none lost"
    summary = read_manifest(tmp_path)["counts"]
    assert summary["num_rollouts"] == sum("/rollout/" in key for key in keys)
    assert summary["outcomes"] == {"scored": NUM_TRACES}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.nightly
def test_verls_rollout_servers_say_the_same(written, scored, tmp_path):
    """Two traces on a Ray cluster: as likely, and the same rollouts from the same seeds, as from vLLM alone."""
    traces, _, _ = written
    few = tmp_path / "few.jsonl"
    few.write_text("".join(f"{line}\n" for line in traces.read_text().splitlines()[:2]))
    score(few, tmp_path / "out", "model.engine=ray")
    own, ray = ({one["key"]: one["value"] for one in records(folder)} for folder in (scored[0], tmp_path / "out"))
    shared = own.keys() & ray.keys()
    likely = [key for key in shared if "/likelihood/" in key]
    rollouts = [key for key in shared if "/rollout/" in key]
    assert len(likely) > 40
    assert len(rollouts) > 20
    assert all(own[key]["likelihood"] == pytest.approx(ray[key]["likelihood"], abs=1e-3) for key in likely)
    # Another batch rounds differently, which a draw may notice.
    assert sum(own[key]["right"] == ray[key]["right"] for key in rollouts) > 0.98 * len(rollouts)
    assert read_manifest(tmp_path / "out")["counts"]["hit_rate"] > 0.8


def records(folder):
    """Of a journal, without its head and without a line that was cut short."""
    lines = (folder / "journal.jsonl").read_text().split("\n")[1:-1]
    return [json.loads(line) for line in lines]
