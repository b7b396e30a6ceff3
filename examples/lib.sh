# What pipeline.sh, single.sh and quickstart.sh share: arguments as variables, the environment, verl's two trainers.
for argument in "$@"; do case $argument in [A-Z]*=*) export "${argument?}" ;; esac; done
python=${PYTHON:-.venv/bin/python}
family=(${FAMILY:+"family=$FAMILY"}) # of recipes/math
if "$python" -c 'import sys, torch; sys.exit(torch.cuda.is_available())'; then
  # vLLM would compile its sampler for longer than tiny models run.
  export VERL_PLATFORM=${VERL_PLATFORM:-cpu} TORCHDYNAMO_DISABLE=${TORCHDYNAMO_DISABLE:-1}
  export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
  # Keeps Ray, and with it vLLM's servers, on the loopback interface, on Linux too.
  export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=${RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER:-0}
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
export VLLM_LOGGING_LEVEL=${VLLM_LOGGING_LEVEL:-ERROR}

longshort() { "$python" -m longshort_verl.cli "$@"; }
absolute() { mkdir -p "$1" && (cd "$1" && pwd); }

# Each start of a trainer keeps its long log, and its metrics, in files of its own in the run's folder.
sft() { # the run's folder, the recipe's folder and config, overrides
  local log
  log=$1/run-$(date +%Y%m%dT%H%M%S).log
  mkdir -p "$1"
  "$python" -m torch.distributed.run --standalone --nproc_per_node="${PROCESSES:-1}" \
    -m "${TRAINER:-longshort_verl.adapters.sft.trainer}" --config-dir "$2" --config-name "$3" \
    trainer.default_local_dir="$1" hydra.run.dir="$1/hydra" "${@:4}" >"$log" 2>&1 || { tail -n 40 "$log"; exit 1; }
  { grep -E '^(step [0-9]+, held-out|kept in)|nothing to do$' "$log" || true; } | tail -n 2
}
rl() { # the run's folder, the recipe's folder and config, overrides
  local start job
  start=$(date +%Y%m%dT%H%M%S)
  mkdir -p "$1"
  # A shell starts background processes with SIGINT ignored; `env` restores it, so that Ctrl-C ends the whole job.
  VERL_FILE_LOGGER_PATH="$1/metrics-$start.jsonl" env --default-signal=INT "$python" -m verl.trainer.main_ppo \
    --config-dir "$2" --config-name "$3" trainer.default_local_dir="$1" hydra.run.dir="$1/hydra" "${@:4}" \
    >"$1/run-$start.log" 2>&1 &
  job=$!
  trap 'wait $job' INT
  trap 'kill -INT $job; wait $job' TERM
  longshort report rl "$1" --out "$1/curves.png" --title "$(basename "$2"), $3" --follow "$job" --log "$1/run-$start.log"
  wait $job || { tail -n 40 "$1/run-$start.log"; exit 1; }
  trap - INT TERM
}
