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

_TURNS = {
    Role.LONG: ("<think>7 < 8 first</think>", "<answer>not yet</rethink>", "<think>8 > 7 second</think>"),
    Role.SHORT: ("<answer>not yet</rethink>", "<think>8 > 7 second</think>", "<answer>7 < 8 third</answer>"),
}
_MARK = "0"
"""Placeholder of a generated turn, of which only the text after it matters; every tokenizer knows the character."""
_R1_DISTILL = "<｜Assistant｜>"
"""Mark of R1-Distill's templates; ``config/longshort_r1_distill.yaml`` has a template that keeps all turns."""


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


def check_chat_template(role: Role, render: Render, *, system_prompt: str, name: str) -> None:
    """Refuse a template that drops turns or tags of a role's transcript, or adds tags. ``name`` is the model's path.

    Raises:
        ChatTemplateError: with the lost text and the cure.
    """
    own, peer, own_again = _TURNS[role]
    problem = "What is 7?"
    opening = problem if role is Role.LONG else f"{problem}\n\n{_TURNS[Role.LONG][0]}"
    messages = [Message(role="system", content=system_prompt)] if system_prompt else []
    messages += [
        Message(role="user", content=opening),
        Message(role="assistant", content=own),
        Message(role="user", content=peer),
        Message(role="assistant", content=own_again),
    ]
    cure = (
        f"Give {name} a chat template that renders every turn as it is (tokenizer.chat_template, or "
        "model.custom_chat_template in the recipe)."
    )
    try:
        whole = render(messages, False)
        if _R1_DISTILL in whole:
            cure += " For R1-Distill models there is one: longshort_r1_distill@<where its model is> in defaults."
        prefixes = [(render(turns, False), render(turns, True)) for turns in (messages[:-3], messages[:-1])]
    except Exception as error:  # a template is a program and can raise anything
        raise ChatTemplateError(f"the chat template of {name} cannot render a dialogue: {error!r}. {cure}") from error
    for message in messages:
        if message.content.strip() not in whole:
            raise ChatTemplateError(
                f"the chat template of {name} does not keep the {message.role} turn {message.content!r}: a dialogue "
                f"of the {role.value} role renders as {whole!r}. {cure}"
            )
    for closed, prompt in prefixes:
        added = prompt[len(closed) :] if prompt.startswith(closed) else prompt
        written = [tag for tag in PROTOCOL_TAGS if added.rstrip().endswith(tag)]
        if written:
            raise ChatTemplateError(
                f"the chat template of {name} ends its generation prompt with {written[0]}, so the model's own turn "
                f"would begin without it and break the protocol. {cure}"
            )
        if not whole.startswith(prompt):
            raise ChatTemplateError(
                f"the chat template of {name} renders earlier turns differently later on ({prompt!r} does not begin "
                f"{whole!r}): training would see other tokens than generation. {cure}"
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
    for role in roles:
        check_chat_template(role, hf_render(tokenizer), system_prompt=system_prompt, name=name)


def text_after_turn(render: Render, before: Sequence[Message], appended: Message) -> str:
    """The text of the template between a generated turn and the next: end of turn, the user message, the next prompt.

    The transcript is ``before``, the generated turn, and the user message ``appended``.
    """
    whole = render([*before, Message(role="assistant", content=_MARK), appended], True)
    start = render(before, True)
    if not whole.startswith(start + _MARK):
        raise ChatTemplateError("the chat template renders earlier turns differently later on")
    return whole[len(start) + len(_MARK) :]
