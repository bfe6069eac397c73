"""Stores that are closed after each test, and a Redis that several of them share."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.e2e.fleet import redis_server
from tests.e2e.serving import PATIENCE_S
from tests.server.clips.keeping import Keeper


@contextmanager
def running_redis(folder: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """Run a Redis, which answers already, as long as the block lasts."""
    with redis_server(folder, *options, port=port) as url, redis.Redis.from_url(url) as asked:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                asked.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield url


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def shared(redis_url: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings with which stores share their clips, of which there are none yet."""
    with redis.Redis.from_url(redis_url) as asked:
        asked.flushall()
        yield {"snapshot_store": redis_url, "clip_share": str(tmp_path / "share")}
        asked.flushall()


@pytest.fixture(params=["alone", "shared"])
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    settings = request.getfixturevalue("shared") if request.param == "shared" else {}
    keeper = Keeper(tmp_path, **settings)
    yield keeper
    await keeper.stop()
