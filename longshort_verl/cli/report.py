# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort report …``: arguments only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from longshort_verl.cli.common import failure, user_errors


def report_importance(
    folder: Annotated[Path, typer.Argument(help="Folder of `longshort importance`.")],
    trace: Annotated[str | None, typer.Option(help="Key of the chain to show in full. Default: the first.")] = None,
) -> None:
    """Show scored thoughts: a table, a picture, and an HTML page with one annotated chain."""
    from longshort_verl.chains.files import read_chains
    from longshort_verl.report.chains import find_chain, plot_importance, thoughts_table, write_page

    with user_errors():
        chains = read_chains(folder)
        shown = find_chain(chains, trace)
    Console().print(thoughts_table(shown))
    plot_importance(chains, shown, folder / "importance.png")
    write_page(chains, shown, folder / "importance.html")
    for name in ("importance.png", "importance.html"):
        typer.echo(f"{folder / name}")


def report_thoughts(
    scored: Annotated[
        list[str],
        typer.Argument(
            help="Folders of `longshort importance`, or their importance.jsonl. Several are pooled; LABEL=PATH draws a "
            "line for each label."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for thoughts.md, thoughts.json and thoughts.png.")],
    metric: Annotated[str | None, typer.Option(help="Metric to recompute. Default: that of the run.")] = None,
    writer: Annotated[bool, typer.Option(help="Grade the chains' own answers too, to compare with.")] = False,
    title: Annotated[str, typer.Option(help="Title of the page and the picture.")] = "",
) -> None:
    """Study thoughts: accuracy, response length and metric along the chains, and their convergence over rollouts."""
    from longshort_verl.report.thoughts import write_study

    with user_errors():
        tables, written = write_study(_labelled(scored), out, metric=metric, writer=writer, title=title)
    for table in tables:
        Console().print(table)
    typer.echo("\n".join(f"written: {path}" for path in written))


def report_rounds(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Runs with rounds named like long-r2_short-r1, or folders of `longshort evaluate` with a pair. "
            "LABEL=FOLDER names a run, or a pair; several of a name are seeds."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for rounds.md, rounds.json and rounds.png.")],
    base: Annotated[
        Path | None, typer.Option(help="Evaluation whose solo, the reasoning model, is the reference of AES.")
    ] = None,
    phrases: Annotated[Path | None, typer.Option(help="File of phrases to count, one a line.")] = None,
    phrase: Annotated[list[str] | None, typer.Option(help="A phrase to count; may be repeated.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page and the picture.")] = "",
) -> None:
    """Show the rounds of training as the paper does: accuracy, lengths, AES, turns, phrases, and the path of rounds."""
    from longshort_verl.report.rounds import PHRASES, read_phrases, write_rounds

    try:
        counted = [*(phrase or []), *(read_phrases(phrases or PHRASES) if phrases or not phrase else [])]
        tables, written = write_rounds(_labelled(folders), out, base=base, phrases=counted, title=title)
    except (ValueError, OSError) as error:
        raise failure(error) from error
    for table in tables:
        Console().print(table)
    typer.echo("\n".join(f"written: {path}" for path in written))


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
            help="Folders of `longshort evaluate`, folders of such folders, as examples/pipeline.sh writes them, or "
            "packed dialogues. LABEL=FOLDER names a pair; several folders of a label are seeds."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for RESULTS.md, results.json and results.png.")],
    title: Annotated[str, typer.Option(help="Title of the page and the picture.")] = "Results",
    note: Annotated[Path | None, typer.Option(help="Markdown file to insert below the page's title.")] = None,
    against: Annotated[str | None, typer.Option(help="A second system to compare all others with.")] = None,
    html: Annotated[
        bool, typer.Option(help="Write results.html too: tables, pictures and dialogues in one file.")
    ] = False,
    dialogues: Annotated[int, typer.Option(help="Maximal number of dialogues per system in the HTML page.")] = 200,
    pack: Annotated[bool, typer.Option(help="Write all dialogues too, to results/<seed>.tar.xz.")] = False,
) -> None:
    """Compare evaluations on the same problems with the single model: tables, a picture and a page."""
    from longshort_verl.report.results import write_results

    try:
        tables, written = write_results(
            _labelled(folders), out, title=title, note=note, against=against, html=dialogues if html else 0, pack=pack
        )
    except (ValueError, FileNotFoundError) as error:
        raise failure(error) from error
    for table in tables:
        Console().print(table)
    typer.echo("\n".join(f"written: {path}" for path in written))


def _labelled(names: list[str]) -> list[tuple[str, Path]]:
    """LABEL=PATH, or a path alone."""
    # A path may hold "=" itself, as Hydra's folders do.
    parts = [("", "", name) if Path(name).exists() else name.partition("=") for name in names]
    return [(label, Path(path)) if path else ("", Path(label)) for label, _, path in parts]
