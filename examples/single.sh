#!/usr/bin/env bash
# What the pair is compared with: one model trained by verl's own GRPO. SEED=1 examples/single.sh RECIPE=recipes/tiny_cpu
# The variables are those of examples/pipeline.sh, of ABLATION the recipe's own options, such as bfloat16 of
# recipes/laptop; the outputs lie in $OUT/single, or in $OUT/<option>/single.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
recipe=${RECIPE:-recipes/tiny_cpu} seed=${SEED:-1} option=${ABLATION:-} model=()
out=$(absolute "${OUT:-outputs/$(basename "$recipe")${FAMILY:+/$FAMILY}/pipeline}")
data=$out/problems of_single=$out/single
case $option in '' | single) ;; *)
  if [ ! -f "$recipe/single/$option.yaml" ]; then echo "single.sh has no option $option in $recipe/single" >&2 && exit 2; fi
  of_single=$out/$option/single ;;
esac
stage() { # its name; `more` becomes what the option adds to its settings
  more=("${family[@]}")
  if [ -f "$recipe/$1/$option.yaml" ]; then
    more+=("hydra.searchpath=[pkg://longshort_verl.config,file://$(realpath "$recipe")]" "+$1=$option")
  fi
}
# It learns from the text that `longshort evaluate` gives it.
suffix=$("$python" -c 'import sys; from pathlib import Path
from longshort_verl.evaluation.config import read_evaluate
sys.stdout.write(read_evaluate(Path(sys.argv[1]), []).sampling.solo_suffix)' "$recipe/evaluate.yaml")
problems() { # the folder to write, options
  if [ -n "${PROBLEMS:-}" ]; then longshort problems "$PROBLEMS" --out "$1" ${NUM_VAL:+--num-val "$NUM_VAL"} "${@:2}"
  else "$python" "$recipe/make_problems.py" --pipeline --out "$1" "${@:2}"; fi
}
problems "$data"
if [ -n "$suffix" ]; then data=$of_single/problems && problems "$data" --suffix "$suffix"; fi
evaluate() { # the folder to write, the model
  stage solo
  longshort evaluate "$out/problems/val.parquet" --out "$1" --recipe "$recipe/evaluate.yaml" sampling.seed="$seed" \
    "${more[@]}" long.path=null short.path=null solo.path="$2" ${EVALUATE:-}
}
last() { cat "$1/latest_checkpointed_iteration.txt"; }
if [ -f "$recipe/sft_distilled.yaml" ]; then # it first learns the teacher's whole chains
  of=$of_single/distilled chains=$of_single/chains
  "$python" "$recipe/make_distilled.py" --out "$chains" --seed "$seed"
  stage sft_distilled
  TRAINER=verl.trainer.sft_trainer sft "$of" "$recipe" sft_distilled data.train_files="$chains/train.parquet" \
    data.val_files="$chains/val.parquet" trainer.seed="$seed" "${more[@]}" ${SFT:-}
  ln -sfn "global_step_$(last "$of")/huggingface" "$of/model"
  evaluate "$of/evaluation" "$of/model"
  model=(actor_rollout_ref.model.path="$of/model")
fi
stage single
rl "$of_single/rl" "$recipe" single data.train_files="$data/train.parquet" data.val_files="$data/val.parquet" \
  data.seed="$seed" "${model[@]}" "${more[@]}" ${RL:-}
evaluate "$of_single/evaluation" "$of_single/rl/global_step_$(last "$of_single/rl")/actor/huggingface"
printf '\n== done: %s\n' "$of_single"
