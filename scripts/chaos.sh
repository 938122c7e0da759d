#!/usr/bin/env bash
# Kills runs at random, continues them at other topologies, and checks that no sample is lost, doubled or changed.
#
#   scripts/chaos.sh --kills 200 [--seed N]      about 10 to 30 seconds a kill; tests/support/chaos.py says what is drawn
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

case ${1:-} in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
esac

setup_environment "${TEST_VENV:-$ROOT/.venv-test}" dev
PYTHONPATH="$ROOT/tests" exec "${TEST_VENV:-$ROOT/.venv-test}/bin/python" -m support.chaos "$@"
