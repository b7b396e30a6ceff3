# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's reward manager for a dialogue: grades the final answer and passes on what the trainer needs.

verl gives one score to all rows of a session. The score here is the pair's, without the group-relative terms;
validation reports it. A weight that is a ramp counts with its last value, so that the scores of all steps compare. The
trainer, which knows the groups, computes each role's reward.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from longshort_verl.adapters.rl.agent_loop import RECORD, ROW
from longshort_verl.adapters.rl.settings import long_short_settings
from longshort_verl.evaluation.run import grade_record
from longshort_verl.grading import grade, warm_up
from longshort_verl.importance import MeasuredTurns
from longshort_verl.metrics import MEASURED
from longshort_verl.rewards import final_weights
from longshort_verl.types import Grade, Role, StopReason


class LongShortRewardManager(RewardManagerBase):
    """Scores one dialogue from the record in its rows (``reward.reward_manager.name``)."""

    def __init__(self, config, tokenizer, compute_score, reward_router_address=None, reward_model_tokenizer=None):
        super().__init__(config, tokenizer, compute_score)
        self.settings = long_short_settings(config)
        warm_up(self.settings.grading)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """The pair's score and its parts; every value is a number or a string, as verl's validation demands."""
        record = data[-1].non_tensor_batch["tool_extra_fields"][ROW]
        answered = record["stop_reason"] == StopReason.ANSWERED.value
        # In an executor, because grading takes time in which the worker's other sessions can continue.
        verdict = (
            await self.loop.run_in_executor(None, grade, record["answer"], record["gold"], self.settings.grading)
            if answered
            else None
        )
        accuracy = float(verdict is not None and verdict.correct)
        formats = [record[f"format_{role.value}"] for role in Role if record[f"num_turns_{role.value}"]]
        weights = final_weights(self.settings.reward)
        pair_format = sum(formats) / len(formats) if formats else 0.0
        info = {
            "acc": accuracy,
            "format": pair_format,
            **{
                f"{name}_{role.value}": record[f"{name}_{role.value}"]
                for name in ("format", "num_tokens", "num_turns")
                for role in Role
            },
            "num_tokens": sum(record[f"num_tokens_{role.value}"] for role in Role),
            "num_rethinks": record["num_rethinks"],
            "engine_failed": float(record["stop_reason"] == StopReason.ENGINE_ERROR.value),
            "stop_reason": record["stop_reason"],
            "detail": record["detail"],
            "answer": (verdict.extracted or "") if verdict else "",
            "graded": verdict.reason if verdict else "no answer to grade",
            # Present if validation's dialogues are written to a file.
            **({"dialogue": record["dialogue"]} if "dialogue" in record else {}),
            **({MEASURED: (await self._grade_rollouts(record)).to_json()} if MEASURED in record else {}),
        }
        if RECORD in record:
            stop = {"stop_reason": record["stop_reason"], "detail": record["detail"]}
            graded = grade_record(verdict or Grade(correct=False, extracted=None), StopReason(record["stop_reason"]))
            info[RECORD] = json.dumps(json.loads(record[RECORD]) | graded | stop)
        return {
            "reward_score": weights["accuracy"] * accuracy + weights["format"] * pair_format,
            "reward_extra_info": info,
        }

    async def _grade_rollouts(self, record: Mapping[str, Any]) -> MeasuredTurns:
        """The measured turns of a dialogue with their importance, from the rollouts of the agent loop."""
        measured = MeasuredTurns.from_json(record[MEASURED])
        check = functools.partial(grade, gold=record["gold"], settings=self.settings.grading)
        # Rollouts repeat the same few answers.
        texts = sorted({text for texts in measured.replies for text in texts})
        verdicts = [await self.loop.run_in_executor(None, check, text) for text in texts]
        right = {text: verdict.correct for text, verdict in zip(texts, verdicts, strict=True)}
        return measured.graded(right, self.settings.importance.metric)
