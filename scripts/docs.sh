#!/usr/bin/env bash
# Builds the documentation site into docs/_build/html, without network; a warning is an error.
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

environment=${DOCS_VENV:-${TEST_VENV:-$ROOT/.venv-test}}
setup_environment "$environment" dev
"$environment/bin/python" -m sphinx -W --keep-going -q -b html docs docs/_build/html
say "the site: docs/_build/html/index.html"
