# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What is installed, loaded and run: hashes, foreign files, downloads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("longshort_verl", "recipes/tiny_cpu", "examples") for path in (ROOT / folder).rglob("*.py")
)

# Calls that run what a file or a text holds. verl itself reads and writes the shards of a checkpoint with pickle.
RUNS_ITS_INPUT = re.compile(
    r"(torch|joblib|numpy|np)\.load|(c?pickle|dill|marshal|shelve|cloudpickle)\.\w+|read_pickle"
    r"|yaml\.(unsafe_|full_)?load(_all)?|eval|exec|os\.(system|popen)"
)


def calls(path):
    """Name, and the keywords with their source, of each call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {one.arg: ast.unparse(one.value) for one in node.keywords}
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}", ast.unparse(node.func), keywords


def is_safe(name, keywords):
    return keywords.get("weights_only") == "True" or "SafeLoader" in keywords.get("Loader", "")


@pytest.mark.parametrize(
    ("code", "safe"),
    [
        ("torch.load(p)", False),
        ("torch.load(p, weights_only=False)", False),
        ("torch.load(p, weights_only=True)", True),
        ("pickle.loads(p)", False),
        ("yaml.load(p)", False),
        ("yaml.safe_load(p)", True),
        ("json.load(p)", True),
    ],
)
def test_what_counts_as_running_its_input(code, safe):
    call = ast.parse(code).body[0].value
    name, keywords = ast.unparse(call.func), {one.arg: ast.unparse(one.value) for one in call.keywords}
    assert (not RUNS_ITS_INPUT.fullmatch(name) or is_safe(name, keywords)) is safe


def test_no_file_is_run_when_it_is_read():
    assert len(SOURCES) > 100
    found = [
        where
        for path in SOURCES
        for where, name, keywords in calls(path)
        if RUNS_ITS_INPUT.fullmatch(name) and not is_safe(name, keywords)
    ]
    assert found == []


def test_weights_are_written_as_safetensors():
    written = [(where, keywords) for path in SOURCES for where, name, keywords in calls(path) if "save" in name]
    assert any("save_pretrained" in where for where, _ in written)
    assert [where for where, _ in written if "torch.save" in where] == []
    assert [where for where, keywords in written if keywords.get("safe_serialization", "True") != "True"] == []


def test_code_of_models_is_not_trusted_unless_asked():
    literal = [where for path in SOURCES for where, _, more in calls(path) if more.get("trust_remote_code") == "True"]
    assert literal == []
    files = [
        path for folder in ("longshort_verl/config", "recipes", "examples") for path in (ROOT / folder).rglob("*.yaml")
    ]
    assert len(files) > 20
    trusted = [path for path in files if re.search(r"trust_remote_code\W+true", path.read_text(), re.IGNORECASE)]
    assert trusted == []


def test_nothing_is_downloaded_at_import():
    """All modules but the adapters, which import verl, in one process that ends at its first connection."""
    package = ROOT / "longshort_verl"
    paths = [
        path.relative_to(ROOT).with_suffix("") for path in sorted(package.rglob("*.py")) if "adapters" not in path.parts
    ]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]
    script = """
import importlib, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"{event}: {arguments}")
sys.addaudithook(refuse)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
    assert len(names) > 80
    done = subprocess.run([sys.executable, "-c", script, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_pin_has_hashes_and_they_are_required():
    text = (ROOT / "requirements" / "cpu.txt").read_text()
    pins = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    assert len(pins) > 250
    without = [pin for pin in pins if not re.fullmatch(r"\S+==\S+.*?( \\\n    --hash=sha256:[0-9a-f]{64})+", pin)]
    assert without == []
    makefile = (ROOT / "Makefile").read_text()
    assert "--no-deps --require-hashes -r requirements/cpu.txt" in makefile
    assert "--generate-hashes" in makefile


def test_a_release_has_a_bill_of_materials():
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"].values()
    steps = "\n".join(step.get("run", "") for step in job["steps"])
    assert "cyclonedx_py requirements requirements/cpu.txt" in steps
    assert "dist/sbom.cdx.json" in steps
