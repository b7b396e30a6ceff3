# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a machine: devices, network, memory, disks, limits and environment.

A check is a plain function of measured values, so that tests can check machines that do not exist here.
:func:`machine_findings` measures this machine.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.version import Version

from longshort_verl.adapters.rl.memory import container_limit
from longshort_verl.files.shared_memory import leftovers

GIB = 2**30
RESOURCES: Mapping[str, tuple[float, float, str]] = {
    "memory": (0, 14 * GIB, "the smallest job needs 14 GiB: end other processes, or raise the container's limit"),
    "shared memory": (GIB, 10 * GIB, "verl recommends 10 GiB; docker run: --shm-size=10g, or --ipc=host"),
    "working folder": (2 * GIB, 20 * GIB, "set trainer.default_local_dir to a larger disk"),
    "Ray's folder": (2 * GIB, 20 * GIB, "export RAY_TMPDIR=… on another disk: Ray stops at 95 % in use"),
    "model cache": (2 * GIB, 20 * GIB, "export HF_HOME=… on a larger disk"),
    "open files": (0, 4096, "ulimit -n 65535"),
    "processes": (0, 8192, "ulimit -u 32768"),
    "threads": (0, 1, "export OMP_NUM_THREADS=1, or each of a job's dozen processes may start a thread per CPU"),
}
"""A job fails below the first amount, and may fail below the second; the cure. With Docker's 64 MiB of shared memory,
NCCL and vLLM end with "Bus error"."""
RAY_RESERVE = 0.05  # share of a disk that Ray leaves free
MIN_DRIVERS = {12: "525.60.13", 13: "580.65.06"}
"""Oldest Linux driver for a CUDA major version (NVIDIA, "CUDA Compatibility", minor version compatibility)."""
IDLE = 0.05  # share of a GPU's memory that the driver uses on an idle GPU

Status = Literal["ok", "warning", "failure", "n/a"]
"""ok; a job may run, but worse or not everywhere; a job cannot run; the check does not apply here."""


@dataclass(frozen=True)
class Finding:
    """Report of one check."""

    name: str
    status: Status
    found: str  # the value, and what is wrong with it
    cure: str = ""  # what to do; "" where there is nothing to do, or ``found`` contains it


Check = Callable[[], str | Finding | Iterable[Finding]]
"""Returns findings or, if it passed, a text."""


def run_checks(checks: Mapping[str, Check]) -> list[Finding]:
    """Findings of named checks.

    An exception becomes a failure, so that the other checks still run.
    """
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            result = check()
            result = Finding(name, "ok", result) if isinstance(result, str) else result
            findings += [result] if isinstance(result, Finding) else result
        except ValueError as error:  # our own messages contain the cure
            findings.append(Finding(name, "failure", one_line(error)))
        except Exception as error:  # a broken installation may raise anything
            found = f"could not be checked: {type(error).__name__}: {one_line(error)}"
            findings.append(Finding(name, "failure", found))
    return findings


def one_line(error: BaseException | str) -> str:
    """The first line of a message that has text, cut to a readable length."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
    return line if len(line) <= 300 else f"{line[:299]}…"


class GPU(NamedTuple):
    """One line of nvidia-smi."""

    name: str
    driver: str
    total: int  # MiB of memory
    used: int  # MiB in use by any process


def parse_nvidia_smi(text: str) -> list[GPU]:
    """GPUs of nvidia-smi's CSV: name, driver version, total and used MiB."""
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    cells = [line for line in lines if len(line) == 4 and line[2].isdigit() and line[3].isdigit()]
    return [GPU(name, driver, int(total), int(used)) for name, driver, total, used in cells]


def is_cpu(environment: Mapping[str, str]) -> bool:
    """Whether jobs run on the CPU with these environment variables."""
    return environment.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def check_devices(
    gpus: Sequence[GPU], seen: int, cuda: str | None, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """The GPUs of nvidia-smi against torch's ``device_count()`` and its build's CUDA version (None for the CPU)."""
    if is_cpu(environment):
        yield Finding("GPUs", "n/a", "VERL_PLATFORM=cpu: jobs run on the CPU")
        return
    if not gpus and not seen:
        cure = "on a CPU: VERL_PLATFORM=cpu and a recipe for it, such as recipes/tiny_cpu; on a cluster: RAY_ADDRESS"
        yield Finding("GPUs", "warning", "none on this machine", cure)
        return
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    cure = "see the driver below" if visible is None else f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it"
    if cuda is None:
        cure = "install torch with CUDA: pip install 'longshort-verl[vllm]'"
    status: Status = "failure" if not seen else "warning" if seen < len(gpus) else "ok"
    found = f"torch sees {seen} of {max(len(gpus), seen)} ({', '.join({gpu.name: None for gpu in gpus})})"
    yield Finding("GPUs", status, found, "" if status == "ok" else cure)
    if gpus and cuda is not None:
        driver, oldest = gpus[0].driver, MIN_DRIVERS.get(int(cuda.split(".")[0]), "0")
        old = Version(driver) < Version(oldest)
        cure = f"update the driver to {oldest} or newer, or install a torch for an older CUDA" if old else ""
        yield Finding("driver", "failure" if old else "ok", f"{driver}, torch is built for CUDA {cuda}", cure)
    if gpus and seen:
        busy = [f"GPU {i} {gpu.used} of {gpu.total} MiB" for i, gpu in enumerate(gpus) if gpu.used > IDLE * gpu.total]
        cure = "engines need it: end those processes (nvidia-smi), or set CUDA_VISIBLE_DEVICES to other devices"
        used = Finding("GPU memory", "warning", f"in use: {', '.join(busy)}", cure)
        yield used if busy else Finding("GPU memory", "ok", "free")


def check_proxies(environment: Mapping[str, str], hosts: Sequence[str]) -> Finding:
    """Whether a proxy would receive what a job's processes send to each other at these addresses of the node."""
    lowered = {key.lower(): value for key, value in environment.items() if value}
    proxies = {key.removesuffix("_proxy"): value for key, value in lowered.items() if key.endswith("_proxy")}
    if not {"http", "https", "all"} & proxies.keys():
        return Finding("proxies", "ok", "none")
    bypass = urllib.request.proxy_bypass_environment  # pyright: ignore[reportAttributeAccessIssue]: not in typeshed
    if caught := [host for host in hosts if not bypass(host, proxies)]:
        cure = f"export no_proxy={','.join([*filter(None, [proxies.get('no')]), *caught])}, and the same as NO_PROXY"
        return Finding("proxies", "warning", f"a proxy is set, and no_proxy lacks {', '.join(caught)}", cure)
    return Finding("proxies", "ok", f"set, with no_proxy={proxies.get('no')}")


def ray_folder(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps its sessions: ``ray._common.utils.get_default_ray_temp_dir`` on Linux."""
    return Path(environment.get("RAY_TMPDIR", environment.get("TMPDIR", "/tmp"))) / "ray"


def ray_address(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The cluster that a job without an address joins, and where that is set; None where the job starts its own."""
    if (named := environment.get("RAY_ADDRESS")) and named not in ("local", "auto"):
        return named, "RAY_ADDRESS"
    current = ray_folder(environment) / "ray_current_cluster"
    address = current.read_text().strip() if named != "local" and current.is_file() else ""
    # Ray ignores a dead cluster, unless RAY_ADDRESS names it.
    return (address, str(current)) if address and check_cluster(address, "").status == "ok" else None


def check_cluster(address: str, source: str) -> Finding:
    """Whether a Ray cluster answers at a ``host:port``, also with ``ray://`` before it; ``source`` sets the address."""
    host, _, port = (address.partition("://")[2] or address).rpartition(":")
    if not host or not port.isdigit():
        found = f"{source} is {address!r}, not a host:port"
        return Finding("Ray cluster", "failure", found, "give it as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except OSError as error:
        found = f"{source} is {address}, where nothing answers: {error.strerror or one_line(error)}"
        cure = "start it (ray start --head), or unset RAY_ADDRESS and ray_kwargs.ray_init.address: the job starts Ray"
        return Finding("Ray cluster", "failure", found, cure)
    return Finding("Ray cluster", "ok", f"{address} answers ({source})")


def check_resource(name: str, amount: float, found: str) -> Finding:
    """Whether there is enough of one of :data:`RESOURCES`, in bytes or as a count."""
    fails, warns, cure = RESOURCES[name]
    status: Status = "failure" if amount < fails else "warning" if amount < warns else "ok"
    return Finding(name, status, found, "" if status == "ok" else cure)


def free_memory(total: int, available: int, limit: int | None) -> tuple[int, str]:
    """Bytes of main memory that a job can use, and what they are; the container's limit is None without one."""
    found = f"{_gib(available)} of {_gib(total)} free"
    if limit is None or limit >= total:
        return available, found
    return min(available, limit), f"{found}, the container is limited to {_gib(limit)}"


def free_space(path: Path, *, reserve: float = 0.0) -> tuple[float, str]:
    """Bytes that a job can write to a folder's disk, without a reserved share of the disk, and what they are."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
    if not os.access(existing, os.W_OK):
        return 0, f"{existing} is not writable"
    usage = shutil.disk_usage(existing)
    return usage.free - reserve * usage.total, f"{_gib(usage.free)} free ({path})"


def check_leftovers(paths: Sequence[Path]) -> Finding:
    """Shared memory of jobs that crashed."""
    if not paths:
        return Finding("crashed jobs", "ok", "left no shared memory")
    size = sum(path.stat().st_blocks * 512 for path in paths)
    names = ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else "")
    cure = "the next job removes those that carry our name; to remove all: rm " + " ".join(map(str, paths))
    return Finding("crashed jobs", "warning", f"left {len(paths)} files with {_gib(size)} of memory: {names}", cure)


def soft_limit(kind: int) -> tuple[float, str]:
    """A soft limit of this shell, which a job's processes inherit, and what it is."""
    value = resource.getrlimit(kind)[0]
    return (math.inf, "unlimited") if value == resource.RLIM_INFINITY else (value, f"at most {value}")


def num_threads(environment: Mapping[str, str], *, needed: bool) -> tuple[float, str]:
    """Whether the threads of a process are limited, as is needed on a CPU, and to how many."""
    threads = environment.get("OMP_NUM_THREADS")
    return bool(threads) or not needed, f"OMP_NUM_THREADS is {threads or 'not set'}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB"


def machine_findings(environment: Mapping[str, str], torch: Mapping[str, Any], node: str) -> list[Finding]:
    """Findings of this machine, with torch's number of ``devices`` and ``cuda``, and the node's address for Ray."""
    import psutil

    def devices() -> Iterator[Finding]:
        query = ["--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits"]
        command = ["nvidia-smi", *query] if shutil.which("nvidia-smi") else ["true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return check_devices(parse_nvidia_smi(done.stdout), torch["devices"], torch["cuda"], environment)

    def cluster() -> Finding:
        joined = ray_address(environment)
        return check_cluster(*joined) if joined else Finding("Ray cluster", "n/a", "none; a job starts its own")

    memory, models = psutil.virtual_memory(), Path(environment.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    measures: dict[str, Callable[[], tuple[float, str]]] = {
        "memory": lambda: free_memory(memory.total, memory.available, container_limit()),
        "shared memory": lambda: free_space(Path("/dev/shm")),
        "working folder": lambda: free_space(Path.cwd()),
        "Ray's folder": lambda: free_space(ray_folder(environment), reserve=RAY_RESERVE),
        "model cache": lambda: free_space(models),
        "open files": lambda: soft_limit(resource.RLIMIT_NOFILE),
        "processes": lambda: soft_limit(resource.RLIMIT_NPROC),
        "threads": lambda: num_threads(environment, needed=not torch["devices"] or is_cpu(environment)),
    }
    return run_checks(
        {
            "GPUs": devices,
            "proxies": lambda: check_proxies(environment, ["127.0.0.1", "localhost", node]),
            "Ray cluster": cluster,
            "crashed jobs": lambda: check_leftovers(leftovers()),
            **{name: lambda n=name, m=measure: check_resource(n, *m()) for name, measure in measures.items()},
        }
    )
