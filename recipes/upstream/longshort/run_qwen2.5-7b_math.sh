#!/usr/bin/env bash
# The pair on MATH: Qwen2.5-7B-Instruct in both roles, after run_cold_start.sh. Eight GPUs of 80 GB; not run yet.
# run_qwen2.5-7b_math_baseline.sh is its baseline. Arguments are Hydra overrides; `--cfg job` prints the config and ends.
set -xeuo pipefail

RECIPE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DATA=${DATA:-$HOME/data/longshort/math}
OUT=${OUT:-$HOME/experiments/longshort/qwen2.5-7b_math}
LONG_MODEL=${LONG_MODEL:-$OUT/sft_long/model}
SHORT_MODEL=${SHORT_MODEL:-$OUT/sft_short/model}
mkdir -p "$OUT/rl"
export VERL_FILE_LOGGER_PATH="$OUT/rl/metrics.jsonl"

MODELS=(
    actor_rollout_ref.model.path="$LONG_MODEL"
    long_short.short.model.path="$SHORT_MODEL"
)
# A response is everything after the problem in a role's transcript: its own turns, the peer's and the template. The
# job refuses longer problems before it starts, and prints the length that they need.
PROBLEMS=(
    data.train_files="$DATA/train.parquet"
    data.val_files="$DATA/val.parquet"
    data.train_batch_size=128
    data.max_prompt_length=2048
    data.max_response_length=10240
    dialogue@long_short.dialogue=math
)
ACTOR=(
    actor_rollout_ref.actor.ppo_mini_batch_size=128
)
ROLLOUT=(
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
)
TRAINER=(
    trainer.total_epochs=4
    trainer.test_freq=20
    trainer.save_freq=40
    trainer.experiment_name=qwen2.5-7b_math
    trainer.default_local_dir="$OUT/rl"
    hydra.run.dir="$OUT/rl/hydra"
)

python3 -m verl.trainer.main_ppo --config-dir "$RECIPE/config" --config-name longshort_trainer \
    "${MODELS[@]}" "${PROBLEMS[@]}" "${ACTOR[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "$@"
