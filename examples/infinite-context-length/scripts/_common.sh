# shellcheck shell=bash
# Sourced by the wrappers beside it: finds Python and GPUs, checks the checkpoint, makes or finds data, evaluates.
#
# The wrappers work in the folder they are called from: ./checkpoints, ./results, ./data and local data sets lie there.

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$SCRIPTS/../../.." && pwd)
# shellcheck disable=SC2034  # the wrappers use it
DEFAULT_CHECKPOINT=./checkpoints/fineweb_4gpu_300m_infini/30000
SEED=${SEED:-42}
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-15}
export CUDA_DEVICE_MAX_CONNECTIONS=1

say() { printf '%s\n' "==> $*"; }

# fail PROBLEM [NEXT_STEP...]: a user's mistake; exit status 2.
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  next:  %s\n' "$@" >&2
    exit 2
}

# show_usage FILE: the comment at the top of a wrapper.
show_usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$1"; }

# Sets PYTHON: the caller's choice, else the active environment, else the repository's .venv.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python python3 "$REPOSITORY/.venv/bin/python"}; do
        if "$candidate" -c 'import infini_eval' 2>/dev/null; then
            PYTHON=$candidate
            return
        fi
    done
    fail "infini_eval is not installed${PYTHON:+ for PYTHON=$PYTHON}" \
        "pip install -c constraints.txt -e $REPOSITORY   (or $REPOSITORY/scripts/quickstart.sh)"
}

# check_numbers: the environment's numbers are numbers; k and m are read as suffixes.
check_numbers() {
    local name value
    for name in NPROC TP PP DP MAX_NEW_TOKENS; do
        [ -n "${!name:-}" ] || continue
        value=$(count_of "$name" "${!name}") || exit 2
        printf -v "$name" '%s' "$value"
    done
    case $SEED in '' | *[!0-9]*) fail "SEED '$SEED' is not a whole number of at least 0" ;; esac
}

# Sets NPROC (the caller's choice, else the GPUs that torch can use, else one or two CPU processes) and DP.
find_processes() {
    local gpus cores
    check_numbers
    if [ -z "${NPROC:-}" ]; then
        gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())') || fail "torch cannot be imported"
        cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
        NPROC=$((gpus > 0 ? gpus : cores > 1 ? 2 : 1))
        [ "$gpus" -gt 0 ] || say "no GPU found: computing on the CPU"
        if [ "$gpus" -eq 0 ] && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
            say "warning: nvidia-smi lists GPUs that torch cannot use (a CPU build of torch, or CUDA_VISIBLE_DEVICES)"
        fi
    fi
    TP=${TP:-1} PP=${PP:-1}
    DP=${DP:-$((NPROC / (TP * PP)))}
    [ $((DP * TP * PP)) -eq "$NPROC" ] || fail "$NPROC processes cannot be divided into TP=$TP x PP=$PP (x DP=$DP)" \
        "set NPROC to a multiple of TP x PP"
}

is_checkpoint() { [ -f "$1/config.yaml" ] || [ -f "$1/latest.txt" ]; }

# check_checkpoint DIR: an error that lists the checkpoints there are, where DIR is none.
check_checkpoint() {
    local found
    is_checkpoint "$1" && return
    printf "error: no checkpoint at '%s' (a step folder holds config.yaml, its parent latest.txt)\n" "$1" >&2
    # find fails where a folder is missing, and still prints what the other one holds
    found=$({ find ./checkpoints "$(dirname "$1")" -maxdepth 3 -name config.yaml 2>/dev/null || true; } |
        sed 's|/config.yaml$||' | sort -Vu)
    if [ -n "$found" ]; then
        printf '  available:\n' >&2
        printf '%s\n' "$found" | sed 's/^/    /' >&2
    else
        printf '  available: none below ./checkpoints\n' >&2
    fi
    printf '  next:  %s CHECKPOINT\n' "$0" >&2
    exit 2
}

# count_of NAME TEXT: TEXT as a whole number above 0, where k is 1,024 and m 1,048,576.
count_of() {
    local number=${2%[kKmM]} factor=1
    case $2 in *[kK]) factor=1024 ;; *[mM]) factor=1048576 ;; esac
    case $number in "" | 0* | *[!0-9]*) fail "$1 '$2' is not a whole number above 0 (valid: 1024, 16k, 1m)" ;; esac
    echo $((number * factor))
}

# make_data LENGTH SAMPLES DEPTHS CHECKPOINT: generates a data set below ./data unless it is there; sets DATASET.
make_data() {
    local length=$1 samples=$2 depths=$3 checkpoint=$4 name
    name=$length-$samples-seed$SEED-$(printf '%s %s' "$depths" "$(cd "$checkpoint" && pwd)" | cksum | cut -d ' ' -f 1)
    DATASET=${DATA_DIR:-./data}/passkey-$name/train-00000-of-00001.parquet
    if [ -f "$DATASET" ]; then
        say "using the data made before: $DATASET (remove it to have it made again)"
        return
    fi
    say "generating $samples prompts of $length tokens for each of the depths $depths: $DATASET"
    "$PYTHON" -m infini_eval generate --tokenizer_path "$checkpoint" --context_length "$length" \
        --depths "$depths" --num_prompts "$samples" --seed "$SEED" --save_path "$DATASET"
}

# choose_data LENGTH SAMPLES CHECKPOINT: the prebuilt set of that length, or a generated one; sets DATASET.
choose_data() {
    local length=$1 hub_name=
    case $length in
        1024) hub_name=llama3-1024-passkey-retrieval-eval ;;
        16384) hub_name=llama3-16k-passkey-retrieval-eval ;;
    esac
    if [ -n "${EVAL_DATASET_PATH:-}" ]; then
        DATASET=$EVAL_DATASET_PATH
    elif [ -n "$hub_name" ] && [ -d "./$hub_name" ]; then
        DATASET=./$hub_name
    elif [ -n "$hub_name" ] && [ "${HF_HUB_OFFLINE:-0}" = 0 ]; then
        DATASET=nanotron/$hub_name
    else
        [ -z "$hub_name" ] || say "no ./$hub_name and HF_HUB_OFFLINE is set: a data set is generated instead"
        make_data "$length" "$2" 0:100:5 "$3"
    fi
}

# evaluate CHECKPOINT SAMPLES RUN_FOLDER [FLAGS...]: one launch over $DATASET; its status is the evaluation's.
evaluate() {
    local checkpoint=$1 samples=$2 folder=$3
    shift 3
    say "evaluating $checkpoint on $DATASET: $NPROC processes (dp=$DP tp=$TP pp=$PP), results in $folder"
    "$PYTHON" -m infini_eval launch -n "$NPROC" "$SCRIPTS/run_passkey_eval.py" \
        --ckpt-path "$checkpoint" --save_path "$folder" --eval_dataset_path "$DATASET" \
        --num_shots 0 --num_digits 0 --seed "$SEED" --num_samples "$samples" --max-new-tokens "$MAX_NEW_TOKENS" \
        --dp "$DP" --tp "$TP" --pp "$PP" "$@"
}
