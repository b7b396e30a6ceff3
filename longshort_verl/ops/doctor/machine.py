# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a machine: devices, network, memory, disks and limits, each with its cure.

A check is a plain function of measured values, so that tests can judge machines that are not here;
:func:`machine_findings` measures this one.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from longshort_verl.ops.doctor.findings import (
    GIB,
    Finding,
    Status,
    failure,
    gib,
    isolated,
    not_applicable,
    ok,
    one_line,
    warning,
)

MIN_DRIVERS = {12: "525.60.13", 13: "580.65.06"}
"""Oldest Linux driver for a CUDA major version (NVIDIA, "CUDA Compatibility", minor version compatibility)."""
MIN_SHM, GOOD_SHM = GIB, 10 * GIB
"""Docker's 64 MiB end NCCL and vLLM with "Bus error"; verl's documentation starts containers with 10 GiB."""
MIN_MEMORY = 14 * GIB
"""The quick start's job, which has the smallest models."""
MIN_DISK, GOOD_DISK = 2 * GIB, 20 * GIB
RAY_FULL = 0.95
"""Share of a full disk above which Ray creates no objects on it."""
MIN_NOFILE, GOOD_NOFILE, MIN_NPROC = 4096, 65535, 8192
BUSY_SHARE = 0.05
"""Share of a GPU's memory that the driver uses on an idle one."""
RAY_PORT = 6379


# ------------------------------------------------------------------------------------------ devices


@dataclass(frozen=True, kw_only=True)
class GPU:
    """One line of nvidia-smi."""

    name: str
    driver: str
    total: int
    """Memory, bytes."""
    used: int
    """Memory in use by any process, bytes."""


def run_nvidia_smi() -> list[GPU]:
    """The GPUs that the driver reports; none where nvidia-smi is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=20, check=False)
    return parse_nvidia_smi(done.stdout)


def parse_nvidia_smi(text: str) -> list[GPU]:
    """GPUs of nvidia-smi's CSV: name, driver version, total and used MiB."""
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    cells = [line for line in lines if len(line) == 4 and line[2].isdigit() and line[3].isdigit()]
    return [GPU(name=n, driver=d, total=int(total) << 20, used=int(used) << 20) for n, d, total, used in cells]


def check_devices(gpus: Sequence[GPU], seen: int, cuda: str | None, environment: Mapping[str, str]) -> list[Finding]:
    """The machine's GPUs, as the driver and as torch see them.

    Args:
        gpus: of nvidia-smi; empty without one.
        seen: ``torch.cuda.device_count()``.
        cuda: CUDA version of torch's build; None for a CPU build.
        environment: environment variables.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if environment.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        return [not_applicable("GPUs", "VERL_PLATFORM=cpu: jobs run on the CPU")]
    if not gpus and not seen:
        cure = "on a CPU: VERL_PLATFORM=cpu and a recipe for it, such as recipes/tiny_cpu; on a cluster: RAY_ADDRESS"
        return [warning("GPUs", "none on this machine", cure)]
    driver = _check_driver(gpus[0].driver, cuda) if gpus and cuda is not None else []
    if not seen:
        cure = f"see the driver below; torch is built for CUDA {cuda}"
        if cuda is None:
            cure = "install torch with CUDA: pip install 'longshort-verl[vllm]'"
        elif visible is not None:
            cure = f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it, or name devices that exist"
        return [failure("GPUs", f"the driver has {len(gpus)}, torch sees none", cure), *driver]
    kinds = ", ".join(dict.fromkeys(gpu.name for gpu in gpus)) or "nvidia-smi is missing"
    devices = ok("GPUs", f"torch sees {seen} ({kinds})")
    if seen < len(gpus):
        cure = f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it to use all"
        devices = warning("GPUs", f"torch sees {seen} of {len(gpus)} ({kinds})", cure)
    busy = [(i, gpu) for i, gpu in enumerate(gpus) if gpu.used > BUSY_SHARE * gpu.total]
    memory = [ok("GPU memory", f"{gib(min(gpu.total for gpu in gpus))}, free")] if gpus else []
    if busy:
        found = "; ".join(f"GPU {i}: {gib(gpu.used)} of {gib(gpu.total)} in use" for i, gpu in busy)
        cure = "engines need it free: end that process (nvidia-smi), or set CUDA_VISIBLE_DEVICES to other devices"
        memory = [warning("GPU memory", found, cure)]
    return [devices, *driver, *memory]


def _check_driver(driver: str, cuda: str) -> list[Finding]:
    oldest = MIN_DRIVERS.get(int(cuda.split(".")[0]))
    if oldest is not None and Version(driver) < Version(oldest):
        cure = f"update the driver to {oldest} or newer, or install a torch for an older CUDA"
        return [failure("driver", f"{driver} is too old for torch's CUDA {cuda}, which needs {oldest}", cure)]
    return [ok("driver", f"{driver}, torch is built for CUDA {cuda}")]


def check_flash_attention(installed: str | None, *, on_gpu: bool) -> Finding:
    """flash-attn, which verl's models use by default."""
    if not on_gpu:
        return not_applicable("flash-attn", "needed on GPUs only")
    if installed is None:
        cure = (
            "pip install --no-build-isolation flash-attn==2.8.3, or, slower, "
            "+actor_rollout_ref.model.override_config.attn_implementation=sdpa and "
            "actor_rollout_ref.model.use_remove_padding=false"
        )
        return warning("flash-attn", "not installed, and verl uses it by default", cure)
    return ok("flash-attn", installed)


# ------------------------------------------------------------------------------------------ network


def check_proxies(environment: Mapping[str, str], hosts: Sequence[str]) -> Finding:
    """Whether a proxy would receive what a job's processes send to each other at these addresses of the node."""
    lowered = {key.lower(): value for key, value in environment.items() if value}
    proxies = {key.removesuffix("_proxy"): value for key, value in lowered.items() if key.endswith("_proxy")}
    if not {"http", "https", "all"} & proxies.keys():
        return ok("proxies", "none")
    bypass = urllib.request.proxy_bypass_environment  # pyright: ignore[reportAttributeAccessIssue]: not in typeshed
    if caught := [host for host in hosts if not bypass(host, proxies)]:
        cure = f"export no_proxy={','.join([*filter(None, [proxies.get('no')]), *caught])}, and the same as NO_PROXY"
        return warning("proxies", f"a proxy is set, and no_proxy lacks {', '.join(caught)}", cure)
    return ok("proxies", f"set, with no_proxy={proxies.get('no')}")


def check_ray_address(address: str, source: str, *, timeout: float = 3.0) -> Finding:
    """Whether the cluster that a job would join answers; a ``host:port``, also with ``ray://`` before it."""
    host, _, port = (address.partition("://")[2] or address).rpartition(":")
    if not host or not port.isdigit():
        return failure("Ray cluster", f"{source} is {address!r}, not a host:port", f"give it as 10.0.0.1:{RAY_PORT}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError as error:
        reason = error.strerror or one_line(error)
        cure = "start it (ray start --head), or unset RAY_ADDRESS and ray_kwargs.ray_init.address: the job starts Ray"
        return failure("Ray cluster", f"{source} is {address}, where nothing answers: {reason}", cure)
    return ok("Ray cluster", f"{address} answers ({source})")


def ray_folder(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps its sessions: ``ray._common.utils.get_default_ray_temp_dir`` on Linux."""
    return Path(environment.get("RAY_TMPDIR", environment.get("TMPDIR", "/tmp"))) / "ray"


def ray_address(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The cluster that a job without an address joins, and where that is set; None where the job starts its own."""
    if (named := environment.get("RAY_ADDRESS")) and named not in ("local", "auto"):
        return named, "RAY_ADDRESS"
    current = ray_folder(environment) / "ray_current_cluster"
    if named != "local" and current.is_file() and (address := current.read_text().strip()):
        return address, str(current)
    return None


def outward_address() -> str | None:
    """This machine's address on its network, as Ray finds it; nothing is sent. None without a network."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.connect(("8.8.8.8", 80))
            return sending.getsockname()[0]
    except OSError:
        return None


# ------------------------------------------------------------------------------------------ memory, disk, limits


def check_shared_memory(total: int, free: int) -> Finding:
    """/dev/shm, bytes, which holds Ray's object store, NCCL's buffers and pushed weights."""
    name, found = "shared memory", f"{gib(free)} of {gib(total)} free in /dev/shm"
    cure = "in a container: docker run --shm-size=10g, or --ipc=host; else: mount -o remount,size=10g /dev/shm"
    if free < MIN_SHM:
        return failure(name, f"{found}: too little to start", cure)
    return warning(name, f"{found}; verl recommends 10 GiB", cure) if free < GOOD_SHM else ok(name, found)


def check_memory(total: int, available: int, limit: int | None) -> Finding:
    """Main memory and the container's limit, bytes; None without a limit."""
    found, usable = f"{gib(available)} of {gib(total)} free", available
    cure = "end other processes, or use a larger machine"
    if limit is not None and limit < total:
        found += f", the container is limited to {gib(limit)}"
        usable, cure = min(available, limit), "raise the container's limit (docker run --memory, or the pod's limits)"
    if usable < MIN_MEMORY:
        return warning("memory", f"{found}; the smallest job needs {gib(MIN_MEMORY)}", cure)
    return ok("memory", found)


def container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory limit of this container in bytes, by cgroup version 2 or 1; None without a limit."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return int(text)
    return None


def check_disk(name: str, path: Path, total: int, free: int, *, cure: str, for_ray: bool = False) -> Finding:
    """Free bytes of a folder that a job writes to."""
    found = f"{gib(free)} free ({path})"
    if for_ray and free < (1 - RAY_FULL) * total:
        return failure(name, f"more than {RAY_FULL:.0%} full ({path}): Ray creates no objects on it", cure)
    if free < MIN_DISK:
        return failure(name, found, cure)
    return warning(name, found, cure) if free < GOOD_DISK else ok(name, found)


def check_limits(open_files: int, processes: int) -> list[Finding]:
    """Soft limits of this shell, which a job's processes inherit."""
    findings = []
    for name, value, least, cure in (
        ("open files", open_files, MIN_NOFILE, f"ulimit -n {GOOD_NOFILE}"),
        ("processes", processes, MIN_NPROC, f"ulimit -u {4 * MIN_NPROC}"),
    ):
        unlimited = value == resource.RLIM_INFINITY
        found = "unlimited" if unlimited else f"at most {value}"
        findings.append(ok(name, found) if unlimited or value >= least else warning(name, found, cure))
    return findings


def check_environment(environment: Mapping[str, str], *, on_gpu: bool, num_cpus: int) -> list[Finding]:
    """Environment variables that break or slow a job."""
    name, findings = "environment", []
    if "OMP_NUM_THREADS" not in environment and not on_gpu:
        found = f"OMP_NUM_THREADS is not set: each of a job's dozen processes may start {num_cpus} threads"
        findings.append(warning(name, found, "export OMP_NUM_THREADS=1"))
    for key in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if on_gpu and "expandable_segments:true" in environment.get(key, "").lower():
            found = f"{key} has expandable_segments:True, which vLLM's sleep mode does not support"
            findings.append(warning(name, found, f"unset {key}: verl switches them around each push of weights"))
    return findings or [ok(name, "no variable that is known to break a job")]


# ------------------------------------------------------------------------------------------ this machine


def machine_findings(environment: Mapping[str, str], *, on_gpu: bool) -> list[Finding]:
    """Network, memory, disks and limits of this machine."""
    import psutil

    memory, ray = psutil.virtual_memory(), ray_folder(environment)
    models = Path(environment.get("HF_HOME", "~/.cache/huggingface")).expanduser()

    def ray_cluster() -> Finding:
        if joined := ray_address(environment):
            finding = check_ray_address(*joined)
            # Ray ignores a dead cluster, unless RAY_ADDRESS names it.
            if finding.status is Status.OK or joined[1] == "RAY_ADDRESS":
                return finding
        return not_applicable("Ray cluster", "none; a job starts its own")

    def shared_memory() -> Finding:
        if not Path("/dev/shm").is_dir():
            return not_applicable("shared memory", "no /dev/shm here")
        usage = shutil.disk_usage("/dev/shm")
        return check_shared_memory(usage.total, usage.free)

    def disk(name: str, path: Path, cure: str) -> Finding:
        existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
        if not os.access(existing, os.W_OK):
            return failure(name, f"{existing} is not writable", cure)
        usage = shutil.disk_usage(existing)
        return check_disk(name, path, usage.total, usage.free, cure=cure, for_ray=path == ray)

    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)]
    hosts = [host for host in ("127.0.0.1", "localhost", outward_address()) if host]
    checkpoints = "set trainer.default_local_dir to a larger disk"
    checks: list[tuple[str, Callable[[], Finding | Iterable[Finding]]]] = [
        ("proxies", lambda: check_proxies(environment, hosts)),
        ("Ray cluster", ray_cluster),
        ("memory", lambda: check_memory(memory.total, memory.available, container_limit())),
        ("shared memory", shared_memory),
        ("working folder", lambda: disk("working folder", Path.cwd(), checkpoints)),
        ("Ray's folder", lambda: disk("Ray's folder", ray, "export RAY_TMPDIR=… on a disk with room")),
        ("model cache", lambda: disk("model cache", models, "export HF_HOME=… on a larger disk")),
        ("limits", lambda: check_limits(*limits)),
        ("environment", lambda: check_environment(environment, on_gpu=on_gpu, num_cpus=os.cpu_count() or 1)),
    ]
    return [finding for name, check in checks for finding in isolated(name, check)]
