# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a training run of verl, SFT or RL: a Hydra callback that the base YAMLs name.

The run is an artefact at ``trainer.default_local_dir`` (:class:`~longshort_verl.files.manifest.Artefact`): a finished
run ends before Ray or a model starts, an interrupted one resumes from verl's own checkpoint, and one with other
settings is refused. Without a checkpoint, or with ``trainer.resume_mode=disable``, a run begins anew.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from longshort_verl.files.manifest import Artefact, ManifestError

_INPUTS = ("*.model.path", "model.path", "data.train_files", "data.val_files")
_MODELS = ("model", "actor_rollout_ref.model", "long_short.short.model")
MAY_CHANGE = (
    *_INPUTS,  # compared by content
    # How long, how often, what is logged and kept.
    *(f"trainer.{name}" for name in ("total_*", "*_freq", "val_only", "val_before_train", "resume_*", "logger*")),
    *(f"trainer.{name}" for name in ("log_*", "project_name", "experiment_name", "default_*_dir", "*_data_dir")),
    *("trainer.max_*ckpt_to_keep", "trainer.esi_*", "global_profiler.*", "*.profiler.*", "ray_kwargs.*"),
    # How the work is spread.
    *("trainer.nnodes", "trainer.n_gpus_per_node", "data.*num_workers", "*offload*", "*gpu_memory_utilization"),
    *("*micro_batch_size*", "*max_token_len_per_gpu"),
)
"""Settings that an interrupted run may resume with."""


class ManifestCallback(Callback):
    """Opens the run's artefact before anything starts, and finishes it where the run ends well."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process where the run is finished, or was begun with other settings.

        Hydra turns an exception of a callback into a warning and continues, hence ``SystemExit``.
        """
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        out = Path(config.trainer.default_local_dir)
        resumes = config.trainer.resume_mode != "disable" and (out / "latest_checkpointed_iteration.txt").exists()
        self._artefact = Artefact(
            out,
            config=OmegaConf.to_container(config, resolve=True),
            inputs=dict(_inputs(config)),
            may_change=MAY_CHANGE,
            anew=not resumes,
            read_only=os.environ.get("RANK", "0") != "0",
        )
        try:
            self._artefact.__enter__()
        except ManifestError as error:
            sys.exit(f"longshort: {error}")
        if self._artefact.finished:
            print(self._artefact.nothing_to_do, flush=True)
            sys.exit(0)
        # Hydra calls nothing where Ctrl-C ends the job.
        atexit.register(self._artefact.__exit__)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Finish the artefact, unless the job failed."""
        if job_return.status is JobStatus.COMPLETED:
            self._artefact.finish()


def _inputs(config: DictConfig) -> Iterator[tuple[str, str]]:
    for name in _MODELS:
        if path := OmegaConf.select(config, f"{name}.path"):
            yield f"{name}.path", str(path)
    for name in ("train_files", "val_files"):
        files = config.data[name] or []
        for number, path in enumerate([files] if isinstance(files, str) else files):
            yield f"data.{name}.{number}", str(path)
