#!/usr/bin/env bash
# Passkey retrieval of the 300M Infini-Attention model at one context length, all depths; the evaluation ends with its analysis.
#
#   run_passkey_eval_300m.sh [CHECKPOINT] [LENGTH] [SAMPLES] [FLAGS of run_passkey_eval.py...]
#
# Defaults: ./checkpoints/fineweb_4gpu_300m_infini/30000, 1024 tokens, 50 samples a depth. 1024 and 16k have prebuilt data
# sets (a local folder, else the hub); other lengths are generated below ./data. Results: results/passkey_300m_<timestamp>/.
# Environment: NPROC processes (default: every GPU), TP, PP, SEED, MAX_NEW_TOKENS, EVAL_DATASET_PATH, SAVE_PATH, PYTHON.
set -euo pipefail
# shellcheck source=examples/infinite-context-length/scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
case ${1:-} in -h | --help) show_usage "${BASH_SOURCE[0]}" && exit 0 ;; esac

checkpoint=${1:-$DEFAULT_CHECKPOINT}
length=$(count_of LENGTH "${2:-1024}")
samples=$(count_of SAMPLES "${3:-50}")
shift $(($# < 3 ? $# : 3))
folder=${SAVE_PATH:-results/passkey_300m_$(date +%Y%m%d_%H%M%S)}

check_checkpoint "$checkpoint"
find_python
find_processes
choose_data "$length" "$samples" "$checkpoint"
evaluate "$checkpoint" "$samples" "$folder" "$@"
say "results: $folder/summary.json"
