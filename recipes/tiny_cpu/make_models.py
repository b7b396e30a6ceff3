# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Rebuild the models of this recipe: ``python recipes/tiny_cpu/make_models.py --out recipes/tiny_cpu/models``.

Builds two tiny Qwen2 models with random weights and a byte tokenizer, writes dialogues of the toy task, trains each
role on its own transcripts with verl's own SFT trainer, and exports both as Hugging Face folders in bfloat16. The pair
follows the protocol and is correct about half of the time, so RL can improve it. Two more models continue from the long
role and learn to think alone: ``solo`` in very long chains, ``thinker`` in long ones. Each model sees each of its
dialogues once. The build takes about fifty minutes on two cores.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from task import (
    HEAD_SLIP_SHARE,
    RECHECK_SHARE,
    SOLO_STEPS,
    THINKER_RECHECK_SHARE,
    dialogue,
    sample_problem,
    solve,
    trace,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from longshort_verl.dialogue import PROTOCOL_TAGS

HERE = Path(__file__).resolve().parent
SHAPES = {
    "long": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4},
    "short": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 3},
}
"""Shapes of the two role models, which differ in size as a user's models may."""
LONG_CHAINS = ("solo", "thinker")
"""The models that think alone; each is trained from the long role, which knows arithmetic."""
MAX_POSITIONS = 8192
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Phase:
    """Training on dialogues of one kind, each seen once."""

    steps: int
    """Optimizer steps."""
    batch_size: int = 64
    """Dialogues per step."""
    lr: float = 2e-3
    """Peak learning rate."""
    max_steps: int = 6
    """Maximal number of operations of a problem; the minimum is 2."""
    recheck_share: float = 0.0
    """Long chains: probability of another check."""
    cut_share: float = 0.0
    """Long chains: share that stops early and still answers."""
    slip_share: float = 0.0
    """Long chains: share of wrong steps among those that are then computed without being written."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte tokenizer with one token for each tag of the protocol."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in PROTOCOL_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=control[2:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
    )


def build_model(role: str, tokenizer: PreTrainedTokenizerFast, seed: int, out: Path) -> None:
    """Write a role's model with random weights and its tokenizer as a Hugging Face folder."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPES[role],
    )
    Qwen2ForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_dialogues(role: str, phase: Phase, seed: int, path: Path) -> None:
    """Write the transcripts that one model needs for a phase, in verl's ``messages`` schema."""
    rng = random.Random(seed)
    problems = [sample_problem(rng, 2, phase.max_steps) for _ in range(phase.steps * phase.batch_size)]
    if role in LONG_CHAINS:
        shares = (phase.recheck_share, phase.cut_share, phase.slip_share)
        replies = [trace(solve(problem), rng, *shares, thinker=role == "thinker") for problem in problems]
        rows = [
            [{"role": "user", "content": problem}, {"role": "assistant", "content": reply}]
            for problem, reply in zip(problems, replies, strict=True)
        ]
    else:
        rows = [dialogue(problem, rng)[role] for problem in problems]
    pd.DataFrame({"messages": rows}).to_parquet(path)


def train(data: Path, model: Path, phase: Phase, seed: int, out: Path) -> Path:
    """Run verl's SFT trainer on transcripts; returns the folder of its Hugging Face export."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += ["-m", "verl.trainer.sft_trainer", f"--config-dir={HERE}", "--config-name=sft"]
    command += [
        f"data.train_files={data}",
        f"data.train_batch_size={phase.batch_size}",
        f"optim.lr={phase.lr}",
        f"model.path={model}",
        f"trainer.default_local_dir={out}",
        f"trainer.total_training_steps={phase.steps}",
        f"trainer.save_freq={phase.steps}",
        f"trainer.seed={seed}",
        f"hydra.run.dir={out}/hydra",
    ]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(command, env=environment, check=True)
    return out / f"global_step_{phase.steps}" / "huggingface"


def main(
    out: Annotated[Path, typer.Option(help="Folder for the models, one subfolder each.")],
    steps_long: Annotated[int, typer.Option(help="Optimizer steps of the long role.")] = 550,
    steps_short: Annotated[int, typer.Option(help="Optimizer steps of the short role.")] = 700,
    steps_solo: Annotated[int, typer.Option(help="Optimizer steps of the solo model on chains with few checks.")] = 700,
    steps_checks: Annotated[
        int, typer.Option(help="Optimizer steps of the solo model on chains with more checks.")
    ] = 120,
    steps_chains: Annotated[
        int, typer.Option(help="Optimizer steps of the solo model on chains of the final length.")
    ] = 220,
    steps_thinker: Annotated[int, typer.Option(help="Optimizer steps of the thinker on chains with few checks.")] = 800,
    steps_waste: Annotated[
        int, typer.Option(help="Optimizer steps of the thinker on chains of the final length.")
    ] = 150,
    only: Annotated[list[str] | None, typer.Option(help="Models to build. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and dialogues.")] = 1,
) -> None:
    """Build, train and export the models; ``solo`` and ``thinker`` need the exported long role."""
    plan = {
        "long": [Phase(steps_long)],
        "short": [Phase(steps_short)],
        "solo": [
            # Chains full of checks teach little arithmetic, so chains with few checks come first.
            Phase(steps_solo, max_steps=3, recheck_share=0.3, cut_share=0.8),
            Phase(steps_checks, max_steps=SOLO_STEPS, recheck_share=0.9, cut_share=0.8),
            Phase(
                steps_chains,
                batch_size=16,
                lr=3e-4,
                max_steps=SOLO_STEPS,
                recheck_share=RECHECK_SHARE,
                cut_share=0.5,
                slip_share=HEAD_SLIP_SHARE,
            ),
        ],
        "thinker": [
            Phase(steps_thinker, max_steps=3, recheck_share=0.15, cut_share=0.5),
            Phase(
                steps_waste,
                batch_size=32,
                lr=1e-3,
                max_steps=3,
                recheck_share=THINKER_RECHECK_SHARE,
                cut_share=0.5,
                slip_share=HEAD_SLIP_SHARE,
            ),
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tokenizer = build_tokenizer()
        for role, phases in plan.items():
            if only and role not in only:
                continue
            if role in LONG_CHAINS:
                exported = out / "long"
            else:
                exported = work / f"init_{role}"
                build_model(role, tokenizer, seed, exported)
            for number, phase in enumerate(phases):
                data = work / f"{role}_{number}.parquet"
                write_dialogues(role, phase, seed + number, data)
                exported = train(data, exported, phase, seed, work / f"sft_{role}_{number}")
            model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.bfloat16)
            shutil.rmtree(out / role, ignore_errors=True)
            model.save_pretrained(out / role)
            tokenizer.save_pretrained(out / role)
            print(f"{role}: {sum(p.numel() for p in model.parameters()):,} parameters in {out / role}")


if __name__ == "__main__":
    typer.run(main)
