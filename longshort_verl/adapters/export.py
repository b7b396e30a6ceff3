# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's policies as Hugging Face folders, by verl's own merger; LoRA adapters are merged into their base."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from longshort_verl.adapters.rl.checkpoints import MARK

logger = logging.getLogger(__name__)


class ExportError(ValueError):
    """A checkpoint that cannot be exported, with the reason."""


def export_pair(checkpoint: Path, out: Path) -> list[Path]:
    """Write every policy of a checkpoint as a folder that transformers and ``vllm serve`` load.

    Args:
        checkpoint: verl's ``global_step_<n>``.
        out: gets the folders ``long`` and ``short``, or ``shared`` where one model plays both roles. Must not hold
            any of them yet.

    Returns:
        The folders.

    Raises:
        ExportError: the checkpoint is not whole, holds no parameters, or a folder is there already.
    """
    mark = checkpoint / MARK
    if not mark.is_file():
        raise ExportError(f"{checkpoint} has no {MARK}: it is not a whole checkpoint of a two-agent run")
    shared = json.loads(mark.read_text()).get("policies") == "shared"
    parts = {"shared": "actor"} if shared else {"long": "actor", "short": "short"}
    for name, part in parts.items():
        if not list((checkpoint / part).glob("model_world_size_*_rank_0.pt")):
            raise ExportError(
                f"{checkpoint / part} holds no parameters; train with 'model' in actor.checkpoint.save_contents"
            )
        if (out / name).exists():
            raise ExportError(f"{out / name} is there already; remove it or choose another folder")
    return [merge_shards(checkpoint / part, out / name) for name, part in parts.items()]


def merge_shards(part: Path, target: Path) -> Path:
    """One model of a checkpoint as a Hugging Face folder; a LoRA adapter is merged and also laid beside it.

    Args:
        part: holds ``model_world_size_*.pt`` and ``huggingface``.
        target: the folder to write; must not be there.
    """
    from transformers import AutoModelForCausalLM
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    target.mkdir(parents=True)
    merger = FSDPModelMerger(
        ModelMergerConfig(
            operation="merge",
            backend="fsdp",
            local_dir=str(part),
            hf_model_config_path=str(part / "huggingface"),
            target_dir=str(target),
        )
    )
    merger.merge_and_save()
    adapter = target / "lora_adapter"
    if adapter.is_dir():
        from peft import PeftModel

        base = AutoModelForCausalLM.from_pretrained(target)
        PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(target)
        adapter.rename(target.parent / f"{target.name}_lora_adapter")
    return target
