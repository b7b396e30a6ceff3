# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Artefacts: when a command resumes, has nothing to do, or refuses; and what their manifests record."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from longshort_verl.config.compose import read_recipe
from longshort_verl.evaluation.config import BASE, EvaluateConfig
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import (
    Artefact,
    ChangedError,
    ManifestError,
    commit,
    differences,
    manifest_path,
    read_manifest,
    total_seconds,
)


class Kind(Enum):
    A = "a"


@dataclass(frozen=True)
class Settings:
    temperature: float = 0.7
    kind: Kind = Kind.A
    model: Path = Path("m")
    stop: tuple[str, ...] = ("x",)


def make(out, config=None, *, complete=True, **more):
    """One run; whether it found the output finished."""
    with Artefact(out, config=Settings() if config is None else config, **more) as artefact:
        if not artefact.finished:
            out.parent.mkdir(exist_ok=True)
            out.touch() if out.suffix else out.mkdir(exist_ok=True)
            if complete:
                artefact.finish(counts={"rows": 3}, tokens={"rollouts": 9})
    return artefact.finished


@pytest.mark.parametrize("name", ["traces.jsonl", "importance"])
def test_a_finished_artefact_is_not_made_again(tmp_path, name):
    out = tmp_path / name
    assert not make(out, complete=False)
    assert not read_manifest(out)["finished"]
    assert not make(out)
    before = manifest_path(out).read_bytes()
    assert make(out)
    assert manifest_path(out).read_bytes() == before
    manifest = read_manifest(out)
    assert (manifest["counts"], manifest["tokens"], manifest["finished"]) == ({"rows": 3}, {"rollouts": 9}, True)
    assert manifest["config"] == {"temperature": 0.7, "kind": "a", "model": "m", "stop": ["x"]}


def test_a_finished_file_that_was_deleted_is_made_again(tmp_path):
    out = tmp_path / "traces.jsonl"
    make(out)
    out.unlink()
    assert not make(out)


def test_a_changed_setting_is_refused_with_both_values(tmp_path):
    make(tmp_path / "out", {"sampling": {"temperature": 0.7, "seed": 1}, "gone": 1})
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    with pytest.raises(ManifestError) as refused:
        make(tmp_path / "out", {"sampling": {"temperature": 1.0, "seed": 1}, "added": None})
    assert str(refused.value).splitlines() == [
        f"{tmp_path / 'out'} was begun with other settings:",
        "  added: not set then, null now",
        "  gone: 1 then, not set now",
        "  sampling.temperature: 0.7 then, 1.0 now",
        "Give another output, or the old settings.",
    ]
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_of_long_values_the_part_that_differs_is_shown():
    (line,) = differences({"prompt": "x" * 500 + " the old end"}, {"prompt": "x" * 500 + " the new end"})
    assert "the old end" in line
    assert "the new end" in line
    assert len(line) < 200


def test_a_comment_in_a_recipe_changes_nothing_and_a_default_does(tmp_path):
    recipe = tmp_path / "evaluate.yaml"
    text = "defaults: [longshort_evaluate, _self_]\nsolo: {path: some-model}\nmax_requests: 3\n"

    def read(yaml, *overrides):
        recipe.write_text(yaml)
        return read_recipe(recipe, overrides, EvaluateConfig, base=BASE)

    config = read(text)
    make(tmp_path / "out", config)
    assert make(tmp_path / "out", read(f"# a comment\n{text}"))
    # A recipe that does not name the setting gets the base's default, as if that had changed.
    with pytest.raises(ManifestError, match=r"^  max_requests: 3 then, \d+ now$".replace("^", "(?m)^")):
        make(tmp_path / "out", read(text.replace("max_requests: 3\n", "")))


def test_what_may_change_does_not_refuse_but_is_not_finished(tmp_path):
    patterns = ("trainer.*_freq", "ray_kwargs.*")
    config = {"trainer": {"save_freq": 1, "lr": 1}, "ray_kwargs": {"init": {"num_cpus": 2}}}
    make(tmp_path / "out", config, may_change=patterns)
    other = {"trainer": {"save_freq": 2, "lr": 1}, "ray_kwargs": {"init": {"num_cpus": 4}}}
    assert not make(tmp_path / "out", other, may_change=patterns)
    assert read_manifest(tmp_path / "out")["config"] == other
    with pytest.raises(ManifestError, match=r"trainer\.lr: 1 then, 2 now"):
        make(tmp_path / "out", {"trainer": {"save_freq": 2, "lr": 2}}, may_change=patterns)


def test_a_changed_input_is_noticed(tmp_path):
    problems, model = tmp_path / "problems.jsonl", tmp_path / "model"
    problems.write_text("one")
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "weights").write_bytes(b"a" * (1 << 20) + b"b" * (1 << 20) + b"c")
    inputs = {"problems": problems, "model": model, "writer": "some/hub-name"}
    make(tmp_path / "out", inputs=inputs)
    copy = tmp_path / "copy.jsonl"
    copy.write_text("one")
    assert make(tmp_path / "out", inputs={**inputs, "problems": copy})
    for path, content in ((problems, b"two"), (model / "deep" / "weights", b"a" * (1 << 20) + b"b" * (1 << 20) + b"d")):
        old = path.read_bytes()
        path.write_bytes(content)
        named = "problems" if path is problems else "model"
        with pytest.raises(ManifestError, match=rf"input {named}: .*{named}.* then, .*{named}.* now"):
            make(tmp_path / "out", inputs=inputs)
        path.write_bytes(old)
    with pytest.raises(ManifestError, match=r"input writer: some/hub-name then, other now"):
        make(tmp_path / "out", inputs={**inputs, "writer": "other"})
    with pytest.raises(ManifestError, match=r"input writer: some/hub-name then, none now"):
        make(tmp_path / "out", inputs={"problems": problems, "model": model})


def test_begun_anew(tmp_path):
    make(tmp_path / "out", {"seed": 1})
    assert not make(tmp_path / "out", {"seed": 2}, anew=True)
    assert make(tmp_path / "out", {"seed": 2})


def test_a_reader_beside_the_writer_compares_and_writes_nothing(tmp_path):
    assert not make(tmp_path / "out", read_only=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    make(tmp_path / "out")
    assert make(tmp_path / "out", read_only=True)
    with pytest.raises(ManifestError, match="other settings"):
        make(tmp_path / "out", {"seed": 2}, read_only=True)


INTERRUPTED = """
import sys, time
from pathlib import Path
from longshort_verl.files.manifest import Artefact
with Artefact(Path(sys.argv[1]), config={}):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_seconds_of_interrupted_runs_are_summed(tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        # A shell that runs the tests in the background makes their child processes ignore SIGINT.
        command = ["env", "--default-signal=INT", sys.executable, "-c", INTERRUPTED, str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        assert not read_manifest(out)["finished"]
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate()
    spent = read_manifest(out)["seconds"]
    assert spent >= 1.0
    with pytest.raises(RuntimeError), Artefact(out, config={}):
        raise RuntimeError
    make(out, {})
    assert read_manifest(out)["seconds"] >= spent


def test_a_killed_run_counts_up_to_its_last_record(tmp_path):
    out, begin = tmp_path / "out", time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(out)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.7)
    (out / "journal.jsonl").write_text("{}\n")
    killed_run = time.monotonic() - begin
    process.kill()
    process.communicate()
    time.sleep(1.0)  # not counted
    assert read_manifest(out)["seconds"] == 0
    begin = time.monotonic()
    make(out, {})
    # Both are rounded to tenths.
    assert 0.6 <= read_manifest(out)["seconds"] <= killed_run + time.monotonic() - begin + 0.2


@pytest.mark.parametrize("name", ["traces.jsonl", "importance"])
@pytest.mark.parametrize("num_records", [0, 1])
def test_a_run_that_fails_before_its_first_record_binds_nobody(tmp_path, name, num_records):
    out = tmp_path / name
    path = out.with_name(f"{name}.journal") if out.suffix else out / "journal.jsonl"

    def fail():
        with Artefact(out, config={"model": "typo"}), Journal(path, {}) as journal:
            for number in range(num_records):
                journal.add(str(number), {})
            raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        fail()
    if num_records:
        with pytest.raises(ManifestError, match='model: "typo" then, "right" now'):
            make(out, {"model": "right"})
    else:
        assert not make(out, {"model": "right"})


@pytest.mark.parametrize("num_records", [0, 1])
def test_a_run_that_was_killed_before_its_first_record_binds_nobody(tmp_path, num_records):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(out)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    with Journal(out / "journal.jsonl", {}) as journal:
        for number in range(num_records):
            journal.add(str(number), {})
    if num_records:
        with pytest.raises(ManifestError, match="model: not set then"):
            make(out, {"model": "right"})
        with pytest.raises(ManifestError, match="model: not set then"):  # what a trainer asks for
            make(out, {"model": "right"}, anew=False)
    else:
        assert not make(out, {"model": "right"})


def test_what_is_resumed_is_compared_and_changes_are_logged_once(tmp_path, caplog):
    saved = {"config": {"seed": 1, "save_freq": 1}, "inputs": {}}
    with pytest.raises(ChangedError, match="seed: 1 then, 2 now"):
        make(tmp_path / "out", {"seed": 2, "save_freq": 1}, resumed=saved)
    assert not caplog.text
    asked = {"may_change": ("save_*",), "anew": False, "complete": False}
    make(tmp_path / "out", {"seed": 2, "save_freq": 1}, resumed=saved, refuse=False, **asked)
    assert "seed: 1 then, 2 now\nIt resumes with them, as asked." in caplog.text
    for _ in range(2):
        make(tmp_path / "out", {"seed": 2, "save_freq": 5}, **asked)
    assert caplog.text.count("resumes with other settings: save_freq: 1 then, 5 now") == 1


def test_the_lineage_holds_every_stage_once(tmp_path):
    problems, model = tmp_path / "problems", tmp_path / "rl"
    make(problems)
    (problems / "train.parquet").touch()
    make(tmp_path / "traces.jsonl", inputs={"problems": problems / "train.parquet"})
    make(model, inputs={"traces": tmp_path / "traces.jsonl", "problems": problems / "train.parquet", "hub": "a/b"})
    (model / "global_step_1" / "actor" / "huggingface").mkdir(parents=True)
    for path, seconds in ((problems, 1.0), (tmp_path / "traces.jsonl", 2.0), (model, 4.0)):
        manifest = read_manifest(path) | {"seconds": seconds}
        for stage in manifest["lineage"]:
            stage["seconds"] = {"problems": 1.0, "traces": 2.0}[stage["stage"]]
        manifest_path(path).write_text(json.dumps(manifest))
    inputs = {"problems": problems, "model": model / "global_step_1" / "actor" / "huggingface"}
    make(model / "evaluation", inputs=inputs)
    manifest = read_manifest(model / "evaluation")
    assert [stage["stage"] for stage in manifest["lineage"]] == ["problems", "traces", "rl"]
    assert total_seconds({**manifest, "seconds": 8.0}) == 1 + 2 + 4 + 8


def test_a_manifest_of_other_software_is_no_lineage(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "x.jsonl").touch()
    make(tmp_path / "out", inputs={"x": tmp_path / "x.jsonl"})
    assert read_manifest(tmp_path / "out")["lineage"] == []
    with pytest.raises(ManifestError, match="is not a manifest"):
        make(tmp_path)


def test_the_run_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/longshort", "evaluate", f"{Path.cwd()}/my problems.json", "--out", "x"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    make(tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest["command"] == "longshort evaluate 'my problems.json' --out x"
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", manifest["commit"])
    assert re.fullmatch(r"\d+ CPU cores, \d+ GiB, (no GPU|\d+ x .+), Python 3\.\d+\.\d+\S*", manifest["machine"])
    assert manifest["versions"]["verl"]


def test_outside_of_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commit() is None


def test_counts_that_json_cannot_hold_are_refused(tmp_path):
    with Artefact(tmp_path / "out", config={}) as artefact, pytest.raises(ValueError, match="Out of range float"):
        artefact.finish(counts={"rate": float("nan")})
    assert not read_manifest(tmp_path / "out")["finished"]
