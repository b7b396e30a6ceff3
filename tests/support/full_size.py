# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Full-size models without their weights: published shapes, and look-alike tokenizers of their families.

A look-alike cuts text as its family does (the pre-tokenizer's pattern and a few merges, so that a tag is several tokens
and a line break may join the one before it) and has the family's special tokens and habits of templates, with a few
hundred tokens instead of 150,000. Templates are our own words for what the family's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast, Qwen2Config

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How both families cut text into words; digits one by one (Qwen2.5) or up to three together (Llama 3)."""
_MERGES = (
    *[("Ċ", "Ċ"), (">", "Ċ"), (">", "ĊĊ"), ("<", "/"), ("Ġ", "t"), ("1", "2")],
    *[("t", "h"), ("i", "n"), ("th", "in"), ("thin", "k")],
    *[("a", "n"), ("s", "w"), ("an", "sw"), ("e", "r"), ("answ", "er")],
)

_CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA = (
    "{% set head = '<|start_header_id|>system<|end_header_id|>\n\n' %}{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{% set said = messages[0].content | trim %}{% set rest = messages[1:] %}"
    "{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "{{ head }}Cutting Knowledge Date: December 2023\nToday Date: {{ date_string | default('26 Jul 2024') }}\n\n"
    "{{ said }}<|eot_id|>"
    "{% for m in rest %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_R1_DISTILL = (
    "{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}"
    "<｜Assistant｜>{{ m.content.split('</think>') | last }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family's tokenizers have in common."""

    digits: str
    """Quantifier of digits in one word."""
    template: str
    """Its chat template."""
    eos: str
    """Ends a turn."""
    pad: str | None
    """Fills batches; Llama 3.1 has none."""
    bos: str | None = None
    """Begins a conversation."""
    special: Sequence[str] = ()
    """Further special tokens."""
    lists_them: bool = False
    """Whether its ``all_special_tokens`` lists those."""
    plain: Sequence[str] = field(default=())
    """Tokens of their own that are not special."""


_BOS, _EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_R1_TOKENS = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
FAMILIES = {
    "qwen2_5": Family(
        digits="",
        template=_CHATML,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        special=("<|im_start|>",),
        lists_them=True,
        plain=("<tool_call>", "</tool_call>"),
    ),
    "llama3_1": Family(
        digits="{1,3}",
        template=_LLAMA,
        eos="<|eot_id|>",
        pad=None,
        bos="<|begin_of_text|>",
        special=("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"),
    ),
    "r1_distill_qwen": Family(digits="", template=_R1_DISTILL, eos=_EOS, pad=_EOS, bos=_BOS, plain=_R1_TOKENS),
    "r1_distill_llama": Family(digits="{1,3}", template=_R1_DISTILL, eos=_EOS, pad=_EOS, bos=_BOS, plain=_R1_TOKENS),
}

_QWEN = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "max_position_embeddings": 32768}
MODELS: dict[str, tuple[str, type[PreTrainedConfig], dict]] = {
    "qwen2_5_0_5b": (
        "qwen2_5",
        Qwen2Config,
        {
            **_QWEN,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2_5_7b": (
        "qwen2_5",
        Qwen2Config,
        {
            **_QWEN,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
    ),
    "llama3_1_8b": (
        "llama3_1",
        LlamaConfig,
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "tie_word_embeddings": False,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
}
MODELS["r1_distill_qwen_7b"] = ("r1_distill_qwen", *MODELS["qwen2_5_7b"][1:])
MODELS["r1_distill_llama_8b"] = ("r1_distill_llama", *MODELS["llama3_1_8b"][1:])
"""Name → family, class of the config, published shape."""


def build_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A look-alike of a family's tokenizer; it reads any text."""
    own = FAMILIES[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = [first + second for first, second in _MERGES if own.digits or first + second != "12"]
    merges = [(first, second) for first, second in _MERGES if first + second in joined]
    tokenizer = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(alphabet + joined)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS % own.digits), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys(token for token in (own.bos, own.pad, own.eos, *own.special) if token)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in own.plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=own.bos,
        eos_token=own.eos,
        pad_token=own.pad,
        additional_special_tokens=list(own.special) if own.lists_them else [],
        chat_template=own.template,
        clean_up_tokenization_spaces=False,
    )


def build_config(name: str, **changed) -> PreTrainedConfig:
    """A model's config with its look-alike's token ids."""
    family, cls, shape = MODELS[name]
    tokenizer = build_tokenizer(family)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    architecture = cls.__name__.replace("Config", "ForCausalLM")
    return cls(**{**shape, **ids, "architectures": [architecture], "dtype": "bfloat16", **changed})


def write_model_config(folder: Path, name: str) -> Path:
    """A model's folder without its weights: config and tokenizer."""
    build_config(name).save_pretrained(folder)
    build_tokenizer(MODELS[name][0]).save_pretrained(folder)
    return folder


def meta_model(name: str) -> torch.nn.Module:
    """The whole model, with no memory behind its parameters."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(build_config(name))
