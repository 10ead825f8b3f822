"""``torchrun --nproc-per-node 8 -m gclib.training imagenet --row 4a/gc_all --data DIR``."""

import sys

from gclib.training.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="python -m gclib.training"))
