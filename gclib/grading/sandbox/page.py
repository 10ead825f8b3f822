"""A student's notebook run cell by cell inside of a sandbox, for the feedback page alone.

Nothing of what comes out earns a point. IPython runs the cells, so that magics, displays and
tracebacks look as the student knows them; figures come as in Jupyter. There is no place to write,
so what wants one is given none.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

TEXT = 100_000  # characters of one cell's text
IMAGE = 2**20  # characters of one image
IMAGES = 8  # of one cell

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class TimeIsUp(BaseException):
    """A cell has run for as long as it may."""


class Recorder:
    """What one cell shows, in nbformat's form, cut where it is too much."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._text = self._images = 0
        self._cut = False

    def stream(self, name: str, text: str) -> None:
        """Something was printed."""
        text = self._fit(_COLOURS.sub("", text))
        if not text:
            return
        last = self.outputs[-1] if self.outputs else {}
        if last.get("name") == name:
            last["text"] += text
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": text})

    def rich(self, data: dict[str, Any], count: int | None = None) -> None:
        """Something was displayed, or (with ``count``) is the value of the cell."""
        kept = {}
        image = data.get("image/png", "")
        if isinstance(image, bytes):
            image = base64.b64encode(image).decode()
        if 0 < len(image) <= IMAGE and self._images < IMAGES:
            self._images += 1
            kept["image/png"] = "".join(image.split())
        text = self._fit(str(data.get("text/plain", "")))
        if text:
            kept["text/plain"] = text
        if not kept:
            return
        output = {"output_type": "display_data", "data": kept, "metadata": {}}
        if count is not None:
            output |= {"output_type": "execute_result", "execution_count": count}
        self.outputs.append(output)

    def error(self, name: str, value: str, lines: list[str]) -> None:
        """The cell raised."""
        text = self._fit(_COLOURS.sub("", "\n".join(lines)))
        self.outputs.append(
            {
                "output_type": "error",
                "ename": name[:200],
                "evalue": value[:1000],
                "traceback": text.split("\n"),
            }
        )

    def _fit(self, text: str) -> str:
        left = TEXT - self._text
        self._text += len(text)
        if len(text) <= left:
            return text
        if self._cut:
            return ""
        self._cut = True
        return text[: max(left, 0)] + "\n[the rest of the output is cut]\n"


class _Stream:
    """Stands for ``sys.stdout`` or ``sys.stderr``."""

    encoding, errors, closed, softspace = "utf-8", "replace", False, 0

    def __init__(self, page: Page, name: str) -> None:
        self._page, self.name = page, name

    def write(self, text: str) -> int:
        """Record it."""
        self._page.now.stream(self.name, str(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Record them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing."""

    def isatty(self) -> bool:
        """It is none."""
        return False

    def writable(self) -> bool:
        """It is."""
        return True


class Page:
    """A shell that runs one cell after another."""

    def __init__(self) -> None:
        self.now = Recorder()
        sys.stdout, sys.stderr = _Stream(self, "stdout"), _Stream(self, "stderr")
        sys.stdin = open(os.devnull)  # noqa: SIM115
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        with _no_place_to_write():
            self.shell = _shell(self)
            with contextlib.suppress(ImportError):
                import matplotlib

                matplotlib.get_configdir()
                matplotlib.get_cachedir()

    def run(self, source: str, seconds: float) -> list[dict[str, Any]]:
        """Run a cell; what it shows, with an error where it raised or took too long."""
        self.now = Recorder()

        def stop(number: int, frame: Any) -> None:
            raise TimeIsUp(f"the cell was stopped after {seconds:.0f} s")

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            self.shell.run_cell(source, store_history=True)
        except BaseException as error:  # of what runs after a cell: hooks, drawing
            self.now.error(type(error).__name__, str(error), [f"{type(error).__name__}: {error}"])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.now.outputs


@contextlib.contextmanager
def _no_place_to_write() -> Iterator[None]:
    """Answer whoever asks for a temporary folder with one that cannot be written."""
    made = tempfile.mkdtemp
    tempfile.mkdtemp = lambda *arguments, **options: "/dev/null"
    try:
        yield
    finally:
        tempfile.mkdtemp = made


def _shell(page: Page) -> Any:
    import logging
    import warnings

    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Hook(DisplayHook):
        def write_output_prompt(self) -> None:
            pass

        def write_format_data(self, format_dict: dict, md_dict: dict | None = None) -> None:
            page.now.rich(format_dict, self.prompt_count)

        def finish_displayhook(self) -> None:
            self._is_active = False

    class Publisher(DisplayPublisher):
        def publish(self, data: dict, *arguments: Any, **options: Any) -> None:
            page.now.rich(data)

        def clear_output(self, wait: bool = False) -> None:
            page.now.outputs.clear()

    class Shell(InteractiveShell):
        def init_ipython_dir(self, ipython_dir: Any) -> None:
            pass  # there is no place for one

        def init_profile_dir(self, profile_dir: Any) -> None:
            pass

        def _showtraceback(self, etype: type, evalue: Any, stb: list[str]) -> None:
            page.now.error(getattr(etype, "__name__", str(etype)), str(evalue), list(stb))

        def system(self, command: str) -> None:
            import subprocess

            done = subprocess.run(
                self.var_expand(command, depth=1),
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            page.now.stream("stdout", done.stdout.decode(errors="replace"))
            self.user_ns["_exit_code"] = done.returncode

        def ask_exit(self) -> None:
            pass  # the other cells come all the same

        def enable_gui(self, gui: str | None = None) -> None:
            pass

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Shell.instance(
            config=config,
            displayhook_class=Hook,
            display_pub_class=Publisher,
        )
