# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The house rules: which room may import which, how large the package may be, and what every file begins with.

A room is a file or a folder directly under ``longshort_verl``. Imports inside functions and under ``TYPE_CHECKING``
count like any other, and so does ``importlib.import_module("longshort_verl…")``.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.imports import imported_names

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "longshort_verl"
SPDX = ("# SPDX-FileCopyrightText: 2026 The longshort-verl authors", "# SPDX-License-Identifier: Apache-2.0")

# Lowest first. A room may import rooms of lower levels, and rooms of its own level as long as no circle arises.
LEVELS = (
    ("types", "importance", "rewards", "metrics"),
    ("files", "problems", "grading"),
    ("generation", "config"),
    ("dialogue", "chat_template"),
    ("chains",),
    ("cold_start", "evaluation"),
    ("serving", "report"),
    ("adapters",),
    ("ops",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# Libraries that only some rooms may import.
RESERVED = {"verl": {"adapters"}, "ray": {"adapters"}, "transfer_queue": {"adapters"}}
# Rooms that only some rooms may import.
PRIVATE = {"ops": {"cli"}, "report": {"cli"}, "cli": set()}
MAX_LINES = {"package": 21_939, "operators": 1_900, "function of cli": 30, "README.md": 150, "examples/pipeline.sh": 70}
# Names that no file has: a module that cpu_platform.py registers, and files that tests write or name as examples.
MADE_AT_RUN_TIME = {"longshort_verl.adapters.cpu_platform.cpu", "longshort_verl.py", "longshort_verl/config/b.yaml"}


@dataclass(frozen=True)
class Import:
    """One import, by dotted names as in ``longshort_verl.types``, and the file and line that it stands in."""

    source: str
    target: str
    where: str


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the package, of our modules and of others."""
    found = []
    for source, path in modules().items():
        for module, name, line in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            target = f"{module}.{name}" if f"{module}.{name}" in modules() else module
            found.append(Import(source=source, target=target, where=f"{path.relative_to(ROOT)}:{line}"))
    return tuple(found)


def room(module: str) -> str:
    """Room of one of our modules; "" for the package's own ``__init__``."""
    return module.split(".")[1] if "." in module else ""


def room_imports() -> list[Import]:
    """Imports that cross from one of our rooms into another."""
    ours = [one for one in imports() if one.target in modules() and one.target != PACKAGE.name]
    return [one for one in ours if room(one.source) != room(one.target)]


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (strongly connected components of more than one node)."""

    def reachable(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for target in edges.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reach = {node: reachable(node) for node in edges}
    groups = {tuple(sorted(other for other in reach[node] if node in reach.get(other, ()))) for node in edges}
    return sorted(list(group) for group in groups if group)


def lines_of(paths: Iterable[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def test_the_rooms_are_those_of_the_design():
    entries = [path for path in PACKAGE.iterdir() if path.name not in {"__init__.py", "__pycache__"}]
    assert {path.stem for path in entries} == set(LEVEL)
    assert {path.name for path in entries if path.is_file()} == {
        f"{name}.py" for name in ("types", "dialogue", "importance", "rewards", "metrics", "chat_template")
    }
    stages = {"adapters": {"rl", "sft"}, "ops": {"plan", "doctor"}}
    for folder in (path for path in entries if path.is_dir()):
        inner = {path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
        assert inner == stages.get(folder.name, set()), folder.name


def test_no_circle_of_modules():
    edges: dict[str, set[str]] = {name: set() for name in modules()}
    for one in imports():
        if one.target in modules():
            edges[one.source].add(one.target)
            # Python first runs the __init__ of each package around a module.
            parents = [one.target.rsplit(".", depth)[0] for depth in range(1, one.target.count(".") + 1)]
            edges[one.source] |= {name for name in parents if not one.source.startswith(name)}
    assert circles(edges) == []


def test_no_circle_of_rooms():
    edges: dict[str, set[str]] = {name: set() for name in map(room, modules())}
    for one in room_imports():
        edges[room(one.source)].add(room(one.target))
    assert circles(edges) == []


def test_no_import_from_a_lower_room_to_a_higher_one():
    upward = [
        f"{one.where}: {room(one.source)} imports {one.target}"
        for one in room_imports()
        if LEVEL.get(room(one.source), 0) < LEVEL.get(room(one.target), 0)
    ]
    assert upward == [], "\n".join(upward)


@pytest.mark.parametrize("library", sorted(RESERVED))
def test_only_the_adapters_import(library):
    users = [one for one in imports() if one.target.split(".")[0] == library]
    assert users, f"nothing imports {library}: remove the entry"
    strangers = [f"{one.where}: {one.target}" for one in users if room(one.source) not in RESERVED[library]]
    assert strangers == [], "\n".join(strangers)


@pytest.mark.parametrize("private", sorted(PRIVATE))
def test_only_the_command_line_imports(private):
    strangers = [
        f"{one.where}: {one.target}"
        for one in room_imports()
        if room(one.target) == private and room(one.source) not in PRIVATE[private]
    ]
    assert strangers == [], "\n".join(strangers)


def test_the_package_is_small():
    size = lines_of(modules().values())
    assert size <= MAX_LINES["package"]


def test_the_operators_part_is_small():
    operators = [*(PACKAGE / "ops").rglob("*.py"), PACKAGE / "cli" / "ops.py"]
    size = lines_of(operators)
    assert size <= MAX_LINES["operators"]


def test_the_command_line_holds_arguments_only():
    long = []
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > MAX_LINES["function of cli"]:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {size} lines")
    assert long == [], "\n".join(long)


@pytest.mark.parametrize("name", ["README.md", "examples/pipeline.sh"])
def test_what_a_user_reads_first_is_short(name):
    assert lines_of([ROOT / name]) <= MAX_LINES[name]


def tracked(*patterns: str) -> list[Path]:
    """Files of the checkout that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for name in listed if (path := ROOT / name).is_file()]


def test_every_python_file_begins_with_its_licence():
    # recipes/upstream keeps the header of the repository that it is written for.
    paths = [path for path in tracked("*.py") if "upstream" not in path.relative_to(ROOT).parts]
    assert len(paths) > 150
    bare = [
        str(path.relative_to(ROOT))
        for path in paths
        if tuple(path.read_text(encoding="utf-8").splitlines()[:2]) != SPDX
    ]
    assert bare == [], "\n".join(bare)


def test_every_module_that_a_text_names_exists():
    unknown = []
    for path in tracked("*.yaml", "*.yml", "*.toml", "*.sh", "*.md", "*.py", "Makefile"):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"\blongshort_verl(?:[./](?!__)[A-Za-z_]\w*)+", text):
            line = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
            if match[0] not in MADE_AT_RUN_TIME and not exists(match[0]):
                unknown.append(line)
    assert unknown == [], "\n".join(unknown)


def exists(name: str) -> bool:
    """Whether a dotted name or a path leads to a file, a folder or a name of a module of the package."""
    parts = re.split(r"[./]", name)
    folder = ROOT
    for index, part in enumerate(parts):
        if (folder / part).is_dir():
            folder = folder / part
            continue
        rest = parts[index + 1 :]
        files = [folder / f"{part}.py", folder / f"{part}.yaml", folder / f"{part}.html"]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            return not rest or rest[0] in {"py", "yaml", "html"} or rest[0] in names_of(file)
        return part in names_of(folder / "__init__.py")
    return True


@cache
def names_of(path: Path) -> frozenset[str]:
    """Names that a module binds at its top level."""
    if path.suffix != ".py":
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)
