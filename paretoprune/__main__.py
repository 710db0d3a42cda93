"""The command line: `python -m paretoprune`, or `torchrun -m paretoprune` in several processes."""

from __future__ import annotations

from .search.cli.app import main

if __name__ == "__main__":
    main()
