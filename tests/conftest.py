"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
import torch

from tests import without_torchvision


def pytest_configure():
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes
        torch.set_num_threads(1)
    without_torchvision.stand_in()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
