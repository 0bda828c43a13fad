"""``python -m skd``: the same as the command ``skd``."""

import sys

from skd.cli import main

if __name__ == "__main__":
    sys.exit(main())
