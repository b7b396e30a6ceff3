# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A model's shape, from its config.json alone: counted on torch's meta device, which allocates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ShapeError(ValueError):
    """A model's config cannot be read, or is not of a causal language model."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What memory and time depend on. Parameter counts include a tied weight once."""

    name: str
    """Path or hub name of the config."""
    params: int
    active: int
    """Parameters that a token is multiplied by; without the untied embedding and the experts that it skips."""
    embedding: int
    """Parameters of the input embedding."""
    head: int
    """Parameters of the output projection; equal to ``embedding`` where tied."""
    layer: int
    """Parameters of the largest layer."""
    largest: int
    """Parameters of the largest tensor."""
    adapter_width: int
    """Inputs and outputs of all linear maps in the layers, summed; times the rank, the size of a LoRA adapter."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the feed-forward part, summed over the experts of a token."""
    vocab: int
    max_positions: int
    """Longest context that the model was made for, in tokens."""
    tied: bool
    """Embedding and output projection are one tensor."""


def read_shape(path: str, *, trust_remote_code: bool = False, override: Mapping[str, Any] | None = None) -> ModelShape:
    """The shape of the model in a folder or of a hub name. Only config.json is read.

    Args:
        path: folder or hub name.
        trust_remote_code: whether code beside the config may run.
        override: settings that replace the config's.

    Raises:
        ShapeError: there is no readable config, or it is not of a causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ShapeError(f"no config.json could be read for the model {path!r} ({_reason(error)})") from error
    for key, value in (override or {}).items():
        setattr(config, key, value)
    try:
        # No kernel runs, so an attention that this machine lacks does not matter.
        config._attn_implementation = "eager"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, ImportError, AttributeError) as error:
        raise ShapeError(f"the config of {path!r} is of no causal language model ({_reason(error)})") from error
    layers = [module for module in model.modules() if type(module).__name__ in set(model._no_split_modules or ())]
    if not layers:
        raise ShapeError(f"the model of {path!r} names no layers (_no_split_modules), by which verl shards it")
    text = config.get_text_config()
    weights = dict(model.named_parameters())  # a tied weight appears once
    params = sum(weight.numel() for weight in weights.values())
    experts = sum(weight.numel() for key, weight in weights.items() if ".experts." in key)
    num_experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1
    per_token = getattr(text, "num_experts_per_tok", None) or num_experts
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    intermediate = text.intermediate_size
    if num_experts > 1:
        intermediate = (getattr(text, "moe_intermediate_size", None) or intermediate) * per_token
    linear = [module for layer in layers for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    return ModelShape(
        name=path,
        params=params,
        active=params - experts + experts * per_token // num_experts - (0 if head is embedding else embedding.numel()),
        embedding=embedding.numel(),
        head=head.numel(),
        layer=max(sum(weight.numel() for weight in layer.parameters()) for layer in layers),
        largest=max(weight.numel() for weight in weights.values()),
        adapter_width=sum(module.in_features + module.out_features for module in linear),
        layers=len(layers),
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=intermediate,
        vocab=head.shape[0],
        max_positions=text.max_position_embeddings,
        tied=head is embedding,
    )


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
