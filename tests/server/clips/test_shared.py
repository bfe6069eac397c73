"""Two stores on one Redis and one place: what either of them takes, both answer for, once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from model import EchoError
from server.clips import Job, Wanted
from server.clips.depot import Depot
from server.clips.records import PREFIX
from server.clips.shared import SharedLedger
from server.errors import (
    AdmissionError,
    NotFoundError,
    SettingsError,
    StaleError,
    StorageError,
    StoreError,
    WireCodes,
)
from tests.server.clips.conftest import running_redis
from tests.server.clips.keeping import COUNT, Keeper

Pair = tuple[Keeper, Keeper]
LEASE_S = 1.0


@pytest.fixture
async def pair(shared: dict[str, Any], tmp_path: Path) -> AsyncIterator[Pair]:
    keepers = Keeper(tmp_path, **shared), Keeper(tmp_path, **shared, clip_lease_s=LEASE_S)
    yield keepers
    for keeper in keepers:
        await keeper.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 (it happens in threads and in Redis)
            await asyncio.sleep(0.02)


async def seen_by(keeper: Keeper, job: Job) -> Job:
    await keeper.store.refresh()
    return keeper.store.job(job.id)


async def over_at(keeper: Keeper, job: Job) -> Job:
    seen = await seen_by(keeper, job)
    await asyncio.wait_for(seen.finished.wait(), 30)
    return seen


def ledger_of(keeper: Keeper) -> SharedLedger:
    ledger = keeper.store._ledger
    assert isinstance(ledger, SharedLedger)
    return ledger


@contextmanager
def taking_nothing(keeper: Keeper) -> Iterator[None]:
    """Leave the work to others as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_of(keeper), "_claim", lambda: None)
        yield


def go_silent(keeper: Keeper, patch: pytest.MonkeyPatch) -> None:
    """Nothing more is heard of a store, which does not know."""
    patch.setattr(ledger_of(keeper), "_beat", lambda: None)
    patch.setattr(ledger_of(keeper), "_claim", lambda: None)


async def test_what_one_takes_the_other_tells_hands_out_corrects_and_deletes(pair: Pair) -> None:
    here, there = pair
    job = await here.done()
    seen = await over_at(there, job)
    assert seen.to_json() == job.to_json()
    assert seen.state == "done"
    assert await there.store.result(job.id) == await here.store.result(job.id)
    masks = await there.store.artefact(job.id, "masks.npz")
    same = await here.store.artefact(job.id, "masks.npz")
    assert masks != same
    assert masks.read_bytes() == same.read_bytes()
    corrected = await there.store.edit(job.id, Wanted(0, None, None, "somebody"))
    assert await here.store.result(job.id) == corrected
    assert [each["who"] for each in corrected["edits"]] == ["somebody"]
    await there.store.delete(job.id)
    await here.store.refresh()
    with pytest.raises(NotFoundError):
        here.store.job(job.id)
    assert here.folders() == set()
    assert not job.folder.exists()


async def test_a_file_that_both_make_is_one_file(pair: Pair) -> None:
    here, there = pair
    job = await here.done()
    await over_at(there, job)
    names = ["seg.dcm", "overlay.mp4"]
    for name in names:
        made = await asyncio.gather(*(each.store.artefact(job.id, name) for each in pair))
        assert made[0].read_bytes() == made[1].read_bytes()
    kept = [name.partition("~")[0] for name in there.files_kept(job)]
    assert sorted(kept) == sorted(["upload", "result.json", *names])


async def test_corrections_from_both_sides_all_count_and_a_stale_one_is_refused(
    pair: Pair,
) -> None:
    here, there = pair
    job = await here.done()
    await over_at(there, job)
    await asyncio.gather(
        *(
            keeper.store.edit(job.id, Wanted(frame, None, None, None))
            for frame in range(2)
            for keeper in pair
        )
    )
    for keeper in pair:
        result = await keeper.store.result(job.id)
        assert result["revision"] == 4
        assert [each["revision"] for each in result["edits"]] == [1, 2, 3, 4]
        assert sorted(each["frame"] for each in result["edits"]) == [0, 0, 1, 1]
    with pytest.raises(StaleError):
        await there.store.edit(job.id, Wanted(0, None, frozenset([3]), None))


@contextmanager
def looking_when_told(keeper: Keeper) -> Iterator[SharedLedger]:
    """One more server's ledger, which does nothing by itself."""
    ledger = SharedLedger(keeper.settings, str(keeper.settings.clip_share))
    try:
        yield ledger
    finally:
        ledger.close()


async def test_who_takes_a_clip_knows_all_that_was_written_of_it(pair: Pair) -> None:
    here, there = pair
    with looking_when_told(here) as third, taking_nothing(here), taking_nothing(there):
        job = await here.store.open(None)
        third.refresh()
        assert third.jobs[job.id].state == "received"
        job.upload.write_bytes(here.clip)
        await here.store.submit(job, "test")
        taken: list[Job] = []
        third._take = taken.append
        third._claim()
        assert [(each.id, each.sha256) for each in taken] == [(job.id, job.sha256)]
        assert third.fetch(taken[0], "upload")


async def test_what_is_kept_while_another_corrects_a_clip_is_seen_by_both(pair: Pair) -> None:
    here, _ = pair
    job = await here.done()
    with looking_when_told(here) as third:
        same = third.jobs[job.id]
        with third.changing(same):
            await here.store.artefact(job.id, "masks.npz")
            third.refresh()
            third.save(same)
        third.refresh()
        assert same.size_bytes == (await seen_by(here, job)).size_bytes
        assert third.fetch(same, "masks.npz")


async def test_equal_bytes_are_answered_from_what_another_found(pair: Pair) -> None:
    here, there = pair
    job = await here.done()
    here.frames_begun(), there.frames_begun()
    twin = await there.done(here.clip)
    assert twin.id != job.id
    assert await there.store.result(twin.id) == await here.store.result(job.id)
    assert (here.frames_begun(), there.frames_begun()) == (0, 0)
    again = await there.store.open(None)
    again.upload.write_bytes(here.clip)
    kept = await there.store.submit_once(again, "test")
    assert kept.id in (job.id, twin.id)


async def test_a_late_result_of_a_silent_store_counts_for_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = pair  # `here` has the short lease
    for keeper in pair:
        keeper.backend.gate.clear()
    with taking_nothing(there):
        job = await here.submit()
        await here.wait_for_frame()
        go_silent(here, monkeypatch)
    assert job.state == "running"
    there.backend.gate.set()
    seen = await over_at(there, job)
    assert (seen.state, seen.attempts) == ("done", 2)
    result = await there.store.result(job.id)
    kept = there.files_kept(job)
    here.backend.gate.set()
    await until(lambda: _is_settled(here, job))
    assert there.files_kept(job) == kept
    assert len(kept) == 2, "the upload and one result"
    assert await here.store.result(job.id) == result
    assert (await seen_by(there, job)).attempts == 2
    for counter in ("clips", "ejection_fractions"):
        counted = [keeper.counted(counter) for keeper in (here, there)]
        assert counted == [0, 1]


async def _is_settled(keeper: Keeper, job: Job) -> bool:
    await keeper.store.refresh()
    return ledger_of(keeper)._working is None and job.is_over


async def test_no_more_wait_at_all_stores_together_than_may(pair: Pair) -> None:
    here, there = pair
    coming = [
        await here.store.open(None),
        await there.store.open(None),
        await here.store.open(None),
    ]
    for keeper in pair:
        with pytest.raises(AdmissionError, match="3 clips waiting"):
            await keeper.store.open(None)
    here.store.discard(coming[0])

    async def has_room() -> bool:
        try:
            there.store.discard(await there.store.open(None))
        except AdmissionError:
            return False
        return True

    await until(has_room)


async def test_what_waits_at_another_store_fills_this_one_too(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    here = Keeper(tmp_path, **shared, clip_store_bytes=150_000)
    there = Keeper(tmp_path, **shared, clip_store_bytes=150_000)
    assert 75_000 < len(here.clip) < 150_000
    for keeper in (here, there):
        keeper.backend.gate.clear()
    await here.submit()
    with pytest.raises(StorageError):
        await there.store.open(None, declared_bytes=len(there.clip))
    for keeper in (here, there):
        await keeper.stop()


async def test_the_oldest_result_of_all_makes_room(pair: Pair) -> None:
    here, there = pair
    jobs = [await keeper.done(keeper.variant(n)) for n, keeper in enumerate([*pair, *pair])]
    wanted = [job.id for job in jobs[1:]]

    async def is_tidy() -> bool:
        await asyncio.gather(here.store.refresh(), there.store.refresh())
        return all([job.id for job in keeper.store.jobs()] == wanted for keeper in pair)

    await until(is_tidy)
    assert here.folders() == set(wanted)


async def test_an_upload_that_nobody_brings_to_its_end_gives_its_place_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = pair
    job = await here.store.open(None)
    job.upload.write_bytes(here.clip)
    assert (await seen_by(there, job)).state == "received"
    go_silent(here, monkeypatch)

    async def is_gone() -> bool:
        await there.store.refresh()
        return there.store.jobs() == []

    await until(is_gone)
    with pytest.raises(EchoError) as refusal:
        await here.store.submit(job, "test")
    assert WireCodes.http_status(refusal.value) == 404
    assert here.folders() == set()


async def test_a_store_that_stops_gives_its_work_to_the_others_at_once(pair: Pair) -> None:
    here, there = pair  # the lease of `here` would outlast this test
    here.backend.gate.clear()
    with taking_nothing(there):
        job = await here.submit()
        await here.wait_for_frame()
    await here.stop()
    seen = await over_at(there, job)
    assert (seen.state, seen.attempts) == ("done", 1)
    here.start()


async def test_without_redis_nothing_is_lost_and_all_is_told_as_503(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder, "--appendonly", "yes") as url:
        keeper = Keeper(
            tmp_path, snapshot_store=url, clip_share=str(tmp_path / "share"), clip_lease_s=LEASE_S
        )
        job = await keeper.done()
        keeper.backend.gate.clear()
        waiting = await keeper.submit(keeper.variant(1))
        await keeper.wait_for_frame()
    for ask in (keeper.store.open(None), keeper.store.result(job.id), keeper.store.delete(job.id)):
        with pytest.raises(StoreError) as refusal:
            await ask
        assert WireCodes.http_status(refusal.value) == 503
        assert refusal.value.code == "store_unavailable"
    keeper.backend.gate.set()
    await until(lambda: _is_idle(keeper))
    port = url.rpartition(":")[2].partition("/")[0]
    with running_redis(folder, "--appendonly", "yes", port=int(port)):
        await asyncio.wait_for(waiting.finished.wait(), 30)
        assert waiting.state == "done"
        assert (await keeper.store.result(job.id))["clip"]["frames"] == COUNT
        await keeper.stop()


async def _is_idle(keeper: Keeper) -> bool:
    return ledger_of(keeper)._working is None


async def test_a_full_disk_at_the_place_keeps_the_work_until_there_is_room(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refusals = Depot.put, iter(range(3))

    def put_where_there_is_room(depot: Depot, clip: str, path: Path) -> Any:
        if path.name == "result.json" and next(refusals, None) is not None:
            raise StorageError("no room")
        return put(depot, clip, path)

    monkeypatch.setattr("server.clips.desk.RETRY_S", 0.01)
    monkeypatch.setattr(Depot, "put", put_where_there_is_room)
    job = await pair[0].done()
    assert (job.state, job.attempts) == ("done", 1)


async def test_a_place_that_others_do_not_see_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="GDKVM_CLIP_SHARE must lead all of them to one"):
        Keeper(
            tmp_path,
            clip_share=str(tmp_path / "elsewhere"),
            snapshot_store=pair[0].settings.snapshot_store,
        )


async def test_nothing_is_written_where_the_place_was_before_it_was_unmounted(pair: Pair) -> None:
    here, _ = pair
    mounted = here.shared_folder.rename(here.shared_folder.with_name("mounted"))
    here.shared_folder.mkdir()
    job = await here.store.open(None)
    job.upload.write_bytes(here.clip)
    with pytest.raises(StoreError, match="no longer leads"):
        await here.store.submit(job, "test")
    assert here.folders() == set()
    here.shared_folder.rmdir()
    mounted.rename(here.shared_folder)


async def test_what_another_version_wrote_is_refused(pair: Pair, tmp_path: Path) -> None:
    url = pair[0].settings.snapshot_store
    with redis.Redis.from_url(url) as asked:
        asked.set(f"{PREFIX}share", "2-0123")
    with pytest.raises(SettingsError, match="another version"):
        Keeper(tmp_path, snapshot_store=url, clip_share=pair[0].settings.clip_share)


async def test_a_place_need_not_be_a_folder(shared: dict[str, Any], tmp_path: Path) -> None:
    here, there = (
        Keeper(tmp_path, **{**shared, "clip_share": "memory://clips/of/all"}) for _ in range(2)
    )
    job = await here.done()
    await over_at(there, job)
    assert await there.store.result(job.id) == await here.store.result(job.id)
    assert (await there.store.artefact(job.id, "masks.npz")).is_file()
    await there.store.delete(job.id)
    for keeper in (here, there):
        await keeper.stop()


async def test_copies_of_a_server_that_died_are_removed_by_the_next(pair: Pair) -> None:
    here, there = pair
    left = here.settings.clip_dir / "server-dead"
    (left / "c_some").mkdir(parents=True)
    (left / "lock").touch()
    await there.restart()
    assert not left.exists()
    assert here.store.room.folder.is_dir()
