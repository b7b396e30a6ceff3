# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Cuts a chain of thought into thoughts: contiguous pieces with one purpose each (paper, section 4.1).

A chain is split into steps at its blank lines; a thought is a run of steps. The thoughts concatenate to the chain, byte
for byte. Three chunkers: ``steps`` (each step is a thought), ``rules`` (discourse markers and equations, no model) and
``llm`` (a model names blocks of steps, as in the paper; the prompt is ours).
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from enum import Enum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from longshort_verl.generation.base import Generator
from longshort_verl.types import Chain, ChainOutcome, Cost, FinishReason, Generation, Message, Sampling, Thought

UNASSIGNED = "unassigned"
"""Kind of the thought that holds the steps after the model's last block."""


class Chunker(str, Enum):
    """How steps become thoughts."""

    LLM = "llm"
    """A model names blocks."""
    RULES = "rules"
    """Discourse markers and equations."""
    STEPS = "steps"
    """Each step is a thought."""


@plain_dataclass(frozen=True, kw_only=True)
class Block:
    """Steps ``first`` to ``last``, counted from 0, both included."""

    first: int
    last: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class ChunkSettings:
    """How chains are cut into thoughts. The defaults are in ``config/longshort_importance.yaml``."""

    chunker: Chunker
    min_chars: Annotated[int, Field(ge=1)]
    """``rules``: fewest characters between two thoughts that discourse markers begin, in a long chain."""
    max_attempts: Annotated[int, Field(ge=1)]
    """``llm``: requests to the model for one chain."""
    max_tokens: Annotated[int, Field(ge=1)]
    """``llm``: token limit of one reply."""
    temperature: Annotated[float, Field(ge=0)]
    """``llm``: of the first attempt. Later attempts use at least 0.5: at 0 the model would repeat its reply."""
    structured: bool
    """``llm``: whether the engine holds the reply to the JSON that is asked for."""


class BlockError(ValueError):
    """A model's blocks are unusable; the message gives the reason."""


# --- steps ----------------------------------------------------------------------------------------------------------

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_TAG = re.compile(r"</?[A-Za-z_|][^<>\n]{0,40}>")


def split_steps(trace: str) -> list[str]:
    """The steps of a chain, each with the white space after it; they concatenate to the chain.

    A step ends at a blank line, which may hold white space. A chain of white space alone has no steps.
    """
    if not trace.strip():
        return []
    begins = len(trace) - len(trace.lstrip())  # white space before the first step belongs to it
    cuts = [0, *(gap.end() for gap in _BLANK_LINE.finditer(trace, begins)), len(trace)]
    return [trace[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def by_steps(steps: Sequence[str]) -> list[Thought]:
    """Each step as a thought; its opening words give its kind."""
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
        r"to (?:find|solve|do|get|compute|calculate|determine)",
        rf"{_LET}(?:start|begin|recall|think|see|consider|try|break)",
        r"the (?:key|idea|goal)",
        r"my (?:plan|approach)",
    ],
    "continuation": [r"(?:next|then|after that|moving on|similarly|finally|lastly|second(?:ly)?|third(?:ly)?)\b"],
}
"""Kinds of thoughts and how they begin; the first match counts."""
_OPENINGS = {kind: re.compile(f"{_LEAD}(?:{'|'.join(patterns)})", re.IGNORECASE) for kind, patterns in _MARKERS.items()}
_TURN = re.compile(r"(?:now|alright|okay|ok)\b", re.IGNORECASE)
"""Turns to a new part; the kind is SUBGOAL where no marker of _MARKERS follows."""
_LOCAL = re.compile(r"(?:but\s+)?(?:wait|hmm|hold on|actually|no)\b", re.IGNORECASE)
SUBGOAL, STEP, WRITE_UP, UNDERSTANDING = "subgoal", "step", "write-up", "understanding"
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")

_BREAK = re.compile(r"\n(?:[^\S\n]*\n)*")
_SENTENCE = re.compile(
    r"[.!?][)\]\"'*]*[^\S\n]+"
    r"(?=(?:First|Second|Third|Next|Then|After that|Lastly|Finally)\b|\**Step \d|\d\d?[.)] +[*A-Z])"
)
"""The end of a sentence before a word of order, as in "First, … Next, …" on one line."""
_FORMULA = re.compile(r"\s*(?:\\\[|\$\$|\\begin\{)")
_CAPITAL = re.compile(r"[^\S\n]*(?=[A-Z])")
_MARK = re.compile(r"(?<!\\)\\[\[\]]|\$\$|^[^\S\n]*```|\\(begin|end)\{([^{}\n]*)\}", re.MULTILINE)
_HEADING = re.compile(
    r"\s*(?:#{1,6}\s+\S|\*\*[^*\n]{1,80}\*\*:?\s*$|\**(?:step|part|stage|phase)\s+\d+\s*(?:[:.)*–—-]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBERED = re.compile(r"(\s*)\**(\d{1,2})[.)]\**\s+\S")
_BULLET = re.compile(r"\s*(?:[-*+•]\s|\d{1,2}[.)]\s)")
_SHARE_OF_STEPS = 0.4
"""A numbered list over at least this share of the chain counts its steps; a shorter one is a list within a thought."""


def split_lines(text: str) -> list[str]:
    """The lines of a chain, each with the white space after it; they concatenate to the chain.

    A line also ends before a word of order ("First", "Next", "Step 2") and after a display formula. It holds display
    formulas, code blocks and LaTeX environments whole.
    """
    begins = len(text) - len(text.lstrip())
    ends = {gap.end() for pattern in (_BREAK, _SENTENCE) for gap in pattern.finditer(text, begins)}
    whole = _whole(text)
    # A sentence after a formula, as in "\\[ x = 1 \\] Then …", begins a line too.
    ends |= {gap.end() for _, end in whole if (gap := _CAPITAL.match(text, end))}
    whole.append((len(text), len(text)))
    cuts, region = [0], 0
    for end in sorted(ends - {len(text)}):
        while whole[region][1] <= end < len(text):
            region += 1
        if end <= whole[region][0]:
            cuts.append(end)
    return [text[start:end] for start, end in itertools.pairwise([*cuts, len(text)]) if start < end]


def _whole(text: str) -> list[tuple[int, int]]:
    """Spans of the display formulas, code blocks and environments, in order; one without an end is none."""
    marks = list(_MARK.finditer(text))
    ends: dict[int, int] = {}  # of the mark that opens a span: the mark that closes it
    opened: dict[str, list[int]] = {}
    for number, mark in enumerate(marks):
        sign = (mark[2] or "") + mark[0].strip().removeprefix(f"\\{mark[1]}")
        if sign == "\\[" or mark[1] == "begin":
            opened.setdefault(sign, []).append(number)
        elif stack := opened.get("\\[" if sign == "\\]" else sign):
            ends[stack.pop()] = number
        elif sign in ("$$", "```"):
            opened[sign] = [number]
    spans: list[tuple[int, int]] = []
    for number in sorted(ends):
        if not spans or marks[number].start() >= spans[-1][1]:
            spans.append((marks[number].start(), marks[ends[number]].end()))
    return spans


def by_rules(text: str, min_chars: int) -> list[Thought]:
    """Thoughts that begin at headings and numbered steps, at discourse markers, and at lines far from both.

    A heading, an item of the list that counts the chain's steps, and the text after ``</think>`` always begin a
    thought. Other lines do, strongest marker first, if no thought begins within ``min_chars`` characters (without a
    marker: within four times as many); outside numbered steps, a chain shorter than 20 times ``min_chars`` has a
    smaller distance. A formula never begins a thought, nor does the line after a heading, a colon or a comma.
    """
    lines = split_lines(text)
    starts = [0, *itertools.accumulate(map(len, lines))]
    end = next((i + 1 for i, line in enumerate(lines) if line.rstrip().endswith("</think>")), len(lines))
    headings = {i for i in range(end) if _HEADING.match(lines[i])}
    steps = headings | _numbered_steps(lines[:end], starts)
    kinds = {i: _kind(lines[i]) or STEP for i in steps if i - 1 not in headings or not _is_title(lines[i - 1])}
    kinds.setdefault(0, _kind(lines[0]) or UNDERSTANDING)
    weak: list[tuple[int, int, str]] = []  # minus the strength, the line, its kind
    for i in range(1, end):
        line, before = lines[i], lines[i - 1]
        if i in steps or i - 1 in headings or before.rstrip().endswith((":", ",")):
            continue
        if _is_equation(line) or _FORMULA.match(line):
            continue
        kind, opening = _kind(line), line.lstrip()
        if kind is not None:
            local = _LOCAL.match(opening) or (kind in _WEAK and not _TURN.match(opening))
            weak.append((-2 if local else -3, i, kind))
        elif opening == line and not _BULLET.match(line):
            paragraph = before.count("\n", len(before.rstrip())) > 1
            weak.append((-1 if paragraph else 0, i, STEP))
    placed = sorted(starts[i] for i in kinds)
    for strength, i, kind in sorted(weak):
        near, far = min_chars, 4 * min_chars
        if len(steps) < 2 or not min(steps) < i < max(steps):
            near, far = min(near, starts[end] / 20), min(far, starts[end] / 8)
        place = bisect.bisect(placed, starts[i])
        if all(
            abs(starts[i] - other) >= (near if strength < -1 else far)
            for other in placed[max(0, place - 1) : place + 1]
        ):
            placed.insert(place, starts[i])
            kinds[i] = kind
    if end < len(lines):
        kinds[end] = WRITE_UP
    begins = sorted(kinds)
    begins = [i for n, i in enumerate(begins) if not n or kinds[i] not in _MERGED or kinds[begins[n - 1]] != kinds[i]]
    return [
        Thought(text="".join(lines[start:stop]), kind=kinds[start], num_steps=stop - start)
        for start, stop in itertools.pairwise([*begins, len(lines)])
    ]


_WEAK = ("planning", "continuation", "reflection")
_MERGED = ("verification", "conclusion")
"""Kinds that go on where the next thought has the same kind."""


def _numbered_steps(lines: Sequence[str], starts: Sequence[int]) -> set[int]:
    """First lines of the items of the numbered lists that count the chain's steps."""
    lists: list[list[int]] = []
    opened: dict[int, list[int]] = {}  # by indentation
    for i, line in enumerate(lines):
        if match := _NUMBERED.match(line):
            items = opened.get(len(match[1]), [])
            if int(match[2]) == 1:
                opened[len(match[1])] = items = []
                lists.append(items)
            if int(match[2]) == len(items) + 1:
                items.append(i)
    steps: set[int] = set()
    for items in lists:
        span = (starts[items[-1]] - starts[items[0]]) * len(items) / max(1, len(items) - 1)
        nested = steps and min(steps) < items[0] < max(steps)
        if span >= _SHARE_OF_STEPS * starts[len(lines)] and not nested:
            steps.update(items)
    return steps


def _is_title(line: str) -> bool:
    """Whether a heading has no text of its own after it, as "## Solution" before "### Step 1"."""
    return line.lstrip().startswith("#") or line.rstrip().endswith(("**", ":"))


def _kind(line: str) -> str | None:
    opening = _PREFIX.sub("", line[:200])
    kind = next((kind for kind, pattern in _OPENINGS.items() if pattern.match(opening)), None)
    if kind is None and "\\boxed" in line:
        kind = "conclusion"
    return kind or (SUBGOAL if _TURN.match(opening) else None)


_PREFIX = re.compile(r"^(?:\s|#|\*|\d{1,2}[.)]|step \d+[:.)]?)+", re.IGNORECASE)


def _is_equation(step: str) -> bool:
    """Whether a step is mathematics with at most three words."""
    return ("=" in step or "\\" in step) and len(_WORD.findall(step)) <= 3


def boundaries(thoughts: Sequence[Thought]) -> list[int]:
    """Number of steps (of lines, in a chain of one step) before each thought but the first.

    A thought that begins within a step counts that step as before it.
    """
    text = "".join(thought.text for thought in thoughts)
    units = split_steps(text)
    starts = list(itertools.accumulate(map(len, units if len(units) > 1 else split_lines(text)), initial=0))
    begins = list(itertools.accumulate(len(thought.text) for thought in thoughts))[:-1]
    return [bisect.bisect_left(starts, begin) for begin in begins]


# --- a model --------------------------------------------------------------------------------------------------------

# The paper gives the content (appendix A.2: a teacher, the problem, steps numbered from 0, blocks of consecutive steps
# with a broad type, JSON alone); the wording is ours.
_SYSTEM = """You divide a worked solution into its thoughts. A thought is a run of neighbouring steps that serve one \
purpose, for example understanding the problem, planning, a derivation, solving for one quantity, checking a result, \
trying another way, or stating the answer. Prefer few, broad thoughts to many small ones.

The steps are numbered from 0. Reply with JSON alone, no other text: a list of objects with "first" and "last" \
(numbers of the first and the last step of the thought) and "kind" (two to four words). The first thought begins at \
step 0; every other one begins right after the one before ends."""


def chunk_messages(problem: str, steps: Sequence[str], fault: str = "") -> list[Message]:
    """The request to the model; ``fault`` is the fault of its last reply."""
    numbered = "\n\n".join(f"Step {i}: {step.strip()}" for i, step in enumerate(steps))
    content = f"Problem:\n{problem}\n\nSolution, steps 0 to {len(steps) - 1}:\n\n{numbered}"
    if fault:
        content += f"\n\nAn earlier reply was unusable: {fault}."
    return [Message(role="system", content=_SYSTEM), Message(role="user", content=content)]


def reply_schema(num_steps: int) -> str:
    """JSON Schema of a reply. It cannot say that blocks follow each other without gaps; :func:`read_blocks` does."""
    step = {"type": "integer", "minimum": 0, "maximum": num_steps - 1}
    fields = {"first": step, "last": step, "kind": {"type": "string", "minLength": 1, "maxLength": 60}}
    block = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return json.dumps({"type": "array", "items": block, "minItems": 1, "maxItems": num_steps})


def read_reply(reply: Generation, num_steps: int) -> list[Block]:
    """The blocks of a model's reply: JSON that parses as a whole, with prose or one code fence around it.

    Only the text after ``</think>`` is the reply. Steps are numbered from 0, as in the request.

    Raises:
        BlockError: the reply is cut or only thinking, its JSON is missing or broken, or :func:`read_blocks` raises.
    """
    if reply.finish is FinishReason.LENGTH:
        raise BlockError(f"the reply is cut at its limit of {reply.num_tokens} tokens")
    text = reply.text.rpartition("</think>")[2].partition("<think>")[0]
    if not text.strip() and reply.text.strip():
        raise BlockError("the reply is only thinking")
    fenced = _FENCED.findall(text)
    if len(fenced) > 1:
        raise BlockError(f"the reply has {len(fenced)} code blocks; give one")
    text = fenced[0] if fenced else text
    first, last = _OPENING.search(text), max(text.rfind("]"), text.rfind("}"))
    if first is None:
        raise BlockError("the reply has no JSON")
    try:
        value = json.loads(text[first.start() : last + 1], object_pairs_hook=_unique)
    except RecursionError:
        raise BlockError("the JSON is broken: it is nested too deeply") from None
    except ValueError as error:
        raise BlockError(f"the JSON is broken: {error}") from None
    return read_blocks(value, num_steps, first_step=0)


_FENCED = re.compile(r"```[a-zA-Z]*(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[\[{]")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of ``pairs``; a repeated key raises, where :mod:`json` would keep its last value in silence."""
    if len(value := dict(pairs)) < len(pairs):
        raise ValueError("a key is repeated")
    return value


def read_blocks(value: object, num_steps: int, first_step: int | None = None) -> list[Block]:
    """Blocks from parsed JSON: a list of objects, an object that holds one list, or the form of the paper's authors.

    The authors' form is ``{"block 1": {"start": 1, "end": 4, "block type": …}, …}``. Their paper numbers steps from 0,
    their code and their published chain from 1 (block_generate.py). ``first_step`` is the number of the first step;
    None takes it from the first block, which must begin there.

    Raises:
        BlockError: there are no blocks, a block has no kind, or there are gaps, overlaps, reversed or unknown steps.
    """
    rows = _rows(value)
    if first_step is None:
        start = _field(rows[0], _KEYS[0]) if isinstance(rows[0], dict) else None
        first_step = 0 if start in (0, "0") else 1
    blocks: list[Block] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BlockError(f"block {number} is not an object")
        first, last = (_field(row, keys) for keys in _KEYS)
        if type(first) is not int or type(last) is not int:
            raise BlockError(f"block {number} has {first!r} and {last!r} for its first and last step; give integers")
        expected = blocks[-1].last + 1 + first_step if blocks else first_step
        highest = num_steps - 1 + first_step
        if last < first:
            raise BlockError(f"block {number} is reversed: steps {first} to {last}")
        if first < first_step or last > highest:
            message = f"steps {first} to {last}, but the steps are {first_step} to {highest}"
            raise BlockError(f"block {number} is out of range: {message}")
        if first != expected:
            word = "a gap" if first > expected else "an overlap"
            raise BlockError(f"{word} before block {number}: it begins at step {first}, not at {expected}")
        kind = _field(row, ("kind", "block type", "block_type", "type"))
        if not isinstance(kind, str) or not kind.strip():
            raise BlockError(f"block {number} has no kind")
        kind = " ".join(kind.split())[:80].encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
        blocks.append(Block(first=first - first_step, last=last - first_step, kind=kind))
    return blocks


_KEYS = (("first", "start"), ("last", "end"))
_DIGITS = re.compile(r"[0-9]{1,9}")


def _field(row: dict, names: Sequence[str]) -> object:
    """The first field of ``names``; a number in quotes, as the authors' prompt shows it, counts as a number."""
    value = next((row[name] for name in names if name in row), None)
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _rows(value: object) -> list:
    rows = value
    if isinstance(value, dict):
        rows = list(value.values())
        lists = [row for row in rows if isinstance(row, list)]
        if any(key in value for key in _KEYS[0]):
            rows = [value]
        elif len(lists) == 1 and not any(isinstance(row, dict) for row in rows):
            (rows,) = lists
    if not isinstance(rows, list) or not any(isinstance(row, dict) for row in rows):
        raise BlockError("the JSON has no blocks")
    return rows


def by_blocks(steps: Sequence[str], blocks: Sequence[Block]) -> list[Thought]:
    """Thoughts from blocks; steps after the last block form one thought of kind UNASSIGNED, as the authors accept."""
    end = blocks[-1].last + 1
    rest = [Block(first=end, last=len(steps) - 1, kind=UNASSIGNED)] if end < len(steps) else []
    return [
        Thought(
            text="".join(steps[block.first : block.last + 1]), kind=block.kind, num_steps=block.last - block.first + 1
        )
        for block in [*blocks, *rest]
    ]


# --- all ------------------------------------------------------------------------------------------------------------


async def chunk(chain: Chain, settings: ChunkSettings, generator: Generator | None = None) -> Chain:
    """The chain with its thoughts, or with the reason why it has none; never raises for any text or reply.

    Raises:
        ValueError: the chunker is ``llm`` and there is no generator.
    """
    chain = replace(chain, outcome=ChainOutcome.CHUNKED, detail="")
    steps = split_steps(chain.text)
    if not steps:
        return replace(chain, outcome=ChainOutcome.EMPTY)
    if not _TAG.sub("", chain.text).strip():
        return replace(chain, outcome=ChainOutcome.ONLY_TAGS)
    if settings.chunker is Chunker.STEPS:
        return replace(chain, thoughts=tuple(by_steps(steps)))
    if settings.chunker is Chunker.RULES:
        return replace(chain, thoughts=tuple(by_rules(chain.text, settings.min_chars)))
    if generator is None:
        raise ValueError("chunk.chunker=llm needs a model; name one, or set chunk.chunker=rules")
    return await _ask(chain, steps, settings, generator)


async def _ask(chain: Chain, steps: Sequence[str], settings: ChunkSettings, generator: Generator) -> Chain:
    assert chain.problem is not None
    schema = reply_schema(len(steps)) if settings.structured else None
    sampling = Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature, json_schema=schema)
    cost, detail = Cost(), ""
    for _ in range(settings.max_attempts):
        reply = await generator.generate(chunk_messages(chain.problem.prompt, steps, detail), sampling)
        cost += Cost(num_tokens=reply.num_tokens)
        if reply.finish is FinishReason.ERROR:
            return replace(chain, outcome=ChainOutcome.ENGINE_ERROR, detail=reply.error, cost=cost)
        try:
            thoughts = by_blocks(steps, read_reply(reply, len(steps)))
        except BlockError as error:
            detail = str(error)
            sampling = replace(sampling, temperature=max(settings.temperature, 0.5))
            continue
        return replace(chain, thoughts=tuple(thoughts), cost=cost)
    return replace(chain, outcome=ChainOutcome.BAD_REPLY, detail=detail, cost=cost)


def boundary_f1(boundaries: Sequence[int], expected: Sequence[int]) -> float:
    """F1 of two lists of boundaries (step numbers); each matches at most one that is at most one step away."""
    left = sorted(expected)
    hits = 0
    for boundary in sorted(boundaries):
        match = next((other for other in left if abs(other - boundary) <= 1), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return 2 * hits / (len(boundaries) + len(expected)) if boundaries or expected else 1.0
