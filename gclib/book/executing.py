"""Execute one notebook: ``python -m gclib.book.executing NOTEBOOK RESULT``.

A process of its own, so that two can run at a time and a stop reaches the kernel.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from gclib.checks.cards import PROGRESS

SECONDS_PER_CELL = 600


def execute(notebook: Path, result: Path) -> str:
    """Execute a notebook in a temporary folder and write it with its outputs.

    Args:
        notebook: with the answers.
        result: where it is written, in one step.

    Returns:
        What failed, in one sentence; ``""`` if all is well.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory(prefix="gclib-book-") as folder:
        shutil.copy(notebook, folder)  # the last cell looks for the saved notebook
        client = NotebookClient(
            content,
            timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            allow_errors=True,  # looked for below, so that the cell can be named
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute()
        except CellTimeoutError:
            return f"a cell runs for more than {SECONDS_PER_CELL} s"
        except DeadKernelError:
            return "the kernel ended by itself; was there enough memory?"
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                text = " ".join(str(output.evalue).split())
                return f"cell {cell.id} fails: {output.ename}: {text[:300]}"
        if "outputs" in cell:  # how far a student is: the book has none
            cell.outputs = [one for one in cell.outputs if one.get("metadata") != PROGRESS]
    partial = result.with_name(f".{result.name}.{os.getpid()}.partial")
    try:
        nbformat.write(content, partial)
        os.replace(partial, result)
    finally:
        partial.unlink(missing_ok=True)
    return ""


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Execute; the last line of stderr says what failed."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        failed = execute(Path(sys.argv[1]), Path(sys.argv[2]))
    except KeyboardInterrupt:
        return 130
    if failed:
        print(failed, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
