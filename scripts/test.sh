#!/usr/bin/env bash
# Installs into a virtual environment of its own (.venv-test) and runs the tests there.
#
#   scripts/test.sh [pytest arguments]      scripts/test.sh tests/results -k resume
# The browser tests (tests/browser) need a Chromium: apt-get install chromium, or INFINI_EVAL_CHROMIUM=/path/to/chromium. They
# skip, saying so, without one, and leave screenshots in tests/browser/pictures.
#
#   TEST_WORKERS=4 scripts/test.sh          more processes (default 2; 0 runs in one, e.g. for --pdb)
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

environment=${TEST_VENV:-$ROOT/.venv-test}
setup_environment "$environment" dev
export PATH="$environment/bin:$PATH"
# One thread a process: several processes that each use every core slow each other down. No test may need the network.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

exec python -m pytest -n "${TEST_WORKERS:-2}" --dist worksteal "$@"
