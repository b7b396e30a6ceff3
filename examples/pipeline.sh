#!/usr/bin/env bash
# From problems to two role models: RECIPE=recipes/tiny_cpu examples/pipeline.sh
# Each stage reads what the one before wrote; all of it lies in OUT. PROBLEMS=mine.json brings problems of your own.
# KEEP=random (or first, all) makes a baseline of the same traces in OUT/$KEEP; SEED=2 draws anew.
set -euo pipefail
for argument in "$@"; do export "${argument?}"; done # also as examples/pipeline.sh RECIPE=recipes/tiny_cpu
recipe=${RECIPE:-recipes/tiny_cpu}
out=${OUT:-outputs/$(basename "$recipe")/pipeline}
seed=${SEED:-1}
keep=${KEEP:-important}
python=${PYTHON:-.venv/bin/python}
processes=${PROCESSES:-1} # devices that SFT runs on
if "$python" -c 'import sys, torch; sys.exit(torch.cuda.is_available())'; then
  # vLLM would compile its sampler for longer than tiny models run.
  export VERL_PLATFORM=${VERL_PLATFORM:-cpu} TORCHDYNAMO_DISABLE=${TORCHDYNAMO_DISABLE:-1}
  export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
export VLLM_LOGGING_LEVEL=${VLLM_LOGGING_LEVEL:-ERROR}
longshort=("$python" -m longshort_verl.cli)
mkdir -p "$out"

stage() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

stage "problems"
if [ -n "${PROBLEMS:-}" ]; then
  "${longshort[@]}" problems "$PROBLEMS" --out "$out/problems"
else
  "$python" "$recipe/make_problems.py" --pipeline --out "$out/problems"
fi

stage "long chains of thought"
"${longshort[@]}" traces "$out/problems/train.parquet" --out "$out/traces.jsonl" --recipe "$recipe/traces.yaml" \
  sampling.seed="$seed"

stage "thoughts, and what each is worth"
"${longshort[@]}" importance "$out/traces.jsonl" --out "$out/importance" --recipe "$recipe/importance.yaml" \
  rollouts.seed="$seed"
"${longshort[@]}" report importance "$out/importance" >"$out/importance/first_trace.txt"

run=$out/$keep
stage "cold-start data: $keep thoughts"
"${longshort[@]}" cold-start "$out/importance" --out "$run/cold_start" --recipe "$recipe/cold_start.yaml" \
  select.keep="$keep" select.seed="$seed" seed="$seed"

for role in long short; do
  stage "SFT of the $role role"
  "$python" -m torch.distributed.run --standalone --nproc_per_node="$processes" \
    -m longshort_verl.adapters.sft_trainer --config-dir "$recipe" --config-name "sft_$role" \
    data.train_files="$run/cold_start/${role}_train.parquet" data.val_files="$run/cold_start/${role}_val.parquet" \
    trainer.default_local_dir="$run/sft_$role" hydra.run.dir="$run/sft_$role/hydra" >"$run/sft_$role.log" 2>&1 ||
    { tail -n 40 "$run/sft_$role.log"; exit 1; }
  grep -E '^(step [0-9]+, held-out|kept in)' "$run/sft_$role.log" | tail -n 2
done

stage "the pair on held-out problems"
"${longshort[@]}" evaluate "$out/problems/val.parquet" --out "$run/evaluation" --recipe "$recipe/evaluate.yaml" \
  long.path="$run/sft_long/model" short.path="$run/sft_short/model" sampling.seed="$seed" ${EVALUATE:-}
stage "done: $run"
