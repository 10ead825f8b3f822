"""Checks of the exercises: ``from gclib.checks import c01; c01.e2(normalise)``.

One check serves the notebook, pytest and the autograder. It reaches a student's work through a
handle (:mod:`gclib.checks.handle`), prints one ``ok`` line for each property, returns None, and
raises :class:`NotAttempted` or :class:`CheckFailed`.
"""

from gclib.checks.outcome import CheckFailed, NotAttempted

__all__ = ["CheckFailed", "NotAttempted"]
