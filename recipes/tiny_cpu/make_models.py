"""Rebuild the two role models of this recipe: ``python recipes/tiny_cpu/make_models.py --out recipes/tiny_cpu/models``.

Builds two tiny Qwen2 models with random weights and a byte tokenizer, writes dialogues of the toy task, trains each
role on its own transcripts with verl's own SFT trainer, and exports both as Hugging Face folders in bfloat16. About
ten minutes on two cores. The pair speaks the protocol and is right about half of the time: RL has something to do.
Each role sees each of its dialogues once.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from task import dialogue, sample_problem
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from longshort_verl.dialogue import PROTOCOL_TAGS

HERE = Path(__file__).resolve().parent
SHAPES = {
    "long": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4},
    "short": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 3},
}
"""The two roles' models differ in size, as a user's may."""
MAX_POSITIONS = 8192
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, which reads any text, with one token for each tag of the protocol."""
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
    """A role's model with random weights, and its tokenizer, as a Hugging Face folder."""
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


def write_dialogues(role: str, number: int, seed: int, out: Path) -> None:
    """One role's transcripts of ``number`` dialogues, in verl's ``messages`` schema."""
    rng = random.Random(seed)
    rows = [dialogue(sample_problem(rng, 2, 6), rng)[role] for _ in range(number)]
    pd.DataFrame({"messages": rows}).to_parquet(out / f"{role}.parquet")


def train(role: str, steps: int, seed: int, work: Path) -> Path:
    """Run verl's SFT trainer on one role's transcripts; returns the folder of its Hugging Face export."""
    out = work / f"sft_{role}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += ["-m", "verl.trainer.sft_trainer", f"--config-dir={HERE}", "--config-name=sft"]
    command += [
        f"data.train_files={work / role}.parquet",
        f"model.path={work / f'init_{role}'}",
        f"trainer.default_local_dir={out}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={steps}",
        f"trainer.seed={seed}",
        f"hydra.run.dir={out}/hydra",
    ]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(command, env=environment, check=True)
    return out / f"global_step_{steps}" / "huggingface"


def main(
    out: Annotated[Path, typer.Option(help="Folder for the two models, one sub-folder a role.")],
    steps_long: Annotated[int, typer.Option(help="Optimizer steps of the long role.")] = 550,
    steps_short: Annotated[int, typer.Option(help="Optimizer steps of the short role.")] = 700,
    seed: Annotated[int, typer.Option(help="Seed of weights and dialogues.")] = 1,
) -> None:
    """Build, train and export both role models."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tokenizer = build_tokenizer()
        for role, steps in (("long", steps_long), ("short", steps_short)):
            write_dialogues(role, 64 * steps, seed, work)
            build_model(role, tokenizer, seed, work / f"init_{role}")
            exported = train(role, steps, seed, work)
            model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.bfloat16)
            shutil.rmtree(out / role, ignore_errors=True)
            model.save_pretrained(out / role)
            tokenizer.save_pretrained(out / role)
            print(f"{role}: {sum(p.numel() for p in model.parameters()):,} parameters in {out / role}")


if __name__ == "__main__":
    typer.run(main)
