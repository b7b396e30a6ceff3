# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A model's shape, from its config alone: counted on torch's meta device, where nothing takes memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ShapeError(ValueError):
    """A model's config cannot be read, or is of no causal language model."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What memory and time follow from. Numbers of parameters count a tied weight once."""

    name: str
    """Where the config came from."""
    params: int
    """All parameters."""
    active: int
    """Parameters that a token is multiplied by; less than all in a mixture of experts."""
    embedding: int
    """The input embedding."""
    head: int
    """The output projection; the embedding again where they are tied."""
    layer: int
    """The largest layer."""
    largest: int
    """The largest tensor."""
    adapter_width: int
    """Inputs and outputs of all linear maps in the layers, summed: times the rank, the parameters of a LoRA adapter."""
    layers: int
    """Number of layers."""
    hidden: int
    """Width between layers."""
    heads: int
    """Attention heads."""
    kv_heads: int
    """Attention heads of keys and values."""
    head_dim: int
    """Width of a head."""
    intermediate: int
    """Width within the feed-forward part; of all experts of a token together."""
    vocab: int
    """Rows of the output projection."""
    max_positions: int
    """The longest context that it was made for, in tokens."""
    tied: bool
    """Whether embedding and head are one tensor."""

    @property
    def query_width(self) -> int:
        """All heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """All heads of keys, or of values, together."""
        return self.kv_heads * self.head_dim


def read_shape(path: str, *, trust_remote_code: bool = False, override: Mapping[str, Any] | None = None) -> ModelShape:
    """The shape of the model at a folder or of a hub's name. Only config.json is read.

    Args:
        path: folder or hub name.
        trust_remote_code: whether code beside the config may run.
        override: settings that replace the config's.

    Raises:
        ShapeError: there is no readable config, or it is of no causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ShapeError(f"no config.json could be read for the model {path!r} ({reason})") from error
    for key, value in (override or {}).items():
        setattr(config, key, value)
    try:
        # No kernel runs, so an attention that this machine lacks must not matter.
        config._attn_implementation = "eager"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, ImportError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ShapeError(f"the config of {path!r} is of no causal language model ({reason})") from error
    return _shape(path, model, config)


def _shape(name: str, model: Any, config: Any) -> ModelShape:
    import torch

    text = config.get_text_config()
    of_layer = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in of_layer]
    if not layers:
        raise ShapeError(f"the model of {name!r} names no layers (_no_split_modules), by which verl shards it")
    # A tied weight appears once in parameters().
    named = dict(model.named_parameters())
    params = sum(weight.numel() for weight in named.values())
    experts = sum(weight.numel() for key, weight in named.items() if ".experts." in key)
    num_experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1
    per_token = getattr(text, "num_experts_per_tok", None) or num_experts
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = head is embedding
    intermediate = text.intermediate_size
    if num_experts > 1:
        intermediate = (getattr(text, "moe_intermediate_size", None) or intermediate) * per_token
    return ModelShape(
        name=name,
        params=params,
        active=params - experts + experts * per_token // num_experts - (0 if tied else embedding.numel()),
        embedding=embedding.numel(),
        head=head.numel(),
        layer=max(sum(weight.numel() for weight in layer.parameters()) for layer in layers),
        largest=max(weight.numel() for weight in named.values()),
        adapter_width=sum(
            module.in_features + module.out_features
            for layer in layers
            for module in layer.modules()
            if isinstance(module, torch.nn.Linear)
        ),
        layers=len(layers),
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=intermediate,
        vocab=head.shape[0],
        max_positions=text.max_position_embeddings,
        tied=tied,
    )
