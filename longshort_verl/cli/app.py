# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The command ``longshort``: one subcommand per stage."""

from __future__ import annotations

import typer

from longshort_verl.cli import data, evaluation, ops, report, serving

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Long⊗Short for verl: prepare data, train, evaluate and serve a pair of models.",
)
for command in (data.problems, data.traces, data.chunk, data.importance):
    app.command()(command)
app.command("cold-start")(data.cold_start)
for command in (evaluation.evaluate, evaluation.score, serving.export, serving.serve, ops.plan, ops.doctor):
    app.command()(command)

data_app = typer.Typer(no_args_is_help=True, help="Show data.")
data_app.command("inspect")(data.inspect)
app.add_typer(data_app, name="data")

report_app = typer.Typer(no_args_is_help=True, help="Show results as tables, pictures and pages.")
report_app.command("importance")(report.report_importance)
report_app.command("thoughts")(report.report_thoughts)
report_app.command("rl")(report.report_rl)
report_app.command("rounds")(report.report_rounds)
report_app.command("evaluation")(report.report_evaluation)
app.add_typer(report_app, name="report")
