# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Templates as the families have them (small look-alikes): which keep a dialogue, and what is said of the others."""

from __future__ import annotations

import jinja2
import pytest

from longshort_verl.chat_template import ChatTemplateError, check_chat_template, check_tokens, text_after_turn
from longshort_verl.types import Message, Role

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "<bos>{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
# R1-Distill: earlier assistant turns lose everything up to </think>; the generation prompt opens a thought.
R1 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<A>{{ m.content.split('</think>')[-1] }}<eos>"
    "{% else %}<U>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<A><think>\n{% endif %}"
)
OPENS_A_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
KEEPS_ONLY_THE_LAST_EXCHANGE = "{% for m in messages[-2:] %}<{{ m.role }}>{{ m.content }}{% endfor %}"
DROPS_THE_SYSTEM_PROMPT = CHATML.replace("messages %}", "messages if m.role != 'system' %}", 1)
ESCAPES = CHATML.replace("m.content", "m.content | escape")
MARKS_THE_LAST_TURN = CHATML.replace("{{ m.role }}\n", "{{ m.role }}{{ '*' if loop.last else '' }}\n")
REFUSES = "{{ raise_exception('no') }}"


def render_of(source: str):
    template = jinja2.Environment().from_string(source)

    def render(messages, add_generation_prompt):
        rows = [m.as_dict() for m in messages]
        return template.render(messages=rows, add_generation_prompt=add_generation_prompt)

    return render


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("source", [CHATML, LLAMA])
@pytest.mark.parametrize("system", ["", "You are one of two."])
def test_whole_templates_pass(role, source, system):
    check_chat_template(role, render_of(source), system_prompt=system, name="m")


@pytest.mark.parametrize(
    ("source", "role", "message"),
    [
        (R1, Role.LONG, "does not keep the assistant turn '<think>7 < 8 first</think>'"),
        (OPENS_A_THOUGHT, Role.LONG, "ends its generation prompt with <think>"),
        (OPENS_A_THOUGHT, Role.SHORT, "ends its generation prompt with <think>"),
        (KEEPS_ONLY_THE_LAST_EXCHANGE, Role.LONG, "does not keep the system turn"),
        (DROPS_THE_SYSTEM_PROMPT, Role.SHORT, "does not keep the system turn 'sys'"),
        (ESCAPES, Role.LONG, "does not keep the assistant turn"),
        (MARKS_THE_LAST_TURN, Role.LONG, "renders earlier turns differently later on"),
        (REFUSES, Role.LONG, "cannot render a dialogue"),
    ],
)
def test_damaging_templates_are_refused_with_the_cure(source, role, message):
    with pytest.raises(ChatTemplateError, match="Give m a chat template") as refusal:
        check_chat_template(role, render_of(source), system_prompt="sys", name="m")
    assert message in str(refusal.value)


def test_tokenizer_that_loses_a_tag():
    vocabulary = "<>/thinkanswe"  # no r
    with pytest.raises(ChatTemplateError, match=r"tokenizer of m turns '<answer>' into '<answe\?>'"):
        check_tokens(
            lambda text: [vocabulary.find(character) for character in text],
            lambda ids: "".join(vocabulary[i] if i >= 0 else "?" for i in ids),
            name="m",
        )


def test_text_between_two_turns():
    before = [Message(role="user", content="q")]
    assert text_after_turn(render_of(CHATML), before, Message(role="user", content="more")) == (
        "<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(ChatTemplateError):
        text_after_turn(render_of(MARKS_THE_LAST_TURN), before, Message(role="user", content="more"))
