# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The rounds of training in the paper's tables, on files of the package's own writer: every number by hand."""

import json
import re
from statistics import fmean

import pytest
import yaml
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.dialogue import parse_turn
from longshort_verl.evaluation.records import evaluation_results, write_evaluation
from longshort_verl.evaluation.run import dialogue_record
from longshort_verl.problems.sets import PUBLISHED
from longshort_verl.report.rounds import (
    PAPER_ROWS,
    PHRASES,
    WARNING,
    find_rounds,
    paper_rows,
    read_phrases,
    read_rounds,
)
from longshort_verl.types import Dialogue, FinishReason, Problem, Role, StopReason, Turn

QUICK = [(10, "<think>wait, 1+1</think>"), (5, "<answer>\\boxed{2}</answer>")]
"""15 tokens; turns of 24 and 26 characters."""
SLOW = [
    (20, "<think>Waiting</think>"),
    (15, "<answer>no</rethink>"),
    (30, "<think>Hold\non: that’s 2</think>"),
    (20, "<answer>\\boxed{2}</answer>"),
]
"""85 tokens; turns of 22, 20, 32 and 26 characters."""


def graded(index, correct, of_set):
    return {
        "set": of_set,
        "index": index,
        "sample": 0,
        "problem": f"problem {index}",
        "gold": "2",
        "correct": correct,
        "extracted": "2",
        "fault": "",
        "stop_reason": "answered",
        "detail": "",
    }


def reply(index, correct, turns, of_set="val"):
    """A record of a pair whose roles alternate."""
    roles = [(Role.LONG, Role.SHORT)[number % 2] for number in range(len(turns))]
    dialogue = Dialogue(
        problem=Problem(prompt=f"problem {index}", answer="2", source="s", index=index),
        turns=tuple(
            Turn(
                role=role,
                parsed=parse_turn(role, text),
                raw=text,
                finish=FinishReason.STOP,
                num_prompt_tokens=1,
                num_tokens=tokens,
            )
            for role, (tokens, text) in zip(roles, turns, strict=True)
        ),
        stop_reason=StopReason.ANSWERED,
    )
    return graded(index, correct, of_set) | dialogue_record(dialogue)


def write(folder, system, records):
    write_evaluation(folder, {system: records}, {system: evaluation_results(records, [1024])}, {})
    return folder


@pytest.fixture
def run(tmp_path):
    """Three rounds on two problems, right on none, one and both; and a base that is right on one with 100 tokens."""
    for place, right in (("long-r1_short-r1", 2), ("long-r0_short-r0", 0), ("long-r1_short-r0", 1)):
        records = [reply(i, i < right, turns) for i, turns in enumerate((QUICK, SLOW))]
        write(tmp_path / "run" / "rounds" / place, "pair", records)
    solo = [graded(i, i < 1, "val") | {"num_tokens": 100, "num_tokens_prompts": 1, "text": "x" * 150} for i in range(2)]
    write(tmp_path / "base", "solo", solo)
    return tmp_path


def report(*arguments):
    return CliRunner().invoke(app, ["report", "rounds", *map(str, arguments)], env={"COLUMNS": "80"})


def test_the_tables_of_a_run(run):
    done = report(
        run / "run", "--base", run / "base", "--out", run / "out", "--phrase", "rethink", "--phrase", "hold on"
    )
    assert done.exit_code == 0, done.output
    assert (run / "out" / "rounds.png").stat().st_size > 5_000
    found = json.loads((run / "out" / "rounds.json").read_text())
    first, second, third = found["rounds"]
    assert [one["name"] for one in found["rounds"]] == ["L0S0", "L1S0", "L1S1"], "in the order of training"
    assert [one["accuracy"] for one in found["rounds"]] == [0.0, 0.5, 1.0]
    # (15 + 85) / 2 tokens; (24 + 26 + 22 + 20 + 32 + 26) / 2 = 75 characters.
    assert (first["tokens"], first["characters"]) == (50, 75)
    # Half of the base's 100 tokens and 150 characters. 0.5 − 5 · 0.5/0.5; 0.5 + 0; 0.5 + 3 · 0.5/0.5.
    for one, score in ((first, -4.5), (second, 0.5), (third, 3.5)):
        assert one["aes"]["tokens"]["mean"] == pytest.approx(score)
        assert one["aes"]["characters"]["mean"] == pytest.approx(score)
    of_set = first["sets"]["val"]
    assert of_set["turns"] == {"min": 2, "mean": 3.0, "max": 4}
    # Long turns: (10 + 20 + 30) / 3 tokens, (24 + 22 + 32) / 3 characters.
    # Short turns: (5 + 15 + 20) / 3 tokens, (26 + 20 + 26) / 3 characters.
    assert of_set["thoughts"] == {
        "long_tokens": 20,
        "long_characters": 26,
        "short_tokens": pytest.approx(40 / 3),
        "short_characters": 24,
    }
    # "Hold\non" is a phrase; the tag </rethink> is not, but it counts as a request.
    assert (of_set["phrase_share"], of_set["rethink_share"]) == (0.5, 0.5)
    assert found["paper"] == [], "no set of the paper was run"
    page = (run / "out" / "rounds.md").read_text()
    assert "| L1S1 | 100.0 (100.0 to 100.0) | 100.0 (100.0 to 100.0) | 50 | 75 | 3.50" in page
    assert "| L0S0 | val | 2, 3.00, 4 | 20 | 13 | 26 | 24 |" in page
    assert "| L0S0 | 50.0 (50.0) |" in page
    assert all(len(line) <= 80 for line in done.output.splitlines() if "written" not in line)


def test_phrases_are_whole_words_in_any_case(run):
    done = report(run / "run", "--out", run / "out")
    assert done.exit_code == 0, done.output
    found = json.loads((run / "out" / "rounds.json").read_text())
    # The defaults: "wait" in the first reply; in the second not "Waiting", but "Hold\non".
    assert found["rounds"][0]["sets"]["val"]["phrase_share"] == 1
    assert found["phrases"] == read_phrases(PHRASES)
    assert found["rounds"][0]["aes"]["tokens"] is None
    assert "AES is left out: give --base" in " ".join(done.output.split())
    assert report(run / "run", "--phrase", "rethink", "--out", run / "out").exit_code == 0
    found = json.loads((run / "out" / "rounds.json").read_text())
    assert found["rounds"][0]["sets"]["val"]["phrase_share"] == 0, "the tag </rethink> is no phrase"
    (run / "mine.txt").write_text("# mine\n\nthat's 2\n")
    assert report(run / "run", "--phrases", run / "mine.txt", "--out", run / "out").exit_code == 0
    found = json.loads((run / "out" / "rounds.json").read_text())
    assert found["phrases"] == ["that's 2"]
    assert found["rounds"][0]["sets"]["val"]["phrase_share"] == 0.5


def test_folders_of_one_name_are_seeds_and_others_have_a_row_each(run):
    last = run / "run" / "rounds" / "long-r1_short-r1"
    other = write(run / "other", "pair", [reply(i, False, QUICK) for i in range(2)])
    named = find_rounds([("", run / "run" / "rounds"), ("L1S1", other), ("", other), ("A", run / "run")])
    rounds, _ = read_rounds([one for one in named if one[0] == "" or one[1] == last.name], None)
    found = [(one.label, one.place, len(one.runs)) for one in rounds]
    assert found == [
        (str(other), None, 1),
        ("L0S0", (0, 0), 1),
        ("L1S0", (1, 0), 1),
        ("L1S1", (1, 1), 2),
        ("A L1S1", (1, 1), 1),
    ]


def test_the_papers_rows_stand_beside_sets_that_were_run_whole():
    part = {"aime_2024": {"problems": 30}, "math500": {"problems": 499}}
    rows = paper_rows(part)
    assert len(rows) == 32
    assert rows[0] == {
        "family": "qwen2_5_7b",
        "system": "R1-Distill",
        "sets": {"aime_2024": pytest.approx(0.5333)},
        "accuracy": None,
        "length": None,
        "aes": None,
    }
    assert paper_rows({"val": {"problems": 30}, "math500": {"problems": 499}}) == []
    whole = {
        name: {"problems": PUBLISHED[name].num_problems} for name in yaml.safe_load(PAPER_ROWS.read_text())["sets"]
    }
    assert len(whole) == 5
    last = next(row for row in paper_rows(whole) if row["system"] == "L4S2")
    # (89.80 + 46.67 + 33.33 + 47.97 + 90.00) / 5.
    assert last["accuracy"] == pytest.approx(0.61554)
    assert (last["length"], last["aes"]) == (2113, 0.61)
    # Our mean over six sets is not the paper's over five.
    assert paper_rows({**whole, "gsm8k": {"problems": 1319}})[0]["accuracy"] is None


def test_the_papers_rows_are_marked_and_come_with_a_warning(tmp_path):
    write(tmp_path / "long-r0_short-r0", "pair", [reply(i, True, QUICK, of_set="aime_2024") for i in range(30)])
    done = report(tmp_path / "long-r0_short-r0", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "rounds.md").read_text()
    assert WARNING in page
    # 53.33 % on AIME 2024 alone: the paper's means are over five sets.
    assert re.search(r"^\| † qwen2_5_7b R1-Distill \| 53\.3 \|", page, re.MULTILINE)


def test_the_papers_grid_agrees_with_its_rows():
    published = yaml.safe_load(PAPER_ROWS.read_text())
    differing = [
        row["system"]
        for row in published["rows"]
        if row["system"][0] == "L"
        and abs(fmean(row["accuracy"]) - published["grid"][row["family"]][int(row["system"][3])][int(row["system"][1])])
        > 0.011
    ]
    assert differing == ["L0S0"], "Qwen's, 46.47 in one and 46.82 in the other"


def test_what_cannot_be_reported(run):
    (run / "empty").mkdir()
    (run / "empty" / "phrases.txt").write_text("# none\n")
    records = [{**reply(i, True, QUICK), "turns": [{"role": "long"}]} for i in range(2)]
    single = run / "single"
    single.mkdir()
    (single / "pair.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    elsewhere = write(run / "elsewhere", "pair", [reply(7, True, QUICK)])
    for arguments, message in (
        ([run / "empty"], "holds no pair.jsonl, nor folders such as long-r2_short-r1"),
        ([single], "the reply to problem 0 is not a pair's dialogue"),
        ([run / "run", elsewhere], "has other problems than"),
        ([run / "run", "--base", run / "run" / "rounds" / "long-r0_short-r0"], "holds no solo.jsonl"),
        ([run / "run", "--phrases", run / "empty" / "phrases.txt"], "has no phrase"),
        ([run / "run", "--phrases", run / "missing"], "No such file"),
    ):
        done = report(*arguments, "--out", run / "out")
        assert done.exit_code == 1, done.output
        assert message in done.stderr
    assert not (run / "out").exists()
