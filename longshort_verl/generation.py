# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Text from a model, whichever engine answers: every stage outside verl's rollout asks a :class:`Generator`.

Chunking, importance, cold-start writing, evaluation and serving take one of these and never learn which it is:
:class:`ScriptedGenerator` (tests and examples), :class:`VLLMGenerator` (vLLM started by this process) or
:class:`EndpointGenerator` (OpenAI-compatible servers). During reinforcement learning verl's own servers answer
instead, through ``adapters/agent_loop.py``.

vllm, transformers and openai are imported when their class is built: each costs seconds that a command which
does not use it should not pay.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from longshort_verl.types import FinishReason, Generation, Likelihood, Message, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput, RequestOutput

_MAX_ERROR_CHARS = 300
"""Servers answer errors with whole HTML pages; the head is enough for a log line."""

_NO_ROOM = "maximum context length"
"""By which OpenAI's and vLLM's servers tell that a request does not fit."""

_SHUTDOWN_S = 60.0
"""Seconds that vLLM's processes may take to end before they are killed."""


class Generator(Protocol):
    """Writes one reply to a conversation."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Generation:
        """Return the model's next reply; where the last message is the assistant's, return what follows its text.

        An engine's failure is returned as ``finish=ERROR`` with its cause in ``error``, never raised, so that one
        lost request does not end a run of thousands. A mistake in the program or its configuration raises.
        ``text`` holds the stop string that ended it and not the end-of-turn token. A prompt that fills the model's
        context gives LENGTH with no token. A cancelled call ends the generation in the engine.
        """
        ...


OnText = Callable[[str], None]
"""Takes what is written, piece by piece, as it is written."""


class StreamingGenerator(Generator, Protocol):
    """A generator that also tells what it writes while it writes it."""

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Generator.generate`.

        ``on_text`` is given the text in pieces that together are ``text``; of a failed reply, those until it failed.
        One who cannot tell earlier gives it whole at the end.
        """
        ...


class LikelihoodGenerator(Generator, Protocol):
    """A generator that also says how likely its model finds a text."""

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """Probability that the model goes on with ``text`` after an assistant's message, at temperature 1.

        An engine's failure is returned in ``error``, as :meth:`Generator.generate` does.
        """
        ...


# Scripted --------------------------------------------------------------------------------------------------------


class ScriptedGenerator:
    """Replays replies in the order in which they are asked for, and records what was asked.

    A string is cut after the first stop string in it, as an engine would; a :class:`Generation` is returned as it
    is, which is how to script LENGTH and ERROR. ``count_tokens`` defaults to one token a non-blank character.
    """

    def __init__(self, replies: Sequence[str | Generation], count_tokens: Callable[[str], int] | None = None) -> None:
        self.replies = deque(replies)
        """Replies not yet given."""
        self.requests: list[tuple[tuple[Message, ...], Sampling]] = []
        """What was asked, in order."""
        self._count_tokens = count_tokens or _num_characters

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """The next scripted reply, character by character; AssertionError when there is none left."""
        self.requests.append((tuple(messages), sampling))
        assert self.replies, f"the script has no reply left for request {len(self.requests)}: {messages[-1]}"
        reply = self.replies.popleft()
        if isinstance(reply, Generation):
            if on_text is not None and reply.text:
                on_text(reply.text)
            return reply
        ends = [reply.find(stop) + len(stop) for stop in sampling.stop if stop in reply]
        text = reply[: min(ends)] if ends else reply
        if on_text is not None:
            for character in text:
                on_text(character)
                await asyncio.sleep(0)
        return Generation(
            text=text,
            finish=FinishReason.STOP,
            num_prompt_tokens=sum(self._count_tokens(message.content) for message in messages),
            num_tokens=self._count_tokens(text),
        )


def _num_characters(text: str) -> int:
    return sum(not character.isspace() for character in text)


# Engines that take token ids --------------------------------------------------------------------------------------


class Prompts:
    """Conversations as the token ids that a model was trained on."""

    def __init__(self, model: str) -> None:
        """Load the model's tokenizer.

        Raises:
            ValueError: it has no chat template.
        """
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {model!r} has no chat template; use an instruction-tuned model or add one"
            )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the model writes on; after an assistant's last message that is right after its text.

        Such a message stands after the generation prompt as it is: templates of reasoning models would drop the
        thinking from it. Where the generation prompt opens the thinking itself, the message need not.
        """
        to_continue = messages[-1].role == "assistant"
        said = messages[:-1] if to_continue else messages
        text = self.tokenizer.apply_chat_template(
            [message.as_dict() for message in said], add_generation_prompt=True, tokenize=False
        )
        if to_continue:
            content = messages[-1].content
            if text.rstrip().endswith(_THINK) and content.lstrip().startswith(_THINK):
                text = text[: text.rindex(_THINK)]
            text += content
        return self.tokenizer.encode(text, add_special_tokens=False)


_THINK = "<think>"


async def token_by_token(
    prompts: Prompts,
    messages: Sequence[Message],
    text: str,
    ask: Callable[[list[int], int], Awaitable[tuple[float, int]]],
    max_model_len: int,
) -> Likelihood:
    """Likelihood of ``text`` from one request for each of its tokens.

    Args:
        prompts: of the model.
        messages: the last one the assistant's.
        text: what would follow it.
        ask: log-probability of a token after token ids, and how many of these were cached.
        max_model_len: most tokens of a request.

    Raises:
        ValueError: the last message is not the assistant's, or ``text`` has no token.
    """
    last = messages[-1]
    if last.role != "assistant" or not text:
        raise ValueError("a likelihood needs an assistant's message to go on from, and a text")
    before = prompts.encode(messages)
    whole = prompts.encode([*messages[:-1], Message(role="assistant", content=last.content + text)])
    # Where the text's first characters join the message's last token, the likelihood begins with that token.
    first = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    places = range(first, len(whole))
    if not places:
        raise ValueError(f"the text {text!r} has no token")
    if len(whole) > max_model_len:
        return _no_likelihood(f"{len(whole)} tokens do not fit into the model's context of {max_model_len}")
    answers = await asyncio.gather(*(ask(whole[:place], whole[place]) for place in places))
    return Likelihood(
        log_prob=float(sum(log_prob for log_prob, _ in answers)),
        num_prompt_tokens=sum(places),
        num_cached_tokens=sum(cached for _, cached in answers),
        num_tokens=len(places),
    )


# vLLM in this process --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VLLMSettings:
    """How :class:`VLLMGenerator` builds its engine; each field is vLLM's engine argument of the same name."""

    max_model_len: int
    """Most tokens of prompt and reply together."""
    dtype: str
    """``bfloat16``, ``float32``, … or ``auto`` for the checkpoint's own."""
    tensor_parallel_size: int
    """GPUs that share the model."""
    gpu_memory_utilization: float
    """Share of the GPU's memory, on a CPU of the machine's, for weights and cache."""
    kv_cache_memory_bytes: int | None
    """Memory of the cache alone; None for what ``gpu_memory_utilization`` leaves. On a CPU the environment variable
    ``VLLM_CPU_KVCACHE_SPACE`` (GiB) goes before it."""
    max_num_seqs: int
    """Most requests in one batch."""
    block_size: int | None
    """Tokens of a block of the prefix cache; None for vLLM's own choice."""
    enforce_eager: bool
    """No compilation and no CUDA graphs: starts sooner, writes more slowly."""
    seed: int
    """Seed of requests that bring none."""


class VLLMGenerator:
    """vLLM, started and ended by this process; concurrent :meth:`generate` calls are batched together.

    Building it blocks until the model is loaded. It serves one event loop; close it, or use ``async with``, or its
    engine processes live as long as this one.
    """

    def __init__(self, model: str, settings: VLLMSettings) -> None:
        from longshort_verl.adapters.compat import prepare_vllm_process

        prepare_vllm_process()  # before vLLM is imported: it reads its own version to find its platform

        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        if current_platform.is_cpu() and settings.enforce_eager:
            # vLLM 0.24 compiles its sampler all the same there, which takes longer than everything else.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        self._prompts = Prompts(model)
        self._engine: AsyncLLM | None = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
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
                # On a CPU a prompt that is read in parts ends the engine if its request has a seed: vLLM 0.24 winds the
                # random numbers back, which torch has for GPUs alone ("CPU Generator does not use offset").
                enable_chunked_prefill=False if current_platform.is_cpu() else None,
                disable_log_stats=True,
            )
        )
        self._max_model_len = self._engine.model_config.max_model_len
        self._request_ids = map(str, itertools.count())
        self._loop = _OneLoop("VLLMGenerator")

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Generator.generate`. LENGTH also stands for the end of the model's context."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._loop.check()
        prompt_ids = self._prompts.encode(messages)
        num_free = self._max_model_len - len(prompt_ids)
        if num_free < 1:
            return Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=len(prompt_ids), num_tokens=0)
        params = SamplingParams(
            max_tokens=min(sampling.max_tokens, num_free),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=list(sampling.stop),
            seed=sampling.seed,
            include_stop_str_in_output=True,
            skip_special_tokens=False,  # the protocol's tags may be special tokens
            output_kind=RequestOutputKind.FINAL_ONLY if on_text is None else RequestOutputKind.CUMULATIVE,
        )
        pieces = _Pieces(on_text)
        try:
            result = await self._ask(prompt_ids, params, lambda output: pieces.so_far(output.text))
        except (EngineDeadError, EngineGenerateError) as error:
            return _failure(f"vLLM failed: {error.__cause__ or error}")
        output = result.outputs[0]
        finish = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(output.finish_reason or "")
        if finish is None:
            return _failure(f"vLLM ended the request with {output.finish_reason!r}")
        text = self._without_end_of_turn(output)
        pieces.so_far(text)
        return Generation(
            text=text,
            finish=finish,
            num_prompt_tokens=len(prompt_ids),
            num_tokens=len(output.token_ids),
            num_cached_tokens=result.num_cached_tokens,
        )

    async def likelihood(self, messages: Sequence[Message], text: str) -> Likelihood:
        """See :meth:`LikelihoodGenerator.likelihood`. Uses the prefix cache, which vLLM's prompt_logprobs would not."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._loop.check()

        async def ask(prompt_ids: list[int], token: int) -> tuple[float, int]:
            params = SamplingParams(
                max_tokens=1,
                # Which token is drawn does not matter. But on a CPU vLLM 0.24 forgets the seeds of a whole batch if one
                # request in it has none, and a greedy one has none.
                temperature=1.0,
                seed=0,
                logprob_token_ids=[token],
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            result = await self._ask(prompt_ids, params)
            logprobs = result.outputs[0].logprobs
            assert logprobs is not None  # they were asked for
            return logprobs[0][token].logprob, result.num_cached_tokens or 0

        try:
            return await token_by_token(self._prompts, messages, text, ask, self._max_model_len)
        except (EngineDeadError, EngineGenerateError) as error:
            return _no_likelihood(f"vLLM failed: {error.__cause__ or error}")

    async def _ask(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        on_output: Callable[[CompletionOutput], None] = lambda output: None,
    ) -> RequestOutput:
        """The last output; those before it, which are there only where they were asked for, go to ``on_output``."""
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
        # A token ended the reply, and keeping stop strings makes vLLM keep that token's text too.
        return output.text.removesuffix(self._prompts.tokenizer.decode(list(output.token_ids[-1:])))

    async def check(self) -> str:
        """What is the matter with the engine; empty where nothing is."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._engine is None:
            return "it is closed"
        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            return f"vLLM failed: {error.__cause__ or error}"
        return ""

    async def forget(self) -> None:
        """Empty the prefix cache."""
        if self._engine is not None:
            await self._engine.reset_prefix_cache()

    async def close(self) -> None:
        """End the engine's processes; calls still waiting return ERROR. May be called again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            handler = engine.output_handler
            if handler is not None and not engine.output_processor.has_unfinished_requests():
                # Nothing waits: else vLLM's reader may see the engine end first, and print a traceback of it.
                handler.cancel()
            # In a thread, because vLLM hands out what waits while its processes end. Its default time of 5 s kills an
            # engine core that still waits for its worker, which leaks shared memory.
            await asyncio.to_thread(engine.shutdown, _SHUTDOWN_S)
            await asyncio.sleep(0)  # vLLM's own tasks take their cancellation before the loop may close

    async def __aenter__(self) -> VLLMGenerator:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


# OpenAI-compatible endpoints -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How :class:`EndpointGenerator` calls its servers."""

    timeout_s: float
    """Seconds that one attempt may stay without an answer."""
    max_retries: int
    """Attempts after the first, made by the openai client: on time-outs, lost connections, 408, 409, 429 and 5xx."""
    max_concurrency: int
    """Most requests in flight, over all servers."""
    vllm_extensions: bool
    """The servers are vLLM: an assistant's message can be continued, and special tokens are kept in the text. Without
    it a vLLM server drops tags that are special tokens of its model."""

    def __post_init__(self) -> None:
        for name, smallest in (("timeout_s", 0.001), ("max_retries", 0), ("max_concurrency", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {smallest}")


@dataclass
class _Server:
    client: AsyncOpenAI
    name: str
    num_in_flight: int = 0
    unreachable: bool = False
    """Its last request found nobody. It fails faster than others answer, so by load alone it would draw every call."""


class EndpointGenerator:
    """One or more OpenAI-compatible chat-completions servers of the same model, through the official client.

    Requests that begin with the same messages, up to the first user message, go to the same server, whose prefix
    cache knows them; new conversations go to the least loaded one. A server that cannot be reached comes last until
    it answers again.

    Servers cut the stop string off. It is put back where it is known: from vLLM's ``stop_reason``, or, on servers
    without that field, where exactly one stop string was asked for. The latter also marks a reply that ended by
    itself as closed, because such servers do not tell the two apart; with several stop strings the text stays cut.
    """

    def __init__(self, base_urls: Sequence[str], model: str, api_key: str, settings: EndpointSettings) -> None:
        from openai import AsyncOpenAI

        if isinstance(base_urls, str) or not base_urls:
            raise ValueError(f"base_urls is {base_urls!r}; give a list with at least one URL")
        if not all(url.startswith(("http://", "https://")) for url in base_urls):
            raise ValueError("every base URL must begin with http:// or https://, as http://127.0.0.1:8000/v1 does")
        if not api_key:
            raise ValueError("api_key is empty; any text will do for a server that asks for none")
        self._model = model
        self._api_key = api_key
        self._vllm_extensions = settings.vllm_extensions
        self._servers: list[_Server] = []
        for url in base_urls:
            client = AsyncOpenAI(
                base_url=url, api_key=api_key, timeout=settings.timeout_s, max_retries=settings.max_retries
            )
            self._servers.append(_Server(client=client, name=client.base_url.netloc.decode()))
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._server_of: dict[int, _Server] = {}
        """Hash of a conversation's first messages → its server; a collision only shares a server."""
        self._loop = _OneLoop("EndpointGenerator")

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """See :meth:`Generator.generate`. Token counts are the server's; an answer without them is an ERROR.

        A vLLM server refuses a request that has not room for ``max_tokens``; it is asked again for what there is.
        """
        from openai import APIConnectionError, BadRequestError, OpenAIError

        self._loop.check()
        request = self._request(messages, sampling)
        pieces = _Pieces(on_text)
        async with self._slots:
            server = self._route(messages)
            server.num_in_flight += 1
            try:
                while True:
                    try:
                        answer = await self._answer(server, request, pieces)
                        break
                    except BadRequestError as error:
                        if _NO_ROOM not in str(error):
                            raise
                        if request.pop("max_tokens", None) is None:
                            return Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=0, num_tokens=0)
                server.unreachable = False
                generation = self._parse(answer, sampling)
            except OpenAIError as error:
                server.unreachable = isinstance(error, APIConnectionError)
                cause = f" ({error.__cause__!r})" if error.__cause__ else ""
                return self._failure(server, f"{type(error).__name__}: {error}{cause}")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                return self._failure(server, f"unusable answer: {error!r}")
            finally:
                server.num_in_flight -= 1
        pieces.so_far(generation.text)
        return generation

    async def _answer(self, server: _Server, request: dict[str, Any], pieces: _Pieces) -> Any:
        """The server's answer as JSON values; of a streamed one, what it would have been in one piece."""
        create = server.client.chat.completions.with_raw_response.create
        if not pieces.wanted:
            return json.loads((await create(**request)).text)
        answered: Any = await create(**request, stream=True, stream_options={"include_usage": True})
        answer: dict[str, Any] = {"choices": [{"message": {"content": ""}, "finish_reason": None}], "usage": None}
        choice = answer["choices"][0]
        async for chunk in answered.parse():
            said = chunk.to_dict()
            answer["usage"] = said.get("usage") or answer["usage"]
            for part in said.get("choices") or []:
                choice["message"]["content"] += part["delta"].get("content") or ""
                choice |= {name: part[name] for name in ("finish_reason", "stop_reason") if name in part}
                pieces.so_far(choice["message"]["content"])
        return answer

    async def check(self) -> str:
        """What is the matter with the servers; empty where each answers and has the model."""
        from openai import OpenAIError

        for server in self._servers:
            try:
                models = [model.id async for model in server.client.with_options(max_retries=0).models.list()]
            except OpenAIError as error:
                return self._failure(server, f"{type(error).__name__}: {error}").error
            if self._model not in models:
                return self._failure(server, f"it has no model {self._model!r}, but {models}").error
        return ""

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [message.as_dict() for message in messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        to_continue = messages[-1].role == "assistant"
        if self._vllm_extensions:
            # Not `include_stop_str_in_output`: it would keep the text of the end-of-turn token too, which nothing in
            # the answer tells from the reply. `stop_reason` says which string to put back.
            request["extra_body"] = {
                "skip_special_tokens": False,
                "add_generation_prompt": not to_continue,
                "continue_final_message": to_continue,
            }
        elif to_continue:
            raise ValueError(
                "only vLLM servers continue an assistant's message; set vllm_extensions, or end with a user's message"
            )
        return request

    def _route(self, messages: Sequence[Message]) -> _Server:
        num_first = next((i + 1 for i, message in enumerate(messages) if message.role == "user"), len(messages))
        key = hash(tuple(messages[:num_first]))
        server = self._server_of.get(key)
        if server is None or server.unreachable:
            server = min(self._servers, key=lambda server: (server.unreachable, server.num_in_flight))
            self._server_of[key] = server
        return server

    def _parse(self, answer: Any, sampling: Sampling) -> Generation:
        choice, usage = answer["choices"][0], answer.get("usage")
        if not usage:
            raise ValueError("the answer has no usage, and token counts are never guessed")
        finish = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(choice["finish_reason"])
        if finish is None:
            raise ValueError(f"the server ended the request with {choice['finish_reason']!r}")
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise ValueError("the answer has no content; a vLLM server must run without --reasoning-parser")
        if finish is FinishReason.STOP:
            text += self._cut_stop(choice, text, sampling.stop)
        details = usage.get("prompt_tokens_details") or {}
        return Generation(
            text=text,
            finish=finish,
            num_prompt_tokens=int(usage["prompt_tokens"]),
            num_tokens=int(usage["completion_tokens"]),
            num_cached_tokens=details.get("cached_tokens"),  # vLLM says it with --enable-prompt-tokens-details
        )

    def _cut_stop(self, choice: dict[str, Any], text: str, stop: Sequence[str]) -> str:
        """The stop string that the server cut off ``text``; empty where none was, or none is known."""
        if self._vllm_extensions or "stop_reason" in choice:
            cut = choice.get("stop_reason")  # the string, or None or a token id where a token ended the reply
        else:
            cut = stop[0] if len(stop) == 1 else None
        return cut if isinstance(cut, str) and not text.endswith(cut) else ""

    def _failure(self, server: _Server, error: str) -> Generation:
        return _failure(f"{server.name}: {error}".replace(self._api_key, "***"))

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.client.close()

    async def __aenter__(self) -> EndpointGenerator:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


# Shared ----------------------------------------------------------------------------------------------------------


class _Pieces:
    """Gives a text that grows on, piece by piece."""

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self._num_given = 0

    @property
    def wanted(self) -> bool:
        return self._on_text is not None

    def so_far(self, text: str) -> None:
        if self._on_text is not None and len(text) > self._num_given:
            self._on_text(text[self._num_given :])
            self._num_given = len(text)


class _OneLoop:
    """Holds an object to the event loop that first used it: from another, its sockets hang or die unexplained."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError(f"this {self._owner} belongs to another event loop; build one in each asyncio.run")


def _no_likelihood(error: str) -> Likelihood:
    return Likelihood(log_prob=0.0, num_prompt_tokens=0, num_cached_tokens=0, num_tokens=0, error=_failure(error).error)


def _failure(error: str) -> Generation:
    error = " ".join(error.split())[:_MAX_ERROR_CHARS]
    return Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error=error)
