#!/usr/bin/env bash
# What the pair is compared with: one model trained by verl's own GRPO. SEED=1 examples/single.sh RECIPE=recipes/tiny_cpu
# The variables are those of examples/pipeline.sh; the outputs lie in $OUT/single.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
recipe=${RECIPE:-recipes/tiny_cpu} seed=${SEED:-1}
out=$(absolute "${OUT:-outputs/$(basename "$recipe")${FAMILY:+/$FAMILY}/pipeline}")
data=$out/problems
if [ -n "${PROBLEMS:-}" ]; then
  longshort problems "$PROBLEMS" --out "$data" ${NUM_VAL:+--num-val "$NUM_VAL"}
  # It learns from the text that `longshort evaluate` gives it.
  data=$out/single/problems
  suffix=$("$python" -c 'import sys; from pathlib import Path
from longshort_verl.evaluation.config import read_evaluate
sys.stdout.write(read_evaluate(Path(sys.argv[1]), []).sampling.solo_suffix)' "$recipe/evaluate.yaml")
  longshort problems "$PROBLEMS" --out "$data" ${NUM_VAL:+--num-val "$NUM_VAL"} --suffix "$suffix"
else
  "$python" "$recipe/make_problems.py" --pipeline --out "$data"
fi
rl "$out/single/rl" "$recipe" single data.train_files="$data/train.parquet" data.val_files="$data/val.parquet" \
  data.seed="$seed" "${family[@]}" ${RL:-}
step=$(cat "$out/single/rl/latest_checkpointed_iteration.txt")
longshort evaluate "$out/problems/val.parquet" --out "$out/single/evaluation" --recipe "$recipe/evaluate.yaml" \
  sampling.seed="$seed" "${family[@]}" long.path=null short.path=null \
  solo.path="$out/single/rl/global_step_$step/actor/huggingface" ${EVALUATE:-}
printf '\n== done: %s\n' "$out/single"
