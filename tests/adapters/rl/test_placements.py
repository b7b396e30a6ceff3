# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A job whose two policies run on different nodes; the short one trains a LoRA adapter.

The pair is then exported and talks in engines of its own.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from longshort_verl.adapters.export import export_pair
from longshort_verl.adapters.rl.settings import read_long_short
from longshort_verl.dialogue import run_dialogue
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.problems.read import read_problems
from longshort_verl.types import Dialogue, Role, StopReason
from tests.support.configs import compose_config
from tests.support.engines import engine_environment, tiny_engine
from tests.support.jobs import HALF_A_STEP, MARK, Job, start_job
from tests.support.models import with_other_ids
from tests.support.nodes import HEAD, JOIN_CLUSTER, ONE_DEVICE, nodes

pytestmark = [pytest.mark.job, pytest.mark.alone, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]

MAX_MEAN_DIFFERENCE = 1e-5
PROBS_DIFF = "training/rollout_probs_diff_mean"


@dataclass(frozen=True)
class Placed:
    """A finished job, and the nodes that its parts ran on."""

    job: Job
    ids: tuple[str, ...]
    """Of the two nodes with a device."""
    long: set[str]
    short: set[str]
    """Nodes of the policies' placement groups."""
    workers: list[str]
    servers: tuple[str, str]
    """Nodes of the rollout servers, the long policy's first."""


@pytest.fixture(scope="module")
def placed(tmp_path_factory, root):
    """Both roles learn, each on a node of its own; the short one an adapter, merged on its way to the engine.

    The short model has another tokenizer.
    """
    import make_problems

    folder = tmp_path_factory.mktemp("split")
    short = with_other_ids(root / "recipes" / "tiny_cpu" / "models" / "short", folder / "short_model")
    make_problems.main(folder / "problems", num_train=64, num_val=16, min_steps=2, max_steps=4, seed=3)
    environment = {"VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"), MARK: str(folder)}
    with nodes([HEAD, ONE_DEVICE, ONE_DEVICE], environment) as cluster:
        job = start_split_job(folder, short, f"+ray_kwargs.ray_init.address={cluster.address}", *JOIN_CLUSTER)
        job.wait_for_step(1, timeout=1200)
        (long_nodes,), (short_nodes,) = cluster.bundles("global_pool"), cluster.bundles("short_pool")
        found = Placed(
            job=job,
            ids=cluster.ids[1:],
            long=long_nodes,
            short=short_nodes,
            workers=[actor["Address"]["NodeID"] for actor in cluster.actors("WorkerDict")],
            # Replicas are numbered; the long policy's comes first.
            servers=tuple(cluster.actors(f"server_{replica}_0")[0]["Address"]["NodeID"] for replica in (0, 1)),
        )
        job.process.wait()
        assert job.process.returncode == 0, job.log[-6000:]
    return found


@pytest.fixture(scope="module")
def split(placed):
    """The job itself."""
    return placed.job


def start_split_job(folder, short, *overrides):
    return start_job(
        folder,
        *overrides,
        *HALF_A_STEP,
        "long_short.schedule=joint",
        "long_short.placement=split",
        f"long_short.short.model.path={short}",
        "+long_short.short.model.lora_rank=4",
        "+long_short.short.model.lora_alpha=8",
        "+long_short.short.model.lora.merge=true",
        "+long_short.short.actor.optim.lr=1e-2",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
        # What the long turns are worth, as a term of the row.
        "long_short.reward.importance=0.5",
        f"data.train_files={folder}/problems/train.parquet",
        f"data.val_files={folder}/problems/val.parquet",
        "trainer.total_training_steps=3",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=2",
        f"trainer.rollout_data_dir={folder}/rollouts",
    )


def test_each_policy_runs_on_its_own_node(placed):
    assert placed.long | placed.short == set(placed.ids)
    assert not placed.long & placed.short
    assert sorted(placed.workers) == sorted([*placed.long, *placed.short])
    assert [{node} for node in placed.servers] == [placed.long, placed.short]
    assert placed.job.leftovers(within=60) == []


def test_engines_follow_their_actors_across_devices(split):
    for step in (1, 2, 3):
        for role in ("long", "short"):
            assert split.steps()[step][f"{role}/{PROBS_DIFF}"] < MAX_MEAN_DIFFERENCE, (step, role)
            assert split.steps()[step][f"{role}/actor/grad_norm"] > 0


def test_the_long_rows_reward_has_a_term_of_importance(split):
    for step in (1, 2, 3):
        found = split.steps()[step]
        assert found["importance/measured_turns"] == 1
        terms = {name: found[f"long/reward/{name}"] for name in ("accuracy", "format", "length", "importance")}
        assert terms["importance"] != 0
        # The recipe weighs length by 0.1.
        whole = terms["accuracy"] + terms["format"] + 0.1 * terms["length"] + 0.5 * terms["importance"]
        assert found["long/reward"] == pytest.approx(whole)
        assert found["short/reward/importance"] == 0


def test_an_engine_left_without_the_adapter_would_have_shown(split, tmp_path):
    # What the short engine wrote at step 3, under the model before training and under the adapter that step 2 left.
    rows = [json.loads(line) for line in (split.folder / "rollouts" / "short" / "3.jsonl").read_text().splitlines()]
    texts = [row["input"] + row["output"] for row in rows if row["output"]]
    assert texts
    tokenizer = AutoTokenizer.from_pretrained(split.folder / "short_model")
    _, exported = export_pair(split.folder / "global_step_2", tmp_path)
    before, after = _load(split.folder / "short_model"), _load(exported)
    differences = []
    with torch.no_grad():
        for text in texts:
            tokens = tokenizer(text, return_tensors="pt").input_ids
            probabilities = [
                model(tokens).logits[0, :-1].softmax(-1).gather(-1, tokens[0, 1:, None]) for model in (before, after)
            ]
            differences.append((probabilities[0] - probabilities[1]).abs())
    assert torch.cat(differences).mean() > 10 * MAX_MEAN_DIFFERENCE


def test_an_adapter_is_exported_merged(split, tmp_path):
    _, short = export_pair(split.folder / "global_step_3", tmp_path)
    before, after = _load(split.folder / "short_model"), _load(short)
    changed = {
        name
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert any("q_proj.weight" in name for name in changed)
    assert not any("embed" in name or "norm" in name for name in changed), "an adapter leaves these alone"
    assert not (short / "lora_adapter").exists()


def test_exported_roles_talk_in_engines_of_their_own(split, tmp_path, root):
    long, short = export_pair(split.folder / "global_step_3", tmp_path)
    recipe = compose_config("rl", root / "recipes" / "tiny_cpu")
    settings = read_long_short(OmegaConf.to_container(recipe.long_short, resolve=True)).dialogue
    asked = read_problems(split.folder / "problems" / "val.parquet", source="val")

    async def talk() -> list[Dialogue]:
        engine = tiny_engine(1024)
        async with VLLMGenerator(str(long), engine) as thinks, VLLMGenerator(str(short), engine) as answers:
            generators = {Role.LONG: thinks, Role.SHORT: answers}
            return await asyncio.gather(
                *(run_dialogue(p, generators, settings, temperature=1.0, seed=1) for p in asked)
            )

    with engine_environment():
        dialogues = asyncio.run(talk())
    # Weights or a tokenizer that went astray write no tag.
    assert sum(dialogue.stop_reason is StopReason.ANSWERED for dialogue in dialogues) > 0.8 * len(asked)


def _load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
