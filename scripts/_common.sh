# shellcheck shell=bash
# Sourced by the scripts beside it: messages, and one virtual environment that is installed only when it has to be.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OLDEST_PYTHON=3.11
NEWEST_PYTHON=3.14

say() { printf '%s\n' "==> $*"; }

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  next:  %s\n' "$@" >&2
    exit 2
}

# True when $1 is a Python that the project supports.
supported_python() {
    "$1" -c "import sys; ok = (3, ${OLDEST_PYTHON#3.}) <= sys.version_info[:2] <= (3, ${NEWEST_PYTHON#3.}); sys.exit(not ok)" \
        2>/dev/null
}

# Prints the interpreter to build environments with: $PYTHON where set, else the first one that fits.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3 python python3.14 python3.13 python3.12 python3.11}; do
        if supported_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python $OLDEST_PYTHON to $NEWEST_PYTHON found${PYTHON:+ (PYTHON=$PYTHON)}" \
        "install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# Prints what an installation depends on, as one hash: interpreter, place, declared and pinned dependencies.
fingerprint() {
    local python=$1 extras=$2
    {
        "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
        printf '%s %s\n' "$ROOT" "$extras"
        # pyproject.toml states the package first and the tools' settings, which install nothing, from [tool.ruff] on
        sed '/^\[tool\.ruff\]/,$d' "$ROOT/pyproject.toml"
        cat "$ROOT/setup.py" "$ROOT/constraints.txt"
    } | cksum
}

PULSE_S=${PULSE_S:-10} # seconds between two lines about what takes long
PULSE=

# pulse DESCRIBE...: calls DESCRIBE every PULSE_S seconds, in the background, and says what it prints and how long it has been.
# It holds none of our pipes while it sleeps.
pulse() {
    local began=$SECONDS
    while sleep "$PULSE_S" >/dev/null 2>&1; do
        printf '    %d s: %s\n' $((SECONDS - began)) "$("$@")"
    done &
    PULSE=$!
}

# Ends it. Its last sleep may go on for a moment, and says nothing.
end_pulse() {
    [ -z "$PULSE" ] || kill "$PULSE" 2>/dev/null || true
    PULSE=
}
trap end_pulse EXIT

# size_of DIR WHAT: what an installation has come to.
size_of() { printf '%s, %s in %s' "$2" "$(du -sh "$1" 2>/dev/null | cut -f 1)" "${1#"$ROOT/"}"; }

# run_pip ENVIRONMENT WHAT ARGUMENTS...: installs, with a line now and then (unpacking has no bar); else quiet where nobody watches.
run_pip() {
    local environment=$1 what=$2 status=0
    shift 2
    local quiet=(--quiet --progress-bar off)
    [ -t 1 ] && quiet=(--progress-bar on)
    pulse size_of "$environment" "installing $what"
    "$environment/bin/python" -m pip --disable-pip-version-check install "${quiet[@]}" "$@" || status=$?
    end_pulse
    return "$status"
}

# setup_environment DIR [EXTRAS]: makes DIR a virtual environment with the project installed (editable), or finds that it
# is one already. torch goes first and pinned: resolved together with the rest, pip could prefer a newer build of it.
setup_environment() {
    local environment=$1 extras=${2:-} python stamp wanted began=$SECONDS
    python=$(find_python) || exit 2
    stamp=$environment/.installed
    wanted=$(fingerprint "$python" "$extras")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        say "${environment#"$ROOT/"} is up to date"
        return
    fi
    say "installing into ${environment#"$ROOT/"} with $("$python" -V) (about a minute, and some GB on a machine with GPUs)"
    rm -f "$stamp"
    "$python" -m venv --clear "$environment" || fail "$python cannot make virtual environments" \
        "install its venv module (Debian and Ubuntu: apt install python3-venv)"
    run_pip "$environment" torch "$(grep '^torch==' "$ROOT/constraints.txt")" || fail "torch could not be installed" \
        "see pip's message above; a proxy or an index is set with PIP_INDEX_URL or pip.conf"
    run_pip "$environment" "infini-eval" -c "$ROOT/constraints.txt" -e "$ROOT${extras:+[$extras]}" || fail "the installation failed" \
        "see pip's message above"
    printf '%s\n' "$wanted" >"$stamp"
    say "installed in $((SECONDS - began)) s"
}
