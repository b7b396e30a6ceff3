# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Templates as the families have them (small look-alikes): which keep a dialogue, and what is said of the others."""

from __future__ import annotations

import jinja2
import pytest
import yaml

from longshort_verl.chat_template import ChatTemplateError, check_chat_template, check_tokens, text_after_turn
from longshort_verl.cold_start.transcripts import pieces
from longshort_verl.dialogue import PROTOCOL_TAGS
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
# The next ones behave as the templates of these families do, in our own words.
# gpt-oss: the generation prompt ends at the role; a turn then begins with its channel.
GPT_OSS = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# GLM-4-MoE: every turn begins with an empty thought, which the generation prompt lacks.
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think></think>\n"
    "{{ m.content.split('</think>') | last | trim }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Qwen3: the last turn begins with an empty thought; earlier turns lose theirs.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{{ '<think>\n\n</think>\n\n' if loop.last else '' }}{{ m.content.split('</think>') | last }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama 2: the generation prompt ends without the space before a turn.
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% elif m.role == 'assistant' %}"
    " {{ m.content }} </s>{% else %}<s><<SYS>>{{ m.content }}<</SYS>>{% endif %}{% endfor %}"
)
# Alpaca: no special token ends a turn.
ALPACA = (
    "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
MARKS_THE_THIRD_TURN = CHATML.replace("{{ m.role }}\n", "{{ m.role }}{{ '*' if messages | length > 5 else '' }}\n")
# What follows a turn depends on its text, which the rollout replaces by a mark.
ENDS_BY_TEXT = CHATML.replace("<|im_end|>", "{{ '' if m.content.endswith('>') else ' ' }}<|im_end|>")
CONTROL = ("<|im_end|>", "<|eot|>", "<eos>", "<|end|>", "<|return|>", "<|user|>", "</s>")


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
    check_chat_template(role, render_of(source), control=CONTROL, system_prompt=system, name="m")


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
        (
            GPT_OSS,
            Role.LONG,
            "renders a turn as '<|channel|>final<|message|><think>7 < 8 first</think><|return|>', not as",
        ),
        (
            GPT_OSS,
            Role.SHORT,
            "renders a turn as '<|channel|>final<|message|><answer>not yet</rethink><|return|>', not",
        ),
        (GLM, Role.LONG, "does not keep the assistant turn '<think>7 < 8 first</think>'"),
        (GLM, Role.SHORT, r"renders a turn as '\n<think></think>\n<answer>not yet</rethink>', not as it was written"),
        (QWEN3, Role.LONG, "does not keep the assistant turn '<think>7 < 8 first</think>'"),
        (
            QWEN3,
            Role.SHORT,
            r"renders a turn as '<think>\n\n</think>\n\n<answer>not yet</rethink><|im_end|>\n', not as",
        ),
        (LLAMA_2, Role.SHORT, "renders a turn as ' <answer>not yet</rethink> </s>', not as it was written"),
        (ALPACA, Role.SHORT, r"ends a turn with '\n\n', which begins with no special token"),
        (ENDS_BY_TEXT, Role.LONG, "renders earlier turns differently later on ('<|im_end|>"),
        (MARKS_THE_THIRD_TURN, Role.SHORT, "renders earlier turns differently later on ('*"),
    ],
)
def test_damaging_templates_are_refused_with_the_cure(source, role, message):
    with pytest.raises(ChatTemplateError, match="Give m a chat template") as refusal:
        check_chat_template(role, render_of(source), control=CONTROL, system_prompt="sys", name="m")
    assert str(refusal.value).startswith(f"the chat template of m cannot be used for the {role.value} role: it ")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        (R1.replace("<A>", "<｜Assistant｜>"), "For R1-Distill models there is one: longshort_r1_distill@<where"),
        (
            QWEN3,
            "For ChatML (Qwen3 among them) models there is one: longshort_chatml@<where its model is> in defaults.",
        ),
        (GPT_OSS, "(tokenizer.chat_template, or model.custom_chat_template in the recipe)."),
    ],
)
def test_the_cure_names_the_ready_made_template_of_the_family(source, cure):
    with pytest.raises(ChatTemplateError) as refusal:
        check_chat_template(Role.LONG, render_of(source), control=CONTROL, system_prompt="", name="m")
    assert cure in str(refusal.value)
    if "there is one" not in cure:
        assert str(refusal.value).endswith(cure)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("system", ["", "You are one of two."])
def test_the_ready_made_chatml_template_passes(role, system, root):
    source = yaml.safe_load((root / "longshort_verl/config/longshort_chatml.yaml").read_text())["custom_chat_template"]
    check_chat_template(role, render_of(source), control=CONTROL, system_prompt=system, name="m")
    assert render_of(source)([Message(role="user", content="q")], True) == (
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    )


ALL = {name: source for name, source in globals().items() if name.isupper() and isinstance(source, str)}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", ALL)
def test_the_check_and_both_jobs_agree(name, role):
    """A template passes if RL, evaluation and SFT have the same text, of another dialogue than the check's."""
    render = render_of(ALL[name])
    try:
        check_chat_template(role, render, control=CONTROL, system_prompt="s", name="m")
    except ChatTemplateError:
        passes = False
    else:
        passes = True
    messages = [Message(role="system", content="s"), Message(role="user", content="1 + 1?"), *DIALOGUES[role]]
    assert jobs_accept(render, messages) is passes


TEXTS = [
    *["<think>2?</think>", "<answer>sure?</rethink>", "<think>1 + 1 < 3 </think>", "<answer>\nmore</rethink>"],
    *["<think>\\frac{4}{2}\n</think>", "<answer>\\boxed{2}</answer>"],
]
DIALOGUES = {
    role: [Message(role=("assistant", "user")[i % 2], content=text) for i, text in enumerate(texts)]
    for role, texts in {Role.LONG: TEXTS[:5], Role.SHORT: TEXTS[1:]}.items()
}


def jobs_accept(render, messages):
    """Whether the rollout's text, evaluation's prompts and the cut transcript are one and the same."""
    own = [number for number, message in enumerate(messages) if message.role == "assistant"]
    try:
        text = render(messages[: own[0]], True)
        for number in own:
            if number > own[0]:
                text += text_after_turn(render, messages[: number - 2], messages[number - 1])
            if render(messages[:number], True) != text or text.rstrip().endswith(PROTOCOL_TAGS):
                return False
            if not all(message.content.strip() in text for message in messages[:number]):
                return False
            text += messages[number].content
            cut = pieces(messages[: number + 1], render, CONTROL)
            if not "".join(piece.text for piece in cut).startswith(text):
                return False
    except (ChatTemplateError, jinja2.TemplateError):
        return False
    return True


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
    with pytest.raises(ChatTemplateError, match="renders earlier turns differently later on"):
        text_after_turn(render_of(MARKS_THE_LAST_TURN), before, Message(role="user", content="more"))
