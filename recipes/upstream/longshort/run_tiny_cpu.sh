#!/usr/bin/env bash
# Smoke test of the recipe's config without a GPU, on two cores with 16 GB of memory. Two tiny models take turns on
# arithmetic, with real FSDP2, vLLM and Ray. Needs vLLM's CPU build (`make .venv` in a checkout of longshort-verl).
#   LONGSHORT_HOME  checkout of longshort-verl, which holds the models (4 MB) and the task
# Arguments are Hydra overrides, such as trainer.total_training_steps=1; `--cfg job` prints the config and ends.
set -xeuo pipefail

RECIPE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${LONGSHORT_HOME:?set it to a checkout of longshort-verl}"
TINY=$LONGSHORT_HOME/recipes/tiny_cpu
OUT=${OUT:-$HOME/experiments/longshort/tiny_cpu}
mkdir -p "$OUT/rl"
export VERL_FILE_LOGGER_PATH="$OUT/rl/metrics.jsonl"
export VERL_PLATFORM=cpu OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Keeps Ray and vLLM's servers on loopback.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0

python3 "$TINY/make_problems.py" --out "$OUT/problems"

MODELS=(
    actor_rollout_ref.model.path="$TINY/models/long"
    actor_rollout_ref.model.enable_gradient_checkpointing=false
    long_short.short.model.path="$TINY/models/short"
    long_short.seed=1
)
PROBLEMS=(
    data.train_files="$OUT/problems/train.parquet"
    data.val_files="$OUT/problems/val.parquet"
    data.val_max_samples=64
    data.train_batch_size=16
    data.max_prompt_length=64
    dialogue@long_short.dialogue=tiny_cpu
)
ACTOR=(
    actor_rollout_ref.actor.ppo_mini_batch_size=16
    actor_rollout_ref.actor.optim.lr=1e-4
    actor_rollout_ref.actor.optim.lr_warmup_steps=5
)
TRAINER=(
    device=cpu
    # total_training_steps ends the run, however few the problems are.
    trainer.total_epochs=1000
    trainer.total_training_steps=40
    trainer.test_freq=10
    trainer.experiment_name=tiny_cpu
    trainer.default_local_dir="$OUT/rl"
    hydra.run.dir="$OUT/rl/hydra"
)

python3 -m verl.trainer.main_ppo --config-dir "$RECIPE/config" --config-name longshort_trainer \
    "${MODELS[@]}" "${PROBLEMS[@]}" "${ACTOR[@]}" "${TRAINER[@]}" "$@"
