#!/usr/bin/env bash
# Checks that need no test run: ruff (lint and format), mypy, the import law, the shell scripts, and the documentation site. All
# run; any failure counts.
#
#   scripts/check.sh [--fix]      --fix lets ruff repair and format what it can
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

case ${1:-} in
    "" | --fix) ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
    *) fail "unknown argument '$1'" "scripts/check.sh [--fix]" ;;
esac

failed=()

# check NAME COMMAND...: runs a command and remembers whether it failed.
check() {
    local name=$1
    shift
    say "$name"
    "$@" || failed+=("$name")
}

check_shell() {
    local script status=0
    for script in "${shell_scripts[@]}"; do
        bash -n "$script" || status=1
    done
    if command -v shellcheck >/dev/null; then
        shellcheck --external-sources "${shell_scripts[@]}" || status=1
    else
        say "shellcheck is not installed; only the syntax was checked"
    fi
    return $status
}

setup_environment "${TEST_VENV:-$ROOT/.venv-test}" dev
export PATH="${TEST_VENV:-$ROOT/.venv-test}/bin:$PATH"
mapfile -t shell_scripts < <(find scripts examples -name '*.sh' -type f | sort && echo .ci/run)

if [ "${1:-}" = --fix ]; then
    ruff check --fix --quiet . || true
    ruff format --quiet .
fi
check "ruff check" ruff check --output-format concise .
check "ruff format --check" ruff format --check --output-format concise .
check "mypy" mypy
check "import law" lint-imports --no-logo --no-cache
check "shell scripts" check_shell
check "documentation" python -m sphinx -W --keep-going -q -b html docs docs/_build/html

if [ ${#failed[@]} -gt 0 ]; then
    printf 'checks failed:' >&2
    printf ' [%s]' "${failed[@]}" >&2
    printf '\n' >&2
    exit 1
fi
say "all checks passed"
