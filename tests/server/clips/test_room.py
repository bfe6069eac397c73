"""Files that a full disk, a kill or a power cut may meet at any moment."""

import errno
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.clips.room import write_whole
from server.errors import StorageError
from tests.server.clips.keeping import Keeper


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    await keeper.stop()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What was synced, in order: the name that it had then, and whether it was a folder."""
    order: list[tuple[str, bool]] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        order.append((path.name, stat.S_ISDIR(os.fstat(descriptor).st_mode)))

    monkeypatch.setattr(os, "fsync", note)
    return order


def test_bytes_are_on_the_disk_before_their_name_and_the_name_before_it_is_told(
    tmp_path: Path, synced: list[tuple[str, bool]]
) -> None:
    """fsync(2): the entry in the directory needs a sync of its own."""
    write_whole(tmp_path / "result.json", b"{}")
    assert synced == [("part-result.json", False), (tmp_path.name, True)]
    assert (tmp_path / "result.json").read_bytes() == b"{}"


async def test_a_power_cut_leaves_no_empty_file_of_a_clip(
    lone: Keeper, synced: list[tuple[str, bool]]
) -> None:
    job = await lone.done()
    synced.clear()
    await lone.store.artefact(job.id, "masks.npz")
    assert synced == [("part-masks.npz", False), (job.id, True)]


async def test_what_was_being_made_when_a_server_was_killed_is_removed(lone: Keeper) -> None:
    job = await lone.done()
    await lone.stop()
    for name in ("part-overlay.mp4", "part-r1-result.json", "part-overlay.mp4.part"):
        (job.folder / name).write_bytes(b"half")
    lone.start()
    assert {path.name for path in job.folder.iterdir()} == {"upload", "result.json"}


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EROFS, StorageError), (errno.EACCES, PermissionError)]
)
async def test_a_clip_whose_folder_cannot_be_made_is_not_listed(
    lone: Keeper, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(path: Path, mode: int = 0) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(kind):
            await lone.store.open(None)
    assert lone.store.jobs() == []
