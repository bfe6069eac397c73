"""A clock that is set wrong must not be taken for clips that are old."""

import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.clips.retention import DAY_S, HOLD_S, Sweeper
from tests.server.clips.keeping import Keeper

YEAR_S = 365 * DAY_S


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    await keeper.stop()


class Clock:
    """Time as it was when this was made, and what is added to it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall_s, self.run_s = time.time(), time.monotonic()
        patch.setattr(time, "time", lambda: self.wall_s)
        patch.setattr(time, "monotonic", lambda: self.run_s)

    def go_on(self, passed_s: float) -> None:
        self.wall_s += passed_s
        self.run_s += passed_s


def sweeper_of(keeper: Keeper) -> Sweeper:
    """One like the store's own, which tidies when it is told to alone."""
    own, store = keeper.store._sweeper, keeper.store
    leaving = store._leaving
    return Sweeper(store._ledger, keeper.settings, keeper.metrics, own._forget, leaving)


async def test_a_clock_set_forward_by_a_year_costs_no_clip_where_it_is_set_back_in_a_day(
    lone: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lone.done()
    with monkeypatch.context() as patch:
        sweeper, clock = sweeper_of(lone), Clock(patch)
        clock.wall_s += YEAR_S
        for _ in range(2):
            sweeper.tidy()
            clock.go_on(HOLD_S / 2)
        clock.wall_s -= YEAR_S
        sweeper.tidy()
    assert len(lone.store.jobs()) == 1


async def test_a_clock_that_stays_as_it_was_set_is_believed_after_a_day(
    lone: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lone.done()
    with monkeypatch.context() as patch:
        sweeper, clock = sweeper_of(lone), Clock(patch)
        clock.wall_s += YEAR_S
        sweeper.tidy()
        assert len(lone.store.jobs()) == 1
        clock.go_on(HOLD_S)
        sweeper.tidy()
    assert lone.store.jobs() == []


async def test_time_that_passes_is_no_leap(lone: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    await lone.done()
    with monkeypatch.context() as patch:
        sweeper, clock = sweeper_of(lone), Clock(patch)
        clock.go_on(YEAR_S)
        sweeper.tidy()
    assert lone.store.jobs() == []


@pytest.mark.parametrize(("away_days", "is_kept"), [(400, True), (5, False)])
async def test_a_server_that_begins_long_after_the_last_one_forgets_nothing_at_once(
    lone: Keeper, away_days: float, *, is_kept: bool
) -> None:
    job = await lone.done()
    await lone.stop()
    with sqlite3.connect(lone.settings.clip_dir / "clips.sqlite3") as rows:
        rows.execute("UPDATE clip SET finished_s = ?", (time.time() - 400 * DAY_S,))
    rows.close()
    last_s = time.time() - away_days * DAY_S
    os.utime(lone.settings.clip_dir / "lock", (last_s, last_s))
    lone.start()
    lone.store._sweeper.tidy()
    assert [job.id for job in lone.store.jobs()] == ([job.id] if is_kept else [])
