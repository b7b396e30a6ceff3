# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.support.servers import servers

# Tests run real jobs on a CPU; the variable must be there before verl is first imported.
os.environ["VERL_PLATFORM"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray on loopback; read when ray is imported.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How long an example takes is the machine's affair: no test judges an absolute time.
hypothesis.settings.register_profile("longshort", deadline=None)
hypothesis.settings.load_profile("longshort")

ROOT = Path(__file__).resolve().parents[1]
# The recipe's own modules, as its scripts see them.
sys.path.insert(0, str(ROOT / "recipes" / "tiny_cpu"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public benchmark files beside the checkout; never part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the benchmark files are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """Folders of the recipe's two models with random weights, by role."""
    import make_models

    folder = tmp_path_factory.mktemp("models")
    tokenizer = make_models.build_tokenizer()
    for seed, role in enumerate(make_models.SHAPES):
        make_models.build_model(role, tokenizer, seed, folder / role)
    return {role: folder / role for role in make_models.SHAPES}


@pytest.fixture(scope="session")
def tiny_problems(tmp_path_factory) -> Path:
    """Folder with train.parquet and val.parquet of the recipe's task."""
    import make_problems

    folder = tmp_path_factory.mktemp("problems")
    make_problems.main(folder, num_train=64, num_val=8, min_steps=2, max_steps=4, seed=3)
    return folder


@pytest.fixture
def serve():
    """Starts local servers; see :func:`tests.support.servers.servers`."""
    with servers() as start:
        yield start
