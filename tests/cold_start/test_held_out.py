# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from longshort_verl.cold_start.held_out import TurnReply, turn_cases, turn_metrics
from longshort_verl.cold_start.transcripts import RoleRow
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.types import Message, Role, TurnKind

GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=100, max_workers=1)


def row(*texts, answer="7"):
    speakers = ("user", "assistant") * len(texts)
    messages = tuple(Message(role=role, content=text) for role, text in zip(speakers, texts, strict=False))
    role = Role.LONG if texts[1].startswith("<think>") else Role.SHORT
    return RoleRow(role=role, messages=messages, answer=answer)


ROWS = [
    row("p", "<answer>a</rethink>", "<think>t</think>", "<answer>\\boxed{7}</answer>"),
    row("q", "<answer>\\boxed{7}</answer>"),
]


def test_every_own_turn_is_a_case():
    cases = turn_cases(ROWS, 10)
    assert [case.kind for case in cases] == [TurnKind.RETHINK, TurnKind.ANSWER, TurnKind.ANSWER]
    assert [len(case.messages) for case in cases] == [1, 3, 1]
    assert len(turn_cases(ROWS, 2)) == 2


def test_metrics_by_hand():
    cases = turn_cases(ROWS, 10)
    texts = ["<answer>\\boxed{7}</answer>", "<answer>\\boxed{8}</answer>", "<answer>\\boxed{7}"]
    replies = [TurnReply(text=text, num_tokens=n) for text, n in zip(texts, (4, 5, 9), strict=True)]
    found = turn_metrics(cases, replies, lambda text, gold: grade(text, gold, GRADING))
    # The first answers where the reference asks again, the second answers wrong, the third does not end.
    assert found == {"well_formed": 2 / 3, "same_kind": 1 / 3, "num_tokens": 6.0, "accuracy": 0.0}
    right = [TurnReply(text=text, num_tokens=1) for text in ("<answer>x</rethink>", texts[0], texts[0])]
    found = turn_metrics(cases, right, lambda text, gold: grade(text, gold, GRADING))
    assert found == {"well_formed": 1.0, "same_kind": 1.0, "num_tokens": 1.0, "accuracy": 1.0}


def test_the_long_role_has_no_accuracy():
    cases = turn_cases([row("p", "<think>a</think>")], 10)
    found = turn_metrics(cases, [TurnReply(text="<think>b</think>", num_tokens=3)], lambda text, gold: None)
    assert found == {"well_formed": 1.0, "same_kind": 1.0, "num_tokens": 3.0}


def test_one_model_for_both_roles_is_judged_by_each_roles_turns():
    rows = [*ROWS, row("p", "<think>a</think>"), row("q", "<think>b</think>")]
    cases = turn_cases(rows, 2)
    assert [case.role for case in cases] == [Role.LONG] * 2 + [Role.SHORT] * 2
    texts = ["<think>a</think>", "<answer>a</rethink>", "<answer>a</rethink>", "<answer>\\boxed{7}</answer>"]
    replies = [TurnReply(text=text, num_tokens=n) for n, text in enumerate(texts, start=1)]
    found = turn_metrics(cases, replies, lambda text, gold: grade(text, gold, GRADING))
    assert found["well_formed"] == 0.75
    assert found["long/well_formed"] == 0.5
    assert found["short/well_formed"] == 1.0
    assert found["accuracy"] == found["short/accuracy"] == 1.0
    assert (found["long/num_tokens"], found["short/num_tokens"]) == (1.5, 3.5)
