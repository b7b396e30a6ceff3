# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The two rows of a session: token ids kept, own tokens masked in, the peer's and the template's masked out.

The servers are scripted (they replay texts as token ids); everything else is the real loop on real tokenizers.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest
from ray.exceptions import RayActorError
from tokenizers import AddedToken
from verl.workers.rollout.llm_server import LLMServerClient

from longshort_verl.adapters.rl.agent_loop import ROW, LongShortAgentLoop
from longshort_verl.adapters.rl.role_writer import RoleWriter
from longshort_verl.adapters.server_client import ServerClient
from longshort_verl.importance import MeasuredTurns
from longshort_verl.metrics import MEASURED
from longshort_verl.types import FinishReason, Message, Role, Sampling
from tests.support.configs import tiny_config
from tests.support.sessions import ScriptedServers, run_session

LONG = ["<think>8+2=0</think>", "<think>0+2=2</think>"]
SHORT = ["<answer>0</rethink>", "<answer>\\boxed{2}</answer>"]


@pytest.fixture
def run(tiny_models, tiny_problems):
    def run_tiny(long, short, *overrides, **kwargs):
        return run_session(tiny_config(tiny_models, tiny_problems, *overrides), long, short, **kwargs)

    return run_tiny


def test_two_rows_long_then_short(run):
    rows, servers, tokenizers = run(LONG, SHORT)
    assert [row.extra_fields[ROW]["role"] for row in rows] == ["long", "short"]
    decode = tokenizers[Role.LONG].decode
    assert decode(rows[0].prompt_ids) == "<|user|>8+2+2<|im_end|><|assistant|>"
    assert decode(rows[0].response_ids) == (
        "<think>8+2=0</think><|im_end|><|user|><answer>0</rethink><|im_end|><|assistant|><think>0+2=2</think>"
    )
    assert decode(rows[1].prompt_ids) == "<|user|>8+2+2\n\n<think>8+2=0</think><|im_end|><|assistant|>"
    assert decode(rows[1].response_ids) == (
        "<answer>0</rethink><|im_end|><|user|><think>0+2=2</think><|im_end|><|assistant|><answer>\\boxed{2}</answer>"
    )
    for row, texts, role in ((rows[0], LONG, Role.LONG), (rows[1], SHORT, Role.SHORT)):
        own = [i for i, m in zip(row.response_ids, row.response_mask, strict=True) if m]
        assert decode(own) == "".join(texts)
        assert len(row.response_logprobs) == len(row.response_mask) == len(row.response_ids)
        assert [lp != 0 for lp in row.response_logprobs] == [bool(m) for m in row.response_mask]
        assert row.extra_fields["min_global_steps"] == row.extra_fields["max_global_steps"] == 4
        # Prefixes only grow: the second request is the first, its reply, and something after it.
        first, second = servers[role].requests
        assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
        assert second.prompt_ids == (row.prompt_ids + row.response_ids)[: len(second.prompt_ids)]
    record = rows[1].extra_fields[ROW]
    assert record["stop_reason"] == "answered"
    assert record["answer"] == "\\boxed{2}"
    assert (record["num_rethinks"], record["num_turns_long"], record["num_turns_short"]) == (1, 2, 2)
    assert record["num_tokens_long"] == sum(rows[0].response_mask)


def test_generated_ids_are_kept_even_where_text_would_encode_otherwise(run, tiny_models):
    _, _, tokenizers = run(LONG, SHORT)
    tokenizer = tokenizers[Role.LONG]
    # The opening tag spelt in bytes is the same text and other ids.
    spelt = [i for byte in "<think>" for i in tokenizer.encode(byte, add_special_tokens=False)]
    ids = spelt + tokenizer.encode("8+2=0 0+2=2</think>", add_special_tokens=False)
    assert tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False) != ids
    rows, _, _ = run([ids], SHORT[1:])
    assert rows[0].response_ids == ids
    assert rows[1].extra_fields[ROW]["stop_reason"] == "answered"


def test_requests_stop_at_the_roles_own_tags(run):
    _, servers, _ = run(LONG, SHORT)
    assert servers[Role.LONG].requests[0].params["stop"] == ["</think>"]
    assert servers[Role.SHORT].requests[0].params["stop"] == ["</answer>", "</rethink>"]
    for server in servers.values():
        assert server.requests[0].params["include_stop_str_in_output"] is True
        assert server.requests[0].params["skip_special_tokens"] is False
        assert len({request.id for request in server.requests}) == 1, "one request id a session keeps its replica"


def test_seeds_repeat_per_session_and_differ_between_turns_and_problems(run):
    def seeds(**kwargs):
        _, servers, _ = run(LONG, SHORT, **kwargs)
        return [request.params["seed"] for role in Role for request in servers[role].requests]

    assert seeds() == seeds()
    assert len(set(seeds())) == 4
    assert not set(seeds()) & set(seeds(seed_of=1))
    _, servers, _ = run(LONG, SHORT, "long_short.seed=null")
    assert "seed" not in servers[Role.LONG].requests[0].params


def test_a_role_that_never_spoke_has_an_inert_row(run):
    rows, _, tokenizers = run(["nonsense<|im_end|>"], [])
    assert rows[1].response_ids == [tokenizers[Role.SHORT].eos_token_id]
    assert rows[1].response_mask == [0]
    assert rows[1].extra_fields["max_global_steps"] == 4
    assert rows[0].extra_fields[ROW]["stop_reason"] == "malformed_long"
    assert sum(rows[0].response_mask) == len("nonsense") + 1


@pytest.mark.parametrize("failure", [RayActorError(), []], ids=["dead actor", "aborted"])
def test_a_failing_engine_ends_the_dialogue_with_its_name(run, failure):
    rows, _, _ = run(LONG, [SHORT[0], failure])
    record = rows[0].extra_fields[ROW]
    assert record["stop_reason"] == "engine_error"
    assert record["detail"].startswith("short: the engine")
    # What the failed request appended is no part of the row.
    assert rows[1].response_mask[-1] == 1
    assert len(rows[1].response_mask) == len(rows[1].response_ids) == len(rows[1].response_logprobs)


def test_the_end_of_turn_token_ends_a_turn_and_is_trained(run):
    rows, _, tokenizers = run(["<think>8+2=0<|im_end|>"], [])
    assert rows[0].response_ids[-1] == tokenizers[Role.LONG].eos_token_id
    assert rows[0].response_mask[-1] == 1
    record = rows[0].extra_fields[ROW]
    assert (record["stop_reason"], record["detail"]) == ("malformed_long", "long turn has no closing </think>")


def test_a_forged_control_token_is_malformed(run):
    rows, _, _ = run(["<think>8<|user|>2</think>"], [])
    assert rows[0].extra_fields[ROW]["detail"] == "long turn has the control token <|user|> inside the turn"


def test_a_turn_at_its_limit_is_truncated(run):
    rows, _, _ = run(["<think>" + "1" * 200], [])
    assert rows[0].extra_fields[ROW]["stop_reason"] == "truncated"
    assert sum(rows[0].response_mask) == 96


@pytest.mark.parametrize(("context", "written"), [(35, 4), (31, 0)])
def test_a_full_context_ends_the_dialogue(run, context, written):
    # The short transcript: 17 tokens of prompt, 3 of "<answer>0</rethink>", 11 of the next user turn: 31 in all.
    rows, servers, _ = run(LONG, SHORT, "data.max_prompt_length=0", f"data.max_response_length={context}")
    record = rows[1].extra_fields[ROW]
    ended = "the short model's context ended in the middle of its turn"
    assert (record["stop_reason"], record["detail"]) == ("context", ended)
    assert sum(rows[1].response_mask) == 3 + written
    assert len(servers[Role.SHORT].requests) == (2 if written else 1), "an engine raises on a prompt without room"
    assert rows[1].response_mask[-1] == 1


def test_needs_the_two_policy_trainer(tiny_models, tiny_problems):
    loop = LongShortAgentLoop.__new__(LongShortAgentLoop)
    loop.server_manager = LLMServerClient(config=None)
    with pytest.raises(TypeError, match="trainer_mode=longshort"):
        asyncio.run(loop.run({}, raw_prompt=[]))


def test_tags_split_over_tokens_and_text_past_the_tag(tiny_models):
    """A tokenizer without tag tokens whose last token carries a full stop past the tag."""
    import make_models
    from transformers import PreTrainedTokenizerFast

    tokenizer = make_models.build_tokenizer()
    plain = make_models.build_tokenizer().backend_tokenizer
    plain.add_tokens([AddedToken(">.", special=False, normalized=False)])
    split = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=tokenizer.chat_template
    )
    spelt = [i for byte in "<think>8</think" for i in split.encode(byte, add_special_tokens=False)]
    ids = [*spelt, split.convert_tokens_to_ids(">.")]
    server = ScriptedServers(split, [ids])
    writer = RoleWriter(ServerClient(server, split, max_model_len=100), split, request_id="r")
    sampling = Sampling(max_tokens=50, temperature=1.0, stop=("</think>",))
    reply = asyncio.run(writer.generate([Message(role="user", content="8")], sampling))
    assert reply.text == "<think>8</think>."
    assert reply.finish is FinishReason.STOP
    assert writer.token_ids[writer.num_prompt_tokens :] == ids
    assert reply.num_tokens == len(ids) == 16


# Importance of turns ---------------------------------------------------------------------------------------------

ROLLOUTS = {"": "9}</answer>", "8+2=0": "0}</answer>", "0+2=2": "2}</answer>"}
MEASURE = ("long_short.reward.importance=1", "long_short.importance.num_rollouts=3")


def measured(row):
    return MeasuredTurns.from_json(row.extra_fields[ROW][MEASURED])


def test_rollouts_continue_what_the_engine_has_read(run):
    rows, servers, tokenizers = run(LONG, SHORT, *MEASURE, rollouts=ROLLOUTS, training=True)
    server, decode = servers[Role.SHORT], tokenizers[Role.SHORT].decode
    turns = measured(rows[1])
    assert turns.replies == tuple(("<answer>\\boxed{" + ROLLOUTS[one],) * 3 for one in ("", "8+2=0", "0+2=2"))
    forced = sorted({tuple(request.prompt_ids) for request in server.forced}, key=len)
    assert decode(forced[0]) == "<|user|>8+2+2<|im_end|><|assistant|><answer>\\boxed{"
    # The role's own two requests, token by token, and the beginning of an answer.
    for ids, own in zip(forced[1:], server.requests, strict=True):
        assert list(ids[: len(own.prompt_ids)]) == own.prompt_ids
        assert decode(ids[len(own.prompt_ids) :]) == "<answer>\\boxed{"
    assert turns.num_tokens == sum(
        len(tokenizers[Role.SHORT].encode(ROLLOUTS[one], add_special_tokens=False)) * 3 for one in ROLLOUTS
    )
    assert list(turns.lengths) == [len(own) for own in runs(rows[0].response_mask)]
    assert turns.ends_with_long is False


def runs(mask):
    """Runs of ones."""
    return [list(own) for value, own in itertools.groupby(mask) if value]


def test_rollouts_have_seeds_of_their_own(run):
    _, servers, _ = run(LONG, SHORT, *MEASURE, rollouts=ROLLOUTS, training=True)
    seeds = [request.params["seed"] for request in servers[Role.SHORT].forced]
    assert len(set(seeds)) == 9
    _, again, _ = run(LONG, SHORT, *MEASURE, rollouts=ROLLOUTS, training=True)
    assert seeds == [request.params["seed"] for request in again[Role.SHORT].forced]


def test_rollouts_stay_within_their_budget(run):
    more = ("long_short.importance.max_tokens=8", "long_short.importance.max_dialogue_tokens=48")
    rows, servers, _ = run(LONG, SHORT, *MEASURE, *more, rollouts=ROLLOUTS, training=True)
    assert len(servers[Role.SHORT].forced) == 6
    assert len(measured(rows[1]).replies) == 2
    assert {request.params["max_tokens"] for request in servers[Role.SHORT].forced} == {8}


@pytest.mark.parametrize(
    ("overrides", "training"),
    [((), True), (MEASURE, False), ((*MEASURE, "long_short.importance.group_share=1e-9"), True)],
)
def test_what_is_not_measured_makes_no_rollouts(run, overrides, training):
    rows, servers, _ = run(LONG, SHORT, *overrides, rollouts=ROLLOUTS, training=training)
    assert servers[Role.SHORT].forced == []
    # Where a share of groups is measured, all rows have the same fields.
    assert (MEASURED in rows[1].extra_fields[ROW]) == bool(overrides and training)
    if overrides and training:
        assert measured(rows[1]).replies == ()


def test_a_failing_rollout_ends_the_measuring_and_not_the_dialogue(run):
    rollouts = ROLLOUTS | {"0+2=2": RayActorError()}
    rows, _, _ = run(LONG, SHORT, *MEASURE, rollouts=rollouts, training=True)
    assert rows[1].extra_fields[ROW]["stop_reason"] == "answered"
    assert len(measured(rows[1]).replies) == 2


def test_where_the_short_role_opens_its_first_request_is_the_first_boundary(run):
    short = ["<answer>?</rethink>", "<answer>\\boxed{0}</answer>"]
    more = ("long_short.dialogue.opening_role=short",)
    rows, _, _ = run(LONG[:1], short, *MEASURE, *more, rollouts=ROLLOUTS, training=True)
    assert len(measured(rows[1]).replies) == 2


def test_a_long_turn_that_nobody_can_answer_is_told(run):
    rows, _, _ = run(["8+2=0"], [], *MEASURE, rollouts=ROLLOUTS, training=True)
    assert measured(rows[1]).ends_with_long is True
    assert len(measured(rows[1]).replies) == 1
