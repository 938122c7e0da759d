"""`python -m infini_eval`: the same as the `infini-eval` command."""

import sys

from infini_eval.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
