# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What is refused before any engine starts, and the tokens of a model's own tokenizer."""

import asyncio

import pytest

from longshort_verl.chains.config import read_importance
from longshort_verl.config.compose import ConfigError
from longshort_verl.generation.endpoint import EndpointGenerator
from longshort_verl.generation.open import open_generator, token_counter
from tests.support.configs import ROOT

SOLO = ROOT / "recipes" / "tiny_cpu" / "models" / "solo"
ENDPOINT = ["model.engine=endpoint", "model.endpoint.base_urls=[http://127.0.0.1:1/v1]", "plan.prescreen=false"]


def settings(*overrides):
    return read_importance(None, overrides).model


def opened(model):
    async def run():
        async with open_generator(model) as generator:
            return generator

    return asyncio.run(run())


@pytest.mark.parametrize("engine", ["vllm", "ray", "endpoint"])
def test_no_model_is_refused(engine):
    model = settings(*ENDPOINT, f"model.engine={engine}")
    with pytest.raises(ConfigError, match="model.path is null; set it"):
        opened(model)
    with pytest.raises(ConfigError, match="model.path is null; set it, or model.tokenizer"):
        token_counter(model)


def test_an_endpoint_is_what_was_asked_for():
    assert isinstance(opened(settings(*ENDPOINT, "model.path=name")), EndpointGenerator)


def test_tokens_are_counted_by_the_models_tokenizer():
    assert token_counter(settings(f"model.path={SOLO}"))("check 5\n\n") == 9
    assert token_counter(settings(*ENDPOINT, "model.path=name", f"model.tokenizer={SOLO}"))("<think>5") == 2


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="if model.path is a server's name for its model, set model.tok"):
        token_counter(settings(f"model.path={tmp_path}"))
