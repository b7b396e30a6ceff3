# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Cold-start SFT of one role, on verl's own SFT trainer: ``torchrun … -m longshort_verl.adapters.sft.trainer``.

``--config-dir recipes/<name> --config-name sft_long``, or ``sft_short``, or ``sft_shared`` for a model that plays both.
verl trains. This module checks data and chat template before a model loads, prints one example with its loss mask, and
at every checkpoint generates held-out turns and keeps the best model by a named metric as a Hugging Face folder.
"""

# verl's trainer sets its attributes in methods that it calls itself.
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import Field
from pydantic.dataclasses import dataclass as settings_class
from rich.console import Console
from rich.text import Text
from torch.distributed.fsdp import register_fsdp_forward_method
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils
from verl.utils.device import auto_set_device
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

from longshort_verl.adapters import compat
from longshort_verl.adapters.export import merge_shards
from longshort_verl.adapters.finite import check_metrics, check_weights, first_bad_weight
from longshort_verl.adapters.rl import checkpoints
from longshort_verl.adapters.rl.settings import load_tokenizer
from longshort_verl.chat_template import check_tokenizer, control_tokens, hf_render
from longshort_verl.cold_start.held_out import TurnCase, TurnReply, turn_cases, turn_metrics
from longshort_verl.cold_start.transcripts import RoleRow, pieces, read_role_rows
from longshort_verl.config.compose import ConfigError, read_settings
from longshort_verl.dialogue import CLOSING_TAGS
from longshort_verl.generation.parent import end_after
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.types import Role

logger = logging.getLogger(__name__)

SECTION = "cold_start"
MODEL = "model"
"""Folder of the kept model, within ``trainer.default_local_dir``."""
HISTORY = "turns.jsonl"
"""Metrics of held-out turns, one line per checkpoint."""
LORA = "lora_train_meta.json"
"""verl's file in the checkpoint of an adapter."""


@settings_class(frozen=True, kw_only=True)
class TurnSettings:
    """How held-out turns are generated."""

    max_turns: Annotated[int, Field(ge=0)]
    """Maximum turns; 0 generates none."""
    max_tokens: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    """Turns generated at once on each device."""
    temperature: Annotated[float, Field(ge=0)]
    """0 is greedy."""


@settings_class(frozen=True, kw_only=True)
class BestTurns:
    """Which checkpoint's model is kept."""

    metric: Literal["well_formed", "same_kind", "accuracy", "num_tokens"] | None
    """The metric to compare checkpoints by; None keeps the last checkpoint."""
    mode: Literal["max", "min"]
    """Whether a larger or a smaller value is better; of equal ones the later checkpoint is kept."""


@settings_class(frozen=True, kw_only=True)
class RoleSettings:
    """The section ``cold_start`` of an SFT recipe."""

    role: Literal["long", "short", "shared"]
    """Which role learns; ``shared`` for one model that learns from both roles' transcripts."""
    turns: TurnSettings
    best: BestTurns
    grading: GradingSettings

    def __post_init__(self) -> None:
        if self.best.metric is not None and not self.turns.max_turns:
            raise ValueError(
                f"best.metric is {self.best.metric!r} and turns.max_turns 0: no turn would be generated to compare by; "
                "raise max_turns, or set best.metric=null"
            )
        if self.best.metric == "accuracy" and self.role == "long":
            raise ValueError("best.metric is 'accuracy', but the long role's turns hold no answer; use another one")

    @property
    def only(self) -> Role | None:
        """The role whose transcripts are used; None for both."""
        return None if self.role == "shared" else Role(self.role)


@dataclass(frozen=True)
class Checked:
    """A checked config, with its data."""

    settings: RoleSettings
    tokenizer: Any
    train: list[RoleRow]
    val: list[RoleRow]


def check_sft(config: DictConfig) -> Checked:
    """Check a config and its data before any model loads.

    Raises:
        ConfigError, ChatTemplateError, RoleFileError: with the offending value or row and the cure.
    """
    section = OmegaConf.to_container(config[SECTION], resolve=True)
    settings = read_settings(section, RoleSettings, SECTION, base="longshort_sft.yaml")  # pyright: ignore[reportArgumentType]
    if not config.model.path:
        raise ConfigError("model.path is null; set it to the model to train")
    files = {name: _files(config.data[name]) for name in ("train_files", "val_files")}
    if not files["train_files"]:
        raise ConfigError("data.train_files is null; set it to what `longshort cold-start` wrote for this role")
    if settings.turns.max_turns and not files["val_files"]:
        raise ConfigError(
            "data.val_files is null; set it, or set cold_start.turns.max_turns=0 and cold_start.best.metric=null"
        )
    if "hf_model" not in config.checkpoint.save_contents:
        raise ConfigError("checkpoint.save_contents is without hf_model, and no model could be kept; add it")
    if config.model.lora_rank and "model" not in config.checkpoint.save_contents:
        raise ConfigError("checkpoint.save_contents is without model, and no adapter could be merged; add it")
    keep = config.trainer.max_ckpt_to_keep
    if keep is not None and keep < 2:
        raise ConfigError(
            f"trainer.max_ckpt_to_keep is {keep}: verl deletes the old checkpoint before the new one is whole, and a "
            "crash in between would lose both; keep 2, or null for all"
        )
    if config.engine.strategy != "fsdp2" and settings.turns.max_turns:
        raise ConfigError(
            f"engine.strategy is {config.engine.strategy!r}, and turns are generated under fsdp2 only; set "
            "engine.strategy=fsdp2, or cold_start.turns.max_turns=0 and cold_start.best.metric=null"
        )
    if config.engine.get("ulysses_sequence_parallel_size", 1) > 1 and settings.turns.max_turns:
        raise ConfigError(
            "engine.ulysses_sequence_parallel_size is above 1, and turns are generated without sequence parallelism; "
            "set cold_start.turns.max_turns=0 and cold_start.best.metric=null"
        )
    if fault := compat.fused_head_fault(config.model, config.engine.strategy):
        raise ConfigError(f"model.{fault}")
    tokenizer = load_tokenizer(config)
    train = read_role_rows(files["train_files"], settings.only)
    val = read_role_rows(files["val_files"], settings.only) if files["val_files"] else []
    if len(train) < config.data.train_batch_size:
        raise ConfigError(
            f"data.train_batch_size is {config.data.train_batch_size}, and there are {len(train)} rows: verl drops a "
            "batch that is not full; lower it"
        )
    render, control = hf_render(tokenizer), control_tokens([tokenizer])
    # A template may treat a chat with a system message differently: one check per role of each kind.
    kinds = {(row.role, bool(row.system_prompt)): row.system_prompt for row in (*train, *val)}
    for (role, _), system_prompt in kinds.items():
        check_tokenizer(tokenizer, [role], system_prompt=system_prompt, name=config.model.path)
    for row in (*train, *val):
        pieces(row.messages, render, control, row.rows)
    return Checked(settings=settings, tokenizer=tokenizer, train=train, val=val)


def _files(value: Any) -> list[Path]:
    if not value:
        return []
    return [Path(str(one)).expanduser() for one in (value if OmegaConf.is_list(value) else [value])]


def example(row: RoleRow, tokenizer: Any) -> Text:
    """One transcript with its loss mask: trained text stands between ⟦ and ⟧, in green."""
    shown = Text()
    for piece in pieces(row.messages, hf_render(tokenizer), control_tokens([tokenizer]), row.rows):
        shown.append(f"⟦{piece.text}⟧" if piece.trained else piece.text, style="bold green" if piece.trained else "dim")
    return shown


class RoleSFTTrainer(SFTTrainer):
    """verl's SFT trainer for one role."""

    def __init__(self, config: DictConfig, checked: Checked):
        self._checked = checked
        self._cases = turn_cases(checked.val, checked.settings.turns.max_turns)
        super().__init__(config)
        self._check_weights(self.resume_global_step, "look at the files of model.path, or of the checkpoint")
        self.training_client = _CheckedSteps(self.training_client, self.resume_global_step, self._where)
        if self._cases:
            # FSDP2 gathers parameters for forward only, and an adapter's generate bypasses the root's forward.
            register_fsdp_forward_method(self.engine.module, "generate")
        if self.rank == 0:
            whose = "both roles" if checked.settings.only is None else f"the {checked.settings.role} role"
            Console().print(
                Text(f"one of {len(checked.train)} rows of {whose}; what it learns:"),
                example(checked.train[0], checked.tokenizer),
                sep="\n",
            )

    def _build_dataset(self) -> None:
        super()._build_dataset()
        if self.val_dataset is not None and len(self.val_dataset) < self.config.data.train_batch_size:
            # verl drops a batch that is not full; without any batch the mean is NaN.
            logger.warning(
                "%s held-out rows are fewer than data.train_batch_size (%s): no validation loss is computed",
                len(self.val_dataset),
                self.config.data.train_batch_size,
            )
            self.val_dataset = None

    def _build_ckpt_handler(self) -> None:
        super()._build_ckpt_handler()
        self.ckpt_handler = _Checkpoints(self.ckpt_handler, self._save_whole)

    def _where(self, step: int) -> str:
        return f"step {step}: the {self._checked.settings.role} role"

    def _check_weights(self, step: int, *cure: str) -> None:
        """End the run, on all ranks, at weights that are not finite."""
        names: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(names, first_bad_weight(self.engine.module))
        check_weights(names, self._where(step), *cure)

    def _save_whole(self, save: Callable[[], None], step: int) -> None:
        """Run verl's save, mark the checkpoint as complete, and judge it."""
        root = self.config.trainer.default_local_dir
        folder = Path(root) / f"global_step_{step}"
        self._check_weights(step)
        if self.rank:
            save()
        else:
            with checkpoints.saving(folder):
                save()
                checkpoints.complete(folder, {"step": step, "role": self._checked.settings.role}, root)
        self._judge(step)

    def _judge(self, step: int) -> None:
        """Generate held-out turns with the current model, and keep it if it is the best so far."""
        metrics = self._turn_metrics() if self._cases else {}
        if self.rank == 0:
            folder = Path(self.config.trainer.default_local_dir)
            with (folder / HISTORY).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            Console().print(f"step {step}, held-out turns: {told}" if told else f"step {step}", highlight=False)
            if keep_best(folder, step, metrics, self._checked.settings.best):
                Console().print(f"kept in {folder / MODEL}", highlight=False)
        torch.distributed.barrier()

    def _turn_metrics(self) -> dict[str, float]:
        settings = self._checked.settings
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        device = torch.device(self.device_name)
        if device.type != "cpu":
            device = torch.device(self.device_name, torch.cuda.current_device())
        written: list[tuple[int, TurnReply]] = []
        with self.engine.eval_mode(), torch.no_grad():
            for role in Role:
                places = [i for i, case in enumerate(self._cases) if case.role is role]
                # All ranks must run the same number of steps, so some generate a turn twice.
                share = -(-len(places) // world)
                own = [places[(rank * share + i) % len(places)] for i in range(share)]
                replies = generate_turns(
                    self.engine.module,
                    self._checked.tokenizer,
                    [self._cases[i] for i in own],
                    role,
                    settings.turns,
                    device=device,
                    synced=world > 1,
                )
                written += zip(own, replies, strict=True)
        found: list[Any] = [None] * world
        torch.distributed.all_gather_object(found, written)
        by_case = dict(sorted(pair for pairs in found for pair in pairs))
        return turn_metrics(
            self._cases,
            [by_case[i] for i in range(len(self._cases))],
            lambda text, gold: grade(text, gold, settings.grading),
        )


def generate_turns(
    model: Any,
    tokenizer: Any,
    cases: Sequence[TurnCase],
    role: Role,
    settings: TurnSettings,
    *,
    device: torch.device,
    synced: bool,
) -> list[TurnReply]:
    """Generate one reply per case with the ``generate`` of transformers."""
    render, replies = hf_render(tokenizer), []
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    prompts = [tokenizer.encode(render(case.messages, True), add_special_tokens=False) for case in cases]
    for begin in range(0, len(prompts), settings.batch_size):
        batch = prompts[begin : begin + settings.batch_size]
        width = max(map(len, batch))
        ids = torch.tensor([[padding] * (width - len(one)) + one for one in batch], device=device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in batch], device=device)
        greedy = not settings.temperature
        sampling = {"do_sample": False} if greedy else {"do_sample": True, "temperature": settings.temperature}
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_tokens,
            stop_strings=list(CLOSING_TAGS[role]),
            tokenizer=tokenizer,
            pad_token_id=padding,
            synced_gpus=synced,
            **sampling,
        )
        for reply in written[:, width:].tolist():
            while reply and reply[-1] in (padding, tokenizer.eos_token_id):
                reply.pop()
            replies.append(TurnReply(text=tokenizer.decode(reply, skip_special_tokens=False), num_tokens=len(reply)))
    return replies


def keep_best(folder: Path, step: int, metrics: dict[str, float], best: BestTurns) -> bool:
    """Replace the kept model by a checkpoint's model if that is at least as good; returns whether it was.

    Raises:
        KeyError: the metric was not measured.
    """
    target, mark = folder / MODEL, folder / MODEL / "kept.json"
    value = None if best.metric is None else metrics[best.metric]
    if value is not None and mark.is_file():
        old = json.loads(mark.read_text())
        if old["metric"] == best.metric and (value < old["value"] if best.mode == "max" else value > old["value"]):
            return False
    new, gone = folder / f".{MODEL}.new", folder / f".{MODEL}.old"
    for path in (new, gone):
        shutil.rmtree(path, ignore_errors=True)
    checkpoint = folder / f"global_step_{step}"
    if (checkpoint / LORA).is_file():
        # verl saves an adapter's weights under peft's names, which no from_pretrained finds.
        adapter = merge_shards(checkpoint, new).with_name(f"{new.name}_lora_adapter")
        os.replace(adapter, new / "lora_adapter")
    else:
        shutil.copytree(checkpoint / "huggingface", new)
    record = {"step": step, "metric": best.metric, "value": value, "turns": metrics}
    (new / "kept.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if target.exists():
        os.replace(target, gone)
    os.replace(new, target)
    shutil.rmtree(gone, ignore_errors=True)
    return True


class _Checkpoints:
    """verl's checkpoint handler with a call around each save, and the end of an epoch restored."""

    def __init__(self, handler: Any, around: Callable[[Callable[[], None], int], None]) -> None:
        self._handler, self._around = handler, around

    def load_checkpoint(self) -> int:
        step = self._handler.load_checkpoint()
        if step:
            state = Path(self._handler._determine_resume_path()) / f"data_{self._handler.dp_rank}.pt"
            checkpoints.restore_loader(self._handler.train_dataloader, state, step)
        return step

    def save_checkpoint(self, step: int) -> None:
        self._around(lambda: self._handler.save_checkpoint(step=step), step)


class _CheckedSteps:
    """verl's training worker with a check of each step's loss and gradient norm."""

    def __init__(self, worker: Any, step: int, where: Callable[[int], str]) -> None:
        self._worker, self._step, self._where = worker, step, where

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def train_batch(self, data: Any) -> Any:
        """Train on one batch; NotFinite ends the run."""
        output = self._worker.train_batch(data=data)
        self._step += 1
        if output is not None:  # None on ranks without the model's output
            check_metrics(tensordict_utils.get(output, "metrics"), self._where(self._step))
        return output


@hydra.main(config_path="pkg://verl.trainer.config", config_name="sft_trainer_engine", version_base=None)
def main(config: DictConfig) -> None:
    """Train one role."""
    compat.log_in_worker()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_after(os.getppid())  # the launcher
    auto_set_device(config)
    checked = check_sft(config)
    initialize_global_process_group()
    RoleSFTTrainer(config, checked).fit()
    destroy_global_process_group()


if __name__ == "__main__":
    main()
