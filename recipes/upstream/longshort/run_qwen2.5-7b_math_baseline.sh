#!/usr/bin/env bash
# The baseline of run_qwen2.5-7b_math.sh: a single Qwen2.5-7B-Instruct under GRPO, for accuracy and the same length
# term, with the same problems, steps, batches, group and number of tokens. Eight GPUs of 80 GB; not run yet.
# Arguments are Hydra overrides; `--cfg job` prints the config and ends.
set -xeuo pipefail

RECIPE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DATA=${DATA:-$HOME/data/longshort/math}
OUT=${OUT:-$HOME/experiments/longshort/qwen2.5-7b_math_baseline}
MODEL=${MODEL:-Qwen/Qwen2.5-7B-Instruct}
mkdir -p "$OUT/rl"
export VERL_FILE_LOGGER_PATH="$OUT/rl/metrics.jsonl"

MODELS=(
    actor_rollout_ref.model.path="$MODEL"
)
# The maximal number of tokens of the pair's dialogues.
PROBLEMS=(
    data.train_files="$DATA/single_train.parquet"
    data.val_files="$DATA/single_val.parquet"
    data.train_batch_size=128
    data.max_prompt_length=2048
    data.max_response_length=8192
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
    trainer.experiment_name=qwen2.5-7b_math_baseline
    trainer.default_local_dir="$OUT/rl"
    hydra.run.dir="$OUT/rl/hydra"
)

python3 -m verl.trainer.main_ppo --config-dir "$RECIPE/config" --config-name single_trainer \
    "${MODELS[@]}" "${PROBLEMS[@]}" "${ACTOR[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "$@"
