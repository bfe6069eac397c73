"""Snapshots go into a store one after the other, also where it does not answer."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from server.errors import StoreError
from server.metrics import Metrics
from server.snapshots import Keeper, Lease, Seal
from server.snapshots.store import Held


class Hanging:
    """A store that answers nothing until a test lets it say that it cannot."""

    def __init__(self) -> None:
        self.asked = 0
        self.entered = threading.Event()
        self.may_fail = threading.Event()

    def put(self, lease: Lease, stored: bytes | None, ttl_s: float) -> bool:
        self.asked += 1
        self.entered.set()
        self.may_fail.wait()
        raise StoreError("no answer")

    def look(self, name: str) -> Held | None:
        return None

    def claim(self, name: str, ttl_s: float) -> Held | None:
        self.asked += 1
        return None

    def find_moved(self, leases: Sequence[Lease]) -> list[Lease]:
        return []

    def close(self) -> None:
        return


async def test_a_store_that_does_not_answer_is_waited_for_once_by_all_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.snapshots.keeper.SHARED_S", 0.0)
    store = Hanging()
    keeper = Keeper(store, Seal(None), Metrics())
    first = asyncio.create_task(keeper.save(Lease("first", 1), b"", 60.0))
    await asyncio.to_thread(store.entered.wait)
    saves = [asyncio.create_task(keeper.save(Lease(name, 1), b"", 60.0)) for name in "abc"]
    claim = asyncio.create_task(keeper.claim("token", 60.0))
    await asyncio.sleep(0)
    store.may_fail.set()
    ends = await asyncio.gather(first, *saves, claim, return_exceptions=True)
    assert [(type(end), str(end)) for end in ends] == [(StoreError, "no answer")] * 5
    assert store.asked == 1
    # Whoever comes later finds out anew.
    assert await keeper.claim("token", 60.0) is None
    keeper.close()
