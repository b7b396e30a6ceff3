# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The command ``longshort``: one subcommand a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Long⊗Short for verl.")
report_app = typer.Typer(no_args_is_help=True, help="Tables and pictures of what was run.")
app.add_typer(report_app, name="report")


@app.command()
def problems(
    file: Annotated[Path, typer.Argument(help="JSON, JSONL or Parquet with the columns problem and answer.")],
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    num_val: Annotated[
        int | None, typer.Option(help="Problems held out for validation; a quarter, 64 at most, where not set.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
) -> None:
    """Check a problem file, row by row, and split it into verl's own format."""
    from longshort_verl.data.problems import check_answers, read_problems, split_problems, write_problems
    from longshort_verl.grading import check_gold

    try:
        rows = read_problems(file)
        check_answers(rows, check_gold, path=file)
        held_out = min(64, max(1, len(rows) // 4)) if num_val is None else num_val
        train, val = split_problems(rows, num_validation=held_out, seed=seed)
    except ValueError as error:
        raise _failure(error) from error
    settings = {"num_val": held_out, "seed": seed}
    for split, part in (("train", train), ("val", val)):
        path = write_problems(part, out / f"{split}.parquet", split=split, inputs={"file": file}, settings=settings)
        typer.echo(f"{len(part)} problems in {path}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder global_step_<n> of a run.")],
    out: Annotated[Path, typer.Option(help="Folder for long and short, or for shared.")],
) -> None:
    """Write a checkpoint's models as Hugging Face folders, which transformers and `vllm serve` load."""
    from longshort_verl.adapters.export import ExportError, export_pair

    try:
        folders = export_pair(checkpoint, out)
    except ExportError as error:
        raise _failure(error) from error
    for folder in folders:
        typer.echo(f"{folder.name}: {folder}")


@report_app.command("rl")
def report_rl(
    metrics: Annotated[
        list[str], typer.Argument(help="metrics.jsonl of verl's file logger; several for seeds, LABEL=PATH to compare.")
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
    follow: Annotated[int | None, typer.Option(help="Process id of the run: show its progress until it ends.")] = None,
    log: Annotated[Path | None, typer.Option(help="What the run prints; its end is shown where the run fails.")] = None,
) -> None:
    """Show a training run: first and last validation as a table, all curves as a PNG."""
    from longshort_verl.evaluation.curves import comparison_table, plot_curves, read_run, summary_table
    from longshort_verl.evaluation.progress import follow_run

    # A path may hold "=" itself, as Hydra's folders do.
    parts = [("", "", name) if Path(name).exists() else name.partition("=") for name in metrics]
    named = [(label, Path(path)) if path else ("", Path(label)) for label, _, path in parts]
    if follow is not None and not follow_run(named[0][1], follow, log):
        raise typer.Exit(1)
    try:
        runs = [(label, read_run(path)) for label, path in named]
        several = len({label for label, _ in runs}) > 1
        Console().print(comparison_table(runs) if several else summary_table([run for _, run in runs]))
    except (ValueError, FileNotFoundError) as error:
        raise _failure(error) from error
    plot_curves(runs, out, title=title)
    typer.echo(f"curves: {out}")


def _failure(error: Exception) -> typer.Exit:
    Console(stderr=True, soft_wrap=True).print(f"longshort: {error}", markup=False, highlight=False)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
