# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Public problem sets, from the Hugging Face hub or from a local copy.

Each entry states where the set is published, how its rows become problems, and how many replies to each problem the
field samples. A single sample of each of 30 problems has a standard error of 6 points; with 32 samples it has about 1.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from longshort_verl.files.inputs import check_kind
from longshort_verl.grading import check_gold, last_boxed
from longshort_verl.problems.read import ProblemFileError, check_answers, problems_from_rows, read_problems
from longshort_verl.problems.values import after_final_mark, canonical_answer
from longshort_verl.types import Problem

CHOICE_LETTERS = "ABCD"
_CHOICE_COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_CHOICE_QUESTION = "Answer with the letter of the right choice in \\boxed{}."


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """Problems to evaluate on, under one name."""

    name: str
    num_samples: int
    """Replies to each problem, unless a run sets another number."""
    problems_of: Callable[[int], Sequence[Problem]]
    """The problems of a sample, in order; multiple choice permutes the letters from sample to sample."""


@dataclass(frozen=True, kw_only=True)
class TrainingProblems:
    """Problems to train on, and what was left out of a public set."""

    problems: Sequence[Problem]
    left_out: Sequence[str]
    """One line for each row of a public set without an answer, or with one that cannot be graded."""


class Solutions(NamedTuple):
    """The columns of a set whose answers are part of written solutions."""

    problem: str
    solution: str
    answer_of: Callable[[str], str | None]
    """A solution's answer; None if it has none."""


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A public set."""

    hub: str
    """Name on the Hugging Face hub; the next two fields are configuration and split there."""
    config: str | None
    split: str
    num_problems: int
    """Size of the set; a local copy of another size is refused."""
    num_samples: int = 1
    """Replies to each problem in an evaluation."""
    choices: bool = False
    """Whether it is multiple choice in GPQA's columns."""
    solutions: Solutions | None = None
    """None for a set with a column of answers."""


def _boxed(solution: str) -> str | None:
    """The answer of a MATH solution; some end with ``\\boxed 2``, without braces."""
    bare = re.findall(r"\\boxed\s+([^\s$.]+)", solution)
    answer = last_boxed(solution) or (bare[-1] if bare else None)
    return " ".join(answer.split()) if answer else None  # solutions break lines within a matrix


_GSM8K = Solutions(problem="question", solution="answer", answer_of=after_final_mark)
_MATH = Solutions(problem="problem", solution="solution", answer_of=_boxed)

PUBLISHED: Mapping[str, PublicSet] = {
    "math500": PublicSet(hub="HuggingFaceH4/MATH-500", config=None, split="test", num_samples=8, num_problems=500),
    "aime_2024": PublicSet(hub="HuggingFaceH4/aime_2024", config=None, split="train", num_samples=32, num_problems=30),
    "aime_2025": PublicSet(hub="math-ai/aime25", config=None, split="test", num_samples=32, num_problems=30),
    "amc_2023": PublicSet(hub="math-ai/amc23", config=None, split="test", num_samples=32, num_problems=40),
    "gpqa_diamond": PublicSet(
        hub="Idavidrein/gpqa", config="gpqa_diamond", split="train", num_samples=8, num_problems=198, choices=True
    ),
    "gsm8k": PublicSet(hub="openai/gsm8k", config="main", split="test", num_problems=1319, solutions=_GSM8K),
}
"""Sets to evaluate on. Samples: 32 on AIME and AMC (DOT, arXiv 2601.03969), 8 on GPQA and MATH-500 (LC-R1, arXiv
2506.14755), one on each of GSM8K's many problems."""

TRAINING: Mapping[str, PublicSet] = {
    "gsm8k_train": PublicSet(hub="openai/gsm8k", config="main", split="train", num_problems=7473, solutions=_GSM8K),
    "math_train": PublicSet(
        hub="DigitalLearningGmbH/MATH-lighteval", config="default", split="train", num_problems=7500, solutions=_MATH
    ),
}
"""Sets to train on. MATH-500 is part of MATH's test split, so none of its problems is here."""


def read_training_problems(given: str) -> TrainingProblems:
    """Problems to train on: of a file; of :data:`TRAINING` by name, read from the hub or its cache; or ``NAME=COPY``.

    Raises:
        ProblemFileError: they cannot be read, a row of a file is bad, or a copy lacks the set's columns or rows.
    """
    name, where = _resolve(given, TRAINING)
    if name is None:
        problems = read_problems(where)
        check_answers(problems, path=where)
        return TrainingProblems(problems=problems, left_out=())
    return _from_solutions(_load(name, where, TRAINING[name]), TRAINING[name], where=where, source=name)


def read_problem_set(given: str) -> ProblemSet:
    """Problems to evaluate on: a file of problems; a set of :data:`PUBLISHED` by name; or ``NAME=COPY``.

    Raises:
        ProblemFileError: they cannot be read, a row is bad, or a copy has not the set's number of problems.
    """
    name, where = _resolve(given, PUBLISHED)
    if name is None:
        problems = read_problems(where, source=Path(where).stem)
        return ProblemSet(name=Path(where).stem, num_samples=1, problems_of=lambda sample: problems)
    published = PUBLISHED[name]
    num_samples = published.num_samples
    if published.choices:
        questions = [_question(row, index, where) for index, row in enumerate(_load(name, where, published))]
        return ProblemSet(
            name=name,
            num_samples=num_samples,
            problems_of=lambda sample: [_choices(*pair, name, sample) for pair in enumerate(questions)],
        )
    if published.solutions:
        training = _from_solutions(_load(name, where, published), published, where=where, source=name)
        if training.left_out:
            raise ProblemFileError(f"{where}: {training.left_out[0]}; every row of {name} has an answer")
        problems = training.problems
    elif Path(where).is_file():
        problems = read_problems(where, source=name)
        _check_size(name, where, len(problems), published)
    else:
        problems = problems_from_rows(_load(name, where, published), where=where, source=name)
    return ProblemSet(name=name, num_samples=num_samples, problems_of=lambda sample: problems)


def _resolve(given: str, known: Mapping[str, PublicSet]) -> tuple[str | None, str]:
    """Name of a public set and its place: a repository of the hub, or a file or folder that ``datasets`` can load.

    None and a path for a file of problems.
    """
    name, equals, copy = given.partition("=")
    if name not in known or (equals and Path(given).exists()):
        if not Path(given).suffix and not Path(given).exists():
            raise ProblemFileError(
                f"{given!r} is no file and no known set; give a file of problems, or one of {', '.join(known)}"
            )
        return None, given
    if equals and not Path(copy).exists():
        raise ProblemFileError(f"{given}: there is no {copy}; give a file or folder with {known[name].hub}")
    return name, copy if equals else known[name].hub


def _load(name: str, where: str, public: PublicSet) -> Sequence[Mapping[str, Any]]:
    """Rows of a repository of the hub, of a folder, or of a file."""
    from datasets import load_dataset

    kinds = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
    try:
        if Path(where).is_file():
            kind = kinds.get(Path(where).suffix.lower())
            if kind is None:
                raise ValueError(f"its suffix is none of {', '.join(kinds)}")
            check_kind(Path(where))
            rows = load_dataset(kind, data_files=where, split="train").to_list()
        elif Path(where).is_dir():
            rows = load_dataset(where, split=public.split).to_list()
        else:
            rows = load_dataset(where, public.config, split=public.split).to_list()
    except Exception as error:  # datasets raises whatever its readers, and the hub's client, raise
        raise ProblemFileError(
            f"{where} cannot be loaded: {' '.join(str(error).split())[:300]}; without a network give a local copy as "
            "NAME=FILE; if the set asks for an agreement, log in to the hub first"
        ) from error
    _check_size(name, where, len(rows), public)
    return rows


def _check_size(name: str, where: str, num_rows: int, public: PublicSet) -> None:
    if num_rows != public.num_problems:
        raise ProblemFileError(
            f"{where} has {num_rows} rows, but {name} has {public.num_problems}; give a part of it, or another set, as "
            "a file with the columns problem and answer, without the name"
        )


def _from_solutions(
    rows: Sequence[Mapping[str, Any]], public: PublicSet, *, where: str, source: str
) -> TrainingProblems:
    assert public.solutions is not None
    columns = (public.solutions.problem, public.solutions.solution)
    kept, left_out = [], []
    for index, row in enumerate(rows):
        problem, solution = (row.get(column) for column in columns)
        if not all(isinstance(text, str) and text.strip() for text in (problem, solution)):
            raise ProblemFileError(
                f"{where}: row {index} has no text in {columns[0]} or in {columns[1]}; give the set's own columns"
            )
        try:
            answer = public.solutions.answer_of(str(solution))
            check_gold(answer if answer is not None else "")
            canonical_answer(answer)
        except ValueError as fault:
            left_out.append(f"row {index}: {fault}")
        else:
            kept.append({"problem": problem, "answer": answer})
    if not kept and left_out:
        raise ProblemFileError(f"{where}: no row can be graded; {left_out[0]}")
    return TrainingProblems(problems=problems_from_rows(kept, where=where, source=source), left_out=left_out)


def _choices(index: int, question: Sequence[str], source: str, sample: int) -> Problem:
    """A question with its choices in an order that depends on the question and the sample alone.

    A generator with the same seed for every question would put the right choice at the same letter in all of them.
    """
    key, text, *choices = question
    order = list(range(len(choices)))
    random.Random(hashlib.sha256(f"{key}/{sample}".encode()).digest()).shuffle(order)
    lines = [f"{letter}) {choices[place]}" for letter, place in zip(CHOICE_LETTERS, order, strict=True)]
    prompt = "\n\n".join([text, "\n".join(lines), _CHOICE_QUESTION])
    return Problem(prompt=prompt, answer=CHOICE_LETTERS[order.index(0)], source=source, index=index)


def _question(row: Mapping[str, Any], index: int, where: str) -> list[str]:
    """The data set's key of a question, its text, the right choice and the wrong ones."""
    columns = ("Record ID", "Question", *_CHOICE_COLUMNS)
    missing = [name for name in columns if not isinstance(row.get(name), str) or not str(row[name]).strip()]
    if missing:
        raise ProblemFileError(f"{where}: row {index} has no text in {', '.join(missing)}; give GPQA's own columns")
    question = [str(row[name]).strip() for name in columns]
    if len(set(question[2:])) < len(_CHOICE_COLUMNS):
        raise ProblemFileError(f"{where}: row {index} has the same choice twice, so no letter alone is right; fix it")
    return question
