# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The Markdown pages: generated tables are current, links resolve, and the README's recipe passes the preflight."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from longshort_verl.adapters.rl.check import check_config, check_files
from longshort_verl.adapters.rl.settings import load_tokenizer, role_config
from longshort_verl.config.compose import compose_config
from longshort_verl.types import Role

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
assert _spec
assert _spec.loader
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)
PAGES = tables.pages()
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
IN_VERL_RECIPE = {"../collabllm", "../genrm_remote"}
"""Neighbours of the upstream recipe in its home."""


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub names them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_current_and_its_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    assert tables.rendered(page, text) == text, "run `make docs`"
    for link in LINK.findall(prose(page)):
        if "://" in link or link in IN_VERL_RECIPE:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            target = target / "README.md" if target.is_dir() else target
            assert anchor in anchors(target), link


def test_a_stale_page_is_found_and_written(tmp_path):
    page = tmp_path / "README.md"
    text = "Before.\n\n<!-- table include examples/first_recipe/rl.yaml -->\nold\n<!-- end -->\n\nAfter.\n"
    new = tables.rendered(page, text)
    assert new.startswith("Before.\n\n<!-- table include examples/first_recipe/rl.yaml -->\n```yaml\nhydra:\n")
    assert new.endswith("```\n<!-- end -->\n\nAfter.\n")
    assert tables.rendered(page, new) == new


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("README.md", "docs/*.md"),
        ("README.md", "recipes/*/README.md"),
        ("patches/README.md", "patches/*/*.patch"),
    ],
)
def test_an_overview_links_every_page(page, pattern):
    linked = {(ROOT / page).parent / link.partition("#")[0] for link in LINK.findall(prose(ROOT / page))}
    missing = [path for path in ROOT.glob(pattern) if path not in linked and path.parent not in linked]
    assert missing == []


def test_the_readmes_recipe_passes_the_preflight(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = [sys.executable, "recipes/tiny_cpu/make_problems.py", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    files = [f"data.{split}_files={tmp_path}/{split}.parquet" for split in ("train", "val")]
    config = compose_config(ROOT / "examples" / "first_recipe", "rl", files)
    check_config(config)
    check_files(config, *(load_tokenizer(role_config(config, role)) for role in Role))


NAMED = re.compile(r"\]\(\.\./(longshort_verl/[\w/]+\.py)\)((?:,? `\w+`)+)")


def test_every_function_that_the_papers_page_names_is_in_its_file():
    found = NAMED.findall((ROOT / "docs" / "paper.md").read_text())
    assert len(found) >= 20
    for path, names in found:
        tree = ast.parse((ROOT / path).read_text())
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        }
        assert set(re.findall(r"`(\w+)`", names)) <= defined, path
