# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longshort_verl.chat_template import ChatTemplateError, check_tokenizer, control_tokens, hf_render
from longshort_verl.cold_start.transcripts import RoleFileError, Rows, pieces, read_role_rows, transcript_fault
from longshort_verl.types import Message, Role

# Behave as the templates of these families do: Qwen2.5 brings a system message of its own, Llama 3.1 begins with a
# token and trims, R1-Distill deletes earlier thoughts.
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Q.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
R1 = (
    "<|begin|>{% for m in messages %}{% if m.role == 'assistant' %}"
    "<|A|>{{ m.content.split('</think>')[-1] if '</think>' in m.content else m.content }}<|eos|>"
    "{% else %}<|U|>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|A|>{% endif %}"
)
NEVER_ENDS = "{% for m in messages %}<|U|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|U|>{% endif %}"
FAMILIES = {
    "qwen2.5": (QWEN, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama3.1": (LLAMA, ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
}
LONG = (
    Message(role="user", content="1 + 1 < 3?"),
    Message(role="assistant", content="<think>1 + 1 = 2\n\n2 < 3</think>"),
    Message(role="user", content="<answer>go on</rethink>"),
    Message(role="assistant", content="<think>yes</think>"),
)
SHORT = (
    Message(role="system", content="You are brief."),
    Message(role="user", content="1 + 1 < 3?\n\n<think>2 < 3</think>"),
    Message(role="assistant", content="<answer>go on</rethink>"),
    Message(role="user", content="<think>yes</think>"),
    Message(role="assistant", content="<answer>\\boxed{yes}</answer>"),
)


def tokenizer_of(template, special):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=special, chat_template=template, eos_token=special[-1]
    )


def row_of(tokenizer, messages, **config):
    """Ids and mask that verl's trainer would get."""
    from omegaconf import OmegaConf

    from longshort_verl.adapters.sft.dataset import RoleDataset

    dataset = object.__new__(RoleDataset)  # reading files is verl's part
    dataset.tokenizer, dataset.messages = tokenizer, [[message.as_dict() for message in messages]]
    dataset.rows = [Rows.TRANSCRIPT]
    settings = OmegaConf.create({"max_length": 1000, "pad_mode": "no_padding"} | config)
    dataset.max_length, dataset.pad_mode = settings.max_length, settings.pad_mode
    return dataset[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("role", "messages"), [(Role.LONG, LONG), (Role.SHORT, SHORT)])
def test_exactly_the_roles_own_turns_and_their_ends_carry_loss(family, role, messages):
    template, special, end = FAMILIES[family]
    tokenizer = tokenizer_of(template, special)
    check_tokenizer(tokenizer, [role], system_prompt="", name=family)
    row = row_of(tokenizer, messages)
    ids, mask = row["input_ids"].tolist(), row["loss_mask"].tolist()
    trained = tokenizer.decode([token for token, own in zip(ids, mask, strict=True) if own], skip_special_tokens=False)
    own = [message.content for message in messages if message.role == "assistant"]
    assert trained == "".join(f"{turn}{end}" for turn in own)
    # By tokens: a byte each, and one for the end.
    assert sum(mask) == sum(len(turn) + 1 for turn in own)
    runs = [i for i in range(1, len(mask)) if mask[i] and not mask[i - 1]]
    assert len(runs) == len(own)
    # All of it is what the template renders, and what generation would be given before each turn.
    whole = tokenizer.apply_chat_template([m.as_dict() for m in messages], tokenize=False)
    assert whole.startswith(tokenizer.decode(ids, skip_special_tokens=False))
    for run, number in zip(runs, [i for i, m in enumerate(messages) if m.role == "assistant"], strict=True):
        prompt = tokenizer.apply_chat_template(
            [m.as_dict() for m in messages[:number]], tokenize=False, add_generation_prompt=True
        )
        assert ids[:run] == tokenizer.encode(prompt, add_special_tokens=False)
    assert row["position_ids"].tolist() == list(range(len(ids)))


def test_padding_carries_no_loss():
    template, special, _ = FAMILIES["qwen2.5"]
    tokenizer = tokenizer_of(template, special)
    row, padded = row_of(tokenizer, LONG), row_of(tokenizer, LONG, pad_mode="right")
    length = len(row["input_ids"])
    assert padded["input_ids"].shape == padded["loss_mask"].shape == padded["attention_mask"].shape == (1000,)
    assert padded["loss_mask"][:length].tolist() == row["loss_mask"].tolist()
    assert padded["loss_mask"][length:].sum() == 0
    assert padded["attention_mask"].sum() == length


def test_a_transcript_that_is_too_long_is_refused_and_never_cut():
    template, special, _ = FAMILIES["qwen2.5"]
    with pytest.raises(ValueError, match="row 0 has .* tokens, and data.max_length is 50; raise it"):
        row_of(tokenizer_of(template, special), LONG, max_length=50)


def test_a_template_that_deletes_earlier_thoughts_is_refused_with_the_cure():
    tokenizer = tokenizer_of(R1, ["<|begin|>", "<|U|>", "<|A|>", "<|eos|>"])
    with pytest.raises(ChatTemplateError, match=r"does not keep the assistant turn.*Give r1 a chat template"):
        check_tokenizer(tokenizer, [Role.LONG], system_prompt="", name="r1")
    with pytest.raises(ChatTemplateError, match="not as it was written"):
        pieces(LONG, hf_render(tokenizer), control_tokens([tokenizer]))


def test_a_template_that_ends_no_turn_is_refused():
    tokenizer = tokenizer_of(NEVER_ENDS, ["<|U|>"])
    with pytest.raises(ChatTemplateError, match="begins with no special token: the model would not learn to stop"):
        pieces(LONG, hf_render(tokenizer), control_tokens([tokenizer]))


def user(content="p"):
    return Message(role="user", content=content)


def own(content):
    return Message(role="assistant", content=content)


FAULTS = {
    "begins with the role itself": (Role.LONG, [own("<think>a</think>")], "message 0 after the system's is the assist"),
    "only a system message": (Role.LONG, [Message(role="system", content="s")], "does not end with a turn of the long"),
    "two of the peer's": (
        Role.LONG,
        [user(), user()],
        "message 1 after the system's is the user's, not the assistant's",
    ),
    "ends with the peer": (
        Role.LONG,
        [user(), own("<think>a</think>"), user()],
        "does not end with a turn of the long",
    ),
    "the other role's turn": (Role.LONG, [user(), own("<answer>a</answer>")], "does not begin with <think>"),
    "no end": (Role.SHORT, [user(), own("<answer>a")], "has no closing"),
    "text after the end": (Role.LONG, [user(), own("<think>a</think> b")], "has text around its tags"),
    "answers too early": (
        Role.SHORT,
        [user(), own("<answer>a</answer>"), user(), own("<answer>a</answer>")],
        "turn 0 of the short role answers, but the dialogue continues",
    ),
    "an unknown speaker": (Role.LONG, [Message(role="tool", content="p"), own("<think>a</think>")], "is the tool's"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_transcript_is_said_in_words(name):
    role, messages, said = FAULTS[name]
    assert said in transcript_fault(messages, role)


def test_transcripts_of_both_roles_are_sound():
    assert transcript_fault(LONG, Role.LONG) == transcript_fault(SHORT, Role.SHORT) == ""


def write(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_rows_are_read_with_their_answers(tmp_path):
    messages = [message.as_dict() for message in LONG]
    plain = write(tmp_path / "plain.parquet", {"messages": messages})
    full = write(tmp_path / "full.parquet", {"messages": messages, "extra_info": {"answer": "yes"}})
    rows = read_role_rows([plain, full], Role.LONG)
    assert [row.messages for row in rows] == [LONG, LONG]
    assert [row.answer for row in rows] == [None, "yes"]


def test_bad_rows_are_named_with_file_row_and_reason(tmp_path):
    good = {"messages": [message.as_dict() for message in LONG]}
    wrong = {"messages": [message.as_dict() for message in LONG[1:]]}
    path = write(tmp_path / "some.parquet", good, wrong, good, {"messages": None})
    with pytest.raises(RoleFileError) as refusal:
        read_role_rows([path], Role.LONG)
    assert str(refusal.value).splitlines() == [
        f"{path}: row 1: message 0 after the system's is the assistant's, not the user's",
        f"{path}: row 3: messages is not a list of messages",
    ]
    many = write(tmp_path / "many.parquet", *[wrong] * 30)
    with pytest.raises(RoleFileError, match="… and 20 more"):
        read_role_rows([many], Role.LONG)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(RoleFileError, match="cannot be read"):
        read_role_rows([tmp_path / "none.parquet"], Role.LONG)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(RoleFileError, match="cannot be read"):
        read_role_rows([tmp_path / "text.parquet"], Role.LONG)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"messages": pa.array([], pa.list_(pa.string()))}), empty)
    with pytest.raises(RoleFileError, match="has no row"):
        read_role_rows([empty], Role.LONG)
    other = write(tmp_path / "other.parquet", {"messages": ["a", "b"]})
    with pytest.raises(RoleFileError, match="row 0: message 0 has no text as its role"):
        read_role_rows([other], Role.LONG)
