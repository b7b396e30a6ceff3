# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a training run of verl, SFT or RL: a Hydra callback that the base YAMLs name.

The run is an artefact at ``trainer.default_local_dir`` (:class:`~longshort_verl.files.manifest.Artefact`): a finished
run ends before Ray or a model starts, an interrupted one resumes from verl's own checkpoint, and one with other
settings than its folder's or its checkpoint's is refused, as is one in a folder that another job uses. Without a
checkpoint, or with ``trainer.resume_mode=disable``, a run begins anew.
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

from longshort_verl.adapters.metrics_file import name_metrics_file
from longshort_verl.adapters.rl import checkpoints, notice
from longshort_verl.config.compose import ConfigError
from longshort_verl.files.atomic import disk_message
from longshort_verl.files.lock import LockError
from longshort_verl.files.manifest import Artefact, ChangedError, ManifestError, output_lock
from longshort_verl.files.shared_memory import remove_leftovers
from longshort_verl.generation.model_files import require_files

_INPUTS = ("*.model.path", "model.path", "*model.tokenizer_path", "data.train_files", "data.val_files")
_MODELS = ("model", "actor_rollout_ref.model", "long_short.short.model")
MAY_CHANGE = (
    *_INPUTS,  # compared by content
    # How long, how often, what is logged and kept.
    *(f"trainer.{name}" for name in ("total_*", "*_freq", "val_only", "val_before_train", "resume_*", "logger*")),
    *(f"trainer.{name}" for name in ("log_*", "project_name", "experiment_name", "default_*_dir", "*_data_dir")),
    *("trainer.max_*ckpt_to_keep", "trainer.esi_*", "global_profiler.*", "*.profiler.*", "ray_kwargs.*"),
    # How the work is spread.
    *("trainer.nnodes", "trainer.n_gpus_per_node", "*offload*", "*gpu_memory_utilization"),
    *("*micro_batch_size*", "*max_token_len_per_gpu", "*.rollout_stall_s", "long_short.save_on_sigterm"),
)
"""Settings that an interrupted run may resume with."""


class ManifestCallback(Callback):
    """Opens the run's artefact before anything starts, and finishes it where the run ends well."""

    def __init__(self, allow_changes: bool) -> None:
        """``allow_changes``: resume under other settings; each is logged."""
        self._allow_changes = allow_changes

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process where the run is finished, was begun with other settings, or cannot be resumed or written.

        Hydra turns an exception of a callback into a warning and continues, hence ``SystemExit``.
        """
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        if "v1" in config.trainer and "longshort_verl.adapters.plugin" not in sys.modules:
            # On PYTHONPATH alone, say; the job would end later, in another process, with "Unknown trainer".
            sys.exit("longshort: verl did not load longshort_verl as its plugin; `longshort doctor` says why")
        try:
            self._artefact = self._open(config, Path(config.trainer.default_local_dir))
        except ChangedError as error:
            sys.exit(f"longshort: {error} To resume anyway: hydra.callbacks.manifest.allow_changes=true")
        except (ManifestError, LockError, ConfigError) as error:
            sys.exit(f"longshort: {error}")
        except OSError as error:
            sys.exit(f"longshort: {disk_message(error) or error}")
        if self._artefact.finished:
            print(self._artefact.nothing_to_do, flush=True)
            sys.exit(0)
        try:
            for path in filter(None, (OmegaConf.select(config, f"{name}.path") for name in _MODELS)):
                require_files(str(path))
        except ConfigError as error:
            sys.exit(f"longshort: {error}")
        out = Path(config.trainer.default_local_dir)
        name_metrics_file(config.trainer, out)
        notice.listen(out, save=bool(OmegaConf.select(config, "long_short.save_on_sigterm")))
        # Hydra calls nothing where Ctrl-C ends the job.
        atexit.register(self._close, out)

    def _open(self, config: DictConfig, out: Path) -> Artefact:
        trainer, reads_only, lock = config.trainer, os.environ.get("RANK", "0") != "0", output_lock(out)
        tracker = out / checkpoints.TRACKER
        checkpoint, saved = tracker if tracker.exists() and trainer.resume_mode != "disable" else None, None
        if not reads_only:
            remove_leftovers()
            lock.take()  # before a checkpoint that another job is writing is taken for a damaged one
            atexit.register(lock.release)
            # SFT takes the path under "auto" too.
            named = trainer.resume_mode == "resume_path" or "cold_start" in config
            path = trainer.get("resume_from_path") if named else None
            checkpoint = checkpoints.to_resume(out, trainer.resume_mode, path)
            if checkpoint and checkpoints.is_complete(checkpoint):
                saved = checkpoints.read_mark(checkpoint).get("run")
        artefact = Artefact(
            out,
            config=OmegaConf.to_container(config, resolve=True),
            inputs=dict(_inputs(config)),
            may_change=MAY_CHANGE,
            anew=checkpoint is None or not tracker.exists(),
            resumed=saved,
            refuse=not self._allow_changes,
            read_only=reads_only,
            lock=lock,
        )
        return artefact.__enter__()

    def _close(self, out: Path) -> None:
        try:
            self._artefact.__exit__()
        except OSError as error:
            print(f"longshort: {disk_message(error) or error}", file=sys.stderr, flush=True)
        if self._artefact.manifest["finished"] or os.environ.get("RANK", "0") != "0":
            return
        tracker = out / checkpoints.TRACKER
        step = tracker.read_text().strip() if tracker.exists() else ""
        kept = f"checkpoint global_step_{step} is kept, from which the same command resumes"
        print(f"longshort: {out} is not finished: {kept if step else 'no checkpoint yet'}", file=sys.stderr, flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Finish the artefact, unless the job failed or ended before its time."""
        if job_return.status is JobStatus.COMPLETED:
            if notice.given(Path(config.trainer.default_local_dir)):
                sys.exit(notice.STATUS)
            self._artefact.finish()


def _inputs(config: DictConfig) -> Iterator[tuple[str, str]]:
    for name in _MODELS:
        for key in ("path", "tokenizer_path"):
            if path := OmegaConf.select(config, f"{name}.{key}"):
                yield f"{name}.{key}", str(path)
    for name in ("train_files", "val_files"):
        files = config.data[name] or []
        for number, path in enumerate([files] if isinstance(files, str) else files):
            yield f"data.{name}.{number}", str(path)
