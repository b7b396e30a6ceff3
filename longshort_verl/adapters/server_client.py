# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Generates with verl's rollout servers.

:class:`ServerClient` is the only code that sends requests to them; :class:`RayGenerator` starts servers of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.utils.device import get_device_name
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager
from verl.workers.rollout.replica import RolloutReplica

from longshort_verl.config.compose import CONFIG, compose_config
from longshort_verl.generation.base import OnText, Prompts, failure, no_likelihood, no_room, token_by_token
from longshort_verl.generation.settings import RayOptions, VLLMSettings
from longshort_verl.generation.vllm import structured
from longshort_verl.types import FinishReason, Generation, Likelihood, Message, Sampling

logger = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 10.0
"""Seconds to wait for an engine's answer to a health check; a busy engine may take longer."""
_NUM_REPLICAS = 0
"""Replicas that this process has started: verl names servers by rank, and servers of two models need two names."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A reply with its token ids."""

    generation: Generation
    token_ids: list[int] = field(default_factory=list)
    """Generated ids, the end-of-turn token included; empty if there was no room, or an error."""
    log_probs: list[float] = field(default_factory=list)
    """The engine's log-probability of each id; zeros if none were requested."""
    version: int | None = None
    """Training step of the engine's weights; None if they were never pushed."""


class ServerClient:
    """Sends token ids to one model's servers; ``options`` are further sampling parameters of verl's."""

    def __init__(
        self, client: LLMServerClient, tokenizer: Any, *, max_model_len: int, options: Mapping[str, Any] | None = None
    ):
        self._client = client
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._options = dict(options or {})
        self._end_ids = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._special_ids = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}

    async def complete(self, request_id: str, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Continue a prompt; see :meth:`longshort_verl.generation.base.Writer.generate` for how it ends.

        Requests with the same id go to the same replica.
        """
        room = self._max_model_len - len(prompt_ids)
        if room < 1:  # the engine would raise
            return Completion(generation=no_room(len(prompt_ids)))
        limit = min(sampling.max_tokens, room)
        params = {
            **self._options,
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "include_stop_str_in_output": True,
            # Tags may be special tokens, which the engine would otherwise omit from its text.
            "skip_special_tokens": False,
        }
        if sampling.seed is not None:
            params["seed"] = sampling.seed
        if sampling.json_schema is not None:
            params["structured_outputs"] = structured(sampling)
        try:
            output = await self._client.generate(request_id, prompt_ids=list(prompt_ids), sampling_params=params)
        except RayError as error:
            logger.exception("a request to the rollout servers failed")
            return Completion(generation=failure(_cause(error)))
        ids = list(output.token_ids)
        if output.stop_reason == "aborted" or not ids:
            return Completion(generation=failure(f"the engine ended the request: {output.stop_reason}"))
        ended = ids[-1] in self._end_ids
        text = self._tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        # A shorter reply that ends neither so nor with another of the model's end tokens met a limit of the engine's.
        by_token = ended or (len(ids) < limit and ids[-1] in self._special_ids)
        stopped = by_token or any(stop in text for stop in sampling.stop)
        generation = Generation(
            text=text,
            finish=FinishReason.STOP if stopped else FinishReason.LENGTH,
            num_prompt_tokens=len(prompt_ids),
            num_tokens=len(ids),
            num_cached_tokens=output.extra_fields.get("num_cached_tokens"),
        )
        return Completion(
            generation=generation,
            token_ids=ids,
            log_probs=list(output.log_probs) if output.log_probs is not None else [0.0] * len(ids),
            version=output.extra_fields.get("global_steps"),
        )

    async def log_prob(self, request_id: str, prompt_ids: Sequence[int], token: int) -> tuple[float, int]:
        """Log-probability of one token after a prompt, and how many of the prompt's tokens were cached.

        Raises:
            RayError: the engine failed.
        """
        # raw_logprobs (_config): the log-probability before allowed_token_ids removes all other tokens.
        # Sampled with a seed, and not greedy: see VLLMGenerator.likelihood.
        params = {"max_tokens": 1, "temperature": 1.0, "seed": 0, "allowed_token_ids": [token], "logprobs": True}
        output = await self._client.generate(request_id, prompt_ids=list(prompt_ids), sampling_params=params)
        assert output.log_probs is not None  # requested above
        return output.log_probs[0], output.extra_fields.get("num_cached_tokens") or 0


def engine_error(replicas: Sequence[RolloutReplica]) -> RayError | None:
    """The error of a dead engine among the replicas; None if all are healthy, or busy.

    A dead engine answers at once; a busy one may not answer within ``HEALTH_TIMEOUT_S``.
    """
    answers = [replica.servers[0].collective_rpc.remote("check_health") for replica in replicas]
    done, _ = ray.wait(answers, num_returns=len(answers), timeout=HEALTH_TIMEOUT_S)
    try:
        ray.get(done)
    except RayError as error:
        return error
    return None


class RayGenerator:
    """Starts one replica per ``vllm.tensor_parallel_size`` devices; they end with the block.

    Joins the Ray cluster of ``RAY_ADDRESS``, or starts one on this machine. Requests of one conversation go to one
    replica, for its prefix cache.
    """

    def __init__(self, model: str, settings: RayOptions, engine: VLLMSettings) -> None:
        self._model, self._settings, self._engine = model, settings, engine
        self._max_model_len = engine.max_model_len

    async def __aenter__(self) -> RayGenerator:
        config = _config(self._model, self._settings, self._engine)
        self._own_cluster = not ray.is_initialized()
        if self._own_cluster:
            defaults = {"runtime_env": get_ppo_ray_runtime_env(config)}
            options = OmegaConf.to_container(OmegaConf.merge(defaults, config.ray_kwargs.ray_init))
            ray.init(**options)  # pyright: ignore[reportCallIssue]: a mapping of its arguments
        self._prompts = Prompts(self._model)
        global _NUM_REPLICAS
        first = _NUM_REPLICAS
        devices = self._settings.nnodes * self._settings.n_gpus_per_node
        _NUM_REPLICAS += devices // self._engine.tensor_parallel_size
        self._servers: Any = await LLMServerManager.create(config=config, start_rank=first)
        self._client = ServerClient(
            self._servers.get_client(), self._prompts.tokenizer, max_model_len=self._max_model_len
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._own_cluster:
            ray.shutdown()

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`longshort_verl.generation.base.Writer.generate`; does not stream."""
        prompt_ids = self._prompts.encode(messages)
        generation = (await self._client.complete(_conversation(messages), prompt_ids, sampling)).generation
        if on_text is not None and generation.text:
            on_text(generation.text)
        return generation

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """See :meth:`longshort_verl.generation.base.LikelihoodGenerator.likelihood`."""

        async def ask(prompt_ids: list[int], token: int) -> tuple[float, int]:
            return await self._client.log_prob(_conversation(messages), prompt_ids, token)

        try:
            return await token_by_token(self._prompts, messages, text, ask, self._max_model_len)
        except RayError as error:
            return no_likelihood(_cause(error))

    async def check(self) -> str:
        """See :meth:`longshort_verl.generation.base.Generator.check`."""
        error = await asyncio.to_thread(engine_error, self._servers.get_replicas())
        return "" if error is None else failure(_cause(error)).error


def _cause(error: RayError) -> str:
    return f"the engine failed: {str(error).strip().splitlines()[-1]}"


def _conversation(messages: Sequence[Message]) -> str:
    """Id of all requests of one problem: verl's load balancer sends them to one replica."""
    return "/".join(message.content for message in messages if message.role != "assistant")


def _config(model: str, settings: RayOptions, engine: VLLMSettings) -> DictConfig:
    """verl's config of standalone rollout servers; on a CPU, with the settings of our CPU base."""
    on_cpu = get_device_name() == "cpu"
    config = compose_config(CONFIG, "longshort_rl_cpu" if on_cpu else "longshort_rl")
    rollout: dict[str, Any] = {
        "nnodes": settings.nnodes,
        "n_gpus_per_node": settings.n_gpus_per_node,
        "tensor_model_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": True,
        "load_format": "auto",
        # verl's default is after temperature and filters, where an only allowed token has probability 1.
        "logprobs_mode": "raw_logprobs",
    }
    if on_cpu:
        # Prompts are read whole there (longshort_rl_cpu.yaml), and verl fails to raise the limit itself.
        batched = config.actor_rollout_ref.rollout.max_num_batched_tokens
        rollout["max_num_batched_tokens"] = max(batched, engine.max_model_len)
        # Logical slots, because Ray cannot count devices there: for this model and for a peer of its size.
        config.ray_kwargs.ray_init.num_gpus = 2 * settings.nnodes * settings.n_gpus_per_node
    options = {"block_size": engine.block_size, "kv_cache_memory_bytes": engine.kv_cache_memory_bytes}
    rollout["engine_kwargs"] = {"vllm": {name: value for name, value in options.items() if value is not None}}
    if engine.dtype != "auto":
        rollout["dtype"] = engine.dtype
    OmegaConf.set_struct(config, False)  # engine_kwargs takes any of vLLM's arguments
    merged = OmegaConf.merge(config, {"actor_rollout_ref": {"model": {"path": model}, "rollout": rollout}})
    assert isinstance(merged, DictConfig)
    return merged
