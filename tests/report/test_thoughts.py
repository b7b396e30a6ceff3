# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The study of thoughts, on files of the package's own writer: means, what is left out, and convergence by hand."""

import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.chains.files import write_chains
from longshort_verl.cli.app import app
from longshort_verl.importance import MetricSettings, hoeffding, importance, interpolate
from longshort_verl.report.thoughts import Study, convergence, study_results, study_tables, subsampling_error
from longshort_verl.types import Chain, ChainOutcome, Problem, Thought

METRIC = MetricSettings(metric="gain", penalty=0.25, first="compare", decay=0.5, length_weight=0.1, alpha=0.05)


def scored(key, counts, text="", tokens=None):
    """A chain with so many right rollouts of so many after 0, 1, … thoughts; None was not rolled out."""
    lengths = (10,) * (len(counts) - 1)
    seen = [count and replace(hoeffding(*count, 0.01), response_tokens=tokens) for count in counts]
    values = interpolate(seen, lengths)
    texts = [f"thought {i}\n\n" for i in range(len(lengths))]
    return Chain(
        key=key,
        outcome=ChainOutcome.SCORED,
        problem=Problem(prompt="1+1", answer="2", source="s", index=0),
        text="".join(texts) + text,
        thoughts=tuple(Thought(text=one, kind="", num_steps=1) for one in texts),
        lengths=lengths,
        values=tuple(values),
        scores=tuple(importance(values, lengths, METRIC)),
    )


@pytest.fixture
def folder(tmp_path):
    """Two scored chains, one of them with a thought that was not rolled out, and a row without scores."""
    first, second = scored("1", [(2, 8), None, (8, 8)], tokens=100.0), scored("2", [(6, 8), (4, 8)], tokens=300.0)
    write_chains(tmp_path / "importance.jsonl", [first, Chain(key="bad", outcome=ChainOutcome.NOT_JSON), second])
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["report", "thoughts", *map(str, arguments)], env={"COLUMNS": "80"})


def test_the_command_writes_means_over_chains_and_counts_what_it_leaves_out(folder):
    done = run(folder, "--metric", "gain", "--out", folder / "out")
    assert done.exit_code == 0, done.output
    assert (folder / "out" / "thoughts.png").stat().st_size > 10_000
    found = json.loads((folder / "out" / "thoughts.json").read_text())[""]
    assert found["chains"] == 2
    assert found["rows_without_scores"] == 1
    assert (found["values"], found["values_without_rollouts"]) == (5, 1)
    # Both thoughts of the first chain touch the value that was not rolled out.
    assert (found["thoughts"], found["thoughts_without_rollouts"]) == (3, 2)
    none, one, two = found["by_thoughts"]
    # (2/8 + 6/8) / 2 after no thought. After one, the second chain's 4/8 alone. After two, the first's 8/8 alone.
    assert (none["accuracy"]["mean"], none["accuracy"]["chains"]) == (0.5, 2)
    # Resamples of two chains are (1/4, 1/4), (3/4, 3/4) and mixtures, each end with probability 1/4.
    assert (none["accuracy"]["low"], none["accuracy"]["high"]) == (0.25, 0.75)
    assert one["accuracy"] == {"chains": 1, "mean": 0.5}
    assert two["accuracy"] == {"chains": 1, "mean": 1.0}
    assert [row["response_tokens"]["mean"] for row in (none, one, two)] == [200, 300, 100]
    # gain: 4/8 − 6/8.
    assert one["importance"] == {"chains": 1, "mean": -0.25}
    assert two["importance"] is None
    assert none["importance"] is None
    assert "1 of 5 values and 2 of 3 thoughts" in (folder / "out" / "thoughts.md").read_text()
    assert all(len(line) <= 80 for line in done.output.splitlines() if "written" not in line)


def test_a_subsample_of_counts_is_hypergeometric():
    # 2 of 4 right, 2 drawn: none, one or two right with probability 1/6, 4/6, 1/6; off by 1/2, 0, 1/2.
    assert subsampling_error(2, 4, 2) == pytest.approx(1 / 6)
    assert subsampling_error(3, 3, 2) == 0
    # 8 of 16 right, 8 drawn: k right with C(8,k)²/12870; twice (1·0.5 + 64·0.375 + 784·0.25 + 3136·0.125)/12870.
    assert subsampling_error(8, 16, 8) == pytest.approx(1225 / 12870)


def test_the_metric_converges_like_the_accuracy_that_it_depends_on():
    # gain = p_1 − 0: its error is that of p_1 alone, because 0 of 16 stays 0 in any subsample. The last chain has too
    # few rollouts to be compared at 16.
    chains = [scored("1", [(0, 16), (8, 16)]), scored("2", [(1, 8), (4, 8)])]
    study = Study(label="", chains=chains, settings=METRIC, num_rows=2)
    eight, sixteen = convergence(study)
    assert (eight["rollouts"], sixteen["rollouts"]) == (8, 16)
    assert (eight["values"], eight["thoughts"]) == (2, 1)
    assert eight["accuracy"] == pytest.approx(1225 / 12870 / 2), "the mean of p_0, without error, and p_1"
    assert eight["importance"] == pytest.approx(1225 / 12870, abs=0.01)
    assert sixteen["accuracy"] == sixteen["importance"] == 0
    assert convergence(replace(study, chains=[scored("3", [(0, 4), (4, 4)])])) == []


def test_the_writers_own_answers_are_graded():
    chains = [scored("1", [(0, 8), (8, 8)], "\\boxed{2}"), scored("2", [(0, 8), (8, 8), (8, 8)], "\\boxed{3}")]
    study = Study(label="", chains=chains, settings=METRIC, num_rows=2)
    found = study_results(study, writer=True)
    assert found["writer"] == {"accuracy": 0.5, "thinking_tokens": 15}, "10 and 20 tokens"
    console = Console(width=80, record=True)
    console.print(*study_tables("", found))
    assert "accuracy 0.500, thinking of 15 tokens" in " ".join(console.export_text().split())


def test_files_that_cannot_be_studied(folder, tmp_path):
    (tmp_path / "none").mkdir()
    write_chains(tmp_path / "none" / "importance.jsonl", [Chain(key="bad", outcome=ChainOutcome.NOT_JSON)])
    for arguments, message in (
        ([tmp_path / "none"], "has no scored chain"),
        ([tmp_path / "missing"], "there is no file"),
        ([folder, "--metric", "worth"], "unknown metric 'worth'"),
    ):
        done = run(*arguments, "--out", tmp_path / "out")
        assert done.exit_code == 1
        assert message in done.stderr
