#!/usr/bin/env bash
# Every run behind recipes/tiny_cpu/RESULTS.md, and the page itself: examples/results.sh RECIPE=recipes/tiny_cpu
# What is there already is not run again. Hours on two cores.
#   SEEDS      "1 2 3"; "" makes the page of what is there
#   ABLATIONS  of the seeds; ABLATIONS_1, … of one seed alone
#   KEPT=yes   runs whose dialogues are kept in the recipe's folder `results` are not run again either
set -euo pipefail
for argument in "$@"; do export "${argument?}"; done
recipe=${RECIPE:-recipes/tiny_cpu}
out=${OUT:-outputs/$(basename "$recipe")/results}
seeds=${SEEDS-1 2 3}
all="single random first no_decay short_opens frozen_peer joint no_length importance importance_turn shared"
page=${PAGE:-$recipe}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out" "$page/results"

kept=""
if [ -n "${KEPT:-}" ]; then
  for archive in "$page"/results/*.tar.xz; do
    tar -xJf "$archive" -C "$out"
    kept+=" $(tar -tJf "$archive" | tr '\n' ' ')"
  done
fi
# Seeds outermost: whatever ends this early, each seed that is there is whole.
for seed in $seeds; do
  own=ABLATIONS_$seed
  for ablation in "" ${!own-${ABLATIONS-$all}}; do
    printf '\n==== seed %s, %s\n' "$seed" "${ablation:-pair}"
    case "$kept" in *" $seed/${ablation:-pair}/evaluation/run.json "*) echo "is kept"; continue ;; esac
    RECIPE=$recipe SEED=$seed ABLATION=$ablation OUT=$out/$seed examples/pipeline.sh
  done
done

named=()
for system in solo cold_start pair $all; do
  for folder in "$out"/*/; do
    folder=${folder%/}
    case $system in
      solo) label="" folder+=/solo ;;
      cold_start) label=$system= folder+=/pair/cold_start_evaluation ;;
      *) label=$system= folder+=/$system/evaluation ;;
    esac
    if [ -f "$folder/run.json" ]; then named+=("$label$folder"); fi
  done
done
against=()
if [[ " ${named[*]}" == *" pair="* ]]; then against=(--against pair); fi
"$python" -m longshort_verl.cli report evaluation "${named[@]}" --out "$page/results.png" \
  --results "$page/results.json" --page "$page/RESULTS.md" --title "$(basename "$recipe"): results" \
  --note "$recipe/results_note.md" "${against[@]}"
# All dialogues behind the page, so that they can be read and graded again.
for folder in "$out"/*/; do
  seed=$(basename "$folder")
  (cd "$out" && find "$seed" \( -path '*evaluation/*' -o -path "$seed/solo/*" \) \( -name '*.jsonl' -o -name run.json \)) |
    sort | tar -cJf "$page/results/$seed.tar.xz" --owner=0 --group=0 -C "$out" -T -
done
