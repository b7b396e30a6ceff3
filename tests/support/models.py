# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Models for tests, made from those that ship with the recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SHIFT = 40


def with_other_ids(source: Path, target: Path) -> Path:
    """The same model with another tokenizer: the same text, every token under another id, and a larger vocabulary.

    An id that crosses over to the other tokenizer would be another byte, or none at all.
    """
    shutil.copytree(source, target)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    old = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    special = [token["content"] for token in tokenizer["added_tokens"]]
    new = {text: special.index(text) if text in special else SHIFT + id_ for text, id_ in old.items()}
    # An added token keeps its id only where the vocabulary has it, and ids must have no gap.
    gap = {f"<|unused_{id_}|>": id_ for id_ in range(len(special), SHIFT)}
    tokenizer["model"]["vocab"] = {**new, **gap}
    for token in tokenizer["added_tokens"]:
        token["id"] = new[token["content"]]
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    weights = load_file(source / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    moved = torch.zeros(max(new.values()) + 1, embedding.shape[1], dtype=embedding.dtype)
    moved[torch.tensor([new[text] for text in old])] = embedding[torch.tensor([old[text] for text in old])]
    weights["model.embed_tokens.weight"] = moved
    assert "lm_head.weight" not in weights, "the embedding is tied"
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "generation_config.json"):
        config = json.loads((source / name).read_text())
        by_id = {id_: new[text] for text, id_ in old.items()}
        for key in ("eos_token_id", "pad_token_id"):
            config[key] = by_id[config[key]]
        if "vocab_size" in config:
            config["vocab_size"] = len(moved)
        (target / name).write_text(json.dumps(config))
    return target
