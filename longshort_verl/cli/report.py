# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort report …``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.common import failure


def report_importance(
    folder: Annotated[Path, typer.Argument(help="Folder of `longshort importance`.")],
    trace: Annotated[str | None, typer.Option(help="Key of the chain to show in full. Default: the first.")] = None,
) -> None:
    """Show scored thoughts: a table, a picture, and an HTML page with one annotated chain."""
    from longshort_verl.chains.files import read_chains
    from longshort_verl.report.chains import find_chain, plot_importance, thoughts_table, write_page

    try:
        chains = read_chains(folder)
        shown = find_chain(chains, trace)
    except ValueError as error:
        raise failure(error) from error
    Console().print(thoughts_table(shown))
    plot_importance(chains, shown, folder / "importance.png")
    write_page(chains, shown, folder / "importance.html")
    for name in ("importance.png", "importance.html"):
        typer.echo(f"{folder / name}")


def report_rl(
    metrics: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, or their metrics.jsonl. Several are averaged as seeds; LABEL=PATH compares runs."
        ),
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    title: Annotated[str, typer.Option(help="Title of the picture.")] = "",
    follow: Annotated[int | None, typer.Option(help="Process id of a run: show its progress until it ends.")] = None,
    log: Annotated[Path | None, typer.Option(help="Log of that run; its end is shown if the run fails.")] = None,
) -> None:
    """Show training runs: a table of the first and last validation, and a PNG of all curves."""
    from longshort_verl.report.curves import comparison_table, plot_curves, read_run, summary_table
    from longshort_verl.report.follow import follow_run

    named = _labelled(metrics)
    if follow is not None and not follow_run(named[0][1], follow, log):
        raise typer.Exit(1)
    try:
        runs = [(label, read_run(path)) for label, path in named]
        several = len({label for label, _ in runs}) > 1
        Console().print(comparison_table(runs) if several else summary_table([run for _, run in runs]))
    except (ValueError, FileNotFoundError) as error:
        raise failure(error) from error
    plot_curves(runs, out, title=title)
    typer.echo(f"curves: {out}")


def report_evaluation(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Folders of `longshort evaluate`. LABEL=FOLDER names a pair; several folders of a label are seeds."
        ),
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    title: Annotated[str, typer.Option(help="Title of the picture.")] = "",
    results: Annotated[Path | None, typer.Option(help="JSON to write: one object per run.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Markdown page to write: all systems, all runs and the picture.")
    ] = None,
    note: Annotated[Path | None, typer.Option(help="Markdown file to insert below the page's title.")] = None,
    against: Annotated[str | None, typer.Option(help="A second system to compare all others with.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="HTML page to write: tables, pictures and dialogues in one file.")
    ] = None,
    dialogues: Annotated[int, typer.Option(help="Maximal number of dialogues per system in the HTML page.")] = 200,
) -> None:
    """Compare evaluations on the same problems with the single model: a table, and a PNG of accuracy and tokens."""
    import json
    import os
    import tempfile

    from longshort_verl.evaluation.compare import compare, compare_sets
    from longshort_verl.evaluation.records import read_evaluations
    from longshort_verl.report.evaluation import colours, comparison_table, markdown, plot_comparison, run_rows
    from longshort_verl.report.page import plot_turns, turn_counts, write_page

    try:
        evaluated = read_evaluations(_labelled(folders))
        found, rows = compare(evaluated), run_rows(evaluated)
        sets = compare_sets(evaluated)
        other = _compare_against(evaluated, against)
        said = note.read_text(encoding="utf-8") if note else ""
    except (ValueError, FileNotFoundError) as error:
        raise failure(error) from error
    for name, of_set in sets.items() if len(sets) > 1 else ():
        Console().print(comparison_table(of_set, name))
    Console().print(comparison_table(found, "mean of the sets" if len(sets) > 1 else ""))
    if other:
        Console().print(comparison_table(other, f"against {against}"))
    plot_comparison(found, out, title=title)
    typer.echo(f"accuracy and tokens: {out}")
    if results is not None:
        results.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(f"runs: {results}")
    if page is not None:
        picture = os.path.relpath(out.resolve(), page.resolve().parent)
        page.write_text(
            markdown(found, rows, picture, title=title or "Results", note=said, against=other), encoding="utf-8"
        )
        typer.echo(f"page: {page}")
    if html is not None:
        with tempfile.TemporaryDirectory() as folder:
            pictures = [("accuracy against tokens, and under a budget of tokens", out)]
            if counts := turn_counts(evaluated):
                pictures.append(("share of dialogues by number of turns", Path(folder) / "turns.png"))
                plot_turns(counts, colours(found), pictures[-1][1])
            write_page(
                evaluated, found, sets, rows, pictures, html, title=title or "Results", num_dialogues=max(1, dialogues)
            )
        typer.echo(f"page for a browser: {html}")


def _compare_against(evaluated: list, against: str | None) -> list:
    """Compare with a system other than the single model, on the seeds that both have."""
    from longshort_verl.evaluation.compare import compare
    from longshort_verl.evaluation.records import REFERENCE

    if against is None:
        return []
    seeds = {one.seed for one in evaluated if one.system == against}
    if not seeds:
        systems = ", ".join(dict.fromkeys(one.system for one in evaluated))
        raise ValueError(f"there is no system {against!r} to hold the others against, but {systems}")
    return compare([one for one in evaluated if one.seed in seeds and one.system != REFERENCE], against)


def _labelled(names: list[str]) -> list[tuple[str, Path]]:
    """LABEL=PATH, or a path alone."""
    # A path may hold "=" itself, as Hydra's folders do.
    parts = [("", "", name) if Path(name).exists() else name.partition("=") for name in names]
    return [(label, Path(path)) if path else ("", Path(label)) for label, _, path in parts]
