"""What the commands of a student do not load, so that they answer at once."""

import subprocess
import sys

from gclib.chapters import CHAPTERS, repository

CHECK_ALL = """
import sys
from gclib.cli import main
for number, path in zip(sys.argv[1::2], sys.argv[2::2]):
    assert main(["check", number, "--notebook", path]) == 0
heavy = {"torch", "torch._dynamo", "sympy", "torchvision", "fvcore"}
print("loaded:", sorted(heavy & {*sys.modules}))
"""


def loaded(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=repository()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rsplit("loaded: ", 1)[1].strip()


def test_import_of_gclib_is_light():
    assert loaded("import gclib, sys; print('loaded:', 'torch' in sys.modules)") == "False"
    assert loaded("import gclib.cli, sys; print('loaded:', 'torch' in sys.modules)") == "False"


def test_checks_do_not_load_the_compiler():
    """It takes two seconds, more than all checks of a chapter together.

    But for chapter 07: torch's optimizers, which its answers use, load it themselves.
    """
    chapters = [c for c in CHAPTERS if c.number != "07"]
    solved = [(c.number, str(repository() / "solutions" / c.notebook)) for c in chapters]
    assert loaded(CHECK_ALL, *[text for pair in solved for text in pair]) == "['torch']"
