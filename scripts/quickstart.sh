#!/usr/bin/env bash
# From a fresh clone to results without a GPU: makes .venv, installs, and evaluates the shipped checkpoint over torchrun with
# two processes at 1k and 16k tokens, with its memory on and ablated. Writes results/quickstart/<length>-<memory>/.
#
#   scripts/quickstart.sh [--fresh]      --fresh evaluates again what is already finished
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

case ${1:-} in
    "" | --fresh) ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) fail "unknown argument '$1'" "scripts/quickstart.sh [--fresh]" ;;
esac

example=examples/infinite-context-length
checkpoint=checkpoints/infini-demo
results=results/quickstart

# Prints --overwrite where a finished run is older than the checkpoint or the data; nothing where it can stand or go on.
overwrite_flag() {
    local summary=$1/summary.json data=$2
    if [ -f "$summary" ] && [ -n "$(find "$checkpoint" "$data" -newer "$summary" -type f -print -quit)" ]; then
        echo --overwrite
    fi
}

# last_progress LOG: the last line of a log that says how far its run is, without date and rank.
last_progress() {
    local line
    line=$(grep -E '\]: ([0-9]+/[0-9]+ samples|loading|tokenising)' "$1" 2>/dev/null | tail -n 1) || true
    printf '%s' "${line:+${line#*]: }}"
    [ -n "$line" ] || printf 'starting two processes and reading the data'
}

# evaluate LENGTH MEMORY: one run; its log lies beside the run folder.
evaluate() {
    local length=$1 memory=$2 data folder log began=$SECONDS overwrite samples=10
    [ "$length" = 1k ] || samples=5 # of each depth; 105 long prompts say enough, and leave time on a slow machine
    folder=$results/$length-$memory
    log=$folder.log
    data=$example/data/demo-${length/#1k/1024}-passkey-eval
    overwrite=$(overwrite_flag "$folder" "$data")
    if [ -f "$folder/summary.json" ] && [ -z "$overwrite" ]; then
        say "$length tokens, memory $memory: already finished (--fresh evaluates again)"
        return
    fi
    say "$length tokens, memory $memory: evaluating; log in $log"
    mkdir -p "$results"
    pulse last_progress "$log"
    infini-eval launch -n 2 "$example/scripts/run_passkey_eval.py" \
        --ckpt-path "$checkpoint" --eval_dataset_path "$data" --save_path "$folder" --progress-every "$PULSE_S" \
        --dp 2 --memory "$memory" --num_samples "$samples" --max-new-tokens 15 --quiet ${overwrite:+"$overwrite"} >"$log" 2>&1 || {
        end_pulse
        grep -m 1 -A 3 '^error: ' "$log" >&2 || tail -n 25 "$log" >&2
        fail "the evaluation of $length tokens with memory $memory failed" "see $log; the same command continues it"
    }
    end_pulse
    say "$length tokens, memory $memory: done in $((SECONDS - began)) s"
}

# Prints one line a run from the summaries.
print_overview() {
    python - "$results" <<'PYTHON'
import json, pathlib, sys

print(f"\n{'context':>8}  {'memory':<8}{'accuracy':>9}  95 % interval")
for name in ("1k-on", "1k-ablate", "16k-on", "16k-ablate"):
    summary = json.loads(pathlib.Path(sys.argv[1], name, "summary.json").read_text())
    stats, (length, memory) = summary["summary_stats"], name.split("-")
    interval = f"[{stats['average_ci_low']:.1f}, {stats['average_ci_high']:.1f}] (n={summary['total_samples']})"
    print(f"{length:>8}  {memory:<8}{stats['average_accuracy']:>7.1f} %  {interval}")
PYTHON
}

setup_environment "$ROOT/.venv"
export PATH="$ROOT/.venv/bin:$PATH" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} CUDA_DEVICE_MAX_CONNECTIONS=1
[ "${1:-}" != --fresh ] || rm -rf "$results"

for length in 1k 16k; do
    for memory in on ablate; do
        evaluate "$length" "$memory"
    done
done
for length in 1k 16k; do
    for memory in on ablate; do
        python "$example/scripts/analyze_passkey_results.py" "$results/$length-$memory" --html
    done
done
for length in 1k 16k; do
    say "$length tokens: with the memory (A) against without it (B)"
    infini-eval compare "$results/$length-on" "$results/$length-ablate"
done
print_overview
cat <<END

==> finished in $SECONDS s; everything lies in $results/
    page:      $ROOT/$results/16k-on/report.html (open it in a browser; one beside each run)
    browse:    .venv/bin/infini-eval view $results          all runs: filter, compare, read samples
    look why:  .venv/bin/infini-eval diagnose --ckpt-path $checkpoint --eval_dataset_path $example/data/demo-16k-passkey-eval --depths 50 --num_samples 1
    your own:  .venv/bin/infini-eval grid --ckpt-path CHECKPOINT --context_length 4k 16k --depth_percent 0 50 100 --num_shots 5 --num_digits 5
    help:      .venv/bin/infini-eval help          all commands; docs/start.md goes on from here
END
