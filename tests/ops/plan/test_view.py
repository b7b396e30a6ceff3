# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``longshort plan`` as a user meets it: exit status, JSON, and tables within 80 columns."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.ops.plan.view import plan_json, plan_view
from tests.ops.plan.jobs import ON_NODE


@pytest.fixture
def command(recipes, models):
    def run(*arguments, short="qwen2_5_7b"):
        given = ["plan", "--config-dir", str(recipes), "--config-name", "rl", "long_short.short.model.path=hub/none"]
        given += ["--model-config", f"long={models['qwen2_5_7b']}", "--model-config", f"short={models[short]}"]
        return CliRunner().invoke(app, [*given, *arguments])

    return run


def test_exit_status(command):
    assert command(*ON_NODE).exit_code == 0
    misfit = command(*ON_NODE, "--gpu", "4090")
    assert misfit.exit_code == 1
    assert "It does not fit." in misfit.output
    assert "With these settings it fits:" in misfit.output
    for wrong in (["--gpu", "V100"], ["--mean-tokens", "long"], ["--mean-tokens", "long=many"], ["trainer.nnodes=0"]):
        refused = command(*ON_NODE, *wrong)
        assert refused.exit_code == 2, wrong
        assert refused.output.startswith("longshort: ")
        assert "Traceback" not in refused.output


def test_json_is_the_whole_plan(command, planned):
    found = json.loads(command(*ON_NODE, "--json", "--gpu", "A100-80GB").output)
    assert found["fits"]
    assert found["estimate"].startswith("All numbers are estimates")
    assert [phase["name"] for phase in found["phases"]][:3] == ["cache long", "cache short", "rollout"]
    assert found["assumptions"]["context_gib"] == 0.6
    misfit = plan_json(planned("4090", *ON_NODE))
    assert misfit["finding"]["cures"][0].keys() == {"key", "value", "override"}
    assert json.dumps(misfit)


@pytest.mark.parametrize(
    "overrides",
    [
        ON_NODE,
        [*ON_NODE, "long_short.placement=split", "long_short.short_pool.n_gpus_per_node=4"],
        [*ON_NODE, "trainer.nnodes=16"],
    ],
)
def test_everything_is_readable_in_80_columns(overrides, planned):
    plan = planned("RTX-4090", *overrides, short="llama3_1_8b")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_view(plan), crop=False)
    text = console.export_text()
    # Settings stay on a line each, to be copied.
    cures = [f"  {override}" for override in plan.finding.overrides] if plan.finding else []
    lines = [line.rstrip() for line in text.splitlines()]
    assert [line for line in lines if line.startswith("  ")] == cures
    assert all(len(line) <= 80 for line in lines if line not in cures)
    # Nothing is cut but a path, which keeps its end.
    assert "… " not in text
    assert "assumptions" in text
    assert "All numbers are estimates" in text
