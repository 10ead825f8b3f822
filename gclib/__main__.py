"""``python -m gclib``: the command ``gclib``."""

import sys

from gclib.cli import main

if __name__ == "__main__":
    sys.exit(main())
