# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Arguments and errors that the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.files.atomic import disk_message
from longshort_verl.files.manifest import num_records

OVERRIDES = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, for example model.path=PATH.")]


def failure(error: Exception) -> typer.Exit:
    """Print a user's mistake as one message; raise what this returns."""
    Console(stderr=True, soft_wrap=True).print(f"longshort: {error}", markup=False, highlight=False)
    return typer.Exit(1)


@contextmanager
def user_errors(out: Path | None = None) -> Iterator[None]:
    """Print a user's mistake in the block as one message and exit; Ctrl-C leaves ``out`` unfinished."""
    try:
        yield
    except ValueError as error:
        raise failure(error) from error
    except OSError as error:
        message = disk_message(error)
        if message is None:
            raise
        raise failure(ValueError(message)) from error
    except KeyboardInterrupt as error:
        kept = f"; {num_records(out)} records of {out} are kept, and the same command resumes from them" if out else ""
        failure(ValueError(f"interrupted{kept}"))
        raise typer.Exit(130) from error
