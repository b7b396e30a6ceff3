#!/usr/bin/env bash
# What the pair is compared with: one model trained by verl's own GRPO. SEED=1 examples/single.sh RECIPE=recipes/tiny_cpu
# The variables are those of examples/pipeline.sh; the outputs lie in $OUT/single.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
recipe=${RECIPE:-recipes/tiny_cpu} seed=${SEED:-1} model=()
out=$(absolute "${OUT:-outputs/$(basename "$recipe")${FAMILY:+/$FAMILY}/pipeline}")
data=$out/problems
# It learns from the text that `longshort evaluate` gives it.
suffix=$("$python" -c 'import sys; from pathlib import Path
from longshort_verl.evaluation.config import read_evaluate
sys.stdout.write(read_evaluate(Path(sys.argv[1]), []).sampling.solo_suffix)' "$recipe/evaluate.yaml")
problems() { # the folder to write, options
  if [ -n "${PROBLEMS:-}" ]; then longshort problems "$PROBLEMS" --out "$1" ${NUM_VAL:+--num-val "$NUM_VAL"} "${@:2}"
  else "$python" "$recipe/make_problems.py" --pipeline --out "$1" "${@:2}"; fi
}
problems "$data"
if [ -n "$suffix" ]; then data=$out/single/problems && problems "$data" --suffix "$suffix"; fi
evaluate() { # the folder to write, the model
  longshort evaluate "$out/problems/val.parquet" --out "$1" --recipe "$recipe/evaluate.yaml" sampling.seed="$seed" \
    "${family[@]}" long.path=null short.path=null solo.path="$2" ${EVALUATE:-}
}
last() { cat "$1/latest_checkpointed_iteration.txt"; }
if [ -f "$recipe/sft_distilled.yaml" ]; then # it first learns the teacher's whole chains
  of=$out/single/distilled chains=$out/single/chains
  "$python" "$recipe/make_distilled.py" --out "$chains" --seed "$seed"
  TRAINER=verl.trainer.sft_trainer sft "$of" "$recipe" sft_distilled data.train_files="$chains/train.parquet" \
    data.val_files="$chains/val.parquet" trainer.seed="$seed" "${family[@]}" ${SFT:-}
  ln -sfn "global_step_$(last "$of")/huggingface" "$of/model"
  evaluate "$of/evaluation" "$of/model"
  model=(actor_rollout_ref.model.path="$of/model")
fi
rl "$out/single/rl" "$recipe" single data.train_files="$data/train.parquet" data.val_files="$data/val.parquet" \
  data.seed="$seed" "${model[@]}" "${family[@]}" ${RL:-}
evaluate "$out/single/evaluation" "$out/single/rl/global_step_$(last "$out/single/rl")/actor/huggingface"
printf '\n== done: %s\n' "$out/single"
