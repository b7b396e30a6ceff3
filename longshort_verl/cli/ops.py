# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that look at a cluster before a job meets it: ``longshort plan`` and ``longshort doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def plan(
    config_dir: Annotated[Path, typer.Option(help="Folder of the recipe, as for verl's main.")],
    config_name: Annotated[str, typer.Option(help="Name of its YAML: of RL, or of SFT.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value, as for verl's main.")] = None,
    gpu: Annotated[str, typer.Option(help="What the devices are.")] = "H100-80GB",
    model_config: Annotated[
        list[str] | None,
        typer.Option(
            help="ROLE=MODEL, once for each role: a folder with a config.json, or a name of the hub, to go by where "
            "the model itself is not here yet."
        ),
    ] = None,
    mean_tokens: Annotated[
        str | None,
        typer.Option(
            help="Expected tokens of a dialogue, such as long=900,short=250,prompt=120; limits where not given."
        ),
    ] = None,
    host_memory: Annotated[float | None, typer.Option(help="GiB of a node's main memory, to be held against.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Estimate memory and time of a job from its config and its models' configs alone; needs no GPU.

    Ends with 0 if the job fits, with 1 if it does not, and with 2 for wrong input.
    """
    import json

    from longshort_verl.ops.plan.hardware import find_gpu
    from longshort_verl.ops.plan.verl_job import compose_config, read_plan
    from longshort_verl.ops.plan.view import as_json as whole
    from longshort_verl.ops.plan.view import plan_view

    try:
        configs = {role: Path(folder) for role, folder in _pairs(model_config or [], "--model-config")}
        tokens = (mean_tokens or "").split(",") if mean_tokens else []
        means = {role: _number(value, "--mean-tokens") for role, value in _pairs(tokens, "--mean-tokens")}
        config = compose_config(config_dir, config_name, overrides or [])
        found = read_plan(config, find_gpu(gpu), model_configs=configs, means=means, host_gib=host_memory)
        view = json.dumps(whole(found), indent=2) if as_json else plan_view(found)
    except ValueError as error:
        typer.echo(f"longshort: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(view)
    else:
        Console().print(view, highlight=False, crop=False)
    raise typer.Exit(0 if found.fits else 1)


def _pairs(given: list[str], option: str) -> list[tuple[str, str]]:
    """NAME=VALUE, each of them."""
    for one in given:
        if not all(one.partition("=")):
            raise ValueError(f"{option} is given {one!r}; give it as NAME=VALUE")
    return [(name, value) for name, _, value in (one.partition("=") for one in given)]


def _number(value: str, option: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"{option} is given {value!r}; give a number of tokens")
    return found


def doctor(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, as for verl.trainer.main_ppo.")
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option(help="Folder of a recipe, to look at a job as well.", exists=True, file_okay=False)
    ] = None,
    config_name: Annotated[str | None, typer.Option(help="Name of its YAML, such as rl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what is wrong with this machine, this installation or a job's config, each with its cure.

    Exit status: 0 where nothing is in the way, warnings allowed; 1 where something is; 2 for wrong usage.
    """
    import dataclasses
    import json
    import os

    from longshort_verl.ops.doctor.machine import Status, findings_table, summary_line, verdict
    from longshort_verl.ops.doctor.verl_checks import JobConfig, examine, next_step

    if (config_dir is None) != (config_name is None):
        raise typer.BadParameter("--config-dir and --config-name come together")
    if overrides and config_dir is None:
        raise typer.BadParameter(f"{overrides[0]!r} is a setting of a job: give --config-dir and --config-name too")
    job = None
    if config_dir is not None and config_name is not None:
        name = config_name.removesuffix(".yaml")
        if not (config_dir / f"{name}.yaml").is_file():
            raise typer.BadParameter(f"there is no {config_dir / name}.yaml")
        if wrong := [one for one in overrides or [] if "=" not in one]:
            raise typer.BadParameter(f"{wrong[0]!r} is no key=value")
        job = JobConfig(folder=config_dir, name=name, overrides=tuple(overrides or ()))
    with Console(stderr=True).status("looking; most of it is the import of verl"):
        findings = examine(job, os.environ)
    result, step = verdict(findings), next_step(job, findings)
    if as_json:
        rows = [{**dataclasses.asdict(finding), "status": finding.status.value} for finding in findings]
        typer.echo(json.dumps({"verdict": result.value, "next": step, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        console = Console()
        console.print(findings_table(findings))
        console.print(f"\n{summary_line(findings)}\nnext: {step}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if result is Status.FAILURE else 0)
