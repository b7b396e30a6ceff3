# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The problem sets that reasoning models are measured on, by public name or from a local copy.

A set says where it is published, how its rows become problems, and how often its field samples a problem: of 30
problems a single sample each tells next to nothing (standard error 6 points, with 32 samples about 1).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshort_verl.grading import check_gold, last_boxed
from longshort_verl.problems.read import ProblemFileError, check_answers, problems_from_rows, read_problems
from longshort_verl.types import Problem

CHOICE_LETTERS = "ABCD"
_CHOICE_COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_CHOICE_QUESTION = "Answer with the letter of the right choice in \\boxed{}."


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """Problems under one name."""

    name: str
    """By which records and tables call it."""
    num_samples: int
    """Replies to each problem, where a run does not say."""
    problems_of: Callable[[int], Sequence[Problem]]
    """The problems of a sample, in order; of multiple choice the letters change from sample to sample."""


@dataclass(frozen=True, kw_only=True)
class Solutions:
    """Where a set has solutions written out, and the answer somewhere in them."""

    problem: str
    """Column with the problem."""
    solution: str
    """Column with the solution."""
    answer_of: Callable[[str], str | None]
    """A solution's answer; None where it has none."""


def _after_final_answer(solution: str) -> str | None:
    """Of GSM8K, whose thousands have commas."""
    _, mark, answer = solution.rpartition("####")
    return answer.strip().replace(",", "") if mark else None


def _boxed(solution: str) -> str | None:
    """Of MATH, where some solutions end with ``\\boxed 2``, without braces."""
    bare = re.findall(r"\\boxed\s+([^\s$.]+)", solution)
    return last_boxed(solution) or (bare[-1] if bare else None)


_GSM8K = Solutions(problem="question", solution="answer", answer_of=_after_final_answer)
_MATH = Solutions(problem="problem", solution="solution", answer_of=_boxed)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A public set."""

    hub: str
    """Name on the Hugging Face hub."""
    config: str | None
    """Of its configurations, where it has several."""
    split: str
    """Of its splits."""
    num_samples: int
    """Replies to each problem, as the field does it."""
    num_problems: int
    """How many there are: a local copy with another number is another set."""
    choices: bool = False
    """Multiple choice in GPQA's columns."""
    solutions: Solutions | None = None
    """None where the set has a column with answers."""


PUBLISHED: Mapping[str, Published] = {
    "math500": Published(hub="HuggingFaceH4/MATH-500", config=None, split="test", num_samples=8, num_problems=500),
    "aime_2024": Published(hub="HuggingFaceH4/aime_2024", config=None, split="train", num_samples=32, num_problems=30),
    "aime_2025": Published(hub="math-ai/aime25", config=None, split="test", num_samples=32, num_problems=30),
    "amc_2023": Published(hub="math-ai/amc23", config=None, split="test", num_samples=32, num_problems=40),
    "gpqa_diamond": Published(
        hub="Idavidrein/gpqa", config="gpqa_diamond", split="train", num_samples=8, num_problems=198, choices=True
    ),
    "gsm8k": Published(
        hub="openai/gsm8k", config="main", split="test", num_samples=1, num_problems=1319, solutions=_GSM8K
    ),
}
"""By the name that a command takes. Samples: 32 on AIME and AMC (DOT, arXiv 2601.03969), 8 on GPQA and MATH-500 (LC-R1,
arXiv 2506.14755), one of each of GSM8K's many problems."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A public set to learn from."""

    hub: str
    """Name on the Hugging Face hub."""
    config: str | None
    """Of its configurations, where it has several."""
    split: str
    """Of its splits."""
    num_problems: int
    """How many there are."""
    solutions: Solutions
    """Where its answers are."""


TRAINING: Mapping[str, TrainingSet] = {
    "gsm8k_train": TrainingSet(hub="openai/gsm8k", config="main", split="train", num_problems=7473, solutions=_GSM8K),
    "math_train": TrainingSet(
        hub="DigitalLearningGmbH/MATH-lighteval", config="default", split="train", num_problems=7500, solutions=_MATH
    ),
}
"""By the name that ``longshort problems`` takes. MATH-500 is of MATH's test split, so none of its problems is here."""


@dataclass(frozen=True, kw_only=True)
class TrainingProblems:
    """Problems to learn from, and what was left out of a public set."""

    problems: Sequence[Problem]
    """In the order of their set."""
    left_out: Sequence[str]
    """Why, a line for each row of a public set that has no answer, or one that nothing can be graded against."""


def read_training_problems(given: str) -> TrainingProblems:
    """Problems to learn from, by what a command was given.

    Args:
        given: a name of :data:`TRAINING` (fetched from the hub, or from its cache), ``NAME=COPY`` for a local copy of
            it, a file or a folder that ``datasets`` can load; or a file of problems.

    Raises:
        ProblemFileError: it cannot be read, a row of a file is bad, or a copy has not the set's columns or number of
            rows.
    """
    name, equals, copy = given.partition("=")
    if name not in TRAINING or Path(given).exists():
        path = Path(given)
        if not path.suffix and not path.exists():
            raise ProblemFileError(
                f"{given!r} is no file and no known set; give a file of problems, or one of {', '.join(TRAINING)}"
            )
        problems = read_problems(path)
        check_answers(problems, check_gold, path=path)
        return TrainingProblems(problems=problems, left_out=())
    found = TRAINING[name]
    if equals and not Path(copy).exists():
        raise ProblemFileError(f"{given}: there is no {copy}; give a file or folder with {found.hub}")
    where = copy if equals else found.hub
    rows = _load(where, found)
    if len(rows) != found.num_problems:
        raise ProblemFileError(
            f"{where} has {len(rows)} rows, but {name} has {found.num_problems}; a part of it, or another set, is "
            "given as a file with the columns problem and answer, without the name"
        )
    return _worked(rows, found.solutions, where=where, source=name)


def _worked(rows: Sequence[Mapping[str, Any]], solutions: Solutions, *, where: str, source: str) -> TrainingProblems:
    read, left_out = [], []
    for index, row in enumerate(rows):
        problem, solution = (row.get(column) for column in (solutions.problem, solutions.solution))
        if not all(isinstance(text, str) and text.strip() for text in (problem, solution)):
            raise ProblemFileError(
                f"{where}: row {index} has no text in {solutions.problem} or in {solutions.solution}; it needs the "
                "set's own columns"
            )
        try:
            answer = solutions.answer_of(str(solution))
            check_gold(answer if answer is not None else "")
        except ValueError as fault:
            left_out.append(f"row {index}: {fault}")
        else:
            read.append({"problem": problem, "answer": answer})
    if not read and left_out:
        raise ProblemFileError(f"{where}: no row can be graded; {left_out[0]}")
    return TrainingProblems(problems=problems_from_rows(read, where=where, source=source), left_out=left_out)


def read_problem_set(given: str) -> ProblemSet:
    """A set by what a command was given.

    Args:
        given: a name of :data:`PUBLISHED` (fetched from the hub, or from its cache), ``NAME=COPY`` for a local copy of
            it, a file or a folder that ``datasets`` can load; or a file of problems.

    Raises:
        ProblemFileError: it cannot be read, a row is bad, or a copy has not the set's number of problems.
    """
    if given in PUBLISHED:
        return _published(given, _from_hub(given))
    name, equals, copy = given.partition("=")
    if not equals or name not in PUBLISHED or Path(given).exists():
        return _file(given)
    path = Path(copy)
    if not path.exists():
        raise ProblemFileError(f"{given}: there is no {copy}; give a file or folder with {PUBLISHED[name].hub}")
    if path.is_file() and not PUBLISHED[name].choices and not PUBLISHED[name].solutions:
        problems = read_problems(path, source=name)
        _check_number(name, copy, len(problems))
        return _same(name, PUBLISHED[name].num_samples, problems)
    return _published(name, _load(copy, PUBLISHED[name]), where=copy)


def _file(given: str) -> ProblemSet:
    path = Path(given)
    if not path.suffix and not path.exists():
        raise ProblemFileError(
            f"{given!r} is no file and no known set; give a file of problems, or one of {', '.join(PUBLISHED)}"
        )
    return _same(path.stem, 1, read_problems(path, source=path.stem))


def _same(name: str, num_samples: int, problems: Sequence[Problem]) -> ProblemSet:
    return ProblemSet(name=name, num_samples=num_samples, problems_of=lambda sample: problems)


def _from_hub(name: str) -> Sequence[Mapping[str, Any]]:
    return _load(PUBLISHED[name].hub, PUBLISHED[name])


def _load(source: str, published: Published | TrainingSet) -> Sequence[Mapping[str, Any]]:
    """Rows of a repository of the hub, of a folder, or of a file."""
    from datasets import load_dataset

    kinds = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
    try:
        if Path(source).is_file():
            kind = kinds.get(Path(source).suffix.lower())
            if kind is None:
                raise ValueError(f"its suffix is none of {', '.join(kinds)}")
            return load_dataset(kind, data_files=source, split="train").to_list()
        if Path(source).is_dir():
            return load_dataset(source, split=published.split).to_list()
        return load_dataset(source, published.config, split=published.split).to_list()
    except Exception as error:  # datasets raises whatever its readers, and the hub's client, raise
        raise ProblemFileError(
            f"{source} cannot be loaded: {' '.join(str(error).split())[:300]}; without a network give a local copy as "
            "NAME=FILE, and to a set that asks for an agreement log in to the hub first"
        ) from error


def _published(name: str, rows: Sequence[Mapping[str, Any]], where: str | None = None) -> ProblemSet:
    published = PUBLISHED[name]
    where = where or published.hub
    _check_number(name, where, len(rows))
    if published.solutions:
        found = _worked(rows, published.solutions, where=where, source=name)
        if found.left_out:
            raise ProblemFileError(f"{where}: {found.left_out[0]}; {name} has an answer everywhere")
        return _same(name, published.num_samples, found.problems)
    if not published.choices:
        return _same(name, published.num_samples, problems_from_rows(rows, where=where, source=name))
    questions = [_question(row, index, where) for index, row in enumerate(rows)]
    return ProblemSet(
        name=name,
        num_samples=published.num_samples,
        problems_of=lambda sample: [question.problem(name, sample) for question in questions],
    )


def _check_number(name: str, where: str, number: int) -> None:
    if number != PUBLISHED[name].num_problems:
        raise ProblemFileError(
            f"{where} has {number} rows, but {name} has {PUBLISHED[name].num_problems} problems; a part of it, or "
            "another set, is given as a file, without the name"
        )


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with four choices, the right one first."""

    key: str
    """Of the data set's own; the order of the letters follows from it."""
    text: str
    """What is asked."""
    choices: tuple[str, ...]
    """The right one first."""
    index: int
    """Row in its file."""

    def problem(self, source: str, sample: int) -> Problem:
        """With its choices in an order drawn anew for each question and each sample, from nothing but these.

        A generator seeded alike for every question would put the right choice at the same letter in all of them.
        """
        seed = hashlib.sha256(f"{self.key}/{sample}".encode()).digest()
        order = list(range(len(self.choices)))
        random.Random(seed).shuffle(order)
        lines = [f"{letter}) {self.choices[place]}" for letter, place in zip(CHOICE_LETTERS, order, strict=True)]
        return Problem(
            prompt="\n\n".join([self.text, "\n".join(lines), _CHOICE_QUESTION]),
            answer=CHOICE_LETTERS[order.index(0)],
            source=source,
            index=self.index,
        )


def _question(row: Mapping[str, Any], index: int, where: str) -> Question:
    wanted = ("Record ID", "Question", *_CHOICE_COLUMNS)
    missing = [name for name in wanted if not isinstance(row.get(name), str) or not str(row[name]).strip()]
    if missing:
        raise ProblemFileError(f"{where}: row {index} has no text in {', '.join(missing)}; it needs GPQA's own columns")
    key, text, *choices = (str(row[name]).strip() for name in wanted)
    if len(set(choices)) < len(choices):
        raise ProblemFileError(f"{where}: row {index} has the same choice twice, so that no letter is right alone")
    return Question(key=key, text=text, choices=tuple(choices), index=index)
