# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The endpoint over real HTTP with the official client; who writes is scripted, so that every byte is known."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import replace

import httpx
import openai
import pytest

from longshort_verl.config.compose import ConfigError
from longshort_verl.serving.config import read_serve
from longshort_verl.serving.protocol import ChatRequest
from longshort_verl.serving.server import bind
from longshort_verl.types import FinishReason, Generation
from tests.serving.scripted import KEY, SERVER, Writer, answer, endpoints, rethinking, think


def test_an_answer_with_usage_by_role_and_its_stop_reason(serve):
    served = serve()
    reply = served.ask("1+1")
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "it is 1+1", "stop")
    assert choice.longshort == {"stop_reason": "answered", "detail": ""}
    assert not hasattr(choice.message, "reasoning"), "the dialogue is hidden"
    # <think>1+1?</think> is 19 characters, <answer>it is 1+1</answer> 26. The long role reads "think" and "1+1", the
    # short role the problem, two newlines, and the thought.
    assert reply.usage.longshort == {
        "long": {"prompt_tokens": 8, "completion_tokens": 19, "turns": 1},
        "short": {"prompt_tokens": 24, "completion_tokens": 26, "turns": 1},
    }
    usage = reply.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (32, 45, 77)
    assert usage.completion_tokens_details.reasoning_tokens == 19
    assert reply.id != served.ask("1+1").id


def test_the_dialogue_on_request(serve):
    reply = serve().ask("twice", extra_body={"include_reasoning": True})
    turns = [
        "<think>twice?</think>",
        "<answer>more</rethink>",
        "<think>twice?</think>",
        "<answer>it is twice</answer>",
    ]
    assert reply.choices[0].message.reasoning == "\n\n".join(turns)
    assert reply.choices[0].message.content == "it is twice"


def test_a_broken_dialogue_has_no_answer(serve):
    reply = serve(long=Writer(lambda asked: "nonsense")).ask()
    assert reply.choices[0].longshort == {
        "stop_reason": "malformed_long",
        "detail": "long turn does not begin with <think>",
    }
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("[none: malformed_long]", "stop")


@pytest.mark.parametrize("with_reasoning", [False, True])
def test_a_stream(serve, with_reasoning):
    served = serve(*rethinking())
    chunks = list(
        served.ask(
            "twice",
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"include_reasoning": with_reasoning},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    *parts, last = chunks
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in parts) == "it is twice"
    turns: dict[tuple[str, int], str] = {}
    for chunk in parts:
        text = getattr(chunk.choices[0].delta, "reasoning", None)
        if text:
            of = chunk.choices[0].longshort
            turns[of["role"], of["turn"]] = turns.get((of["role"], of["turn"]), "") + text
    written = {
        ("long", 0): "<think>so</think>",
        ("short", 1): "<answer>more</rethink>",
        ("long", 2): "<think>so</think>",
        ("short", 3): "<answer>it is twice</answer>",
    }
    assert turns == (written if with_reasoning else {})
    assert list(turns) == (list(written) if with_reasoning else [])
    assert parts[-1].choices[0].finish_reason == "stop"
    assert parts[-1].choices[0].longshort == {"stop_reason": "answered", "detail": ""}
    assert last.choices == []
    assert last.usage.completion_tokens == sum(map(len, written.values()))
    whole = serve(*rethinking()).ask("twice")
    assert last.usage.to_dict() == whole.usage.to_dict()


def test_bytes_of_a_stream(serve):
    served = serve(*rethinking())
    body = {"model": "pair", "messages": [{"role": "user", "content": "twice"}], "stream": True}
    reply = httpx.post(f"{served.url}/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    # A sign of life for each turn where the dialogue is hidden.
    assert [event for event in events if event.startswith(":")] == [": turn 0", ": turn 1", ": turn 2", ": turn 3"]


def test_history_system_and_sampling_reach_both_models(serve):
    served = serve()
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "2+2"}]},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3+3"},
    ]
    served.ask(messages=messages, temperature=0.0, top_p=0.5, seed=7)
    ((asked, sampling),) = served.long.requests
    assert [(message.role, message.content) for message in asked] == [
        ("system", "think\n\nbe kind"),
        ("user", "2+2"),
        ("assistant", "4"),
        ("user", "3+3"),
    ]
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.0, 0.5, 7)
    ((asked, sampling),) = served.short.requests
    assert [message.role for message in asked] == ["system", "user", "assistant", "user"]
    assert asked[0].content == "be kind"
    assert sampling.seed == 8
    served.ask()
    assert served.long.requests[-1][1].temperature == 0.6


def test_choices_stops_and_limits(serve):
    served = serve()
    reply = served.ask("abcabc", n=3, seed=1, stop=["bc", "ca"])
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert {choice.message.content for choice in reply.choices} == {"it is a"}
    seeds = [sampling.seed for _, sampling in served.long.requests + served.short.requests]
    assert len(set(seeds)) == 6
    limited = served.ask("1+1", max_tokens=30)
    assert served.short.requests[-1][1].max_tokens == 30 - 19
    # The scripted writer knows no limit; an engine would have been cut off.
    assert limited.choices[0].message.content == "it is 1+1"
    cut = Generation(text="<answer>it", finish=FinishReason.LENGTH, num_prompt_tokens=9, num_tokens=11)
    limited = serve(short=Writer(lambda asked: cut)).ask("1+1", max_completion_tokens=30)
    assert limited.choices[0].finish_reason == "length"
    assert limited.choices[0].message.content == "[none: token_budget]"
    assert limited.choices[0].longshort["stop_reason"] == "token_budget"
    chunks = list(served.ask("xyz", n=2, stream=True))
    for number in (0, 1):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == number]
        assert "".join(choice.delta.content or "" for choice in mine) == "it is xyz"


USER = {"role": "user", "content": "1+1"}
HALF = "the body has half a surrogate pair (\\u{}), which is no Unicode text; remove it"


@pytest.fixture(scope="module")
def served():
    """One endpoint for all requests that it refuses."""
    with endpoints() as start:
        yield start()


@pytest.mark.parametrize(
    ("change", "status", "param", "message"),
    [
        ({"model": "gpt"}, 404, "model", "there is no model 'gpt'; this server has 'pair'"),
        ({"model": None}, 400, "model", "model: Field required"),
        ({"model": 5}, 400, "model", "valid string"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": "1+1"}, 400, "messages", "valid list"),
        ({"messages": [USER, USER]}, 400, None, "roles are user, user; after the system message they must alternate"),
        ({"messages": [USER, {"role": "assistant", "content": "2"}]}, 400, None, "user first and user last"),
        ({"messages": [USER, {"role": "system", "content": "2"}]}, 400, None, "system message stands after others"),
        ({"messages": [{"role": "system", "content": "2"}]}, 400, None, "roles are none"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, None, "a user message is empty"),
        ({"messages": [{"role": "tool", "content": "1"}]}, 400, "messages.0.role", "does not support that value"),
        ({"messages": [{"role": "user"}]}, 400, "messages.0.content", "Field required"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "messages.0.content",
            "parts of type 'image_url' are not supported; give text, or a list of parts of type text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "1+1", "weight": 2}]}]},
            400,
            "messages.0.content.0.weight",
            "messages.0.content.0.weight: this server does not know this field; it knows type, text, cache_control",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "1+1"}]}]},
            400,
            "messages.0.content",
            "give text, or a list of parts of type text",
        ),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages.0.content", "content: Field required"),
        (
            {"messages": [{**USER, "id": "m1"}]},
            400,
            "messages.0.id",
            "messages.0.id: this server does not know this field; it knows role, content, name, reasoning,",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c1"}]}, USER]},
            400,
            "messages.1.tool_calls",
            "messages.1.tool_calls: this server does not support that value",
        ),
        (
            {"messages": [USER, {"role": "assistant", "audio": {"id": "a1"}}, USER]},
            400,
            "messages.1.audio",
            "messages.1.audio: this server does not support that value",
        ),
        ({"messages": [{"role": "user", "content": "1+1\ud83d"}]}, 400, None, HALF.format("d83d")),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "\udc00"}]}]},
            400,
            None,
            HALF.format("dc00"),
        ),
        ({"stop": "\ud83d"}, 400, None, HALF.format("d83d")),
        ({"user": "\ud83d"}, 400, None, HALF.format("d83d")),
        ({"\ud83d": 1}, 400, None, HALF.format("d83d")),
        ({"model": "\ud83d"}, 400, None, HALF.format("d83d")),
        ({"max_tokens": -1}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 1001}, 400, "max_tokens", "1001 tokens are requested, but this server generates at most 1000"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 400, "max_tokens", "differ; give one"),
        ({"temperature": -0.1}, 400, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"n": 5}, 400, "n", "at most 4"),
        ({"n": 0}, 400, "n", "greater than or equal to 1"),
        ({"stop": ["a", ""]}, 400, "stop", "a stop string is empty"),
        ({"logprobs": True}, 400, "logprobs", "does not support that value"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "does not support that value"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format.type", "does not support that value"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", "does not support that value"),
        (
            {"min_p": 0.1},
            400,
            "min_p",
            "min_p: this server does not know this field; it knows model, messages, max_completion_tokens, max_tokens, "
            "temperature, top_p, seed, stop, n, stream,",
        ),
        (
            {"stream_options": {"every": 2}},
            400,
            "stream_options.every",
            "stream_options.every: this server does not know this field; it knows include_usage, include_obfuscation",
        ),
    ],
)
def test_a_bad_request_is_refused(served, change, status, param, message):
    body = {"model": "pair", "messages": [USER], **change}
    for stream in (False, True):
        # As text in ASCII, since httpx cannot encode half a surrogate pair.
        data = json.dumps({**body, "stream": stream})
        reply = httpx.post(f"{served.url}/v1/chat/completions", content=data, headers=JSON)
        assert_error(reply, status, message)
        if param is not None:
            assert reply.json()["error"]["param"] == param
    assert served.long.requests == []


JSON = {"content-type": "application/json"}


def assert_error(reply, status, message):
    """OpenAI's shape, one line, no trace."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert "Traceback" not in reply.text
    assert ".py" not in reply.text


def test_fields_that_change_nothing_are_taken(serve):
    served = serve()
    reply = served.ask(
        frequency_penalty=0, presence_penalty=0.0, logprobs=False, user="me", store=False, tools=[], logit_bias={}
    )
    assert reply.choices[0].message.content == "it is 1+1"


@pytest.mark.parametrize("stream", [None, False, True])
def test_null_fields_are_absent(serve, stream):
    served = serve()  # its writer answers the first user message
    nulls = [name for name in ChatRequest.model_fields if name not in ("model", "messages", "stream")]
    body = {"model": "pair", **dict.fromkeys([*nulls, "modalities", "audio"]), "stream": stream}
    turn = dict.fromkeys(("content", "refusal", "annotations", "audio", "function_call", "tool_calls", "name"))
    for empty in ({}, {"tool_calls": [], "annotations": [], "content": ""}):
        messages = [
            {**USER, "name": None},
            {"role": "assistant", **turn, **empty},
            {"role": "user", "content": "2+2"},
        ]
        reply = httpx.post(f"{served.url}/v1/chat/completions", json={**body, "messages": messages})
        assert reply.status_code == 200, reply.text
        if stream:
            assert reply.text.endswith("data: [DONE]\n\n")
            assert "it is 1+1" in reply.text
        else:
            assert [choice["message"]["content"] for choice in reply.json()["choices"]] == ["it is 1+1"]
        (asked, _) = served.long.requests[-1]
        assert [message.content for message in asked] == ["think", "1+1", "", "2+2"]
    body["stream_options"] = {"include_usage": None, "include_obfuscation": None}
    assert httpx.post(f"{served.url}/v1/chat/completions", json={**body, "messages": [USER]}).status_code == 200


@pytest.mark.parametrize("with_reasoning", [False, True])
def test_a_reply_may_be_sent_back_as_it_is(serve, with_reasoning):
    served = serve()  # its writer answers the first user message
    more = {"include_reasoning": with_reasoning}
    message = served.ask("1+1", extra_body=more).choices[0].message
    for sent in (message, message.model_dump(), message.to_dict()):
        messages = [USER, sent, {"role": "user", "content": "2+2"}]
        assert served.ask(messages=messages, extra_body=more).choices[0].message.content == "it is 1+1"
        (asked, _) = served.long.requests[-1]
        assert [message.content for message in asked] == ["think", "1+1", "it is 1+1", "2+2"]


def test_hints_in_parts_are_ignored(serve):
    served = serve()
    part = {"type": "text", "text": "1+1", "cache_control": {"type": "ephemeral"}, "annotations": []}
    messages = [{"role": "system", "content": [part]}, {"role": "user", "content": [part, {**part, "text": "+1"}]}]
    assert served.ask(messages=messages).choices[0].message.content == "it is 1+1+1"


def test_a_whole_surrogate_pair_is_one_character(serve):
    data = b'{"model": "pair", "messages": [{"role": "user", "content": "\\ud83d\\ude42"}]}'
    reply = httpx.post(f"{serve().url}/v1/chat/completions", content=data, headers=JSON)
    assert reply.json()["choices"][0]["message"]["content"] == "it is 🙂"


@pytest.mark.parametrize("depth", [50, 400, 700, 800, 850, 900, 950, 1000, 9000])
def test_a_deep_body_is_refused(served, depth):
    deep = '{"model": "pair", "messages": [], "user": ' + "[" * depth + "]" * depth + "}"
    assert httpx.post(f"{served.url}/v1/chat/completions", content=deep, headers=JSON).status_code == 400


def test_what_is_no_request(serve):
    served = serve()
    url = f"{served.url}/v1/chat/completions"
    json_type = {"content-type": "application/json"}
    assert_error(httpx.post(url, content=b'{"model": ', headers=json_type), 400, "the body is not valid JSON")
    assert_error(httpx.post(url, content=b"[1]", headers=json_type), 400, "valid dictionary")
    for more in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        assert_error(
            httpx.post(url, content=b"{}", headers=more), 400, "send it with the header Content-Type: application"
        )
    assert_error(httpx.get(f"{served.url}/{'x' * 300}"), 404, f"GET /{'x' * 99}: Not Found")
    assert_error(httpx.post(url, content=b"\xff\xfe", headers=json_type), 400, "")
    assert_error(httpx.post(f"{served.url}/v1/completions", json={}), 404, "POST /v1/completions: Not Found")
    assert_error(httpx.get(url), 405, "GET /v1/chat/completions: Method Not Allowed")
    large = b'{"model": "' + b"x" * SERVER.max_body_bytes + b'"}'
    assert_error(httpx.post(url, content=large, headers=json_type), 413, "more than 20000 bytes")
    # Without a length in its head: in pieces.
    pieces = (large[at : at + 1000] for at in range(0, len(large), 1000))
    assert_error(httpx.post(url, content=pieces, headers=json_type), 413, "more than 20000 bytes")
    deep = b"[" * 19_000
    assert_error(httpx.post(url, content=deep, headers=json_type), 400, "")
    assert served.ask().choices[0].message.content == "it is 1+1", "it lives on"


def test_a_key(serve, caplog):
    served = serve(api_key=KEY)
    assert served.ask().choices[0].message.content == "it is 1+1"
    body = {"model": "pair", "messages": [USER]}
    for value in (None, "Bearer wrong", f"Basic {KEY}", "ключ"):
        encoded = {} if value is None else {"authorization": value.encode()}
        for reply in (
            httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=encoded),
            httpx.post(f"{served.url}/v1/chat/completions", json={"x": 1}, headers=encoded),
            httpx.get(f"{served.url}/v1/models", headers=encoded),
        ):
            assert_error(reply, 401, "the API key is missing or wrong")
            assert KEY not in reply.text
    with pytest.raises(openai.AuthenticationError):
        served.client.with_options(api_key="wrong").models.list()
    assert httpx.get(f"{served.url}/health").status_code == 200
    assert KEY not in served.metrics() + caplog.text


def test_models(serve):
    served = serve()
    assert [model.id for model in served.client.models.list()] == ["pair"]
    assert served.client.models.retrieve("pair").id == "pair"
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("other")


LOST = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="host:1: gone")
FULL = Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=900, num_tokens=0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_engine_and_a_full_context(serve, stream):
    with pytest.raises(openai.APIStatusError, match="the engine of the long role failed") as caught:
        serve(long=Writer(lambda asked: LOST)).ask(stream=stream)
    assert caught.value.status_code == 502
    assert "gone" not in str(caught.value), "what the engine says of itself is for the log"
    with pytest.raises(openai.BadRequestError, match="fill the model's context") as caught:
        serve(long=Writer(lambda asked: FULL)).ask(stream=stream)
    assert caught.value.code == "context_length_exceeded"


def test_an_engine_that_dies_in_the_middle_of_a_stream(serve):
    served = serve(short=Writer(lambda asked: LOST))
    chunks = served.ask(stream=True, extra_body={"include_reasoning": True})
    heard = ""
    with pytest.raises(openai.APIError, match="the engine of the short role failed"):  # noqa: PT012
        for chunk in chunks:
            heard += getattr(chunk.choices[0].delta, "reasoning", "") or ""
    assert heard == "<think>1+1?</think>"


def test_a_mistake_of_ours_tells_the_client_nothing(serve):
    def broken(asked):
        raise KeyError("a secret of ours")

    served = serve(long=Writer(broken))
    reply = httpx.post(f"{served.url}/v1/chat/completions", json={"model": "pair", "messages": [USER]})
    assert_error(reply, 500, "the server failed")
    assert "secret" not in reply.text
    assert served.long.num_running == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation(serve, stream):
    served = serve(long=Writer(lambda asked: "<think>" + "x" * 100_000, delay_s=0.01))

    async def leave():
        async with httpx.AsyncClient() as client:
            body = {"model": "pair", "messages": [USER], "stream": stream, "include_reasoning": True, "n": 2}
            request = client.build_request("POST", f"{served.url}/v1/chat/completions", json=body)
            sent = asyncio.create_task(client.send(request, stream=True))
            while served.long.num_running < 2:
                await asyncio.sleep(0.01)
            if stream:
                reply = await sent
                await anext(reply.aiter_lines())
                await reply.aclose()
            else:
                sent.cancel()

    asyncio.run(leave())
    deadline = time.monotonic() + 10
    while served.long.num_cancelled < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (served.long.num_cancelled, served.long.num_running) == (2, 0)
    assert "longshort_dialogues_cancelled_total 2.0" in served.metrics()
    assert "longshort_dialogues_running 0.0" in served.metrics()


def test_a_client_that_leaves_before_the_first_token_of_a_stream(serve):
    served = serve(long=Writer(think, delay_s=100))

    async def leave():
        async with httpx.AsyncClient() as client:
            body = {"model": "pair", "messages": [USER], "stream": True}
            sent = asyncio.create_task(client.post(f"{served.url}/v1/chat/completions", json=body))
            while not served.long.num_running:
                await asyncio.sleep(0.01)
            sent.cancel()

    asyncio.run(leave())
    deadline = time.monotonic() + 10
    while not served.long.num_cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (served.long.num_cancelled, served.long.num_running) == (1, 0)


def test_a_hundred_at_once_are_not_mixed_up(serve):
    served = serve(Writer(think, delay_s=0.001), Writer(answer, delay_s=0.001))

    async def whole(client, number):
        messages = [{"role": "user", "content": f"question {number}"}]
        reply = await client.chat.completions.create(model="pair", messages=messages)
        return reply.choices[0].message.content

    async def streamed(client, number):
        messages = [{"role": "user", "content": f"question {number}"}]
        stream = await client.chat.completions.create(
            model="pair", messages=messages, stream=True, extra_body={"include_reasoning": True}
        )
        text, thought = "", ""
        async for chunk in stream:
            delta = chunk.choices[0].delta
            text += delta.content or ""
            if getattr(chunk.choices[0], "longshort", {}).get("role") == "long":
                thought += delta.reasoning
        assert thought == f"<think>question {number}?</think>"
        return text

    async def run():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            asked = ((streamed if number % 2 else whole)(client, number) for number in range(100))
            return await asyncio.gather(*asked)

    assert asyncio.run(run()) == [f"it is question {number}" for number in range(100)]
    assert 'longshort_dialogues_total{stop_reason="answered"} 100.0' in served.metrics()


def test_too_many_at_once_get_429(serve):
    served = serve(Writer(think, delay_s=0.02), settings=replace(SERVER, max_requests=2))

    async def run(stream):
        async with httpx.AsyncClient() as client:
            body = {"model": "pair", "messages": [USER], "stream": stream}
            url = f"{served.url}/v1/chat/completions"
            return await asyncio.gather(*(client.post(url, json=body) for _ in range(5)))

    for stream in (False, True):
        replies = asyncio.run(run(stream))
        refused = [reply for reply in replies if reply.status_code == 429]
        assert sorted(reply.status_code for reply in replies) == [200, 200, 429, 429, 429]
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        assert_error(refused[0], 429, "2 requests are open; this server allows 2")
    assert served.ask().choices[0].message.content == "it is 1+1", "there is room again"


def test_health_and_metrics(serve):
    served = serve()
    assert httpx.get(f"{served.url}/health").json() == {"long": "ok", "short": "ok"}
    served.short.state = "vLLM failed: out of memory"
    reply = httpx.get(f"{served.url}/health")
    assert (reply.status_code, reply.json()) == (503, {"long": "ok", "short": "vLLM failed: out of memory"})
    served.ask("1+1")
    page = served.metrics()
    for line in (
        'longshort_tokens_total{role="long"} 19.0',
        'longshort_tokens_total{role="short"} 26.0',
        'longshort_prompt_tokens_total{role="short"} 24.0',
        "longshort_dialogue_turns_count 1.0",
        'longshort_responses_total{status="503"} 1.0',
    ):
        assert line in page


def test_the_key_shows_why_an_engine_failed(serve):
    served = serve(api_key=KEY)
    served.short.state = "http://10.0.0.7:8001/v1: connection refused"
    assert httpx.get(f"{served.url}/health").json() == {"long": "ok", "short": "failed"}
    details = httpx.get(f"{served.url}/health", headers={"authorization": f"Bearer {KEY}"}).json()
    assert details == {"long": "ok", "short": served.short.state}


def test_what_users_write_is_not_logged(serve, caplog):
    caplog.set_level(logging.DEBUG, logger="longshort_verl")
    served = serve(long=Writer(lambda asked: LOST))
    with pytest.raises(openai.APIStatusError):
        served.ask("my private question")
    assert "host:1: gone" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["short.path=a"], "long.path is null"),
        (["long.path=a"], "short.path is null"),
        (["long.path=a", "short.path=a", "server.port=70000"], "server.port is 70000"),
        (["long.path=a", "short.path=a", "server.max_requests=0"], "server.max_requests is 0"),
        (["long.path=a", "short.path=a", "server.name=''"], "server.name is .*at least 1 character"),
        (["long.path=a", "short.path=a", "sampling.temperature=3"], "sampling.temperature is 3"),
        (
            ["long.path=a", "short.path=a", "server.host=0.0.0.0"],
            "can reach, but there is no API key; set",
        ),
    ],
)
def test_wrong_settings_are_refused(overrides, message, monkeypatch):
    monkeypatch.delenv("LONGSHORT_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=message):
        read_serve(None, overrides)


def test_a_port_that_is_taken():
    with bind(SERVER) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"server.port={port} cannot be listened on: Address already in use"):
            bind(replace(SERVER, port=port))
    with pytest.raises(ValueError, match="server.host=192.0.2.1 server.port=0 cannot be listened on"):
        bind(replace(SERVER, host="192.0.2.1"))


def test_with_a_key_others_may_reach_it(monkeypatch):
    monkeypatch.setenv("LONGSHORT_API_KEY", KEY)
    config, key = read_serve(None, ["long.path=a", "short.path=b", "server.host=0.0.0.0"])
    assert (config.server.host, key) == ("0.0.0.0", KEY)
    assert KEY not in json.dumps(str(config))
