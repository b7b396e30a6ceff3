# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""An engine that cannot start: five lines, and its whole output in a file.

A process that fails as vLLM's do stands for the engine: it writes its trace with vLLM's prefixes, and its parent raises
an error that points to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longshort_verl.config.compose import ConfigError
from longshort_verl.generation.engine_log import check_compilation, last_error, start_engine
from longshort_verl.generation.settings import VLLMSettings

SETTINGS = VLLMSettings(
    max_model_len=4096,
    dtype="bfloat16",
    tensor_parallel_size=1,
    gpu_memory_utilization=0.9,
    kv_cache_memory_bytes=None,
    max_num_seqs=64,
    block_size=None,
    enforce_eager=False,
    seed=0,
)
CORE = """
import sys, traceback
def load(depth):
    if depth:
        return load(depth - 1)
    {cause}
try:
    load(30)
except BaseException as error:
    for line in ["EngineCore failed to start.", *traceback.format_exc().splitlines()]:
        print(f"(EngineCore pid=7) ERROR 07-22 10:00:00 [v1/engine/core.py:1020] {{line}}")
    sys.stdout.flush()
    raise
"""
"""vLLM's engine process: it logs its trace, and Python prints it once more."""


def failing(cause):
    def start():
        ended = subprocess.run([sys.executable, "-c", CORE.format(cause=cause)], check=False)
        codes = {"core": ended.returncode}
        raise RuntimeError(f"Engine core initialization failed. See root cause above. Failed core proc(s): {codes}")

    return start


def refused(start, capfd):
    """The five lines, the log, and what reached the terminal."""
    with pytest.raises(ConfigError) as refusal:
        start_engine(start, "some/model", SETTINGS)
    lines = str(refusal.value).splitlines()
    assert len(lines) == 5
    path = Path(lines[4].removeprefix("  log: ").rpartition(" (")[0])
    log = path.read_text()
    path.unlink()
    assert lines[4] == f"  log: {path} ({len(log.splitlines())} lines)"
    return lines, log, "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("cause", "error", "cure"),
    [
        ("raise ValueError('Free memory on device (1/80 GiB) is less than desired')",
         "ValueError: Free memory on device (1/80 GiB) is less than desired",
         "lower vllm.gpu_memory_utilization, or end other processes on the device"),
        ("raise ValueError('No available memory for the cache blocks.')",
         "ValueError: No available memory for the cache blocks.",
         "raise vllm.gpu_memory_utilization, or lower vllm.max_model_len"),
        ("raise ValueError('the max seq len (9) is larger than the KV cache')",
         "ValueError: the max seq len (9) is larger than the KV cache", "lower vllm.max_model_len"),
        ("raise MemoryError('CUDA out of memory. Tried to allocate 2 GiB')",
         "MemoryError: CUDA out of memory. Tried to allocate 2 GiB",
         "a smaller model, a larger device, or lower vllm.max_model_len and vllm.max_num_seqs; other processes can "
         "also hold the memory"),
        ("class InductorError(Exception): pass\n    raise InductorError('no compiler')",
         "load.<locals>.InductorError: no compiler", "vllm.enforce_eager=true"),
        ("raise OSError('x is not a local folder and is not a valid model identifier')",
         "OSError: x is not a local folder and is not a valid model identifier", "another model path"),
        ("raise KeyError('rope')", "KeyError: 'rope'",
         "see the end of the log; `longshort doctor` checks the installation"),
    ],
)  # fmt: skip
def test_a_process_that_fails_at_its_start_is_five_lines(cause, error, cure, capfd):
    lines, log, shown = refused(failing(cause), capfd)
    assert lines[:4] == [
        "the engine of some/model did not start",
        f"  error: {error}",
        f"  cure: {cure}",
        "  vllm: max_model_len 4096, max_num_seqs 64, dtype bfloat16, enforce_eager False",
    ]
    assert log.count("Traceback (most recent call last)") == 2
    assert shown == ""


def test_an_error_without_a_text_says_its_place(capfd):
    lines, _, _ = refused(failing("assert 1 > 2"), capfd)
    assert lines[1] == '  error: AssertionError (File "<string>", line 6, in load)'


def test_a_killed_process_is_told_by_its_code(capfd):
    lines, _, _ = refused(failing("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), capfd)
    assert lines[1].startswith("  error: RuntimeError: Engine core initialization failed.")
    assert lines[1].endswith("{'core': -9}")
    assert lines[2].startswith("  cure: a smaller model, a larger device")


def test_an_error_of_this_process_is_its_own(capfd):
    def start():
        raise ValueError("1 validation error for ModelConfig\n  max_model_len (9) is greater than 8 " + 400 * "x")

    lines, log, _ = refused(start, capfd)
    assert lines[1].startswith("  error: ValueError: 1 validation error for ModelConfig max_model_len (9) is greater")
    assert len(lines[1]) == len("  error: ") + 300
    assert lines[2] == "  cure: lower vllm.max_model_len"
    assert log == ""


def test_a_started_engine_keeps_its_log_and_gives_the_output_back(capfd):
    engine, log = start_engine(lambda: os.system("echo loading; echo weights >&2"), "some/model", SETTINGS)
    print("afterwards", flush=True)
    os.system("echo and others")
    assert (engine, sorted(log.read_text().split())) == (0, ["loading", "weights"])
    log.unlink()
    assert capfd.readouterr().out == "afterwards\nand others\n"


def test_reports_of_another_error_are_not_the_last_error():
    log = """\x1b[31m(Worker pid=3)\x1b[0m ERROR 07-22 10:00:00 [x.py:1] Traceback (most recent call last):
(Worker pid=3) ERROR 07-22 10:00:00 [x.py:1]   File "a.py", line 1, in f
(Worker pid=3) ERROR 07-22 10:00:00 [x.py:1] ValueError: the cause
Traceback (most recent call last):
  File "b.py", line 2, in g
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
"""
    assert last_error(log) == "ValueError: the cause"
    assert last_error("INFO 07-22 10:00:00 [x.py:1] nothing failed") == ""


@pytest.mark.parametrize(
    ("on_cpu", "enforce_eager", "disabled"), [(c, e, d) for c in (1, 0) for e in (1, 0) for d in (1, 0)]
)
def test_a_compiled_model_without_compiler_is_refused_before_the_engine(monkeypatch, on_cpu, enforce_eager, disabled):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", str(disabled))
    settings = VLLMSettings(**{**vars(SETTINGS), "enforce_eager": bool(enforce_eager)})
    if (on_cpu, enforce_eager, disabled) != (1, 0, 1):
        check_compilation(settings, on_cpu=bool(on_cpu))
        return
    with pytest.raises(ConfigError) as refusal:
        check_compilation(settings, on_cpu=True)
    assert str(refusal.value) == (
        "vllm.enforce_eager is false and TORCHDYNAMO_DISABLE is 1 on a machine without a GPU: vLLM would compile the "
        "model with what the variable disables, and its engine would fail; set vllm.enforce_eager=true of each model, "
        "or TORCHDYNAMO_DISABLE=0"
    )
