"""A store that is closed after each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.clips.keeping import Keeper


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    await keeper.stop()
