# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Writing and splitting problems.

What must not drift:
- the parquet has exactly verl's nested types, and the same problems give the same bytes;
- a split never has one problem text on both sides.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longshort_verl.files.manifest import ManifestError
from longshort_verl.problems.read import ProblemFileError, read_problems
from longshort_verl.problems.values import canonical_answer
from longshort_verl.problems.write import make_training_files, split_problems, write_problems
from longshort_verl.types import Problem
from tests.problems.samples import GOOD, make_problem, make_problems, refusal, save

# Writing -------------------------------------------------------------------------------------------------------------


def test_written_types_are_verls(tmp_path: Path) -> None:
    path = write_problems([make_problem("Q", answer="7", index=4, source="s")], tmp_path / "x.parquet", split="train")
    table = pq.ParquetFile(path).read()
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("data_source", "string"),
        ("prompt", "list<element: struct<role: string, content: string>>"),
        ("ability", "string"),
        ("reward_model", "struct<style: string, ground_truth: string>"),
        ("extra_info", "struct<index: int64, split: string>"),
    ]
    assert table.to_pylist() == [
        {
            "data_source": "s",
            "prompt": [{"role": "user", "content": "Q"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "7"},
            "extra_info": {"index": 4, "split": "train"},
        }
    ]


def test_verls_loader_reads_what_is_written(tmp_path: Path) -> None:
    import datasets

    path = write_problems(make_problems("Q1", "Q2"), tmp_path / "x.parquet", split="train")
    # The call of verl 0.9.1, verl/utils/dataset/rl_dataset.py.
    loaded = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.to_list() == pq.ParquetFile(path).read().to_pylist()


def test_round_trip(tmp_path: Path) -> None:
    problems = [
        make_problem("  spaces stay \r\n", answer=" 1 ", index=0, source="a"),
        make_problem("nul \x00, emoji 🙂, é and é", answer="\\frac{1}{2}", index=1, source="b"),
    ]
    assert read_problems(write_problems(problems, tmp_path / "deep" / "er" / "x.parquet", split="train")) == problems


def is_gold(text: str) -> bool:
    """Whether a text may be an answer; ``test_values`` has those that may not."""
    try:
        return canonical_answer(text) == text
    except ValueError:
        return False


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text().filter(is_gold), min_size=1, max_size=5))
@example(["NAN at all", " spaces stay "])
def test_any_text_round_trips(texts: list[str]) -> None:
    problems = [make_problem(text, answer=text, index=index, source=text) for index, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        again = read_problems(write_problems(problems, Path(folder) / "x.parquet", split="train"))
        rows = [{"problem": text, "answer": text} for text in texts]
        from_lines = read_problems(save(Path(folder), rows, ".jsonl"))
    assert again == problems
    assert [problem.prompt.encode() for problem in from_lines] == [text.encode() for text in texts]


@settings(deadline=None, max_examples=60)
@given(st.text(), st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=["Cs"]), st.text())
def test_a_lone_surrogate_is_refused_by_row(before: str, surrogate: str, after: str) -> None:
    text = before + surrogate + after
    fault = f"has a lone surrogate U+{ord(surrogate):04X} at character {len(before)} (from 0)"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        with pytest.raises(ProblemFileError) as caught:
            write_problems([make_problem(text, index=6)], path, split="train")
        assert str(caught.value).startswith(f"{path}: 1 of 1 rows cannot be written")
        assert f"\n  row 6: prompt {fault}" in str(caught.value)
        assert os.listdir(folder) == []
        # json.dumps writes half a surrogate pair as an escape, which json.loads reads back as it is.
        assert f"\n  line 2: problem {fault}" in refusal(
            save(Path(folder), [GOOD, {"problem": text, "answer": "1"}], ".jsonl")
        )


def test_surrogate_pair_in_json_is_one_character(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text('{"problem": "\\ud83d\\ude42", "answer": "1"}')
    assert read_problems(path)[0].prompt == "🙂"


def test_same_problems_same_bytes(tmp_path: Path) -> None:
    problems = make_problems(*(f"Q{index}" for index in range(300)))
    first = write_problems(problems, tmp_path / "a" / "x.parquet", split="train")
    second = write_problems(list(problems), tmp_path / "b" / "x.parquet", split="train")
    assert first.read_bytes() == second.read_bytes()
    other = write_problems(problems, tmp_path / "c.parquet", split="test")
    assert other.read_bytes() != first.read_bytes()


def test_split_keeps_the_row_of_the_source_file(tmp_path: Path) -> None:
    path = write_problems(make_problems("a", "b", "c")[2:], tmp_path / "x.parquet", split="test")
    assert pq.ParquetFile(path).read()["extra_info"].to_pylist() == [{"index": 2, "split": "test"}]
    assert [problem.index for problem in read_problems(path)] == [0]  # its row in the new file


@pytest.mark.parametrize(
    ("name", "problems", "split", "match"),
    [
        ("x.json", make_problems("a"), "train", r"verl loads only files that end in \.parquet"),
        ("x.parquet", [], "train", "there are no problems"),
        ("x.parquet", make_problems("a"), " ", "split is ' '; name it"),
        ("x.parquet", [make_problem("a", answer="", index=3)], "train", r"row 3: answer is empty \(''\)"),
    ],
)
def test_write_refuses(tmp_path: Path, name: str, problems: list[Problem], split: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write_problems(problems, tmp_path / name, split=split)
    assert list(tmp_path.iterdir()) == []


# Splitting -----------------------------------------------------------------------------------------------------------


def test_split_is_complete_in_order_and_repeatable() -> None:
    problems = make_problems(*(f"Q{index}" for index in range(20)))
    training, validation = split_problems(problems, num_validation=5, seed=1)
    assert len(validation) == 5
    assert sorted(training + validation, key=lambda problem: problem.index) == problems
    for side in (training, validation):
        assert [problem.index for problem in side] == sorted(problem.index for problem in side)
    assert split_problems(problems, num_validation=5, seed=1) == (training, validation)
    assert split_problems(problems, num_validation=5, seed=2) != (training, validation)


def test_split_is_fixed_across_versions() -> None:
    # The rule, by hand: the texts with the smallest sha256 of "<seed>\n<text>" are held out.
    texts = [f"Q{index}" for index in range(20)]
    by_hash = sorted(texts, key=lambda text: hashlib.sha256(b"0\n" + text.encode()).hexdigest())
    _, validation = split_problems(make_problems(*texts), num_validation=3, seed=0)
    assert {problem.prompt for problem in validation} == set(by_hash[:3])
    assert by_hash[:3] == ["Q6", "Q2", "Q10"]


def test_split_does_not_depend_on_the_order_of_rows() -> None:
    problems = make_problems(*(f"Q{index}" for index in range(20)))
    _, validation = split_problems(problems, num_validation=4, seed=3)
    _, again = split_problems(problems[::-1], num_validation=4, seed=3)
    assert {problem.prompt for problem in again} == {problem.prompt for problem in validation}


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "b ", " b", "c\nd", "c d", "e"]), min_size=1), st.integers(1, 4), st.integers()
)
def test_split_never_puts_one_text_on_both_sides(texts: list[str], num_validation: int, seed: int) -> None:
    problems = make_problems(*texts)
    distinct = {" ".join(text.split()) for text in texts}
    if len(distinct) <= num_validation:
        with pytest.raises(ValueError, match=f"{len(texts)} rows with {len(distinct)} distinct problems are too few"):
            split_problems(problems, num_validation=num_validation, seed=seed)
        return
    training, validation = split_problems(problems, num_validation=num_validation, seed=seed)
    sides = [{" ".join(problem.prompt.split()) for problem in side} for side in (training, validation)]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[1]) == num_validation
    assert len(training) + len(validation) == len(problems)


def test_split_needs_a_validation_problem() -> None:
    with pytest.raises(ValueError, match="num_validation is 0; a validation set needs at least 1 problem"):
        split_problems(make_problems("a", "b"), num_validation=0, seed=0)


# The command ---------------------------------------------------------------------------------------------------------


def test_training_files_are_written_once_and_refused_with_other_settings(tmp_path: Path) -> None:
    rows = [{"problem": f"Q{index}", "answer": "1"} for index in range(9)]
    path, out = save(tmp_path, rows, ".jsonl"), tmp_path / "out"
    lines = make_training_files(str(path), out, num_val=None, seed=0, suffix=" Think.")
    assert lines == [f"7 problems in {out}/train.parquet", f"2 problems in {out}/val.parquet"]  # a quarter of 9
    prompts = {problem.prompt for part in ("train", "val") for problem in read_problems(out / f"{part}.parquet")}
    assert prompts == {f"Q{index} Think." for index in range(9)}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"] == {"left_out": 0, "train": 7, "val": 2}
    assert make_training_files(str(path), out, num_val=None, seed=0, suffix=" Think.") == [
        f"{out} is finished: nothing to do"
    ]
    with pytest.raises(ManifestError, match="seed: 0 then, 1 now"):
        make_training_files(str(path), out, num_val=None, seed=1, suffix=" Think.")


def test_a_set_to_evaluate_on_is_written_for_validation_alone(tmp_path: Path, shared_data: Path) -> None:
    copy, out = shared_data / "aime_2024.json", tmp_path / "aime"
    lines = make_training_files(f"aime_2024={copy}", out, num_val=None, seed=0, suffix=" Think.")
    assert lines == [f"30 problems in {out}/val.parquet"]
    assert not (out / "train.parquet").exists()
    written = read_problems(out / "val.parquet")
    assert {problem.source for problem in written} == {"aime_2024"}  # by which a report knows the set
    assert all(problem.prompt.endswith(" Think.") for problem in written)


def test_a_bad_file_leaves_nothing(tmp_path: Path) -> None:
    path = save(tmp_path, [GOOD, {"problem": "x"}], ".jsonl")
    with pytest.raises(ProblemFileError, match="line 2: answer is missing"):
        make_training_files(str(path), tmp_path / "out", num_val=None, seed=0, suffix="")
    assert not (tmp_path / "out").exists()
