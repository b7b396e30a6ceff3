# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Conversations as token ids, and likelihoods token by token, with tokenizers made here."""

import asyncio

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from longshort_verl.generation.base import Prompts, token_by_token
from longshort_verl.types import Message

CHARACTERS = "abcdefghijklmnopqrstuvwxyz<>/{}0123456789\n"
PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPENING = PLAIN.replace("<assistant>{% endif %}", "<assistant><think>\n{% endif %}")
QUESTION = Message(role="user", content="q")


@pytest.fixture
def prompts(tmp_path):
    """Prompts of a tokenizer of single characters, in which an opening brace and a 2 are one token."""

    def build(template=PLAIN):
        vocabulary = {character: i for i, character in enumerate([*CHARACTERS, "{2"])}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("{", "2")]))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template).save_pretrained(tmp_path)
        return Prompts(str(tmp_path))

    return build


def said(prompts, ids):
    return "".join(prompts.tokenizer.convert_ids_to_tokens(ids))


def assistant(text):
    return Message(role="assistant", content=text)


def test_a_question_ends_with_the_generation_prompt(prompts):
    found = prompts()
    assert said(found, found.encode([QUESTION])) == "<user>q<assistant>"


def test_an_assistants_last_message_is_gone_on_with(prompts):
    found = prompts()
    assert said(found, found.encode([QUESTION, assistant("so")])) == "<user>q<assistant>so"
    asked = found.encode([QUESTION, assistant("so"), QUESTION])
    assert said(found, asked) == "<user>q<assistant>so<user>q<assistant>"


@pytest.mark.parametrize("opening", ["<think>", "<think>\n", "\n<think>\n"])
def test_thinking_is_opened_once(prompts, opening):
    found = prompts(OPENING)
    assert said(found, found.encode([QUESTION])) == "<user>q<assistant><think>\n"
    assert said(found, found.encode([QUESTION, assistant(f"{opening}so")])) == f"<user>q<assistant>{opening}so"
    assert said(found, found.encode([QUESTION, assistant("so")])) == "<user>q<assistant><think>\nso"


class Asked:
    """A model to which every token is as likely as its place says."""

    def __init__(self):
        self.asked = []

    async def __call__(self, ids, token):
        self.asked.append((ids, token))
        return -0.5 * len(ids), 2


def likelihood(prompts, message, text, most=100):
    asked = Asked()
    found = asyncio.run(token_by_token(prompts, [QUESTION, message], text, asked, most))
    return found, [(said(prompts, ids), said(prompts, [token])) for ids, token in asked.asked]


def test_each_token_is_asked_for_after_those_before_it(prompts):
    found, asked = likelihood(prompts(), assistant("x{"), "13")
    assert asked == [("<user>q<assistant>x{", "1"), ("<user>q<assistant>x{1", "3")]
    assert found.log_prob == -0.5 * (20 + 21)
    assert (found.num_prompt_tokens, found.num_cached_tokens, found.num_tokens) == (41, 4, 2)


def test_where_text_and_message_share_a_token_the_likelihood_begins_with_it(prompts):
    _, asked = likelihood(prompts(), assistant("x{"), "23")
    assert asked == [("<user>q<assistant>x", "{2"), ("<user>q<assistant>x{2", "3")]


def test_what_does_not_fit_is_an_error(prompts):
    found, asked = likelihood(prompts(), assistant("x{"), "13", most=21)
    assert found.error == "22 tokens do not fit into the model's context of 21"
    assert not asked


def test_a_likelihood_needs_a_message_and_a_text(prompts):
    with pytest.raises(ValueError, match="a likelihood needs an assistant's message"):
        likelihood(prompts(), QUESTION, "13")
    with pytest.raises(ValueError, match="and a text"):
        likelihood(prompts(), assistant("x"), "")
