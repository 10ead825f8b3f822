"""``python -m gclib.book``."""

import sys

from gclib.book.command import main

if __name__ == "__main__":
    sys.exit(main())
