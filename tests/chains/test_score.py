# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Files of chains with good and bad rows: each row has a named outcome, and no row affects another."""

import asyncio
import json
from dataclasses import replace

import pytest
from fastapi.responses import JSONResponse

from longshort_verl.chains.config import read_importance
from longshort_verl.chains.files import ChainFileError, read_chains, write_chains
from longshort_verl.chains.score import (
    chunk_chains,
    journal_settings,
    run_chunk,
    run_importance,
    score_chains,
    summary,
    thinking,
)
from longshort_verl.config.compose import ConfigError
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import read_manifest
from longshort_verl.generation.endpoint import EndpointGenerator
from longshort_verl.importance import METRICS
from longshort_verl.report.follow import rollout_progress
from longshort_verl.types import Cost, Importance, Thought
from tests.support.servers import AT_ONCE, completion

STEPS = "<think>1+1=2\n\n2+2=4\n\n4+4=8</think>\\boxed{8}"


def config(*overrides):
    return read_importance(
        None,
        [
            "model.path=tiny",
            "model.engine=endpoint",
            "model.endpoint.base_urls=[http://127.0.0.1:1/v1]",
            "model.endpoint.max_retries=1",
            "model.endpoint.timeout_s=30",
            "plan.prescreen=false",
            "chunk.chunker=steps",
            "rollouts.stop=['}']",
            *overrides,
        ],
    )


def write(path, *rows):
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def row(problem="p", answer="8", trace=STEPS, **more):
    return {"problem": problem, "answer": answer, "trace": trace, **more}


def score(path, url, settings, journal_path):
    async def run():
        async with EndpointGenerator([url], "tiny", "none", settings.model.endpoint) as generator:
            with Journal(journal_path, {}) as journal:
                return await score_chains(
                    read_chains(path),
                    settings,
                    generator,
                    journal,
                    len,
                    on_cost=costs.append,
                )

    costs: list[Cost] = []
    results = asyncio.run(run())
    return {chain.key: chain for chain in results}, costs


def answer_by_problem(faults):
    """Fails as the problem's text says; else right once all three steps are there."""

    def answer(request):
        question = request["messages"][0]["content"]
        if question in faults:
            return faults[question]()
        thought = request["messages"][-1]["content"] if len(request["messages"]) > 1 else ""
        right = "4+4=8" in thought
        return completion("8}" if right else "3}", stop_reason=None)

    return answer


BAD_ROWS = {
    "no blank line": (row(trace="<think>1+1=2 2+2=4</think>"), "scored"),
    "one step": (row(trace="4+4=8"), "scored"),
    "empty": (row(trace=""), "empty"),
    "white space": (row(trace=" \n\n "), "empty"),
    "only tags": (row(trace="<think>\n\n</think>"), "only tags"),
    "no thinking": (row(trace="</think>8"), "no thought"),
    "bad gold": (row(answer=""), "bad gold answer"),
    "too long": (row(trace="x" * 40_000), "too long"),
    "half a surrogate": (row(trace="a\ud800b"), "not utf-8"),
    "no answer": ({"problem": "p", "trace": STEPS}, "missing field"),
    "a list": ([1, 2], "not json"),
}


def test_every_bad_row_has_a_name_and_spoils_no_other(serve, tmp_path):
    rows = [{**value, "key": name} if isinstance(value, dict) else value for name, (value, _) in BAD_ROWS.items()]
    path = write(tmp_path / "traces.jsonl", row(key="first"), *rows, b"{not json", b"\xff\xfe", row(key="last"))
    server = serve(answer_to=answer_by_problem({}))
    found, costs = score(path, server.url, config(), tmp_path / "journal.jsonl")
    expected = {name if isinstance(value, dict) else "12": outcome for name, (value, outcome) in BAD_ROWS.items()}
    assert {key: result.outcome.value for key, result in found.items()} == {
        "first": "scored",
        **expected,
        "13": "not json",
        "14": "not utf-8",
        "last": "scored",
    }
    assert all(
        result.detail for result in found.values() if result.outcome.value not in ("scored", "empty", "only tags")
    )
    for key in ("first", "last"):
        scores = [one.score for one in found[key].scores]
        assert max(range(3), key=scores.__getitem__) == 2, "the step that makes it right"
    write_chains(tmp_path / "importance.jsonl", found.values())
    rows = [json.loads(line) for line in (tmp_path / "importance.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == list(found)
    first = rows[0]
    assert "".join(thought["text"] for thought in first["thoughts"]) + first["rest"] == STEPS
    assert first["rest"] == "</think>\\boxed{8}"
    assert summary(list(found.values()))["num_rollouts"] == sum(costs, Cost()).num_rollouts


FAULTS = {
    "429": lambda: JSONResponse({"error": "slow down"}, 429, AT_ONCE),
    "500": lambda: JSONResponse({"error": "out of memory"}, 500, AT_ONCE),
    "nonsense": lambda: JSONResponse({"choices": []}),
}


def test_an_endpoint_that_fails_for_one_trace_fails_for_that_one_alone(serve, tmp_path):
    path = write(tmp_path / "traces.jsonl", *(row(problem=name, key=name) for name in [*FAULTS, "fine"]))
    server = serve(answer_to=answer_by_problem(FAULTS))
    found, _ = score(path, server.url, config(), tmp_path / "journal.jsonl")
    assert {key: result.outcome.value for key, result in found.items()} == {
        **dict.fromkeys(FAULTS, "engine error"),
        "fine": "scored",
    }
    for name, cause in (("429", "429"), ("500", "Error code: 500"), ("nonsense", "unusable answer")):
        assert cause in found[name].detail
        assert "rollout after thought" in found[name].detail


def test_a_late_endpoint_is_an_engine_error(serve, tmp_path):
    path = write(tmp_path / "traces.jsonl", row())
    impatient = config("model.endpoint.max_retries=0", "model.endpoint.timeout_s=0.5")
    found, _ = score(path, serve(delay_s=2.0).url, impatient, tmp_path / "j.jsonl")
    assert found["1"].outcome.value == "engine error"
    assert "APITimeoutError" in found["1"].detail


def test_a_run_resumes_after_its_endpoint_died(serve, tmp_path):
    path = write(tmp_path / "traces.jsonl", *(row(problem=f"p{i}", key=f"p{i}") for i in range(4)))
    whole, _ = score(path, serve(answer_to=answer_by_problem({})).url, config(), tmp_path / "whole.jsonl")
    answered = []

    def die(request):
        answered.append(request)
        if len(answered) > 20:
            return JSONResponse({"error": "gone"}, 503, AT_ONCE)
        return answer_by_problem({})(request)

    first, _ = score(path, serve(answer_to=die).url, config(), tmp_path / "parts.jsonl")
    assert "engine error" in {result.outcome.value for result in first.values()}
    server = serve(answer_to=answer_by_problem({}))
    second, costs = score(path, server.url, config(), tmp_path / "parts.jsonl")
    assert {key: result.scores for key, result in second.items()} == {
        key: result.scores for key, result in whole.items()
    }
    made = sum(result.cost.num_rollouts for result in whole.values())
    assert 20 + len(server.requests) == made, "no rollout twice, none lost"
    assert sum(costs, Cost()).num_rollouts == made - 20


@pytest.mark.parametrize(
    ("override", "resumes"),
    [
        ("plan.max_rollouts=64", True),
        ("metric.decay=0.1", True),
        ("rollouts.restart_rollouts=4", True),
        ("max_traces=3", True),
        ("rollouts.seed=1", False),
        ("rollouts.forcing_text=So", False),
        ("model.path=other", False),
        ("chunk.chunker=rules", False),
        ("grading.max_answer_chars=5", False),
    ],
)
def test_a_journal_resumes_under_settings_that_change_no_rollout(tmp_path, override, resumes):
    path = write(tmp_path / "traces.jsonl", row())
    same = journal_settings(config(override), path) == journal_settings(config(), path)
    assert same == resumes


def test_a_journal_does_not_resume_with_other_chains(tmp_path):
    old = journal_settings(config(), write(tmp_path / "old.jsonl", row()))
    assert journal_settings(config(), write(tmp_path / "new.jsonl", row(answer="9"))) != old


def test_ten_thousand_steps(serve, tmp_path):
    # Right from the middle on; halving finds it.
    steps = ["2+2=4"] * 5000 + ["4+4=8"] + ["2+2=4"] * 4999
    path = write(tmp_path / "traces.jsonl", row(trace="\n\n".join(steps)))
    server = serve(answer_to=answer_by_problem({}))
    found, _ = score(path, server.url, config("model.vllm.max_model_len=1000000"), tmp_path / "j.jsonl")
    scored = found["1"]
    assert len(scored.scores) == 10_000
    assert max(range(10_000), key=lambda i: scored.scores[i].score) == 5000
    assert scored.cost.num_rollouts < 2 * 8 * 14, "both sides of fourteen halvings"


def test_a_long_answer_goes_without_prescreen(serve, tmp_path):
    path = write(tmp_path / "traces.jsonl", row(answer="12345678901234567890"))
    server = serve(answer_to=answer_by_problem({}))
    settings = config()
    settings = replace(settings, plan=replace(settings.plan, prescreen=False))
    object.__setattr__(settings.plan, "prescreen", True)  # refused for endpoints by the config, and not needed here
    found, _ = score(path, server.url, settings, tmp_path / "j.jsonl")
    assert (found["1"].outcome.value, found["1"].detail) == ("scored", "no pre-screen: its answer has 20 tokens")


def test_chunked_files_are_scored_as_they_are(serve, tmp_path):
    path = write(tmp_path / "traces.jsonl", row())
    chunked = asyncio.run(chunk_chains(read_chains(path), config("chunk.chunker=rules"), None, lambda: None))
    write_chains(tmp_path / "chunked.jsonl", chunked)
    (again,) = read_chains(tmp_path / "chunked.jsonl")
    assert again.thoughts
    assert "".join(thought.text for thought in again.thoughts) == STEPS
    broken = json.loads((tmp_path / "chunked.jsonl").read_text())
    broken["thoughts"][0]["text"] += "x"
    (bad,) = read_chains(write(tmp_path / "broken.jsonl", broken))
    assert (bad.outcome.value, bad.detail) == ("missing field", "the thoughts do not concatenate to the trace")


def test_boundaries_are_compared_with_those_of_the_file(tmp_path):
    block = {"1": {"start": 1, "end": 2, "block type": "a"}, "2": {"start": 3, "end": 5, "block type": "b"}}
    path = write(
        tmp_path / "traces.jsonl",
        row(trace="a\n\nb\n\nc\n\nd\n\ne", block=block),
        row(),
        row(block={"1": {"start": 2, "end": 9, "block type": "a"}}),
    )
    found = asyncio.run(chunk_chains(read_chains(path), config(), None, lambda: None))
    # Boundaries 1, 2, 3, 4 against 2, of which one matches: precision 1/4, recall 1.
    assert [result.agreement for result in found] == [pytest.approx(2 / 5), None, None]
    assert (found[2].outcome.value, found[2].detail[:7]) == ("missing field", "block: ")


def test_the_authors_own_example_is_read(shared_data):
    (authors,) = read_chains(shared_data / "long_cot_chunked_example.json")
    assert [thought.num_steps for thought in authors.thoughts] == [4, 8, 16, 20, 16, 27, 40, 2, 17]


def test_thinking_ends_at_its_mark():
    thoughts = [Thought(text=text, kind="", num_steps=1) for text in ("a\n\n", "b</think>c\n\n", "d")]
    assert [thought.text for thought in thinking(thoughts, "</think>")] == ["a\n\n", "b"]
    assert thinking(thoughts, "</none>") == tuple(thoughts)
    assert thinking(thoughts, "") == tuple(thoughts)
    # The mark may lie across two thoughts.
    halves = [Thought(text=text, kind="", num_steps=1) for text in ("a</th", "ink>b")]
    assert [thought.text for thought in thinking(halves, "</think>")] == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no row"),
        (b"\n\n", "has no row"),
        (b'{"key": "a", "problem": "p", "answer": "8", "trace": "t"}\n' * 2, "rows 1 and 2 have the same key"),
    ],
)
def test_files_of_which_nothing_can_be_read(tmp_path, content, message):
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(ChainFileError, match=message):
        read_chains(tmp_path / "t.jsonl")
    with pytest.raises(ChainFileError, match="there is no file"):
        read_chains(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plan.prescreen=true"], "prescreen needs likelihoods, which model.engine=endpoint does not give"),
        (["model.engine=vllm", "plan.prescreen=true", "rollouts.elicitation=continued"], "set plan.prescreen=false"),
        (["model.endpoint.base_urls=[]"], "base_urls is empty"),
        (["plan.spread=2"], "spread is 2"),
        (["metric.metric=magic"], "unknown metric 'magic'; known metrics are gain, gain_decay"),
        (["chunk.chunker=magic"], "chunk.chunker is 'magic'"),
        (["plan.nothing=1"], "Could not override 'plan.nothing'"),
        (["+plan.nothing=1"], "plan.nothing is no setting; known ones here are early_stop, max_rollouts"),
        (["max_traces=0"], "max_traces is 0"),
        (["model.ray.nnodes=0"], "nnodes is 0"),
        (["model.vllm.max_model_len=many"], "model.vllm.max_model_len is 'many'"),
    ],
)
def test_wrong_settings_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        config(*overrides)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no recipe"):
        read_importance(tmp_path / "none.yaml", [])


def test_a_scored_file_reads_back_as_it_was(serve, tmp_path):
    path = write(tmp_path / "traces.jsonl", row(key="a"), row(key="b", trace=" "), b"{bad")
    found, _ = score(path, serve(answer_to=answer_by_problem({})).url, config(), tmp_path / "j.jsonl")
    write_chains(tmp_path / "importance.jsonl", found.values())
    again = read_chains(tmp_path)
    assert [chain.key for chain in again] == ["a", "b", "3"]
    for old, new in zip(found.values(), again, strict=True):
        problem = replace(old.problem, source="importance") if old.problem else None
        assert new == replace(old, cost=None, problem=problem)


@pytest.mark.parametrize("field", ["num_tokens", "importance"])
def test_a_scored_row_that_lacks_a_field_has_a_name(serve, tmp_path, field):
    path = write(tmp_path / "traces.jsonl", row())
    found, _ = score(path, serve(answer_to=answer_by_problem({})).url, config(), tmp_path / "j.jsonl")
    write_chains(tmp_path / "importance.jsonl", found.values())
    damaged = json.loads((tmp_path / "importance.jsonl").read_text())
    del damaged["thoughts"][1][field]
    (chain,) = read_chains(write(tmp_path / "damaged.jsonl", damaged))
    assert chain.outcome.value == "missing field"
    assert field in chain.detail


def command(monkeypatch, serve):
    """Runs ``longshort importance`` on a server; returns a function of the file, the folder and overrides."""
    monkeypatch.setattr("longshort_verl.chains.score.token_counter", lambda model: len)
    server = serve(answer_to=answer_by_problem({}))

    def run(path, out, *overrides):
        settings = config(f"model.endpoint.base_urls=[{server.url}]", *overrides)
        return run_importance(settings, path, out, rollout_progress), server

    return run


def test_a_finished_run_is_skipped_and_other_settings_are_refused(serve, tmp_path, monkeypatch):
    run = command(monkeypatch, serve)
    path, out = write(tmp_path / "traces.jsonl", row()), tmp_path / "out"
    counts, server = run(path, out)
    assert counts["outcomes"] == {"scored": 1}
    manifest = read_manifest(out)
    assert (manifest["finished"], manifest["counts"]["num_rollouts"]) == (True, counts["num_rollouts"])
    num_requests = len(server.requests)
    assert run(path, out)[0] is None
    with pytest.raises(ValueError, match="rollouts.seed: 0 then, 1 now"):
        run(path, out, "rollouts.seed=1")
    with pytest.raises(ValueError, match="input traces"):
        run(write(tmp_path / "other.jsonl", row(answer="9")), out)
    # The rollouts of another metric are the same.
    assert run(path, out, "metric.metric=gain")[0]["num_rollouts"] == counts["num_rollouts"]
    assert len(server.requests) == num_requests
    (chain,) = read_chains(out)
    assert all(importance.score == importance.gain for importance in chain.scores)


def test_a_run_with_an_engine_error_is_not_finished(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("longshort_verl.chains.score.token_counter", lambda model: len)
    path, out = write(tmp_path / "traces.jsonl", row(problem="500")), tmp_path / "out"
    settings = config(f"model.endpoint.base_urls=[{serve(answer_to=answer_by_problem(FAULTS)).url}]")
    assert run_importance(settings, path, out, rollout_progress)["outcomes"] == {"engine error": 1}
    run = command(monkeypatch, serve)
    assert run(path, out)[0]["outcomes"] == {"scored": 1}


def test_a_chain_is_scored_with_a_metric_from_outside_the_package(serve, tmp_path, monkeypatch):
    def length(values, lengths, settings):
        rest = {"low": 0.0, "high": 0.0, "gain": 0.0, "decay": 1.0, "length_share": 0.0}
        return [Importance(score=float(number), **rest) for number in lengths]

    monkeypatch.setitem(METRICS, "length", length)
    path = write(tmp_path / "traces.jsonl", row())
    server = serve(answer_to=answer_by_problem({}))
    found, _ = score(path, server.url, config("metric.metric=length"), tmp_path / "j.jsonl")
    assert [importance.score for importance in found["1"].scores] == [len("<think>1+1=2\n\n"), 7, 5]


def test_a_file_without_one_good_row_ends_with_its_reasons(serve, tmp_path, monkeypatch):
    run = command(monkeypatch, serve)
    path = tmp_path / "traces.jsonl"
    path.write_text('no json\n{"problem": "p"}\n{"problem": "p", "answer": "7"}\n')
    reasons = r"has no good row: 1 not json, 2 missing field; the first one, 1: .*; correct the rows"
    with pytest.raises(ChainFileError, match=reasons):
        run(path, tmp_path / "out")
    with pytest.raises(ChainFileError, match=reasons):
        run_chunk(config(), path, tmp_path / "chunks.jsonl", rollout_progress)  # pyright: ignore[reportArgumentType]
    write(path, row(trace="", key="a"), row(answer="", key="b"))
    with pytest.raises(
        ChainFileError, match=r"no chain of .*traces.jsonl could be scored: .*; see .*out/importance.jsonl"
    ):
        run(path, tmp_path / "out")
    assert not read_manifest(tmp_path / "out")["finished"]


def test_the_model_is_looked_at_before_the_journal_is_opened(tmp_path):
    path, out = write(tmp_path / "traces.jsonl", row()), tmp_path / "out"
    settings = config("model.engine=vllm", f"model.path={tmp_path}/absent")
    with pytest.raises(ConfigError, match=rf"no model at {tmp_path}/absent: there is no folder {tmp_path}/absent; set"):
        run_importance(settings, path, out, rollout_progress)
    assert list(out.iterdir()) == []
