# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``/health`` of an endpoint over real engines, before and after an engine dies."""

from __future__ import annotations

import asyncio
import time

import httpx
import psutil
import pytest

from longshort_verl.generation.endpoint import EndpointGenerator
from longshort_verl.generation.open import RAY_GENERATOR
from longshort_verl.generation.settings import EndpointSettings, RayOptions
from longshort_verl.generation.vllm import VLLMGenerator
from longshort_verl.serving.app import Pair, build_app
from longshort_verl.types import FinishReason, Message, Role, Sampling
from tests.serving.scripted import DIALOGUE, SAMPLING, SERVER
from tests.support.configs import ROOT
from tests.support.engines import engine_environment, tiny_engine
from tests.support.scripted import ScriptedGenerator

SOLO = str(ROOT / "recipes" / "tiny_cpu" / "models" / "solo")


async def health(generator):
    """Status and answer of ``/health`` where ``generator`` is the long role's."""
    pair = Pair(generators={Role.LONG: generator, Role.SHORT: ScriptedGenerator(["a reply"])}, forbidden=[])
    app = build_app(pair, DIALOGUE, SAMPLING, SERVER, api_key=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        reply = await client.get("/health")
    return reply.status_code, reply.json()


async def unhealthy(generator):
    """The long role's fault, once ``/health`` reports one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        status, state = await health(generator)
        if status == 503:
            assert state["short"] == "ok"
            return state["long"]
        await asyncio.sleep(0.5)
    raise AssertionError("no fault within 60 s")


def kill_engine_cores():
    """Kill those of this process: other jobs of the machine have engines of their own."""
    cores = [process for process in psutil.Process().children(recursive=True) if "EngineCore" in process.name()]
    assert cores
    for core in cores:
        core.kill()


def test_an_endpoint_without_a_server():
    settings = EndpointSettings(timeout_s=1, max_retries=0, max_concurrency=1, vllm_extensions=False)

    async def main():
        async with EndpointGenerator(["http://127.0.0.1:9/v1"], "tiny", "key", settings) as generator:
            return await unhealthy(generator)

    assert "127.0.0.1:9: APIConnectionError" in asyncio.run(main())


def test_a_scripted_generator():
    async def main():
        generator = ScriptedGenerator(["a reply"])
        assert await health(generator) == (200, {"long": "ok", "short": "ok"})
        await generator.generate([Message(role="user", content="?")], Sampling(max_tokens=1, temperature=0))
        return await unhealthy(generator)

    assert asyncio.run(main()) == "the script has no reply left"


@pytest.mark.job
def test_a_vllm_engine_whose_process_died():
    async def main():
        async with VLLMGenerator(SOLO, tiny_engine(256)) as generator:
            assert await health(generator) == (200, {"long": "ok", "short": "ok"})
            kill_engine_cores()
            fault = await unhealthy(generator)
            reply = await generator.generate(
                [Message(role="user", content="1+1")], Sampling(max_tokens=4, temperature=0)
            )
            assert reply.finish is FinishReason.ERROR
        return fault, await generator.check()

    with engine_environment():
        fault, closed = asyncio.run(main())
    assert fault.startswith("vLLM failed: EngineCore")
    assert closed == "the engine is closed"


@pytest.mark.alone
@pytest.mark.job
@pytest.mark.slow
@pytest.mark.nightly
def test_verls_servers_whose_engine_died(monkeypatch):
    from pkgutil import resolve_name

    monkeypatch.setenv("VERL_PLATFORM", "cpu")

    async def main():
        generator = resolve_name(RAY_GENERATOR)(SOLO, RayOptions(nnodes=1, n_gpus_per_node=1), tiny_engine(256))
        async with generator:
            assert await health(generator) == (200, {"long": "ok", "short": "ok"})
            kill_engine_cores()
            return await unhealthy(generator)

    assert asyncio.run(main()).startswith("the engine failed: ")
