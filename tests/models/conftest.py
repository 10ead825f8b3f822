"""Every test of networks draws the same random weights each time it runs."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
