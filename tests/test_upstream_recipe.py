# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe for verl-recipe: copied into a scratch ``recipe/`` tree, checked by verl-recipe's rules, composed and run.

Each script's command is what the script itself hands to ``python3``, recorded and then composed on verl's real tree.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from longshort_verl.adapters.rl.check import check_config, check_files
from longshort_verl.adapters.rl.settings import load_tokenizer, role_config
from longshort_verl.adapters.sft.trainer import check_sft
from longshort_verl.cold_start.config import read_cold_start
from longshort_verl.config.compose import CONFIG, compose_config
from longshort_verl.evaluation.config import read_evaluate
from longshort_verl.problems.read import read_problems
from longshort_verl.types import Role
from tests.adapters.sft.test_trainer import write_rows
from tests.support import jobs
from tests.test_recipes import body, composed, leaves

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "recipes" / "upstream" / "longshort"
RUFF = ROOT / "recipes" / "upstream" / "ruff.toml"
YAMLS = sorted(SOURCE.rglob("*.yaml"))
PAIR = ("run_qwen2.5-0.5b_gsm8k.sh", "run_qwen2.5-7b_math.sh", "run_tiny_cpu.sh")
TWINS = {name: name.replace(".sh", "_baseline.sh") for name in PAIR[:2]}
RUNS = (*PAIR, *TWINS.values())
PARENTS = {
    "longshort_trainer": "longshort_rl",
    "single_trainer": "longshort_single",
    "longshort_sft_trainer": "longshort_sft",
    "gsm8k": "longshort_dialogue",
    "tiny_cpu": "longshort_dialogue",
}
"""YAML of the recipe that sets keys → the base whose keys they are."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """``recipe/longshort`` in a tree of its own, as in a checkout of verl."""
    copy = tmp_path_factory.mktemp("verl") / "recipe" / "longshort"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@dataclass(frozen=True)
class Command:
    """What a script runs."""

    words: list[str]
    """The program's name and its arguments."""
    environment: dict[str, str]
    """In which it runs."""

    @property
    def overrides(self) -> list[str]:
        """Hydra's overrides; values are in Hydra's own syntax."""
        start = self.words.index("--config-name") + 2
        return [word for word in self.words[start:] if "=" in word]

    def option(self, name: str) -> str:
        return self.words[self.words.index(name) + 1]

    def composed(self, *without: str) -> DictConfig:
        """The config, as the program composes it; ``without`` leaves overrides of these keys out."""
        kept = [one for one in self.overrides if one.partition("=")[0] not in without]
        return compose_on_verl(self.option("--config-dir"), self.option("--config-name"), kept)


def compose_on_verl(folder, name, overrides) -> DictConfig:
    return compose_config(Path(folder), name, overrides)


def recorded(recipe, tmp_path, script, *arguments, **environment) -> list[Command]:
    """The commands that a script runs, with recorders in place of the programs."""
    programs, log = tmp_path / "bin", tmp_path / "commands.jsonl"
    programs.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    for name in ("python3", "longshort"):
        recorder = programs / name
        recorder.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            f"with open({str(log)!r}, 'a') as log:\n"
            f"    log.write(json.dumps([[{name!r}, *sys.argv[1:]], dict(os.environ)]) + '\\n')\n"
        )
        recorder.chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "LONGSHORT_HOME": str(ROOT),
        **environment,
    }
    subprocess.run(
        ["bash", f"recipe/longshort/{script}", *arguments],
        cwd=recipe.parents[1],
        env=environment,
        check=True,
        capture_output=True,
    )
    return [Command(*json.loads(line)) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """By run script the command that trains."""
    folder = tmp_path_factory.mktemp("recorded")
    return {script: recorded(recipe, folder, script)[-1] for script in RUNS}


@pytest.fixture(scope="module")
def configs(runs):
    """By run script its config."""
    return {script: command.composed() for script, command in runs.items()}


# verl-recipe's rules -------------------------------------------------------------------------------------------------


def ruff(recipe, *arguments):
    # From the tree's root, as verl-recipe's CI does: what lies there is what ruff takes as first-party.
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--config", str(RUFF)]
    return subprocess.run(command, cwd=recipe.parents[1], capture_output=True, text=True)


def test_ruff_with_the_settings_of_verl_recipe(recipe):
    for command in (["check"], ["format", "--check"]):
        done = ruff(recipe, *command, str(recipe))
        assert done.returncode == 0, done.stdout + done.stderr
    # verl is first-party there, so it stands apart from what is installed.
    file = recipe.parents[1] / "order.py"
    file.write_text("import torch\nimport verl\n\nprint(torch, verl)\n")
    assert "I001" in ruff(recipe, "check", str(file)).stdout


def test_python_begins_with_the_licence(recipe):
    # verl-recipe asks for the whole notice, not for the two SPDX lines of our own files.
    header = "# Copyright 2026 The longshort-verl authors\n#\n# Licensed under the Apache License, Version 2.0 "
    files = sorted(recipe.rglob("*.py"))
    assert [file.name for file in files] == ["create_dataset.py"]
    assert all(file.read_text().startswith(header) for file in files)


def test_the_required_versions_are_those_that_are_tested(recipe):
    """Read as verl-recipe's install_verl.sh reads it: KEY=value lines, # for comments."""
    lines = (recipe / "REQUIRED_VERL.txt").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    verl, own = (metadata.version(name) for name in ("verl", "longshort-verl"))
    assert (found["MODE"], found["TAG"]) == ("pinned_tag", f"v{verl}")
    assert found["PIP_INSTALL"] == f"pip install verl=={verl} longshort-verl=={own}"
    assert f"--branch v{verl} {found['UPSTREAM']}" in found["GIT_SETUP"]
    readme = (recipe / "README.md").read_text()
    assert re.findall("^## (.*)$", readme, re.M)[0] == "Required `verl` version"
    assert found["PIP_INSTALL"] in readme


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_sound(path):
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(path)], check=True)


# The config ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: str(p.relative_to(SOURCE)))
def test_yamls_follow_verls_style(path):
    """A blank line above each key or its comment, and no trailing comments."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip().startswith("#") or not line.strip():
            continue
        assert " #" not in line, f"{path.name}:{number}: comments stand above their key"
        before = lines[number - 2] if number > 1 else ""
        continues = not line.lstrip().startswith("- ") and ":" not in line
        assert not before.strip() or before.strip().startswith("#") or continues or "- " in before, (
            f"{path.name}:{number}: blank line missing above {line.strip()!r}"
        )


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: str(p.relative_to(SOURCE)))
def test_yamls_set_known_keys_and_repeat_none(path):
    own = body(path)
    if path.stem not in PARENTS:
        assert not leaves(own), f"{path.name} sets keys; name its base in PARENTS"
        return
    base = composed(PARENTS[path.stem], CONFIG)
    OmegaConf.set_struct(base, True)
    OmegaConf.merge(base, own)
    for key in leaves(own):
        assert OmegaConf.select(base, key) != OmegaConf.select(own, key), key


@pytest.mark.parametrize("script", RUNS)
def test_scripts_change_what_they_set(script, runs, configs):
    # An unknown key does not compose. A script must not set the base's value.
    keys = [override.partition("=")[0] for override in runs[script].overrides]
    assert len(set(keys)) == len(keys)
    groups = {"device", "dialogue@long_short.dialogue", "hydra.run.dir"}
    own = set(keys) - groups
    # Settings without a default, such as the models, can only be left out all at once.
    plain = runs[script].composed(*own)
    for key in own:
        assert OmegaConf.select(plain, key) != OmegaConf.select(configs[script], key), key
    assert OmegaConf.missing_keys(configs[script].get("long_short", {})) == set()


def test_a_misspelt_override_does_not_compose(recipe, tmp_path):
    command = recorded(recipe, tmp_path, PAIR[0], "long_short.reward.lenght=1")[-1]
    with pytest.raises(Exception, match="lenght"):
        command.composed()


@pytest.mark.parametrize("script", PAIR)
def test_the_pairs_settings_pass_the_check_before_a_run(script, configs, monkeypatch):
    if script != "run_tiny_cpu.sh":
        monkeypatch.delenv("VERL_PLATFORM")
    settings = check_config(configs[script])
    assert settings.schedule.value == "alternate"


@pytest.mark.parametrize("script", TWINS)
def test_a_twin_differs_in_what_it_must(script, configs):
    pair, twin = configs[script], configs[TWINS[script]]
    # Files of the same problems: theirs ask for a box, which the pair's system prompts do.
    for split in ("train", "val"):
        name = f"{split}_files"
        assert pair.data[name].replace(f"/{split}.", f"/single_{split}.") == twin.data[name]
    assert twin.data.max_response_length == pair.long_short.dialogue.max_dialogue_tokens
    assert twin.algorithm.length_weight == pair.long_short.reward.length
    differ = {
        key
        for section in ("data", "actor_rollout_ref", "algorithm", "trainer")
        for key in (f"{section}.{leaf}" for leaf in leaves(pair[section]))
        if OmegaConf.select(pair, key) != OmegaConf.select(twin, key)
    }
    assert differ == {
        "data.train_files",
        "data.val_files",
        "data.max_response_length",
        "actor_rollout_ref.model.path",
        # These follow from the length, the path and the name.
        "actor_rollout_ref.rollout.response_length",
        "actor_rollout_ref.rollout.prometheus.served_model_name",
        "actor_rollout_ref.rollout.trace.experiment_name",
        # Two policies share the devices, one has them to itself.
        "actor_rollout_ref.actor.fsdp_config.param_offload",
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
        "actor_rollout_ref.ref.fsdp_config.param_offload",
        "actor_rollout_ref.rollout.gpu_memory_utilization",
        "actor_rollout_ref.rollout.load_format",
        "actor_rollout_ref.rollout.agent.default_agent_loop",
        # `longshort export` writes the pair.
        "actor_rollout_ref.actor.checkpoint.save_contents",
        "actor_rollout_ref.actor.checkpoint.load_contents",
        "algorithm.adv_estimator",
        "trainer.v1.trainer_mode",
        "trainer.experiment_name",
        "trainer.default_local_dir",
    }


def test_a_dialogue_has_one_home(recipe, runs, configs):
    for script, name in zip(PAIR, ("gsm8k", "math", "tiny_cpu"), strict=True):
        dialogue = OmegaConf.to_container(configs[script].long_short.dialogue)
        chosen = [f"dialogue={name}"]
        for stage in ("cold_start", "evaluate"):
            folder = recipe / "config"
            stages = compose_on_verl(folder, stage, chosen)
            assert OmegaConf.to_container(stages.dialogue) == dialogue, (stage, name)
        cold_start = read_cold_start(recipe / "config" / "cold_start.yaml", [*chosen, "tokenizer=somewhere"])
        evaluate = read_evaluate(
            recipe / "config" / "evaluate.yaml", [*chosen, "long.path=a", "short.path=b", "solo.path=c"]
        )
        assert cold_start.dialogue == evaluate.dialogue
    tiny = composed("rl", ROOT / "recipes" / "tiny_cpu")
    assert configs["run_tiny_cpu.sh"].long_short.dialogue == tiny.long_short.dialogue


def test_the_cold_start_goes_from_problems_to_both_roles(recipe, tmp_path):
    out, model = tmp_path / "out", ROOT / "recipes" / "tiny_cpu" / "models" / "long"
    settings = {"OUT": str(out), "NGPUS": "8", "MODEL": str(model)}
    commands = recorded(recipe, tmp_path, "run_cold_start.sh", "optim.lr=2e-5", **settings)
    assert [command.words[:2] for command in commands[:3]] == [
        ["longshort", "traces"],
        ["longshort", "importance"],
        ["longshort", "cold-start"],
    ]
    # Each stage reads what the one before writes.
    assert commands[0].option("--out") == commands[1].words[2] == str(out / "traces.jsonl")
    assert commands[1].option("--out") == commands[2].words[2] == str(out / "importance")
    trained = [command.composed() for command in commands[3:]]
    assert [config.cold_start.role for config in trained] == ["long", "short"]
    for role, config, command in zip(("long", "short"), trained, commands[3:], strict=True):
        assert command.option("-m") == "torch.distributed.run"
        assert "--nproc_per_node=8" in command.words
        assert config.data.train_files == f"{commands[2].option('--out')}/{role}_train.parquet"
        assert config.trainer.default_local_dir == str(out / f"sft_{role}")
        assert (config.optim.lr, config.data.max_length) == (2e-5, 4096)
        (out / "cold_start").mkdir(parents=True, exist_ok=True)
        for side in ("train", "val"):
            write_rows(out / "cold_start" / f"{role}_{side}.parquet", role, number=config.data.train_batch_size, seed=1)
        assert len(check_sft(config).train) == config.data.train_batch_size
    # … and RL finds the models where SFT puts them.
    rl = recorded(recipe, tmp_path, PAIR[0], OUT=str(out))[-1].composed()
    assert rl.actor_rollout_ref.model.path == f"{trained[0].trainer.default_local_dir}/model"
    assert rl.long_short.short.model.path == f"{trained[1].trainer.default_local_dir}/model"
    assert rl.data.max_prompt_length + rl.long_short.dialogue.max_dialogue_tokens <= trained[0].data.max_length


@pytest.mark.process
def test_what_verl_itself_composes_is_what_these_tests_compose(recipe, tmp_path, configs):
    """The one real ``--cfg job``; the others would be the same at ten seconds each."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LONGSHORT_HOME": str(ROOT),
        "OUT": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "recipe/longshort/run_tiny_cpu.sh", "--cfg", "job"],
        cwd=recipe.parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text = done.stdout[done.stdout.index("model_engine:") :]
    found, expected = OmegaConf.create(text), configs["run_tiny_cpu.sh"].copy()
    differ = {key for key in leaves(expected) if OmegaConf.select(found, key) != OmegaConf.select(expected, key)}
    assert differ == {"data.train_files", "data.val_files", "trainer.default_local_dir"}
    # What is left of the check before a run: the models, their templates, and every problem.
    check_files(found, *(load_tokenizer(role_config(found, role)) for role in Role))


def test_the_pair_and_a_model_by_itself_can_be_evaluated(recipe):
    models = {name: f"{name}.path=models/{name}" for name in ("long", "short", "solo")}
    evaluate = read_evaluate(recipe / "config" / "evaluate.yaml", ["dialogue=gsm8k", *models.values()])
    assert [getattr(evaluate, name).path for name in models] == [f"models/{name}" for name in models]
    assert evaluate.dialogue.max_dialogue_tokens == 1536


# The data script -----------------------------------------------------------------------------------------------------

GSM8K = [
    {"question": f"A pen costs {n} cents. What do 1000 pens cost, in cents?", "answer": f"1000 * {n}\n#### {n},000"}
    for n in range(1, 13)
]
MATH = [
    {"problem": f"What is ${n}/7$?", "solution": f"It is $\\boxed{{\\frac{{{n}}}{{7}}}}$.", "level": "Level 1"}
    for n in range(1, 13)
]


@pytest.fixture
def create(recipe, tmp_path, monkeypatch, capsys):
    """Runs the data script; returns what it printed."""
    spec = importlib.util.spec_from_file_location("longshort_create_dataset", recipe / "create_dataset.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["create_dataset.py", *arguments])
        script.main()
        return capsys.readouterr().out

    return run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("name", "rows", "answer"), [("gsm8k", GSM8K, "{}000"), ("math", MATH, "\\frac{{{}}}{{7}}")], ids=["gsm8k", "math"]
)
def test_the_data_script_writes_what_training_reads(create, tmp_path, name, rows, answer):
    # The fourth row has no answer: it is left out and said, and the others keep their numbers.
    broken = [*rows[:3], {key: "nothing" for key in rows[0]}, *rows[4:]]
    file = write(tmp_path / "train.jsonl", broken)
    said = create("--dataset", name, "--file", file, "--out", str(tmp_path / "out"), "--num_val", "3")
    assert "8 problems in " in said
    assert "left out, row 3: its solution has no answer" in said
    parts = {part: read_problems(tmp_path / "out" / f"{part}.parquet") for part in ("train", "val")}
    single = {part: read_problems(tmp_path / "out" / f"single_{part}.parquet") for part in ("train", "val")}
    assert {part: len(problems) for part, problems in parts.items()} == {"train": 8, "val": 3}
    prompts = [row.get("question", row.get("problem")) for row in rows]
    answers = {prompt: answer.format(n) for n, prompt in enumerate(prompts, start=1)}
    assert {p.prompt: p.answer for part in parts.values() for p in part} == {
        prompt: gold for n, (prompt, gold) in enumerate(answers.items()) if n != 3
    }
    suffix = read_evaluate(None, ["long.path=a", "short.path=b"]).sampling.solo_suffix
    assert "\\boxed{}" in suffix
    for part in parts:
        assert [p.prompt + suffix for p in parts[part]] == [p.prompt for p in single[part]]
        assert [p.answer for p in parts[part]] == [p.answer for p in single[part]]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["left_out"] == [3]


def test_the_data_script_writes_the_test_split_whole(create, tmp_path):
    file = write(tmp_path / "test.jsonl", GSM8K)
    create("--dataset", "gsm8k", "--split", "test", "--file", file, "--out", str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["test.parquet"]
    assert [p.prompt for p in read_problems(tmp_path / "out" / "test.parquet")] == [row["question"] for row in GSM8K]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "math"], "has no column problem and no column solution; it has question, answer"),
        (["--dataset", "gsm8k", "--num_val", "12"], "are too few for 12 validation problems"),
        (["--dataset", "gsm8k", "--file", "absent.jsonl"], "--file is absent.jsonl; give a file that exists"),
    ],
)
def test_the_data_script_refuses_in_one_line(create, tmp_path, arguments, message):
    file = write(tmp_path / "train.jsonl", GSM8K)
    with pytest.raises(SystemExit) as ended:
        create("--file", file, "--out", str(tmp_path / "out"), *arguments)
    assert str(ended.value).startswith("create_dataset.py: ")
    assert message in str(ended.value)
    assert not (tmp_path / "out").exists()


SMALL = (*jobs.HALF_A_STEP, "data.val_max_samples=32")
"""A step of 64 dialogues and 32 problems of validation, in place of 128 and 256."""

# The run -------------------------------------------------------------------------------------------------------------


@pytest.mark.job
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_the_smoke_script_takes_steps_until_an_engine_dies(recipe, tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LONGSHORT_HOME": str(ROOT),
        "OUT": str(tmp_path / "out"),
        jobs.MARK: str(tmp_path / "out" / "rl"),
    }
    # Another test's job that is still there would leave too little memory.
    while jobs._started:
        jobs._started.pop().end()
    (tmp_path / "out" / "rl").mkdir(parents=True)
    with (tmp_path / "out" / "rl" / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "bash",
                "recipe/longshort/run_tiny_cpu.sh",
                "trainer.total_training_steps=100",
                "trainer.test_freq=1",
                *SMALL,
            ],
            cwd=recipe.parents[1],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    job = jobs.Job(folder=tmp_path / "out" / "rl", process=process)
    jobs._started.append(job)
    job.wait_for_step(1, timeout=900)
    assert {0, 1} <= set(job.steps())
    step = job.steps()[1]
    # alternate: the long role learns first, the short one rests.
    assert step["long/actor/grad_norm"] > 0
    assert "short/actor/grad_norm" not in step
    for role in ("long", "short"):
        assert step[f"{role}/training/rollout_probs_diff_mean"] < 1e-5, role
    assert step["dialogue/stop/answered"] > 0.3
    cores = [member for member in job.members() if "EngineCore" in member.name()]
    assert len(cores) == 2, [member.name() for member in job.members()]
    cores[0].kill()
    assert process.wait(timeout=300) != 0
    assert max(job.steps()) < 20
    assert "EnginesFailed: step" in job.log
    assert job.leftovers(within=30) == []
