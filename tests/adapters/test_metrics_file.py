# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of every start of a run, written by verl's own file logger."""

from __future__ import annotations

import os

import pytest
from omegaconf import OmegaConf

from longshort_verl.adapters.metrics_file import ROOT, VARIABLE, name_metrics_file
from longshort_verl.report.curves import read_run

TRAINER = OmegaConf.create({"logger": ["console", "file"], "project_name": "project", "experiment_name": "rl"})


def start(folder, **losses):
    """One start of a run: its file, and one step a keyword."""
    from verl.utils.tracking import FileLogger

    name_metrics_file(TRAINER, folder)
    name_metrics_file(TRAINER, folder)  # once in the driver, once in the trainer
    logger = FileLogger("project", "rl")
    for step, loss in losses.items():
        logger.log({"loss": loss}, step=int(step[1:]))
    logger.finish()
    return os.environ[VARIABLE]


@pytest.fixture(params=["the run's folder", "a named file", "a named root"])
def log(request, tmp_path, monkeypatch):
    """What to read a run's metrics from; each start of it has the environment of a new process."""
    monkeypatch.chdir(tmp_path)
    for name in (VARIABLE, ROOT):
        monkeypatch.delenv(name, raising=False)
    variables, path = {
        "the run's folder": ({}, tmp_path / "run"),
        "a named file": ({VARIABLE: "logs/metrics.jsonl"}, tmp_path / "logs" / "metrics.jsonl"),
        "a named root": ({ROOT: str(tmp_path / "root")}, tmp_path / "root" / "project" / "rl.jsonl"),
    }[request.param]

    def new_process():
        monkeypatch.delenv(VARIABLE, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return path, new_process


def test_no_start_empties_what_an_earlier_one_logged(log, tmp_path):
    path, new_process = log
    for losses in ({"s1": 1.0, "s2": 2.0, "s3": 3.0}, {"s3": 30.0, "s4": 40.0}, {"s4": 400.0}):
        new_process()
        start(tmp_path / "run", **losses)
    found = [(step.step, step.metrics["loss"]) for step in read_run(path)]
    assert found == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 400.0)]


def test_a_job_that_logs_to_no_file_names_none(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    name_metrics_file(OmegaConf.create({"logger": ["console"]}), tmp_path / "run")
    assert VARIABLE not in os.environ
    assert not (tmp_path / "run").exists()
