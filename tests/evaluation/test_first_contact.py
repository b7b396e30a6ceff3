# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A quick look at a model: a part of a set, some systems, and budgets that the settings do not reach."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.evaluation.config import read_evaluate
from longshort_verl.evaluation.records import parts_of_sets
from longshort_verl.evaluation.systems import first_problems, read_attempts
from longshort_verl.problems.sets import ProblemSet, read_problem_set
from longshort_verl.types import Problem
from tests.support.servers import completion, servers

PROBLEMS = [{"problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(30)]
"""As many as AIME 2024 has."""


@pytest.fixture
def evaluate(tmp_path):
    """Runs `longshort evaluate` on a server whose replies are all 2; gives the command's result and the requests."""
    with servers() as serve:
        server = serve(completion("\\boxed{2}"))
        engine = ["solo.path=tiny", "solo.engine=endpoint", f"solo.endpoint.base_urls=[{server.url}]"]

        def run(*arguments):
            out = ["--out", str(tmp_path / "out")]
            done = CliRunner().invoke(app, ["evaluate", *arguments, *engine, "sampling.samples=1", *out])
            return done, len(server.requests)

        yield run


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    return path


def words(text):
    """Text without the breaks and frames of a table."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("given", ["{}", "aime_2024={}"])
def test_a_part_of_a_set_is_named_as_one_everywhere(evaluate, problems, tmp_path, given):
    name = "mine" if given == "{}" else "aime_2024"
    part = f"{name} (first 4 of 30)"
    done, num_requests = evaluate(given.format(problems), "--limit", "4")
    assert done.exit_code == 0, done.output
    assert num_requests == 4
    assert f"evaluation, {part}" in words(done.output)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    solo = results["systems"]["solo"]
    assert list(solo["sets"]) == [part]
    assert (solo["num_problems"], solo["accuracy"], results["settings"]["limit"]) == (4, 0.25, 4)
    records = [json.loads(line) for line in (tmp_path / "out" / "solo.jsonl").read_text().splitlines()]
    assert {record["set"] for record in records} == {part}
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    done = CliRunner().invoke(app, ["score", str(tmp_path / "out")])
    assert f"evaluation, {part}" in words(done.output)

    done = CliRunner().invoke(
        app, ["report", "evaluation", str(tmp_path / "out"), "--out", str(tmp_path / "report"), "--title", "A model"]
    )
    assert done.exit_code == 0, done.output
    assert f"{part}: 4 problems" in words(done.output)
    page = (tmp_path / "report" / "RESULTS.md").read_text()
    assert page.startswith(f"# A model: {part}\n")
    (row,) = json.loads((tmp_path / "report" / "results.json").read_text())
    assert list(row["sets"]) == [part]
    # A part has no place beside the field's figures on the whole set.
    assert "frontier" not in page


def test_a_part_and_its_set_are_not_compared(evaluate, problems, tmp_path):
    assert evaluate(str(problems), "--limit", "4")[0].exit_code == 0
    done, _ = evaluate(str(problems))
    assert done.exit_code == 1
    assert "limit: 4 then, null now" in done.output
    whole, _ = evaluate(str(problems), "--out", str(tmp_path / "whole"))
    # The last --out of a command counts, which the fixture gives.
    assert whole.exit_code == 1


@pytest.mark.parametrize("limit", [None, 30, 31])
def test_a_limit_that_reaches_the_whole_set_changes_nothing(problems, limit):
    whole = read_problem_set(f"aime_2024={problems}")
    assert first_problems(whole, limit) is whole


def test_a_part_of_a_set_with_choices_keeps_the_order_of_each_sample():
    def problems_of(sample):
        return [Problem(prompt=f"{i}/{sample}", answer="1", source="s", index=i) for i in range(3)]

    part = first_problems(ProblemSet(name="s", num_samples=2, problems_of=problems_of), 2)
    config = read_evaluate(None, ["solo.path=a"])
    attempts = read_attempts([part], config.sampling)
    assert [attempt.key for attempt in attempts] == [f"s (first 2 of 3)/{i}/{k}" for k in (0, 1) for i in (0, 1)]
    assert [attempt.problem.prompt for attempt in attempts] == ["0/0", "1/0", "0/1", "1/1"]


def test_names_of_parts():
    names = ["math500", "math500 (first 50 of 500)", "mine (first draft)"]
    assert parts_of_sets(names) == ["math500 (first 50 of 500)"]


def test_only_the_systems_asked_for_run(evaluate, problems, tmp_path):
    settings = ["early_exit.max_tokens=[0,5]", "baselines.run=[chain_of_draft]"]
    done, num_requests = evaluate(str(problems), "--system", "solo", "--system", "exit_0", *settings)
    assert done.exit_code == 0, done.output
    assert num_requests == 60
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.jsonl")) == ["exit_0", "solo"]
    # Another system later: what is there is not asked again.
    done, num_requests = evaluate(str(problems), "--system", "solo", "--system", "chain_of_draft", *settings)
    assert done.exit_code == 0, done.output
    assert num_requests == 90


def test_the_pairs_models_are_not_opened_for_a_single_system(evaluate, problems):
    # There are no such models: opening them would fail.
    done, num_requests = evaluate(str(problems), "--system", "solo", "long.path=nowhere", "short.path=nowhere")
    assert done.exit_code == 0, done.output
    assert num_requests == 30


def test_an_unknown_system_is_refused_with_those_that_exist(evaluate, problems):
    done, _ = evaluate(str(problems), "--system", "exit_7", "early_exit.max_tokens=[5]")
    assert done.exit_code == 1
    assert words(done.output).startswith("longshort: ")
    assert (
        "systems has 'exit_7', and the models and settings give solo, exit_5; give one of these, or set the model, "
        "early_exit.max_tokens or baselines.run of the system"
    ) in words(done.output)


def test_a_limit_below_one_is_refused(evaluate, problems):
    done, _ = evaluate(str(problems), "--limit", "0")
    assert done.exit_code == 1
    assert "limit is 0" in done.output


def test_budgets_out_of_reach_are_left_out_with_a_line(evaluate, problems, tmp_path):
    done, _ = evaluate(str(problems), "budgets=[5,10,20,40]", "sampling.solo_max_tokens=10")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("budgets left out: [20, 40]; sampling.solo_max_tokens is 10\n")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["systems"]["solo"]["accuracy_within"]) == ["5", "10"]
    assert results["settings"]["budgets"] == [5, 10]


@pytest.mark.parametrize(
    ("overrides", "kept", "left_out"),
    [
        (["solo.path=a", "sampling.solo_max_tokens=100"], (), [1024, 2048, 4096, 8192, 16384]),
        (["solo.path=a"], (1024, 2048, 4096, 8192, 16384), []),
        # No system of the single model runs: its most tokens cut nothing.
        (["long.path=a", "short.path=a", "budgets=[20000]"], (20000,), []),
        (["solo.path=a", "long.path=a", "short.path=a", "budgets=[20000]", "systems=[pair]"], (20000,), []),
    ],
)
def test_which_budgets_are_within_reach(overrides, kept, left_out):
    config, out_of_reach = read_evaluate(None, overrides).within_reach()
    assert (config.budgets, out_of_reach) == (kept, left_out)
