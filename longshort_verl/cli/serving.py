# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort export | serve``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longshort_verl.cli.common import OVERRIDES, failure, user_errors


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder global_step_<n> of a run.")],
    out: Annotated[Path, typer.Option(help="Folder for long and short, or for shared.")],
) -> None:
    """Write the models of a checkpoint as Hugging Face folders, for transformers and `vllm serve`."""
    from longshort_verl.adapters.export import export_pair

    with user_errors():
        folders = export_pair(checkpoint, out)
    for folder in folders:
        typer.echo(f"{folder.name}: {folder}")


def serve(
    overrides: OVERRIDES = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that inherits longshort_serve.")] = None,
) -> None:
    """Serve the pair as one chat model with OpenAI's chat completions API."""
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "prometheus_client")):
        raise failure(ValueError("serving needs more packages: pip install 'longshort-verl[serve]'"))

    from longshort_verl.serving.app import serve_pair
    from longshort_verl.serving.config import read_serve

    with user_errors():
        serve_pair(*read_serve(recipe, overrides or []), announce=typer.echo)
