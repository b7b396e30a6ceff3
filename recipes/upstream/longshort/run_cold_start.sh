#!/usr/bin/env bash
# From problems to two role models: chains of thought, importance of each thought, transcripts, SFT of both roles.
# An interrupted stage resumes when the script runs again. Not run on a GPU yet.
#   DIALOGUE    gsm8k or math: limits of a dialogue, as in RL
#   DATA        folder that create_dataset.py wrote
#   OUT         output folder; RL reads sft_long/model and sft_short/model in it
#   THINKER     the model that writes the chains of thought
#   MODEL       the model that both roles start from
#   MAX_TOKENS  maximal tokens of a transcript (longer ones are refused) and of a micro-batch of SFT
#   NGPUS       GPUs of SFT; other stages use one
# Arguments are Hydra overrides of SFT.
set -xeuo pipefail

RECIPE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DIALOGUE=${DIALOGUE:-gsm8k}
DATA=${DATA:-$HOME/data/longshort/$DIALOGUE}
THINKER=${THINKER:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}
MODEL=${MODEL:-Qwen/Qwen2.5-0.5B-Instruct}
OUT=${OUT:-$HOME/experiments/longshort/qwen2.5-0.5b_gsm8k}
MAX_TOKENS=${MAX_TOKENS:-4096}
NGPUS=${NGPUS:-1}
mkdir -p "$OUT"

longshort traces "$DATA/train.parquet" --out "$OUT/traces.jsonl" model.path="$THINKER"
longshort importance "$OUT/traces.jsonl" --out "$OUT/importance" model.path="$THINKER"
longshort cold-start "$OUT/importance" --out "$OUT/cold_start" --recipe "$RECIPE/config/cold_start.yaml" \
    dialogue="$DIALOGUE" tokenizer="$MODEL"

for role in long short; do
    python3 -m torch.distributed.run --standalone --nproc_per_node="$NGPUS" \
        -m longshort_verl.adapters.sft.trainer --config-dir "$RECIPE/config" --config-name longshort_sft_trainer \
        cold_start.role=$role \
        data.train_files="$OUT/cold_start/${role}_train.parquet" \
        data.val_files="$OUT/cold_start/${role}_val.parquet" \
        data.max_length="$MAX_TOKENS" \
        data.max_token_len_per_gpu="$MAX_TOKENS" \
        model.path="$MODEL" \
        trainer.default_local_dir="$OUT/sft_$role" \
        trainer.experiment_name="sft_$role" \
        trainer.n_gpus_per_node="$NGPUS" \
        hydra.run.dir="$OUT/sft_$role/hydra" \
        "$@"
done
