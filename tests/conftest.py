# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the whole suite."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests.support.jobs import end_jobs
from tests.support.servers import servers
from tests.support.wheels import build, copy_source, install

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
SHARED_DATA = ROOT.parent / "shared" / "data"
# Reasons for which a test may be skipped. A skip for any other reason fails.
EXPECTED_SKIPS = (
    "the public benchmark files are absent",
    "Chromium is not installed",
    "finds no CUDA device",
    "there is no real model",
    "memory of a process can be limited on Linux only",
    "patches/ was deleted",
    "this machine allows no mount namespace",
)
# The recipe's own modules, as its scripts see them.
sys.path.insert(0, str(ROOT / "recipes" / "tiny_cpu"))


def pytest_sessionfinish() -> None:
    end_jobs()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that read the public benchmarks."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped for a reason that is not in ``EXPECTED_SKIPS``."""
    report = yield
    fail_unexpected_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a file that is skipped as a whole for such a reason."""
    report = yield
    fail_unexpected_skip(report)
    return report


def fail_unexpected_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(expected in reason for expected in EXPECTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"unexpected skip ({reason}): remove its cause, or add the reason to {Path(__file__).name}"


@pytest.fixture(autouse=True)
def warnings_are_captured(caplog: pytest.LogCaptureFixture) -> None:
    """No upstream module hides warnings from a test: verl's servers set all handlers of the root to ERROR at import."""
    caplog.handler.setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public benchmark files, which lie beside the checkout and are no part of it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the public benchmark files are absent: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def math_problems() -> Path:
    """Sixteen problems of our own with answers in LaTeX, of the kinds that MATH has."""
    return ROOT / "tests" / "support" / "math_problems.jsonl"


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


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """Copy of what a build of the package reads."""
    return copy_source(ROOT, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory) -> Path:
    """The package's wheel."""
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """Folder with the installed wheel and nothing else."""
    return install(wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture
def serve():
    """Starts local servers; see :func:`tests.support.servers.servers`."""
    with servers() as start:
        yield start
