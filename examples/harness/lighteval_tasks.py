# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks for lighteval against `longshort serve`. The pair has its own prompts, so only the problem is sent.

    longshort serve long.path=pair/long short.path=pair/short &
    lighteval endpoint litellm examples/harness/lighteval_model.yaml "longshort:aime_2024|0" \\
      --custom-tasks examples/harness/lighteval_tasks.py

Scores are lighteval's own (math-verify). `longshort:local` reads the split train of the folder in LONGSHORT_PROBLEMS:
JSONL, or another format of `datasets`, with the columns problem and answer.
"""

import os

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

# Samples per problem as in `longshort evaluate` (longshort_verl/problems/sets.py).
SETS = {
    "math500": ("HuggingFaceH4/MATH-500", "test", 8),
    "aime_2024": ("HuggingFaceH4/aime_2024", "train", 32),
    "aime_2025": ("math-ai/aime25", "test", 32),
    "amc_2023": ("math-ai/amc23", "test", 32),
    "local": (os.environ.get("LONGSHORT_PROBLEMS", ""), "train", 1),
}


def ask(line, task_name=None):
    answer = line["answer"]
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    return Doc(task_name=task_name, query=line.get("problem") or line["question"], choices=[str(answer)], gold_index=0)


TASKS_TABLE = [
    LightevalTaskConfig(
        name=f"longshort:{name}",
        prompt_function=ask,
        hf_repo=repository,
        hf_subset="default",
        hf_avail_splits=[split],
        evaluation_splits=[split],
        generation_size=None,
        metrics=[Metrics.avg_at_n_math(sample_params={"n": number})],
    )
    for name, (repository, split, number) in SETS.items()
    if repository
]
