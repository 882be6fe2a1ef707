"""`python -m search.sweep` summarises the studies of a sweep."""

import sys

from search.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
