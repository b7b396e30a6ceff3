# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of whole transcripts and of single turns: the same tokens are learnt; where the losses differ, and by how much.

Held here: both kinds train the same multiset of tokens, each after the same tokens. verl's loss is equal if one batch
holds a whole file. It differs with smaller batches and with a chat template that deletes earlier thoughts (which is
refused); a mean over rows differs too.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
from verl.workers.utils.losses import sft_loss

from longshort_verl.adapters.sft.dataset import RoleDataset
from longshort_verl.adapters.sft.trainer import example
from longshort_verl.chat_template import ChatTemplateError, hf_render
from longshort_verl.cold_start.dialogues import ColdDialogue, ColdStartOutcome
from longshort_verl.cold_start.files import write_cold_start
from longshort_verl.cold_start.held_out import turn_cases
from longshort_verl.cold_start.transcripts import RoleFileError, Rows, read_role_rows
from longshort_verl.dialogue import DialogueSettings, read_turn
from longshort_verl.types import FinishReason, Generation, Problem, Role
from tests.support.configs import ROOT
from tests.support.full_size import build_tokenizer

SETTINGS = DialogueSettings(
    opening_role=Role.LONG,
    max_short_turns=3,
    max_turn_tokens={Role.LONG: 100, Role.SHORT: 100},
    max_dialogue_tokens=1000,
    system_prompt={Role.LONG: "You think.", Role.SHORT: ""},
    must_answer_notice="Answer now.",
)
DIALOGUES = {
    "3 + 6?": [
        "<think>12 + 3\n\n</think>",
        "<answer>\n\nand?</rethink>",
        "<think>\n\n15 < 16</think>",
        "<answer>more</rethink>",
        "<think>so 15</think>",
        "<answer>\\boxed{15}\n\n</answer>",  # after the notice of the last turn
    ],
    "1 + 1?": ["<think>2</think>", "<answer>why</rethink>", "<think>2</think>", "<answer>\\boxed{2}</answer>"],
    "1?": ["<think>1</think>", "<answer>\\boxed{1}</answer>"],
}


def tokenizer_of(name):
    return (
        AutoTokenizer.from_pretrained(ROOT / "recipes/tiny_cpu/models/long")
        if name == "tiny"
        else build_tokenizer(name)
    )


def write(folder, rows, dialogues=DIALOGUES):
    """The cold start's files; one problem of them is held out."""
    made = []
    for number, (problem, texts) in enumerate(dialogues.items()):
        replies = (Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=0, num_tokens=1) for text in texts)
        made.append(
            ColdDialogue(
                key=str(number),
                outcome=ColdStartOutcome.KEPT,
                problem=Problem(prompt=problem, answer="15", source="test", index=number),
                turns=tuple(read_turn(list(Role)[i % 2], reply) for i, reply in enumerate(replies)),
            )
        )
    write_cold_start(made, folder, SETTINGS, rows=rows, val_share=0.1, seed=0)
    return folder


def dataset(files, tokenizer):
    return RoleDataset([str(file) for file in files], tokenizer, OmegaConf.create({"pad_mode": "no_padding"}))


def learnt(data):
    """Each trained token with all tokens before it, and how often."""
    found = Counter()
    for row in data:
        ids = row["input_ids"].tolist()
        found.update((tuple(ids[:i]), ids[i]) for i, trained in enumerate(row["loss_mask"].tolist()) if trained)
    return found


@pytest.mark.parametrize("name", ["tiny", "qwen2_5", "llama3_1"])
@pytest.mark.parametrize("role", list(Role))
def test_both_kinds_of_rows_teach_the_same_tokens_after_the_same_tokens(name, role, tmp_path):
    tokenizer = tokenizer_of(name)
    found, num_rows = {}, {}
    for kind in Rows:
        write(tmp_path / kind.value, kind)
        data = dataset([tmp_path / kind.value / f"{role.value}_{side}.parquet" for side in ("train", "val")], tokenizer)
        found[kind], num_rows[kind] = learnt(data), len(data)
    assert found[Rows.TURN] == found[Rows.TRANSCRIPT]
    # Three dialogues with 3 + 2 + 1 turns of each role. Each turn is learnt with the one token that ends it.
    assert num_rows == {Rows.TRANSCRIPT: 3, Rows.TURN: 6}
    turns = [text for texts in DIALOGUES.values() for text in texts[list(Role).index(role) :: 2]]
    own = sum(len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in turns)
    assert found[Rows.TURN].total() == own
    # Not a pair twice: the two equal turns of a dialogue stand after different tokens.
    assert max(found[Rows.TURN].values()) == 1


def test_held_out_turns_are_the_same_and_one_turn_is_shown_as_learnt(tmp_path):
    tokenizer = tokenizer_of("tiny")
    for role in Role:
        rows = {
            kind: read_role_rows([write(tmp_path / kind.value, kind) / f"{role.value}_train.parquet"], role)
            for kind in Rows
        }
        assert turn_cases(rows[Rows.TURN], 100) == turn_cases(rows[Rows.TRANSCRIPT], 100)
        shown = {kind: [example(row, tokenizer).plain.count("⟦") for row in rows[kind]] for kind in Rows}
        assert set(shown[Rows.TURN]) == {1}
        assert sum(shown[Rows.TRANSCRIPT]) == len(shown[Rows.TURN]) > len(shown[Rows.TRANSCRIPT])


def test_files_of_both_kinds_and_without_a_kind_can_be_mixed(tmp_path):
    tokenizer = tokenizer_of("tiny")
    turns = write(tmp_path / "turns", Rows.TURN) / "short_train.parquet"
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "<answer>1</answer>"}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "own.parquet")
    data = dataset([turns, tmp_path / "own.parquet"], tokenizer)
    assert data.rows == [Rows.TURN] * (len(data) - 1) + [Rows.TRANSCRIPT]
    row = {"messages": messages, "extra_info": {"rows": "turns"}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "bad.parquet")
    said = r"extra_info.rows is 'turns'; give transcript or turn"
    with pytest.raises(RoleFileError, match=said):
        dataset([tmp_path / "bad.parquet"], tokenizer)
    with pytest.raises(RoleFileError, match=r"bad.parquet: row 0: " + said):
        read_role_rows([tmp_path / "bad.parquet"], Role.SHORT)


# Losses ----------------------------------------------------------------------------------------------------------

TWO = {
    # As tokens of the tiny model: <think> 1 </think> <|im_end|> are 4, and <think> 2 ␣ 3 </think> <|im_end|> are 6.
    "1?": ["<think>1</think>", "<answer>2</rethink>", "<think>2 3</think>", "<answer>\\boxed{3}</answer>"],
    "2?": ["<think>1</think>", "<answer>\\boxed{2}</answer>"],
    "3?": ["<think>1</think>", "<answer>\\boxed{3}</answer>"],
}
"""One of the last two problems is held out."""


def losses(rows, batch_size, tokenizer):
    """verl's loss of each full batch, of a model that pays 1 nat a token of a first thought, and 4 of a second one.

    It sees which thought it writes by the opening tags so far, as a real model sees its context.
    """
    opening = tokenizer.convert_tokens_to_ids("<think>")
    found = []
    for start in range(0, len(rows) - batch_size + 1, batch_size):
        batch = SFTTensorCollator(DatasetPadMode.NO_PADDING)(rows[start : start + batch_size])
        log_probs = []
        for row in rows[start : start + batch_size]:
            tags = (row["input_ids"] == opening).cumsum(0)
            # The log-probability of a token stands at the place before it.
            log_probs.append(-torch.where(tags > 1, 4.0, 1.0).roll(-1))
        data = tu.get_tensordict(
            tensor_dict={"loss_mask": batch["loss_mask"]},
            non_tensor_dict={
                "pad_mode": DatasetPadMode.NO_PADDING,
                "dp_size": 1,
                "batch_num_tokens": int(batch["loss_mask"].values().sum()),
            },
        )
        output = {"log_probs": torch.nested.as_nested_tensor(log_probs, layout=torch.jagged)}
        found.append(sft_loss(None, output, data)[0].item())
    return found


@pytest.fixture
def rows(tmp_path):
    """Rows of the long role by kind: two transcripts, or the three turns in them."""
    tokenizer = tokenizer_of("tiny")
    found = {}
    for kind in Rows:
        data = dataset([write(tmp_path / kind.value, kind, TWO) / "long_train.parquet"], tokenizer)
        found[kind] = [data[i] for i in range(len(data))]
    assert [int(row["loss_mask"].sum()) for row in found[Rows.TRANSCRIPT]] == [4 + 6, 4]
    assert [int(row["loss_mask"].sum()) for row in found[Rows.TURN]] == [4, 6, 4]
    return found


def test_a_batch_that_holds_the_file_has_the_same_loss(rows):
    # verl averages over the tokens of a batch: (4 · 1 + 6 · 4 + 4 · 1) / 14 = 32 / 14.
    for kind in Rows:
        assert losses(rows[kind], len(rows[kind]), tokenizer_of("tiny")) == pytest.approx([32 / 14])


def test_smaller_batches_weigh_turns_differently(rows):
    tokenizer = tokenizer_of("tiny")
    # A row a batch. Transcripts: (4 + 24) / 10 and 4 / 4, two steps. Turns: 4 / 4, 24 / 6 and 4 / 4, three steps.
    assert losses(rows[Rows.TRANSCRIPT], 1, tokenizer) == pytest.approx([2.8, 1.0])
    assert losses(rows[Rows.TURN], 1, tokenizer) == pytest.approx([1.0, 4.0, 1.0])
    # Two rows a batch. Transcripts: one step with all tokens. Turns: one step with the first two, (4 + 24) / 10; verl
    # drops the third row, whose batch is not full.
    assert losses(rows[Rows.TRANSCRIPT], 2, tokenizer) == pytest.approx([32 / 14])
    assert losses(rows[Rows.TURN], 2, tokenizer) == pytest.approx([2.8])


def test_a_mean_over_rows_weighs_turns_differently(rows):
    # Not verl's loss. The second thought has 6 of the 10 tokens of its transcript, one of two: 6 / 10 / 2 = 0.3 of the
    # weight; of the turns it is one of three. (2.8 + 1) / 2 = 1.9 and (1 + 4 + 1) / 3 = 2.
    means = {kind: fmean(losses(rows[kind], 1, tokenizer_of("tiny"))) for kind in Rows}
    assert means == pytest.approx({Rows.TRANSCRIPT: 1.9, Rows.TURN: 2.0})


def test_a_template_that_deletes_earlier_thoughts_would_change_the_loss_and_is_refused(rows, tmp_path):
    tokenizer = tokenizer_of("tiny")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "(message['content'] if loop.last else message['content'].split('</think>')[-1])"
    )
    (messages, *_) = [
        row.messages
        for row in read_role_rows([tmp_path / "turn/long_train.parquet"], Role.LONG)
        if len(row.messages) > 3
    ]
    # What the template alone would give a turn as its context lacks <think> 1 </think>, three tokens.
    context = tokenizer.encode(hf_render(tokenizer)(messages[:-1], True), add_special_tokens=False)
    second = rows[Rows.TURN][1]
    assert len(context) == len(second["input_ids"]) - 6 - 3
    # The second thought then looks like a first one: all 14 tokens cost 1 nat.
    ids = torch.tensor(context + second["input_ids"][-6:].tolist())
    other = {"input_ids": ids, "loss_mask": torch.tensor([0] * len(context) + [1] * 6)}
    shorter = [{key: row[key] for key in other} for row in rows[Rows.TURN]]
    shorter[1] = other
    assert losses(shorter, 3, tokenizer) == pytest.approx([1.0])
    # RL keeps the thoughts in the context, so SFT must too: neither kind of rows is trained with such a template.
    for kind in Rows:
        data = dataset([tmp_path / kind.value / "long_train.parquet"], tokenizer)
        with pytest.raises(ChatTemplateError, match="not as it was written"):
            [data[i] for i in range(len(data))]
