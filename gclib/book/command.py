"""``make book`` and ``python -m gclib.book``: the course as a site that works from a folder."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from gclib.chapters import CHAPTERS, find_chapter, repository


def main(argv: list[str] | None = None) -> int:
    """Build; one sentence and a status other than 0 if there is no book."""
    parser = argparse.ArgumentParser(prog="python -m gclib.book", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the book (default: build/book)")
    parser.add_argument(
        "--cache", type=Path, help="folder of executed notebooks (default: build/book-cache)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (default: 2)")
    parser.add_argument("--chapters", nargs="+", metavar="NN", help="these alone (default: all)")
    parser.add_argument(
        "--outputs",
        choices=("current", "kept", "none"),
        default="current",
        help="current: execute what changed (default); kept: the last outputs, to work on pages; "
        "none: leave them out",
    )
    options = parser.parse_args(argv)
    root = repository()
    if root is None or not (root / "solutions").is_dir():
        print("No book: run this in a checkout of the course.", file=sys.stderr)
        return 2
    try:
        chosen = [find_chapter(number) for number in options.chapters or ()]
    except ValueError as error:
        parser.error(str(error))
    if options.jobs < 1:
        parser.error("--jobs is 1 or more")
    chapters = [one for one in CHAPTERS if one in chosen] or list(CHAPTERS)
    out = (options.out or root / "build" / "book").resolve()
    begin = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from gclib.book.build import BookFailed, build
    except ModuleNotFoundError as error:
        print(f"No book: {error.name} is not installed. Run make book.", file=sys.stderr)
        return 1
    try:
        made = build(
            root,
            out,
            chapters,
            cache=(options.cache or root / "build" / "book-cache").resolve(),
            jobs=options.jobs,
            outputs=options.outputs,
            progress=lambda line: print(line, flush=True),
        )
    except BookFailed as error:
        print(f"No new book: {str(error).rstrip('.')}.", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"No new book: {error.strerror or error}{where}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped: no new book. What was executed is kept.", file=sys.stderr)
        return 130
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    what = "The book is made" if made else "The book is up to date"
    print(f"{what}: {time.monotonic() - begin:.0f} s, {size / 2**20:.0f} MiB")
    print(f"Open {out / 'index.html'}")
    return 0
