#!/usr/bin/env bash
# Two tiny agents take turns on arithmetic chains (or on your own problems) and learn, in one verl job with real FSDP2
# actors and real vLLM servers. Run it through `make quickstart`, which sets the environment up.
#   SCHEDULE  which role learns: long_only (default), short_only, alternate or joint
#   PROBLEMS  JSON, JSONL or Parquet with the columns problem and answer, instead of the generated ones
#   OUT       folder for everything that the run writes; a second run writes to OUT-2, and so on
#   further arguments are overrides of the recipe, such as trainer.total_training_steps=10
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/lib.sh

out=${OUT:-outputs/quickstart} run=1
while [ -e "$out" ] && [ -n "$(ls "$out")" ]; do run=$((run + 1)) out=${OUT:-outputs/quickstart}-$run; done
out=$(absolute "$out")
echo "everything that this run writes: $out"
if [ -n "${PROBLEMS:-}" ]; then
  longshort problems "$PROBLEMS" --out "$out/problems"
  # The tiny tokenizer reads bytes, so real problems are long; a batch cannot be larger than the file.
  rows=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["counts"]["train"])' \
    "$out/problems/manifest.json")
  batch=$((rows < 16 ? rows : 16))
  set -- data.max_prompt_length=4096 data.train_batch_size=$batch \
    actor_rollout_ref.actor.ppo_mini_batch_size=$batch "$@"
else
  "$python" recipes/tiny_cpu/make_problems.py --out "$out/problems"
fi
# The pair is saved at the end, to talk with.
rl "$out" recipes/tiny_cpu rl long_short.schedule="${SCHEDULE:-long_only}" \
  trainer.save_freq='${trainer.total_training_steps}' "$@"
cat <<END
everything that was written: $out
to talk with the pair:
  .venv/bin/longshort export $out/global_step_$(cat "$out/latest_checkpointed_iteration.txt") --out $out/pair
  .venv/bin/longshort serve --recipe recipes/tiny_cpu/serve.yaml long.path=$out/pair/long short.path=$out/pair/short
  .venv/bin/python examples/chat.py   # beside it; ask 3+4*2
END
