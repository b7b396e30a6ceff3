# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import asyncio
import dataclasses
import json
from contextlib import contextmanager

import pytest

from longshort_verl.chains.config import TraceSampling, read_traces_config
from longshort_verl.chains.files import read_chains
from longshort_verl.chains.sample import run_traces, sample_chains, write_right_chains
from longshort_verl.config.compose import ConfigError
from longshort_verl.files.journal import Journal
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.types import ChainOutcome, FinishReason, Generation, Problem
from tests.support.scripted import ScriptedGenerator
from tests.support.servers import completion

GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=100, max_workers=1)
PROBLEMS = [Problem(prompt=f"problem {i}", answer="7", source="test", index=i) for i in range(3)]
SAMPLING = TraceSampling(prompt="{problem}", num_samples=1, max_tokens=50, temperature=1.0, top_p=1.0, seed=1)
CUT = Generation(text="and so on", finish=FinishReason.LENGTH, num_prompt_tokens=1, num_tokens=50)
GONE = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")


def sampled(folder, replies, sampling=SAMPLING):
    generator = ScriptedGenerator(replies)
    done = []

    async def run():
        with Journal(folder / "journal", {}) as journal:
            return await sample_chains(
                PROBLEMS,
                generator,
                sampling,
                journal,
                lambda text, gold: grade(text, gold, GRADING),
                max_requests=1,
                on_done=lambda: done.append(1),
            )

    found = asyncio.run(run())
    assert len(done) == len(found)
    return found, generator


def test_right_chains_are_kept_and_the_others_counted(tmp_path):
    found, _ = sampled(tmp_path, ["a \\boxed{7}", "b \\boxed{8}", CUT])
    assert [reply.outcome for reply in found] == [ChainOutcome.RIGHT, ChainOutcome.WRONG, ChainOutcome.TRUNCATED]
    assert write_right_chains(found, tmp_path / "traces.jsonl") == {"right": 1, "truncated": 1, "wrong": 1}
    rows = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    (row,) = rows
    assert (row["key"], row["problem"], row["answer"], row["trace"]) == ("0/0", "problem 0", "7", "a \\boxed{7}")
    (read,) = read_chains(tmp_path / "traces.jsonl")
    assert (read.key, read.text, read.outcome) == ("0/0", "a \\boxed{7}", ChainOutcome.RIGHT)


def test_a_run_resumes_and_repeats_only_failed_requests(tmp_path):
    first, _ = sampled(tmp_path, ["a \\boxed{7}", GONE, CUT])
    assert (first[1].outcome, first[1].detail) == (ChainOutcome.ENGINE_ERROR, "gone")
    found, generator = sampled(tmp_path, ["b \\boxed{7}"])
    assert [request[0][0].content for request in generator.requests] == ["problem 1"]
    assert [reply.text for reply in found] == ["a \\boxed{7}", "b \\boxed{7}", "and so on"]


def test_each_chain_has_a_seed_of_its_own_whatever_the_order(tmp_path):
    more = dataclasses.replace(SAMPLING, num_samples=3)
    _, generator = sampled(tmp_path, ["\\boxed{7}"] * 9, more)
    seeds = [request[1].seed for request in generator.requests]
    assert len(set(seeds)) == 9
    _, other = sampled(tmp_path / "other", ["\\boxed{7}"] * 3)
    assert [request[1].seed for request in other.requests] == seeds[::3]


def test_the_prompt_is_the_settings_and_the_chains_problem_is_the_files(tmp_path):
    asked = dataclasses.replace(SAMPLING, prompt="{problem}\nCheck {it}.")
    found, generator = sampled(tmp_path, ["\\boxed{7}"] * 3, asked)
    assert [request[0][0].content for request in generator.requests] == [
        f"problem {i}\nCheck {{it}}." for i in range(3)
    ]
    assert [chain.problem for chain in found] == PROBLEMS


def test_no_right_chain_is_refused(tmp_path):
    found, _ = sampled(tmp_path, [CUT, CUT, "\\boxed{8}"])
    with pytest.raises(ValueError, match="no chain is right"):
        write_right_chains(found, tmp_path / "traces.jsonl")
    assert not (tmp_path / "traces.jsonl").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sampling.num_samples=0"], "num_samples is 0"),
        (["sampling.temperature=0", "sampling.num_samples=2"], "temperature is 0"),
        (["sampling.prompt=solve"], "sampling.prompt is 'solve', without {problem}"),
        (["sampling.top_p=0"], "top_p is 0"),
        (["max_requests=0"], "max_requests is 0"),
        (["sampling.samples=2"], "sampling.samples"),
    ],
)
def test_wrong_settings_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        read_traces_config(None, overrides)


def test_the_command_skips_a_finished_file_and_refuses_other_settings(serve, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"p{i}", "answer": "7"}) + "\n" for i in range(2)))
    server = serve(answer_to=lambda request: completion("so \\boxed{7}"))

    def run(*overrides):
        model = ["model.path=tiny", "model.engine=endpoint", f"model.endpoint.base_urls=[{server.url}]"]
        settings = read_traces_config(None, [*model, *overrides])
        return run_traces(settings, problems, tmp_path / "traces.jsonl", progress)

    assert run() == {"right": 2}
    assert [chain.text for chain in read_chains(tmp_path / "traces.jsonl")] == ["so \\boxed{7}"] * 2
    assert run() is None
    with pytest.raises(ValueError, match="sampling.temperature: 0.6 then, 1.0 now"):
        run("sampling.temperature=1.0")
    assert len(server.requests) == 2
    assert run("sampling.num_samples=2") == {"right": 4}
    assert len(server.requests) == 4, "the first chains come from the journal"


@contextmanager
def progress(label, total):
    yield lambda: None
