# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The two-agent rollout as a verl agent loop: one dialogue per session, and two rows, one per role.

Row 0 is always the long role's, row 1 the short role's. A row is the role's own transcript: its own turns carry loss;
the peer's turns and the chat template's tokens do not. Token ids are those that the engine produced; text is decoded
from them and never encoded again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.utils.profiler import simple_timer
from verl.workers.rollout.llm_server import LLMServerClient

from longshort_verl.adapters import compat
from longshort_verl.adapters.rl.check import AGENT_LOOP
from longshort_verl.adapters.rl.forced_rollouts import ForcedRollouts, unmeasured
from longshort_verl.adapters.rl.role_writer import RoleWriter
from longshort_verl.adapters.rl.settings import Schedule, load_tokenizer, long_short_settings, role_config
from longshort_verl.adapters.server_client import ServerClient
from longshort_verl.chat_template import control_tokens, hf_render
from longshort_verl.dialogue import run_dialogue, transcript
from longshort_verl.evaluation.run import dialogue_record as evaluation_record
from longshort_verl.importance import is_measured
from longshort_verl.metrics import MEASURED
from longshort_verl.rewards import format_term, weights_at
from longshort_verl.types import Dialogue, Problem, Role, Sampling

ROW = "long_short"
"""Key of ``extra_fields`` with a row's record of its dialogue, for reward manager and trainer."""
IN_TRAINING = "long_short_in_training"
"""Key of training prompts, absent in validation: importance is measured in training only."""

RECORD = "evaluation_record"
"""Key of a dialogue's record in the form of ``longshort evaluate``, as JSON, in the validation between rounds."""


class TwoPolicyClient(LLMServerClient):
    """The long policy's client; it carries the short policy's client to every agent loop."""

    def __init__(self, *args: Any, short: LLMServerClient, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.short = short


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
        options = dict(sampling_params)
        temperature, top_p = options.pop("temperature"), options.pop("top_p", 1.0)
        seed = _session_seed(job.settings.seed, kwargs, temperature)
        session = f"{kwargs['uid']}_{kwargs['session_id']}"
        request_ids = {role: f"{session}_{role.value}" for role in Role}
        clients = {
            role: ServerClient(client, job.tokenizers[role], max_model_len=job.max_model_len[role], options=options)
            for role, client in ((Role.LONG, self.server_manager), (Role.SHORT, self.server_manager.short))
        }
        forced = None
        if job.measures(kwargs):
            forced = ForcedRollouts(
                clients[Role.SHORT],
                job.tokenizers[Role.SHORT],
                job.settings.importance,
                request_id=request_ids[Role.SHORT],
                sampling=Sampling(max_tokens=1, temperature=temperature, top_p=top_p, seed=seed),
            )
            if job.settings.dialogue.opening_role is Role.LONG:
                forced.start(job.short_prompt(problem))
        writers = {
            role: RoleWriter(
                clients[role],
                job.tokenizers[role],
                request_id=request_ids[role],
                **({"on_prompt": forced.start} if forced and role is Role.SHORT else {}),
            )
            for role in Role
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
            measured = await forced.measured(dialogue) if forced else unmeasured(dialogue)
        # verl needs the same fields in all rows of a batch, measured or not.
        shared = {MEASURED: measured.to_json()} if job.may_measure(kwargs) else {}
        if job.writes_dialogues:
            shared["dialogue"] = dialogue_text(dialogue)
        if job.records_evaluation(kwargs):
            asked = {"set": problem.source, "index": problem.index, "sample": int(kwargs["session_id"])}
            asked |= {"problem": problem.prompt, "gold": problem.answer}
            shared[RECORD] = json.dumps(asked | evaluation_record(dialogue))
        return [self._row(role, writers[role], dialogue, timing, kwargs, job, shared) for role in Role]

    def _row(
        self,
        role: Role,
        writer: RoleWriter,
        dialogue: Dialogue,
        timing: Mapping[str, float],
        kwargs: Mapping[str, Any],
        job: _Job,
        shared: Mapping[str, str],
    ) -> AgentLoopOutput:
        step = int(kwargs["global_steps"])
        prompt_ids = writer.token_ids[: writer.num_prompt_tokens]
        response_ids = writer.token_ids[writer.num_prompt_tokens :]
        mask, logprobs = writer.mask, writer.logprobs
        # A turn that failed, or had no room, has appended the peer's turn and nothing after it.
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
                "min_global_steps": min(writer.versions, default=step - 1),
                "max_global_steps": max(writer.versions, default=step - 1),
                ROW: {**dialogue_record(dialogue, role), **shared},
            },
        )


def dialogue_record(dialogue: Dialogue, role: Role) -> dict[str, Any]:
    """The record of a dialogue for reward manager and trainer, as plain scalars and strings."""
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
    """A readable dialogue: one paragraph per turn, with its role in front."""
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

    def may_measure(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether importance is measured in a share of the step's groups."""
        weights = weights_at(self.settings.reward, int(kwargs["global_steps"]))
        return bool(weights["importance"] and kwargs.get(IN_TRAINING))

    def measures(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether importance is measured in this session: the same for all sessions of a prompt, its group."""
        # Without a seed, the measured groups differ between runs.
        group = kwargs["uid"] if self.settings.seed is None else f"{self.settings.seed}/{kwargs['global_steps']}"
        return self.may_measure(kwargs) and is_measured(
            f"{group}/{kwargs['index']}", self.settings.importance.group_share
        )

    def records_evaluation(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether this is the validation of a pair between two rounds, which is kept."""
        between = self.settings.schedule is Schedule.ROUNDS and self.settings.rounds.ends(int(kwargs["global_steps"]))
        return between and not kwargs.get(IN_TRAINING)

    def short_prompt(self, problem: Problem) -> list[int]:
        """The short role's transcript before any turn."""
        tokenizer = self.tokenizers[Role.SHORT]
        messages = transcript(problem.prompt, [], Role.SHORT, self.settings.dialogue)
        return tokenizer.encode(hf_render(tokenizer)(messages, True), add_special_tokens=False)


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
    """Seed of one session's requests, by run, step, problem and sample; None without a seed, or if greedy."""
    if seed is None or temperature == 0:
        return None
    return zlib.crc32(f"{seed}/{kwargs['global_steps']}/{kwargs['index']}/{kwargs['session_id']}".encode())
