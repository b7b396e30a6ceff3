# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Generators: scripted, real HTTP against a scripted local server, and a real vLLM engine on a tiny random model.

Must not drift:
- an engine's failure is a Generation with ERROR and a one-line cause without the key, never an exception;
- the text holds the stop string that ended it and never the end-of-turn token;
- token counts are the engine's own.
"""

from __future__ import annotations

import asyncio
import json
import socket
import string
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from longshort_verl.chains.chunk import reply_schema
from longshort_verl.cold_start.writer import completion_schema
from longshort_verl.dialogue import PROTOCOL_TAGS
from longshort_verl.generation.endpoint import EndpointGenerator
from longshort_verl.generation.settings import EndpointSettings
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.types import FinishReason, Generation, Message, Sampling
from tests.support.engines import engine_environment, tiny_engine
from tests.support.scripted import ScriptedGenerator
from tests.support.servers import AT_ONCE, Server, completion

SYSTEM = Message(role="system", content="You think.")
USER = Message(role="user", content="1+1?")
CHAT = (SYSTEM, USER)
GREEDY = Sampling(max_tokens=24, temperature=0.0)
CLOSING = ("</answer>", "</rethink>")


# Scripted --------------------------------------------------------------------------------------------------------


def test_script_replays_in_order_and_records():
    lost = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="lost")
    scripted = ScriptedGenerator(["a b", lost])
    first = asyncio.run(scripted.generate(CHAT, GREEDY))
    # "You think." is 9 non-blank characters and "1+1?" is 4; "a b" is 2.
    assert first == Generation(text="a b", finish=FinishReason.STOP, num_prompt_tokens=13, num_tokens=2)
    assert asyncio.run(scripted.generate([USER], GREEDY)) is lost
    assert scripted.requests == [(CHAT, GREEDY), ((USER,), GREEDY)]
    assert not scripted.replies


def test_script_ends_with_the_first_stop_string():
    scripted = ScriptedGenerator(["<answer>x</rethink> y</answer>"], count_tokens=len)
    reply = asyncio.run(scripted.generate(CHAT, replace(GREEDY, stop=CLOSING)))
    assert reply.text == "<answer>x</rethink>"
    assert (reply.num_prompt_tokens, reply.num_tokens) == (14, 19)


def test_script_that_runs_out_is_a_mistake_of_the_program():
    with pytest.raises(AssertionError, match="no reply left for request 1"):
        asyncio.run(ScriptedGenerator([]).generate(CHAT, GREEDY))


# Endpoints -------------------------------------------------------------------------------------------------------

KEY = "sk-very-secret-4711"
SETTINGS = EndpointSettings(timeout_s=10.0, max_retries=0, max_concurrency=64, vllm_extensions=False)


def ask(
    server: Server | str,
    sampling: Sampling = GREEDY,
    settings: EndpointSettings = SETTINGS,
    messages: Sequence[Message] = CHAT,
) -> Generation:
    """One request to one server."""

    async def main() -> Generation:
        url = server if isinstance(server, str) else server.url
        async with EndpointGenerator([url], "tiny", KEY, settings) as generator:
            return await generator.generate(messages, sampling)

    return asyncio.run(main())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_endpoint_sends_the_request_and_returns_text_and_usage(serve):
    server = serve()
    sampling = Sampling(max_tokens=32, temperature=0.5, top_p=0.9, stop=CLOSING, seed=3)
    reply = ask(server, sampling)
    assert reply == Generation(text="hello", finish=FinishReason.STOP, num_prompt_tokens=11, num_tokens=7)
    assert server.authorizations == [f"Bearer {KEY}"]
    # No key of vLLM's own: OpenAI refuses unknown parameters.
    assert server.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "You think."}, {"role": "user", "content": "1+1?"}],
            "max_tokens": 32,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["</answer>", "</rethink>"],
            "seed": 3,
        }
    ]


def test_endpoint_leaves_out_what_was_not_asked(serve):
    server = serve()
    ask(server)
    assert set(server.requests[0]) == {"model", "messages", "max_tokens", "temperature", "top_p"}


def test_endpoint_asks_for_a_json_schema(serve):
    server = serve()
    ask(server, replace(GREEDY, json_schema=reply_schema(4)))
    form = server.requests[0]["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "reply", "schema": json.loads(reply_schema(4))}}


def test_vllm_server_keeps_special_tokens_and_continues_the_assistant(serve):
    server = serve()
    settings = replace(SETTINGS, vllm_extensions=True)
    ask(server, settings=settings)
    ask(server, settings=settings, messages=[*CHAT, Message(role="assistant", content="It is")])
    flags = ("skip_special_tokens", "add_generation_prompt", "continue_final_message")
    assert [[request[flag] for flag in flags] for request in server.requests] == [
        [False, True, False],
        [False, False, True],
    ]


def test_only_a_vllm_server_can_continue_the_assistant(serve):
    with pytest.raises(ValueError, match="only vLLM servers continue"):
        ask(serve(), messages=[*CHAT, Message(role="assistant", content="It is")])


@pytest.mark.parametrize(
    ("vllm_extensions", "stop", "choice", "expected"),
    [
        # vLLM says which string it cut, whatever our setting.
        (True, CLOSING, {"stop_reason": "</rethink>"}, "hello</rethink>"),
        (False, CLOSING, {"stop_reason": "</rethink>"}, "hello</rethink>"),
        # ... and that a token ended the reply: the end-of-turn token (None) or another one (its id).
        (True, CLOSING[:1], {"stop_reason": None}, "hello"),
        (False, CLOSING[:1], {"stop_reason": None}, "hello"),
        (False, CLOSING[:1], {"stop_reason": 151645}, "hello"),
        # Others do not say: one string asked can only be that one, two cannot be told apart.
        (False, CLOSING[:1], {}, "hello</answer>"),
        (False, CLOSING, {}, "hello"),
        (False, (), {}, "hello"),
        (True, CLOSING[:1], {}, "hello"),
        # A server that keeps the string does not get it twice.
        (False, CLOSING[:1], {"text": "hello</answer>"}, "hello</answer>"),
        (True, CLOSING[:1], {"text": "hello</answer>", "stop_reason": "</answer>"}, "hello</answer>"),
        # Cut by length: there was no stop string.
        (False, CLOSING[:1], {"finish": "length"}, "hello"),
    ],
)
def test_the_stop_string_is_put_back(serve, vllm_extensions, stop, choice, expected):
    settings = replace(SETTINGS, vllm_extensions=vllm_extensions)
    reply = ask(serve(completion(**choice)), replace(GREEDY, stop=stop), settings)
    assert reply.text == expected
    assert reply.finish is (FinishReason.LENGTH if choice.get("finish") == "length" else FinishReason.STOP)


def test_too_many_requests_is_tried_again(serve):
    server = serve(lambda: JSONResponse({"error": "slow down"}, 429, AT_ONCE), completion())
    reply = ask(server, settings=replace(SETTINGS, max_retries=1))
    assert (reply.text, reply.finish, len(server.requests)) == ("hello", FinishReason.STOP, 2)


def test_a_server_that_keeps_failing_is_an_error(serve):
    server = serve(lambda: JSONResponse({"error": {"message": "out of\nmemory"}}, 500, AT_ONCE))
    reply = ask(server, settings=replace(SETTINGS, max_retries=2))
    assert len(server.requests) == 3  # the first attempt and two more
    assert_failed(reply, "InternalServerError", "500", "memory")


def test_half_a_surrogate_pair_is_replaced(serve):
    # JSON can spell it; no file could hold it, and one such reply would end an evaluation.
    answer = json.dumps(completion("hel\ud83dlo"))
    assert ask(serve(lambda: Response(answer, media_type="application/json"))).text == "hel?lo"


def test_a_late_answer_is_an_error(serve):
    reply = ask(serve(delay_s=1.0), settings=replace(SETTINGS, timeout_s=0.2))
    assert_failed(reply, "APITimeoutError")


def test_a_dropped_connection_is_an_error(serve):
    # The headers promise 1000 bytes, 10 come, and the server hangs up.
    server = serve(lambda: StreamingResponse(iter([b"x" * 10]), 200, {"content-length": "1000"}))
    assert_failed(ask(server), "APIConnectionError")
    assert len(server.requests) == 1


def test_a_refused_connection_is_an_error():
    assert_failed(ask(f"http://127.0.0.1:{free_port()}/v1"), "APIConnectionError")


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in completion().items() if name != key}


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda: Response("{garbage", media_type="application/json"), "JSONDecodeError"),
        (lambda: PlainTextResponse("<html>nginx</html>"), "JSONDecodeError"),
        (lambda: JSONResponse(["a", "list"]), "TypeError"),
        (without("choices"), "KeyError('choices')"),
        (without("choices") | {"choices": []}, "IndexError"),
        (without("usage"), "no usage"),
        (without("usage") | {"usage": None}, "no usage"),
        (without("usage") | {"usage": {"prompt_tokens": 1}}, "KeyError('completion_tokens')"),
        (completion(text=None), "no content"),
        (completion(finish="content_filter"), "content_filter"),
    ],
)
def test_an_unusable_answer_is_an_error(serve, answer, cause):
    assert_failed(ask(serve(answer)), "unusable answer", cause)


def test_the_key_is_never_in_the_error(serve):
    body = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    reply = ask(serve(lambda: JSONResponse(body, 401, {"x-echo": KEY})))
    assert_failed(reply, "401", "Incorrect API key provided: ***")


def test_a_long_error_page_is_cut(serve):
    assert_failed(ask(serve(lambda: PlainTextResponse("<html>" * 1000, 502))), "502")


def assert_failed(reply: Generation, *causes: str) -> None:
    """An ERROR with one short line that names the causes and no secret."""
    assert reply.finish is FinishReason.ERROR
    assert (reply.text, reply.num_prompt_tokens, reply.num_tokens) == ("", 0, 0)
    assert "127.0.0.1:" in reply.error
    for cause in causes:
        assert cause in reply.error
    assert KEY not in reply.error
    assert "\n" not in reply.error
    assert len(reply.error) <= 300


def test_no_more_requests_in_flight_than_allowed(serve):
    server = serve(delay_s=0.05)

    async def main() -> list[Generation]:
        settings = replace(SETTINGS, max_concurrency=3)
        async with EndpointGenerator([server.url], "tiny", KEY, settings) as generator:
            return await asyncio.gather(*(generator.generate(CHAT, GREEDY) for _ in range(12)))

    assert all(reply.finish is FinishReason.STOP for reply in asyncio.run(main()))
    assert (len(server.requests), server.most_in_flight) == (12, 3)


def conversation(index: int, num_turns: int) -> list[Message]:
    turns = [Message(role=("assistant", "user")[i % 2], content=f"turn {i}") for i in range(2 * num_turns)]
    return [SYSTEM, Message(role="user", content=f"problem {index}"), *turns]


def problems(server: Server) -> list[str]:
    """Which problem each request to the server was about."""
    return [request["messages"][1]["content"] for request in server.requests]


def test_a_conversation_stays_on_one_server_and_new_ones_go_where_less_is_going_on(serve):
    servers = [serve(delay_s=0.05), serve(delay_s=0.05)]

    async def main() -> None:
        async with EndpointGenerator([server.url for server in servers], "tiny", KEY, SETTINGS) as generator:
            # In another order each time, so that load alone would send them elsewhere.
            for num_turns, order in enumerate(["01234567", "02461357", "76543210"]):
                await asyncio.gather(*(generator.generate(conversation(int(i), num_turns), GREEDY) for i in order))

    asyncio.run(main())
    # 8 new conversations at once: alternately one each. 3 requests of each conversation, all on its first server.
    assert [len(server.requests) for server in servers] == [12, 12]
    assert [len(set(problems(server))) for server in servers] == [4, 4]


def test_an_unreachable_server_does_not_draw_the_requests(serve):
    alive = serve()
    port = free_port()

    async def main() -> list[FinishReason]:
        urls = [f"http://127.0.0.1:{port}/v1", alive.url]
        async with EndpointGenerator(urls, "tiny", KEY, SETTINGS) as generator:
            replies = [await generator.generate(conversation(i, 0), GREEDY) for i in range(4)]
            replies.append(await generator.generate(conversation(0, 1), GREEDY))
        return [reply.finish for reply in replies]

    # The first finds nobody; that and every other conversation then goes to the server that answers.
    assert asyncio.run(main()) == [FinishReason.ERROR] + [FinishReason.STOP] * 4
    assert problems(alive) == ["problem 1", "problem 2", "problem 3", "problem 0"]


def test_a_server_that_comes_back_is_used_again(serve):
    port = free_port()

    async def main() -> list[FinishReason]:
        async with EndpointGenerator([f"http://127.0.0.1:{port}/v1"], "tiny", KEY, SETTINGS) as generator:
            lost = await generator.generate(CHAT, GREEDY)
            serve(port=port)
            return [lost.finish, (await generator.generate(CHAT, GREEDY)).finish]

    assert asyncio.run(main()) == [FinishReason.ERROR, FinishReason.STOP]


def stream_of(*choices: dict[str, Any], usage: dict[str, int] | None = None) -> StreamingResponse:
    """A streamed completion: a choice a chunk, then the usage."""
    usage = usage or {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "tiny"}
    chunks = [{**head, "choices": [{"index": 0, "finish_reason": None, **choice}]} for choice in choices]
    chunks.append({**head, "choices": [], "usage": usage})
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return StreamingResponse(iter([*events, "data: [DONE]\n\n"]), media_type="text/event-stream")


def hear(server: Server, sampling: Sampling = GREEDY) -> tuple[Generation, list[str]]:
    pieces: list[str] = []

    async def main() -> Generation:
        async with EndpointGenerator([server.url], "tiny", KEY, SETTINGS) as generator:
            return await generator.generate(CHAT, sampling, pieces.append)

    return asyncio.run(main()), pieces


def test_a_streamed_answer(serve):
    def said(text: str, **more: Any) -> dict[str, Any]:
        return {"delta": {"content": text}, **more}

    server = serve(
        lambda: stream_of(
            {"delta": {"role": "assistant", "content": ""}},
            said("<answer>x"),
            said("y"),
            {"delta": {}, "finish_reason": "stop", "stop_reason": "</rethink>"},
        )
    )
    reply, pieces = hear(server, replace(GREEDY, stop=CLOSING))
    assert pieces == ["<answer>x", "y", "</rethink>"], "the server cuts the stop string off"
    assert reply == Generation(
        text="<answer>xy</rethink>", finish=FinishReason.STOP, num_prompt_tokens=11, num_tokens=7
    )
    assert server.requests[0]["stream"] is True
    cut, _ = hear(serve(lambda: stream_of(said("ab", finish_reason="length"))))
    assert (cut.text, cut.finish) == ("ab", FinishReason.LENGTH)
    broken, pieces = hear(serve(lambda: stream_of(said("ab"))))
    assert pieces == ["ab"]
    assert_failed(broken, "unusable answer", "None")
    torn, _ = hear(serve(lambda: StreamingResponse(iter(["data: {torn\n\n"]), media_type="text/event-stream")))
    assert_failed(torn, "unusable answer")


FULL = {
    "error": {
        "message": "This model's maximum context length is 64 tokens. However, you requested 24 output tokens and your "
        "prompt contains 60 input tokens, for a total of 84 tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_request_that_does_not_fit_is_asked_for_what_there_is_room_for(serve, streaming):
    def answer(request: dict[str, Any]) -> Any:
        if "max_tokens" in request:
            return JSONResponse(FULL, 400)
        if streaming:
            return stream_of({"delta": {"content": "ab"}, "finish_reason": "length"})
        return completion("ab", "length")

    server = serve(answer_to=answer)
    reply = hear(server)[0] if streaming else ask(server)
    assert (reply.text, reply.finish, reply.num_tokens) == ("ab", FinishReason.LENGTH, 7)
    assert len(server.requests) == 2
    full = serve(lambda: JSONResponse(FULL, 400))
    reply = hear(full)[0] if streaming else ask(full)
    assert reply == Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=0, num_tokens=0)
    assert len(full.requests) == 2


def test_mistakes_of_configuration_raise():
    for urls in ("http://127.0.0.1/v1", [], ["127.0.0.1:8000/v1"]):
        with pytest.raises(ValueError, match="base"):
            EndpointGenerator(urls, "tiny", KEY, SETTINGS)
    with pytest.raises(ValueError, match="api_key is empty"):
        EndpointGenerator(["http://127.0.0.1/v1"], "tiny", "", SETTINGS)
    with pytest.raises(ValueError, match="max_concurrency"):
        replace(SETTINGS, max_concurrency=0)


def test_another_event_loop_raises(serve):
    generator = EndpointGenerator([serve().url], "tiny", KEY, SETTINGS)
    asyncio.run(generator.generate(CHAT, GREEDY))
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(generator.generate(CHAT, GREEDY))


# vLLM ------------------------------------------------------------------------------------------------------------

END_OF_TURN = "<|im_end|>"
CONTEXT = 256
VLLM_SETTINGS = tiny_engine(CONTEXT)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def save_tiny_model(path: Path) -> None:
    """A random two-layer Qwen2; its tokens are ASCII characters, the protocol's tags and the end of a turn."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    # Byte-level BPE without merges, because AutoTokenizer gives any tokenizer beside a Qwen2 config that form. It
    # writes the blank as Ġ and the newline as Ċ.
    tokens = ["<|pad|>", END_OF_TURN, *PROTOCOL_TAGS, *string.ascii_letters, *string.digits, *string.punctuation, *"ĠĊ"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token="<|pad|>",
        additional_special_tokens=list(PROTOCOL_TAGS),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(path)

    torch.manual_seed(3)  # its greedy reply to CHAT is long and has </rethink> in it
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(vocabulary),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=CONTEXT,
            eos_token_id=vocabulary[END_OF_TURN],
            pad_token_id=vocabulary["<|pad|>"],
            initializer_range=0.1,
        )
    )
    model.save_pretrained(path)


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """What one engine did, in the order of the fields; starting it takes too long to do so in each test."""

    greedy: list[Generation]
    """The same request, twice."""
    sampled: list[Generation]
    """64 requests at once, at temperature 1."""
    streamed: list[tuple[Generation, list[str]]]
    """The same again, with the pieces that were told while they were written."""
    num_unfinished: int
    """Requests in the engine after one was cancelled."""
    beside: list[Generation]
    """The same again, beside requests for likelihoods."""
    long_prompts: list[Generation]
    """64 requests at once with prompts that vLLM could read at once only in parts, each with a seed of its own."""
    most_read_at_once: int
    """Tokens of prompts in one batch."""
    stopped: dict[tuple[str, ...], Generation]
    """The greedy request again, by the stop strings that were asked for."""
    first: Generation
    """The first tokens of the greedy reply."""
    continued: Generation
    """What follows them, when they are given as the assistant's message."""
    little_room: Generation
    """A prompt that leaves room for 5 tokens."""
    no_room: list[Generation]
    """Prompts that fill the context and exceed it."""
    blocks: list[Generation]
    """Replies that are held to the JSON of a chain's blocks."""
    completed: Generation
    """A reply that is held to the JSON of a chain's missing thoughts."""
    dead: Generation
    """A request to an engine that says that it died."""
    waiting: Generation
    """A request that was not finished when the engine was closed."""
    num_processes: int
    """Processes that the engine started."""
    left_behind: list[str]
    """Processes of the engine after its end."""


def engine_processes() -> list[psutil.Process]:
    """Children of this process, less the resource tracker, which is Python's own and lives as long as the parent."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


async def dead_engine(*_: Any) -> AsyncIterator[None]:
    from vllm.v1.engine.exceptions import EngineDeadError

    raise EngineDeadError
    yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> EngineRun:
    path = tmp_path_factory.mktemp("model")
    save_tiny_model(path)

    async def main() -> EngineRun:
        before = engine_processes()
        async with VLLMGenerator(str(path), VLLM_SETTINGS) as generator:
            started = [process for process in engine_processes() if process not in before]
            greedy = [await generator.generate(CHAT, GREEDY) for _ in range(2)]
            sampled = await asyncio.gather(
                *(generator.generate(CHAT, Sampling(max_tokens=60, temperature=1.0, seed=seed)) for seed in range(64))
            )
            pieces: list[list[str]] = [[] for _ in range(64)]
            streamed = await asyncio.gather(
                *(
                    generator.generate(CHAT, Sampling(max_tokens=60, temperature=1.0, seed=seed), pieces[seed].append)
                    for seed in range(64)
                )
            )
            begun = asyncio.Event()
            leaving = asyncio.create_task(
                generator.generate(CHAT, replace(GREEDY, max_tokens=200), lambda text: begun.set())
            )
            await begun.wait()
            leaving.cancel()
            await asyncio.wait([leaving])
            assert generator._engine is not None
            num_unfinished = generator._engine.output_processor.get_num_unfinished_requests()
            told = [*CHAT, Message(role="assistant", content="a")]
            beside, _ = await asyncio.gather(
                asyncio.gather(
                    *(
                        generator.generate(CHAT, Sampling(max_tokens=60, temperature=1.0, seed=seed))
                        for seed in range(64)
                    )
                ),
                asyncio.gather(*(generator.likelihood(told, "bcd" * 20) for _ in range(16))),
            )
            text = greedy[0].text
            stopped = {
                stop: await generator.generate(CHAT, replace(GREEDY, stop=stop))
                for stop in ((text[2],), (text[1:3],), CLOSING)
            }
            first = await generator.generate(CHAT, replace(GREEDY, max_tokens=4))
            prefix = [*CHAT, Message(role="assistant", content=first.text)]
            continued = await generator.generate(prefix, replace(GREEDY, max_tokens=8))

            def filling(num_free: int) -> list[Message]:
                num_characters = CONTEXT - num_free - greedy[0].num_prompt_tokens + len(USER.content)
                return [SYSTEM, replace(USER, content="x" * num_characters)]

            long_prompts = await asyncio.gather(
                *(generator.generate(filling(16), Sampling(max_tokens=8, temperature=1.0, seed=n)) for n in range(64))
            )
            assert generator._engine is not None
            most_read_at_once = generator._engine.vllm_config.scheduler_config.max_num_batched_tokens
            little_room = await generator.generate(filling(5), GREEDY)
            no_room = [await generator.generate(filling(num_free), GREEDY) for num_free in (0, -1)]
            held = Sampling(max_tokens=CONTEXT, temperature=1.0, json_schema=reply_schema(3))
            blocks = await asyncio.gather(*(generator.generate([USER], replace(held, seed=n)) for n in range(8)))
            completed = await generator.generate([USER], replace(held, json_schema=completion_schema([2, 5]), seed=0))
            with patch.object(generator._engine, "generate", dead_engine):
                dead = await generator.generate(CHAT, GREEDY)
            waiting = asyncio.create_task(generator.generate(CHAT, replace(GREEDY, max_tokens=200)))
            await asyncio.sleep(0.01)
        return EngineRun(
            greedy=greedy,
            sampled=sampled,
            streamed=list(zip(streamed, pieces, strict=True)),
            num_unfinished=num_unfinished,
            beside=beside,
            long_prompts=long_prompts,
            most_read_at_once=most_read_at_once,
            stopped=stopped,
            first=first,
            continued=continued,
            little_room=little_room,
            no_room=no_room,
            blocks=blocks,
            completed=completed,
            dead=dead,
            waiting=await asyncio.wait_for(waiting, 5),
            num_processes=len(started),
            left_behind=[process.name() for process in engine_processes() if process not in before],
        )

    with engine_environment():
        return asyncio.run(main())


@pytest.mark.job
def test_greedy_replies_are_equal(run: EngineRun):
    first, second = run.greedy
    assert first == second
    # "system:You think." 17 + end, "user:1+1?" 9 + end, "assistant:" 10.
    assert (first.num_prompt_tokens, first.num_tokens, first.finish) == (38, 24, FinishReason.LENGTH)


@pytest.mark.job
def test_concurrent_requests_are_all_answered(run: EngineRun):
    assert len(run.sampled) == 64
    assert {reply.finish for reply in run.sampled} == {FinishReason.STOP, FinishReason.LENGTH}
    assert len({reply.text for reply in run.sampled}) > 32


@pytest.mark.job
def test_what_is_told_while_it_is_written_is_the_reply(run: EngineRun):
    same = 0
    for whole, (streamed, pieces) in zip(run.sampled, run.streamed, strict=True):
        assert "".join(pieces) == streamed.text
        same += replace(streamed, num_cached_tokens=whole.num_cached_tokens) == whole
    # Another batch rounds differently, which a draw may notice.
    assert same > 0.9 * len(run.sampled)
    # Told on the way, and not at the end.
    assert sum(len(pieces) for _, pieces in run.streamed) > 0.5 * sum(reply.num_tokens for reply in run.sampled)
    assert {reply.finish for reply, _ in run.streamed} == {FinishReason.STOP, FinishReason.LENGTH}


@pytest.mark.job
def test_a_cancelled_call_ends_the_generation(run: EngineRun):
    assert run.num_unfinished == 0


@pytest.mark.job
def test_a_seed_draws_the_same_beside_requests_for_likelihoods(run: EngineRun):
    same = sum(one.text == other.text for one, other in zip(run.sampled, run.beside, strict=True))
    # Another batch rounds differently, which a draw may notice.
    assert same > 0.9 * len(run.sampled)


@pytest.mark.job
def test_prompts_that_do_not_fit_into_one_batch_are_answered(run: EngineRun):
    at_once = sum(reply.num_prompt_tokens for reply in run.long_prompts[: VLLM_SETTINGS.max_num_seqs])
    assert at_once > run.most_read_at_once
    assert at_once % run.most_read_at_once, "no prompt would be cut"
    assert not any(reply.error for reply in run.long_prompts)


@pytest.mark.job
def test_text_keeps_tags_and_loses_the_end_of_turn(run: EngineRun):
    # Every STOP here is the end-of-turn token: no stop string was asked for. It counts, but is not text.
    ended = [reply for reply in run.sampled if reply.finish is FinishReason.STOP]
    assert ended
    assert not any(END_OF_TURN in reply.text for reply in run.sampled)
    assert any(tag in reply.text for reply in run.sampled for tag in PROTOCOL_TAGS)
    without_tags = [reply for reply in ended if "<" not in reply.text]
    assert without_tags
    assert all(reply.num_tokens == len(reply.text) + 1 for reply in without_tags)


@pytest.mark.job
def test_a_stop_string_ends_the_reply_and_is_part_of_it(run: EngineRun):
    whole = run.greedy[0].text
    one_token, two_tokens, closing = run.stopped.values()
    for stop, reply in run.stopped.items():
        matched = stop[-1]  # of the closing tags, the reply has </rethink>, the last
        assert reply.text == whole[: whole.index(matched) + len(matched)]
        assert reply.finish is FinishReason.STOP
    assert (one_token.num_tokens, two_tokens.num_tokens, closing.num_tokens) == (3, 3, 4)


@pytest.mark.job
def test_the_assistants_message_is_continued(run: EngineRun):
    assert (run.first.finish, run.first.num_tokens) == (FinishReason.LENGTH, 4)
    assert run.greedy[0].text.startswith(run.first.text + run.continued.text)
    assert run.continued.num_prompt_tokens == 38 + 4


@pytest.mark.job
def test_the_context_limits_the_reply(run: EngineRun):
    assert (run.little_room.finish, run.little_room.num_tokens) == (FinishReason.LENGTH, 5)
    assert run.little_room.num_prompt_tokens == CONTEXT - 5


@pytest.mark.job
def test_a_prompt_without_room_gives_no_token(run: EngineRun):
    assert [reply.num_prompt_tokens for reply in run.no_room] == [256, 257]
    assert all((reply.finish, reply.num_tokens) == (FinishReason.LENGTH, 0) for reply in run.no_room)


@pytest.mark.job
def test_a_reply_is_held_to_its_json_schema(run: EngineRun):
    whole = [json.loads(reply.text) for reply in run.blocks if reply.finish is FinishReason.STOP]
    assert whole
    for reply in whole:
        assert 1 <= len(reply) <= 3
        for block in reply:
            assert list(block) == ["first", "last", "kind"]
            assert {block["first"], block["last"]} <= {0, 1, 2}
            assert 1 <= len(block["kind"]) <= 60
    assert run.completed.text.startswith('{"Completed Steps": [{"thought": 2, "content": "')


@pytest.mark.job
def test_a_dead_engine_is_an_error(run: EngineRun):
    assert run.dead.finish is FinishReason.ERROR
    assert run.dead.error.startswith("vLLM failed: EngineCore encountered an issue")


@pytest.mark.job
def test_closing_ends_waiting_requests_and_all_processes(run: EngineRun):
    assert run.waiting.finish is FinishReason.ERROR
    assert "abort" in run.waiting.error
    assert run.num_processes >= 2  # the engine's core and its worker
    assert run.left_behind == []


@pytest.mark.job
def test_a_model_without_chat_template_is_refused(tmp_path: Path):
    save_tiny_model(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        VLLMGenerator(str(tmp_path), VLLM_SETTINGS)
