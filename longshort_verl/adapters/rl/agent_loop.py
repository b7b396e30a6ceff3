# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The two-agent rollout as a verl agent loop: one dialogue a session, two rows, one per role.

Row 0 is the long role's, row 1 the short role's, always. A row is the role's own transcript: its own turns carry
loss, the peer's turns and the chat template's tokens between them do not. Token ids are the ones that the engine
produced; text is only ever decoded from them.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayError
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.utils.profiler import simple_timer
from verl.workers.rollout.llm_server import LLMServerClient

from longshort_verl.adapters import compat
from longshort_verl.adapters.rl.check import AGENT_LOOP, load_tokenizer, long_short_settings, role_config
from longshort_verl.chat_template import control_tokens, hf_render, text_after_turn
from longshort_verl.dialogue import run_dialogue, transcript
from longshort_verl.generation.base import OnText
from longshort_verl.importance import ImportanceRewardSettings, is_measured
from longshort_verl.rewards import format_term
from longshort_verl.types import Dialogue, FinishReason, Generation, Message, Problem, Role, Sampling, StopReason

logger = logging.getLogger(__name__)

ROW = "long_short"
"""Key of ``extra_fields`` under which each row carries what reward and trainer need of its dialogue."""
IN_TRAINING = "long_short_in_training"
"""Key that the trainer gives its prompts and validation does not: only there is importance measured."""


class TwoPolicyClient(LLMServerClient):
    """The long policy's client, which carries the short policy's: so both reach every agent loop."""

    def __init__(self, *args: Any, short: LLMServerClient, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.short = short


class RoleWriter:
    """A Generator over one policy's servers that keeps the token ids of one dialogue.

    ``token_ids`` is the role's transcript so far, prompt first; ``mask`` and ``logprobs`` belong to what follows
    ``num_prompt_tokens``: 1 and the engine's log-probability on generated tokens, 0 on all others.
    """

    def __init__(
        self,
        client: LLMServerClient,
        tokenizer: Any,
        *,
        max_model_len: int,
        request_id: str,
        extra: Mapping,
        on_prompt: Callable[[Sequence[int]], None] = lambda ids: None,
    ):
        self._client = client
        self._on_prompt = on_prompt
        self._tokenizer = tokenizer
        self._render = hf_render(tokenizer)
        self._max_model_len = max_model_len
        self._request_id = request_id
        self._extra = dict(extra)
        self._messages: list[Message] = []
        self._end_ids = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        self.token_ids: list[int] = []
        self.num_prompt_tokens = 0
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.versions: list[int] = []

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, on_text: OnText | None = None
    ) -> Generation:
        """One turn; ``finish`` is LENGTH with no token where the context has no room left."""
        self._append_prompt(messages)
        self._on_prompt(self.token_ids)
        num_prompt = len(self.token_ids)
        room = self._max_model_len - num_prompt
        if room < 1:
            return Generation(text="", finish=FinishReason.LENGTH, num_prompt_tokens=num_prompt, num_tokens=0)
        limit = min(sampling.max_tokens, room)
        params = {
            **self._extra,
            "max_tokens": limit,
            "stop": list(sampling.stop),
            "include_stop_str_in_output": True,
            # Tags may be special tokens of a tokenizer; without this the engine would not see them as text.
            "skip_special_tokens": False,
        }
        if sampling.seed is not None:
            params["seed"] = sampling.seed
        failed = functools.partial(
            Generation, text="", finish=FinishReason.ERROR, num_prompt_tokens=num_prompt, num_tokens=0
        )
        try:
            output = await self._client.generate(
                self._request_id, prompt_ids=list(self.token_ids), sampling_params=params
            )
        except RayError as error:
            logger.exception("a request to the rollout servers failed")
            return failed(error=f"the engine failed: {str(error).strip().splitlines()[-1]}")
        if output.stop_reason == "aborted" or not output.token_ids:
            return failed(error=f"the engine ended the request: {output.stop_reason}")
        ids = list(output.token_ids)
        self.token_ids += ids
        self.mask += [1] * len(ids)
        self.logprobs += output.log_probs if output.log_probs is not None else [0.0] * len(ids)
        self._messages = list(messages)
        version = output.extra_fields.get("global_steps")
        if version is not None:
            self.versions.append(version)
        ended = ids[-1] in self._end_ids
        text = self._tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
        stopped = ended or len(ids) < limit or any(tag in text for tag in sampling.stop)
        return Generation(
            text=text,
            finish=FinishReason.STOP if stopped else FinishReason.LENGTH,
            num_prompt_tokens=num_prompt,
            num_tokens=len(ids),
        )

    def _append_prompt(self, messages: Sequence[Message]) -> None:
        if not self.token_ids:
            self.token_ids = self._encode(self._render(messages, True))
            self.num_prompt_tokens = len(self.token_ids)
            return
        between = self._encode(text_after_turn(self._render, self._messages, messages[-1]))
        self.token_ids += between
        self.mask += [0] * len(between)
        self.logprobs += [0.0] * len(between)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


class ForcedRollouts:
    """Rollouts of the short model at the boundaries of one dialogue's long turns, beside the dialogue's own requests.

    Each continues the short role's transcript as it is when it is the short role's turn, token by token, so that the
    engine has read it already. Made while they fit in ``settings.max_dialogue_tokens``.
    """

    def __init__(
        self,
        client: LLMServerClient,
        tokenizer: Any,
        settings: ImportanceRewardSettings,
        *,
        max_model_len: int,
        request_id: str,
        extra: Mapping,
        seed: int | None,
    ):
        self._client, self._tokenizer, self._settings = client, tokenizer, settings
        self._max_model_len, self._request_id, self._extra, self._seed = max_model_len, request_id, dict(extra), seed
        self._forcing_ids = tokenizer.encode(settings.forcing_text, add_special_tokens=False)
        self._boundaries: list[asyncio.Future] = []
        self.num_tokens = 0

    def at(self, prompt_ids: Sequence[int]) -> None:
        """Start the rollouts of the next boundary, whose transcript is ``prompt_ids``."""
        if len(self._boundaries) >= self._settings.max_boundaries:
            return
        number, ids = len(self._boundaries), [*prompt_ids, *self._forcing_ids]
        jobs = [self._one(ids, number, one) for one in range(self._settings.num_rollouts)]
        self._boundaries.append(asyncio.gather(*jobs))

    async def replies(self) -> list[list[str]]:
        """What was written at each boundary, up to the first one at which the engine failed or had no room."""
        found: list[list[str]] = []
        for texts in await asyncio.gather(*self._boundaries):
            if any(text is None for text in texts):
                break
            found.append(texts)
        return found

    async def _one(self, prompt_ids: list[int], boundary: int, number: int) -> str | None:
        limit = min(self._settings.max_tokens, self._max_model_len - len(prompt_ids))
        if limit < 1:
            return None
        params = {
            **self._extra,
            "max_tokens": limit,
            "stop": list(self._settings.stop),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
        }
        if self._seed is not None:
            params["seed"] = zlib.crc32(f"{self._seed}/{boundary}/{number}".encode())
        try:
            output = await self._client.generate(self._request_id, prompt_ids=prompt_ids, sampling_params=params)
        except RayError:
            logger.exception("a rollout of a turn's importance failed")
            return None
        if output.stop_reason == "aborted":
            return None
        self.num_tokens += len(output.token_ids)
        text = self._tokenizer.decode(list(output.token_ids), skip_special_tokens=False)
        return self._settings.forcing_text + text


@register(AGENT_LOOP)
class LongShortAgentLoop(AgentLoopBase):
    """One session: the two roles take turns on one problem until the dialogue ends."""

    # verl takes a list from an agent loop; its base class is annotated with one output.
    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Two rows, long then short; a role that never spoke has an inert row of one unmasked token."""
        if not isinstance(self.server_manager, TwoPolicyClient):
            raise TypeError("the agent loop 'longshort' needs both policies: set trainer.v1.trainer_mode=longshort")
        job = _job(self.config)
        problem = _problem(kwargs)
        params = dict(sampling_params)
        temperature, top_p = params.pop("temperature"), params.pop("top_p", 1.0)
        session = f"{kwargs['uid']}_{kwargs['session_id']}"
        seed = _session_seed(job.settings.seed, kwargs, temperature)
        extra = {**params, "temperature": temperature, "top_p": top_p}
        forced = self._forced_rollouts(
            self.server_manager.short, job, problem, kwargs, session=session, extra=extra, seed=seed
        )
        writers = {
            role: RoleWriter(
                client,
                job.tokenizers[role],
                max_model_len=job.max_model_len[role],
                request_id=f"{session}_{role.value}",
                extra=extra,
                **({"on_prompt": forced.at} if forced and role is Role.SHORT else {}),
            )
            for role, client in ((Role.LONG, self.server_manager), (Role.SHORT, self.server_manager.short))
        }
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            dialogue = await run_dialogue(
                problem,
                writers,
                job.settings.dialogue,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                forbidden=job.control_tokens,
            )
            measured: dict[str, Any] = {}
            if job.settings.reward.importance and kwargs.get(IN_TRAINING):
                began = time.perf_counter()
                replies = await forced.replies() if forced else []
                # What the dialogue had to wait for; most rollouts were made while it went on.
                measured = {"rollouts": json.dumps(replies), "rollout_wait_s": time.perf_counter() - began}
                measured["num_tokens_rollouts"] = forced.num_tokens if forced else 0
                lengths = [turn.num_tokens for turn in dialogue.turns if turn.role is Role.LONG]
                measured["long_turn_tokens"] = json.dumps(lengths)
                # Nobody spoke after the long role: no answer could follow its last turn.
                last = dialogue.turns[-1].role if dialogue.turns else None
                measured["ends_with_long"] = last is Role.LONG and dialogue.stop_reason is not StopReason.ENGINE_ERROR
        return [self._row(role, writers[role], dialogue, timing, kwargs, job, measured) for role in Role]

    def _forced_rollouts(
        self,
        client: LLMServerClient,
        job: _Job,
        problem: Problem,
        kwargs: Mapping,
        *,
        session: str,
        extra: Mapping,
        seed: int | None,
    ) -> ForcedRollouts | None:
        """Those of this session, begun where the dialogue begins; None where nothing is measured."""
        settings, dialogue = job.settings.importance, job.settings.dialogue
        if not (job.settings.reward.importance and kwargs.get(IN_TRAINING)):
            return None
        # All sessions of a prompt are one group. Without a seed the groups are drawn anew each run.
        group = kwargs["uid"] if job.settings.seed is None else f"{job.settings.seed}/{kwargs['global_steps']}"
        if not is_measured(f"{group}/{kwargs['index']}", settings.group_share):
            return None
        tokenizer = job.tokenizers[Role.SHORT]
        forced = ForcedRollouts(
            client,
            tokenizer,
            settings,
            max_model_len=job.max_model_len[Role.SHORT],
            request_id=f"{session}_{Role.SHORT.value}",
            extra=extra,
            seed=seed,
        )
        if dialogue.opening_role is Role.LONG:
            text = hf_render(tokenizer)(transcript(problem.prompt, [], Role.SHORT, dialogue), True)
            forced.at(tokenizer.encode(text, add_special_tokens=False))
        return forced

    def _row(
        self,
        role: Role,
        writer: RoleWriter,
        dialogue: Dialogue,
        timing: Mapping,
        kwargs: Mapping,
        job: _Job,
        measured: Mapping[str, Any],
    ) -> AgentLoopOutput:
        step = int(kwargs["global_steps"])
        prompt_ids = writer.token_ids[: writer.num_prompt_tokens]
        response_ids = writer.token_ids[writer.num_prompt_tokens :][: len(writer.mask)]
        mask, logprobs = writer.mask, writer.logprobs
        # A turn that found no room, or failed, has appended the peer's turn and nothing after it.
        while mask and not mask[-1]:
            response_ids, mask, logprobs = response_ids[:-1], mask[:-1], logprobs[:-1]
        if not mask:
            filler = job.tokenizers[role].eos_token_id
            prompt_ids, response_ids, mask, logprobs = prompt_ids or [filler], [filler], [0], [0.0]
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            response_mask=mask,
            response_logprobs=logprobs,
            num_turns=len(dialogue.turns),
            metrics=AgentLoopMetrics(generate_sequences=timing["generate_sequences"]),
            extra_fields={
                # An engine that was loaded from disk and never pushed has no version; it counts as up to date.
                "min_global_steps": min(writer.versions, default=step - 1),
                "max_global_steps": max(writer.versions, default=step - 1),
                ROW: dialogue_record(dialogue, role)
                | dict(measured)
                | ({"dialogue": dialogue_text(dialogue)} if job.writes_dialogues else {}),
            },
        )


def dialogue_record(dialogue: Dialogue, role: Role) -> dict[str, Any]:
    """What reward manager and trainer need of a dialogue, as plain scalars and strings."""
    return {
        "role": role.value,
        "answer": dialogue.answer_text,
        "gold": dialogue.problem.answer,
        "problem": f"{dialogue.problem.source}/{dialogue.problem.index}",
        "stop_reason": dialogue.stop_reason.value,
        "detail": dialogue.detail,
        "num_rethinks": dialogue.num_rethinks,
        **{f"num_tokens_{r.value}": dialogue.num_tokens(r) for r in Role},
        **{f"num_turns_{r.value}": dialogue.num_turns(r) for r in Role},
        **{f"num_useful_turns_{r.value}": dialogue.num_useful_turns(r) for r in Role},
        **{f"format_{r.value}": format_term(dialogue, r) for r in Role},
    }


def dialogue_text(dialogue: Dialogue) -> str:
    """A dialogue as a person reads it: one paragraph a turn, its role in front."""
    return "\n\n".join(f"[{turn.role.value}] {turn.raw}" for turn in dialogue.turns)


class _Job:
    """What all dialogues of a job share; built once per process."""

    def __init__(self, config: Any):
        compat.log_in_worker()
        self.settings = long_short_settings(config)
        policies = {role: role_config(config, role) for role in Role}
        self.tokenizers = {role: load_tokenizer(policy) for role, policy in policies.items()}
        self.max_model_len = {
            role: policy.rollout.max_model_len or policy.rollout.prompt_length + policy.rollout.response_length
            for role, policy in policies.items()
        }
        self.writes_dialogues = bool(config.trainer.get("validation_data_dir") or config.trainer.log_val_generations)
        self.control_tokens = control_tokens(self.tokenizers.values())


_jobs: dict[int, _Job] = {}


def _job(config: Any) -> _Job:
    # verl builds a loop object per session, always from the same config object.
    if id(config) not in _jobs:
        _jobs[id(config)] = _Job(config)
    return _jobs[id(config)]


def _problem(kwargs: Mapping[str, Any]) -> Problem:
    return Problem(
        prompt=kwargs["raw_prompt"][-1]["content"],
        answer=str(kwargs["reward_model"]["ground_truth"]),
        source=str(kwargs["data_source"]),
        index=int(kwargs["index"]),
    )


def _session_seed(seed: int | None, kwargs: Mapping[str, Any], temperature: float) -> int | None:
    """Seed of one session's requests: the same for the same run, step, problem and sample; None where none is set."""
    if seed is None or temperature == 0:
        return None
    return zlib.crc32(f"{seed}/{kwargs['global_steps']}/{kwargs['index']}/{kwargs['session_id']}".encode())
