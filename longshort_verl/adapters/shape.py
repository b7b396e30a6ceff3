# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A model's shape, from its config.json alone, and what a pass over it stores.

The shape is counted on torch's meta device, which allocates nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from longshort_verl.config.compose import ConfigError

REDUCE_BYTES = 4  # per gradient while it is summed over devices (float32)
_CURE = "give a folder with the config.json of such a model: --model-config ROLE=FOLDER"


class ShapeError(ConfigError):
    """A model's config cannot be read, or does not describe a dense causal language model."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What memory and time depend on. Parameter counts include a tied weight once."""

    name: str  # path or hub name of the config
    params: int
    embedding: int  # parameters of the input embedding, and of the output projection. No tensor is larger
    layer: int  # parameters of the largest layer
    adapter_width: int  # inputs and outputs of all linear maps in the layers; times the rank, a LoRA adapter's size
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int  # longest context that the model supports, in tokens
    tied: bool  # embedding and output projection are one tensor

    @property
    def active(self) -> int:
        """Parameters that a token is multiplied by. An untied embedding is only looked up."""
        return self.params - (0 if self.tied else self.embedding)


@functools.lru_cache(maxsize=8)
def read_shape(path: str, *, trust_remote_code: bool = False) -> ModelShape:
    """The shape of the model in a folder or of a hub name. Only config.json is read.

    Raises:
        ShapeError: there is no readable config, or it does not describe a dense causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ShapeError(f"no config.json could be read for the model {path!r}; {_CURE}") from error
    try:
        # No kernel runs, so an attention that this machine lacks does not matter.
        config._attn_implementation = "eager"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, ImportError, AttributeError) as error:
        raise ShapeError(f"the config of {path!r} is not of a causal language model; {_CURE}") from error
    layers = [module for module in model.modules() if type(module).__name__ in set(model._no_split_modules or ())]
    if not layers:
        raise ShapeError(f"the model of {path!r} names no layers (_no_split_modules), by which verl shards it")
    weights = dict(model.named_parameters())  # a tied weight appears once
    if any(".experts." in key for key in weights):
        raise ShapeError(f"the model of {path!r} is a mixture of experts; only dense models are planned")
    linear = [module for layer in layers for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    text = config.get_text_config()
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return ModelShape(
        name=path,
        params=sum(weight.numel() for weight in weights.values()),
        embedding=embedding.numel(),
        layer=max(sum(weight.numel() for weight in layer.parameters()) for layer in layers),
        adapter_width=sum(module.in_features + module.out_features for module in linear),
        layers=len(layers),
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocab=head.shape[0],
        max_positions=text.max_position_embeddings,
        tied=head is embedding,
    )


def layer_bytes(shape: ModelShape, num_bytes: int) -> float:
    """What one layer of transformers' Qwen2 or Llama keeps of one token for its backward pass.

    Both norms' inputs in float32, their two outputs, queries, keys, values, attention's output and its normaliser, and
    the feed-forward part's four products (tests/ops/plan/test_memory.py counts what autograd saves).
    """
    norms = 2 * (4 * shape.hidden + 2 * num_bytes * shape.hidden + 4)
    attention = 2 * num_bytes * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * shape.heads
    return norms + attention + 4 * num_bytes * shape.intermediate


def activation_bytes(shape: ModelShape, tokens: float, num_bytes: int, *, backward: bool, checkpointing: bool) -> float:
    """What the layers store of a micro-batch, with ``num_bytes`` per value."""
    # At once within a layer: products of the feed-forward part (or their gradients), and a few copies of its input.
    at_once = tokens * num_bytes * (3 * shape.intermediate + 4 * shape.hidden)
    if not backward:
        return at_once
    of_layer, inputs = tokens * layer_bytes(shape, num_bytes), shape.layers * tokens * shape.hidden * num_bytes
    return at_once + (inputs + of_layer if checkpointing else shape.layers * of_layer)


def gathered_bytes(shape: ModelShape, num_bytes: int, *, trained: int) -> float:
    """Whole layers that FSDP2 gathers from shards; ``trained`` parameters have gradients, 0 in a forward pass."""
    # Embedding and head are units of their own, or one root unit where they are tied.
    gathered = num_bytes * (shape.embedding + 2 * shape.layer)
    if trained < shape.params:
        return gathered + (num_bytes + REDUCE_BYTES) * trained / shape.layers
    return gathered + (num_bytes + REDUCE_BYTES) * max(shape.embedding, shape.layer)
