#!/usr/bin/env bash
# From problems to a trained pair: SEED=1 examples/pipeline.sh RECIPE=recipes/tiny_cpu
# Every command resumes, skips what is finished, and refuses to mix two settings in one output. Nothing is deleted.
#   OUT       folder for all of it (outputs/<recipe>/pipeline); FAMILY: model family of recipes/math, such as llama3_1_8b
#   SEED      seed of every stage (1)
#   PROBLEMS  a file of problems, or a public set by name, such as math_train; NUM_VAL of them are held out
#   ABLATION  a name of recipes/ablations or of the recipe's own options, such as paper; single: that of examples/single.sh
#   SFT, RL, EVALUATE  further overrides of these stages; RL=none ends the pipeline after SFT
set -euo pipefail
. "$(dirname "$0")/lib.sh"
recipe=${RECIPE:-recipes/tiny_cpu} seed=${SEED:-1} ablation=${ABLATION:-} ablations=recipes/ablations config=rl_pair
out=$(absolute "${OUT:-outputs/$(basename "$recipe")${FAMILY:+/$FAMILY}/pipeline}")
case $ablation in single) exec examples/single.sh ;; prompt_only) echo "see recipes/ablations/README.md" >&2 && exit 2 ;; esac
if compgen -G "$recipe/[icrs]*/${ablation:-none}.yaml" >/dev/null; then ablations=$recipe; fi
if [ -n "$ablation" ] && [ ! -f "$recipe/rl_$ablation.yaml" ] && ! compgen -G "$ablations/*/$ablation.yaml" >/dev/null; then
  echo "no ablation $ablation; there are: single $(basename -s .yaml recipes/ablations/*/*.yaml "$recipe"/[icrs]*/*.yaml | xargs)" >&2
  exit 2
fi
search="hydra.searchpath=[pkg://longshort_verl.config,file://$(realpath "$recipe"),file://$PWD/recipes/ablations]"

# From the first stage that the ablation changes on, outputs go to $OUT/<ablation> instead of $OUT/pair.
folder=$out/pair
stage() { # its name; `more` becomes what the ablation adds to its settings
  printf '\n== %s\n' "$1" && more=("${family[@]}")
  if [ -f "$ablations/$1/$ablation.yaml" ]; then folder=$out/$ablation more+=("$search" "+$1=$ablation"); fi
}
evaluate() { # the folder to write, settings
  longshort evaluate "$out/problems/val.parquet" --out "$1" --recipe "$recipe/evaluate.yaml" sampling.seed="$seed" "${@:2}" "${more[@]}" ${EVALUATE:-}
}

stage problems
if [ -n "${PROBLEMS:-}" ]; then longshort problems "$PROBLEMS" --out "$out/problems" ${NUM_VAL:+--num-val "$NUM_VAL"}
else "$python" "$recipe/make_problems.py" --pipeline --out "$out/problems"; fi # without that file, set PROBLEMS
stage solo # the single model, also forced to answer early
of_solo=early_exit && case $ablation in chain_of_draft | tale_ep) of_solo+=,$ablation ;; esac
evaluate "${folder%/pair}/solo" "$search" "+evaluate=[$of_solo]" long.path=null short.path=null
case $ablation in early_exit | chain_of_draft | tale_ep) exit ;; esac
stage traces && traces=$out/traces.jsonl has=$recipe/chains # what the recipe has of its own problems
if [ -z "${PROBLEMS:-}" ] && [ -d "$has" ]; then traces=$has/importance/importance.jsonl
else has=none && longshort traces "$out/problems/train.parquet" --out "$traces" --recipe "$recipe/traces.yaml" sampling.seed="$seed" "${more[@]}"; fi
stage importance && scored=$has/importance
if [ ! -d "$scored" ] || [ -f "$ablations/importance/$ablation.yaml" ]; then
  scored=$folder/importance && mkdir -p "$scored"
  # Another metric needs the same rollouts: the pair's journal is copied, unless the ablation changes the rollouts too.
  if [ "$folder" != "$out/pair" ] && ! grep -qs ^rollouts: "$ablations/importance/$ablation.yaml"; then cp -n "$out/pair/importance/journal.jsonl" "$scored/" 2>/dev/null || true; fi
  longshort importance "$traces" --out "$scored" --recipe "$recipe/importance.yaml" rollouts.seed="$seed" "${more[@]}"
fi
mkdir -p "$folder" && longshort report importance "$scored" >"$folder/first_trace.txt"
stage cold_start && data=$has/pair && if compgen -G "$ablations/[ic]*/${ablation:-none}.yaml" >/dev/null; then data=$has/$ablation; fi
if [ ! -d "$data" ]; then data=$folder/cold_start && longshort cold-start "$scored" --out "$data" --recipe "$recipe/cold_start.yaml" select.seed="$seed" seed="$seed" "${more[@]}"; fi
files() { echo "data.$2_files=[$(printf "$data/%s_$2.parquet," $1 | sed 's/,$//')]"; } # of the roles, of train or val
if [ "$ablation" = shared ]; then folder=$out/shared roles=shared; fi # one model learns from both roles' files
for role in ${roles:-long short}; do
  stage "sft_$role" && of=${role/shared/long short}
  sft "$folder/sft_$role" "$recipe" "sft_$role" "$(files "$of" train)" "$(files "$of" val)" trainer.seed="$seed" "${more[@]}" ${SFT:-}
done
pair=(long.path="$folder/sft_${roles:-long}/model" short.path="$folder/sft_${roles:-short}/model")
stage evaluate # the cold start
evaluate "$folder/cold_start_evaluation" solo.path=null "${pair[@]}"
if [ "${RL:-}" = none ]; then exit; fi
stage rl
if [ -f "$recipe/rl_$ablation.yaml" ]; then config=rl_$ablation folder=$out/$ablation; fi
rl "$folder/rl" "$recipe" "$config" actor_rollout_ref.model.path="${pair[0]#*=}" long_short.short.model.path="${pair[1]#*=}" \
  data.train_files="$out/problems/train.parquet" data.val_files="$out/problems/val.parquet" \
  long_short.seed="$seed" data.seed="$seed" "${more[@]}" ${RL:-}
stage export
longshort export "$folder/rl/global_step_$(cat "$folder/rl/latest_checkpointed_iteration.txt")" --out "$folder/models"
stage evaluate
evaluate "$folder/evaluation" solo.path=null long.path="$folder/models/${roles:-long}" short.path="$folder/models/${roles:-short}"
printf '\n== done: %s\n' "$folder"
