"""Fixtures that every test may use."""

from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no fault; benchmarks measure time, tests do not.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real files beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder of real files is not beside the checkout")
    return SHARED
