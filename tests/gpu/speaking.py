# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Models with random weights that speak the protocol, of any size, without training.

A model of random weights writes noise: every dialogue would end at its first turn, and the short role would have no row
to learn from. So a grammar is planted: the output row of each token that may follow another is aligned with that one's
embedding. Embeddings are large beside what the random layers add, so that the next token depends on the last one above
all, with probabilities between 0.05 and 1. That is what a comparison of engine and actor needs: where the distribution
is flat, even an engine with the other role's weights hardly differs.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from longshort_verl.types import Role
from tests.support.full_size import MODELS

_LOGIT = 18.0
"""Of a token that may follow, before its weight; e^18 outweighs the other 150,000 tokens by a thousand."""
_EMBEDDING_STD = 8.0
_DIGITS = {digit: 1.0 for digit in "0123456789"}
GRAMMAR: dict[Role, dict[str, dict[str, float]]] = {
    Role.LONG: {
        "<|assistant|>": {"<think>": 1.0},
        "<think>": _DIGITS,
        **{digit: {**_DIGITS, "</think>": 3.0} for digit in _DIGITS},
        "</think>": {"<|im_end|>": 1.0},
    },
    Role.SHORT: {
        "<|assistant|>": {"<answer>": 1.0},
        # Each letter of \\boxed{ is there once, so that the last token says which one is next.
        **{first: {second: 1.0} for first, second in zip(["<answer>", *"\\boxed"], "\\boxed{", strict=True)},
        "{": _DIGITS,
        **{digit: {**_DIGITS, "}": 20.0} for digit in _DIGITS},
        "}": {"</answer>": 2.0, "</rethink>": 1.0},
        "</answer>": {"<|im_end|>": 1.0},
        "</rethink>": {"<|im_end|>": 1.0},
    },
}
"""Token → what may follow it, with weights; of the tokens of the recipe tiny_cpu, each of which is a byte or a tag."""


def write_speaking_model(folder: Path, role: Role, *, seed: int, **changed) -> Path:
    """A role's model of the shape of Qwen2.5-0.5B, with an output layer of its own (630,167,424 parameters).

    ``changed`` are other values of the shape.
    """
    import make_models

    tokenizer = make_models.build_tokenizer()
    _, _, shape = MODELS["qwen2_5_0_5b"]
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(**{**shape, "tie_word_embeddings": False, "dtype": "bfloat16", **ids, **changed})
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    embedding, output = model.model.embed_tokens.weight, model.lm_head.weight
    with torch.no_grad():
        embedding.normal_(std=_EMBEDDING_STD)
        for token, following in GRAMMAR[role].items():
            source = embedding[tokenizer.convert_tokens_to_ids(token)]
            whole = sum(following.values())
            for text, weight in following.items():
                # The last norm scales a hidden state to the length sqrt(hidden_size).
                logit = _LOGIT + math.log(weight / whole)
                output[tokenizer.convert_tokens_to_ids(text)] += (
                    logit * source / (source.norm() * math.sqrt(config.hidden_size))
                )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
