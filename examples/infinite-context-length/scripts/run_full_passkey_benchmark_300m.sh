#!/usr/bin/env bash
# Passkey retrieval of the 300M Infini-Attention model at 1K, 2K, 4K and 8K tokens, and one report of them all.
#
#   run_full_passkey_benchmark_300m.sh [CHECKPOINT] [SAMPLES] [FLAGS of run_passkey_eval.py...]
#
# Defaults: ./checkpoints/fineweb_4gpu_300m_infini/30000, 50 samples a depth. A length that fails does not stop the others,
# but the exit status is 1 then. Results: results/passkey_full_300m_<timestamp>/: report.html, report.txt and summary.json of
# all lengths, and a folder for each. Environment: as run_passkey_eval_300m.sh, and LENGTHS (default "1024 2048 4096 8192").
set -euo pipefail
# shellcheck source=examples/infinite-context-length/scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
case ${1:-} in -h | --help) show_usage "${BASH_SOURCE[0]}" && exit 0 ;; esac

checkpoint=${1:-$DEFAULT_CHECKPOINT}
samples=$(count_of SAMPLES "${2:-50}")
shift $(($# < 2 ? $# : 2))
folder=${SAVE_PATH:-results/passkey_full_300m_$(date +%Y%m%d_%H%M%S)}
[ -z "${EVAL_DATASET_PATH:-}" ] || fail "EVAL_DATASET_PATH cannot serve several lengths" "unset EVAL_DATASET_PATH"

check_checkpoint "$checkpoint"
find_python
find_processes
failed=()
for length in ${LENGTHS:-1024 2048 4096 8192}; do
    length=$(count_of LENGTHS "$length")
    { choose_data "$length" "$samples" "$checkpoint" && evaluate "$checkpoint" "$samples" "$folder/$length" --brief "$@"; } ||
        failed+=("$length")
done
if [ -d "$folder" ]; then
    "$PYTHON" "$SCRIPTS/analyze_passkey_results.py" "$folder" --html || failed+=(analysis)
fi
if [ ${#failed[@]} -gt 0 ]; then
    printf 'error: failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
say "results: $folder"
