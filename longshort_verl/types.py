# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The data that flows between the stages.

Plain, frozen, keyword-only dataclasses, and enums for outcomes. Stages exchange nothing else; a dict appears only as a
row of a file or at the border of another library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum

OpenProgress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Opens a progress bar with a label and a total; gives the function that advances it by one."""


class Role(str, Enum):
    """One of the two models (paper, section 4)."""

    LONG = "long"
    SHORT = "short"

    @property
    def peer(self) -> Role:
        """The other role."""
        return Role.SHORT if self is Role.LONG else Role.LONG


class TurnKind(str, Enum):
    """The kind of a well-formed turn."""

    THOUGHT = "thought"
    """A long turn: ``<think>…</think>``."""
    RETHINK = "rethink"
    """A short turn that asks the long role for another thought: ``<answer>…</rethink>``."""
    ANSWER = "answer"
    """A short turn that ends the dialogue: ``<answer>…</answer>``."""


class FinishReason(str, Enum):
    """The reason why an engine ended a reply."""

    STOP = "stop"
    """A stop string or the end-of-turn token."""
    LENGTH = "length"
    """The token limit of the request."""
    ERROR = "error"
    """The engine failed; ``Generation.error`` holds the message."""


class StopReason(str, Enum):
    """The reason why a dialogue ended; every dialogue ends with one of these."""

    ANSWERED = "answered"
    """The short role closed its turn with ``</answer>``."""
    TURN_CAP = "turn_cap"
    """The short role asked for another thought in its last allowed turn."""
    TOKEN_BUDGET = "token_budget"
    """The dialogue's token budget ended before the turn did."""
    CONTEXT = "context"
    """The model's context, or another limit of its engine, ended before the turn and before all limits of ours."""
    TRUNCATED = "truncated"
    """A turn reached its token limit before its closing tag."""
    MALFORMED_LONG = "malformed_long"
    MALFORMED_SHORT = "malformed_short"
    ENGINE_ERROR = "engine_error"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem with its gold answer."""

    prompt: str
    answer: str
    """The gold answer, in the form that the grader reads."""
    source: str
    """Name of the data set, verl's ``data_source``."""
    index: int
    """Row in its file, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One chat message of a role's own transcript."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    content: str

    def as_dict(self) -> dict[str, str]:
        """The form that chat templates and chat-completions endpoints take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling parameters of one reply."""

    max_tokens: int
    temperature: float
    """Temperature; 0 is greedy."""
    top_p: float = 1.0
    """Probability mass of nucleus sampling."""
    stop: tuple[str, ...] = ()
    """Strings that end the reply; the matched string stays in its text."""
    seed: int | None = None
    """Seed of the request, if the engine takes one."""
    json_schema: str | None = None
    """JSON Schema, as JSON, to which the engine holds the reply; a reply that is cut need not satisfy it."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One reply of an engine."""

    text: str
    """The generated text with the stop string, without the end-of-turn token."""
    finish: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    num_cached_tokens: int | None = None
    """Prompt tokens that the engine found in its prefix cache; None if it does not report them."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """A model's likelihood of a given text."""

    log_prob: float
    """Natural logarithm of the probability of the text after the messages; 0 after an error."""
    num_prompt_tokens: int
    num_cached_tokens: int
    num_tokens: int
    """Generated tokens: one for each token of the text."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ParsedTurn:
    """A reply, parsed by the protocol."""

    kind: TurnKind | None
    """Kind of the turn; None if the reply breaks the protocol."""
    text: str
    """The turn as its peer reads it, from opening to closing tag; the raw reply if malformed."""
    body: str
    """The text between the tags, stripped; empty if malformed."""
    fault: str
    """The fault of a malformed reply, in words; empty if well formed."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a dialogue."""

    role: Role
    parsed: ParsedTurn
    raw: str
    """The reply as generated."""
    finish: FinishReason
    num_prompt_tokens: int
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """All turns on one problem, and the reason why the dialogue ended."""

    problem: Problem
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    detail: str = ""
    """Details of a fault, in words."""

    def num_tokens(self, role: Role | None = None) -> int:
        """Number of generated tokens of one role, or of both."""
        return sum(turn.num_tokens for turn in self.turns if role is None or turn.role is role)

    def num_turns(self, role: Role) -> int:
        """Number of turns of a role, including malformed ones."""
        return sum(turn.role is role for turn in self.turns)

    def num_useful_turns(self, role: Role) -> int:
        """Number of well-formed turns of a role whose body no earlier turn had, up to white space.

        A role that leaves the work to its peer (the lazy agent of Dr. MAS and ReMA) repeats itself or its peer.
        """
        earlier: set[str] = set()
        count = 0
        for turn in self.turns:
            body = " ".join(turn.parsed.body.split())
            count += turn.role is role and bool(body) and body not in earlier
            earlier.add(body)
        return count

    @property
    def num_rethinks(self) -> int:
        """Number of well-formed requests for another thought."""
        return sum(turn.parsed.kind is TurnKind.RETHINK for turn in self.turns)

    @property
    def answer_text(self) -> str:
        """Body of the answering turn; empty if no turn answers."""
        return self.turns[-1].parsed.body if self.stop_reason is StopReason.ANSWERED else ""


@dataclass(frozen=True, kw_only=True)
class Grade:
    """The grade of one answer."""

    correct: bool
    extracted: str | None
    """The extracted answer as text; None without an answer."""
    reason: str = ""
    """The reason of a failure to grade: no answer, too long, out of time, …"""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A reward and its terms."""

    total: float
    """Sum of ``weight · value`` over the terms."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Unweighted value of each term by name."""


@dataclass(frozen=True, kw_only=True)
class Thought:
    """A contiguous piece of a chain of thought with one purpose."""

    text: str
    """With the white space after it."""
    kind: str
    """Its purpose, in the chunker's words; ``""`` if the chunker names none."""
    num_steps: int
    """Steps in it, at least 1."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Graded rollouts after one prefix."""

    num_right: int = 0
    num_rollouts: int = 0
    num_tokens: int = 0
    """Generated tokens of the rollouts."""

    @property
    def mean(self) -> float:
        """Share of right rollouts; 0 without rollouts."""
        return self.num_right / max(1, self.num_rollouts)

    @property
    def spread(self) -> float:
        """Standard deviation of the value's posterior under a uniform prior."""
        right, wrong = self.num_right + 1, self.num_rollouts - self.num_right + 1
        total = right + wrong
        return math.sqrt(right * wrong / (total * total * (total + 1)))


@dataclass(frozen=True, kw_only=True)
class Value:
    """Estimate of p_i, the probability of a right answer after thoughts 1 … i."""

    num_right: int
    num_rollouts: int
    """All rollouts; 0 if the value is interpolated."""
    mean: float
    """The estimate: the share of right rollouts, unless pooled or interpolated."""
    low: float
    high: float
    """Ends of its interval."""
    response_tokens: float | None = None
    """Mean tokens of the responses in its rollouts; None without rollouts."""


class Decision(str, Enum):
    """By what the pruned plan decided whether a thought raises the running maximum of its chain's importance."""

    BOUND = "bound"
    """By the bound log2(1 + T1 · T2), without a rollout."""
    INTERVAL = "interval"
    """By the interval of its value, before the full number of rollouts."""
    ROLLOUTS = "rollouts"
    """By the full number of rollouts."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance metric M of one thought or turn."""

    score: float
    """M_i."""
    low: float
    high: float
    """Ends of the interval of ``score``."""
    gain: float
    """p_i − p_{i−1}."""
    decay: float
    """Factor of the gain, 1 in metrics without decay; in the paper's metric T1 · T2, the factor of the accuracy."""
    length_share: float
    """Share of the chain's tokens in this thought."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an engine spent."""

    num_rollouts: int = 0
    """Rollouts, the restart control's included."""
    num_tokens: int = 0
    """Generated tokens, the pre-screen's included."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens that the engine found in its prefix cache."""
    num_uncounted: int = 0
    """Requests without a cache count from the engine."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def hit_rate(self) -> float | None:
        """Share of cached prompt tokens; None if the engine does not report it."""
        if self.num_uncounted or not self.num_prompt_tokens:
            return None
        return self.num_cached_tokens / self.num_prompt_tokens


class ChainOutcome(str, Enum):
    """The last stage that a chain of thought passed, or why a stage rejected it."""

    READ = "read"
    """It has a problem, an answer and a text."""
    NOT_UTF8 = "not utf-8"
    NOT_JSON = "not json"
    """Its row is not a JSON object."""
    MISSING = "missing field"
    """Its row lacks a field, or a field is invalid."""
    RIGHT = "right"
    """Sampled: it ends with the right answer in a box."""
    WRONG = "wrong"
    """Sampled: it ends without the right answer in a box."""
    TRUNCATED = "truncated"
    """Sampled: it reached its token limit."""
    CHUNKED = "chunked"
    EMPTY = "empty"
    ONLY_TAGS = "only tags"
    """It has no text except tags such as ``<think>``."""
    BAD_REPLY = "no usable reply"
    """No reply of the chunking model was usable."""
    SCORED = "scored"
    """Every thought has an importance."""
    NO_THOUGHT = "no thought"
    """Its thinking ends before the first thought."""
    BAD_GOLD = "bad gold answer"
    """The gold answer cannot be parsed: no rollout could be right."""
    TOO_LONG = "too long"
    """It leaves no room for a rollout in the model's context."""
    ENGINE_ERROR = "engine error"
    """The engine failed. The journal keeps finished requests, and the next run resumes."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A chain of thought on one problem; every stage fills in more of it."""

    key: str
    """Name, unique in a file."""
    outcome: ChainOutcome
    detail: str = ""
    """The reason of a rejection, in words."""
    problem: Problem | None = None
    """The problem; None if the row is unreadable."""
    text: str = ""
    """The whole chain, its answer included."""
    thoughts: tuple[Thought, ...] = ()
    """The thoughts. They concatenate to ``text``; in a scored chain, to its thinking."""
    lengths: tuple[int, ...] = ()
    """Tokens of each thought, at least 1."""
    values: tuple[Value, ...] = ()
    """Values after 0, 1, …, n thoughts."""
    likelihoods: tuple[float, ...] = ()
    """Likelihood of the gold answer after 0, 1, …, n thoughts; empty without pre-screen."""
    restarts: Mapping[int, Counts] = field(default_factory=dict)
    """Rollouts of the restart control by boundary."""
    scores: tuple[Importance, ...] = ()
    """Importance of each thought."""
    decisions: tuple[Decision, ...] = ()
    """By what each thought was decided; empty unless the plan was pruned. Values without rollouts are then unknown."""
    agreement: float | None = None
    """F1 of its thought boundaries against those in its file; None if the file has none."""
    cost: Cost | None = None
    """What the stage spent on it; not read from files."""
