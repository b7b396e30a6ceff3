# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort plan | doctor``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import NonNegativeFloat, TypeAdapter
from rich.console import Console

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_OVERRIDES = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, as for verl's main.")]
_GPU = Annotated[str, typer.Option(help="Type of the devices.")]
_MODELS = Annotated[
    list[str] | None,
    typer.Option(
        help="ROLE=MODEL, once per role: a folder with a config.json or a hub name, for models that are not here yet."
    ),
]
_TOKENS = Annotated[
    str | None,
    typer.Option(help="Expected tokens of a dialogue, as long=900,short=250,prompt=120; default: their limits."),
]


def plan(
    config_dir: Annotated[Path, typer.Option(help="Folder of the recipe, as for verl's main.")],
    config_name: Annotated[str, typer.Option(help="Name of its YAML, for RL or SFT.")],
    overrides: _OVERRIDES = None,
    gpu: _GPU = "H100-80GB",
    model_config: _MODELS = None,
    mean_tokens: _TOKENS = None,
    host_memory: Annotated[float | None, typer.Option(help="GiB of a node's main memory, to check as well.")] = None,
    as_json: _JSON = False,
) -> None:
    """Estimate memory and time of a job from its config and its models' configs; needs no GPU.

    Exit status: 0 if the job fits, 1 if it does not, 2 for wrong input.
    """
    from longshort_verl.config.compose import compose_config
    from longshort_verl.ops.plan.hardware import find_gpu
    from longshort_verl.ops.plan.job import read_job
    from longshort_verl.ops.plan.view import Plan, print_plan

    try:
        models = _pairs(model_config or [], "--model-config", Path)
        means = _pairs(mean_tokens.split(",") if mean_tokens else [], "--mean-tokens", NonNegativeFloat)
        config = compose_config(config_dir, config_name, overrides or [])
        planned = Plan(read_job(config, find_gpu(gpu), model_configs=models, means=means), host_memory)
    except ValueError as error:
        typer.echo(f"longshort: {error}", err=True)
        raise typer.Exit(2) from error
    print_plan(planned, as_json=as_json)
    raise typer.Exit(0 if planned.fits else 1)


def _pairs(values: list[str], option: str, kind: Any) -> dict[str, Any]:
    """NAME=VALUE, each of them."""
    try:
        return {name: TypeAdapter(kind).validate_python(value) for name, value in (one.split("=") for one in values)}
    except ValueError as error:
        raise ValueError(f"{option} is {','.join(values)!r}; give NAME=VALUE, a role and its value") from error


def doctor(
    overrides: _OVERRIDES = None,
    config_dir: Annotated[
        Path | None, typer.Option(help="Folder of a recipe, to check a job too.", exists=True, file_okay=False)
    ] = None,
    config_name: Annotated[str | None, typer.Option(help="Name of its YAML, such as rl.")] = None,
    as_json: _JSON = False,
) -> None:
    """Check this machine, this installation and a job's config, and print a fix for each problem.

    Exit status: 0 without failures (warnings allowed), 1 with failures, 2 for wrong input.
    """
    import os

    from longshort_verl.config.compose import compose_config
    from longshort_verl.ops.doctor.job import Job, examine, next_step, print_findings, verdict

    job = None
    if config_dir is not None and config_name is not None:
        arguments = ("--config-dir", str(config_dir), "--config-name", config_name, *(overrides or []))
        try:
            job = Job(arguments=arguments, config=compose_config(config_dir, config_name, overrides or []))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    elif config_dir is not None or config_name is not None or overrides:
        raise typer.BadParameter("a job's config needs both --config-dir and --config-name")
    with Console(stderr=True).status("checking; most of the time is the import of verl"):
        findings = examine(job, os.environ)
    print_findings(findings, next_step(job, findings), as_json=as_json)
    raise typer.Exit(1 if verdict(findings) == "failure" else 0)
