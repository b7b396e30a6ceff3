# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Runs and prints all checks of ``longshort doctor``; a job's config is checked by the job's own checks."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

import longshort_verl
from longshort_verl.adapters.probe import PLUGIN
from longshort_verl.generation.model_files import look_at_model
from longshort_verl.ops.doctor.machine import (
    Check,
    Finding,
    check_cluster,
    is_cpu,
    machine_findings,
    ray_address,
    run_checks,
)
from longshort_verl.ops.doctor.versions import DISTRIBUTION, version_findings
from longshort_verl.types import Role

_STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red", "n/a": "dim"}
_PROGRAMS = {  # program of a job, by the section that its config has
    "long_short": "python -m verl.trainer.main_ppo",
    "cold_start": "torchrun --standalone --nproc-per-node=1 -m longshort_verl.adapters.sft.trainer",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job's config."""

    arguments: tuple[str, ...]  # --config-dir, --config-name and settings, as on the command line of verl's main
    config: Any  # composed

    @property
    def section(self) -> str | None:
        """Our own section of the config, a key of the programs; None in a config that is not ours."""
        return next((name for name in _PROGRAMS if name in self.config and "trainer" in self.config), None)


def examine(job: Job | None, environment: Mapping[str, str]) -> list[Finding]:
    """All findings: versions, the plugin, the machine, and a job's config where one is given."""
    facts, stderr = run_probe(environment)
    torch = {"devices": 0, "cuda": None, **facts.get("torch", {})}
    on_gpu = torch["devices"] > 0 and not is_cpu(environment)
    findings = run_checks(
        {
            "versions": lambda: version_findings(on_gpu=on_gpu),
            "plugin": lambda: plugin_findings(facts, stderr, environment),
            "machine": lambda: machine_findings(environment, torch, facts.get("node", {}).get("address", "localhost")),
        }
    )
    return findings + (job_findings(job, environment, torch["devices"]) if job else [])


def next_step(job: Job | None, findings: Sequence[Finding]) -> str:
    """The command to run next."""
    statuses = {finding.name: finding.status for finding in findings}
    if "failure" in statuses.values():
        return "fix the failures and run this again"
    if job is None and statuses.get("GPUs") == "ok":
        return "longshort plan --config-dir recipes/<name> --config-name rl"
    if job is None or job.section is None:
        return "make quickstart (in a checkout; needs no GPU)"
    run, arguments = _PROGRAMS[job.section], shlex.join(job.arguments)
    if statuses.get("GPUs") == "n/a":
        return f"VERL_PLATFORM=cpu {run} {arguments}"
    return f"longshort plan {arguments}\nthen: {run} {arguments}"


def run_probe(environment: Mapping[str, str], *arguments: str, timeout: float = 180) -> tuple[dict[str, Any], str]:
    """Facts of :mod:`longshort_verl.adapters.probe` in a fresh process, {} where it failed, and its stderr."""
    command = [sys.executable, "-m", "longshort_verl.adapters.probe", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return {}, f"it did not end within {timeout:.0f} s"
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr
    except (IndexError, ValueError):
        return {}, done.stderr or f"it ended with status {done.returncode}"


def plugin_findings(facts: Mapping[str, Any], stderr: str, environment: Mapping[str, str]) -> list[Finding]:
    """The facts of :func:`run_probe`, which ran with this environment, as findings."""
    if not facts:
        cure = f"install it where jobs run: {sys.executable} -m pip install {DISTRIBUTION} (in a checkout: .)"
        return [Finding("other processes", "failure", f"cannot use longshort_verl: {_last_line(stderr)}", cure)]
    here, there = Path(longshort_verl.__file__).parent, Path(facts["package"])
    findings = [Finding("other processes", "ok", f"use the same longshort_verl ({there})")]
    if here != there:
        cure = "start from another folder, or install the one that you want: pip install ."
        findings = [Finding("other processes", "warning", f"use longshort_verl of {there}; this one is {here}", cure)]
    if "error" in facts["verl"]:
        cure = "python -c 'import verl' prints the whole error"
        return [*findings, Finding("import verl", "failure", f"cannot be imported: {facts['verl']['error']}", cure)]
    findings.append(_check_plugin(facts, stderr, environment))
    for name in ("trainer", "agent loop", "platform"):
        fact = facts[name.replace(" ", "_")]
        cure = "see the plugin above; platform: VERL_PLATFORM=cpu without a GPU" if "error" in fact else ""
        findings.append(Finding(name, "failure" if cure else "ok", fact.get("error") or fact["module"], cure))
    return findings


def _check_plugin(facts: Mapping[str, Any], stderr: str, environment: Mapping[str, str]) -> Finding:
    if facts["verl"]["plugin"]:
        return Finding("plugin", "ok", "verl loads it at import, in every process")
    allowed = environment.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if not facts["entry_points"]:
        reason = "no entry point of verl.plugins loads longshort_verl"
        cure = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    elif allowed != "auto" and "longshort" not in [entry.strip() for entry in allowed.split(",")]:
        reason = f"VERL_USE_EXTERNAL_PLUGINS is {allowed!r}"
        cure = "unset VERL_USE_EXTERNAL_PLUGINS, or add longshort to it"
    else:  # plugin.py logs its own traceback; verl logs nothing
        errors = [line for line in stderr.splitlines() if line[:1].strip() and "Error" in line.split(":")[0]]
        reason, cure = ["verl does not log why", *errors][-1], f"python -c 'import {PLUGIN}'"
    return Finding("plugin", "failure", f"not loaded: {reason}", cure)


def _last_line(stderr: str) -> str:
    """The last line of a process's stderr, without Python's own path before it."""
    lines = stderr.strip().splitlines() or ["it printed nothing"]
    return lines[-1].removeprefix(f"{sys.executable}: ")


def job_findings(job: Job, environment: Mapping[str, str], num_devices: int) -> list[Finding]:
    """The job's own checks of its config, on this machine; VERL_PLATFORM is read from this process's environment."""
    if job.section == "long_short":
        checks = _rl_checks(job.config, environment, num_devices)
    elif job.section == "cold_start":
        checks = _sft_checks(job.config)
    else:
        found = f"not a job of longshort-verl: it has no section {' or '.join(_PROGRAMS)}"
        cure = "inherit longshort_rl or longshort_sft from pkg://longshort_verl.config; nothing in it was checked"
        return [Finding("config", "failure", found, cure)]
    return [Finding("config", "ok", f"composes, with the section {job.section}"), *run_checks(checks)]


def _rl_checks(config: Any, environment: Mapping[str, str], num_devices: int) -> dict[str, Check]:
    from longshort_verl.adapters.rl import check

    def settings() -> str:
        settings = check.check_config(config)
        return f"schedule {settings.schedule.value}, {settings.policies.value} policies, {settings.placement.value}"

    def model(role: Role) -> Finding:
        return check_model(f"{role.value} model", str(check.role_config(config, role).model.path))

    def tokenizers() -> list[Any]:
        return [check.load_tokenizer(check.role_config(config, role)) for role in Role]

    return {
        "settings": settings,
        **{f"{role.value} model": lambda role=role: model(role) for role in Role},
        "chat templates": lambda: check.check_templates(config, *tokenizers()) or "both keep a dialogue unchanged",
        "problems": lambda: check.check_problem_files(config, *tokenizers()) or "all files and rows are valid",
        "job's size": lambda: _check_size(config, environment, num_devices),
        "job's memory": lambda: _check_memory(config),
    }


def _sft_checks(config: Any) -> dict[str, Check]:
    from longshort_verl.adapters.sft.trainer import check_sft

    def settings() -> str:
        checked = check_sft(config)
        train, val = len(checked.train), len(checked.val)
        return f"role {checked.settings.role}, {train} transcripts to train on, {val} held out"

    return {"model": lambda: check_model("model", str(config.model.path)), "settings": settings}


def check_model(name: str, path: str) -> Finding:
    """Whether a model's folder, or the hub's cache, holds a model."""
    model = look_at_model(path)
    if model.cure:
        return Finding(name, "warning" if model.usable else "failure", model.found, model.cure)
    return Finding(
        name, "ok", f"{model.found}, {decimal(model.num_bytes)} of weights" if model.num_bytes else model.found
    )


def _check_memory(config: Any) -> list[Finding]:
    """The job's own check of main memory on a machine without GPU; nothing for other machines."""
    from longshort_verl.adapters.rl.memory import check_memory

    report = check_memory(config)
    return [] if report is None else [Finding("job's memory", report.status, report.found, report.cure)]


def _check_size(config: Any, environment: Mapping[str, str], num_devices: int) -> str | Finding:
    """The job's own check of its size, against this machine or the running Ray cluster."""
    from longshort_verl.adapters import compat
    from longshort_verl.adapters.rl.check import check_config, required_cpus, required_gpus

    init, joined = config.ray_kwargs.ray_init, ray_address(environment)
    if joined is None and init.get("address") not in (None, "auto", "local"):
        joined = (init.address, "ray_kwargs.ray_init.address")
    if joined is not None:
        cluster = check_cluster(*joined)
        if cluster.status != "ok":
            return dataclasses.replace(cluster, name="job's size")
        resources, stderr = run_probe(environment, joined[0], timeout=60)
        if not resources:
            raise ValueError(f"the cluster {joined[0]} does not report its resources: {_last_line(stderr)}")
    else:
        resources = {"CPU": init.num_cpus or os.cpu_count() or 1, "GPU": num_devices}
    found = f"the job needs devices: {required_gpus(config)}, Ray's CPUs: {required_cpus(config)}"
    if joined is None and compat.on_cpu():
        return f"{found}; both are logical on a CPU"
    check_config(config, resources)
    where = f"the cluster {joined[0]}" if joined else "this machine"
    return f"{found}; {where} has {resources.get('GPU', 0):g} and {resources['CPU']:g}"


def verdict(findings: Sequence[Finding]) -> str:
    """The worst status; ok where there is neither failure nor warning."""
    statuses = {finding.status for finding in findings}
    return "failure" if "failure" in statuses else "warning" if "warning" in statuses else "ok"


def print_findings(findings: Sequence[Finding], next_step: str, *, as_json: bool) -> None:
    """Print JSON; or a table with each cure below its finding, a summary and the next command."""
    console = Console()
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        report = {"verdict": verdict(findings), "next": next_step, "findings": rows}
        text = json.dumps(report, indent=2, ensure_ascii=False)
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(max_width=16)
        table.add_column(overflow="fold")
        for finding in findings:
            style = _STYLES[finding.status]
            table.add_row(f"[{style}]{finding.status}[/]", escape(finding.name), escape(finding.found))
            if finding.cure:
                table.add_row("", "", f"[{style}]→[/] {escape(finding.cure)}")
        console.print(table)
        counts = [sum(finding.status == status for finding in findings) for status in ("failure", "warning")]
        text = f"\nfailures: {counts[0]}, warnings: {counts[1]}\nnext: {next_step}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
