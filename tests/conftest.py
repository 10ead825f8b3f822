"""Shared set-up of the test suite."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "blocks")]  # for mutants/ and blocks/cases.py


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also run slow tests (make test-full)")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--full"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="slow; runs with --full (make test-full)"))
