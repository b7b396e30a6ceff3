# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Full-size architectures without weights: sizes, both roles' configs, templates, SFT rows and RL rows.

Held here for the recipes' families: parameter counts are the published ones; a role's prompt only grows, at its end;
token ids that a model wrote are kept; its own turns carry loss and the peer's do not; a template that would break this
is refused before a model loads, with a cure that works.
"""

from __future__ import annotations

import copy
import functools
import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
from verl.workers.config import HFModelConfig

from longshort_verl.adapters.rl.agent_loop import ROW
from longshort_verl.adapters.rl.check import check_config, check_files
from longshort_verl.adapters.rl.settings import load_tokenizer, role_config
from longshort_verl.adapters.sft.dataset import RoleDataset
from longshort_verl.adapters.sft.trainer import check_sft, example
from longshort_verl.chat_template import ChatTemplateError, check_tokenizer, check_tokens, control_tokens
from longshort_verl.config.compose import ConfigError, compose_config
from longshort_verl.dialogue import OPENING_TAG
from longshort_verl.types import Role
from tests.support.full_size import FAMILIES, MODELS, build_tokenizer, meta_model, write_model_config
from tests.support.sessions import run_session

PARAMETERS = {
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_7b": 7_615_616_512,
    "llama3_1_8b": 8_030_261_248,
    "r1_distill_qwen_7b": 7_615_616_512,
    "r1_distill_llama_8b": 8_030_261_248,
}
R1_DISTILL = ("r1_distill_qwen", "r1_distill_llama")
LONG_R1 = ["longshort_r1_distill@actor_rollout_ref.model"]
SHORT_R1 = ["longshort_r1_distill@long_short.short.model"]
PAIRS = {
    "Qwen, two sizes": ("qwen2_5_7b", "qwen2_5_0_5b", [], {}),
    "Llama": ("llama3_1_8b", "llama3_1_8b", [], {}),
    "R1 and Qwen": ("r1_distill_qwen_7b", "qwen2_5_7b", LONG_R1, {"custom_chat_template": None}),
    "R1 and Llama": ("r1_distill_llama_8b", "llama3_1_8b", LONG_R1, {"custom_chat_template": None}),
    "Llama and R1": ("llama3_1_8b", "r1_distill_qwen_7b", SHORT_R1, {}),
    "R1 twice": ("r1_distill_qwen_7b", "r1_distill_llama_8b", LONG_R1 + SHORT_R1, {}),
}
"""Models of the long and the short role, and what a recipe with them needs."""
LONG = ("<think>12 + 3 = 15\n\n15 < 16</think>", "<think>so: 15</think>")
SHORT = ("<answer>and then?</rethink>", "<answer>\\boxed{15}</answer>")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders with config and tokenizer, by name."""
    root = tmp_path_factory.mktemp("full_size")
    return {name: write_model_config(root / name, name) for name in MODELS}


@functools.cache
def composed(defaults, base="longshort_rl"):
    """A base with these entries beside it, as verl's mains would compose it."""
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "hydra": {"searchpath": ["pkg://longshort_verl.config"]},
            "defaults": [base, *defaults, "_self_"],
        }
        OmegaConf.save(OmegaConf.create(own), Path(folder) / "rl.yaml")
        return compose_config(Path(folder), "rl")


@pytest.fixture
def recipe(models, tmp_path, monkeypatch):
    """A cluster's recipe for a pair of models."""
    monkeypatch.delenv("VERL_PLATFORM")
    problems = tmp_path / "problems.parquet"
    rows = [
        {
            "data_source": "test",
            "prompt": [{"role": "user", "content": f"{index} + 3?"}],
            "reward_model": {"style": "rule", "ground_truth": str(index + 3)},
            "extra_info": {"index": index},
        }
        for index in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), problems)

    def write(long, short, defaults=(), short_model=(), long_model=()):
        own = {
            "long_short": {
                "schedule": "joint",
                "short": {"model": {"path": str(models[short]), **dict(short_model)}},
            },
            "actor_rollout_ref": {
                "model": {"path": str(models[long]), **dict(long_model)},
                "actor": {"ppo_mini_batch_size": 8},
            },
            "data": {
                "train_files": str(problems),
                "val_files": str(problems),
                "train_batch_size": 8,
                "max_response_length": 8192,
            },
            "trainer": {"total_epochs": 1},
        }
        config = copy.deepcopy(composed(tuple(defaults)))
        OmegaConf.set_struct(config, False)
        return OmegaConf.merge(config, own)

    return write


def r1_template(root) -> str:
    return OmegaConf.load(root / "longshort_verl" / "config" / "longshort_r1_distill.yaml").custom_chat_template


# Sizes and configs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_published_number(name):
    model = meta_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("pair", PAIRS)
def test_each_role_is_its_own_model_and_passes_the_checks(pair, recipe, models):
    long, short, *needs = PAIRS[pair]
    config = recipe(long, short, *needs)
    check_config(config)
    check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))
    for role, name in ((Role.LONG, long), (Role.SHORT, short)):
        model = role_config(config, role).model
        # What verl's workers and agent loops will have.
        host = HFModelConfig(path=model.path, custom_chat_template=model.custom_chat_template)
        own = build_tokenizer(MODELS[name][0])
        assert host.hf_config.model_type == MODELS[name][1].model_type
        assert host.hf_config.hidden_size == MODELS[name][2]["hidden_size"]
        assert host.hf_config.eos_token_id == own.eos_token_id
        checked = load_tokenizer(role_config(config, role))
        assert host.tokenizer.get_vocab() == checked.get_vocab()
        assert own.get_vocab().items() <= checked.get_vocab().items()
        assert host.tokenizer.chat_template == checked.chat_template


def test_what_only_the_short_role_says_leaves_the_long_one_alone(recipe):
    config = recipe("llama3_1_8b", "qwen2_5_7b", short_model={"use_liger": True})
    long, short = (role_config(config, role) for role in Role)
    assert (long.model.use_liger, short.model.use_liger) == (False, True)
    assert short.actor.ppo_mini_batch_size == long.actor.ppo_mini_batch_size == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [("custom_chat_template", "{{ messages }}"), ("tokenizer_path", "elsewhere"), ("hf_config_path", "elsewhere")],
)
def test_what_belongs_to_the_long_model_is_not_inherited_unsaid(key, value, recipe):
    config = recipe("llama3_1_8b", "qwen2_5_7b", long_model={key: value})
    with pytest.raises(ConfigError, match=rf"model.{key} is .* would inherit it; set long_short.short.model.{key}: n"):
        check_config(config)
    check_config(recipe("llama3_1_8b", "qwen2_5_7b", long_model={key: value}, short_model={key: None}))
    meant = recipe(
        "llama3_1_8b",
        "qwen2_5_7b",
        long_model={key: value},
        short_model={key: f"${{actor_rollout_ref.model.{key}}}"},
    )
    check_config(meant)
    assert role_config(meant, Role.SHORT).model[key] == value
    # The same model in both roles has the same tokenizer.
    check_config(recipe("llama3_1_8b", "llama3_1_8b", long_model={key: value}))


# Templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_writes_the_tags(family):
    tokenizer = build_tokenizer(family)
    check_tokens(
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        name=family,
    )


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("system", ["", "You are one of two."])
def test_templates_that_keep_a_dialogue(role, system):
    for family in set(FAMILIES) - set(R1_DISTILL):
        check_tokenizer(build_tokenizer(family), [role], system_prompt=system, name=family)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("system", ["", "You are one of two."])
@pytest.mark.parametrize("family", R1_DISTILL)
def test_r1_distills_template_is_refused_and_the_named_cure_passes(family, role, system, root):
    tokenizer = build_tokenizer(family)
    with pytest.raises(ChatTemplateError) as refusal:
        check_tokenizer(tokenizer, [role], system_prompt=system, name=family)
    what = "does not keep the assistant turn" if role is Role.LONG else "ends its generation prompt with <think>"
    assert what in str(refusal.value)
    assert "longshort_r1_distill@" in str(refusal.value)
    assert (root / "longshort_verl" / "config" / "longshort_r1_distill.yaml").is_file()
    tokenizer.chat_template = r1_template(root)
    check_tokenizer(tokenizer, [role], system_prompt=system, name=family)


def test_an_r1_distill_role_without_the_template_ends_before_a_model_loads(recipe):
    config = recipe("r1_distill_qwen_7b", "qwen2_5_7b")
    check_config(config)
    with pytest.raises(ConfigError, match=r"r1_distill_qwen_7b .*not keep the assistant .*longshort_r1_distill@"):
        check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))


@pytest.mark.parametrize("family", R1_DISTILL)
def test_a_trained_r1_distill_role_carries_the_template_with_it(family, models, root, tmp_path):
    # verl's checkpoints save the tokenizer that trained: RL and evaluation on them need no entry any more.
    name = next(name for name in MODELS if MODELS[name][0] == family)
    trained = HFModelConfig(path=str(models[name]), custom_chat_template=r1_template(root))
    trained.get_processor().save_pretrained(tmp_path)
    kept = AutoTokenizer.from_pretrained(tmp_path)
    check_tokenizer(kept, [Role.LONG], system_prompt="", name=family)


def test_an_sft_recipe_of_an_r1_distill_role(models, tmp_path):
    transcript = [
        {"role": "user", "content": "12 + 3?"},
        {"role": "assistant", "content": LONG[0]},
        {"role": "user", "content": SHORT[0]},
        {"role": "assistant", "content": LONG[1]},
    ]
    path = str(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"messages": [transcript]}), path)
    own = {
        "model": {"path": str(models["r1_distill_qwen_7b"])},
        "cold_start": {"role": "long"},
        "data": {"train_files": path, "val_files": path, "train_batch_size": 1},
    }

    def check(*defaults):
        return check_sft(OmegaConf.merge(copy.deepcopy(composed(defaults, base="longshort_sft")), own))

    with pytest.raises(ChatTemplateError, match="longshort_r1_distill@"):
        check()
    found = check("longshort_r1_distill@model")
    shown = example(found.train[0], found.tokenizer).plain
    assert shown == (
        f"<｜begin▁of▁sentence｜><｜User｜>12 + 3?<｜Assistant｜>⟦{LONG[0]}<｜end▁of▁sentence｜>⟧"
        f"<｜User｜>{SHORT[0]}<｜Assistant｜>⟦{LONG[1]}<｜end▁of▁sentence｜>⟧"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_shapes_a_chat_is_a_control_token(family):
    tokenizer = build_tokenizer(family)
    found = control_tokens([tokenizer])
    rendered = tokenizer.apply_chat_template(
        [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")],
        tokenize=False,
        add_generation_prompt=True,
    )
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    assert {token for token in added if token in rendered} - {"<think>"} <= set(found)
    assert not {"<think>", "</think>", "<tool_call>"} & set(found)


# Rows ------------------------------------------------------------------------------------------------------------


def own_tokens(ids, mask):
    """Runs of tokens that carry loss."""
    pairs = itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [[token for token, _ in run] for own, run in pairs if own]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("family", FAMILIES)
def test_sft_rows_teach_the_roles_own_turns_and_pack(family, role, root, tmp_path):
    tokenizer = build_tokenizer(family)
    if family in R1_DISTILL:
        tokenizer.chat_template = r1_template(root)
    own, peer = (LONG, SHORT) if role is Role.LONG else (SHORT, LONG)
    openings = ["12 + 3?", "3 + 12 < 16?"]
    transcripts = [
        [
            {"role": "user", "content": opening},
            {"role": "assistant", "content": own[0]},
            {"role": "user", "content": peer[0]},
            {"role": "assistant", "content": own[1]},
        ]
        for opening in openings
    ]
    pq.write_table(pa.table({"messages": transcripts}), tmp_path / "rows.parquet")
    config = OmegaConf.create({"pad_mode": "no_padding", "max_length": 1024})
    dataset = RoleDataset(str(tmp_path / "rows.parquet"), tokenizer, config)
    assert len(dataset) == 2
    batch = SFTTensorCollator(DatasetPadMode.NO_PADDING)([dataset[0], dataset[1]])
    packed = {key: batch[key].values().tolist() for key in ("input_ids", "position_ids", "loss_mask")}
    ends = batch["input_ids"].offsets().tolist()
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        # Positions begin anew: that is how packed attention knows where a row begins.
        assert packed["position_ids"][start:end] == list(range(end - start))
        ids, mask = (packed[key][start:end] for key in ("input_ids", "loss_mask"))
        whole = tokenizer.apply_chat_template(transcripts[number], tokenize=False)
        assert whole.startswith(tokenizer.decode(ids))
        assert ids.count(tokenizer.bos_token_id) == (1 if tokenizer.bos_token else 0)
        learnt = own_tokens(ids, mask)
        assert [tokenizer.decode(run) for run in learnt] == [turn + tokenizer.eos_token for turn in own]
    assert sum(packed["loss_mask"]) < len(packed["loss_mask"])


@pytest.mark.parametrize("pair", PAIRS)
def test_rl_rows_keep_ids_and_train_own_turns(pair, recipe):
    long, short, *needs = PAIRS[pair]
    config = recipe(long, short, *needs)
    system_prompt = dict(config.long_short.dialogue.system_prompt)
    rows, servers, tokenizers = run_session(config, LONG, SHORT, problem="12 + 3?")
    for row, role, own, peer in zip(rows, Role, (LONG, SHORT), (SHORT, LONG), strict=True):
        tokenizer = tokenizers[role]
        written = [tokenizer.encode(turn, add_special_tokens=False) for turn in own]
        assert own_tokens(row.response_ids, row.response_mask) == written
        context = tokenizer.decode(
            [token for token, mine in zip(row.response_ids, row.response_mask, strict=True) if not mine]
        )
        assert peer[1 if role is Role.SHORT else 0] in context
        assert not any(turn in context for turn in own)
        first, second = (request.prompt_ids for request in servers[role].requests)
        assert first == row.prompt_ids
        assert second[: len(first) + len(written[0])] == first + written[0]
        assert second == (row.prompt_ids + row.response_ids)[: len(second)]
        # The next prompt is the one that the template renders of the whole transcript.
        opening = "12 + 3?" if role is Role.LONG else f"12 + 3?\n\n{LONG[0]}"
        transcript = [
            {"role": "system", "content": system_prompt[role.value]},
            {"role": "user", "content": opening},
            {"role": "assistant", "content": own[0]},
            {"role": "user", "content": peer[1 if role is Role.SHORT else 0]},
        ]
        rendered = tokenizer.apply_chat_template(transcript, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(second) == rendered
        assert not rendered.rstrip().endswith(OPENING_TAG[role])
        if tokenizer.bos_token_id is not None:
            assert second.count(tokenizer.bos_token_id) == 1
    record = rows[1].extra_fields[ROW]
    assert (record["stop_reason"], record["answer"], record["num_rethinks"]) == ("answered", "\\boxed{15}", 1)


@pytest.mark.parametrize("name", ["qwen2_5_7b", "llama3_1_8b"])
def test_a_last_token_that_reaches_past_the_tag_is_kept(name, recipe, models):
    # The engine stops at the tag's text; the token that ends it may hold line breaks too.
    tokenizer = AutoTokenizer.from_pretrained(models[name])
    ids = tokenizer.encode(LONG[0] + "\n\n", add_special_tokens=False)
    assert tokenizer.decode(ids[-1:]) == ">\n\n"
    rows, servers, _ = run_session(recipe(name, name), [ids, LONG[1]], SHORT)
    assert own_tokens(rows[0].response_ids, rows[0].response_mask)[0] == ids
    # The peer reads the turn up to its tag.
    assert LONG[0] + "\n\n" not in tokenizer.decode(servers[Role.SHORT].requests[0].prompt_ids)
    assert LONG[0] in tokenizer.decode(servers[Role.SHORT].requests[0].prompt_ids)


@pytest.mark.parametrize(
    ("pair", "forged"),
    [
        ("Qwen, two sizes", "<|im_start|>"),
        ("Llama", "<|start_header_id|>"),
        ("R1 and Qwen", "<｜User｜>"),
        ("Llama and R1", "<｜Assistant｜>"),
    ],
)
def test_no_role_can_forge_a_turn_of_the_other(pair, forged, recipe):
    long, short, *needs = PAIRS[pair]
    rows, _, _ = run_session(recipe(long, short, *needs), [f"<think>15{forged}16</think>"], [])
    record = rows[0].extra_fields[ROW]
    assert record["detail"] == f"long turn has the control token {forged} inside the turn"


def test_a_look_alike_cuts_text_as_its_family_does():
    # Published behaviour: Qwen reads digits one by one, Llama 3 up to three at once; R1-Distill has tags of its own.
    def pieces(family, text):
        tokenizer = build_tokenizer(family)
        return [tokenizer.decode([token]) for token in tokenizer.encode(text, add_special_tokens=False)]

    assert pieces("qwen2_5", "12</think>\n\n") == ["1", "2", "</", "think", ">\n\n"]
    assert pieces("llama3_1", "12</think>\n\n") == ["12", "</", "think", ">\n\n"]
    assert pieces("r1_distill_qwen", "12</think>\n\n") == ["1", "2", "</think>", "\n\n"]
    assert build_tokenizer("llama3_1").pad_token is None
    assert build_tokenizer("qwen2_5").pad_token != build_tokenizer("qwen2_5").eos_token
