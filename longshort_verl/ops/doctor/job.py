# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""All checks of ``longshort doctor``, those of a job's config included: the job's own, one by one."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from longshort_verl.config.compose import compose_config
from longshort_verl.ops.doctor.findings import Finding, Status, failure, isolated, ok, warning
from longshort_verl.ops.doctor.machine import (
    GPU,
    check_devices,
    check_flash_attention,
    check_ray_address,
    machine_findings,
    ray_address,
    run_nvidia_smi,
)
from longshort_verl.ops.doctor.plugin import last_line, plugin_findings, run_probe
from longshort_verl.ops.doctor.versions import installed_version, version_findings
from longshort_verl.types import Role


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """A job's config, as on the command line of ``python -m verl.trainer.main_ppo``."""

    folder: Path
    """``--config-dir``."""
    name: str
    """``--config-name``."""
    overrides: tuple[str, ...] = ()
    """Settings as ``key=value``."""

    @classmethod
    def of(cls, folder: Path | None, name: str | None, overrides: Sequence[str]) -> JobConfig | None:
        """The config of these options; None without any.

        Raises:
            ValueError: the options are incomplete, or there is no such file.
        """
        if folder is None or name is None:
            if folder is not None or name is not None:
                raise ValueError("--config-dir and --config-name come together")
            if overrides:
                raise ValueError(f"{overrides[0]!r} is a setting of a job: give --config-dir and --config-name too")
            return None
        name = name.removesuffix(".yaml")
        if not (folder / f"{name}.yaml").is_file():
            raise ValueError(f"there is no {folder / name}.yaml")
        if wrong := [override for override in overrides if "=" not in override]:
            raise ValueError(f"{wrong[0]!r} is not key=value")
        return cls(folder=folder, name=name, overrides=tuple(overrides))

    def command_line(self, program: str) -> str:
        """The command that runs a program on this config."""
        arguments = ["--config-dir", str(self.folder), "--config-name", self.name, *self.overrides]
        return f"{program} {shlex.join(arguments)}"


def examine(job: JobConfig | None, environment: Mapping[str, str]) -> list[Finding]:
    """All findings: versions, the plugin, devices, the machine, and a job's config where one is given."""
    gpus: list[GPU] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        probing = pool.submit(run_probe, environment)
        findings = isolated("versions", version_findings)
        findings += isolated("nvidia-smi", lambda: gpus.extend(run_nvidia_smi()) or [])
        facts, stderr = probing.result()
    torch = {"devices": 0, "cuda": None, **facts.get("torch", {})}
    on_gpu = torch["devices"] > 0 and environment.get("VERL_PLATFORM", "").strip().lower() != "cpu"
    findings.append(check_flash_attention(installed_version("flash-attn"), on_gpu=on_gpu))
    findings += isolated("plugin", lambda: plugin_findings(facts, stderr, environment))
    findings += isolated("GPUs", lambda: check_devices(gpus, torch["devices"], torch["cuda"], environment))
    findings += machine_findings(environment, on_gpu=on_gpu)
    return findings + (config_findings(job, environment, num_devices=torch["devices"]) if job else [])


def next_step(job: JobConfig | None, findings: Sequence[Finding]) -> str:
    """The command to run next."""
    if any(finding.status is Status.FAILURE for finding in findings):
        return "fix the failures and run this again"
    devices = next((finding.status for finding in findings if finding.name == "GPUs"), None)
    if job is not None and devices is Status.NOT_APPLICABLE:
        return job.command_line("VERL_PLATFORM=cpu python -m verl.trainer.main_ppo")
    if job is not None:
        return f"{job.command_line('longshort plan')}\nthen: {job.command_line('python -m verl.trainer.main_ppo')}"
    if devices is Status.OK:
        return "longshort plan --config-dir recipes/<name> --config-name rl"
    return "make quickstart (in a checkout; needs no GPU)"


# ------------------------------------------------------------------------------------------ a job's config


def config_findings(job: JobConfig, environment: Mapping[str, str], *, num_devices: int) -> list[Finding]:
    """What a job's config asks for, against what is here.

    Args:
        job: the config.
        environment: environment variables; VERL_PLATFORM is read from this process's own.
        num_devices: GPUs that torch sees on this machine.
    """
    from longshort_verl.adapters.rl import check

    composed: list[Any] = []

    def compose() -> Finding:
        composed.append(compose_config(job.folder, job.name, job.overrides))
        return ok("config", f"{job.folder / job.name}.yaml composes")

    findings = isolated("config", compose)
    if not composed:
        return findings
    config = composed[0]

    def settings() -> Finding:
        read = check.check_config(config)
        return ok("settings", f"schedule {read.schedule.value}, {read.policies.value} policies, {read.placement.value}")

    def model(role: Role) -> Finding:
        return check_model(f"{role.value} model", str(check.role_config(config, role).model.path))

    def tokenizers() -> list[Any]:
        return [check.load_tokenizer(check.role_config(config, role)) for role in Role]

    def templates() -> Finding:
        check.check_templates(config, *tokenizers())
        return ok("chat templates", "both keep a dialogue unchanged")

    def problems() -> Finding:
        check.check_problem_files(config, *tokenizers())
        return ok("problems", "all files and rows are valid")

    findings += isolated("settings", settings)
    for role in Role:
        findings += isolated(f"{role.value} model", lambda role=role: model(role))
    findings += isolated("chat templates", templates)
    findings += isolated("problems", problems)
    return findings + isolated("job's size", lambda: _check_size(config, environment, num_devices))


def check_model(name: str, path: str) -> Finding:
    """Whether a model's folder, or the hub's cache, holds a model."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        weights = [file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)]
        parts = {"config.json": (folder / "config.json").is_file(), "weights": bool(weights)}
        if missing := [part for part, present in parts.items() if not present]:
            cure = "give the folder of a Hugging Face model, such as `longshort export` writes"
            return failure(name, f"{path} has no {' and no '.join(missing)}", cure)
        return ok(name, f"{path}, {decimal(sum(file.stat().st_size for file in weights))} of weights")
    if path.startswith(("/", ".", "~")) or path.count("/") > 1:
        cure = "set model.path to a folder that exists on every node, or to a name of the hub"
        return failure(name, f"there is no folder {path}", cure)
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(path, "config.json"), str):
        return ok(name, f"{path}, in the hub's cache")
    found, cure = f"{path} is neither a folder nor in the hub's cache", f"hf download {path}, on every node"
    if constants.HF_HUB_OFFLINE:
        return failure(name, f"{found}, and HF_HUB_OFFLINE is set", cure)
    return warning(name, found, cure)


def _check_size(config: Any, environment: Mapping[str, str], num_devices: int) -> Finding:
    """The job's own check of its size, against this machine or the running Ray cluster."""
    from longshort_verl.adapters import compat
    from longshort_verl.adapters.rl.check import check_config, required_cpus, required_gpus

    name, init = "job's size", config.ray_kwargs.ray_init
    found = f"the job needs {required_gpus(config)} devices and {required_cpus(config)} of Ray's CPUs"
    joined = ray_address(environment)
    if joined is None and init.get("address"):
        joined = (init.address, "ray_kwargs.ray_init.address")
    if joined is not None and joined[0] not in ("auto", "local"):
        answer = check_ray_address(*joined)
        if answer.status is not Status.OK:
            return dataclasses.replace(answer, name=name)
        if sized := [f"ray_kwargs.ray_init.{key}" for key in ("num_cpus", "num_gpus") if init.get(key) is not None]:
            conflict = f"{' and '.join(sized)} would size the cluster {joined[0]} ({joined[1]}), which runs already"
            return failure(name, conflict, f"{' '.join(f'{key}=null' for key in sized)}, or unset RAY_ADDRESS")
        resources, stderr = run_probe(environment, joined[0], timeout=60)
        if not resources:
            raise ValueError(f"the cluster {joined[0]} does not report its resources: {last_line(stderr)}")
        where = f"the cluster {joined[0]}"
    elif compat.on_cpu():
        return ok(name, f"{found}, both logical on a CPU")
    else:
        resources, where = {"CPU": init.num_cpus or os.cpu_count() or 1, "GPU": num_devices}, "this machine"
    check_config(config, resources)
    return ok(name, f"{found}; {where} has {resources.get('GPU', 0):g} and {resources['CPU']:g}")
