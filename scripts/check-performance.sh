#!/usr/bin/env bash
# Runs the benchmarks and compares their ratios with the committed floors (benchmarks/floors.json): no ratio may get worse.
#
#   scripts/check-performance.sh [NAME…]      which ones: python -m benchmarks --list
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

case ${1:-} in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
esac

setup_environment "${TEST_VENV:-$ROOT/.venv-test}" dev
exec "${TEST_VENV:-$ROOT/.venv-test}/bin/python" -m benchmarks --floors "$@"
