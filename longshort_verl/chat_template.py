# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates: a check that a template keeps a dialogue, and the tokens between two turns of one role.

Some templates rewrite history: R1-Distill's deletes everything before ``</think>`` in earlier assistant turns, which
would silently empty the long role's transcript. Generated token ids are kept and never re-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from longshort_verl.dialogue import PROTOCOL_TAGS
from longshort_verl.types import Message, Role

Render = Callable[[Sequence[Message], bool], str]
"""``render(messages, add_generation_prompt) -> text`` of one tokenizer's chat template."""

_DIALOGUE = (
    "<think>7 < 8 first</think>",
    "<answer>not yet</rethink>",
    "<think>8 > 7\n\nsecond</think>",
    "<answer>not yet</rethink>",
    "<think>third</think>",
    "<answer>\\boxed{7}\n\n7 < 8</answer>",
)
"""Turns of both roles that the check renders."""
_MARK = "0"
"""Placeholder of a generated turn, of which only the text after it matters; every tokenizer knows the character."""
_READY_MADE = {
    "<｜Assistant｜>": ("R1-Distill", "longshort_r1_distill"),
    "<|im_start|>": ("ChatML (Qwen3 among them)", "longshort_chatml"),
}
"""Mark of a family's templates → the family and the file of ``config`` with a template that keeps all turns."""


class ChatTemplateError(ValueError):
    """A chat template that would damage a dialogue."""


def hf_render(tokenizer) -> Render:
    """The chat template of a Hugging Face tokenizer, as a function."""

    def render(messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return tokenizer.apply_chat_template(
            [message.as_dict() for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )

    return render


def control_tokens(tokenizers: Iterable[Any]) -> tuple[str, ...]:
    """Tokens that no turn may contain: those that structure a chat, except the protocol's tags.

    These are all special tokens (``all_special_tokens`` lacks Llama's ``<|start_header_id|>``) and all tokens that the
    chat template writes (R1-Distill's ``<｜User｜>`` is not special).
    """
    tokens: set[str] = set()
    for tokenizer in tokenizers:
        tokens.update(tokenizer.all_special_tokens)
        template = str(tokenizer.chat_template)
        for token in tokenizer.added_tokens_decoder.values():
            if token.special or (token.content.strip() and token.content in template):
                tokens.add(token.content)
    return tuple(sorted(tokens - set(PROTOCOL_TAGS)))


def check_chat_template(role: Role, render: Render, *, control: Iterable[str], system_prompt: str, name: str) -> None:
    """Refuse a template with which RL, SFT and evaluation would not see the same tokens of a role's transcript.

    Builds a dialogue of several turns as the RL rollout does (:func:`text_after_turn`) and cuts it as the SFT data set
    does (:func:`own_turns`; a token of ``control`` ends a turn). ``name`` is the model's path.

    Raises:
        ChatTemplateError: with the text that the template changes, and the cure.
    """
    messages = [Message(role="system", content=system_prompt)] if system_prompt else []
    texts = ["What is 7?", *_DIALOGUE[:5]] if role is Role.LONG else [f"What is 7?\n\n{_DIALOGUE[0]}", *_DIALOGUE[1:]]
    messages += [Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(texts)]
    rendered = []

    def recorded(messages: Sequence[Message], add_generation_prompt: bool) -> str:
        rendered.append(render(messages, add_generation_prompt))
        return rendered[-1]

    try:
        _check_dialogue(recorded, messages, tuple(control))
    except ChatTemplateError as error:
        fault = str(error)
    except Exception as error:  # a template is a program and can raise anything
        fault = f"it cannot render a dialogue: {error!r}"
    else:
        return
    known = [entry for mark, entry in _READY_MADE.items() if any(mark in text for text in rendered)]
    cures = [f" For {family} models there is one: {file}@<where its model is> in defaults." for family, file in known]
    raise ChatTemplateError(
        f"the chat template of {name} cannot be used for the {role.value} role: {fault}. Give {name} a chat template "
        "that renders every turn as it is (tokenizer.chat_template, or model.custom_chat_template in the recipe)."
        + "".join(cures)
    )


def _check_dialogue(render: Render, messages: Sequence[Message], control: Sequence[str]) -> None:
    whole = render(messages, False)
    for message in messages:
        if message.content.strip() not in whole:
            raise ChatTemplateError(
                f"it does not keep the {message.role} turn {message.content!r}: a dialogue renders as {whole!r}"
            )
    own = [number for number, message in enumerate(messages) if message.role == "assistant"]
    rollout = render(messages[: own[0]], True)
    for number in own:
        before = messages[:number]
        _check_generation_prompt(render(before, False), render(before, True))
        if number > own[0]:
            rollout += messages[number - 2].content + text_after_turn(render, messages[: number - 2], before[-1])
        if (prompt := render(before, True)) != rollout:
            raise ChatTemplateError(f"it {_difference(prompt, rollout)}")
        own_turns(messages[: number + 1], render, control)


def _check_generation_prompt(closed: str, prompt: str) -> None:
    added = prompt[len(closed) :] if prompt.startswith(closed) else prompt
    written = [tag for tag in PROTOCOL_TAGS if added.rstrip().endswith(tag)]
    if written:
        raise ChatTemplateError(
            f"it ends its generation prompt with {written[0]}, so the model's own turn would begin without it and "
            "break the protocol"
        )


def check_tokens(encode: Callable[[str], list[int]], decode: Callable[[list[int]], str], *, name: str) -> None:
    """Refuse a tokenizer that cannot write the tags of the protocol.

    Raises:
        ChatTemplateError: with the tag that encoding and decoding change.
    """
    for tag in PROTOCOL_TAGS:
        back = decode(encode(tag))
        if back != tag:
            raise ChatTemplateError(
                f"the tokenizer of {name} turns {tag!r} into {back!r}; add the tag to its vocabulary as a token that "
                "is not special, or choose another tokenizer"
            )


def check_tokenizer(tokenizer: Any, roles: Iterable[Role], *, system_prompt: str, name: str) -> None:
    """:func:`check_tokens` and, for each role, :func:`check_chat_template` of a Hugging Face tokenizer."""
    check_tokens(
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        name=name,
    )
    control = control_tokens([tokenizer])
    for role in roles:
        check_chat_template(role, hf_render(tokenizer), control=control, system_prompt=system_prompt, name=name)


def text_after_turn(render: Render, before: Sequence[Message], appended: Message) -> str:
    """The text of the template between a generated turn and the next: end of turn, the user message, the next prompt.

    The transcript is ``before``, the generated turn, and the user message ``appended``.

    Raises:
        ChatTemplateError: the template changes earlier turns.
    """
    whole = render([*before, Message(role="assistant", content=_MARK), appended], True)
    return whole[_turn(whole, render(before, True), _MARK).stop :]


def own_turns(messages: Sequence[Message], render: Render, control: Iterable[str]) -> tuple[str, dict[int, slice]]:
    """A finished transcript as rendered, and the place in it of each assistant turn with its end token, by number.

    A token of ``control`` may end a turn.

    Raises:
        ChatTemplateError: the template changes earlier turns or does not end one with a control token.
    """
    whole, places = render(messages, False), {}
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        turn = _turn(whole, render(messages[:number], True), message.content)
        ending = max((token for token in control if whole.startswith(token, turn.stop)), key=len, default="")
        if not ending:
            raise ChatTemplateError(
                f"it ends a turn with {whole[turn.stop : turn.stop + 20]!r}, which begins with no special token: the "
                "model would not learn to stop"
            )
        places[number] = slice(turn.start, turn.stop + len(ending))
    return whole, places


def _turn(whole: str, prompt: str, turn: str) -> slice:
    """The place of ``turn`` in ``whole``, directly after ``prompt``."""
    if not whole.startswith(prompt):
        raise ChatTemplateError(f"it {_difference(whole, prompt)}")
    start = len(prompt)
    if not whole.startswith(turn, start):
        raise ChatTemplateError(
            f"it renders a turn as {whole[start : start + 80]!r}, not as it was written ({turn[:80]!r}): training "
            "would see other tokens than generation"
        )
    return slice(start, start + len(turn))


def _difference(later: str, earlier: str) -> str:
    shorter = min(len(later), len(earlier))
    place = next((i for i in range(shorter) if later[i] != earlier[i]), shorter)
    return (
        f"renders earlier turns differently later on ({later[place : place + 40]!r} in place of "
        f"{earlier[place : place + 40]!r}): training would see other tokens than generation"
    )
