"""A student's seat: one notebook of the course, open in JupyterLab in a real browser.

``python tests/browser/seat.py --out DIR 00 01`` works through chapters with the reference answers
and takes a picture of each at two widths in both themes, for an author to look at.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the script; pytest has it already

from lab_server import launched, served
from mutants.answers import ROOT, references

from gclib.chapters import CHAPTERS, find_chapter
from gclib.checks.exercise import exercises_of

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
WIDTHS = (1280, 800)
LONGEST = 240_000  # milliseconds for all cells of a chapter, on a busy machine
SCREEN = {"width": 1280, "height": 900}
TALL = 30_000  # pixels: every cell is in view, so JupyterLab draws all
_STDERR = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"
# Every cell has its number: none waits, none runs.
_ALL_RAN = """() => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]
    .every(prompt => /^\\[\\d+\\]:/.test(prompt.textContent.trim()))"""
# A body without a height that hides its overflow: for a program that looks, nothing would be seen.
_SHOW_ALL = "body { overflow: visible !important } * { content-visibility: visible !important }"
# Content wider than its place, which JupyterLab hides behind a scroll bar. Formulas carry a hidden
# copy for screen readers that is wider than what is seen, so only what stands around them counts.
_CUT_OFF = """() => {
    const found = [];
    const areas = [...document.querySelectorAll(
        '.jp-Notebook .jp-OutputArea-output, .jp-Notebook .jp-RenderedMarkdown'
    )].filter(area => area.clientWidth > 0);
    if (!areas.length) throw new Error('nothing of the notebook is in view');
    for (const area of areas) {
        const over = area.scrollWidth - area.clientWidth;
        if (over > 2)
            found.push(`${over} px: ${area.innerText.slice(0, 100)}`);
        for (const image of area.querySelectorAll('img')) {
            const [inner, outer] = [image.getBoundingClientRect(), area.getBoundingClientRect()];
            if (inner.right > outer.right + 2) found.push(`a figure: ${image.alt}`);
        }
    }
    return found;
}"""


def copy_course(folder):
    """A copy of the course, so that the real work/ is left alone."""
    for name in ("gclib", "chapters", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return folder


def lab(folder, log):
    """``gclib lab`` in a folder, with its commands open to the tests; yields its address."""
    command = [sys.executable, "-m", "gclib.cli", "lab", "--expose-app-in-browser"]
    return served(command, folder, log)


class Seat:
    """A chapter in JupyterLab.

    Args:
        browser: Playwright's.
        address: of the server, with its token.
        chapter: the one to open; None for what opens by itself.
    """

    def __init__(self, browser, address, chapter=None):
        self.chapter = chapter
        self.page = browser.new_page(viewport=SCREEN)
        if chapter:
            server, _, token = address.partition("?")
            address = f"{server.split('/lab')[0]}/lab/tree/work/{chapter.notebook}?{token}&reset"
        self.page.goto(address)
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        self.wait_until_idle()
        self.page.add_style_tag(content=_SHOW_ALL)
        self.page.wait_for_timeout(1000)

    # what a student does

    def menu(self, name, item):
        self.page.click(f"#jp-MainMenu >> text={name}")
        self.page.click(f".lm-Menu-itemLabel >> text='{item}'")

    def run_all(self):
        """Run every cell, to the end of the last one."""
        self.sit()
        self.command("notebook:run-all-cells")
        self.page.wait_for_function(_ALL_RAN, timeout=LONGEST)
        self.wait_until_idle()

    def run(self, cell):
        """Run a cell to its end."""
        self.sit()
        cell.locator(".jp-InputPrompt").click()
        self.command("notebook:run-cell")
        self.wait_until_idle()

    def write(self, name, source):
        """Write the answer whose stub defines a name, and run its cell."""
        self.sit()
        cell = self.cell(f"def {name}(", f"class {name}(")
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.insert_text(source)
        self.command("notebook:run-cell")
        self.wait_until_idle()

    def answer(self, exercise, source):
        """Write an answer and run its check; returns the cell of the check."""
        self.write(exercise.needs, source)
        check = self.check(exercise)
        self.run(check)
        return check

    def save(self):
        """Save the notebook, and wait until it is."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        self.page.wait_for_selector(".jp-mod-current.jp-mod-dirty", state="detached")

    # what a student sees

    def cells(self):
        return self.page.locator(".jp-Notebook .jp-CodeCell")

    def cell(self, *texts):
        """The first code cell whose source holds one of some texts."""
        sources = self.page.locator(", ".join(f".cm-content:has-text('{text}')" for text in texts))
        return self.cells().filter(has=sources).first

    def check(self, exercise):
        chapter, _, number = exercise.id.partition("-")
        return self.cell(f"{chapter}.{number}({exercise.needs})")

    def figures(self):
        return self.page.locator(".jp-OutputArea img")

    def errors(self):
        """What JupyterLab shows in red: errors and stderr alike."""
        return self.page.locator(_STDERR).all_inner_texts()

    def progress(self):
        """What stands below the first cell."""
        return self.cells().first.locator(".jp-OutputArea").text_content()

    def cut_off(self):
        """What is wider than its place."""
        return self.page.evaluate(_CUT_OFF)

    # how it is looked at

    def command(self, name, **arguments):
        """Run one of JupyterLab's commands, as its menus do, to its end."""
        self.page.evaluate(
            """([name, arguments, limit]) => Promise.race([
                window.jupyterapp.commands.execute(name, arguments).then(() => true),
                new Promise((_, fail) => setTimeout(() => fail(`${name} does not end`), limit)),
            ])""",
            [name, arguments, LONGEST],
        )

    def theme(self, name):
        self.command("apputils:change-theme", theme=THEMES[name])
        chosen = f"body[data-jp-theme-name='{THEMES[name]}']"
        self.page.wait_for_selector(chosen, state="attached")
        # JupyterLab hides itself for a frame to draw the scroll bars anew.
        self.page.wait_for_selector("#main", state="visible")

    def look(self, width=1280):
        """The whole notebook in view, in a window of this width."""
        self._window(width, TALL, f"{TALL}px")
        self.page.locator(".jp-WindowedPanel-outer").evaluate_all(
            "all => all.forEach(one => { one.scrollTop = 0 })"
        )
        self.page.wait_for_timeout(1000)

    def sit(self):
        """A window as a student has it."""
        if self.page.viewport_size != SCREEN:
            self._window(SCREEN["width"], SCREEN["height"], "")
            self.page.wait_for_timeout(500)

    def _window(self, width, height, notebook):
        self.page.evaluate(
            "height => document.querySelectorAll('.jp-WindowedPanel-outer').forEach("
            "e => { e.style.height = height })",
            notebook,
        )
        self.page.set_viewport_size({"width": width, "height": height})

    @contextlib.contextmanager
    def side_bar_folded(self, width):
        """Without the list of files where there is little room, as Ctrl+B does."""
        if width >= 1000:
            yield
            return
        self.command("application:toggle-left-area")
        self.page.wait_for_timeout(500)
        yield
        self.command("application:toggle-left-area")
        self.page.wait_for_timeout(500)

    def looks(self):
        """Each theme at each width, with all in view: yields both."""
        for width in WIDTHS:
            with self.side_bar_folded(width):
                for theme in THEMES:
                    self.theme(theme)
                    self.look(width)
                    yield width, theme
        self.theme("light")

    def picture(self, path):
        """Of the whole notebook."""
        height = self.page.evaluate(
            "document.querySelector('.jp-NotebookPanel .jp-WindowedPanel-viewport').scrollHeight"
        )
        width = self.page.viewport_size["width"]
        box = {"x": 0, "y": 0, "width": width, "height": min(TALL, height + 150)}
        self.page.screenshot(path=path, clip=box)

    def wait_until_idle(self):
        self.page.wait_for_selector("text='Python 3 (ipykernel) | Idle'", timeout=180_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", metavar="NN", help="default: all")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chapters = [find_chapter(number) for number in options.chapters] or CHAPTERS
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        course = Path(folder) / "course"
        course.mkdir()
        copy_course(course)
        with lab(course, Path(folder) / "lab.txt") as address:
            for chapter in chapters:
                seat = Seat(browser, address, chapter)
                answers = references(chapter.number)
                for exercise in exercises_of(chapter.checks()):
                    seat.write(exercise.needs, answers[exercise.id])
                seat.run_all()
                for width, theme in seat.looks():
                    name = f"{width}-{theme}"
                    seat.picture(options.out / f"{chapter.number}-{name}.png")
                    for text in seat.cut_off():
                        print(f"{chapter.number} {name}: cut off by {text!r}")
                seat.page.close()
                print(f"{chapter.number}: {options.out}/{chapter.number}-*.png", flush=True)


if __name__ == "__main__":
    main()
