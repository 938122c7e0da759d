#!/usr/bin/env bash
# Runs the Llama 4 Scout tests in a container.
#
#   ./run-docker.sh setup             build the image, then the interactive setup
#   ./run-docker.sh compare N         compare at N characters in test mode (load and tokenise only)
#   ./run-docker.sh compare-full N    compare at N characters with generation
#   ./run-docker.sh llama             long_context_test.py
#   ./run-docker.sh shell             a shell in the container
#
# GEMINI_API_KEY, HF_TOKEN, MODEL_ID, TARGET_CHAR_COUNT and the other variables of long_context_test.py are handed in.
# Results are in ./comparison_results, models in ./hf_cache. DRY_RUN=1 prints the docker command instead of running it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$(basename "${BASH_SOURCE[0]}")"; }

fail() {
    printf 'error: %s\n' "$1" >&2
    printf '  next:  %s\n' "$2" >&2
    exit 2
}

# Sets COMPOSE: docker compose, or the older docker-compose.
find_compose() {
    if [ -n "${DRY_RUN:-}" ]; then
        COMPOSE=(echo docker compose)
    elif docker compose version >/dev/null 2>&1; then
        COMPOSE=(docker compose)
    elif command -v docker-compose >/dev/null; then
        COMPOSE=(docker-compose)
    else
        fail "docker compose was not found" "install Docker with its compose plugin, or use ./setup_and_run.sh"
    fi
}

# scout COMMAND...: a command in the container. Folders that docker makes for a mount would belong to root.
scout() {
    find_compose
    [ -n "${DRY_RUN:-}" ] || mkdir -p comparison_results hf_cache offload_folder
    "${COMPOSE[@]}" run --rm scout "$@"
}

check_gpus() {
    [ -n "${DRY_RUN:-}" ] && return
    docker info 2>/dev/null | grep -qi nvidia ||
        printf '==> warning: docker knows no nvidia runtime; without the NVIDIA Container Toolkit there are no GPUs inside\n' >&2
}

# size N: checks a number of characters.
size() {
    case ${1:-} in
        '' | [!0-9]* | *[!0-9_kKmM]* | *[kKmM]?*) fail "'${1:-}' is not a number of characters" "./run-docker.sh compare 100k" ;;
    esac
}

case ${1:-} in
    '' | -h | --help) usage ;;
    setup)
        find_compose
        check_gpus
        "${COMPOSE[@]}" build
        scout ./setup_and_run.sh "${@:2}"
        ;;
    compare | compare-full)
        size "${2:-}"
        check_gpus
        flags=(--char-count "$2")
        [ "$1" = compare-full ] || flags+=(--test-mode)
        [ -n "${GEMINI_API_KEY:-}" ] || flags+=(--llama-only)
        scout python model_comparison.py "${flags[@]}" "${@:3}"
        ;;
    llama)
        check_gpus
        scout python long_context_test.py "${@:2}"
        ;;
    shell) scout bash ;;
    *)
        usage >&2
        fail "unknown command '$1'" "./run-docker.sh setup | compare N | compare-full N | llama | shell"
        ;;
esac
