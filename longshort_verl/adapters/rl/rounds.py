# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's rounds (section 4.2): ``long_short.schedule=rounds``.

The pair at the end of each round is kept in ``<default_local_dir>/rounds/long-r<i>_short-r<j>``, by the finished rounds
of each role: both models, in the form of a checkpoint, and its validation in the form of ``longshort evaluate``. The
pair of the start, ``long-r0_short-r0``, has its validation alone; its models are those of the config. In a round the
learner's reference policy is its model in the pair before the round. A resumed run reads it from there, so nothing
deletes these folders.
"""

# verl binds a worker's methods to its group; type checkers cannot see that.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from longshort_verl.adapters.rl import checkpoints
from longshort_verl.adapters.rl.policies import PARTS, Policy
from longshort_verl.adapters.rl.settings import RoundsSettings
from longshort_verl.config.compose import ConfigError
from longshort_verl.evaluation.records import by_set, evaluation_results, write_evaluation

logger = logging.getLogger(__name__)


class Rounds:
    """The rounds of one run. The engines sleep during all calls but :meth:`write_validation`: models are loaded."""

    def __init__(self, settings: RoundsSettings, root: str):
        self.settings = settings
        self._root = Path(root).absolute() / "rounds"

    def begin(self, step: int, policies: Sequence[Policy]) -> None:
        """If a round begins with this step: its learner gets a new reference, optimizer and lr schedule."""
        if self.settings.before(step) != step - 1:
            return
        learner = self._learner(step, policies)
        self._load_reference(step, learner)
        learner.worker_group.reset_optimizer()
        logger.info("step %s: the next round of the %s role begins", step, learner.name)

    def end(self, step: int, policies: Sequence[Policy]) -> None:
        """If a round ends with this step: write both models."""
        if not self.settings.ends(step):
            return
        folder = self._folder(step)
        checkpoints.begin(folder)
        for policy in policies:
            policy.worker_group.save_model(str(folder / PARTS[policy.roles[0]]))
        checkpoints.complete(folder, {"step": step, "schedule": "rounds", "policies": "two", "pair": folder.name})

    def resume(self, step: int, policies: Sequence[Policy]) -> None:
        """After the checkpoint of a step is loaded: restore what belongs to its round."""
        if not self.settings.ends(step):
            self._load_reference(step + 1, self._learner(step + 1, policies))
        elif not checkpoints.is_complete(self._folder(step)):
            self.end(step, policies)  # the run was killed between its checkpoint and the round's folder

    def write_validation(self, step: int, records: Sequence[str]) -> None:
        """If a round ends with this step: write the validation's dialogues, records of ``longshort evaluate``."""
        if not self.settings.ends(step):
            return
        keys = ("set", "index", "problem", "gold", "sample")
        pair = sorted(map(json.loads, records), key=lambda record: [record[key] for key in keys])
        for of_set in by_set(pair).values():
            if len({(record["index"], record["sample"]) for record in of_set}) < len(of_set):
                # verl gives the index 0 to rows without one, and two files may hold one set.
                for number, record in enumerate(of_set):
                    record.update(index=number, sample=0)
        settings = {"pair": self.settings.name(step), "step": step}
        write_evaluation(self._folder(step), {"pair": pair}, {"pair": evaluation_results(pair, ())}, settings)

    def _folder(self, step: int) -> Path:
        return self._root / self.settings.name(step)

    def _learner(self, step: int, policies: Sequence[Policy]) -> Policy:
        return next(policy for policy in policies if self.settings.role(step) in policy.roles)

    def _load_reference(self, step: int, learner: Policy) -> None:
        """Load the learner's reference for the round of ``step``; that of the first round is its start model."""
        before = self.settings.before(step)
        if not learner.use_reference_policy or before == 0:
            return
        folder = self._folder(before)
        part = PARTS[learner.roles[0]]
        fault = (
            checkpoints.damage(folder, f"{part}/*") if checkpoints.is_complete(folder) else "not all of it was written"
        )
        if fault:
            raise ConfigError(
                f"step {step} needs the {learner.name} role's reference policy from {folder}, which is no complete "
                f"pair ({fault}); restore that folder, or start anew with trainer.resume_mode=disable"
            )
        learner.worker_group.load_reference(str(folder / part))
