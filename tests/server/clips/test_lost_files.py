"""A place that is away is waited for; files that are gone from it are said to be gone."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.clips.depot import Depot, Kept
from server.clips.shared import SharedLedger
from server.clips.work import FILES_GONE
from server.errors import EngineError, StorageError, StoreError
from tests.server.clips.keeping import COUNT, Keeper


@pytest.fixture
async def lone(shared: dict[str, Any], tmp_path: Path) -> Any:
    keeper = Keeper(tmp_path, **shared, clip_lease_s=1.0)
    yield keeper
    await keeper.stop()


@contextmanager
def unmounted(place: Path, *, is_folder_left: bool = True) -> Iterator[None]:
    """Have the place away as long as the block lasts, and an empty folder where it was."""
    mounted = place.rename(place.with_name("mounted"))
    if is_folder_left:
        place.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)
        mounted.rename(place)


def forget_copies(keeper: Keeper) -> None:
    """As after a time in which nobody asked for them."""
    for entry in keeper.store._ledger._mirror.entries.values():  # type: ignore[attr-defined]
        entry.copies.clear()
        shutil.rmtree(entry.job.folder, ignore_errors=True)


@pytest.mark.parametrize("has_copy", [True, False])
async def test_no_clip_gets_the_blame_where_the_place_is_away_while_it_is_worked_on(
    lone: Keeper, *, has_copy: bool
) -> None:
    ledger = lone.store._ledger
    assert isinstance(ledger, SharedLedger)
    with pytest.MonkeyPatch.context() as patch:
        claim = ledger._claim
        patch.setattr(ledger, "_claim", lambda: None)
        job = await lone.submit()
        if not has_copy:
            forget_copies(lone)
        with unmounted(lone.shared_folder):
            await asyncio.to_thread(claim)
            await until_idle(ledger)
            assert not job.finished.is_set()
    await asyncio.wait_for(job.finished.wait(), 30)
    assert (job.state, job.error, job.attempts) == ("done", None, 1)


async def until_idle(ledger: SharedLedger) -> None:
    async with asyncio.timeout(30):
        while ledger._working is not None:  # noqa: ASYNC110 (it happens in threads)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_folder_left", [True, False])
async def test_what_is_asked_for_while_the_place_is_away_is_to_be_asked_again(
    lone: Keeper, *, is_folder_left: bool
) -> None:
    job = await lone.done()
    document = await lone.store.result(job.id)
    forget_copies(lone)
    with unmounted(lone.shared_folder, is_folder_left=is_folder_left):
        for asked in (lone.store.result(job.id), lone.store.artefact(job.id, "masks.npz")):
            with pytest.raises(StoreError, match="no longer leads"):
                await asked
        if not is_folder_left:
            with pytest.raises(StoreError, match="no longer leads"):
                await lone.store.open(None)
    assert await lone.store.result(job.id) == document
    assert (await lone.store.artefact(job.id, "masks.npz")).is_file()


async def test_files_that_are_gone_from_the_place_are_said_to_be(lone: Keeper) -> None:
    job = await lone.done()
    shutil.rmtree(lone.shared_folder / job.id)
    forget_copies(lone)
    for asked in (lone.store.result(job.id), lone.store.artefact(job.id, "masks.npz")):
        with pytest.raises(EngineError, match=FILES_GONE):
            await asked
    again = await lone.done()
    assert (again.state, again.error) == ("done", None)


async def test_a_made_file_that_is_gone_from_the_place_is_made_once_more_and_kept(
    lone: Keeper,
) -> None:
    job = await lone.done()
    made = await lone.store.artefact(job.id, "masks.npz")
    content = made.read_bytes()
    (path,) = (lone.shared_folder / job.id).glob("masks.npz~*")
    path.unlink()
    lone.frames_begun()
    frames = []
    for _ in range(3):
        forget_copies(lone)
        again = await lone.store.artefact(job.id, "masks.npz")
        assert again.read_bytes() == content
        frames.append(lone.frames_begun())
    assert frames == [COUNT, 0, 0]


async def test_files_of_a_clip_deleted_while_the_place_is_away_go_when_it_is_back(
    lone: Keeper,
) -> None:
    job = await lone.done()
    with unmounted(lone.shared_folder):
        await lone.store.delete(job.id)
    assert lone.folders() == {job.id}
    await asyncio.to_thread(lone.store._sweeper.tidy)
    assert lone.folders() == set()


@pytest.mark.parametrize("place", ["folder", "memory://lost/files"])
def test_only_where_the_place_is_there_is_a_file_gone(tmp_path: Path, place: str) -> None:
    depot = Depot(str(tmp_path / place) if place == "folder" else place)
    depot.mark("1-ours")
    depot.expect("1-ours")
    asks: list[Callable[[], None]] = [
        lambda: depot.get("c_1", Kept("upload~0", 1), tmp_path / "copy"),
        lambda: depot.drop("c_1", Kept("upload~0", 1)),
        lambda: depot.clear("c_1"),
    ]
    with pytest.raises(FileNotFoundError):
        asks[0]()
    for ask in asks[1:]:
        ask()
    depot.unmark("1-ours")
    for ask in asks:
        with pytest.raises(StoreError, match="no longer leads"):
            ask()


def test_a_file_that_does_not_fit_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot, path = Depot(str(tmp_path / "place")), tmp_path / "upload"
    path.write_bytes(b"whole")

    def copy_half(source: Any, target: Any, _: int) -> None:
        target.write(source.read(2))
        raise StorageError("no room")

    monkeypatch.setattr("server.clips.depot.shutil.copyfileobj", copy_half)
    with pytest.raises(StorageError):
        depot.put("c_1", path)
    assert list((tmp_path / "place" / "c_1").iterdir()) == []
