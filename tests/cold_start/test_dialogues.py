# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean

import pyarrow.parquet as pq
import pytest

from longshort_verl.chains.files import ChainFileError, read_chains
from longshort_verl.cold_start.config import read_cold_start
from longshort_verl.cold_start.dialogues import (
    ColdStartOutcome,
    DialogueMaker,
    pieces,
)
from longshort_verl.cold_start.files import ColdStartError, role_messages, write_cold_start
from longshort_verl.cold_start.run import run_cold_start
from longshort_verl.cold_start.select import Keep, Selection, SelectionSettings, file_threshold, select
from longshort_verl.cold_start.transcripts import Rows
from longshort_verl.cold_start.writer import Writer, WriterKind, WriterSettings
from longshort_verl.config.compose import ConfigError
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import read_manifest
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.types import (
    Chain,
    ChainOutcome,
    FinishReason,
    Generation,
    Importance,
    Problem,
    Role,
    Thought,
    Value,
)
from tests.support.configs import ROOT
from tests.support.scripted import ScriptedGenerator

GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=100, max_workers=1)
THOUGHTS = ("<think>plan\n\n", "a = 3\n\n", "check a\n\n", "b = 4\n\n", "check b\n\n")
GAINS = (0.0, 0.5, 0.02, 0.38, 0.0)
TEXT = "".join(THOUGHTS) + "</think>" + "As we have seen above, " * 9 + "the answer is \\boxed{7}."


def dialogue_settings(**changes):
    settings = {
        "opening_role": Role.LONG,
        "max_short_turns": 3,
        "max_turn_tokens": {Role.LONG: 200, Role.SHORT: 100},
        "max_dialogue_tokens": 1000,
        "system_prompt": {Role.LONG: "", Role.SHORT: ""},
        "must_answer_notice": "",
    }
    return DialogueSettings(**(settings | changes))


def importance(gain):
    return {"score": gain, "low": gain, "high": gain, "gain": gain, "decay": 1.0, "length_share": 0.1}


def trace(key="1", gains=GAINS, thoughts=THOUGHTS, text=TEXT, answer="7", prompt="What is a + b?"):
    return Chain(
        key=key,
        outcome=ChainOutcome.SCORED,
        problem=Problem(prompt=prompt, answer=answer, source="test", index=0),
        text=text,
        thoughts=tuple(Thought(text=thought, kind="", num_steps=1) for thought in thoughts),
        lengths=tuple(len(thought) for thought in thoughts),
        scores=tuple(Importance(**importance(gain)) for gain in gains),
    )


def selection(**changes):
    settings = {
        "keep": Keep.IMPORTANT,
        "by": Selection.SHARE,
        "share": 0.9,
        "threshold": 0.1,
        "quantile": 0.8,
        "answers": True,
        "seed": 1,
    }
    return SelectionSettings(**(settings | changes))


def chosen(one, **changes):
    settings = selection(**changes)
    return sorted(select(one, settings, file_threshold([one], settings)))


# Selection -------------------------------------------------------------------------------------------------------


def test_the_fewest_thoughts_that_carry_a_share_of_the_gain():
    # The whole gain is 0.5 + 0.02 + 0.38 = 0.9: half of it is one thought's, 0.81 take two, all of it three.
    assert chosen(trace(), share=0.5) == [1]
    assert chosen(trace(), share=0.9) == [1, 3]
    assert chosen(trace(), share=1.0) == [1, 2, 3]


def test_a_trace_that_gains_nothing_has_no_important_thought():
    assert chosen(trace(gains=(0.3, -0.3, 0.0, 0.0, 0.0))) == []
    assert chosen(trace(gains=(0.1, -0.3, 0.0, 0.0, 0.0))) == []


def test_by_threshold_and_by_quantile():
    assert chosen(trace(), by=Selection.THRESHOLD, threshold=0.38) == [1, 3]
    # 0, 0, 0.02, 0.38, 0.5: above four fifths of them lies the last one.
    assert chosen(trace(), by=Selection.QUANTILE, quantile=0.8) == [1]
    settings = selection(by=Selection.QUANTILE, quantile=0.5)
    both = [trace(), trace("2", gains=(0.9, 0.8, 0.7, 0.6, 0.55))]
    # Of the file's ten: 0.5 is the fifth, counted from 0 on.
    assert [sorted(select(one, settings, file_threshold(both, settings))) for one in both] == [[], [0, 1, 2, 3, 4]]


def test_what_says_the_answer_can_be_left_to_the_short_role():
    one = trace()
    texts = ["I put it into \\boxed{}.", *(thought.text for thought in one.thoughts[1:3]), "So \\boxed{9}.", "Right."]
    thoughts = tuple(replace(old, text=text) for old, text in zip(one.thoughts, texts, strict=True))
    one = replace(one, thoughts=thoughts)
    assert chosen(one, share=1.0) == [1, 2, 3]
    assert chosen(one, share=1.0, answers=False) == [1, 2]
    assert max(chosen(one, keep=Keep.RANDOM_SCORES, answers=False, seed=2)) < 3
    assert max(chosen(one, keep=Keep.RANDOM, answers=False, seed=2)) < 3
    assert chosen(one, by=Selection.RUNNING_MAX, answers=False) == [0, 1]


def test_baselines_keep_as_many_tokens():
    one = trace()
    budget = sum(one.lengths[i] for i in chosen(one))
    assert budget == 7 + 7
    assert chosen(one, keep=Keep.FIRST) == [0, 1], "<think>plan has 13 tokens"
    draws = {tuple(chosen(one, keep=Keep.RANDOM, seed=seed)) for seed in range(20)}
    assert len(draws) > 3
    for draw in draws:
        assert sum(one.lengths[i] for i in draw) >= budget
        assert sum(one.lengths[i] for i in draw) - max(one.lengths[i] for i in draw) < budget
    assert chosen(one, keep=Keep.RANDOM, seed=3) == chosen(one, keep=Keep.RANDOM, seed=3)
    assert chosen(one, keep=Keep.ALL) == [0, 1, 2, 3, 4]


def test_random_scores_are_selected_by_as_the_papers():
    one = trace(gains=(0.0, 0.0, 0.0, 0.0, 0.0))  # no thought is important
    draws = [tuple(chosen(one, keep=Keep.RANDOM_SCORES, by=Selection.SHARE, seed=seed)) for seed in range(2000)]
    assert draws[:20] == [tuple(chosen(one, keep=Keep.RANDOM_SCORES, seed=seed)) for seed in range(20)]
    # Thought i exceeds all before it in one of i + 1 orders: 1 + 1/2 + 1/3 + 1/4 + 1/5 thoughts on average.
    assert fmean(map(len, draws)) == pytest.approx(137 / 60, abs=0.1)
    assert all(draw[0] == 0 for draw in draws)


@pytest.mark.parametrize(("changes", "said"), [({"share": 0.0}, "share"), ({"quantile": 1.0}, "quantile")])
def test_impossible_selections_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        selection(**changes)


# Dialogues -------------------------------------------------------------------------------------------------------


def maker(dialogue=None, **changes):
    settings = {
        "selection": selection(),
        "writer": None,
        "rethink_text": "go on",
        "dialogue": dialogue or dialogue_settings(),
        "grade": lambda text, gold: grade(text, gold, GRADING),
        "count_tokens": len,
    }
    return DialogueMaker(**(settings | changes))


def made(one=None, numbers=(1, 3), writer=None, keep=Keep.IMPORTANT, forbidden=(), **changes):
    settings = dialogue_settings(**changes)
    making = maker(settings, selection=selection(keep=keep), writer=writer, forbidden=forbidden)
    return asyncio.run(making.make(one or trace(), frozenset(numbers)))


def said(dialogue):
    return [turn.parsed.text for turn in dialogue.turns]


def test_important_thoughts_become_long_turns():
    found = made()
    assert found.outcome is ColdStartOutcome.KEPT, found.detail
    assert said(found) == [
        "<think>a = 3</think>",
        "<answer>go on</rethink>",
        "<think>b = 4</think>",
        "<answer>\\boxed{7}</answer>",
    ]
    assert found.num_trace_tokens == len(TEXT)
    assert found.num_tokens(Role.LONG) == 2 * len("<think>a = 3</think>")


def test_neighbours_are_one_turn():
    assert said(made(numbers=(0, 1, 3, 4))) == [
        "<think>plan\n\na = 3</think>",
        "<answer>go on</rethink>",
        "<think>b = 4\n\ncheck b</think>",
        "<answer>\\boxed{7}</answer>",
    ]


def test_runs_that_lie_near_become_one_where_the_short_role_has_no_more_turns():
    thoughts = ("a\n\n", "xxxxx\n\n", "b\n\n", "y\n\n", "c\n\n", "zzz\n\n", "d\n\n", "w" * 90)
    long = trace(thoughts=thoughts, gains=[0.0] * 8, text="".join(thoughts) + "\\boxed{7}")
    runs = pieces(long, frozenset({0, 2, 4, 6}), dialogue_settings(max_short_turns=2))
    assert [(run.long, run.text) for run in runs] == [
        (True, "a\n\n"),
        (False, "xxxxx\n\n"),
        (True, "b\n\nc\n\nd\n\n"),
        (False, "w" * 90),
    ]
    assert [run.num_tokens for run in runs] == [3, 7, 9, 90]


def test_the_short_role_may_open():
    opens = {"opening_role": Role.SHORT}
    assert said(made(**opens)) == [
        "<answer>go on</rethink>",
        "<think>a = 3</think>",
        "<answer>go on</rethink>",
        "<think>b = 4</think>",
        "<answer>\\boxed{7}</answer>",
    ]
    assert said(made(numbers=(0,), **opens)) == [
        "<answer>go on</rethink>",
        "<think>plan</think>",
        "<answer>\\boxed{7}</answer>",
    ]
    assert said(made(numbers=(), **opens)) == ["<answer>\\boxed{7}</answer>"]


def writer_settings(**changes):
    settings = {
        "max_words": 10,
        "max_tokens": 50,
        "temperature": 0.0,
        "structured": False,
        "says_answer": True,
        "max_attempts": 2,
        "seed": 0,
    }
    return WriterSettings(kind=WriterKind.MODEL, **(settings | changes))


def written(tmp_path, replies, **settings):
    generator = ScriptedGenerator(replies)
    with Journal(tmp_path / "writer.jsonl", {}) as journal:
        return made(writer=Writer(generator, journal, writer_settings(**settings))), generator


def test_a_writer_says_the_rest_briefly(tmp_path):
    found, generator = written(tmp_path, ["a is 3", "so 7"])
    assert said(found) == [
        "<think>a = 3</think>",
        "<answer>a is 3</rethink>",
        "<think>b = 4</think>",
        "<answer>so 7\n\\boxed{7}</answer>",
    ]
    asked = generator.requests[1][0][-1].content
    assert "What is a + b?" in asked
    assert asked.index("a = 3") < asked.index("b = 4") < asked.index("check b")
    again, silent = written(tmp_path, [])
    assert said(again) == said(found), "what was written is not asked for again"
    assert not silent.requests


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        ("", "wrote nothing"),
        (" \n ", "wrote nothing"),
        ("a </rethink> b", "wrote </rethink>"),
        ("<THINK>", "wrote <think>"),
        ("a very long text that says all again", "tokens of 9"),
        (
            Generation(text="a", finish=FinishReason.LENGTH, num_prompt_tokens=1, num_tokens=50),
            "did not end within 50 tokens",
        ),
    ],
)
def test_a_writer_that_answers_nonsense_is_asked_again_and_counted(tmp_path, reply, detail):
    found, generator = written(tmp_path / "again", [reply, "ok", "so"])
    assert found.outcome is ColdStartOutcome.KEPT
    assert [sampling.temperature for _, sampling in generator.requests] == [0.0, 0.5, 0.0]
    found, _ = written(tmp_path / "lost", [reply, reply])
    assert found.outcome is ColdStartOutcome.WRITER
    assert detail in found.detail
    assert not found.turns


def test_a_writer_that_cannot_be_asked(tmp_path):
    broken = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")
    found, _ = written(tmp_path, [broken])
    assert (found.outcome, found.detail) == (ColdStartOutcome.ENGINE_ERROR, "gone")


OUTCOMES = {
    "wrong": ({"one": trace(answer="8")}, ColdStartOutcome.WRONG, "7 is not 8"),
    "no answer": ({"one": trace(text="".join(THOUGHTS))}, ColdStartOutcome.NO_ANSWER, ""),
    "nothing": ({"numbers": ()}, ColdStartOutcome.NOTHING_IMPORTANT, ""),
    "not shorter": (
        {"one": trace(text="".join(THOUGHTS) + "\\boxed{7}")},
        ColdStartOutcome.NOT_SHORTER,
        "89 tokens of 54",
    ),
    "turn": (
        {"max_turn_tokens": {Role.LONG: 9, Role.SHORT: 99}},
        ColdStartOutcome.TOO_LONG,
        "max_turn_tokens.long is 9",
    ),
    "budget": ({"max_dialogue_tokens": 60}, ColdStartOutcome.TOO_LONG, "max_dialogue_tokens is 60"),
    "tags": (
        {
            "one": trace(thoughts=("a </think> b\n\n", "c" * 99), text="a </think> b\n\n" + "c" * 99 + "\\boxed{7}"),
            "numbers": (0,),
        },
        ColdStartOutcome.MALFORMED,
        "before its end",
    ),
    "nested": (
        {
            "one": trace(thoughts=("a <answer> b\n\n", "c" * 99), text="a <answer> b\n\n" + "c" * 99 + "\\boxed{7}"),
            "numbers": (0,),
        },
        ColdStartOutcome.MALFORMED,
        "<answer> inside the turn",
    ),
    "control": ({"forbidden": ("= 3",)}, ColdStartOutcome.MALFORMED, "control token = 3"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_other_ending_has_a_name(name):
    changes, outcome, detail = OUTCOMES[name]
    found = made(**changes)
    assert found.outcome is outcome
    assert detail in found.detail
    assert not found.turns


def test_the_whole_chain_need_not_be_shorter():
    found = made(numbers=(0, 1, 2, 3, 4), keep=Keep.ALL)
    assert found.outcome is ColdStartOutcome.KEPT
    assert said(found)[0] == "<think>plan\n\na = 3\n\ncheck a\n\nb = 4\n\ncheck b</think>"


# Files -----------------------------------------------------------------------------------------------------------


def scored_row(key, prompt="What is a + b?", **changes):
    row = {
        "key": key,
        "outcome": "scored",
        "problem": prompt,
        "answer": "7",
        "trace": TEXT,
        "thoughts": [
            {"text": text, "kind": "", "num_steps": 1, "num_tokens": len(text), "importance": importance(g)}
            for text, g in zip(THOUGHTS, GAINS, strict=True)
        ],
        "values": [vars(Value(num_right=1, num_rollouts=2, mean=0.5, low=0.0, high=1.0))] * (len(THOUGHTS) + 1),
    }
    return row | changes


def scored_file(folder, rows):
    path = folder / "importance.jsonl"
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def make(path, out, **changes):
    settings = dialogue_settings()
    dialogues = asyncio.run(maker(settings).make_all(read_chains(path), max_chains=4))
    arguments = {"rows": Rows.TRANSCRIPT, "val_share": 0.25, "seed": 3}
    return dialogues, write_cold_start(dialogues, out, settings, **(arguments | changes))


def rows_of(path):
    return pq.read_table(path).to_pylist()


def test_two_role_files_split_by_problem(tmp_path):
    # Two traces a problem: both on one side.
    path = scored_file(tmp_path, [scored_row(f"{n}", f"problem {n // 2}") for n in range(16)])
    _, found = make(path, tmp_path / "out")
    sides = {}
    for role in ("long", "short"):
        for side in ("train", "val"):
            sides[role, side] = {
                row["extra_info"]["problem"] for row in rows_of(tmp_path / "out" / f"{role}_{side}.parquet")
            }
    assert sides["long", "train"] == sides["short", "train"]
    assert len(sides["long", "val"]) == 2
    assert not sides["long", "val"] & sides["long", "train"]
    assert found["num_rows"] == {"long_train": 12, "short_train": 12, "long_val": 4, "short_val": 4}
    assert found["num_problems"] == {"train": 6, "val": 2}
    held_out = {row["prompt"][0]["content"] for row in rows_of(tmp_path / "out" / "problems_val.parquet")}
    assert held_out == sides["short", "val"]
    long, short = (rows_of(tmp_path / "out" / f"{role}_train.parquet")[0]["messages"] for role in ("long", "short"))
    problem = long[0]["content"]
    assert [(message["role"], message["content"]) for message in long] == [
        ("user", problem),
        ("assistant", "<think>a = 3</think>"),
        ("user", "<answer>go on</rethink>"),
        ("assistant", "<think>b = 4</think>"),
    ]
    assert [(message["role"], message["content"]) for message in short] == [
        ("user", f"{problem}\n\n<think>a = 3</think>"),
        ("assistant", "<answer>go on</rethink>"),
        ("user", "<think>b = 4</think>"),
        ("assistant", "<answer>\\boxed{7}</answer>"),
    ]


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    path = scored_file(tmp_path, [scored_row(f"{n}", f"problem {n}") for n in range(8)])
    make(path, tmp_path / "a")
    make(path, tmp_path / "b")
    files = sorted(file.name for file in (tmp_path / "a").iterdir() if not file.name.endswith(".manifest.json"))
    assert len(files) == 1 + 6
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    make(path, tmp_path / "c", seed=4)
    assert rows_of(tmp_path / "a" / "long_val.parquet") != rows_of(tmp_path / "c" / "long_val.parquet")


def test_unusable_rows_are_counted_with_row_and_reason(tmp_path):
    good = [scored_row(f"{n}", f"problem {n}") for n in range(4)]
    bad = [
        b"\xff\xfe",
        b"[1]",
        scored_row("gap", trace="something else"),
        {key: value for key, value in scored_row("lacks").items() if key != "thoughts"},
        scored_row("half", prompt="a\ud800"),
        scored_row("other", outcome="bad gold answer", detail="empty"),
        scored_row("empty", thoughts=[]),
    ]
    dialogues, found = make(scored_file(tmp_path, good + bad), tmp_path / "out")
    assert found["outcomes"] == {"kept": 4, "not scored": 1, "unusable row": 6}
    details = {dialogue.key: dialogue.detail for dialogue in dialogues[4:]}
    assert details.keys() == {"5", "6", "gap", "lacks", "half", "other", "empty"}
    assert details["gap"] == "missing field: the thoughts do not concatenate to the trace"
    assert details["other"] == "bad gold answer: empty"
    lines = [json.loads(line) for line in (tmp_path / "out" / "dialogues.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["kept"] * 4 + ["unusable row"] * 5 + ["not scored", "unusable row"]
    assert lines[0]["turns"][1] == {"role": "short", "text": "<answer>go on</rethink>", "num_tokens": 23}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [scored_row("1", answer="8"), scored_row("2", answer="9")],
            "no chain gave a dialogue: 2 wrong answer; .*1: 7 is",
        ),
        ([scored_row("1"), scored_row("2")], "2 dialogues are of 1 distinct problems, and 1 would be held out"),
    ],
)
def test_without_a_right_trace_or_a_second_problem_only_what_became_of_them_is_written(tmp_path, rows, message):
    with pytest.raises(ColdStartError, match=message):
        make(scored_file(tmp_path, rows), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dialogues.jsonl"]
    assert len((tmp_path / "out" / "dialogues.jsonl").read_text().splitlines()) == len(rows)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ChainFileError, match="there is no file .*importance.jsonl; give"):
        read_chains(tmp_path)
    with pytest.raises(ChainFileError, match="has no row"):
        read_chains(scored_file(tmp_path, []))
    with pytest.raises(ChainFileError, match="rows 1 and 2 have the same key '1'"):
        read_chains(scored_file(tmp_path, [scored_row("1"), scored_row("1")]))


def test_an_unscored_chain_has_no_dialogue():
    row = replace(trace(), outcome=ChainOutcome.TOO_LONG, detail="why", scores=())
    (found,) = asyncio.run(maker(selection=selection(by=Selection.QUANTILE)).make_all([row], max_chains=1))
    assert (found.outcome, found.detail) == (ColdStartOutcome.NOT_SCORED, "too long: why")


def test_a_role_without_a_turn_has_no_transcript():
    turns = made(numbers=(), opening_role=Role.SHORT).turns
    assert role_messages("p", turns, Role.LONG, dialogue_settings(), Rows.TURN) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "tokenizer is null"),
        (["tokenizer=x", "rethink_text=''"], "rethink_text is empty"),
        (["tokenizer=x", "val_share=1.0"], "val_share is 1.0"),
        (["tokenizer=x", "max_traces=0"], "max_traces is 0"),
        (["tokenizer=x", "writer.kind=model"], "writer.kind is 'model' and writer_model.path is null"),
        (["tokenizer=x", "writer.kind=complete"], "writer.kind is 'complete' and writer_model.path is null"),
        (["tokenizer=x", "rows=dialogue"], "rows is 'dialogue'"),
        (["tokenizer=x", "writer.max_attempts=0"], "max_attempts is 0"),
        (["tokenizer=x", "select.by=best"], "select.by is 'best'"),
        (["tokenizer=x", "dialogue.max_short_turns=0"], "max_short_turns is 0"),
        (["tokenizer=x", "select.shares=1"], "select.shares"),
    ],
)
def test_wrong_settings_are_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        read_cold_start(None, overrides)


def test_the_command_skips_a_finished_folder_and_refuses_other_settings(tmp_path):
    path = scored_file(tmp_path, [scored_row(f"{n}", f"problem {n}") for n in range(8)])
    tokenizer = ROOT / "recipes" / "tiny_cpu" / "models" / "short"

    def run(*overrides):
        settings = read_cold_start(None, [f"tokenizer={tokenizer}", "dialogue.max_turn_tokens.short=500", *overrides])
        return run_cold_start(settings, tmp_path, tmp_path / "out", progress)

    counts = run()
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["finished"], manifest["counts"]) == (True, counts)
    assert manifest["inputs"]["scored"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    written = (tmp_path / "out" / "dialogues.jsonl").stat().st_mtime_ns
    assert run() is None
    with pytest.raises(ValueError, match="select.share: 0.9 then, 0.5 now"):
        run("select.share=0.5")
    assert (tmp_path / "out" / "dialogues.jsonl").stat().st_mtime_ns == written


@contextmanager
def progress(label, total):
    yield lambda: None
