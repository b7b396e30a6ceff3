# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import asyncio
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from longshort_verl.cli.app import app
from longshort_verl.config.compose import ConfigError
from longshort_verl.dialogue import DialogueSettings
from longshort_verl.evaluation.config import read_evaluate
from longshort_verl.evaluation.records import (
    answer_text,
    evaluation_results,
    grade_again,
    num_characters,
    summarize,
)
from longshort_verl.evaluation.run import Attempt, EvaluationSampling, run_pair, run_solo
from longshort_verl.evaluation.solo import (
    Baseline,
    Baselines,
    EarlyExit,
    EstimateOutcome,
    ask_plainly,
    read_estimate,
    solo_systems,
)
from longshort_verl.evaluation.systems import read_attempts, run_systems
from longshort_verl.files.journal import Journal
from longshort_verl.files.manifest import read_manifest
from longshort_verl.grading import GradingSettings, grade
from longshort_verl.problems.sets import ProblemSet
from longshort_verl.report.evaluation import evaluation_table
from longshort_verl.types import FinishReason, Generation, Problem, Role
from tests.support.configs import ROOT
from tests.support.scripted import ScriptedGenerator
from tests.support.servers import completion, servers

GRADING = GradingSettings(timeout_s=2.0, max_answer_chars=100, max_workers=1)
ATTEMPTS = [
    Attempt(problem_set="test", problem=Problem(prompt=f"problem {i}", answer="7", source="test", index=i), sample=0)
    for i in range(4)
]
SAMPLING = EvaluationSampling(temperature=1.0, top_p=1.0, seed=1, samples=1, solo_max_tokens=50, solo_suffix="?")
DIALOGUE = DialogueSettings(
    opening_role=Role.LONG,
    max_short_turns=2,
    max_turn_tokens={Role.LONG: 50, Role.SHORT: 50},
    max_dialogue_tokens=200,
    system_prompt={Role.LONG: "", Role.SHORT: ""},
    must_answer_notice="",
)
NO_EXITS = EarlyExit(max_tokens=(), forcing_text="", answer_tokens=1, stop=())
BASELINES = Baselines(
    run=tuple(Baseline),
    draft_suffix=" draft",
    estimate_suffix=" how many?",
    estimate_max_tokens=20,
    budget_suffix=" below {budget}, in \\boxed{}",
)


def graded(text, gold):
    return grade(text, gold, GRADING)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "a.journal", {}) as journal:
        yield journal


def test_the_pair_by_hand(journal):
    # Tokens are characters that are no white space. Four dialogues: right, right after a rethink, wrong, broken.
    long = ["<think>a</think>", "<think>a</think>", "<think>b</think>", "<think>a</think>", "nonsense"]
    short = [
        "<answer>\\boxed{7}</answer>",
        "<answer>go</rethink>",
        "<answer>\\boxed{7}</answer>",
        "<answer>\\boxed{8}</answer>",
    ]
    generators = {Role.LONG: ScriptedGenerator(long), Role.SHORT: ScriptedGenerator(short)}
    done = []
    records = asyncio.run(
        run_pair(
            ATTEMPTS,
            generators,
            DIALOGUE,
            SAMPLING,
            graded,
            forbidden=(),
            journal=journal,
            max_requests=1,
            on_done=lambda: done.append(1),
        )
    )
    assert len(done) == 4
    assert [record["correct"] for record in records] == [True, True, False, False]
    assert [record["stop_reason"] for record in records] == ["answered", "answered", "answered", "malformed_long"]
    found = summarize(records)
    assert found["accuracy"] == 0.5
    # <think>a</think> is 16 long, nonsense 8; <answer>\boxed{7}</answer> 26, <answer>go</rethink> 20.
    assert found["num_tokens_long"] == (16 + 32 + 16 + 8) / 4
    assert found["num_tokens_short"] == (26 + 46 + 26) / 4
    assert found["num_tokens"] == found["num_tokens_long"] + found["num_tokens_short"]
    assert found["num_characters"] == found["num_tokens"], "no white space"
    assert found["well_formed_long"] == 4 / 5
    assert found["well_formed_short"] == 1.0
    assert found["num_rethinks"] == 1 / 4
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_table({"pair": evaluation_results(records, [40, 100])}))
    shown = console.export_text()
    assert "50.0%" in shown
    assert "accuracy within 40 tokens" in shown
    # Prompts: the problem, 8 characters, and each role's transcript. The long role's second prompt holds its first and
    # what it wrote; so does the short role's.
    first, second = records[:2]
    assert [turn["num_prompt_tokens"] for turn in second["turns"]] == [8, 24, 8 + 16 + 20, 24 + 20 + 16]
    assert (first["num_tokens_prompts"], first["num_tokens_reprefilled"]) == (8 + 24, 0)
    assert second["num_tokens_prompts"] == 8 + 24 + 44 + 60
    assert second["num_tokens_reprefilled"] == (8 + 16) + (24 + 20)
    assert [answer_text(record) for record in records] == ["\\boxed{7}", "\\boxed{7}", "\\boxed{8}", ""]
    assert [grade_again(record, graded) for record in records] == records
    assert [record["fault"] for record in records] == [""] * 4, "what broke off has no answer that could be faulty"
    assert found["num_turns"] == (2 + 4 + 2 + 1) / 4


def test_a_model_by_itself_by_hand(journal):
    cut = Generation(text="on \\boxed{7}", finish=FinishReason.LENGTH, num_prompt_tokens=1, num_tokens=50)
    gone = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")
    records = asyncio.run(
        run_solo(
            ATTEMPTS,
            ScriptedGenerator(["x \\boxed{7}", "\\boxed{8}", cut, gone]),
            ask_plainly("?"),
            SAMPLING,
            graded,
            journal=journal,
            max_requests=1,
            on_done=lambda: None,
        )
    )
    found = summarize(records)
    # One that did not end is wrong, at all of its tokens.
    assert found["accuracy"] == 0.25
    assert found["num_tokens"] == (10 + 9 + 50 + 0) / 4
    assert (found["truncated"], found["engine_error"]) == (0.25, 0.25)
    assert records[3]["detail"] == "gone"
    assert len(journal) == 3, "what an engine lost is asked again"
    assert [grade_again(record, graded) for record in records] == records
    assert "num_rethinks" not in found


def test_a_model_that_is_made_to_answer_early(tmp_path):
    settings = EarlyExit(max_tokens=(0, 9), forcing_text="</think>\\boxed{", answer_tokens=5, stop=("}",))
    runs = []

    def run(replies, exit_after):
        generator = ScriptedGenerator(replies)
        runs.append(len(runs))
        with Journal(tmp_path / f"{len(runs)}.journal", {}) as journal:
            records = asyncio.run(
                run_solo(
                    ATTEMPTS[:2],
                    generator,
                    solo_systems("?", settings, BASELINES)[f"exit_{exit_after}"],
                    SAMPLING,
                    graded,
                    journal=journal,
                    max_requests=1,
                    on_done=lambda: None,
                )
            )
        return records, generator.requests

    records, requests = run(["7}", "8}"], 0)
    assert [record["correct"] for record in records] == [True, False]
    assert [record["num_tokens"] for record in records] == [2, 2], "what it is made to say is not its own"
    assert requests[0][0][-1].content == "</think>\\boxed{"
    cut = Generation(text="a b", finish=FinishReason.LENGTH, num_prompt_tokens=1, num_tokens=9)
    # The second problem is answered before it would be cut off.
    records, requests = run([cut, "7}", "x\\boxed{7}"], 9)
    assert [record["correct"] for record in records] == [True, True]
    assert [record["num_tokens"] for record in records] == [11, 10]
    assert requests[1][0][-1].content == "a b</think>\\boxed{"
    assert (requests[1][1].max_tokens, requests[1][1].stop) == (5, ("}",))
    gone = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")
    records, _ = run([gone, cut, gone], 9)
    assert [record["stop_reason"] for record in records] == ["engine_error", "engine_error"]


def run_baseline(name, replies, journal, attempts=ATTEMPTS):
    generator = ScriptedGenerator(replies)
    ask = solo_systems("?", NO_EXITS, BASELINES)[name]
    options = {"journal": journal, "max_requests": 1, "on_done": lambda: None}
    records = asyncio.run(run_solo(attempts, generator, ask, SAMPLING, graded, **options))
    return records, [(messages[-1].content, sampling.max_tokens) for messages, sampling in generator.requests]


def test_chain_of_draft_by_hand(journal):
    records, requests = run_baseline("chain_of_draft", ["3 + 4 \\boxed{7}", "\\boxed{8}"], journal, ATTEMPTS[:2])
    assert requests == [("problem 0 draft", 50), ("problem 1 draft", 50)]
    found = summarize(records)
    # "3 + 4 \\boxed{7}" is 15 characters, 12 of them no white space; "\\boxed{8}" is 9.
    assert (found["accuracy"], found["num_tokens"], found["num_characters"]) == (0.5, (12 + 9) / 2, (15 + 9) / 2)
    assert "estimate_given" not in found


def test_tale_ep_by_hand(journal):
    cut = Generation(text="I think", finish=FinishReason.LENGTH, num_prompt_tokens=16, num_tokens=20)
    answer = "\\boxed{7}"
    # Two requests for each problem: a budget of 12; none, because the estimate was cut, in words, or above the limit.
    replies = ["about [[9]], no: [[ 12 ]]", answer, cut, answer, "twelve", "\\boxed{8}", "[[51]]", answer]
    records, requests = run_baseline("tale_ep", replies, journal)
    assert [text for text, _ in requests[::2]] == [f"problem {i} how many?" for i in range(4)]
    assert {most for _, most in requests[::2]} == {20}
    assert requests[1::2] == [("problem 0 below 12, in \\boxed{}", 50), *((f"problem {i}?", 50) for i in (1, 2, 3))]
    outcomes = [(record["estimate"]["outcome"], record["estimate"]["budget"]) for record in records]
    assert outcomes == [("given", 12), ("truncated", None), ("unreadable", None), ("out_of_range", None)]
    # Tokens of the estimates, 20 of "about[[9]],no:[[12]]" among them, and 9 of each answer.
    assert [record["num_tokens"] for record in records] == [20 + 9, 20 + 9, 6 + 9, 6 + 9]
    # Prompts: "problem0howmany?" is 16 long, "problem0below12,in\\boxed{}" 26, "problem1?" 9.
    assert [record["num_tokens_prompts"] for record in records] == [16 + 26, 16 + 9, 16 + 9, 16 + 9]
    found = evaluation_results(records, [28, 29])
    assert (found["accuracy"], found["accuracy_within"]) == (0.75, {"28": 0.25, "29": 0.75})
    assert found["num_tokens"] == (29 + 29 + 15 + 15) / 4
    assert found["num_tokens_estimate"] == (20 + 20 + 6 + 6) / 4
    # White space included: 25, 7, 6 and 6 of the estimates.
    assert found["num_characters"] == (25 + 7 + 6 + 6) / 4 + 9
    shares = {outcome: found[f"estimate_{outcome.value}"] for outcome in EstimateOutcome}
    assert list(shares.values()) == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert [grade_again(record, graded) for record in records] == records
    # Resumed from the journal: no request.
    assert run_baseline("tale_ep", [], journal) == (records, [])


def test_tale_ep_when_the_engine_loses_a_request(journal):
    gone = Generation(text="", finish=FinishReason.ERROR, num_prompt_tokens=0, num_tokens=0, error="gone")
    records, _ = run_baseline("tale_ep", [gone, "[[3]]", gone], journal, ATTEMPTS[:2])
    assert [(record["stop_reason"], record["detail"]) for record in records] == [("engine_error", "gone")] * 2
    assert summarize(records)["estimate_engine_error"] == 0.5
    assert len(journal) == 0
    _, requests = run_baseline("tale_ep", ["[[3]]", "\\boxed{7}"] * 2, journal, ATTEMPTS[:2])
    assert len(requests) == 4, "both are asked again, from the estimate on"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("[[1]]", EstimateOutcome.GIVEN),
        ("<think>[[7]]</think>[[50]]", EstimateOutcome.GIVEN),
        ("[[0]]", EstimateOutcome.OUT_OF_RANGE),
        ("[[999999999]]", EstimateOutcome.OUT_OF_RANGE),
        # int() refuses so many digits, and reads the digits of all scripts.
        (f"[[{'9' * 5000}]]", EstimateOutcome.UNREADABLE),
        ("[[\u0663]]", EstimateOutcome.UNREADABLE),
        ("[[-5]] [[1.5]] [[1e3]] [12] {budget}", EstimateOutcome.UNREADABLE),
        ("", EstimateOutcome.UNREADABLE),
    ],
)
def test_an_estimate_is_never_an_exception(text, outcome):
    reply = Generation(text=text, finish=FinishReason.STOP, num_prompt_tokens=1, num_tokens=1)
    found, budget = read_estimate(reply, 50)
    assert found is outcome
    assert (budget is None) is (outcome is not EstimateOutcome.GIVEN)


def test_characters_of_a_pair_are_those_of_its_turns():
    turns = [{"text": "<think>a b</think>"}, {"text": "<answer>c</answer>"}]
    assert num_characters({"turns": turns}) == 18 + 18
    assert num_characters({"text": "a b\n"}) == 4, "a record of an earlier version"


def test_baselines_run_beside_the_single_model_and_are_compared_with_it(tmp_path):
    problems = tmp_path / "mine.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"{i}+1", "answer": i + 1}) + "\n" for i in range(3)))
    out = tmp_path / "out"
    with servers() as serve:
        # "\\boxed{2}" is no estimate.
        server = serve(completion("\\boxed{2}"))
        endpoint = f"solo.endpoint.base_urls=[{server.url}]"
        command = ["evaluate", str(problems), "--out", str(out), "solo.path=tiny", "solo.engine=endpoint", endpoint]
        assert CliRunner().invoke(app, command).exit_code == 0
        # A finished evaluation takes further baselines.
        done = CliRunner().invoke(app, [*command, "baselines.run=[tale_ep,chain_of_draft]"])
        assert done.exit_code == 0, done.output
    assert len(server.requests) == 3 + 6 + 3
    found = json.loads((out / "results.json").read_text())["systems"]
    assert list(found) == ["solo", "tale_ep", "chain_of_draft"]
    assert {name: of["accuracy"] for name, of in found.items()} == dict.fromkeys(found, pytest.approx(1 / 3))
    assert found["tale_ep"]["num_tokens"] == 2 * found["solo"]["num_tokens"]
    assert (found["tale_ep"]["estimate_unreadable"], found["tale_ep"]["num_characters"]) == (1.0, 18.0)
    assert read_manifest(out)["counts"] == {"solo": 3, "tale_ep": 3, "chain_of_draft": 3}
    done = CliRunner().invoke(app, ["report", "evaluation", str(out), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert "tale_ep" in done.output


def test_prompts_alone_are_the_pair_of_one_model_without_sft(journal):
    search = f"hydra.searchpath=[pkg://longshort_verl.config,file://{ROOT}/recipes/ablations]"
    config = read_evaluate(None, ["long.path=untrained", search, "+evaluate=prompt_only"])
    assert config.short.path == "untrained"
    assert config.short == config.long, "open_pair starts one engine for both roles"
    model = ScriptedGenerator(["<think>two</think>", "<answer>\\boxed{7}</answer>", "I think"])
    options = {"forbidden": (), "journal": journal, "max_requests": 1, "on_done": lambda: None}
    generators = dict.fromkeys(Role, model)
    records = asyncio.run(run_pair(ATTEMPTS[:2], generators, config.dialogue, SAMPLING, graded, **options))
    assert [(record["correct"], record["stop_reason"]) for record in records] == [
        (True, "answered"),
        (False, "malformed_long"),
    ]
    prompts = [messages[0].content for messages, _ in model.requests]
    assert ["You are the thinker" in prompt for prompt in prompts] == [True, False, True]
    assert "Begin your reply with <answer>" in prompts[1]


def test_what_is_there_whole_needs_no_engine_and_more_samples_go_on(tmp_path):
    problems = tuple(attempt.problem for attempt in ATTEMPTS)
    one_set = ProblemSet(name="test", num_samples=2, problems_of=lambda sample: problems)

    def config(*more):
        # There is no such model: an engine that started would fail.
        return read_evaluate(None, ["solo.path=nowhere", "solo.engine=endpoint", *more])

    endpoint = "solo.endpoint.base_urls=[http://127.0.0.1:9/v1]"
    with servers() as serve:
        server = serve(completion("\\boxed{7}"))
        first = config(f"solo.endpoint.base_urls=[{server.url}]", "sampling.samples=1")
        found = asyncio.run(run_systems(first, read_attempts([one_set], first.sampling), tmp_path, bar))
        assert [record["correct"] for record in found["solo"]] == [True] * 4
        assert len(server.requests) == 4
        # Two samples by the set's own number: one of each problem is there.
        both = config(f"solo.endpoint.base_urls=[{server.url}]")
        found = asyncio.run(run_systems(both, read_attempts([one_set], both.sampling), tmp_path, bar))
        assert len(server.requests) == 8
    gone = config(endpoint)
    again = asyncio.run(run_systems(gone, read_attempts([one_set], gone.sampling), tmp_path, bar))
    assert again == found
    assert [(record["index"], record["sample"]) for record in found["solo"]] == [
        (i, k) for k in range(2) for i in range(4)
    ]
    with pytest.raises(ValueError, match="two sets have the same name: test, test"):
        read_attempts([one_set, one_set], SAMPLING)


def bar(name):
    return lambda: None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["math501"], "longshort: there is nothing to evaluate; set long.path and short.path, or solo.path"),
        (["math501", "solo.path=a"], "'math501' is no file and no known set"),
        (["solo.path=a"], "there is no problem set among"),
        (["nowhere.jsonl", "solo.path=a"], "nowhere.jsonl: no such file"),
        (["math500=nowhere.jsonl", "solo.path=a"], "there is no nowhere.jsonl"),
        (["math500", "no.such.key=1"], "no.such.key"),
    ],
)
def test_the_command_says_what_it_cannot_read(tmp_path, given, said):
    done = CliRunner().invoke(app, ["evaluate", *given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


def test_the_command_and_grading_again_by_a_new_grader(tmp_path):
    problems = tmp_path / "mine.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"{i}+1", "answer": i + 1}) + "\n" for i in range(3)))
    out = tmp_path / "out"
    with servers() as serve:
        server = serve(completion("\\boxed{2}"))
        endpoint = f"solo.endpoint.base_urls=[{server.url}]"
        settings = ["solo.path=tiny", "solo.engine=endpoint", endpoint, "budgets=[5,10]"]
        command = ["evaluate", str(problems), "--out", str(out), *settings]
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    # The server is gone: a finished evaluation needs none, and one with other settings is refused before it is asked.
    again = CliRunner().invoke(app, command)
    assert f"{out} is finished: nothing to do\n" in again.output
    other = CliRunner().invoke(app, [*command, "sampling.temperature=0.7"])
    assert other.exit_code == 1
    assert "sampling.temperature: 0.6 then, 0.7 now" in other.output
    manifest = read_manifest(out)
    assert (manifest["counts"], manifest["config"]["sampling"]["seed"]) == ({"solo": 3}, 0)
    found = json.loads((out / "results.json").read_text())["systems"]["solo"]
    assert (found["accuracy"], found["accuracy_within"]) == (
        pytest.approx(1 / 3),
        {"5": 0.0, "10": pytest.approx(1 / 3)},
    )
    asked = sorted(request["messages"][-1]["content"] for request in server.requests)
    assert asked[0].startswith("0+1\n\nPlease reason step by step")
    # A reply that was graded wrong by mistake, as by a grader of yesterday.
    rows = [json.loads(line) for line in (out / "solo.jsonl").read_text().splitlines()]
    rows[1]["correct"] = False
    (out / "solo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["score", str(out)])
    assert "now right and was wrong: 1; now wrong and was right: 0" in done.output
    assert json.loads((out / "solo.jsonl").read_text().splitlines()[1])["correct"] is False, "only told"
    assert CliRunner().invoke(app, ["score", str(out), "--out", str(tmp_path / "new")]).exit_code == 0
    assert json.loads((tmp_path / "new" / "solo.jsonl").read_text().splitlines()[1])["correct"] is True
    assert json.loads((tmp_path / "new" / "results.json").read_text())["systems"]["solo"] == found
    assert "holds no evaluation" in CliRunner().invoke(app, ["score", str(tmp_path)]).output


def test_what_an_engine_lost_is_told(tmp_path):
    problems = tmp_path / "mine.jsonl"
    problems.write_text('{"problem": "1+1", "answer": 2}\n')
    endpoint = "solo.endpoint.base_urls=[http://127.0.0.1:9/v1]"
    settings = ["solo.path=tiny", "solo.engine=endpoint", endpoint, "solo.endpoint.max_retries=0"]
    done = CliRunner().invoke(app, ["evaluate", str(problems), *settings, "--out", str(tmp_path / "out")])
    assert "replies lost to an engine count as wrong; the same command asks for them again" in done.output


def test_seeds_are_each_attempts_own():
    seeds = {
        Attempt(problem_set="a", problem=attempt.problem, sample=sample).seed(run)
        for attempt in ATTEMPTS
        for sample in range(3)
        for run in range(3)
    }
    assert len(seeds) == 4 * 3 * 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["solo.path=a", "early_exit.max_tokens=[-1]"], "max_tokens"),
        (["solo.path=a", "early_exit.max_tokens=[1,1]"], "give different numbers"),
        (["solo.path=a", "early_exit.max_tokens=[1]", "early_exit.forcing_text=''"], "forcing_text is empty"),
        (["long.path=a", "short.path=a", "early_exit.max_tokens=[1]"], "set solo.path, or early_exit"),
        (["solo.path=a", "baselines.run=[tale]"], "baselines.run.0 is 'tale'"),
        (["solo.path=a", "baselines.run=[tale_ep,tale_ep]"], "give different names"),
        (["solo.path=a", "baselines.budget_suffix=short"], "budget_suffix is 'short'; it must hold {budget}"),
        (["solo.path=a", "baselines.estimate_max_tokens=0"], "estimate_max_tokens is 0"),
        (["long.path=a", "short.path=a", "baselines.run=[tale_ep]"], "set solo.path, or baselines.run"),
        ([], "there is nothing to evaluate"),
        (["long.path=a"], "long.path is 'a' and short.path None; set both or neither"),
        (["solo.path=a", "sampling.solo_max_tokens=0"], "solo_max_tokens is 0"),
        (["solo.path=a", "sampling.top_p=2"], "top_p is 2"),
        (["solo.path=a", "max_requests=0"], "max_requests is 0"),
        (["solo.path=a", "budgets=[10,5]"], r"budgets is \[10, 5\]; give ascending"),
        (["solo.path=a", "limit=0"], "limit is 0"),
        (["solo.path=a", "systems=[pair]"], "systems has 'pair', and the models and settings give solo; give one"),
        (["solo.path=a", "sampling.temperature=0", "sampling.samples=2"], "greedy replies are all the same"),
        (["solo.path=a", "sampling.samples=0"], "samples is 0"),
    ],
)
def test_wrong_settings_are_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        read_evaluate(None, overrides)
