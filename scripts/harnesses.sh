#!/usr/bin/env bash
# Our model in the harnesses of others, each in an environment of its own: installs one, and has it ask the shipped checkpoint.
#
#   scripts/harnesses.sh [NAME...]      inspect; all of them by default
#
# Environments are .venv-NAME, results go to results/harnesses/NAME. A value that is not as expected ends it with status 1.
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

CHECKPOINT=$ROOT/checkpoints/infini-demo
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# open_environment NAME EXTRAS: installs into .venv-NAME with an extra of ours and what the tests need, and uses it from here on.
open_environment() {
    local environment=$ROOT/.venv-$1
    setup_environment "$environment" "$2"
    "$environment/bin/python" -c 'import hypothesis, pytest, pytest_timeout' 2>/dev/null ||
        run_pip "$environment" "what tests need" -c "$ROOT/constraints.txt" hypothesis pytest pytest-timeout
    export PATH=$environment/bin:$PATH
}

# Inspect: a generated passkey set as one of its tasks, with the memory and without; our runs as its logs; the tests of both.
inspect() {
    local results=$ROOT/results/harnesses/inspect memory
    open_environment inspect inspect
    rm -rf "$results"
    infini-eval generate --tokenizer_path "$CHECKPOINT" --context_length 1k --depths 0:100:25 --num_prompts 4 --num_digits 4,5 \
        --save_path "$results/data" --quiet
    for memory in on ablate; do
        command inspect eval examples/harnesses/inspect/long_context.py -T data="$results/data" \
            --model "infini/$CHECKPOINT" -M memory=$memory --log-dir "$results/logs-$memory" --display plain
        infini-eval run --task passkey --model "$CHECKPOINT" --eval_dataset_path "$results/data" --memory $memory \
            --save_path "$results/runs/$memory" --quiet
    done
    infini-eval export "$results/runs" --format inspect --output "$results/logs-ours"
    python - "$results" <<'PYTHON'
import sys
from inspect_ai.log import list_eval_logs, read_eval_log

results = sys.argv[1]
logs = {name: list_eval_logs(f"{results}/logs-{name}") for name in ("on", "ablate", "ours")}
mean = {name: sorted(read_eval_log(log).results.scores[0].metrics["mean"].value for log in found) for name, found in logs.items()}
print(f"accuracy: {mean['on'][0]:.2f} with the memory, {mean['ablate'][0]:.2f} ablated; our own runs: {mean['ours']}")
sys.exit(mean["ours"] != [*mean["ablate"], *mean["on"]] or mean["on"] != [1.0] or mean["ablate"][0] > 0.3)
PYTHON
    python -m pytest -q -p no:cacheprovider tests/harnesses/test_inspect.py tests/exports/test_inspect.py
}

for name in "${@:-inspect}"; do
    case $name in
        inspect) say "$name" && "$name" ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" ;;
        *) fail "unknown harness '$name'" "scripts/harnesses.sh inspect" ;;
    esac
done
