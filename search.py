"""Run `paretoprune search` from a clone: `python search.py --target-flops 0.4`."""

from __future__ import annotations

import sys

from paretoprune.search.cli.app import main

if __name__ == "__main__":
    main(["search", *sys.argv[1:]])
