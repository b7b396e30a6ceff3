# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The toy task, its dialogues, and the models that ship with the recipe."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest
import task
import torch
from make_models import CHAT_TEMPLATE, LONG_CHAINS, SHAPES, build_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from longshort_verl.dialogue import DialogueSettings, ending, next_request, parse_turn, read_turn, transcript
from longshort_verl.problems.read import read_problems
from longshort_verl.types import FinishReason, Generation, Role, StopReason

SETTINGS = DialogueSettings(
    opening_role=Role.LONG,
    max_short_turns=3,
    max_turn_tokens={Role.LONG: 96, Role.SHORT: 32},
    max_dialogue_tokens=256,
    system_prompt={Role.LONG: "", Role.SHORT: ""},
    must_answer_notice="",
)


def test_chain_worked_by_hand():
    # 8+2=10→0, 0+2=2, 2*6=12→2, 2-5=-3→7
    chain = task.solve("8+2+2*6-5")
    assert chain.steps == ("8+2=0", "0+2=2", "2*6=2", "2-5=7")
    assert chain.answer == "7"


def test_dialogues_follow_the_protocol_and_its_transcripts():
    rng = random.Random(3)
    checks = steps = wrong = 0
    for _ in range(200):
        problem = task.sample_problem(rng, 2, 6)
        rows = task.dialogue(problem, rng)
        own = {role: [m["content"] for m in rows[role.value] if m["role"] == "assistant"] for role in Role}
        turns = []
        for long, short in zip(own[Role.LONG], own[Role.SHORT], strict=True):
            for role, text in ((Role.LONG, long), (Role.SHORT, short)):
                shown = [m.as_dict() for m in transcript(problem, turns, role, SETTINGS)]
                assert shown == rows[role.value][: len(shown)], "the data shows what the rollout will show"
                reply = Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=1, num_tokens=1)
                turns.append(read_turn(role, reply))
        assert ending(turns, SETTINGS) == (StopReason.ANSWERED, "")
        wrong += turns[-1].parsed.body != f"\\boxed{{{task.solve(problem).answer}}}"
        written = " ".join(own[Role.LONG]).replace("<think>", "").replace("</think>", "").split()
        checks += sum(step.startswith("?") for step in written)
        steps += len(task.solve(problem).steps)
    assert 0.4 < checks / steps < 0.6, "about half of the steps are repeated"
    # Four steps on average, 0.88 each: 0.88 ** 4 = 0.6 are right to the end, and a slip may cancel out.
    assert 0.2 < wrong / 200 < 0.5


def test_long_chains_are_steps_and_checks_of_them():
    rng = random.Random(7)
    checks = steps = cut = wrong = 0
    for problem in task.distinct_problems(rng, 100, 2, 4):
        chain = task.solve(problem)
        written = task.trace(chain, rng, task.RECHECK_SHARE, cut_share=0.5)
        thinking, end, answer = written.removeprefix("<think>").partition("</think>")
        assert end == "</think>"
        left = [problem]
        for line in thinking.split(task.STEP_GAP) if thinking else []:
            if line.startswith("check "):
                assert line == f"check {left[-1]}"
                checks += 1
            else:
                assert task.solve(line).answer == chain.answer
                assert len(line) == len(left[-1]) - 2, "one operation less"
                left.append(line)
        steps += len(left) - 1
        if left[-1] == chain.answer:
            assert answer == f"\\boxed{{{chain.answer}}}", "what was thought to the end is right"
        else:
            cut += 1
            wrong += answer != f"\\boxed{{{chain.answer}}}"
    assert 35 < checks / steps < 55
    assert 10 < cut < 60
    assert 0.1 < wrong / cut < 0.6, "what was done in the head is often wrong"


def test_the_thinkers_chains_begin_with_checks_and_may_end_anywhere():
    rng = random.Random(8)
    needed, written, first, left_over = 0, 0, 0, set()
    for problem in task.distinct_problems(rng, 300, task.THINKER_STEPS, task.THINKER_STEPS):
        chain = task.solve(problem)
        reply = task.trace(chain, rng, task.THINKER_RECHECK_SHARE, cut_share=0.5, thinker=True)
        thinking, _, answer = reply.removeprefix("<think>").partition("</think>")
        *lines, last = thinking.split(task.STEP_GAP)
        assert last == "", "each thought ends with a blank line, the last one too"
        assert re.fullmatch(r"\\boxed\{\d\}", answer)
        first += bool(lines) and lines[0] == f"check {problem}"
        left = [problem, *(line for line in lines if not line.startswith("check "))][-1]
        left_over.add(len(left) // 2)
        # Tokens are bytes, and each tag is one.
        written += len(reply) - len("<think></think>") + 2
        needed += len(task.trace(chain, rng, 0.0, thinker=True)) - len("<think></think>") + 2
    assert first > 200
    assert left_over == {0, 1, 2}, "some answer at once"
    assert 6 < written / needed < 10


def test_problems_are_held_out(tiny_problems):
    train, val = (read_problems(tiny_problems / f"{split}.parquet") for split in ("train", "val"))
    assert (len(train), len(val)) == (64, 8)
    assert not {p.prompt for p in train} & {p.prompt for p in val}
    assert all(task.solve(p.prompt).answer == p.answer for p in train)


def test_the_tokenizer_reads_any_text():
    tokenizer = build_tokenizer()
    for text in ("7 < 8\n\n\\frac{1}{2}", "日本 ∑ é \x00", "<think>a</think>"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.fixture(scope="module")
def shipped(root):
    folder = root / "recipes" / "tiny_cpu" / "models"
    return {role: folder / role.value for role in Role}


def test_shipped_models_are_small_and_know_the_template(shipped):
    size = sum(file.stat().st_size for folder in shipped.values() for file in folder.iterdir())
    assert size < 3_000_000
    for folder in shipped.values():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.chat_template == CHAT_TEMPLATE
        assert tokenizer.decode(tokenizer.encode("<answer>1</rethink>")) == "<answer>1</rethink>"


def test_shipped_models_speak_the_protocol(shipped):
    """Greedy first turns of both roles are well formed on nearly all of 32 problems."""
    rng = random.Random(5)
    problems = task.distinct_problems(rng, 32, 2, 6)
    well_formed = {role: 0 for role in Role}
    for role, folder in shipped.items():
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        turns = []
        if role is Role.SHORT:
            turns = [
                [
                    read_turn(
                        Role.LONG,
                        Generation(
                            text=next(task.thoughts(task.solve(p), rng)),
                            finish=FinishReason.STOP,
                            num_prompt_tokens=1,
                            num_tokens=1,
                        ),
                    )
                ]
                for p in problems
            ]
        prompts = []
        for number, problem in enumerate(problems):
            request = next_request(problem, turns[number] if turns else [], SETTINGS)
            rows = [message.as_dict() for message in request.messages]
            prompts.append(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True))
        stop = [tokenizer.convert_tokens_to_ids(tag) for tag in request.stop]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        written = model.generate(
            **batch,
            max_new_tokens=96,
            do_sample=False,
            eos_token_id=[*stop, tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        for row in written[:, batch.input_ids.shape[1] :]:
            text = tokenizer.decode(row, skip_special_tokens=True)
            well_formed[role] += parse_turn(role, text).kind is not None
    assert min(well_formed.values()) >= 30, well_formed


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_command_that_rebuilds_the_models_works(root, tmp_path):
    command = [sys.executable, "recipes/tiny_cpu/make_models.py", "--out", str(tmp_path)]
    steps = {"long": 3, "short": 2, "solo": 2, "checks": 1, "chains": 1, "thinker": 2, "waste": 1}
    command += [text for name, number in steps.items() for text in (f"--steps-{name}", str(number))]
    subprocess.run(command, cwd=root, check=True, timeout=800)
    for name in (*SHAPES, *LONG_CHAINS):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        shipped = AutoModelForCausalLM.from_pretrained(root / "recipes/tiny_cpu/models" / name)
        assert model.config.to_dict() | {"_name_or_path": ""} == shipped.config.to_dict() | {"_name_or_path": ""}
        assert AutoTokenizer.from_pretrained(tmp_path / name).chat_template == CHAT_TEMPLATE
