# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Transcripts of a role: their lengths, and that model output stays text."""

from __future__ import annotations

from longshort_verl.cold_start.transcripts import RoleRow
from longshort_verl.report.transcripts import lengths, plot_lengths, transcript_text, write_page
from longshort_verl.types import Message, Role


def row(*texts, answer="7"):
    speakers = ("user", "assistant") * len(texts)
    messages = tuple(Message(role=role, content=text) for role, text in zip(speakers, texts, strict=False))
    role = Role.LONG if texts[1].startswith("<think>") else Role.SHORT
    return RoleRow(role=role, messages=messages, answer=answer)


ROWS = [
    row("p", "<answer>a</rethink>", "<think>t</think>", "<answer>\\boxed{7}</answer>"),
    row("q", "<answer>\\boxed{7}</answer>"),
]


def test_lengths_by_hand(tmp_path):
    values = lengths(ROWS, len)
    assert values == {
        "one turn": [19, 26, 26],
        "turns per transcript": [2, 1],
        "all turns of a transcript": [45, 26],
        "text that it reads": [17, 1],
    }
    plot_lengths(values, "characters", tmp_path / "some" / "lengths.png")
    assert (tmp_path / "some" / "lengths.png").stat().st_size > 5000


def test_what_a_model_wrote_stays_text(tmp_path):
    hostile = row("<script>alert(1)</script>", "<think>[bold]\x1b[2J</think>")
    shown = transcript_text(hostile, Role.LONG)
    assert "[bold]" in shown.plain
    assert "\x1b" not in shown.plain
    plot_lengths(lengths([hostile], len), "characters", tmp_path / "a.png")
    write_page([hostile], Role.LONG, tmp_path / "a.png")
    page = (tmp_path / "a.html").read_text()
    assert "<script>" not in page
    assert page.count('class="turn') == 2
