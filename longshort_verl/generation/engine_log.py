# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The output of a starting engine: kept in a file, and in five lines if the engine cannot start."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from longshort_verl.config.compose import ConfigError
from longshort_verl.generation.settings import VLLMSettings

_MAX_CHARS = 300
_PREFIX = re.compile(r"(\x1b\[[0-9;]*m ?|\([^)]*pid=\d+\) ?|[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)*")
"""What vLLM's processes put before each line."""
_POINTS_ELSEWHERE = re.compile(r"root cause|background process|Engine core initialization failed")
"""Errors that report another process's error."""
_CURES = (
    (r"TORCHDYNAMO|torch\._dynamo|torch\._inductor|InductorError|vllm/compilation", "vllm.enforce_eager=true"),
    (r"max seq len|max_model_len|max_position_embeddings", "lower vllm.max_model_len"),
    (r"Free memory on device", "lower vllm.gpu_memory_utilization, or end other processes on the device"),
    (r"No available memory for the cache", "raise vllm.gpu_memory_utilization, or lower vllm.max_model_len"),
    (r"out of memory|OutOfMemory|Cannot allocate memory|: -9\b", "a smaller model, a larger device, or lower "
     "vllm.max_model_len and vllm.max_num_seqs; other processes can also hold the memory"),
    (r"tensor.parallel|divisible by", "another vllm.tensor_parallel_size"),
    (r"not a local folder|Repository Not Found|Repo id|does not appear to have|No such file", "another model path"),
)  # fmt: skip
"""Pattern of an error → cure. The first that matches is taken."""
_NO_CURE = "see the end of the log; `longshort doctor` checks the installation"

Started = TypeVar("Started")


def check_compilation(settings: VLLMSettings, *, on_cpu: bool) -> None:
    """Refuse a compiled model where the environment disables the compiler; vLLM's CPU engine fails so.

    Raises:
        ConfigError: with the cure.
    """
    if on_cpu and not settings.enforce_eager and os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        raise ConfigError(
            "vllm.enforce_eager is false and TORCHDYNAMO_DISABLE is 1 on a machine without a GPU: vLLM would compile "
            "the model with what the variable disables, and its engine would fail; set vllm.enforce_eager=true of each "
            "model, or TORCHDYNAMO_DISABLE=0"
        )


def start_engine(start: Callable[[], Started], model: str, settings: VLLMSettings) -> tuple[Started, Path]:
    """What ``start`` returns, and the file with the output of its processes, which they also write to later.

    Raises:
        ConfigError: ``start`` fails; five lines with the engine's last error, the cure and the log's path.
    """
    handle, name = tempfile.mkstemp(prefix="longshort-engine-", suffix=".log")
    log = Path(name)
    try:
        with _output_to(handle):
            return start(), log
    except Exception as error:  # an engine raises whatever its libraries raise
        raise ConfigError(_five_lines(error, log, model, settings)) from error


@contextmanager
def _output_to(handle: int) -> Iterator[None]:
    """The output of this process, and of those that it starts, goes to a file; the handle is closed at the end."""
    saved = [(number, os.dup(number)) for number in (1, 2)]
    try:
        for number, _ in saved:
            os.dup2(handle, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(handle)


def _five_lines(error: Exception, log: Path, model: str, settings: VLLMSettings) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    own = f"{type(error).__name__}: {error}"
    cause = own
    if _POINTS_ELSEWHERE.search(own) or not str(error):
        cause = last_error(text) or own
    # The log names the exit code of a killed process, the last error what Python raised.
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, f"{cause}\n{own}", re.IGNORECASE)), _NO_CURE)
    lengths = f"max_model_len {settings.max_model_len}, max_num_seqs {settings.max_num_seqs}"
    return "\n".join(
        [
            f"the engine of {model} did not start",
            f"  error: {' '.join(cause.split())[:_MAX_CHARS]}",
            f"  cure: {cure}",
            f"  vllm: {lengths}, dtype {settings.dtype}, enforce_eager {settings.enforce_eager}",
            f"  log: {log} ({len(text.splitlines())} lines)",
        ]
    )


def last_error(log: str) -> str:
    """The last exception of an engine's log that is not the report of another one; with its place if it has no text."""
    found, place, inside = "", "", False
    for line in log.splitlines():
        line = line[_PREFIX.match(line).end() :]  # pyright: ignore[reportOptionalMemberAccess]: matches every text
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line.startswith("  File "):
            place = line.strip()
        elif inside and line and not line.startswith((" ", "|", "+")):
            inside = False
            if not _POINTS_ELSEWHERE.search(line):
                found = line if ":" in line else f"{line} ({place})"
    return found
