# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The page for a browser: what it holds, that what models wrote stays text, and its filters, in Chromium."""

from __future__ import annotations

import html
import json
import re
from collections import Counter

import pytest
from PIL import Image
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.evaluation.records import Evaluated
from longshort_verl.report.page import OUTCOMES, dialogue_rows, outcome, plot_turns
from tests.support.browser import in_browser, measured, needs_browser

ATTACK = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u2028<!--"


def row(index, correct, stop="answered", fault="", text="<answer>x</answer>", tokens=20):
    return {
        "set": "toy",
        "index": index,
        "sample": 0,
        "problem": f"problem {index} {ATTACK}",
        "gold": "7",
        "correct": correct,
        "extracted": None if fault else ATTACK,
        "fault": fault,
        "stop_reason": stop,
        "detail": "",
        "num_tokens": tokens,
        "num_tokens_long": tokens - 5,
        "num_tokens_short": 5,
        "num_tokens_reprefilled": 3,
        "turns": [
            {"role": "long", "text": f"<think>{ATTACK}", "num_tokens": tokens - 5, "well_formed": True},
            {"role": "short", "text": text, "num_tokens": 5, "well_formed": stop == "answered"},
        ],
    }


def solo_row(index, correct):
    full = row(index, correct, tokens=100)
    return {name: value for name, value in full.items() if not name.startswith("num_tokens_") and name != "turns"} | {
        "text": f"thinking about {index}"
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """60 problems: a pair right on 50, wrong on 5, cut off on 3, unreadable on 2."""
    pair = [row(i, True) for i in range(50)]
    pair += [row(50 + i, False, text="<answer>findme</answer>") for i in range(5)]
    pair += [row(55 + i, False, stop="truncated") for i in range(3)]
    pair += [row(58 + i, False, fault="no boxed answer") for i in range(2)]
    tmp_path = tmp_path_factory.mktemp("page")
    folder = tmp_path / "run"
    folder.mkdir()
    for name, rows in {"pair": pair, "solo": [solo_row(i, i < 40) for i in range(60)]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    done = CliRunner().invoke(
        app,
        ["report", "evaluation", str(folder), "--out", str(tmp_path), "--html", "--title", "T<b>"],
    )
    assert done.exit_code == 0, done.output
    return tmp_path / "results.html"


def test_it_is_one_file_and_says_what_was_measured(page):
    text = page.read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text), "it loads nothing"
    assert text.count("data:image/png;base64,") == 2
    assert "<title>T&lt;b&gt;</title>" in text
    for said in (
        "83.3%",
        "+16.7 (",
        "80.0%",
        "area under the budget curve",
        "no readable answer",
        "3.3%",
        "120 of 120",
    ):
        assert said in text, said
    assert "below the public frontier" not in text, "no set here has one, and an empty column tells nothing"


def test_outcomes():
    cases = {
        "right": row(0, True),
        "wrong": row(0, False),
        "cut": row(0, False, stop="token_budget"),
        "unreadable": row(0, False, fault="empty box"),
        "malformed_long": row(0, False, stop="malformed_long"),
        "turn_cap": row(0, False, stop="turn_cap"),
        "engine_error": row(0, False, stop="engine_error"),
    }
    assert {name: outcome(record) for name, record in cases.items()} == {name: name for name in cases}
    assert set(cases) < set(OUTCOMES)


def test_dialogues_are_taken_evenly(tmp_path):
    records = [row(i, True) for i in range(1000)]
    found = dialogue_rows([Evaluated(system="pair", folder=tmp_path, records=records)], 10)
    assert [one["index"] for one in found] == list(range(0, 1000, 100))
    assert len(dialogue_rows([Evaluated(system="pair", folder=tmp_path, records=records[:3])], 10)) == 3


@needs_browser
@pytest.mark.parametrize(
    ("filters", "counted", "first"),
    [
        ("", "1 to 20 of 120", "right"),
        ("system=pair&outcome=wrong", "1 to 5 of 5", "wrong"),
        ("system=pair&outcome=cut", "1 to 3 of 3", "cut"),
        ("outcome=unreadable", "1 to 2 of 2", "unreadable"),
        ("text=FINDME", "1 to 5 of 5", "wrong"),
        ("text=thinking about 3", "1 to 11 of 11", "right"),
        ("system=solo&page=2", "41 to 60 of 60", "wrong"),
        ("text=nowhere", "none of 0", None),
    ],
)
def test_filters_in_a_browser(page, filters, counted, first):
    dom = in_browser(page, filters + "&open=1")
    assert re.search(r'<output id="count">(.*?)</output>', dom).group(1) == counted
    outcomes = re.findall(r'<details data-outcome="(\w+)"', dom)
    assert (outcomes[0] if outcomes else None) == first
    # Nothing of what the models wrote became markup, though every dialogue is open.
    assert "<title>T&lt;b&gt;</title>" in dom
    assert not re.search(r"<img (?!src=\"data:)", dom)
    if filters == "text=FINDME":
        assert dom.count(html.escape("<answer>findme</answer>", quote=False)) == 5
        assert 'class="said short formed"' in dom


@pytest.fixture(scope="module")
def wide_page(page):
    """Systems with every column of the tables, one with a long name, made by a long command."""
    folder = page.parent / "run"
    manifest = {"command": "c" * 300, "commit": "abc", "machine": "two cores", "config": {"sampling": {"seed": 1}}}
    manifest |= {"inputs": {}, "finished": True, "seconds": 120, "lineage": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    out = page.parent / "wide"
    done = CliRunner().invoke(
        app, ["report", "evaluation", f"{'long_name_' * 6}={folder}", "--out", str(out), "--html", "--title", "t" * 99]
    )
    assert done.exit_code == 0, done.output
    return out / "results.html"


@needs_browser
@pytest.mark.parametrize("width", [420, 1280])
def test_all_is_seen_in_a_window_of_a_phone_and_of_a_laptop(wide_page, width):
    found = measured(wide_page, width)
    assert (found["window"], found["wrong"]) == (width, [])
    assert width - 30 < found["page"] <= width, "but for a scroll bar"


def test_turns_are_drawn_in_full(tmp_path):
    plot_turns({"pair": Counter({2: 3, 4: 1}), "$_{": Counter({6: 1})}, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size[0] > 1000
