# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""verl's reward manager for a dialogue: grades the final answer and hands on what the trainer needs.

verl gives one score to all rows of a session. The score returned here is the pair's, without the terms that are
relative to a group; it is what validation reports. The trainer, which knows the groups, computes each role's own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from longshort_verl.adapters.rl.agent_loop import ROW
from longshort_verl.adapters.rl.check import long_short_settings
from longshort_verl.grading import grade, warm_up
from longshort_verl.importance import turn_importances
from longshort_verl.types import Counts, Role, StopReason


class LongShortRewardManager(RewardManagerBase):
    """Scores one dialogue from the record that its rows carry (``reward.reward_manager.name``)."""

    def __init__(self, config, tokenizer, compute_score, reward_router_address=None, reward_model_tokenizer=None):
        super().__init__(config, tokenizer, compute_score)
        self.settings = long_short_settings(config)
        warm_up(self.settings.grading)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Pair score and its parts; every value is a number or a string, as verl's validation demands."""
        record = data[-1].non_tensor_batch["tool_extra_fields"][ROW]
        answered = record["stop_reason"] == StopReason.ANSWERED.value
        # Grading is bounded in time but not instant: it must not hold up the worker's other sessions.
        verdict = (
            await self.loop.run_in_executor(None, grade, record["answer"], record["gold"], self.settings.grading)
            if answered
            else None
        )
        accuracy = float(verdict is not None and verdict.correct)
        formats = [record[f"format_{role.value}"] for role in Role if record[f"num_turns_{role.value}"]]
        weights = self.settings.reward
        pair_format = sum(formats) / len(formats) if formats else 0.0
        info = {
            "acc": accuracy,
            "format": pair_format,
            **{f"format_{role.value}": record[f"format_{role.value}"] for role in Role},
            **{f"num_tokens_{role.value}": record[f"num_tokens_{role.value}"] for role in Role},
            **{f"num_turns_{role.value}": record[f"num_turns_{role.value}"] for role in Role},
            "num_tokens": sum(record[f"num_tokens_{role.value}"] for role in Role),
            "num_rethinks": record["num_rethinks"],
            "engine_failed": float(record["stop_reason"] == StopReason.ENGINE_ERROR.value),
            "stop_reason": record["stop_reason"],
            "detail": record["detail"],
            "answer": (verdict.extracted or "") if verdict else "",
            "graded": verdict.reason if verdict else "no answer to grade",
            # Only there where validation's dialogues are written somewhere.
            **({"dialogue": record["dialogue"]} if "dialogue" in record else {}),
            **(await self._importance(record) if "rollouts" in record else {}),
        }
        return {
            "reward_score": weights.accuracy * accuracy + weights.format * pair_format,
            "reward_extra_info": info,
        }

    async def _importance(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What each long turn of a dialogue is worth, from the rollouts that the agent loop made."""
        settings = self.settings.importance
        lengths, replies = json.loads(record["long_turn_tokens"]), json.loads(record["rollouts"])
        check = functools.partial(grade, gold=record["gold"], settings=self.settings.grading)
        # The same few answers come again and again.
        texts = sorted({text for texts in replies for text in texts})
        verdicts = [await self.loop.run_in_executor(None, check, text) for text in texts]
        right = {text: verdict.correct for text, verdict in zip(texts, verdicts, strict=True)}
        found = turn_importances(
            [Counts(num_right=sum(right[text] for text in texts), num_rollouts=len(texts)) for texts in replies],
            lengths,
            ends_with_long=record["ends_with_long"],
            settings=settings.metric,
        )
        return {
            "importance": sum(one.score for one in found),
            "importance_turns": json.dumps([(one.score, one.low, one.high, one.gain) for one in found]),
        }
