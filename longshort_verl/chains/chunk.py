# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""A chain of thought as thoughts: contiguous pieces with one purpose each.

A chain is cut into steps at its blank lines; a thought is a run of steps. Thoughts always concatenate to the chain,
byte for byte. Three chunkers: ``steps`` (each step a thought), ``rules`` (discourse markers and equations, no model),
``llm`` (a model names blocks of steps, as the paper's authors had it; the prompt is of our own writing).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from longshort_verl.generation.base import Generator
from longshort_verl.types import FinishReason, Message, Sampling

UNASSIGNED = "unassigned"
"""Kind of the thought that holds the steps after a model's last block."""


class Chunker(str, Enum):
    """How steps become thoughts."""

    LLM = "llm"
    """A model names blocks."""
    RULES = "rules"
    """Discourse markers and equations."""
    STEPS = "steps"
    """Each step a thought."""


class ChunkOutcome(str, Enum):
    """How the chunking of a trace ended."""

    CHUNKED = "chunked"
    """There are thoughts."""
    EMPTY = "empty"
    """The trace has no text."""
    ONLY_TAGS = "only tags"
    """Nothing is left of the trace without tags such as ``<think>``."""
    BAD_REPLY = "no usable reply"
    """The model's replies could not be used, as often as it was asked."""
    ENGINE_ERROR = "engine error"
    """The model could not be asked."""


@dataclass(frozen=True, kw_only=True)
class Thought:
    """A run of steps."""

    text: str
    """With the white space that follows it."""
    kind: str
    """What it is for, in the chunker's words; ``""`` where the chunker gives none."""
    num_steps: int
    """Steps in it, at least 1."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Steps ``first`` to ``last`` (from 1, both included), as a model named them."""

    first: int
    last: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Chunked:
    """The thoughts of one trace, or why there are none."""

    outcome: ChunkOutcome
    thoughts: tuple[Thought, ...] = ()
    detail: str = ""
    """What was the matter, for people."""
    num_attempts: int = 0
    """How often a model was asked."""
    num_tokens: int = 0
    """Tokens that the model wrote."""


@dataclass(frozen=True, kw_only=True)
class ChunkSettings:
    """How traces are chunked. No defaults here: they live in ``longshort_verl/config``."""

    chunker: Chunker
    """Which chunker."""
    min_steps: int
    """``rules``: fewest steps of a thought, except the first and the last."""
    max_attempts: int
    """``llm``: how often a model is asked about one trace."""
    max_tokens: int
    """``llm``: most tokens of one reply."""
    temperature: float
    """``llm``: of the first attempt; asking again at 0 would give the same reply, so later ones use at least 0.5."""

    def __post_init__(self) -> None:
        for name in ("min_steps", "max_attempts", "max_tokens"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"chunking: {name} is {value!r}; give at least 1")
        if self.temperature < 0:
            raise ValueError(f"chunking: temperature is {self.temperature!r}; give at least 0")


class BlockError(ValueError):
    """A model's blocks cannot be used; the message says why, in words that the model can be told."""


# --- steps ----------------------------------------------------------------------------------------------------------

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_TAG = re.compile(r"</?[A-Za-z_|][^<>\n]{0,40}>")


def split_steps(trace: str) -> list[str]:
    """The steps of a trace, each with the white space after it; they concatenate to the trace.

    A step ends at a blank line, whatever white space stands in it. Empty where the trace has nothing but white space.
    """
    if not trace.strip():
        return []
    begins = len(trace) - len(trace.lstrip())  # white space before the first step belongs to it
    cuts = [0, *(gap.end() for gap in _BLANK_LINE.finditer(trace, begins)), len(trace)]
    return [trace[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def by_steps(steps: Sequence[str]) -> list[Thought]:
    """Each step a thought, of the kind that its opening words say."""
    return [
        Thought(text=step, kind=_kind(step) or ("equation" if _is_equation(step) else "statement"), num_steps=1)
        for step in steps
    ]


# --- rules ----------------------------------------------------------------------------------------------------------

_LEAD = r"(?:<[^<>]*>\s*)?(?:(?:so|okay|ok|alright|now|and|but|well|hmm|yes|yeah|great|good|perfect)[,.]?\s+)*"
_LET = (
    r"(?:let me|let's|let us|i(?:'ll| will| should| need to| want to| can)?)\s+(?:just\s+|also\s+|quickly\s+|now\s+)?"
)
_MARKERS = {
    "conclusion": [
        r"\**final answer",
        r"(?:therefore|thus|hence|so),? the (?:final )?answer",
        r"(?:the )?(?:final )?answer is",
        r"in conclusion",
        r"to summarize",
    ],
    "verification": [
        rf"(?:wait,?\s+)?{_LET}(?:double[- ]?check|re-?check|verify|check|confirm|make sure|test)",
        r"to (?:verify|check|confirm)",
        r"(?:double[- ]?)?check(?:ing)?\b",
        r"verif",
    ],
    "alternative": [
        r"alternatively",
        r"another (?:way|approach|method|idea)",
        r"or maybe",
        r"instead,",
        rf"{_LET}(?:try|think of) (?:another|a different|an alternative)",
    ],
    "reflection": [r"wait\b", r"hold on", r"actually,", r"hmm\b", r"no,"],
    "planning": [
        r"first(?:ly)?,",
        r"to (?:find|solve|do|get|compute|determine)",
        rf"{_LET}(?:start|begin|recall|think|see|consider|try|break)",
        r"the (?:key|idea|goal)",
        r"my (?:plan|approach)",
    ],
    "continuation": [r"(?:next|then|moving on|similarly|finally|second(?:ly)?|third(?:ly)?)\b"],
}
"""Kinds of thoughts and how their first step begins; the first that fits counts."""
_OPENINGS = {kind: re.compile(f"{_LEAD}(?:{'|'.join(patterns)})", re.IGNORECASE) for kind, patterns in _MARKERS.items()}
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def by_rules(steps: Sequence[str], min_steps: int) -> list[Thought]:
    """Thoughts that begin where a step opens with a discourse marker.

    A step that the one before introduces (it ends in a colon or a comma) and one that is an equation go on with what
    was begun. What follows ``</think>`` is a thought of its own. A thought has at least ``min_steps`` steps, except the
    first and the last.
    """
    starts, kinds = [0], [_kind(steps[0]) or "understanding"]
    for i in range(1, len(steps)):
        if steps[i - 1].rstrip().endswith("</think>"):
            kind = "write-up"
        elif steps[i - 1].rstrip().endswith((":", ",")) or _is_equation(steps[i]) or i - starts[-1] < min_steps:
            continue
        else:
            kind = _kind(steps[i])
        if kind is not None:
            starts.append(i)
            kinds.append(kind)
    return [
        Thought(text="".join(steps[start:end]), kind=kind, num_steps=end - start)
        for start, end, kind in zip(starts, [*starts[1:], len(steps)], kinds, strict=True)
    ]


def _kind(step: str) -> str | None:
    opening = step.lstrip()[:200]
    return next((kind for kind, pattern in _OPENINGS.items() if pattern.match(opening)), None)


def _is_equation(step: str) -> bool:
    """Whether a step is mathematics with hardly a word."""
    return ("=" in step or "\\" in step) and len(_WORD.findall(step)) <= 3


# --- a model --------------------------------------------------------------------------------------------------------

_SYSTEM = """You divide a worked solution into its thoughts. A thought is a run of neighbouring steps that serve one \
purpose, for example understanding the problem, planning, a derivation, solving for one quantity, checking a result, \
trying another way, or stating the answer. Prefer few, broad thoughts to many small ones.

Reply with JSON alone, no other text: a list of objects with "first" and "last" (numbers of the first and the last \
step of the thought) and "kind" (two to four words). The first thought begins at step 1; every other one begins right \
after the one before ends."""


def chunk_messages(problem: str, steps: Sequence[str]) -> list[Message]:
    """What a model is asked."""
    numbered = "\n\n".join(f"Step {i}: {step.strip()}" for i, step in enumerate(steps, start=1))
    content = f"Problem:\n{problem}\n\nSolution of {len(steps)} steps:\n\n{numbered}"
    return [Message(role="system", content=_SYSTEM), Message(role="user", content=content)]


def read_blocks(reply: str, num_steps: int) -> list[Block]:
    """The blocks of a model's reply, which may have prose or a code fence around its JSON.

    Also read is the form of the paper's authors, ``{"block 1": {"start": 1, "end": 4, "block type": …}, …}``.

    Raises:
        BlockError: there is no JSON with blocks, or they have gaps, overlaps, reversed or out-of-range steps.
    """
    rows = _find_rows(reply)
    blocks: list[Block] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BlockError(f"block {number} is not an object")
        first, last = (next((row[key] for key in keys if key in row), None) for keys in _KEYS)
        if type(first) is not int or type(last) is not int:
            raise BlockError(f"block {number} has {first!r} and {last!r} for its first and last step; give integers")
        kind = next((row[key] for key in ("kind", "block type", "type") if isinstance(row.get(key), str)), "")
        expected = blocks[-1].last + 1 if blocks else 1
        if last < first:
            raise BlockError(f"block {number} is reversed: steps {first} to {last}")
        if first < 1 or last > num_steps:
            raise BlockError(f"block {number} is out of range: steps {first} to {last} of {num_steps}")
        if first != expected:
            word = "a gap" if first > expected else "an overlap"
            raise BlockError(f"{word} before block {number}: it begins at step {first}, not at {expected}")
        blocks.append(Block(first=first, last=last, kind=" ".join(kind.split())[:80]))
    return blocks


_KEYS = (("first", "start"), ("last", "end"))
_OPENING = re.compile(r"[\[{]")
_MAX_OPENINGS = 200


def _find_rows(reply: str) -> list:
    """The first JSON value in ``reply`` that holds blocks."""
    decoder = json.JSONDecoder()
    for number, found in enumerate(_OPENING.finditer(reply)):
        if number == _MAX_OPENINGS:
            break
        try:
            value, _ = decoder.raw_decode(reply, found.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            nested = [row for row in value.values() if isinstance(row, dict)]
            lists = [rows for rows in value.values() if isinstance(rows, list)]
            rows = nested or (lists[0] if len(lists) == 1 else [value])
        else:
            rows = value
        if rows and all(isinstance(row, dict) and any(key in row for key in _KEYS[0]) for row in rows):
            return rows
    raise BlockError("there is no JSON list of blocks in the reply")


def by_blocks(steps: Sequence[str], blocks: Sequence[Block]) -> list[Thought]:
    """Thoughts from blocks; steps after the last block are one thought of the kind UNASSIGNED."""
    ends = [(block.last, block.kind) for block in blocks]
    if ends[-1][0] < len(steps):
        ends.append((len(steps), UNASSIGNED))
    thoughts, start = [], 0
    for end, kind in ends:
        thoughts.append(Thought(text="".join(steps[start:end]), kind=kind, num_steps=end - start))
        start = end
    return thoughts


# --- all ------------------------------------------------------------------------------------------------------------


async def chunk(
    trace: str, settings: ChunkSettings, *, problem: str = "", generator: Generator | None = None
) -> Chunked:
    """The thoughts of one trace.

    Never raises for any trace or reply; ValueError where ``llm`` is asked for without a generator.
    """
    steps = split_steps(trace)
    if not steps:
        return Chunked(outcome=ChunkOutcome.EMPTY)
    if not _TAG.sub("", trace).strip():
        return Chunked(outcome=ChunkOutcome.ONLY_TAGS)
    if settings.chunker is Chunker.STEPS:
        return Chunked(outcome=ChunkOutcome.CHUNKED, thoughts=tuple(by_steps(steps)))
    if settings.chunker is Chunker.RULES:
        return Chunked(outcome=ChunkOutcome.CHUNKED, thoughts=tuple(by_rules(steps, settings.min_steps)))
    if generator is None:
        raise ValueError("chunking: the chunker llm needs a model; name one, or use rules")
    return await _ask(steps, settings, problem, generator)


async def _ask(steps: Sequence[str], settings: ChunkSettings, problem: str, generator: Generator) -> Chunked:
    sampling = Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature)
    num_tokens, detail = 0, ""
    for attempt in range(1, settings.max_attempts + 1):
        reply = await generator.generate(chunk_messages(problem, steps), sampling)
        num_tokens += reply.num_tokens
        if reply.finish is FinishReason.ERROR:
            return Chunked(
                outcome=ChunkOutcome.ENGINE_ERROR,
                detail=reply.error or "",
                num_attempts=attempt,
                num_tokens=num_tokens,
            )
        try:
            thoughts = by_blocks(steps, read_blocks(reply.text, len(steps)))
        except BlockError as error:
            detail = str(error)
            sampling = replace(sampling, temperature=max(settings.temperature, 0.5))
            continue
        return Chunked(
            outcome=ChunkOutcome.CHUNKED, thoughts=tuple(thoughts), num_attempts=attempt, num_tokens=num_tokens
        )
    return Chunked(
        outcome=ChunkOutcome.BAD_REPLY, detail=detail, num_attempts=settings.max_attempts, num_tokens=num_tokens
    )


def boundary_f1(found: Sequence[int], expected: Sequence[int], slack: int = 1) -> float:
    """Agreement of two lists of boundaries (step numbers): F1, each matched once to one at most ``slack`` away."""
    left = sorted(expected)
    hits = 0
    for boundary in sorted(found):
        match = next((other for other in left if abs(other - boundary) <= slack), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return 2 * hits / (len(found) + len(expected)) if found or expected else 1.0
