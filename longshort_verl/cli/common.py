# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Arguments and errors that the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

OVERRIDES = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, for example model.path=PATH.")]


def failure(error: Exception) -> typer.Exit:
    """Print a user's mistake as one message; raise what this returns."""
    Console(stderr=True, soft_wrap=True).print(f"longshort: {error}", markup=False, highlight=False)
    return typer.Exit(1)


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a user's mistake in the block as one message and exit."""
    try:
        yield
    except ValueError as error:
        raise failure(error) from error
