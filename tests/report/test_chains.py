# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Tables, picture and page of scored thoughts, with what a hostile model may write in them."""

import json

import pytest
from rich.console import Console

from longshort_verl.chains.files import read_chains, write_chains
from longshort_verl.chains.score import summary
from longshort_verl.importance import MetricSettings, anytime, importance, interpolate
from longshort_verl.report.chains import (
    find_chain,
    plot_importance,
    results_table,
    thoughts_table,
    write_page,
)
from longshort_verl.types import Chain, ChainOutcome, Cost, Problem, Thought

HOSTILE = "<script>alert(1)</script> $\\frac{\n\n"
METRIC = MetricSettings(metric="gain_decay", penalty=0.25, first="compare", decay=0.5, length_weight=0.1, alpha=0.05)


def scored(key="1", texts=("\x1b[31mno colour\n\n", HOSTILE, "[red]nor here[/red]"), kind="$\\frac{$ <b>check</b>"):
    """Worth nothing, then all, then nothing; the value in between was not rolled out."""
    problem = Problem(prompt=f"{HOSTILE}?", answer="</p>2", source="s", index=0)
    thoughts = tuple(Thought(text=text, kind=kind, num_steps=1) for text in texts)
    lengths = (10, 20, 30)
    values = interpolate([anytime(0, 8, 0.01), None, anytime(8, 8, 0.01), anytime(8, 8, 0.01)], lengths, [0, 0, 1, 1])
    return Chain(
        key=key,
        outcome=ChainOutcome.SCORED,
        problem=problem,
        text="".join(texts),
        thoughts=thoughts,
        lengths=lengths,
        values=tuple(values),
        scores=tuple(importance(values, lengths, METRIC)),
        cost=Cost(num_rollouts=24, num_tokens=48, num_prompt_tokens=100, num_cached_tokens=75),
    )


@pytest.fixture
def written(tmp_path):
    chains = [Chain(key="bad", outcome=ChainOutcome.NOT_JSON), scored(), scored("<i>2</i>")]
    write_chains(tmp_path / "importance.jsonl", chains)
    return read_chains(tmp_path), chains, tmp_path


def shown(table):
    console = Console(width=80, record=True, force_terminal=True)
    console.print(table)
    return console.export_text()


def test_a_trace_is_shown_thought_by_thought(written):
    text = shown(thoughts_table(find_chain(written[0], None)))
    assert "1.00 (8/8)" in text
    assert "(interpolated)" in text
    first, second, third = (f"{one.score:+.3f}" for one in written[1][1].scores)
    assert text.index(first) < text.index(second) < text.index(third)
    assert float(second) > 0 > float(first)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_a_model_wrote_is_no_markup_of_the_terminal(written):
    text = shown(thoughts_table(find_chain(written[0], None)))
    assert "\x1b" not in text
    assert "31mno colour" in text
    assert "here[/red]" in text


def test_the_page_holds_no_tag_of_the_models(written):
    found, _, folder = written
    trace = find_chain(found, "<i>2</i>")
    plot_importance(found, trace, folder / "importance.png")
    write_page(found, trace, folder / "importance.html")
    page = (folder / "importance.html").read_text()
    for tag in ("<script", "<i>2", "<b>check", "</p>2"):
        assert tag not in page
    assert page.count("&lt;script&gt;alert(1)") == 2, "in the problem and in a thought"
    assert "2 of 3 chains scored" in page
    assert "(8 of 8)" in page
    assert "(interpolated)" in page
    assert "gain_decay, is ours" in page


def test_the_summary_counts_what_was_scored_and_what_not(written):
    text = shown(results_table(summary(written[1])))
    cells = [line.strip("│┃┡└ ").split("│") for line in text.splitlines() if "│" in line]
    found = {left.strip(): right.strip() for left, right in cells}
    assert found["chains, scored"] == "2"
    assert found["chains, not json"] == "1"
    assert found["rollouts per scored chain"] == "24.0"
    assert found["prefill hit rate"] == "75.0%"


def test_a_trace_that_was_not_scored_cannot_be_shown(written):
    with pytest.raises(ValueError, match=r"no scored chain 'bad'; the file has .*bad \(not json\)"):
        find_chain(written[0], "bad")


@pytest.mark.parametrize("content", ["[1]\n", "{\n", json.dumps({"key": "1"}) + "\n"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(ValueError, match="there is no scored chain"):
        find_chain(read_chains(tmp_path / "x.jsonl"), None)
