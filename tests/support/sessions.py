# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Sessions of the real agent loop on real tokenizers, with servers that return scripted replies."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from longshort_verl.adapters.rl import agent_loop
from longshort_verl.adapters.rl.agent_loop import IN_TRAINING, LongShortAgentLoop, TwoPolicyClient
from longshort_verl.adapters.rl.settings import load_tokenizer, role_config
from longshort_verl.types import Role

FORCING = "<answer>\\boxed{"
"""How a forced rollout's prompt ends."""


class ScriptedServers(LLMServerClient):
    """Replays texts (or token ids, or exceptions) as one policy's servers would answer."""

    def __init__(self, tokenizer, replies, version=4, rollouts=None):
        super().__init__(config=None)
        self.rollouts = rollouts or {}
        self.forced = []
        self.tokenizer = tokenizer
        self.replies = list(replies)
        self.version = version
        self.requests = []

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        request = SimpleNamespace(id=request_id, prompt_ids=list(prompt_ids), params=dict(sampling_params))
        text = self.tokenizer.decode(prompt_ids)
        if text.endswith(FORCING):
            self.forced.append(request)
            await asyncio.sleep(0)
            # By the last thought that the role has read.
            reply = self.rollouts[text.rpartition("<think>")[2].partition("</think>")[0] if "<think>" in text else ""]
        else:
            self.requests.append(request)
            reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        ids = self.tokenizer.encode(reply, add_special_tokens=False) if isinstance(reply, str) else reply
        ids = ids[: sampling_params["max_tokens"]]
        return TokenOutput(
            token_ids=ids,
            log_probs=[-0.5] * len(ids),
            stop_reason="completed",
            extra_fields={"global_steps": self.version},
        )


def run_session(
    config,
    long,
    short,
    *,
    sampling=None,
    seed_of=None,
    rollouts=None,
    training=False,
    problem="8+2+2",
    versions=None,
):
    """One session on ``problem``: its rows, the servers by role, the tokenizers by role.

    ``versions``: the step of an engine's weights, by role, where it is not 4.
    """
    OmegaConf.resolve(config)
    agent_loop._jobs.clear()
    tokenizers = {role: load_tokenizer(role_config(config, role)) for role in Role}
    servers = {
        Role.LONG: ScriptedServers(tokenizers[Role.LONG], long),
        Role.SHORT: ScriptedServers(tokenizers[Role.SHORT], short, rollouts=rollouts or {}),
    }
    for role, version in (versions or {}).items():
        servers[role].version = version
    loop = LongShortAgentLoop.__new__(LongShortAgentLoop)
    loop.config = config
    loop.server_manager = TwoPolicyClient(config=None, short=servers[Role.SHORT])
    loop.server_manager.generate = servers[Role.LONG].generate
    rows = asyncio.run(
        loop.run(
            sampling or {"temperature": 1.0, "top_p": 1.0, "logprobs": True},
            raw_prompt=[{"role": "user", "content": problem}],
            reward_model={"ground_truth": "2"},
            data_source="test",
            index=seed_of or 0,
            uid="u",
            session_id=3,
            global_steps=5,
            **({IN_TRAINING: True} if training else {}),
        )
    )
    return rows, servers, tokenizers
