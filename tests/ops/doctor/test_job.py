# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""All checks together: the plugin, a job's config, and how the findings are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.config.compose import compose_config
from longshort_verl.ops.doctor import job as doctor
from longshort_verl.ops.doctor.job import Job, check_model, examine, job_findings, next_step, plugin_findings, run_probe
from longshort_verl.ops.doctor.machine import Finding
from tests.support.configs import ROOT

RECIPE = ROOT / "recipes" / "tiny_cpu"


def environment(**more):
    """This one, with the checkout in front, as an installation would be."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture(scope="module")
def job(tiny_models, tiny_problems):
    def make(*overrides, **models):
        models = {**tiny_models, **models}
        settings = (
            f"actor_rollout_ref.model.path={models['long']}",
            f"long_short.short.model.path={models['short']}",
            f"data.train_files={tiny_problems}/train.parquet",
            f"data.val_files={tiny_problems}/val.parquet",
            *overrides,
        )
        return Job(arguments=settings, config=compose_config(RECIPE, "rl", settings))

    return make


@pytest.fixture(scope="module")
def examined(job):
    """All of it, on this machine."""
    return examine(job(), environment(VERL_PLATFORM="cpu", OMP_NUM_THREADS="1"))


@pytest.mark.process
def test_this_machine_can_be_looked_at(examined):
    assert len(examined) > 25
    assert not [finding for finding in examined if "could not be checked" in finding.found]
    found = by_name(examined)
    assert found["GPUs"].status == "n/a"
    assert found["verl"].status == found["chat templates"].status == "ok"


@pytest.mark.process
def test_a_process_elsewhere_has_the_plugin_and_what_it_registers(examined):
    found = by_name(examined)
    for name in ("other processes", "plugin", "trainer", "agent loop", "platform"):
        assert found[name].status == "ok", found[name]
    assert found["trainer"].found == "longshort_verl.adapters.rl.trainer"
    assert found["agent loop"].found == "longshort_verl.adapters.rl.agent_loop"
    assert found["platform"].found == "cpu (PlatformCPU)"
    assert str(ROOT) in found["other processes"].found


@pytest.mark.process
def test_plugins_that_are_turned_off_are_named_with_the_cure(tmp_path):
    command = [sys.executable, "-m", "longshort_verl.cli", "doctor", "--json"]
    off = environment(VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="none")
    done = subprocess.run(command, cwd=tmp_path, env=off, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert (told["verdict"], told["next"]) == ("failure", "fix the failures and run this again")
    found = {finding["name"]: finding for finding in told["findings"]}
    assert found["plugin"] == {
        "name": "plugin",
        "status": "failure",
        "found": "not loaded: VERL_USE_EXTERNAL_PLUGINS is 'none'",
        "cure": "unset VERL_USE_EXTERNAL_PLUGINS, or add longshort to it",
    }
    # And a job would not know the trainer, the loop or the platform.
    assert {found[name]["status"] for name in ("trainer", "agent loop", "platform")} == {"failure"}
    assert found["other processes"]["status"] == "ok"


@pytest.mark.parametrize(
    ("policy", "entry_points", "said", "what"),
    [
        (
            "other",
            [{"name": "longshort", "distribution": "longshort-verl"}],
            "",
            "VERL_USE_EXTERNAL_PLUGINS is 'other'",
        ),
        ("auto", [], "", "no entry point of verl.plugins loads longshort_verl"),
        (
            "longshort",
            [{"name": "longshort", "distribution": "longshort-verl"}],
            "ERROR:x\nTraceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'wrapt'\n",
            "not loaded: ModuleNotFoundError: No module named 'wrapt'",
        ),
    ],
)
def test_a_plugin_that_is_not_loaded(policy, entry_points, said, what):
    facts = {
        "package": str(ROOT / "longshort_verl"),
        "entry_points": entry_points,
        "verl": {"version": "0.9.1", "plugin": False},
        **{key: {"error": "ValueError: Unknown trainer"} for key in ("trainer", "agent_loop", "platform")},
    }
    found = by_name(plugin_findings(facts, said, {"VERL_USE_EXTERNAL_PLUGINS": policy}))["plugin"]
    assert found.status == "failure"
    assert what in found.found
    assert found.cure


def test_a_package_that_is_only_in_the_working_folder(tmp_path):
    # A Python that does not find the package, as on a node where it was forgotten: something else has its name.
    (tmp_path / "longshort_verl.py").touch()
    found = plugin_findings(*run_probe(environment(PYTHONPATH=str(tmp_path))), environment())
    assert [finding.name for finding in found] == ["other processes"]
    assert found[0].status == "failure"
    assert found[0].found.startswith("cannot use longshort_verl: Error while finding module specification")
    assert "pip install longshort-verl" in found[0].cure


def test_a_process_that_hangs_is_given_up():
    facts, said = run_probe(environment(), timeout=0.01)
    assert (facts, said) == ({}, "it did not end within 0 s")


# ------------------------------------------------------------------------------------------ a job's config


def test_a_config_that_can_run(job):
    found = by_name(job_findings(job(), {}, 0))
    assert list(found) == [
        "config", "settings", "long model", "short model", "chat templates", "problems", "job's size",
        "job's memory",
    ]  # fmt: skip
    assert {finding.status for finding in found.values()} == {"ok"}, found
    # 3 for the device, the controller, one storage unit and one that starts.
    assert "devices: 1, Ray's CPUs: 6" in found["job's size"].found


def test_each_part_of_a_config_is_told_by_itself(job, tmp_path, tiny_models):
    template = "'{% for m in messages[-1:] %}{{ m.content }}{% endfor %}'"
    broken = job(
        f"actor_rollout_ref.model.custom_chat_template={template}",
        "data.train_files=absent.parquet",
        "long_short.schedule=long_only",
        "algorithm.adv_estimator=gae",
        short=tmp_path,
    )
    found = by_name(job_findings(broken, {}, 0))
    assert found["config"].status == found["long model"].status == "ok"
    assert "algorithm.adv_estimator is 'gae'" in found["settings"].found
    assert found["short model"].found == f"{tmp_path} has no config.json and no weights"
    assert "no tokenizer could be loaded" in found["chat templates"].found
    with_models = job(f"actor_rollout_ref.model.custom_chat_template={template}", "data.train_files=absent.parquet")
    found = by_name(job_findings(with_models, {}, 0))
    assert "does not keep" in found["chat templates"].found
    assert "absent.parquet" in found["problems"].found


def test_more_devices_than_there_are(job, monkeypatch):
    # As on GPUs: the config's own refusals are not what is asked here.
    from longshort_verl.adapters import compat

    gpus = job("trainer.device=cuda", "trainer.n_gpus_per_node=8", "ray_kwargs.ray_init.num_cpus=null",
               "ray_kwargs.ray_init.num_gpus=null")  # fmt: skip
    monkeypatch.setenv("VERL_PLATFORM", "")
    assert not compat.on_cpu()
    found = by_name(job_findings(gpus, {}, 2))["job's size"]
    assert found.status == "failure"
    assert "number of devices is 2, but the job needs 8" in found.found


def test_a_cluster_that_does_not_answer(job):
    size = by_name(job_findings(job(), {"RAY_ADDRESS": "127.0.0.1:1"}, 0))["job's size"]
    assert size.status == "failure"
    assert "nothing answers" in size.found


def test_an_sft_config_is_checked_by_the_sft_trainers_check(tiny_models, tmp_path):
    settings = (f"model.path={tiny_models['long']}", f"data.train_files={tmp_path}/absent.parquet")
    config = compose_config(RECIPE, "sft_long", settings)
    findings = by_name(job_findings(Job(arguments=(), config=config), {}, 0))
    assert list(findings) == ["config", "model", "settings"]
    assert findings["model"].status == "ok"
    assert findings["settings"].status == "failure"
    assert "absent.parquet" in findings["settings"].found
    wrong = Job(arguments=(), config=compose_config(RECIPE, "sft_long", ("trainer.max_ckpt_to_keep=1",)))
    assert "trainer.max_ckpt_to_keep is 1" in by_name(job_findings(wrong, {}, 0))["settings"].found


def test_a_config_of_verl_alone_is_not_checked():
    (finding,) = job_findings(Job(arguments=(), config=compose_config(RECIPE, "sft")), {}, 0)
    assert (finding.name, finding.status) == ("config", "failure")
    assert finding.found == "not a job of longshort-verl: it has no section long_short or cold_start"
    assert "longshort_rl" in finding.cure


def test_models_of_the_hub_and_folders(tiny_models, monkeypatch):
    assert check_model("long model", str(tiny_models["long"])).status == "ok"
    assert "there is no folder ./absent" in check_model("long model", "./absent").found
    assert check_model("long model", "nobody/absent-model").status == "warning"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline = check_model("long model", "nobody/absent-model")
    assert offline.status == "failure"
    assert offline.cure == "hf download nobody/absent-model, on every node"


@pytest.mark.parametrize(
    ("recipe", "status", "steps"),
    [
        ("rl", "n/a", ["VERL_PLATFORM=cpu python -m verl.trainer.main_ppo --config-dir", "'a b=1'"]),
        ("rl", "ok", ["longshort plan --config-dir", "then: python -m verl.trainer.main_ppo"]),
        (
            "sft_long",
            "ok",
            ["longshort plan", "then: torchrun ", "-m longshort_verl.adapters.sft.trainer --config-dir"],
        ),
        (None, "ok", ["longshort plan"]),
        (None, "warning", ["make quickstart"]),
        ("rl", "failure", ["fix the failures"]),
    ],
)
def test_the_next_command(recipe, status, steps):
    job = Job(arguments=("--config-dir", "x", "a b=1"), config=compose_config(RECIPE, recipe)) if recipe else None
    command = next_step(job, [Finding("GPUs", status, "")])
    assert all(step in command for step in steps)


@pytest.mark.job
@pytest.mark.alone
def test_a_running_cluster_is_asked_for_its_size(job):
    """A real raylet with two logical GPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 16, "num_gpus": 2, "object_store_memory": 10**8, "include_dashboard": False},
    )
    try:
        asked = environment(RAY_ADDRESS=cluster.address)
        resources, said = run_probe(environment(), cluster.address, timeout=120)
        assert (resources["CPU"], resources["GPU"]) == (16, 2), said
        unsized = job("ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null")
        fits = by_name(job_findings(unsized, asked, 0))["job's size"]
        assert fits.status == "ok", fits.found
        assert f"the cluster {cluster.address} has 2 and 16" in fits.found
    finally:
        cluster.shutdown()


# ------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-dir", "recipes/tiny_cpu"], "needs both"),
        (["trainer.nnodes=2"], "needs both"),
        (["--config-dir", "recipes/tiny_cpu", "--config-name", "absent"], "absent"),
        (["--config-dir", "recipes/tiny_cpu", "--config-name", "rl", "nnodes"], "nnodes"),
        (["--config-dir", "no/such/folder", "--config-name", "rl"], "does not exist"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(arguments, said, root, monkeypatch):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_the_table_fits_a_terminal(monkeypatch):
    statuses = ("ok", "warning", "failure", "n/a")
    findings = [Finding(status, status, "[bold] " + "word " * 30, "do " * 40) for status in statuses]
    monkeypatch.setattr(doctor, "examine", lambda *_: findings)
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "80"})
    table, _, summary = done.stdout.partition("\n\n")
    assert max(len(line) for line in table.splitlines()) <= 80
    assert re.findall(r"^\S+", table, flags=re.M) == list(statuses)
    assert table.count("[bold]") == 4, "what was found is no markup"
    assert table.count("→") == 4
    assert summary == "failures: 1, warnings: 1\nnext: fix the failures and run this again\n"
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("statuses", "verdict", "code"),
    [(["ok", "n/a"], "ok", 0), (["ok", "warning"], "warning", 0), (["failure", "warning"], "failure", 1)],
)
def test_the_verdict(statuses, verdict, code, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda *_: [Finding("x", status, "") for status in statuses])
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert (json.loads(done.stdout)["verdict"], done.exit_code) == (verdict, code)


def test_json_holds_what_the_table_says(monkeypatch):
    findings = [Finding("port 6379", "failure", "taken", "ray stop")]
    monkeypatch.setattr(doctor, "examine", lambda *_: findings)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "verdict": "failure",
        "next": "fix the failures and run this again",
        "findings": [{"name": "port 6379", "status": "failure", "found": "taken", "cure": "ray stop"}],
    }
