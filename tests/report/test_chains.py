# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Tables, picture and page of scored thoughts, with what a hostile model may write in them."""

import itertools
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from longshort_verl.chains.files import read_chains, write_chains
from longshort_verl.chains.score import summary
from longshort_verl.importance import MetricSettings, anytime, importance, interpolate
from longshort_verl.report.chains import (
    draw_importance,
    find_chain,
    plot_importance,
    results_table,
    thoughts_table,
    write_page,
)
from longshort_verl.types import Chain, ChainOutcome, Cost, Decision, Problem, Thought
from tests.support.browser import measured, needs_browser

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
    assert "2 of 3 chains are scored" in page
    assert "(8 of 8 rollouts right)" in page
    assert "(interpolated)" in page
    assert "<code>paper</code> is Eq. 1" in page


def row_labels(figure):
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes)), "they overlap"
    assert all(box.x0 >= 0 for box in boxes), "the picture cuts one"
    return [label.get_text() for label in labels]


def test_the_picture_shows_the_first_words_of_each_thought(written):
    figure = draw_importance(written[0], find_chain(written[0], None))
    third = "3. [red]nor here[/red]"
    hostile = r"2. <script>alert(1)</script> \$\frac{"
    assert row_labels(figure) == ["before the first thought", "1. \ufffd[31mno colour", hostile, third]
    thoughts, _, by_place, _ = (axes.get_window_extent() for axes in figure.axes)
    assert thoughts.width > by_place.width
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx([one.score for one in written[1][1].scores])
    means = [value.mean for value in written[1][1].values]
    assert list(figure.axes[1].lines[0].get_xdata()) == pytest.approx(means)
    fills = [line.get_markerfacecolor() for line in figure.axes[1].lines[2::2]]
    assert [fill == "white" for fill in fills] == [False, True, False, False], "one value has no rollouts"


def test_unimportant_thoughts_of_a_long_chain_are_folded(written):
    """Of 60 thoughts, the 6th and the last raise the value."""
    lengths = (10,) * 60
    values = [anytime(0 if i < 6 else 4 if i < 60 else 8, 8, 0.01) for i in range(61)]
    chain = replace(
        written[1][1],
        thoughts=tuple(Thought(text=f"thought {i} " * 9, kind="k", num_steps=1) for i in range(1, 61)),
        lengths=lengths,
        values=tuple(values),
        scores=tuple(importance(values, lengths, METRIC)),
    )
    figure = draw_importance([chain], chain)
    labels = row_labels(figure)
    assert len(labels) <= 32
    assert "6. thought 6 thought 6 thought 6 tho…" in labels
    assert labels[-1] == "60. thought 60 thought 60 thought 60 …"
    folded = [label for label in labels if label.endswith(" thoughts")]
    alone = len(labels) - 1 - len(folded)
    assert alone == 15
    assert sum(int(label.split(": ")[1].split()[0]) for label in folded) == 45
    assert list(figure.axes[1].lines[0].get_xdata())[-1] == values[-1].mean


@needs_browser
@pytest.mark.parametrize("width", [420, 1280])
def test_all_of_the_page_is_seen_in_a_window_of_a_phone_and_of_a_laptop(written, width):
    found, _, folder = written
    plot_importance(found, found[1], folder / "importance.png")
    problem = replace(found[1].problem, prompt="x" * 200)
    write_page(found, replace(found[1], key="k" * 99, problem=problem), folder / "importance.html")
    page = measured(folder / "importance.html", width)
    assert (page["window"], page["wrong"]) == (width, [])
    assert width - 30 < page["page"] <= width, "but for a scroll bar"


def test_the_summary_counts_what_was_scored_and_what_not(written):
    text = shown(results_table(summary(written[1])))
    cells = [line.strip("│┃┡└ ").split("│") for line in text.splitlines() if "│" in line]
    found = {left.strip(): right.strip() for left, right in cells}
    assert found["chains, scored"] == "2"
    assert found["chains, not json"] == "1"
    assert found["rollouts per scored chain"] == "24.0"
    assert found["prefill hit rate"] == "75.0%"


def test_the_summary_says_what_decided_a_pruned_chain(written):
    decisions = (Decision.BOUND, Decision.BOUND, Decision.INTERVAL)
    found = summary([replace(one, decisions=decisions) for one in written[1] if one.scores])
    assert found["decisions"] == {"bound": 4, "interval": 2}
    text = shown(results_table(found))
    assert re.search(r"thoughts decided by bound\s+│\s+4 ", text)


def test_a_trace_that_was_not_scored_cannot_be_shown(written):
    with pytest.raises(ValueError, match=r"no scored chain 'bad'; the file has .*bad \(not json\)"):
        find_chain(written[0], "bad")


@pytest.mark.parametrize("content", ["[1]\n", "{\n", json.dumps({"key": "1"}) + "\n"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(ValueError, match="there is no scored chain"):
        find_chain(read_chains(tmp_path / "x.jsonl"), None)
