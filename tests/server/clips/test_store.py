import asyncio
import logging
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest

import server.clips.work
from model import EchoError
from server.clips import MAKERS, Job, Wanted
from server.clips.room import size_of
from server.clips.sqlite import SqliteLedger
from server.clips.work import MOST_ATTEMPTS
from server.errors import (
    AdmissionError,
    NotAvailableError,
    NotFinishedError,
    NotFoundError,
    StorageError,
)
from server.study import Progress, Study, analyse_clip
from tests.server.clips.keeping import COUNT, Keeper


async def test_a_clip_goes_from_received_to_done(keeper: Keeper) -> None:
    keeper.backend.gate.clear()
    job = await keeper.store.open("A4C")
    assert (job.to_json()["state"], job.to_json()["view"]) == ("received", "A4C")
    with pytest.raises(NotFinishedError, match="received"):
        await keeper.store.result(job.id)
    job.upload.write_bytes(keeper.clip)
    await keeper.store.submit(job, "test")
    await keeper.wait_for_frame()
    assert job.to_json()["state"] == "running"
    with pytest.raises(NotFinishedError, match="running"):
        await keeper.store.artefact(job.id, "masks.npz")
    keeper.backend.gate.set()
    await asyncio.wait_for(job.finished.wait(), 30)
    assert job.to_json() == {
        "id": job.id, "state": "done", "progress": 1.0, "view": "A4C", "study": None,
        "error": None,
    }  # fmt: skip
    assert (await keeper.store.result(job.id))["clip"]["frames"] == COUNT
    assert keeper.metrics.clips.labels("done")._value.get() == 1


async def test_progress_is_the_share_of_frames_done_where_their_number_is_known(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []

    def analyse(*_: object, progress: Progress, **__: object) -> Study:
        for done, total in ((1, None), (3, 4), (4, 4)):
            progress(done, total)
            seen.append(keeper.store.jobs()[0].progress)
        raise NotFoundError("enough")

    monkeypatch.setattr(server.clips.work, "analyse_clip", analyse)
    job = await keeper.done()
    assert seen == [None, 0.75, 1.0]
    assert job.progress is None


async def test_a_refused_clip_keeps_its_reason_and_no_file(keeper: Keeper) -> None:
    job = await keeper.done(b"no clip at all")
    assert job.to_json()["state"] == "failed"
    assert job.to_json()["error"]["code"] == "not_a_clip"
    assert job.to_json()["error"]["status"] == 415
    with pytest.raises(EchoError) as refusal:
        await keeper.store.result(job.id)
    assert refusal.value.code == "not_a_clip"
    assert keeper.folders() == set()


async def test_a_fault_of_ours_fails_one_clip_and_tells_no_secret(keeper: Keeper) -> None:
    keeper.backend.failure = RuntimeError("secret")
    broken = await keeper.done()
    assert broken.error is not None
    assert broken.error.code == "engine_failed"
    assert "secret" not in broken.error.message
    keeper.backend.failure = None
    assert (await keeper.done()).state == "done"


async def test_the_oldest_result_makes_room_for_a_new_one(keeper: Keeper) -> None:
    jobs = [await keeper.done() for _ in range(4)]
    assert keeper.store.jobs() == jobs[1:]
    assert keeper.folders() == {job.id for job in jobs[1:]}
    with pytest.raises(NotFoundError):
        await keeper.store.result(jobs[0].id)


async def test_refused_files_never_drive_out_a_result(keeper: Keeper) -> None:
    good = [await keeper.done() for _ in range(3)]
    bad = [await keeper.done(b"rubbish") for _ in range(4)]
    assert keeper.store.jobs() == [*good, *bad[1:]]
    assert all([await keeper.store.result(job.id) for job in good])
    aborted = await keeper.store.open(None)
    keeper.store.discard(aborted)
    assert all([await keeper.store.result(job.id) for job in good])


async def test_a_store_of_waiting_clips_takes_no_more_and_then_takes_more(keeper: Keeper) -> None:
    keeper.backend.gate.clear()
    jobs = [await keeper.submit() for _ in range(3)]
    with pytest.raises(AdmissionError) as full:
        await keeper.store.open(None)
    assert full.value.retryable
    keeper.backend.gate.set()
    await asyncio.wait_for(asyncio.gather(*(job.finished.wait() for job in jobs)), 30)
    keeper.store.discard(await keeper.store.open(None))


async def test_a_deleted_clip_stops_at_its_next_frame_and_leaves_no_file(keeper: Keeper) -> None:
    keeper.backend.gate.clear()
    running, queued = await keeper.submit(), await keeper.submit()
    await keeper.wait_for_frame()
    await keeper.store.delete(running.id)
    await keeper.store.delete(queued.id)
    with pytest.raises(NotFoundError):
        keeper.store.job(running.id)
    keeper.backend.gate.set()
    await asyncio.wait_for(asyncio.gather(running.finished.wait(), queued.finished.wait()), 30)
    assert not keeper.backend.begun.acquire(blocking=False)  # one frame in all was begun
    for job in (running, queued):
        with pytest.raises(NotAvailableError):
            job.result()
        assert not job.folder.exists()
    assert keeper.folders() == set()
    assert (await keeper.done()).state == "done"


async def test_a_clip_deleted_as_it_ends_is_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(tmp_path)

    def delete_and_look(folder: Path) -> int:
        keeper.store._ledger.remove(keeper.store.jobs()[0])
        return size_of(folder)

    monkeypatch.setattr(server.clips.work, "size_of", delete_and_look)
    job = await keeper.done()
    assert isinstance(job.error, NotAvailableError)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    await keeper.stop()


async def test_a_clip_deleted_while_it_comes_is_not_worked_on(keeper: Keeper) -> None:
    job = await keeper.store.open(None)
    await keeper.store.delete(job.id)
    with pytest.raises(NotAvailableError):
        await keeper.store.submit(job, "test")
    keeper.store.discard(job)
    assert keeper.folders() == set()


async def test_a_file_is_made_once_and_kept(keeper: Keeper) -> None:
    job = await keeper.done()
    first, second = await asyncio.gather(
        keeper.store.artefact(job.id, "masks.npz"), keeper.store.artefact(job.id, "masks.npz")
    )
    made = first.stat().st_mtime_ns
    assert first == second == await keeper.store.artefact(job.id, "masks.npz")
    assert first.stat().st_mtime_ns == made
    assert zipfile.is_zipfile(first)
    assert {path.name for path in first.parent.iterdir()} == {"upload", "result.json", "masks.npz"}


async def test_a_clip_deleted_while_its_overlay_is_made_leaves_no_file(keeper: Keeper) -> None:
    job = await keeper.done()
    while keeper.backend.begun.acquire(blocking=False):
        continue
    keeper.backend.gate.clear()
    making = asyncio.create_task(keeper.store.artefact(job.id, "overlay.mp4"))
    await keeper.wait_for_frame()
    await keeper.store.delete(job.id)
    keeper.backend.gate.set()
    with pytest.raises(NotAvailableError):
        await making
    assert keeper.folders() == set()


@pytest.mark.parametrize("name", ["masks.npz", "overlay.mp4"])
async def test_a_full_disk_makes_no_half_file_and_loses_no_result(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = await keeper.done()
    document = await keeper.store.result(job.id)

    def write_nowhere(path: Path, *_: Any) -> None:
        with path.open("wb") as file, open("/dev/full", "wb", buffering=0) as full:
            file.write(b"half")
            full.write(b"half")

    with monkeypatch.context() as patch:
        patch.setitem(MAKERS, name, write_nowhere)
        with pytest.raises(StorageError):
            await keeper.store.artefact(job.id, name)
    assert {path.name for path in job.folder.iterdir()} == {"upload", "result.json"}
    assert await keeper.store.result(job.id) == document
    assert (await keeper.store.artefact(job.id, name)).is_file()


async def test_a_full_disk_is_never_taken_for_a_clip_that_breaks_the_server(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = iter(range(2 * MOST_ATTEMPTS))

    def analyse_where_there_is_room(*given: Any, **named: Any) -> Study:
        if next(full, None) is not None:
            raise StorageError("no room")
        return analyse_clip(*given, **named)

    monkeypatch.setattr("server.clips.desk.RETRY_S", 0.001)
    monkeypatch.setattr(server.clips.work, "analyse_clip", analyse_where_there_is_room)
    job = await keeper.done()
    assert (job.state, job.attempts) == ("done", 1)


@pytest.mark.parametrize("has_twin", [True, False])
async def test_no_clip_is_said_to_be_done_before_that_is_written_down(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, *, has_twin: bool
) -> None:
    if has_twin:
        await keeper.done()
    ledger, said = keeper.store._ledger, []
    save = ledger.save

    def save_and_look(job: Job) -> None:
        said.append(keeper.store.jobs()[-1].state)
        save(job)

    monkeypatch.setattr(ledger, "save", save_and_look)
    job = await keeper.done(keeper.clip)
    assert job.state == "done"
    assert said == (["queued"] if has_twin else ["running", "running"])


async def test_a_clip_whose_end_cannot_be_kept_is_not_said_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, save = Keeper(tmp_path), SqliteLedger.save

    def save_no_end(ledger: SqliteLedger, job: Job) -> None:
        if job.is_over:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        save(ledger, job)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLedger, "save", save_no_end)
        job = await keeper.done()
    assert job.to_json()["state"] == "failed"
    assert job.to_json()["error"]["code"] == "engine_failed"
    assert keeper.counted("ejection_fractions") == 0
    await keeper.restart()
    (again,) = keeper.store.jobs()
    await asyncio.wait_for(again.finished.wait(), 30)
    assert again.state == "done"
    await keeper.stop()


@pytest.mark.parametrize(
    ("error", "has_twin"),
    [(StorageError("full"), True), (StorageError("full"), False), (RuntimeError("a bug"), False)],
)
async def test_a_clip_that_is_done_stays_so_where_old_ones_cannot_be_removed(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, error: Exception, *, has_twin: bool
) -> None:
    for number in range(1, 4):
        await keeper.done(keeper.variant(number))

    def refuse(_: Job) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(keeper.store._sweeper, "_forget", refuse)
        job = await keeper.done(keeper.variant(3) if has_twin else None)
    assert (job.state, job.error) == ("done", None)
    assert (await keeper.store.result(job.id))["clip"]["frames"] == COUNT


async def test_a_correction_that_cannot_be_written_down_is_undone_wholly(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await keeper.done()
    for _ in range(2):
        before = await keeper.store.edit(job.id, Wanted(0, None, None, None))
    await keeper.store.artefact(job.id, "frames.csv")
    await keeper.store.refresh()
    files, size_bytes = _files_in(job.folder), job.size_bytes

    told: list[dict[str, Any]] = []

    def refuse(_: Job) -> None:
        told.append(job.result())
        raise StorageError("no room")

    wanted = Wanted(1, None, frozenset({2}), None)
    with monkeypatch.context() as patch:
        patch.setattr(keeper.store._ledger, "save", refuse)
        with pytest.raises(StorageError):
            await keeper.store.edit(job.id, wanted)
    assert told == [before], "what is not written down is told to nobody"
    assert (_files_in(job.folder), job.size_bytes) == (files, size_bytes)
    assert await keeper.store.result(job.id) == before
    assert (await keeper.store.edit(job.id, wanted))["revision"] == 3


async def test_a_clip_makes_room_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(tmp_path)
    job = await keeper.done()
    run = SqliteLedger._run

    def run_where_there_is_room(ledger: SqliteLedger, *given: Any) -> Any:
        if job.folder.exists():
            raise StorageError("no room")
        return run(ledger, *given)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLedger, "_run", run_where_there_is_room)
        await keeper.store.delete(job.id)
    await keeper.restart()
    assert (keeper.store.jobs(), keeper.folders()) == ([], set())
    await keeper.stop()


def _files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
