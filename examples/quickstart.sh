#!/usr/bin/env bash
# Two tiny agents take turns on arithmetic chains (or on your own problems) and learn, in one verl job with real FSDP2
# actors and real vLLM servers. Run it through `make quickstart`, which sets the environment up.
#   SCHEDULE  which role learns: long_only (default), short_only, alternate or joint
#   PROBLEMS  JSON, JSONL or Parquet with the columns problem and answer, instead of the generated ones
#   OUT       folder for everything that the run writes
#   further arguments are overrides of the recipe, such as trainer.total_training_steps=10
set -euo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-outputs/quickstart}
schedule=${SCHEDULE:-long_only}
python=.venv/bin/python

export VERL_PLATFORM=cpu OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Keeps Ray on loopback, on Linux too, and with it vLLM's servers.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
mkdir -p "$out"
out=$(cd "$out" && pwd)
export VERL_FILE_LOGGER_PATH="$out/metrics.jsonl"
rm -f "$VERL_FILE_LOGGER_PATH"

if [ -n "${PROBLEMS:-}" ]; then
  .venv/bin/longshort problems "$PROBLEMS" --out "$out/problems"
  # The tiny tokenizer reads bytes, so real problems are long; a batch cannot be larger than the file.
  rows=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["counts"]["train"])' \
    "$out/problems/manifest.json")
  batch=$((rows < 16 ? rows : 16))
  set -- data.max_prompt_length=4096 data.train_batch_size=$batch \
    actor_rollout_ref.actor.ppo_mini_batch_size=$batch "$@"
else
  "$python" recipes/tiny_cpu/make_problems.py --out "$out/problems"
fi

# The pair is kept at the end, to talk with; another run begins anew all the same.
# verl's own main; its output is long, so it goes to a file and a progress bar shows the run. A shell starts background
# processes deaf to Ctrl-C; `env` gives the job its hearing back, so that it ends itself and all its processes.
env --default-signal=INT "$python" -m verl.trainer.main_ppo --config-dir recipes/tiny_cpu --config-name rl \
  long_short.schedule="$schedule" trainer.default_local_dir="$out" hydra.run.dir="$out/hydra" \
  trainer.save_freq='${trainer.total_training_steps}' trainer.resume_mode=disable "$@" \
  >"$out/run.log" 2>&1 &
job=$!
trap 'wait $job' INT
trap 'kill -INT $job; wait $job' TERM
.venv/bin/longshort report rl "$out/metrics.jsonl" --out "$out/curves.png" --title "tiny_cpu, $schedule" \
  --follow "$job" --log "$out/run.log"
wait $job
echo "everything that was written: $out"
step=$(cat "$out/latest_checkpointed_iteration.txt" 2>/dev/null || true)
if [ -n "$step" ]; then
  cat <<EOF
to talk with the pair:
  .venv/bin/longshort export $out/global_step_$step --out $out/pair
  .venv/bin/longshort serve --recipe recipes/tiny_cpu/serve.yaml long.path=$out/pair/long short.path=$out/pair/short
  .venv/bin/python examples/chat.py   # beside it; ask 3+4*2
EOF
fi
