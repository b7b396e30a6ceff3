# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a machine, on machines that are not here, and of this one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from longshort_verl.ops.doctor import machine as doctor
from longshort_verl.ops.doctor.findings import GIB, Status
from longshort_verl.ops.doctor.machine import GPU

OK, WARNING, FAILURE, NOT_APPLICABLE = Status.OK, Status.WARNING, Status.FAILURE, Status.NOT_APPLICABLE


def gpu(driver="580.82.07", used=400):
    return GPU(name="NVIDIA H100 80GB HBM3", driver=driver, total=81559 * 2**20, used=used * 2**20)


# ------------------------------------------------------------------------------------------ devices


def test_nvidia_smi_is_read():
    text = "NVIDIA H100 80GB HBM3, 580.82.07, 81559, 400\nNVIDIA L4, 550.1, 23034, [N/A]\nno devices were found\n"
    assert doctor.parse_nvidia_smi(text) == [gpu()]


def statuses(findings):
    return {finding.name: finding.status for finding in findings}


@pytest.mark.parametrize(
    ("gpus", "seen", "cuda", "environment", "wanted", "cure"),
    [
        ([gpu()], 1, "13.0", {}, {"GPUs": OK, "driver": OK, "GPU memory": OK}, ""),
        ([], 0, "13.0", {}, {"GPUs": WARNING}, "VERL_PLATFORM=cpu"),
        ([gpu()], 0, "13.0", {"VERL_PLATFORM": "cpu"}, {"GPUs": NOT_APPLICABLE}, ""),
        (
            [gpu()],
            0,
            "13.0",
            {"CUDA_VISIBLE_DEVICES": ""},
            {"GPUs": FAILURE, "driver": OK},
            "CUDA_VISIBLE_DEVICES is ''",
        ),
        ([gpu()], 0, None, {}, {"GPUs": FAILURE}, "install torch with CUDA"),
        ([gpu("550.54.15")], 0, "13.0", {}, {"GPUs": FAILURE, "driver": FAILURE}, "update the driver to 580.65.06"),
        (
            [gpu()] * 8,
            2,
            "13.0",
            {"CUDA_VISIBLE_DEVICES": "0,1"},
            {"GPUs": WARNING, "driver": OK, "GPU memory": OK},
            "",
        ),
        # 8156 of 81559 MiB is a tenth.
        ([gpu(used=8156)], 1, "12.8", {}, {"GPUs": OK, "driver": OK, "GPU memory": WARNING}, "end that process"),
    ],
)
def test_devices(gpus, seen, cuda, environment, wanted, cure):
    found = doctor.check_devices(gpus, seen, cuda, environment)
    assert statuses(found) == wanted
    assert cure in " ".join(finding.cure for finding in found)


@pytest.mark.parametrize(
    ("installed", "on_gpu", "status"), [("2.8.3", True, OK), (None, True, WARNING), (None, False, NOT_APPLICABLE)]
)
def test_flash_attention_is_for_gpus(installed, on_gpu, status):
    assert doctor.check_flash_attention(installed, on_gpu=on_gpu).status is status


# ------------------------------------------------------------------------------------------ network


def test_a_cluster_that_has_died_and_one_that_answers():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        dead = doctor.check_ray_address(f"127.0.0.1:{port}", "RAY_ADDRESS")
        assert dead.status is FAILURE
        assert f"RAY_ADDRESS is 127.0.0.1:{port}, where nothing answers" in dead.found
        assert "unset RAY_ADDRESS" in dead.cure
        listening.listen()
        assert doctor.check_ray_address(f"ray://127.0.0.1:{port}", "RAY_ADDRESS").status is OK
    assert "not a host:port" in doctor.check_ray_address("head-node", "RAY_ADDRESS").found


def test_the_cluster_that_ray_would_join(tmp_path):
    environment = {"RAY_TMPDIR": str(tmp_path)}
    assert doctor.ray_address(environment) is None
    (tmp_path / "ray").mkdir()
    current = tmp_path / "ray" / "ray_current_cluster"
    current.write_text("10.0.0.1:6379\n")
    assert doctor.ray_address(environment) == ("10.0.0.1:6379", str(current))
    assert doctor.ray_address({**environment, "RAY_ADDRESS": "10.0.0.2:6379"}) == ("10.0.0.2:6379", "RAY_ADDRESS")
    assert doctor.ray_address({**environment, "RAY_ADDRESS": "local"}) is None


@pytest.mark.parametrize(
    ("environment", "status", "cure"),
    [
        ({}, OK, ""),
        ({"HTTPS_PROXY": "http://p:3128"}, WARNING, "export no_proxy=127.0.0.1,10.0.0.5"),
        ({"http_proxy": "http://p:3128", "no_proxy": "127.0.0.1"}, WARNING, "export no_proxy=127.0.0.1,10.0.0.5,"),
        ({"http_proxy": "http://p:3128", "NO_PROXY": "127.0.0.1,10.0.0.5"}, OK, ""),
        ({"http_proxy": "http://p:3128", "no_proxy": "*"}, OK, ""),
        ({"http_proxy": ""}, OK, ""),
    ],
)
def test_proxies_that_swallow_a_nodes_own_address(environment, status, cure):
    found = doctor.check_proxies(environment, ["127.0.0.1", "10.0.0.5"])
    assert found.status is status
    assert cure in found.cure


# ------------------------------------------------------------------------------------------ memory, disk, limits


@pytest.mark.parametrize(
    ("total", "free", "status"),
    [
        (2**26, 2**26, FAILURE),  # Docker's default
        (64 * GIB, GIB // 2, FAILURE),
        (8 * GIB, 8 * GIB, WARNING),
        (64 * GIB, 60 * GIB, OK),
    ],
)
def test_shared_memory(total, free, status):
    found = doctor.check_shared_memory(total, free)
    assert found.status is status
    assert ("--shm-size" in found.cure) is (status is not OK)


def test_memory_of_the_container_counts():
    assert doctor.check_memory(64 * GIB, 60 * GIB, None).status is OK
    assert doctor.check_memory(64 * GIB, 60 * GIB, 2**63).status is OK
    limited = doctor.check_memory(64 * GIB, 60 * GIB, 8 * GIB)
    assert limited.status is WARNING
    assert "the container is limited to 8.0 GiB" in limited.found
    assert "--memory" in limited.cure


@pytest.mark.parametrize(("file", "text", "limit"), [
    ("memory.max", "8589934592\n", 8 * GIB),
    ("memory.max", "max\n", None),
    ("memory/memory.limit_in_bytes", "8589934592\n", 8 * GIB),
])  # fmt: skip
def test_the_limit_of_a_container_is_read(file, text, limit, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert doctor.container_limit(tmp_path) == limit


@pytest.mark.parametrize(
    ("free", "for_ray", "status"),
    [(500, False, OK), (15, False, WARNING), (1, False, FAILURE), (40, True, FAILURE), (60, True, OK)],
)
def test_disks(free, for_ray, status):
    # Of 1000 GiB; Ray stops at 95 %, which leaves 50.
    found = doctor.check_disk("disk", Path("/d"), 1000 * GIB, free * GIB, cure="a larger one", for_ray=for_ray)
    assert found.status is status


def test_limits():
    files, processes = doctor.check_limits(1024, -1)
    assert (files.status, files.cure) == (WARNING, "ulimit -n 65535")
    assert (processes.status, processes.found) == (OK, "unlimited")


def test_variables_that_break_jobs():
    def found(environment, on_gpu):
        return doctor.check_environment(environment, on_gpu=on_gpu, num_cpus=64)

    (threads,) = found({}, False)
    assert "64 threads" in threads.found
    assert found({}, True)[0].status is OK
    segments = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:True"}
    assert "unset PYTORCH_CUDA_ALLOC_CONF" in found(segments, True)[0].cure
    assert found({**segments, "OMP_NUM_THREADS": "1"}, False)[0].status is OK


def test_this_machine_can_be_looked_at(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = doctor.machine_findings({"RAY_TMPDIR": str(tmp_path / ("long" * 20)), "HF_HOME": "/proc/hf"}, on_gpu=False)
    assert not [finding for finding in found if "could not be checked" in finding.found]
    told = {finding.name: finding for finding in found if finding.status is FAILURE}
    assert "/proc/hf" in told["model cache"].found, "not writable"
    assert {"memory", "shared memory", "working folder", "open files", "proxies"} <= statuses(found).keys()
