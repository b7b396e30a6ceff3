# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's own standalone rollout servers as a generator, for those who outgrow one machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.utils.device import get_device_name
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager

from longshort_verl.config.compose import CONFIG, compose_config
from longshort_verl.config.model import RayOptions
from longshort_verl.generation import OnText, Prompts, VLLMSettings, token_by_token
from longshort_verl.types import FinishReason, Generation, Likelihood, Message, Sampling

logger = logging.getLogger(__name__)

_NUM_REPLICAS = 0
"""Replicas that this process has started: verl names servers by rank, and two models' must not share a name."""


class RayGenerator:
    """One replica per ``vllm.tensor_parallel_size`` devices, started here and ended with the block.

    Joins the Ray cluster of ``RAY_ADDRESS``, or starts one on this machine. Requests of one conversation go to one
    replica, whose prefix cache knows it.
    """

    def __init__(self, model: str, settings: RayOptions, engine: VLLMSettings) -> None:
        self._model, self._settings, self._engine = model, settings, engine
        self._max_model_len = engine.max_model_len

    async def __aenter__(self) -> RayGenerator:
        config = _config(self._model, self._settings, self._engine)
        self._own_cluster = not ray.is_initialized()
        if self._own_cluster:
            options = OmegaConf.to_container(
                OmegaConf.create({"runtime_env": get_ppo_ray_runtime_env(config), **config.ray_kwargs.ray_init})
            )
            ray.init(**options)  # pyright: ignore[reportCallIssue]: a mapping of its arguments
        self._prompts = Prompts(self._model)
        global _NUM_REPLICAS
        first = _NUM_REPLICAS
        devices = self._settings.nnodes * self._settings.n_gpus_per_node
        _NUM_REPLICAS += devices // self._engine.tensor_parallel_size
        self._servers: Any = await LLMServerManager.create(config=config, start_rank=first)
        self._client: LLMServerClient = self._servers.get_client()
        self._end_ids = {self._prompts.tokenizer.eos_token_id}
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._own_cluster:
            ray.shutdown()

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`longshort_verl.generation.StreamingGenerator.generate`; all text comes at the end."""
        prompt_ids = self._prompts.encode(messages)
        free = self._max_model_len - len(prompt_ids)
        if free < 1:
            return Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=len(prompt_ids), num_tokens=0)
        limit = min(sampling.max_tokens, free)
        params: dict[str, Any] = {
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
        }
        if sampling.seed is not None:
            params["seed"] = sampling.seed
        try:
            output = await self._client.generate(_conversation(messages), prompt_ids=prompt_ids, sampling_params=params)
        except RayError as error:
            logger.warning("a request failed: %s", error)
            return Generation(
                text="",
                finish=FinishReason.ERROR,
                num_prompt_tokens=0,
                num_tokens=0,
                error=f"the engine failed: {str(error).strip().splitlines()[-1]}",
            )
        ids = list(output.token_ids)
        if output.stop_reason == "aborted" or not ids:
            return Generation(
                text="",
                finish=FinishReason.ERROR,
                num_prompt_tokens=0,
                num_tokens=0,
                error=f"the engine ended the request: {output.stop_reason}",
            )
        ended = ids[-1] in self._end_ids
        text = self._prompts.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        stopped = ended or len(ids) < limit or any(stop in text for stop in sampling.stop)
        if on_text is not None and text:
            on_text(text)
        return Generation(
            text=text,
            finish=FinishReason.STOP if stopped else FinishReason.LENGTH,
            num_prompt_tokens=len(prompt_ids),
            num_tokens=len(ids),
            num_cached_tokens=output.extra_fields.get("num_cached_tokens"),
        )

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """See :meth:`longshort_verl.generation.LikelihoodGenerator.likelihood`."""

        async def ask(prompt_ids: list[int], token: int) -> tuple[float, int]:
            # raw_logprobs (_config): the log-probability from before that token alone was left to choose from.
            # With a seed, and not greedy: see VLLMGenerator.likelihood.
            params = {"max_tokens": 1, "temperature": 1.0, "seed": 0, "allowed_token_ids": [token], "logprobs": True}
            output = await self._client.generate(_conversation(messages), prompt_ids=prompt_ids, sampling_params=params)
            assert output.log_probs is not None  # they were asked for
            return output.log_probs[0], output.extra_fields.get("num_cached_tokens") or 0

        try:
            return await token_by_token(self._prompts, messages, text, ask, self._max_model_len)
        except RayError as error:
            return Likelihood(
                log_prob=0.0,
                num_prompt_tokens=0,
                num_cached_tokens=0,
                num_tokens=0,
                error=f"the engine failed: {str(error).strip().splitlines()[-1]}",
            )


def _conversation(messages: Sequence[Message]) -> str:
    """The same for all requests of one problem: verl's load balancer sends them to one replica."""
    return "/".join(message.content for message in messages if message.role != "assistant")


def _config(model: str, settings: RayOptions, engine: VLLMSettings) -> DictConfig:
    """verl's config of standalone rollout servers; on a CPU with what our CPU base sets."""
    on_cpu = get_device_name() == "cpu"
    config = compose_config(CONFIG, "longshort_rl_cpu" if on_cpu else "longshort_rl")
    own = {
        "model": {"path": model},
        "rollout": {
            "nnodes": settings.nnodes,
            "n_gpus_per_node": settings.n_gpus_per_node,
            "tensor_model_parallel_size": engine.tensor_parallel_size,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
            "max_model_len": engine.max_model_len,
            "max_num_seqs": engine.max_num_seqs,
            "enforce_eager": engine.enforce_eager,
            "enable_prefix_caching": True,
            "load_format": "auto",
            # verl asks for what is left after temperature and filters, which is 1 of a token that is prescribed.
            "logprobs_mode": "raw_logprobs",
        },
    }
    if on_cpu:
        # Prompts are read whole there (longshort_rl_cpu.yaml), and verl fails to raise the limit by itself.
        batched = config.actor_rollout_ref.rollout.max_num_batched_tokens
        own["rollout"]["max_num_batched_tokens"] = max(batched, engine.max_model_len)
        # Logical slots, where Ray cannot count devices: for this model and for as large a peer.
        config.ray_kwargs.ray_init.num_gpus = 2 * settings.nnodes * settings.n_gpus_per_node
    further = {"block_size": engine.block_size, "kv_cache_memory_bytes": engine.kv_cache_memory_bytes}
    own["rollout"]["engine_kwargs"] = {"vllm": {name: value for name, value in further.items() if value is not None}}
    if engine.dtype != "auto":
        own["rollout"]["dtype"] = engine.dtype
    OmegaConf.set_struct(config, False)  # engine_kwargs takes any of vLLM's arguments
    return OmegaConf.merge(config, {"actor_rollout_ref": own})  # pyright: ignore[reportReturnType]: both are mappings
