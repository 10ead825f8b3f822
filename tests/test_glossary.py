"""Every name in the glossary is there, and its chapters are those of the course."""

import importlib
import re
from pathlib import Path

import pytest

from gclib.chapters import CHAPTERS
from gclib.cli import main

ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (Path(__file__).parents[1] / "docs" / "GLOSSARY.md").read_text("utf-8").split("\n")
    if line.startswith("| ") and not line.startswith("| term")
]
NAMES = sorted({row[3].strip("`") for row in ROWS if row[3]})


def find(name):
    """What a dotted name stands for."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def test_rows_are_whole():
    assert len(ROWS) > 40
    chapters = {chapter.number for chapter in CHAPTERS}
    for term, chinese, meaning, _, chapter in ROWS:
        assert term, meaning
        assert re.search(r"[一-鿿]|^Squeeze", chinese), term
        assert chapter in chapters, term
    terms = [row[0] for row in ROWS]
    assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_there(name, capsys):
    if " " not in name:
        assert find(name) is not None
        return
    command = name.removeprefix("gclib ").split()
    assert command[0] in ("ledger", "train", "evaluate")
    if command[0] == "ledger":
        assert main(command) == 0
    else:
        assert main([*command[:2], "--help"]) == 0
        assert all(option in capsys.readouterr().out for option in command[2::2])


def test_a_wrong_name_is_found():
    with pytest.raises(AttributeError):
        find("gclib.blocks.NoSuchBlock")
