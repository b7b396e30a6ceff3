#!/usr/bin/env bash
# From problems to a trained pair: RECIPE=recipes/tiny_cpu examples/pipeline.sh
# Each stage reads what the one before wrote; all of it lies in OUT, and what is there already is not made again.
#   SEED      of everything that is drawn (1)
#   PROBLEMS  mine.json: problems of your own; or a public set by name, such as math_train
#   NUM_VAL   how many of PROBLEMS are held out
#   ABLATION  a name of recipes/ablations or of the recipe's own options, from the same chains of thought; or single: one
#             model by itself under GRPO
#   SFT       further overrides of the recipes of SFT
#   RL        further overrides of the recipe of RL; none leaves RL out
set -euo pipefail
for argument in "$@"; do export "${argument?}"; done # also as examples/pipeline.sh RECIPE=recipes/tiny_cpu
recipe=${RECIPE:-recipes/tiny_cpu}
out=${OUT:-outputs/$(basename "$recipe")/pipeline}
seed=${SEED:-1}
ablation=${ABLATION:-}
ablations=recipes/ablations
if [ -n "$ablation" ] && compgen -G "$recipe/*/$ablation.yaml" >/dev/null; then ablations=$recipe; fi
search="hydra.searchpath=[pkg://longshort_verl.config,file://$PWD/$ablations]"
python=${PYTHON:-.venv/bin/python}
processes=${PROCESSES:-1} # devices that SFT runs on
if "$python" -c 'import sys, torch; sys.exit(torch.cuda.is_available())'; then
  # vLLM would compile its sampler for longer than tiny models run.
  export VERL_PLATFORM=${VERL_PLATFORM:-cpu} TORCHDYNAMO_DISABLE=${TORCHDYNAMO_DISABLE:-1}
  export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
  # Keeps Ray on loopback, on Linux too, and with it vLLM's servers.
  export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=${RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER:-0}
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
export VLLM_LOGGING_LEVEL=${VLLM_LOGGING_LEVEL:-ERROR}
longshort=("$python" -m longshort_verl.cli)
mkdir -p "$out"
out=$(cd "$out" && pwd)
told="SEED=$seed${PROBLEMS:+ PROBLEMS=$PROBLEMS}${NUM_VAL:+ NUM_VAL=$NUM_VAL} examples/pipeline.sh RECIPE=$recipe"

if [ -n "$ablation" ] && [ "$ablation" != single ] && ! compgen -G "$ablations/*/$ablation.yaml" >/dev/null; then
  echo "there is no ablation $ablation; there are: single $(find "$ablations" "$recipe" -mindepth 2 -name '*.yaml' \
    -exec basename {} .yaml \; | sort -u | tr '\n' ' ')" >&2
  exit 2
fi
changes() { [ -f "$ablations/$1/$ablation.yaml" ]; } # does the ablation change this stage?

# Runs a command, unless it was run to its end before: the same one, with the same recipe and after the same stages. What
# broke off goes on where the command can; what is there of another one is removed. Arguments: the stage, its recipe, what
# it writes, the command. `key` stands for all stages so far, `spent` for their seconds.
key='' spent=0
once() {
  local stage=$1 files=("$recipe/$2") mark=$3.done began=$SECONDS
  shift 3
  if [ -f "$recipe/dialogue.yaml" ]; then files+=("$recipe/dialogue.yaml"); fi
  if [ -n "${PROBLEMS:-}" ]; then files+=("$PROBLEMS"); fi
  if changes "$stage"; then
    files+=("$ablations/$stage/$ablation.yaml")
    set -- "$@" "$search" "+$stage=$ablation"
  fi
  key=$({ echo "$key $*"; cat "${files[@]}" 2>/dev/null || true; } | cksum | tr ' ' -)
  local done_key='' seconds=''
  if [ -f "$mark" ]; then read -r done_key seconds <"$mark" || true; fi
  printf '\n== %s: %s\n' "$stage" "${mark%.done}"
  if [ "$done_key" != "$key" ]; then
    rm -rf "${mark%.done}" "${mark%.done}".*
    echo "$key" >"$mark"
    seconds=''
  fi
  if [ -n "$seconds" ]; then
    echo "is there already"
  else
    "$@"
    seconds=$((SECONDS - began))
    echo "$key $seconds" >"$mark"
  fi
  spent=$((spent + seconds))
}

# verl's trainers print a lot: it goes to a file, of which the end is shown where they fail.
sft() { # the run's folder, the role
  "$python" -m torch.distributed.run --standalone --nproc_per_node="$processes" \
    -m longshort_verl.adapters.sft.trainer --config-dir "$recipe" --config-name "sft_$2" \
    trainer.default_local_dir="$1/sft_$2" hydra.run.dir="$1/sft_$2/hydra" "${@:3}" >"$1/sft_$2.log" 2>&1 ||
    { tail -n 40 "$1/sft_$2.log"; exit 1; }
  # Neither is there where a run goes on that had only its mark left to set.
  { grep -E '^(step [0-9]+, held-out|kept in)' "$1/sft_$2.log" || echo "was trained already"; } | tail -n 2
}
rl() { # the folder, the recipe's name
  mkdir -p "$1"
  rm -f "$1/metrics.jsonl"
  # A shell starts background processes deaf to Ctrl-C; `env` gives the job its hearing back, so that it ends itself.
  VERL_FILE_LOGGER_PATH="$1/metrics.jsonl" env --default-signal=INT "$python" -m verl.trainer.main_ppo \
    --config-dir "$recipe" --config-name "$2" trainer.default_local_dir="$1" hydra.run.dir="$1/hydra" "${@:3}" \
    >"$1/run.log" 2>&1 &
  local job=$!
  trap 'wait $job' INT
  trap 'kill -INT $job; wait $job' TERM
  "${longshort[@]}" report rl "$1/metrics.jsonl" --out "$1/curves.png" --title "$(basename "$recipe"), ${ablation:-pair}" \
    --follow "$job" --log "$1/run.log"
  wait $job
  trap - INT TERM
}
measure() { # the folder, settings
  "${longshort[@]}" evaluate "$out/problems/val.parquet" --out "$1" --recipe "$recipe/evaluate.yaml" \
    --command "$told" --seconds "$spent" sampling.seed="$seed" "${@:2}" ${EVALUATE:-}
}
evaluate() { # the stage (solo where no ablation concerns it), the folder, settings
  local before="$key" seconds=$spent
  once "$1" evaluate.yaml "$2" measure "${@:2}"
  key=$before spent=$seconds # nothing is made from a measurement
}

if [ -z "${PROBLEMS:-}" ] && [ ! -f "$recipe/make_problems.py" ]; then
  echo "$recipe makes no problems of its own; set PROBLEMS, to a file or to a public set (longshort problems --help)" >&2
  exit 2
elif [ -n "${PROBLEMS:-}" ]; then
  once problems make_problems.py "$out/problems" "${longshort[@]}" problems "$PROBLEMS" --out "$out/problems" \
    ${NUM_VAL:+--num-val "$NUM_VAL"}
else
  once problems make_problems.py "$out/problems" "$python" "$recipe/make_problems.py" --pipeline --out "$out/problems"
fi
data=(data.train_files="$out/problems/train.parquet" data.val_files="$out/problems/val.parquet")
run=$out/${ablation:-pair}
if [ "$ablation" != early_exit ]; then mkdir -p "$run"; fi

if [ "$ablation" = single ]; then
  told="ABLATION=single ${RL:+RL='$RL' }$told"
  if [ -n "${PROBLEMS:-}" ]; then
    # It learns from what it is asked afterwards.
    suffix=$("$python" -c 'import sys; from pathlib import Path
from longshort_verl.evaluation.config import read_evaluate
sys.stdout.write(read_evaluate(Path(sys.argv[1]), []).sampling.solo_suffix)' "$recipe/evaluate.yaml")
    once problems make_problems.py "$run/problems" "${longshort[@]}" problems "$PROBLEMS" --out "$run/problems" \
      ${NUM_VAL:+--num-val "$NUM_VAL"} --suffix "$suffix"
    data=(data.train_files="$run/problems/train.parquet" data.val_files="$run/problems/val.parquet")
  fi
  once rl single.yaml "$run/rl" rl "$run/rl" single "${data[@]}" data.seed="$seed" ${RL:-}
  model=$run/rl/global_step_$(cat "$run/rl/latest_checkpointed_iteration.txt")/actor/huggingface
  evaluate evaluate "$run/evaluation" long.path=null short.path=null solo.path="$model"
  exit
fi
# The model by itself, which the others are compared with, and where it is made to answer early.
evaluate solo "$out/solo" "$search" +evaluate=early_exit long.path=null short.path=null
if [ "$ablation" = early_exit ]; then exit; fi
told="${ablation:+ABLATION=$ablation }${SFT:+SFT='$SFT' }${RL:+RL='$RL' }$told"

once traces traces.yaml "$out/traces" "${longshort[@]}" traces "$out/problems/train.parquet" --out "$out/traces.jsonl" \
  --recipe "$recipe/traces.yaml" sampling.seed="$seed"
importance() { # the folder, settings
  mkdir -p "$1"
  # The rollouts of another metric are the same, and are not made again.
  if [ "$1" != "$out/importance" ] && [ -f "$out/importance/journal.jsonl" ]; then
    cp "$out/importance/journal.jsonl" "$1/"
  fi
  "${longshort[@]}" importance "$out/traces.jsonl" --out "$1" --recipe "$recipe/importance.yaml" \
    rollouts.seed="$seed" "${@:2}"
  "${longshort[@]}" report importance "$1" >"$1/first_trace.txt"
}
scored=$out/importance
if changes importance; then scored=$run/importance; fi
once importance importance.yaml "$scored" importance "$scored"

# Data and models of the cold start are the pair's own, where the ablation changes nothing up to there.
cold=$out/pair
if changes importance || changes cold_start || changes sft_long; then cold=$run; fi
mkdir -p "$cold"
once cold_start cold_start.yaml "$cold/cold_start" "${longshort[@]}" cold-start "$scored" --out "$cold/cold_start" \
  --recipe "$recipe/cold_start.yaml" select.seed="$seed" seed="$seed"
transcripts=$cold/cold_start
if [ "$ablation" = shared ]; then
  once sft_shared sft_shared.yaml "$run/sft_shared" sft "$run" shared \
    data.train_files="[$transcripts/long_train.parquet,$transcripts/short_train.parquet]" \
    data.val_files="[$transcripts/long_val.parquet,$transcripts/short_val.parquet]" trainer.seed="$seed" ${SFT:-}
  long=$run/sft_shared/model short=$run/sft_shared/model
  cold=$run
else
  for role in long short; do
    once "sft_$role" "sft_$role.yaml" "$cold/sft_$role" sft "$cold" "$role" \
      data.train_files="$transcripts/${role}_train.parquet" data.val_files="$transcripts/${role}_val.parquet" \
      trainer.seed="$seed" ${SFT:-}
  done
  long=$cold/sft_long/model short=$cold/sft_short/model
fi
models=(actor_rollout_ref.model.path="$long" long_short.short.model.path="$short")
if [ "$cold" = "$run" ]; then
  evaluate evaluate "$run/cold_start_evaluation" solo.path=null long.path="$long" short.path="$short"
fi

if [ "${RL:-}" != none ]; then
  once rl rl_pair.yaml "$run/rl" rl "$run/rl" rl_pair "${models[@]}" "${data[@]}" \
    long_short.seed="$seed" data.seed="$seed" ${RL:-}
  last=$run/rl/global_step_$(cat "$run/rl/latest_checkpointed_iteration.txt")
  once export rl_pair.yaml "$run/models" "${longshort[@]}" export "$last" --out "$run/models"
  long=$run/models/long short=$run/models/short
  if [ "$ablation" = shared ]; then long=$run/models/shared short=$run/models/shared; fi
  evaluate evaluate "$run/evaluation" solo.path=null long.path="$long" short.path="$short"
fi
printf '\n== done: %s\n' "$run"
