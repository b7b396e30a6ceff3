# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""How checks become findings, and checks of machines that are not here and of this one."""

from __future__ import annotations

import resource
import shutil
import socket
from pathlib import Path

import pytest

from longshort_verl.ops.doctor import machine as doctor
from longshort_verl.ops.doctor.machine import GIB, GPU, Finding, check_resource, run_checks


def gpu(driver="580.82.07", used=400):
    return GPU(name="NVIDIA H100 80GB HBM3", driver=driver, total=81559, used=used)


def test_a_check_that_raises_is_a_finding_and_the_others_run():
    def broken():
        raise RuntimeError("the sensor\nfell off")

    def refused():
        raise ValueError("x is 3; set it to 2")

    findings = run_checks(
        {
            "broken": broken,
            "refused": refused,
            "text": lambda: "fine",
            "finding": lambda: Finding("a", "n/a", ""),
            "several": lambda: (Finding(name, "ok", "") for name in "bc"),
        }
    )
    assert [(finding.name, finding.status, finding.found) for finding in findings] == [
        ("broken", "failure", "could not be checked: RuntimeError: the sensor"),
        ("refused", "failure", "x is 3; set it to 2"),
        ("text", "ok", "fine"),
        ("a", "n/a", ""),
        ("b", "ok", ""),
        ("c", "ok", ""),
    ]


# ------------------------------------------------------------------------------------------ devices


def test_nvidia_smi_is_read():
    text = "NVIDIA H100 80GB HBM3, 580.82.07, 81559, 400\nNVIDIA L4, 550.1, 23034, [N/A]\nno devices were found\n"
    assert doctor.parse_nvidia_smi(text) == [gpu()]


def statuses(findings):
    return {finding.name: finding.status for finding in findings}


@pytest.mark.parametrize(
    ("gpus", "seen", "cuda", "environment", "wanted", "cure"),
    [
        ([gpu()], 1, "13.0", {}, {"GPUs": "ok", "driver": "ok", "GPU memory": "ok"}, ""),
        ([], 0, "13.0", {}, {"GPUs": "warning"}, "VERL_PLATFORM=cpu"),
        ([gpu()], 0, "13.0", {"VERL_PLATFORM": "cpu"}, {"GPUs": "n/a"}, ""),
        (
            [gpu()],
            0,
            "13.0",
            {"CUDA_VISIBLE_DEVICES": ""},
            {"GPUs": "failure", "driver": "ok"},
            "CUDA_VISIBLE_DEVICES is ''",
        ),
        ([gpu()], 0, None, {}, {"GPUs": "failure"}, "install torch with CUDA"),
        ([gpu("550.54.15")], 0, "13.0", {}, {"GPUs": "failure", "driver": "failure"}, "update the driver to 580.65.06"),
        (
            [gpu()] * 8,
            2,
            "13.0",
            {"CUDA_VISIBLE_DEVICES": "0,1"},
            {"GPUs": "warning", "driver": "ok", "GPU memory": "ok"},
            "",
        ),
        # 8156 of 81559 MiB is a tenth.
        (
            [gpu(used=8156)],
            1,
            "12.8",
            {},
            {"GPUs": "ok", "driver": "ok", "GPU memory": "warning"},
            "end those processes",
        ),
    ],
)
def test_devices(gpus, seen, cuda, environment, wanted, cure):
    found = list(doctor.check_devices(gpus, seen, cuda, environment))
    assert statuses(found) == wanted
    assert cure in " ".join(finding.cure for finding in found)


# ------------------------------------------------------------------------------------------ network


def test_a_cluster_that_has_died_and_one_that_answers():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        dead = doctor.check_cluster(f"127.0.0.1:{port}", "RAY_ADDRESS")
        assert dead.status == "failure"
        assert f"RAY_ADDRESS is 127.0.0.1:{port}, where nothing answers" in dead.found
        assert "unset RAY_ADDRESS" in dead.cure
        listening.listen()
        assert doctor.check_cluster(f"ray://127.0.0.1:{port}", "RAY_ADDRESS").status == "ok"
    assert "not a host:port" in doctor.check_cluster("head-node", "RAY_ADDRESS").found


def test_the_cluster_that_ray_would_join(tmp_path):
    environment = {"RAY_TMPDIR": str(tmp_path)}
    assert doctor.ray_address(environment) is None
    (tmp_path / "ray").mkdir()
    current = tmp_path / "ray" / "ray_current_cluster"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        current.write_text(f"{address}\n")
        assert doctor.ray_address(environment) is None, "Ray ignores a dead cluster"
        listening.listen()
        assert doctor.ray_address(environment) == (address, str(current))
        assert doctor.ray_address({**environment, "RAY_ADDRESS": "local"}) is None
        assert doctor.ray_address({**environment, "RAY_ADDRESS": "10.0.0.2:6379"}) == ("10.0.0.2:6379", "RAY_ADDRESS")


@pytest.mark.parametrize(
    ("environment", "status", "cure"),
    [
        ({}, "ok", ""),
        ({"HTTPS_PROXY": "http://p:3128"}, "warning", "export no_proxy=127.0.0.1,10.0.0.5"),
        ({"http_proxy": "http://p:3128", "no_proxy": "127.0.0.1"}, "warning", "export no_proxy=127.0.0.1,10.0.0.5,"),
        ({"http_proxy": "http://p:3128", "NO_PROXY": "127.0.0.1,10.0.0.5"}, "ok", ""),
        ({"http_proxy": "http://p:3128", "no_proxy": "*"}, "ok", ""),
        ({"http_proxy": ""}, "ok", ""),
    ],
)
def test_proxies_that_swallow_a_nodes_own_address(environment, status, cure):
    found = doctor.check_proxies(environment, ["127.0.0.1", "10.0.0.5"])
    assert found.status == status
    assert cure in found.cure


# ------------------------------------------------------------------------------------------ memory, disk, limits


@pytest.mark.parametrize(
    ("name", "amount", "status"),
    [
        ("shared memory", 2**26, "failure"),  # Docker's default
        ("shared memory", 8 * GIB, "warning"),
        ("shared memory", 60 * GIB, "ok"),
        ("memory", 8 * GIB, "warning"),
        ("memory", 14 * GIB, "ok"),
        ("working folder", 1 * GIB, "failure"),
        ("working folder", 15 * GIB, "warning"),
        ("Ray's folder", -10 * GIB, "failure"),
        ("open files", 1024, "warning"),
        ("processes", float("inf"), "ok"),
    ],
)
def test_resources(name, amount, status):
    finding = check_resource(name, amount, "what there is")
    assert (finding.name, finding.status, finding.found) == (name, status, "what there is")
    assert bool(finding.cure) is (status != "ok")


def test_memory_of_the_container_counts():
    assert doctor.free_memory(64 * GIB, 60 * GIB, None) == (60 * GIB, "60.0 GiB of 64.0 GiB free")
    assert doctor.free_memory(64 * GIB, 60 * GIB, 2**63)[0] == 60 * GIB
    amount, found = doctor.free_memory(64 * GIB, 60 * GIB, 8 * GIB)
    assert amount == 8 * GIB
    assert "the container is limited to 8.0 GiB" in found


@pytest.mark.parametrize(("file", "text", "limit"), [
    ("memory.max", "8589934592\n", 8 * GIB),
    ("memory.max", "max\n", None),
    ("memory/memory.limit_in_bytes", "8589934592\n", 8 * GIB),
])  # fmt: skip
def test_the_limit_of_a_container_is_read(file, text, limit, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert doctor.container_limit(tmp_path) == limit


def test_space_of_a_disk(tmp_path):
    usage = shutil.disk_usage(tmp_path)
    amount, found = doctor.free_space(tmp_path / "not" / "yet")
    assert amount == pytest.approx(usage.free, rel=0.05)
    assert f"free ({tmp_path}/not/yet)" in found
    # Ray leaves a twentieth of the disk free.
    assert doctor.free_space(tmp_path, reserve=0.05)[0] == pytest.approx(amount - usage.total / 20, rel=0.05)
    # Not writable; for root, without free bytes.
    amount, found = doctor.free_space(Path("/proc/hf"))
    assert amount == 0
    assert "/proc" in found


def test_limits():
    value = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    amount, found = doctor.soft_limit(resource.RLIMIT_NOFILE)
    if value == resource.RLIM_INFINITY:
        assert (amount, found) == (float("inf"), "unlimited")
    else:
        assert (amount, found) == (value, f"at most {value}")


def test_threads_are_limited_on_a_cpu():
    assert doctor.num_threads({}, needed=True) == (False, "OMP_NUM_THREADS is not set")
    assert doctor.num_threads({}, needed=False)[0]
    assert doctor.num_threads({"OMP_NUM_THREADS": "1"}, needed=True) == (True, "OMP_NUM_THREADS is 1")


def test_this_machine_can_be_checked(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environment = {"RAY_TMPDIR": str(tmp_path / ("long" * 20)), "HF_HOME": "/proc/hf"}
    findings = doctor.machine_findings(environment, {"devices": 0, "cuda": None}, "10.0.0.5")
    assert not [finding for finding in findings if "could not be checked" in finding.found]
    named = {finding.name: finding for finding in findings}
    assert "/proc" in named["model cache"].found
    assert named["model cache"].status == "failure"
    assert named["threads"].status == "warning"
    assert {"GPUs", "proxies", "Ray cluster", "crashed jobs", *doctor.RESOURCES} == named.keys()
