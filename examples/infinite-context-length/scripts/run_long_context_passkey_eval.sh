#!/usr/bin/env bash
# Passkey retrieval far beyond the training length, on generated data, at depths 0, 25, 50, 75 and 100.
# The evaluation ends with its analysis.
#
#   run_long_context_passkey_eval.sh [CHECKPOINT] [LENGTH] [SAMPLES] [FLAGS of run_passkey_eval.py...]
#
# Defaults: ./checkpoints/fineweb_4gpu_300m_infini/30000, 32768 tokens (128k and 1m work too), 25 samples a depth.
# Data: ./data/passkey-*. Results: results/passkey_long_<length>_<timestamp>/. Environment: as run_passkey_eval_300m.sh.
set -euo pipefail
# shellcheck source=examples/infinite-context-length/scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
case ${1:-} in -h | --help) show_usage "${BASH_SOURCE[0]}" && exit 0 ;; esac

checkpoint=${1:-$DEFAULT_CHECKPOINT}
length=$(count_of LENGTH "${2:-32768}")
samples=$(count_of SAMPLES "${3:-25}")
shift $(($# < 3 ? $# : 3))
depths=0,25,50,75,100
folder=${SAVE_PATH:-results/passkey_long_${length}_$(date +%Y%m%d_%H%M%S)}

check_checkpoint "$checkpoint"
find_python
find_processes
if [ -n "${EVAL_DATASET_PATH:-}" ]; then
    DATASET=$EVAL_DATASET_PATH
else
    make_data "$length" "$samples" "$depths" "$checkpoint"
fi
evaluate "$checkpoint" "$samples" "$folder" --depths "$depths" --batch_size 1 "$@"
say "results: $folder/summary.json"
