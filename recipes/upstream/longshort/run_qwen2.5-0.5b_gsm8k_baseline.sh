#!/usr/bin/env bash
# The baseline of run_qwen2.5-0.5b_gsm8k.sh: a single Qwen2.5-0.5B-Instruct under GRPO, for accuracy and the same
# length term, with the same problems, steps, batches, group and number of tokens. One GPU of 24 GB; not run yet.
# Arguments are Hydra overrides; `--cfg job` prints the config and ends.
set -xeuo pipefail

RECIPE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DATA=${DATA:-$HOME/data/longshort/gsm8k}
OUT=${OUT:-$HOME/experiments/longshort/qwen2.5-0.5b_gsm8k_baseline}
MODEL=${MODEL:-Qwen/Qwen2.5-0.5B-Instruct}
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
    data.max_response_length=1536
)
ACTOR=(
    actor_rollout_ref.actor.ppo_mini_batch_size=128
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096
)
ROLLOUT=(
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
)
TRAINER=(
    # Processes of the data plane reserve a CPU each; eight are for clusters.
    transfer_queue.backend.SimpleStorage.num_data_storage_units=2
    trainer.n_gpus_per_node=1
    trainer.total_epochs=4
    trainer.test_freq=20
    trainer.save_freq=40
    trainer.experiment_name=qwen2.5-0.5b_gsm8k_baseline
    trainer.default_local_dir="$OUT/rl"
    hydra.run.dir="$OUT/rl/hydra"
)

python3 -m verl.trainer.main_ppo --config-dir "$RECIPE/config" --config-name single_trainer \
    "${MODELS[@]}" "${PROBLEMS[@]}" "${ACTOR[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "$@"
