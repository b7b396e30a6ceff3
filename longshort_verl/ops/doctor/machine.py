# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a machine before a job meets it: checks of `longshort doctor`, each with its cure.

A check is a plain function of what was found, so that a machine that does not exist here can be judged as well; the
functions that look at the real one are at the end. What needs verl or a config is in ``adapters/doctor.py``.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from rich.markup import escape
from rich.table import Table

from longshort_verl.ops.doctor.versions import TESTED

GIB = 2**30
_ONE_LINE = 300

MIN_DRIVERS = {12: "525.60.13", 13: "580.65.06"}
"""Oldest Linux driver that runs a CUDA major version (NVIDIA, "CUDA Compatibility", minor version compatibility)."""

MIN_SHM = GIB
"""Docker's 64 MiB ends NCCL and vLLM with "Bus error"."""
GOOD_SHM = 10 * GIB
"""What verl's own documentation starts containers with (``--shm-size="10g"``)."""
MIN_MEMORY = 14 * GIB
"""The quick start's job, which has the smallest models that there are."""
GOOD_DISK, MIN_DISK = 20 * GIB, 2 * GIB
RAY_FULL = 0.95
"""Share of a full disk above which Ray stops making objects on it."""
GOOD_NOFILE = 65535
"""What Ray asks for; each raylet, worker and socket takes some."""
MIN_NOFILE = 4096
MIN_NPROC = 8192
MAX_SOCKET_PATH = 107
"""Bytes of an AF_UNIX path on Linux."""
RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_1000000/sockets/plasma_store"
"""The longest that Ray puts under its folder to make a socket."""
BUSY_SHARE = 0.05
"""Share of a GPU's memory that is in use on an idle one: the driver's own."""
RAY_PORT = 6379


class Status(str, Enum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    NOT_APPLICABLE = "n/a"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    name: str
    """What was looked at."""
    status: Status
    """How it is."""
    found: str
    """What was found, with its value."""
    cure: str = ""
    """What to do about it; "" where nothing is to be done or ``found`` says it."""


@dataclass(frozen=True, kw_only=True)
class GPU:
    """One line of nvidia-smi."""

    name: str
    """The model."""
    driver: str
    """Version of the driver."""
    total: int
    """Memory, bytes."""
    used: int
    """Memory in use by whoever it is, bytes."""


def isolated(name: str, check: Callable[[], Finding | Iterable[Finding]]) -> list[Finding]:
    """The findings of a check; one that raises is a failure itself, so that the others go on."""
    try:
        found = check()
        return [found] if isinstance(found, Finding) else list(found)
    except ValueError as error:  # our own refusals hold the cure
        return [Finding(name=name, status=Status.FAILURE, found=one_line(error))]
    except Exception as error:  # a check must not end the others, whatever a machine has in store for it
        said = f"{type(error).__name__}: {one_line(error)}"
        return [Finding(name=name, status=Status.FAILURE, found=f"could not be checked: {said}")]


def one_line(error: BaseException | str) -> str:
    """The first line of a message that says something, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else repr(error)
    return line if len(line) <= _ONE_LINE else f"{line[: _ONE_LINE - 1]}…"


# ------------------------------------------------------------------------------------------ versions


def check_python(running: str, allowed: SpecifierSet) -> Finding:
    """The Python of this process, ``3.11.7``, against our range, which is verl's."""
    name, tested = "Python", sorted({version for one in TESTED for version in one.python})
    if not allowed.contains(running):
        cure = f"make an environment with Python {tested[-1]}"
        return Finding(name=name, status=Status.FAILURE, found=f"{running} is not in verl's range {allowed}", cure=cure)
    if ".".join(running.split(".")[:2]) not in tested:
        return _untested(name, running, ", ".join(tested), "")
    return Finding(name=name, status=Status.OK, found=running)


def check_package(
    name: str, installed: str | None, allowed: SpecifierSet, tested: str | None, *, cure: str = ""
) -> Finding:
    """One distribution against what may be installed and what ran.

    Args:
        name: the distribution.
        installed: its version; None where there is none.
        allowed: what our own and verl's requirements allow together.
        tested: the version that ran.
        cure: how to install it, where that is not ``pip install``.
    """
    wanted = f"=={tested}" if tested else str(allowed)
    cure = cure or f"pip install '{name}{wanted}'"
    if installed is None:
        return Finding(name=name, status=Status.FAILURE, found="not installed", cure=cure)
    if not allowed.contains(installed, prereleases=True):
        said = f"{installed} is not in the range {allowed}"
        return Finding(name=name, status=Status.FAILURE, found=said, cure=cure)
    # "+cu130" names a build of the same version.
    if tested is not None and Version(installed).public != tested:
        return _untested(name, installed, tested, cure)
    return Finding(name=name, status=Status.OK, found=installed)


def _untested(name: str, installed: str, tested: str, cure: str) -> Finding:
    said = f"{installed} may work; what was run is {tested}"
    return Finding(name=name, status=Status.WARNING, found=said, cure=cure)


# ------------------------------------------------------------------------------------------ devices


def parse_nvidia_smi(text: str) -> list[GPU]:
    """GPUs of ``nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader,nounits``."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[2].isdigit() and cells[3].isdigit():
            mebibytes = [int(cell) * 2**20 for cell in cells[2:]]
            found.append(GPU(name=cells[0], driver=cells[1], total=mebibytes[0], used=mebibytes[1]))
    return found


def check_devices(gpus: Sequence[GPU], seen: int, cuda: str | None, environment: Mapping[str, str]) -> list[Finding]:
    """The machine's GPUs, as the driver and as torch see them.

    Args:
        gpus: what nvidia-smi tells; empty where there is none.
        seen: ``torch.cuda.device_count()``.
        cuda: CUDA version of torch's build; None for a CPU build.
        environment: environment variables.
    """
    name = "GPUs"
    if environment.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        return [Finding(name=name, status=Status.NOT_APPLICABLE, found="VERL_PLATFORM=cpu: jobs run on the CPU")]
    if not gpus and not seen:
        return [
            Finding(
                name=name,
                status=Status.WARNING,
                found="none on this machine",
                cure="on the CPU: VERL_PLATFORM=cpu and a recipe on longshort_rl_cpu, such as recipes/tiny_cpu; on a "
                "cluster: RAY_ADDRESS, or run this on one of its nodes",
            )
        ]
    if not seen:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if cuda is None:
            cure = "install torch with CUDA: pip install 'longshort-verl[vllm]'"
        elif visible is not None:
            cure = f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it, or name devices that exist"
        else:
            cure = f"see the driver below; torch is built for CUDA {cuda}"
        said = f"the driver has {len(gpus)}, torch sees none of them"
        return [Finding(name=name, status=Status.FAILURE, found=said, cure=cure), *_check_driver(gpus, cuda)]
    kinds = ", ".join(dict.fromkeys(gpu.name for gpu in gpus)) or "no nvidia-smi to name them"
    found = [Finding(name=name, status=Status.OK, found=f"torch sees {seen} ({kinds})")]
    if gpus and seen < len(gpus):
        said = f"torch sees {seen} of {len(gpus)} ({kinds})"
        cure = f"CUDA_VISIBLE_DEVICES is {environment.get('CUDA_VISIBLE_DEVICES')!r}; unset it to use all"
        found = [Finding(name=name, status=Status.WARNING, found=said, cure=cure)]
    return [*found, *_check_driver(gpus, cuda), *_check_gpu_memory(gpus)]


def _check_driver(gpus: Sequence[GPU], cuda: str | None) -> list[Finding]:
    if not gpus or cuda is None:
        return []
    driver, major = gpus[0].driver, int(cuda.split(".")[0])
    oldest = MIN_DRIVERS.get(major)
    if oldest is not None and Version(driver) < Version(oldest):
        said = f"{driver} is too old for torch's CUDA {cuda}, which needs {oldest}"
        cure = f"update the driver to {oldest} or newer, or install a torch that is built for an older CUDA"
        return [Finding(name="driver", status=Status.FAILURE, found=said, cure=cure)]
    return [Finding(name="driver", status=Status.OK, found=f"{driver}, torch is built for CUDA {cuda}")]


def _check_gpu_memory(gpus: Sequence[GPU]) -> list[Finding]:
    busy = [(number, gpu) for number, gpu in enumerate(gpus) if gpu.used > BUSY_SHARE * gpu.total]
    if not gpus:
        return []
    if not busy:
        return [Finding(name="GPU memory", status=Status.OK, found=f"{_gib(min(gpu.total for gpu in gpus))}, free")]
    said = "; ".join(f"GPU {number}: {_gib(gpu.used)} of {_gib(gpu.total)} in use" for number, gpu in busy)
    cure = (
        "see nvidia-smi for whose it is; engines take gpu_memory_utilization of the whole device, and need it free: "
        "end that process, or choose other devices with CUDA_VISIBLE_DEVICES"
    )
    return [Finding(name="GPU memory", status=Status.WARNING, found=said, cure=cure)]


def check_flash_attention(installed: str | None, *, on_gpu: bool) -> Finding:
    """flash-attn, which verl's models ask for unless they are told otherwise."""
    name = "flash-attn"
    if not on_gpu:
        return Finding(name=name, status=Status.NOT_APPLICABLE, found="needed on GPUs alone")
    if installed is None:
        return Finding(
            name=name,
            status=Status.WARNING,
            found="not installed, and verl's default asks for it",
            cure="pip install --no-build-isolation flash-attn==2.8.3, or, slower, "
            "+actor_rollout_ref.model.override_config.attn_implementation=sdpa and "
            "actor_rollout_ref.model.use_remove_padding=false",
        )
    return Finding(name=name, status=Status.OK, found=installed)


# ------------------------------------------------------------------------------------------ network


def check_port(port: int, host: str, *, why: str, cure: str) -> Finding:
    """Whether a port is free on this machine."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding(name=f"port {port}", status=Status.WARNING, found=f"taken; {why}", cure=cure)
        raise
    return Finding(name=f"port {port}", status=Status.OK, found=f"free; {why}")


def check_loopback() -> Finding:
    """Whether processes can reach each other here, and what ``localhost`` means."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
    for family, kind, _, _, address in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM):
        try:
            with socket.socket(family, kind) as listening:
                listening.bind(address)
        except OSError as error:
            return Finding(
                name="loopback",
                status=Status.WARNING,
                found=f"localhost is {address[0]}, which cannot be listened on: {error.strerror}",
                cure="remove that line of /etc/hosts, or enable IPv6: servers may come up where clients do not look",
            )
    return Finding(name="loopback", status=Status.OK, found="127.0.0.1 and localhost can be listened on")


def check_node_address(hostname: str, resolved: str | None, outward: str | None, *, loopback_only: bool) -> Finding:
    """Which address Ray takes for this node.

    Args:
        hostname: this machine's name.
        resolved: what the name resolves to; None where it does not.
        outward: the address that traffic leaves by; None without a network.
        loopback_only: whether Ray is told to stay on loopback (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0).
    """
    name = "node address"
    if loopback_only:
        return Finding(name=name, status=Status.OK, found="127.0.0.1 (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0)")
    if outward is None and resolved is None:
        return Finding(
            name=name,
            status=Status.WARNING,
            found=f"there is no network, and the name {hostname!r} has no address",
            cure=f"add '127.0.0.1 {hostname}' to /etc/hosts; one machine: RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0",
        )
    return Finding(name=name, status=Status.OK, found=f"{outward or resolved} ({hostname})")


def check_proxies(environment: Mapping[str, str], hosts: Sequence[str]) -> Finding:
    """Whether a proxy would get what processes of a job say to each other.

    Args:
        environment: environment variables.
        hosts: addresses of this node.
    """
    lowered = {key.lower(): value for key, value in environment.items() if value}
    proxies = {key.removesuffix("_proxy"): value for key, value in lowered.items() if key.endswith("_proxy")}
    if not {"http", "https", "all"} & proxies.keys():
        return Finding(name="proxies", status=Status.OK, found="none")
    bypass = urllib.request.proxy_bypass_environment  # pyright: ignore[reportAttributeAccessIssue]: not in typeshed
    swallowed = [host for host in hosts if not bypass(host, proxies)]
    if swallowed:
        return Finding(
            name="proxies",
            status=Status.WARNING,
            found=f"a proxy is set, and no_proxy leaves out {', '.join(swallowed)}",
            cure=f"export no_proxy={','.join([*filter(None, [proxies.get('no')]), *swallowed])}, also as NO_PROXY",
        )
    return Finding(name="proxies", status=Status.OK, found=f"set, with no_proxy={proxies.get('no')}")


def check_ray_address(address: str, source: str, *, timeout: float = 3.0) -> Finding:
    """Whether the cluster that a job would join answers; a ``host:port``, also with ``ray://`` before it."""
    name, plain = "Ray cluster", address.partition("://")[2] or address
    host, _, port = plain.rpartition(":")
    if not host or not port.isdigit():
        said = f"{source} is {address!r}, which is no host:port"
        return Finding(name=name, status=Status.FAILURE, found=said, cure=f"give it as 10.0.0.1:{RAY_PORT}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError as error:
        return Finding(
            name=name,
            status=Status.FAILURE,
            found=f"{source} is {address}, where nothing answers: {error.strerror or one_line(error)}",
            cure="start it (ray start --head), or let the job start its own: unset RAY_ADDRESS and leave "
            "ray_kwargs.ray_init.address out",
        )
    return Finding(name=name, status=Status.OK, found=f"{address} answers ({source})")


# ------------------------------------------------------------------------------------------ memory, disk, limits


def check_shared_memory(total: int, free: int) -> Finding:
    """/dev/shm, bytes: Ray's object store, NCCL and pushed weights live there."""
    name, said = "shared memory", f"{_gib(free)} of {_gib(total)} free in /dev/shm"
    cure = "in a container: docker run --shm-size=10g, or --ipc=host; else: mount -o remount,size=10g /dev/shm"
    if total < MIN_SHM or free < MIN_SHM:
        return Finding(name=name, status=Status.FAILURE, found=f"{said}: too little to start", cure=cure)
    if free < GOOD_SHM:
        return Finding(name=name, status=Status.WARNING, found=f"{said}; verl's documentation has 10 GiB", cure=cure)
    return Finding(name=name, status=Status.OK, found=said)


def check_memory(total: int, available: int, limit: int | None) -> Finding:
    """Main memory, bytes, and what the container may have of it; None without a limit."""
    said = f"{_gib(available)} of {_gib(total)} free"
    usable, cure = available, "end what else runs, or give the job a larger machine"
    if limit is not None and limit < total:
        said += f", and the container may have {_gib(limit)}"
        usable, cure = min(available, limit), "raise the container's limit (docker run --memory, or the pod's limits)"
    if usable < MIN_MEMORY:
        said += f"; the smallest job takes {_gib(MIN_MEMORY)}"
        return Finding(name="memory", status=Status.WARNING, found=said, cure=cure)
    return Finding(name="memory", status=Status.OK, found=said)


def check_disk(name: str, path: Path, total: int, free: int, *, cure: str, for_ray: bool = False) -> Finding:
    """Free bytes where something is written."""
    said = f"{_gib(free)} free ({path})"
    if for_ray and free < (1 - RAY_FULL) * total:
        said = f"more than {RAY_FULL:.0%} full ({path}): Ray makes no objects on it"
        return Finding(name=name, status=Status.FAILURE, found=said, cure=cure)
    if free < MIN_DISK:
        return Finding(name=name, status=Status.FAILURE, found=said, cure=cure)
    if free < GOOD_DISK:
        return Finding(name=name, status=Status.WARNING, found=said, cure=cure)
    return Finding(name=name, status=Status.OK, found=said)


def check_ray_folder(path: Path) -> list[Finding]:
    """Whether Ray's sockets have room in the name of its folder; nothing where they have."""
    length, most = len(os.fsencode(path)), MAX_SOCKET_PATH - len(RAY_SOCKET)
    if length <= most:
        return []
    said = f"{path} has {length} bytes, and a socket's path takes {most} at most before Ray's own part"
    cure = "export RAY_TMPDIR=/tmp, or another short path"
    return [Finding(name="Ray's folder", status=Status.FAILURE, found=said, cure=cure)]


def check_limits(open_files: int, processes: int) -> list[Finding]:
    """Soft limits of this shell, which a job's processes inherit."""
    found = []
    for name, value, least, cure in (
        ("open files", open_files, MIN_NOFILE, f"ulimit -n {GOOD_NOFILE}"),
        ("processes", processes, MIN_NPROC, f"ulimit -u {4 * MIN_NPROC}"),
    ):
        low = value != resource.RLIM_INFINITY and value < least
        said = "unlimited" if value == resource.RLIM_INFINITY else str(value)
        status = Status.WARNING if low else Status.OK
        found.append(Finding(name=name, status=status, found=f"at most {said}", cure=cure if low else ""))
    return found


def check_environment(environment: Mapping[str, str], *, on_gpu: bool, num_cpus: int) -> list[Finding]:
    """Environment variables that are known to break or slow a job; an "ok" where there is none."""
    name, found = "environment", []
    if "OMP_NUM_THREADS" not in environment and not on_gpu:
        said = f"OMP_NUM_THREADS is not set: each of a job's dozen processes may start {num_cpus} threads"
        found.append(Finding(name=name, status=Status.WARNING, found=said, cure="export OMP_NUM_THREADS=1"))
    for key in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if on_gpu and "expandable_segments:true" in environment.get(key, "").lower():
            said = f"{key} has expandable_segments:True; vLLM's memory that sleeps cannot lie in such segments"
            cure = f"unset {key}: verl turns them on and off by itself, around each push of weights"
            found.append(Finding(name=name, status=Status.WARNING, found=said, cure=cure))
    return found or [Finding(name=name, status=Status.OK, found="no variable that is known to break a job")]


# ------------------------------------------------------------------------------------------ this machine


def run_nvidia_smi() -> list[GPU]:
    """The GPUs that the driver knows; none where there is no nvidia-smi, or where it fails."""
    query = ["--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits"]
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=20, check=False)
    return parse_nvidia_smi(done.stdout)


def outward_address() -> str | None:
    """The address that traffic leaves this machine by, as Ray finds it; nothing is sent. None without a network."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.connect(("8.8.8.8", 80))
            return sending.getsockname()[0]
    except OSError:
        return None


def ray_folder(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps its sessions: ``ray._common.utils.get_default_ray_temp_dir`` on Linux."""
    return Path(environment.get("RAY_TMPDIR", environment.get("TMPDIR", "/tmp"))) / "ray"


def ray_address(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The cluster that a job without an address of its own joins, and who says so; None where it starts one."""
    if (named := environment.get("RAY_ADDRESS")) and named not in ("local", "auto"):
        return named, "RAY_ADDRESS"
    current = ray_folder(environment) / "ray_current_cluster"
    if named != "local" and current.is_file() and (address := current.read_text().strip()):
        return address, str(current)
    return None


def machine_findings(environment: Mapping[str, str], *, on_gpu: bool) -> list[Finding]:
    """Network, memory, disk and limits of this machine."""
    import psutil

    hostname, memory = socket.gethostname(), psutil.virtual_memory()
    outward, ray = outward_address(), ray_folder(environment)
    local = environment.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0"
    models = Path(environment.get("HF_HOME", "~/.cache/huggingface")).expanduser()

    def node() -> Finding:
        try:
            resolved = socket.gethostbyname(hostname)
        except OSError:
            resolved = None
        return check_node_address(hostname, resolved, outward, loopback_only=local)

    def ray_cluster() -> list[Finding]:
        if joined := ray_address(environment):
            found = check_ray_address(*joined)
            # Ray itself leaves a cluster that has died aside, unless RAY_ADDRESS names it.
            if found.status is Status.OK or joined[1] == "RAY_ADDRESS":
                return [found]
        said = "none; a job starts its own"
        return [Finding(name="Ray cluster", status=Status.NOT_APPLICABLE, found=said)]

    def ports() -> list[Finding]:
        why = "`ray start --head` takes it"
        cure = f"if it is a Ray that you no longer need: ray stop; or ray start --head --port={RAY_PORT + 1}"
        found = [check_port(RAY_PORT, "", why=why, cure=cure)] if ray_address(environment) is None else []
        if (port := environment.get("MASTER_PORT", "29500")).isdigit():
            why = "torchrun takes it (SFT on one node)"
            found.append(check_port(int(port), "", why=why, cure="torchrun --master_port with another one"))
        return found

    def shared_memory() -> Finding:
        if not Path("/dev/shm").is_dir():
            return Finding(name="shared memory", status=Status.NOT_APPLICABLE, found="no /dev/shm here")
        usage = shutil.disk_usage("/dev/shm")
        return check_shared_memory(usage.total, usage.free)

    def disk(name: str, path: Path, cure: str, for_ray: bool = False) -> Finding:
        there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
        if not os.access(there, os.W_OK):
            said = f"{there} cannot be written to"
            return Finding(name=name, status=Status.FAILURE, found=said, cure=cure)
        usage = shutil.disk_usage(there)
        return check_disk(name, path, usage.total, usage.free, cure=cure, for_ray=for_ray)

    def limits() -> list[Finding]:
        soft = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        return check_limits(*soft)

    checkpoints = "set trainer.default_local_dir to a larger disk"
    checks: list[tuple[str, Callable[[], Finding | Iterable[Finding]]]] = [
        ("loopback", check_loopback),
        ("node address", node),
        ("proxies", lambda: check_proxies(environment, list(filter(None, ["127.0.0.1", "localhost", outward])))),
        ("Ray cluster", ray_cluster),
        ("ports", ports),
        ("memory", lambda: check_memory(memory.total, memory.available, container_limit())),
        ("shared memory", shared_memory),
        ("working folder", lambda: disk("working folder", Path.cwd(), checkpoints)),
        ("Ray's folder", lambda: disk("Ray's folder", ray, "export RAY_TMPDIR=… on a disk with room", for_ray=True)),
        ("Ray's folder", lambda: check_ray_folder(ray)),
        ("model cache", lambda: disk("model cache", models, "export HF_HOME=… on a larger disk")),
        ("limits", limits),
        ("environment", lambda: check_environment(environment, on_gpu=on_gpu, num_cpus=os.cpu_count() or 1)),
    ]
    return [finding for name, check in checks for finding in isolated(name, check)]


def container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of memory that this process's container may have, by cgroup version 2 or 1; None without a limit."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return int(text)
    return None


# ------------------------------------------------------------------------------------------ what is told


def verdict(findings: Sequence[Finding]) -> Status:
    """The worst of all; warnings and what does not apply leave it OK or WARNING."""
    found = {finding.status for finding in findings}
    return next((status for status in (Status.FAILURE, Status.WARNING) if status in found), Status.OK)


_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red", Status.NOT_APPLICABLE: "dim"}


def findings_table(findings: Sequence[Finding]) -> Table:
    """All findings, each cure under what it cures."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=16)
    table.add_column(overflow="fold")
    for finding in findings:
        style = _STYLES[finding.status]
        table.add_row(f"[{style}]{finding.status.value}[/]", escape(finding.name), escape(finding.found))
        if finding.cure:
            table.add_row("", "", f"[{style}]→[/] {escape(finding.cure)}")
    return table


def summary_line(findings: Sequence[Finding]) -> str:
    """How many of each, in words."""
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    failures, warnings = (
        f"{counts[status]} {status.value}{'' if counts[status] == 1 else 's'}"
        for status in (Status.FAILURE, Status.WARNING)
    )
    if counts[Status.FAILURE]:
        return f"{failures}, {warnings}"
    return f"nothing in the way, {warnings}" if counts[Status.WARNING] else "nothing in the way"


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"
