# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Systems side by side: paired differences and their intervals, tokens, AES, budgets, and the picture."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.evaluation.compare import compare, compare_sets
from longshort_verl.evaluation.records import read_evaluations
from longshort_verl.report.evaluation import comparison_table, markdown, run_rows


def solo_row(index, right, tokens):
    return {"index": index, "problem": f"{index}+1", "gold": "1", "correct": right, "num_tokens": tokens}


def pair_row(index, right, tokens, rethink=False):
    turns = [
        {"role": "long", "text": "<think>a</think>", "well_formed": True, "num_tokens": tokens - 5},
        {"role": "short", "text": "<answer>a</rethink>" if rethink else "<answer>b", "well_formed": rethink},
    ]
    split = {"num_tokens_long": tokens - 5, "num_tokens_short": 5}
    return {**solo_row(index, right, tokens), **split, "turns": turns}


def write(folder, **systems):
    folder.mkdir(parents=True)
    for name, rows in systems.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_manifest(folder, *, seed, command="c", minutes=11.4):
    """The manifest of an evaluation that took two minutes, of models that took the rest."""
    manifest = {"command": command, "commit": "abc", "machine": "two cores", "config": {"sampling": {"seed": seed}}}
    manifest |= {"inputs": {}, "finished": True, "seconds": 120, "lineage": [{"seconds": 60 * minutes - 120}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def two_seeds(tmp_path):
    """Of four problems the model alone is right on two with 100 tokens, the pair on three, then on all, with 20."""
    solo = [solo_row(i, i < 2, 100) for i in range(4)]
    return [
        write(tmp_path / "s1", solo=solo, pair=[pair_row(i, i < 3, 20, rethink=i == 0) for i in range(4)]),
        write(tmp_path / "s2", solo=solo, pair=[pair_row(i, True, 20) for i in range(4)]),
    ]


def test_numbers_by_hand(two_seeds):
    reference, pair = compare(read_evaluations([("ours", folder) for folder in two_seeds]))
    assert (reference.system, pair.system) == ("solo", "ours")
    assert (reference.num_seeds, pair.num_seeds) == (1, 2), "the same replies twice are one seed"
    assert (pair.accuracy.mean, pair.accuracy.low, pair.accuracy.high) == (0.875, 0.75, 1.0)
    assert pair.difference == 0.375
    assert pair.saved == pytest.approx(0.8)
    # 0.8 of the tokens saved, and accuracy 0.875 / 0.5 - 1 = 0.75 higher
    assert pair.aes == pytest.approx(0.8 + 3 * 0.75)
    # 12.5, 25, 50 and 100 tokens
    assert pair.budgets == (0.0, 0.875, 0.875, 0.875)
    assert reference.budgets == (0.0, 0.0, 0.0, 0.5)
    assert pair.details["num_tokens_long"].mean == 15
    assert pair.details["rethink_share"].high == 0.25
    assert reference.difference == 0
    assert reference.verdict == "no difference"


def test_intervals_of_aes_cover_and_are_paired(tmp_path):
    # Over draws of 40 problems, of a pair that is right on 80 % with 20 tokens against 60 % with 100.
    rng, true, covered = np.random.default_rng(3), 0.8 + 3 * (0.8 / 0.6 - 1), 0
    for number in range(30):
        base, right = rng.random(40) < 0.6, rng.random(40) < 0.8
        solo = [solo_row(i, bool(base[i]), int(rng.integers(50, 151))) for i in range(40)]
        pair = [pair_row(i, bool(right[i]), int(rng.integers(10, 31))) for i in range(40)]
        folder = write(tmp_path / str(number), solo=solo, pair=pair)
        low, high = compare(read_evaluations([("", folder)]))[1].aes_interval
        covered += low <= true <= high
    assert 25 <= covered <= 30
    # Two systems that differ on three problems of 40, always for the better: each interval is wide, that of their
    # difference is not.
    worse = [pair_row(i, i not in (0, 1, 2, 3) and bool(right[i]), 20) for i in range(40)]
    better = [pair_row(i, i in (0, 1, 2, 3) or bool(right[i]), 20) for i in range(40)]
    folder = write(tmp_path / "two", solo=solo, worse=worse, better=better)
    _, found_better, found_worse = compare(read_evaluations([("", folder)]))
    assert found_worse.aes_interval[1] > found_better.aes_interval[0]
    assert (found_better.aes_verdict(found_worse), found_worse.aes_verdict(found_better)) == ("higher", "lower")
    assert found_better.aes_verdict(found_better) == "no difference"


def test_sets_weigh_alike_and_samples_are_means(tmp_path):
    # Of a large set the pair is right on all, of a small one on a half, the model by itself on a half and on all.
    def rows(make, large, small, samples=1):
        return [
            {**make(i, right, tokens), "set": name, "sample": k}
            for name, rights, tokens in (("large", large, 10), ("small", small, 20))
            for k in range(samples)
            for i, right in enumerate(rights)
        ]

    solo = rows(solo_row, [i % 2 == 0 for i in range(40)], [True] * 4)
    pair = rows(pair_row, [True] * 40, [True, False] * 2, samples=3)
    folder = write(tmp_path / "a", solo=solo, pair=pair)
    evaluated = read_evaluations([("", folder)])
    reference, found = compare(evaluated)
    assert (reference.accuracy.mean, found.accuracy.mean) == (0.75, 0.75), "not 24 of 44, and 42 of 44"
    assert (reference.num_tokens.mean, found.num_tokens.mean, found.num_problems) == (15, 15, 44)
    assert found.verdict == "no difference"
    sets = compare_sets(evaluated)
    assert [(name, of[1].difference, of[1].verdict) for name, of in sets.items()] == [
        ("large", 0.5, "higher"),
        ("small", -0.5, "no difference"),
    ]
    (row, _) = run_rows(evaluated)
    assert (row["system"], row["problems"], row["samples"], row["accuracy"]) == ("pair", 44, 3, 0.75)
    assert {name: of["accuracy"] for name, of in row["sets"].items()} == {"large": 1.0, "small": 0.5}
    done = CliRunner().invoke(app, ["report", "evaluation", str(folder), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "large: 40 problems" in done.output
    assert "mean of the sets: 44 problems" in done.output


def test_only_what_all_seeds_tell_is_told(two_seeds):
    told = {"fault": "", "stop_reason": "answered", "num_tokens_reprefilled": 7}
    rows = [json.loads(line) | told for line in (two_seeds[1] / "pair.jsonl").read_text().splitlines()]
    (two_seeds[1] / "pair.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = compare(read_evaluations([("ours", folder) for folder in two_seeds]))[1]
    assert not {"truncated", "num_tokens_reprefilled"} & set(both.details)
    alone = compare(read_evaluations([("ours", two_seeds[1])]))[1]
    assert (alone.details["truncated"].mean, alone.details["num_tokens_reprefilled"].mean) == (0.0, 7.0)


def test_what_a_model_wrote_breaks_no_record(tmp_path):
    row = {**solo_row(0, True, 9), "text": "a\u2028b\x85c\r\nd"}
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "solo.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_evaluations([("", folder)])[0].records[0]["text"] == row["text"]


def test_a_difference_inside_its_interval_is_none(tmp_path):
    rng = np.random.default_rng(2)
    solo = [solo_row(i, bool(right), 100) for i, right in enumerate(rng.random(50) < 0.5)]
    near = [pair_row(i, row["correct"] or i == 3, 20) for i, row in enumerate(solo)]
    far = [pair_row(i, i % 10 != 0, 20) for i in range(50)]
    folder = write(tmp_path / "one", solo=solo, pair=near, far=far)
    _, found_far, found_near = compare(read_evaluations([("near", folder)]))
    assert (found_near.system, found_near.verdict) == ("near", "no difference")
    assert (found_far.system, found_far.verdict) == ("far", "higher")


def test_table_and_picture(two_seeds, tmp_path):
    named = [f"ours={folder}" for folder in two_seeds]
    done = CliRunner().invoke(app, ["report", "evaluation", *named, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "ours (2)" in done.output
    assert Image.open(tmp_path / "results.png").size[0] > 1000
    console = Console(width=80)
    with console.capture() as capture:
        console.print(comparison_table(compare(read_evaluations([("ours", folder) for folder in two_seeds]))))
    assert "80.0%" in capture.get()


def test_a_model_in_a_folder_of_its_own_is_compared_with_the_reference_of_its_seed(two_seeds, tmp_path):
    other = write(tmp_path / "other", solo=[solo_row(i, i < 3, 50) for i in range(4)])
    with pytest.raises(ValueError, match="no other folder of its seed does"):
        compare(read_evaluations([("ours", two_seeds[0]), ("single", other)]))
    for folder in (two_seeds[0], other):
        write_manifest(folder, seed=1)
    found = {one.system: one for one in compare(read_evaluations([("ours", two_seeds[0]), ("single", other)]))}
    assert (found["single"].difference, found["single"].saved) == (0.25, 0.5)
    assert found["solo"].num_seeds == 1


def test_results_and_page(two_seeds, tmp_path):
    write_manifest(two_seeds[1], seed=2, command="a | b")
    named = [f"ours={folder}" for folder in two_seeds]
    files = ["--out", str(tmp_path / "page")]
    (tmp_path / "note.md").write_text("Forty steps *each*.\n")
    more = ["--title", "Ours", "--note", str(tmp_path / "note.md")]
    done = CliRunner().invoke(app, ["report", "evaluation", *named, *files, *more])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "page" / "results.json").read_text())
    assert [(row["system"], row["seed"]) for row in rows] == [("ours", None), ("solo", None), ("ours", 2), ("solo", 2)]
    ours = rows[2]
    assert (ours["minutes"], ours["commit"], ours["machine"]) == (11.4, "abc", "two cores")
    assert (ours["problems"], ours["accuracy"], ours["tokens_mean"]) == (4, 1.0, 20.0)
    assert (ours["tokens_long"], ours["tokens_short"], ours["rethink_share"]) == (15.0, 5.0, 0.0)
    assert rows[1]["accuracy_low"] <= 0.5 <= rows[1]["accuracy_high"]
    assert rows[1]["tokens_long"] is None
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert page.startswith("# Ours\n\nForty steps *each*.\n\n")
    assert "at most 1 point of accuracy lost. Systems that meet it on average: ours. Systems that meet it with" in page
    assert "in accuracy: the same.\n" in page
    assert "(weights 1/3/5 of" in page
    assert "highest first: ours 3.05. Systems whose difference from ours is within" in page
    assert "| ours | 2 | 87.5% (75.0% to 100.0%) | +37.5 (" in page
    assert "](results.png)" in page
    assert "| `a \\| b` |" in page, "a bar in a cell would end it"
    (two_seeds[0] / "manifest.json").write_text("[]")
    done = CliRunner().invoke(app, ["report", "evaluation", *named, *files])
    assert done.exit_code == 1
    assert "is not a manifest" in done.output.replace("\n", " ")


def test_systems_are_held_against_another_than_the_model_by_itself(tmp_path):
    folders = {}
    for seed, names in ((1, ("pair", "joint")), (2, ("pair",))):
        for name in names:
            right = range(80 + seed) if name == "pair" else range(50)
            rows = [pair_row(i, i in right, 20 if name == "pair" else 10) for i in range(100)]
            folders[name, seed] = write(tmp_path / f"{name}{seed}", pair=rows)
        folders["solo", seed] = write(tmp_path / f"solo{seed}", solo=[solo_row(i, i < 40, 100) for i in range(100)])
    for (_, seed), folder in folders.items():
        write_manifest(folder, seed=seed)
    named = [str(folder) if name == "solo" else f"{name}={folder}" for (name, _), folder in folders.items()]
    command = ["report", "evaluation", *named, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--against", "pair"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "RESULTS.md").read_text()
    section = page[page.index("## Against pair") : page.index("## Runs")]
    # On seed 1 alone, where the pair has 81 right.
    assert re.search(r"\| joint \| 1 \| -31.0 \(-\d+.\d to -\d+.\d\): lower \| 50% \|", section), section
    assert "solo" not in section
    done = CliRunner().invoke(app, [*command, "--against", "other"])
    assert done.exit_code == 1
    assert "there is no system 'other' to compare with; there are pair, joint, solo" in done.output


def test_runs_are_found_by_their_manifests_and_again_in_packed_dialogues(tmp_path):
    for seed in (1, 2):
        out = tmp_path / "runs" / str(seed)
        write_manifest(write(out / "solo", solo=[solo_row(i, i < 4 + seed, 100) for i in range(10)]), seed=seed)
        write_manifest(write(out / "single" / "evaluation", solo=[solo_row(i, True, 50) for i in range(10)]), seed=seed)
        for system in ("joint", "pair"):
            for name in ("evaluation", "cold_start_evaluation"):
                rows = [pair_row(i, i < 8, 20) for i in range(10)]
                write_manifest(write(out / system / name, pair=rows), seed=seed)
        (out / "problems").mkdir()
        write_manifest(out / "problems", seed=seed)
    command = ["report", "evaluation", "--against", "pair", "--pack", "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "a"), str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "a" / "results.json").read_text())
    systems = ["solo", "cold_start", "pair", "single", "joint"]
    assert [(row["system"], row["seed"]) for row in rows] == [(name, seed) for name in systems for seed in (1, 2)]
    packed = [str(tmp_path / "a" / "results" / f"{seed}.tar.xz") for seed in (1, 2)]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "b"), *packed])
    assert done.exit_code == 0, done.output
    for name in ("results.json", "RESULTS.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_claim_that_is_missed_is_not_made(tmp_path):
    solo = [solo_row(i, True, 100) for i in range(100)]
    systems = {
        # Too many tokens; too often wrong; one in a hundred wrong, inside the interval or not; all that is asked.
        "greedy": [solo_row(i, True, 30) for i in range(100)],
        "hasty": [solo_row(i, i > 1, 10) for i in range(100)],
        "lucky": [solo_row(i, i > 0, 10) for i in range(100)],
        "sure": [solo_row(i, True, 20) for i in range(100)],
    }
    folder = write(tmp_path / "all", solo=solo, **systems)
    found = compare(read_evaluations([("", folder)]))
    page = markdown(found, run_rows(read_evaluations([("", folder)])), "a.png", title="All")
    assert "on average: lucky, sure. Systems that meet it with the whole 95 % interval" in page
    assert "in accuracy: sure.\n" in page
    assert "highest first: lucky 0.85, sure 0.80, hasty 0.80, greedy 0.70. Systems whose difference from lucky" in page
    assert "tell them apart: sure, hasty.\n" in page, "what is sure of its accuracy is sure to lose to none"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no evaluation"),
        ({"pair": [pair_row(0, True, 9)]}, "holds no solo.jsonl, and no other"),
        ({"solo": [{"problem": "1"}]}, "line 1, is not a record"),
        ({"solo": []}, "holds no record"),
        ({"solo": [solo_row(0, True, 9)], "pair": [pair_row(1, True, 9)]}, "has other problems than"),
        ({"solo": [solo_row(0, True, 9)], "pair": [{**pair_row(0, True, 9), "gold": "2"}]}, "has other problems than"),
        ({"solo": [solo_row(0, True, 9), solo_row(0, False, 9)]}, "the same problem and sample twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, files, said):
    folder = write(tmp_path / "x", **files)
    done = CliRunner().invoke(app, ["report", "evaluation", str(folder), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert said in done.output


def test_nothing_is_relative_to_a_reference_that_is_never_right(tmp_path):
    folder = write(tmp_path / "x", solo=[solo_row(0, False, 9)], pair=[pair_row(0, True, 9)])
    _, pair = compare(read_evaluations([("", folder)]))
    assert (pair.aes, pair.difference) == (None, 1.0)
