# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Generates the tables of the Markdown pages: ``make docs``, or ``python docs/tables.py --check`` to compare only.

A page marks the place of a table by ``<!-- table NAME ARGUMENTS -->`` and ``<!-- end -->``, where NAME is a key of
:data:`TABLES`. Everything between the two comments is replaced. ``--check`` writes nothing and exits with 1 when a page
is out of date.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

from omegaconf import OmegaConf

from longshort_verl.config.compose import compose_config
from longshort_verl.evaluation.scores import aes
from longshort_verl.ops.doctor.versions import TESTED

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(<!-- table (?P<name>\w+)(?P<argument>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
SHIM = re.compile(r"Symptom: (.*?)\s*Upstream: (.*?)\s*Versions: (.*?)\s*Remove when: (.*)", re.DOTALL)
SYSTEMS = {
    "solo": "the long-chain model alone",
    "cold_start": "the pair after the cold start",
    "pair": "the pair after RL",
    "single": "the long-chain model alone after GRPO with the same length term",
}
"""Systems of recipes/tiny_cpu/results.json that the overviews show, with their descriptions."""
STAGES = ("traces", "importance", "cold_start", "sft", "rl", "single", "evaluate", "serve", "dialogue")
"""Order of a recipe's files, by the beginning of their names."""
UPSTREAM_SETTINGS = {
    "long_short.schedule": "the role that learns: `long_only`, `short_only`, `alternate`, `rounds` (paper) or `joint`",
    "long_short.alternate.switch_every": "steps until the other role learns",
    "long_short.policies": "`two`, or `shared`: one model plays both roles",
    "long_short.placement": "`colocated`, or `split`: the short policy has devices of its own",
    "long_short.dialogue.max_short_turns": "turns of the short role, which must answer in the last one",
    "long_short.reward.accuracy": "weight of a correct answer, for both roles",
    "long_short.reward.format": "weight of the share of a role's own turns that follow the protocol",
    "long_short.reward.length": "weight of the length within the prompt's group (Kimi k1.5); the authors' code has 1",
    "long_short.reward.importance": "weight of each long turn's importance, from forced rollouts of the short model",
    "long_short.alarms.probs_diff": "a run warns when engine and actor differ by more, in token probability",
}
"""Settings that the README of the recipe for verl-recipe lists, with their meaning."""

Rows = Sequence[Sequence[str]]


def main() -> None:
    """Write all pages, or with ``--check`` exit with the names of the pages that are out of date."""
    stale = {}
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := rendered(page, text)) != text:
            stale[page] = new
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit("run `make docs`, out of date: " + ", ".join(str(page.relative_to(ROOT)) for page in stale))
        return
    for page, new in stale.items():
        page.write_text(new, encoding="utf-8")
        print(f"written: {page.relative_to(ROOT)}")


def pages() -> list[Path]:
    """All Markdown pages of the repository."""
    folders = [ROOT / name for name in ("docs", "recipes", "patches")]
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def rendered(page: Path, text: str) -> str:
    """The page's text with every marked table generated again."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match['name']](page, match['argument'].strip())}\n{match[4]}"

    return MARKED.sub(table, text)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)


def versions(page: Path, argument: str) -> str:
    """The sets of versions that were run, one a row."""
    names = list(dict.fromkeys(name for tested in TESTED for name in tested.packages))
    rows = [
        [tested.hardware, tested.ran, ", ".join(tested.python), *(tested.packages.get(name, "") for name in names)]
        for tested in TESTED
    ]
    return markdown(["", "what was run", "Python", *names], rows)


def results(page: Path, argument: str) -> str:
    """Accuracy, tokens and AES of :data:`SYSTEMS` on the toy task, with what is needed to repeat them."""
    runs = json.loads((ROOT / "recipes" / "tiny_cpu" / "results.json").read_text())
    runs = {system: [run for run in runs if run["system"] == system] for system in SYSTEMS}
    means = {
        system: [fmean(run[name] for run in of) for name in ("accuracy", "tokens_mean")] for system, of in runs.items()
    }
    accuracy, tokens = means["solo"]
    rows = []
    for system, of in runs.items():
        score = aes(means[system][0], accuracy, 1 - means[system][1] / tokens)
        rows.append(
            [
                SYSTEMS[system],
                _spread([run["accuracy"] * 100 for run in of], " %"),
                _spread([run["tokens_mean"] for run in of]),
                "" if system == "solo" else f"{score:.2f}",
                ", ".join(str(run["seed"]) for run in of),
                ", ".join(dict.fromkeys(run["commit"] for run in of)),
            ]
        )
    every = [run for of in runs.values() for run in of]
    commands = dict.fromkeys("`" + re.sub(r"SEED=\d+", "SEED=…", run["command"]) + "`" for run in every)
    machines = dict.fromkeys(run["machine"] for run in every)
    problems = dict.fromkeys(f"{run['problems']} held-out problems" for run in every)
    return (
        markdown(["", "accuracy", "generated tokens", "AES 1/3/5", "seeds", "commits"], rows)
        + f"\n\n{', '.join(problems)}; mean (lowest to highest seed); {', '.join(machines)}.\n"
        + f"Commands: {' and '.join(commands)}."
    )


def _spread(values: Sequence[float], unit: str = "") -> str:
    text = f"{fmean(values):.1f}{unit}"
    return text if len(values) == 1 else f"{text} ({min(values):.1f} to {max(values):.1f})"


def benchmarks(page: Path, argument: str) -> str:
    """Results of ``make bench`` whose measure begins with the argument; without one, all but peak memory."""
    (path,) = (ROOT / "tests" / "bench" / "results").glob("*.json")
    rows = []
    for row in json.loads(path.read_text()):
        if row["measure"].startswith(argument) if argument else not row["measure"].startswith("peak memory"):
            holds = {None: "", True: "yes", False: "no"}[row["holds"]]
            numbers = [f"{row[name]:.3g}" for name in ("ratio", "low", "high")]
            rows.append([row["measure"], *numbers, row["goal"], holds, f"`{row['command']}`", row["commit"]])
    head = ["measure", "median", "lowest", "highest", "goal", "reached", "command", "commit"]
    return f"{markdown(head, rows)}\n\nMachine: {path.stem}."


def recipe(page: Path, argument: str) -> str:
    """The YAML files beside a page, each with the first sentence of its head comment."""

    def order(path: Path) -> tuple[int, str]:
        name = path.relative_to(page.parent).parts[0]
        return next((i for i, stage in enumerate(STAGES) if name.startswith(stage)), len(STAGES)), str(path)

    files = sorted(page.parent.rglob("*.yaml"), key=order)
    return markdown(["file", ""], [[f"`{path.relative_to(page.parent)}`", _purpose(path)] for path in files])


def ablations(page: Path, argument: str) -> str:
    """Ablations by name: the stages that each changes, and the change."""
    files: dict[str, list[Path]] = {}
    for path in sorted(page.parent.glob("*/*.yaml"), key=lambda path: (path.stem, path.parent.name)):
        files.setdefault(path.stem, []).append(path)
    rows = [[f"`{name}`", ", ".join(path.parent.name for path in of), _purpose(of[0])] for name, of in files.items()]
    return markdown(["name", "stages", "change"], rows)


def _purpose(path: Path) -> str:
    """The head comment of a YAML up to its line about hardware or starting."""
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith(("# Hardware", "# Start ")) or not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line[1:].strip())
    return " ".join(lines).rstrip(".")


def upstream_settings(page: Path, argument: str) -> str:
    """:data:`UPSTREAM_SETTINGS` with the values of the recipe's base YAML."""
    config = compose_config(page.parent / "config", "longshort_trainer", ["dialogue@long_short.dialogue=math"])
    rows = [[f"`{key}`", f"`{OmegaConf.select(config, key)}`", meaning] for key, meaning in UPSTREAM_SETTINGS.items()]
    return markdown(["setting", "default here", "meaning"], rows)


def shims(page: Path, argument: str) -> str:
    """Functions that replace upstream code, from their docstrings."""
    rows = []
    for path in sorted((ROOT / "longshort_verl").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = (ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else ""
            match = re.search(
                r"Symptom: (.*?)\s*Upstream: (.*?)\s*Versions: (.*?)\s*Remove when: (.*)", text, re.DOTALL
            )
            if match and isinstance(node, ast.FunctionDef):
                cells = (" ".join(part.replace("``", "`").split()).rstrip(".") for part in match.groups())
                rows.append([f"`{path.stem}.{node.name}`", *cells])
    return markdown(["shim", "symptom", "upstream", "versions", "remove when"], rows)


def include(page: Path, argument: str) -> str:
    """The content of a YAML file as a code block."""
    return f"```yaml\n{(ROOT / argument).read_text().rstrip()}\n```"


TABLES: dict[str, Callable[[Path, str], str]] = {
    "versions": versions,
    "results": results,
    "benchmarks": benchmarks,
    "recipe": recipe,
    "ablations": ablations,
    "upstream_settings": upstream_settings,
    "shims": shims,
    "include": include,
}
"""Tables by the name that stands in the pages."""

if __name__ == "__main__":
    main()
