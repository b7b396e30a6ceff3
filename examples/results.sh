#!/usr/bin/env bash
# Every run behind recipes/tiny_cpu/RESULTS.md, and the page itself: examples/results.sh RECIPE=recipes/tiny_cpu
# What is there already is not run again. SEEDS and ABLATIONS choose; hours on two cores.
set -euo pipefail
for argument in "$@"; do export "${argument?}"; done
recipe=${RECIPE:-recipes/tiny_cpu}
out=${OUT:-outputs/$(basename "$recipe")/results}
seeds=${SEEDS:-1 2 3}
ablations=${ABLATIONS-single random first no_decay short_opens frozen_peer joint no_length importance importance_turn shared}
page=${PAGE:-$recipe}
python=${PYTHON:-.venv/bin/python}

# Seeds outermost: whatever ends this early, each seed that is there is whole.
for seed in $seeds; do
  for ablation in "" $ablations; do
    printf '\n==== seed %s, %s\n' "$seed" "${ablation:-pair}"
    RECIPE=$recipe SEED=$seed ABLATION=$ablation OUT=$out/$seed examples/pipeline.sh
  done
done

folders=()
for system in solo pair/cold_start_evaluation pair/evaluation $ablations; do
  for seed in $seeds; do
    case $system in
      solo) folder=$out/$seed/solo label="" ;;
      pair/cold_start_evaluation) folder=$out/$seed/$system label="cold_start=" ;;
      pair/evaluation) folder=$out/$seed/$system label="pair=" ;;
      *) folder=$out/$seed/$system/evaluation label="$system=" ;;
    esac
    if [ -d "$folder" ]; then folders+=("$label$folder"); fi
  done
done
"$python" -m longshort_verl.cli report evaluation "${folders[@]}" --out "$page/results.png" \
  --results "$page/results.json" --page "$page/RESULTS.md" --title "$(basename "$recipe"): results" \
  --note "$recipe/results_note.md"
