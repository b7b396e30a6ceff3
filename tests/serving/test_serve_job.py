# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort serve`` with real vLLM: both engines started by it, and two vLLM servers given by address."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import openai
import psutil
import pytest

from longshort_verl.evaluation.records import answer_text
from longshort_verl.problems.write import write_problems
from longshort_verl.types import Problem
from tests.support.configs import ROOT
from tests.support.engines import engine_environment

pytestmark = [pytest.mark.job, pytest.mark.timeout(900)]

TINY = ROOT / "recipes" / "tiny_cpu"
MODELS = {role: TINY / "models" / role for role in ("long", "short")}
NUM_PROBLEMS = 100


@contextmanager
def process(*command, log):
    """A Python process, by module or script, and its children; ended at the end."""
    with engine_environment(), log.open("w") as file:
        environment = {**os.environ, "VERL_PLATFORM": "cpu", "VLLM_LOGGING_LEVEL": "WARNING"}
        running = subprocess.Popen(
            [sys.executable, *map(str, command)], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield running
        finally:
            children = psutil.Process(running.pid).children(recursive=True) if running.poll() is None else []
            if running.poll() is None:
                running.send_signal(signal.SIGINT)
                try:
                    running.wait(timeout=90)
                except subprocess.TimeoutExpired:
                    running.kill()
            _, left = psutil.wait_procs(children, timeout=30)
            for child in left:
                child.kill()
    assert not left, f"processes were left behind: {left}"


def until(condition, running, log, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, f"it ended:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"it was not there in time:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


def is_well(url):
    try:
        return httpx.get(f"{url}/health", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def served_at(running, log):
    """The address of a server, once it is well."""
    until(lambda: "answers at" in log.read_text(), running, log)
    url = re.search(r"answers at (http://\S+)/v1", log.read_text()).group(1)
    until(lambda: is_well(url), running, log)
    return url


@contextmanager
def served(folder, *overrides):
    log = folder / "serve.log"
    paths = [f"{role}.path={path}" for role, path in MODELS.items()]
    command = ["-m", "longshort_verl.cli", "serve", "--recipe", TINY / "serve.yaml", "server.port=0"]
    with process(*command, *paths, *overrides, log=log) as running:
        yield served_at(running, log), running, log


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """What ``longshort evaluate`` says of the pair, greedy, by problem."""
    folder = tmp_path_factory.mktemp("evaluated")
    problems = [
        Problem(prompt=f"{i % 10}+{i // 10}*{(i * 7) % 10}", answer="0", source="toy", index=i)
        for i in range(NUM_PROBLEMS)
    ]
    write_problems(problems, folder / "toy.parquet", split="test")
    settings = ["solo.path=null", *(f"{role}.path={path}" for role, path in MODELS.items()), "sampling.temperature=0"]
    command = ["-m", "longshort_verl.cli", "evaluate", folder / "toy.parquet", "--out", folder, "--recipe"]
    with process(*command, TINY / "evaluate.yaml", *settings, log=folder / "log") as running:
        assert running.wait(timeout=300) == 0, (folder / "log").read_text()[-3000:]
    rows = [json.loads(line) for line in (folder / "pair.jsonl").read_text().splitlines()]
    assert len(rows) == NUM_PROBLEMS
    assert len({row["stop_reason"] for row in rows} & {"answered"}) == 1
    return {row["problem"]: row for row in rows}


def ask_all(url, problems, stream):
    """Each problem's answer, stop reason and tokens per role; of a stream also the text of each turn."""

    async def one(client, problem):
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        reply = await client.chat.completions.create(
            model="longshort",
            messages=[{"role": "user", "content": problem}],
            temperature=0,
            extra_body={"include_reasoning": True},
            **more,
        )
        if not stream:
            choice = reply.choices[0]
            return choice.message.content, choice.longshort["stop_reason"], reply.usage.longshort, None
        content, ended, usage, turns = "", None, None, {}
        async for chunk in reply:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                content += choice.delta.content or ""
                about = getattr(choice, "longshort", None) or {}
                ended = about.get("stop_reason", ended)
                if getattr(choice.delta, "reasoning", None):
                    turns[about["turn"]] = turns.get(about["turn"], "") + choice.delta.reasoning
        return content, ended, usage.longshort, [turns[number] for number in sorted(turns)]

    async def run():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            return await asyncio.gather(*(one(client, problem) for problem in problems))

    return dict(zip(problems, asyncio.run(run()), strict=True))


def assert_same(found, evaluated):
    """What was served is what was evaluated, to the token."""
    for problem, (content, ended, usage, turns) in found.items():
        row = evaluated[problem]
        assert ended == row["stop_reason"]
        if ended == "answered":
            assert content == answer_text(row)
        else:
            assert content == f"[no answer: {ended}]"
        assert {role: of["completion_tokens"] for role, of in usage.items()} == {
            role: row[f"num_tokens_{role}"] for role in ("long", "short")
        }
        if turns is not None:
            assert turns == [turn["text"] for turn in row["turns"]]


def test_what_is_served_is_what_was_evaluated(evaluated, tmp_path):
    problems = list(evaluated)
    with served(tmp_path) as (url, running, log):
        # A hundred at once.
        assert_same(ask_all(url, problems, stream=False), evaluated)
        assert_same(ask_all(url, problems, stream=True), evaluated)
        metrics = httpx.get(f"{url}/metrics").text
        answered = sum(row["stop_reason"] == "answered" for row in evaluated.values())
        assert f'longshort_dialogues_total{{stop_reason="answered"}} {2 * answered}.0' in metrics
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.BadRequestError, match="fill the model's context"):
            client.chat.completions.create(model="longshort", messages=[{"role": "user", "content": "1+" * 2000 + "1"}])
        assert is_well(url)
        # A dead engine ends the server with its cause.
        (engine, *_) = [one for one in psutil.Process(running.pid).children() if one.children()]
        for one in [*engine.children(recursive=True), engine]:
            one.kill()
        assert running.wait(timeout=120) == 1
        # The last words are ours; vLLM logs its own trace before them.
        rest = log.read_text().rpartition("the engine of the ")[2]
        assert re.match(r"(long|short) role died: vLLM failed: ", rest), rest
        assert "Traceback" not in rest


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_servers_given_by_address(evaluated, tmp_path):
    ports = {role: free_port() for role in MODELS}
    logs = {role: tmp_path / f"{role}.log" for role in MODELS}

    def vllm(role):
        # Started by our code, since vLLM's CPU build needs the shims of compat.py.
        start = (
            "from longshort_verl.generation.vllm_cpu import name_vllm_cpu; name_vllm_cpu(); "
            "import runpy; runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__', alter_sys=True)"
        )
        script = tmp_path / "vllm_server.py"
        script.write_text(start)
        settings = ["--model", MODELS[role], "--served-model-name", role, "--host", "127.0.0.1", "--port", ports[role]]
        settings += ["--max-model-len", 1024, "--dtype", "float32", "--enforce-eager", "--max-num-seqs", 64]
        settings += ["--kv-cache-memory-bytes", 268435456, "--no-enable-chunked-prefill"]
        return process(script, *settings, log=logs[role])

    with vllm("long") as long, vllm("short") as short:
        for role, running in (("long", long), ("short", short)):
            until(lambda role=role: is_well(f"http://127.0.0.1:{ports[role]}"), running, logs[role])
        endpoints = [
            setting
            for role, port in ports.items()
            for setting in (
                f"{role}.engine=endpoint",
                f"{role}.path={role}",
                f"{role}.tokenizer={MODELS[role]}",
                f"{role}.endpoint.base_urls=[http://127.0.0.1:{port}/v1]",
                f"{role}.endpoint.max_retries=0",
            )
        ]
        with served(tmp_path, *endpoints) as (url, _, log):
            problems = list(evaluated)[:40]
            assert_same(ask_all(url, problems, stream=False), evaluated)
            assert_same(ask_all(url, problems, stream=True), evaluated)
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            messages = [{"role": "user", "content": "1+" * 2000 + "1"}]
            with pytest.raises(openai.BadRequestError, match="fill the model's context"):
                client.chat.completions.create(model="longshort", messages=messages)
            short.send_signal(signal.SIGINT)
            short.wait(timeout=90)
            reply = httpx.get(f"{url}/health")
            assert (reply.status_code, reply.json()["long"]) == (503, "ok")
            # A problem that reaches the short role.
            asked = next(row["problem"] for row in evaluated.values() if row["stop_reason"] == "answered")
            messages = [{"role": "user", "content": asked}]
            with pytest.raises(openai.APIStatusError, match="the engine of the short role failed"):
                client.chat.completions.create(model="longshort", messages=messages, temperature=0)
        # A server that is down from the start gives one line.
        with process(
            "-m", "longshort_verl.cli", "serve", "--recipe", TINY / "serve.yaml", *endpoints, log=log
        ) as running:
            assert running.wait(timeout=120) == 1
        output = log.read_text()
        assert "the short role's model is not available" in output
        assert "Traceback" not in output
