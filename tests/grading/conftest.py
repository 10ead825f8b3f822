"""What several files of tests begin with."""

import pytest
from gradebooks import graded_class


@pytest.fixture
def graded_course(tmp_path):
    """A course in which a class was graded; what uses it waits for --full."""
    return graded_class(tmp_path / "class")
