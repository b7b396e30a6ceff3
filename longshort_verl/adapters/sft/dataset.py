# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's SFT data set with another loss mask: only the role's own turns and their end tokens are trained.

Of a row that is one turn after its history (``extra_info.rows: turn``), only that turn is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

from longshort_verl.chat_template import control_tokens, hf_render
from longshort_verl.cold_start.transcripts import pieces, rows_of
from longshort_verl.types import Message


class RoleDataset(MultiTurnSFTDataset):
    """verl's data set, with masks from the whole transcript instead of from single messages.

    verl renders each message alone and masks the presumed prompt. That trains the line break after an end of turn, and
    fails with templates that treat the first or the last message differently.
    """

    def _read_files_and_process(self) -> None:
        super()._read_files_and_process()
        infos = self.dataframe["extra_info"] if "extra_info" in self.dataframe else [None] * len(self.messages)
        self.rows = [rows_of(info) for info in infos]

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Token ids, position ids and loss mask of one transcript, each of shape (length,)."""
        messages = [Message(role=row["role"], content=row["content"]) for row in self.messages[item]]
        ids: list[int] = []
        mask: list[int] = []
        for piece in pieces(messages, hf_render(self.tokenizer), control_tokens([self.tokenizer]), self.rows[item]):
            tokens = self.tokenizer.encode(piece.text, add_special_tokens=False)
            ids += tokens
            mask += [int(piece.trained)] * len(tokens)
        if len(ids) > self.max_length:
            # Never truncated: a turn without its end token would teach the model not to end.
            raise ValueError(
                f"row {item} has {len(ids)} tokens, and data.max_length is {self.max_length}; raise it, or make the "
                "dialogues shorter"
            )
        length = len(ids)
        row = {
            "input_ids": torch.tensor(ids),
            "position_ids": torch.arange(length),
            "loss_mask": torch.tensor(mask),
        }
        if self.pad_mode == "no_padding":
            return row
        fill = self.max_length - length
        padding: Any = self.tokenizer.pad_token_id or 0
        return {
            "input_ids": torch.nn.functional.pad(row["input_ids"], (0, fill), value=padding),
            "attention_mask": torch.tensor([1] * length + [0] * fill),
            "position_ids": torch.nn.functional.pad(row["position_ids"], (0, fill)),
            "loss_mask": torch.nn.functional.pad(row["loss_mask"], (0, fill)),
        }
