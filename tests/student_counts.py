"""Where the student's verdicts are counted between the tests and the last line of the report."""

from collections import Counter

import pytest

STUDENT = pytest.StashKey[Counter]()
