"""Fixtures of the browser tests; helpers are in ``lab_server``."""

from lab_server import browser  # noqa: F401 (a fixture)
