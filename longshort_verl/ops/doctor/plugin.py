# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a fresh process outside the working folder finds: this package, the plugin, and what it registers with verl."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import longshort_verl
from longshort_verl.adapters.probe import PLUGIN
from longshort_verl.ops.doctor.findings import Finding, failure, ok, one_line, warning
from longshort_verl.ops.doctor.versions import DISTRIBUTION

_MODULES = {"trainer": "longshort_verl.adapters.rl.trainer", "agent_loop": "longshort_verl.adapters.rl.agent_loop"}


def run_probe(environment: Mapping[str, str], *arguments: str, timeout: float = 180) -> tuple[dict[str, Any], str]:
    """Run :mod:`longshort_verl.adapters.probe` in a fresh process outside the working folder.

    Returns:
        Its facts, {} where it failed; and its stderr.
    """
    command = [sys.executable, "-m", "longshort_verl.adapters.probe", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return {}, f"it did not end within {timeout:.0f} s"
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr
    except (IndexError, ValueError):
        return {}, done.stderr or f"it ended with status {done.returncode}"


def last_line(stderr: str) -> str:
    """The last line of a process's stderr, without Python's own path before it."""
    lines = stderr.strip().splitlines() or ["it printed nothing"]
    return one_line(lines[-1].removeprefix(f"{sys.executable}: "))


def plugin_findings(facts: Mapping[str, Any], stderr: str, environment: Mapping[str, str]) -> list[Finding]:
    """The facts of :func:`run_probe`, which ran with this environment, as findings."""
    if not facts:
        cure = f"install it where jobs run: {sys.executable} -m pip install {DISTRIBUTION} (in a checkout: .)"
        return [failure("other processes", f"cannot use longshort_verl: {last_line(stderr)}", cure)]
    here, there = Path(longshort_verl.__file__).parent, Path(facts["package"])
    findings = [ok("other processes", f"use the same longshort_verl ({there})")]
    if here != there:
        cure = "start from another folder, or install the one that you want: pip install ."
        findings = [warning("other processes", f"use longshort_verl of {there}; this one is {here}", cure)]
    if "error" in facts["verl"]:
        cure = "python -c 'import verl' prints the whole error"
        return [*findings, failure("import verl", f"cannot be imported: {facts['verl']['error']}", cure)]
    findings.append(_check_plugin(facts, stderr, environment))
    for key in ("trainer", "agent_loop", "platform"):
        name, fact, expected = key.replace("_", " "), facts[key], _MODULES.get(key)
        if "error" in fact:
            cure = "as for the plugin above" if expected else "VERL_PLATFORM=cpu without a GPU; unset it with one"
            findings.append(failure(name, fact["error"], cure))
        elif expected and fact["module"] != expected:
            cure = "another package registered the name; uninstall it"
            findings.append(failure(name, f"'longshort' is {fact['module']} instead of {expected}", cure))
        else:
            findings.append(ok(name, fact["module"]))
    return findings


def _check_plugin(facts: Mapping[str, Any], stderr: str, environment: Mapping[str, str]) -> Finding:
    name, entries = "plugin", facts["entry_points"]
    allowed = environment.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if len(entries) != 1:
        listed = ", ".join(f"{entry['name']} of {entry['distribution']}" for entry in entries) or "none"
        found = f"entry points of verl.plugins that load longshort_verl: {listed}; there must be one"
        return failure(name, found, f"pip install --force-reinstall --no-deps {DISTRIBUTION}")
    if facts["verl"]["plugin"]:
        return ok(name, "verl loads it at import, in every process")
    if allowed != "auto" and entries[0]["name"] not in [entry.strip() for entry in allowed.split(",")]:
        cure = "unset VERL_USE_EXTERNAL_PLUGINS, or add longshort to it"
        return failure(name, f"not loaded: VERL_USE_EXTERNAL_PLUGINS is {allowed!r}", cure)
    # plugin.py logs its own traceback; verl logs nothing.
    errors = [line for line in stderr.splitlines() if line[:1].strip() and "Error" in line.split(":")[0]]
    reason = one_line(errors[-1]) if errors else "verl does not log why (VERL_LOGGING_LEVEL=DEBUG)"
    return failure(name, f"not loaded: {reason}", f"python -c 'import {PLUGIN}'")
