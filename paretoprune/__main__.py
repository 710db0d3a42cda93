"""`python -m paretoprune`: the command line; `torchrun -m paretoprune` starts it many times."""

from __future__ import annotations

from .search.cli.app import main

if __name__ == "__main__":
    main()
