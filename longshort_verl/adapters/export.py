# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Export of a checkpoint's policies as Hugging Face folders, with verl's merger; LoRA adapters are merged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError

from longshort_verl.adapters.rl.checkpoints import MARK, damage, read_mark
from longshort_verl.files.manifest import Artefact, manifest_path

EXPORTED = ("*/model_*.pt", "*/fsdp_config.json", "*/huggingface/*")
"""Files of a checkpoint that an export reads."""


class ExportError(ValueError):
    """A checkpoint that cannot be exported, with the reason."""


def export_pair(checkpoint: Path, out: Path) -> list[Path]:
    """Write every policy of a checkpoint as a folder that transformers and ``vllm serve`` load.

    Returns the folders: ``long`` and ``short`` in ``out``, or ``shared`` if one model plays both roles. An interrupted
    export resumes: a model that was written is kept. ``checkpoint`` is verl's ``global_step_<n>``.

    Raises:
        ExportError: the checkpoint is incomplete, damaged or without parameters, or ``out`` holds other models.
        ManifestError: ``out`` holds the models of another checkpoint.
    """
    mark = checkpoint / MARK
    if not mark.is_file():
        raise ExportError(f"{checkpoint} has no {MARK}: it is not a complete checkpoint of a two-agent run")
    if fault := damage(checkpoint, *EXPORTED):
        raise ExportError(f"{checkpoint} is damaged: {fault}; export another checkpoint")
    shared = read_mark(checkpoint).get("policies") == "shared"
    parts = {"shared": "actor"} if shared else {"long": "actor", "short": "short"}
    for name, part in parts.items():
        if not list((checkpoint / part).glob("model_world_size_*_rank_0.pt")):
            raise ExportError(
                f"{checkpoint / part} holds no parameters; train with 'model' in actor.checkpoint.save_contents"
            )
        if (out / name).exists() and not manifest_path(out).exists():
            raise ExportError(f"{out / name} exists, and no manifest says what it is; choose another folder")
    begun = any((out / name).exists() for name in parts)
    try:
        with Artefact(out, config={}, inputs={"checkpoint": checkpoint}, anew=False if begun else None) as artefact:
            if artefact.finished:
                print(artefact.nothing_to_do)
            _merge_missing({checkpoint / part: out / name for name, part in parts.items()})
            artefact.finish()
    except Exception:
        with suppress(OSError):
            out.rmdir()  # nothing was there, and nothing was made
        raise
    return [out / name for name in parts]


def _merge_missing(targets: Mapping[Path, Path]) -> None:
    """Write each model that is not there; of several, all or none."""
    missing = {part: target for part, target in targets.items() if not target.exists()}
    try:
        for part, target in missing.items():
            try:
                merge_shards(part, target)
            except (RuntimeError, EOFError, UnpicklingError) as error:  # torch's, for a file that is no archive
                raise ExportError(f"{part} cannot be merged: {str(error).strip().splitlines()[0]}") from error
    except Exception:
        for target in missing.values():
            shutil.rmtree(target, ignore_errors=True)
        raise


def merge_shards(part: Path, target: Path) -> Path:
    """Write one model of a checkpoint as a Hugging Face folder; a LoRA adapter is merged, and also written beside it.

    ``part`` holds ``model_world_size_*.pt`` and ``huggingface``. ``target`` must not exist, and appears when complete.
    """
    from transformers import AutoModelForCausalLM
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    with _whole_folder(target) as partial:
        merger = FSDPModelMerger(
            ModelMergerConfig(
                operation="merge",
                backend="fsdp",
                local_dir=str(part),
                hf_model_config_path=str(part / "huggingface"),
                target_dir=str(partial),
            )
        )
        merger.merge_and_save()
        adapter = partial / "lora_adapter"
        if adapter.is_dir():
            from peft import PeftModel

            base = AutoModelForCausalLM.from_pretrained(partial)
            PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(partial)
            beside = target.with_name(f"{target.name}_lora_adapter")
            shutil.rmtree(beside, ignore_errors=True)  # of an interrupted call
            adapter.rename(beside)
    return target


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes ``target`` at the end of the block; none is left if the block fails."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed call
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(target)
