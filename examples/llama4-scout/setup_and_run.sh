#!/usr/bin/env bash
# Prepares an environment, says what is missing, shows what fits, and runs the comparison; asks where nothing was said.
#
#   ./setup_and_run.sh [-y] [flags of model_comparison.py]
#
# -y takes the defaults without asking: 10,000 characters, the local model only, test mode. PYTHON chooses the interpreter.
# An environment that has infini_eval is used; packages that the comparison needs and that it lacks are installed into it.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)
MODEL_ID=${MODEL_ID:-meta-llama/Llama-4-Scout-17B-16E-Instruct}
export MODEL_ID

say() { printf '%s\n' "==> $*"; }

# ask QUESTION DEFAULT: the answer on stdout; the default where nobody can be asked.
ask() {
    local answer=''
    if [ "$interactive" = yes ]; then
        read -r -p "$1 [$2] " answer </dev/tty || true
    fi
    printf '%s\n' "${answer:-$2}"
}

# with_constraints PYTHON PACKAGE...: pip install, within the versions that the tests ran with where they are at hand.
with_constraints() {
    local python=$1 constraints=()
    shift
    [ ! -f "$REPOSITORY/constraints.txt" ] || constraints=(-c "$REPOSITORY/constraints.txt")
    "$python" -m pip install --quiet "${constraints[@]}" "$@"
}

# What the comparison needs beside infini_eval: module and package.
EXTRAS="accelerate:accelerate bitsandbytes:bitsandbytes google.genai:google-genai openai:openai"

# Installs into the environment of PYTHON what it lacks of EXTRAS; without network the comparison goes on without.
install_missing() {
    local pair missing=()
    for pair in $EXTRAS; do
        "$PYTHON" -c "import importlib, sys; importlib.import_module(sys.argv[1])" "${pair%%:*}" 2>/dev/null ||
            missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing into the environment of $PYTHON: ${missing[*]}"
    with_constraints "$PYTHON" "${missing[@]}" ||
        say "warning: not installed; what needs them will say so (4-bit, CPU offload, Gemini, served models)"
}

# Sets PYTHON: the caller's, else the active one that has infini_eval, else a new .venv.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python python3 "$REPOSITORY/.venv/bin/python"; do
        if "$candidate" -c 'import infini_eval' 2>/dev/null; then
            PYTHON=$candidate
            return
        fi
    done
    say "making $REPOSITORY/.venv"
    "${PYTHON:-python3}" -m venv "$REPOSITORY/.venv"
    PYTHON=$REPOSITORY/.venv/bin/python
    "$PYTHON" -m pip install --quiet --upgrade pip
    with_constraints "$PYTHON" -e "$REPOSITORY"
}

interactive=no
case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    -y) shift ;;
    *) if [ -t 0 ] && [ $# -eq 0 ]; then interactive=yes; fi ;;
esac

find_python
install_missing
say "what works here (infini-eval doctor)"
"$PYTHON" -m infini_eval doctor || say "the doctor found something wrong; see the lines marked with a cross"

if [ $# -gt 0 ]; then
    exec "$PYTHON" "$HERE/model_comparison.py" "$@"
fi

characters=$(ask "characters of the context (about 4 a token)?" 10000)
who=$(ask "which models: llama, gemini or both?" llama)
mode=$(ask "test mode (load and tokenise only): yes or no?" yes)
flags=(--char-count "$characters")
case $who in
    llama) flags+=(--llama-only) ;;
    gemini) flags+=(--gemini-only) ;;
    both) ;;
    *) printf 'error: unknown choice %s\n  valid: llama, gemini, both\n' "$who" >&2 && exit 2 ;;
esac
[ "$mode" = no ] || flags+=(--test-mode)
if [ "$who" != llama ] && [ -z "${GEMINI_API_KEY:-}" ]; then
    say "GEMINI_API_KEY is not set: Gemini will refuse"
fi
say "model_comparison.py ${flags[*]}"
exec "$PYTHON" "$HERE/model_comparison.py" "${flags[@]}"
