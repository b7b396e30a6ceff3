# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""All checks together, and those of a job's config against the machine."""

from __future__ import annotations

import os

import pytest

from longshort_verl.ops.doctor.findings import Finding, Status
from longshort_verl.ops.doctor.job import JobConfig, check_model, config_findings, examine, next_step
from longshort_verl.ops.doctor.plugin import run_probe
from tests.support.configs import ROOT


def environment(**more):
    """This one, with the checkout in front, as an installation would be."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture(scope="module")
def job(tiny_models, tiny_problems):
    def make(*overrides, **models):
        models = {**tiny_models, **models}
        return JobConfig(
            folder=ROOT / "recipes" / "tiny_cpu",
            name="rl",
            overrides=(
                f"actor_rollout_ref.model.path={models['long']}",
                f"long_short.short.model.path={models['short']}",
                f"data.train_files={tiny_problems}/train.parquet",
                f"data.val_files={tiny_problems}/val.parquet",
                *overrides,
            ),
        )

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
    assert found["GPUs"].status is found["flash-attn"].status is Status.NOT_APPLICABLE
    assert found["verl"].status is found["chat templates"].status is Status.OK


@pytest.mark.process
def test_a_process_elsewhere_has_the_plugin_and_what_it_registers(examined):
    found = by_name(examined)
    for name in ("other processes", "plugin", "trainer", "agent loop", "platform"):
        assert found[name].status is Status.OK, found[name]
    assert found["trainer"].found == "longshort_verl.adapters.rl.trainer"
    assert found["agent loop"].found == "longshort_verl.adapters.rl.agent_loop"
    assert found["platform"].found == "cpu (PlatformCPU)"
    assert str(ROOT) in found["other processes"].found


# ------------------------------------------------------------------------------------------ a job's config


def test_a_config_that_can_run(job):
    found = by_name(config_findings(job(), {}, num_devices=0))
    assert list(found) == [
        "config", "settings", "long model", "short model", "chat templates", "problems", "job's size"
    ]  # fmt: skip
    assert {finding.status for finding in found.values()} == {Status.OK}, found
    # 3 for the device, the controller, one storage unit and one that starts.
    assert "1 devices and 6 of Ray's CPUs" in found["job's size"].found


def test_each_part_of_a_config_is_told_by_itself(job, tmp_path, tiny_models):
    template = "'{% for m in messages[-1:] %}{{ m.content }}{% endfor %}'"
    broken = job(
        f"actor_rollout_ref.model.custom_chat_template={template}",
        "data.train_files=absent.parquet",
        "long_short.schedule=long_only",
        "algorithm.adv_estimator=gae",
        short=tmp_path,
    )
    found = by_name(config_findings(broken, {}, num_devices=0))
    assert found["config"].status is found["long model"].status is Status.OK
    assert "algorithm.adv_estimator is 'gae'" in found["settings"].found
    assert found["short model"].found == f"{tmp_path} has no config.json and no weights"
    assert "no tokenizer could be loaded" in found["chat templates"].found
    with_models = job(f"actor_rollout_ref.model.custom_chat_template={template}", "data.train_files=absent.parquet")
    found = by_name(config_findings(with_models, {}, num_devices=0))
    assert "does not keep" in found["chat templates"].found
    assert "absent.parquet" in found["problems"].found


def test_more_devices_than_there_are(job, monkeypatch):
    # As on GPUs: the config's own refusals are not what is asked here.
    from longshort_verl.adapters import compat

    gpus = job("trainer.device=cuda", "trainer.n_gpus_per_node=8", "ray_kwargs.ray_init.num_cpus=null",
               "ray_kwargs.ray_init.num_gpus=null")  # fmt: skip
    monkeypatch.setenv("VERL_PLATFORM", "")
    assert not compat.on_cpu()
    found = by_name(config_findings(gpus, {}, num_devices=2))["job's size"]
    assert found.status is Status.FAILURE
    assert "number of devices is 2, but the job needs 8" in found.found


def test_a_cluster_whose_size_a_config_would_set(job, serve_nothing):
    found = by_name(config_findings(job(), {"RAY_ADDRESS": serve_nothing}, num_devices=0))["job's size"]
    assert found.status is Status.FAILURE
    assert f"would size the cluster {serve_nothing} (RAY_ADDRESS), which runs already" in found.found
    assert "ray_kwargs.ray_init.num_cpus=null" in found.cure
    gone = by_name(config_findings(job(), {"RAY_ADDRESS": "127.0.0.1:1"}, num_devices=0))["job's size"]
    assert "nothing answers" in gone.found


@pytest.fixture
def serve_nothing():
    """An address where something listens."""
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_config_that_does_not_compose(tmp_path):
    (tmp_path / "rl.yaml").write_text("defaults: [absent, _self_]\n")
    (found,) = config_findings(JobConfig(folder=tmp_path, name="rl"), {}, num_devices=0)
    assert found.status is Status.FAILURE
    assert "absent" in found.found
    assert "\n" not in found.found
    misspelt = JobConfig(folder=ROOT / "recipes" / "tiny_cpu", name="rl", overrides=("trainer.nodes=2",))
    (found,) = config_findings(misspelt, {}, num_devices=0)
    assert "trainer.nodes" in found.found


def test_models_of_the_hub_and_folders(tiny_models, monkeypatch):
    assert check_model("long model", str(tiny_models["long"])).status is Status.OK
    assert "there is no folder ./absent" in check_model("long model", "./absent").found
    assert check_model("long model", "nobody/absent-model").status is Status.WARNING
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline = check_model("long model", "nobody/absent-model")
    assert offline.status is Status.FAILURE
    assert offline.cure == "hf download nobody/absent-model, on every node"


@pytest.mark.parametrize(
    ("named", "status", "steps"),
    [
        (True, Status.NOT_APPLICABLE, ["VERL_PLATFORM=cpu python -m verl.trainer.main_ppo --config-dir", "'a b=1'"]),
        (True, Status.OK, ["longshort plan --config-dir", "then: python -m verl.trainer.main_ppo"]),
        (False, Status.OK, ["longshort plan"]),
        (False, Status.WARNING, ["make quickstart"]),
        (True, Status.FAILURE, ["fix the failures"]),
    ],
)
def test_the_next_command(named, status, steps, tmp_path):
    job = JobConfig(folder=tmp_path, name="rl", overrides=("a b=1",)) if named else None
    told = next_step(job, [Finding("GPUs", status, "")])
    assert all(step in told for step in steps)


@pytest.mark.job
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
        fits = by_name(config_findings(unsized, asked, num_devices=0))["job's size"]
        assert fits.status is Status.OK, fits.found
        assert f"the cluster {cluster.address} has 2 and 16" in fits.found
    finally:
        cluster.shutdown()
