#!/usr/bin/env bash
# From problems to a trained pair: SEED=1 examples/pipeline.sh RECIPE=recipes/tiny_cpu
# Every command resumes, skips what is finished, and refuses to mix two settings in one output. Nothing is deleted.
#   OUT       folder for all of it (outputs/<recipe>/pipeline)
#   SEED      seed of every stage (1)
#   PROBLEMS  mine.json: problems of your own; or a public set by name, such as math_train
#   NUM_VAL   how many of PROBLEMS are held out
#   ABLATION  a name of recipes/ablations or of the recipe's own options; it shares the stages before its change
#   SFT, RL, EVALUATE  further overrides of these stages; RL=none ends the pipeline after SFT
# ABLATION=single is examples/single.sh: the single model that the pair is compared with.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
recipe=${RECIPE:-recipes/tiny_cpu} seed=${SEED:-1} ablation=${ABLATION:-}
out=$(absolute "${OUT:-outputs/$(basename "$recipe")/pipeline}")
if [ "$ablation" = single ]; then exec examples/single.sh; fi
ablations=recipes/ablations
if compgen -G "$recipe/*/${ablation:-none}.yaml" >/dev/null; then ablations=$recipe; fi
if [ -n "$ablation" ] && ! compgen -G "$ablations/*/$ablation.yaml" >/dev/null; then
  echo "no ablation $ablation in recipes/ablations or $recipe: $(ls recipes/ablations/*/ "$recipe"/*/)" >&2
  exit 2
fi
search="hydra.searchpath=[pkg://longshort_verl.config,file://$PWD/$ablations]"

# From the first stage that the ablation changes on, outputs go to $OUT/<ablation> instead of $OUT/pair.
folder=$out/pair
stage() { # its name; sets what the ablation adds to its settings
  printf '\n== %s\n' "$1" && more=()
  if [ -f "$ablations/$1/$ablation.yaml" ]; then folder=$out/$ablation more=("$search" "+$1=$ablation"); fi
}
evaluate() { longshort evaluate "$out/problems/val.parquet" --recipe "$recipe/evaluate.yaml" sampling.seed="$seed" "$@"; }

stage problems
if [ -n "${PROBLEMS:-}" ]; then
  longshort problems "$PROBLEMS" --out "$out/problems" ${NUM_VAL:+--num-val "$NUM_VAL"}
else
  "$python" "$recipe/make_problems.py" --pipeline --out "$out/problems" # a recipe without it needs PROBLEMS
fi
stage solo # the model that all of it begins with, also forced to answer early
evaluate --out "$out/solo" "hydra.searchpath=[pkg://longshort_verl.config,file://$PWD/recipes/ablations]" \
  +evaluate=early_exit long.path=null short.path=null ${EVALUATE:-}
if [ "$ablation" = early_exit ]; then exit; fi
stage traces
longshort traces "$out/problems/train.parquet" --out "$out/traces.jsonl" --recipe "$recipe/traces.yaml" sampling.seed="$seed"
stage importance
mkdir -p "$folder/importance" # the rollouts of another metric are the same: the journal is copied
if [ "$folder" != "$out/pair" ]; then cp -n "$out"/pair/importance/journal.jsonl "$folder/importance/" 2>/dev/null || true; fi
longshort importance "$out/traces.jsonl" --out "$folder/importance" --recipe "$recipe/importance.yaml" \
  rollouts.seed="$seed" "${more[@]}"
scored=$folder/importance
longshort report importance "$scored" >"$scored/first_trace.txt"
stage cold_start
longshort cold-start "$scored" --out "$folder/cold_start" --recipe "$recipe/cold_start.yaml" select.seed="$seed" \
  seed="$seed" "${more[@]}"
data=$folder/cold_start
if [ "$ablation" = shared ]; then
  folder=$out/shared && stage sft_shared # one model for both roles
  sft "$folder/sft_shared" "$recipe" sft_shared data.train_files="[$data/long_train.parquet,$data/short_train.parquet]" \
    data.val_files="[$data/long_val.parquet,$data/short_val.parquet]" trainer.seed="$seed" ${SFT:-}
  long=$folder/sft_shared/model short=$folder/sft_shared/model
else
  for role in long short; do
    stage "sft_$role"
    sft "$folder/sft_$role" "$recipe" "sft_$role" data.train_files="$data/${role}_train.parquet" \
      data.val_files="$data/${role}_val.parquet" trainer.seed="$seed" "${more[@]}" ${SFT:-}
  done
  long=$folder/sft_long/model short=$folder/sft_short/model
fi
stage evaluate # the cold start
evaluate --out "$folder/cold_start_evaluation" solo.path=null long.path="$long" short.path="$short" "${more[@]}" ${EVALUATE:-}
if [ "${RL:-}" = none ]; then exit; fi
stage rl
rl "$folder/rl" "$recipe" rl_pair actor_rollout_ref.model.path="$long" long_short.short.model.path="$short" \
  data.train_files="$out/problems/train.parquet" data.val_files="$out/problems/val.parquet" \
  long_short.seed="$seed" data.seed="$seed" "${more[@]}" ${RL:-}
stage export
longshort export "$folder/rl/global_step_$(cat "$folder/rl/latest_checkpointed_iteration.txt")" --out "$folder/models"
long=$folder/models/long short=$folder/models/short
if [ "$ablation" = shared ]; then long=$folder/models/shared short=$folder/models/shared; fi
stage evaluate
evaluate --out "$folder/evaluation" solo.path=null long.path="$long" short.path="$short" "${more[@]}" ${EVALUATE:-}
printf '\n== done: %s\n' "$folder"
