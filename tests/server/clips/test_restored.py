"""A folder of clips that was restored from a backup, copied by halves, or shared with others."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model import EchoError
from server.clips import Wanted
from server.clips.job import RESULT
from server.clips.room import Room
from server.errors import SettingsError
from tests.server.clips.keeping import Keeper

RESTORED = Wanted(0, None, None, None)


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    await keeper.stop()


def ledger_of(keeper: Keeper) -> Path:
    return keeper.settings.clip_dir / "clips.sqlite3"


async def test_no_clip_is_lost_with_its_ledger(lone: Keeper) -> None:
    jobs = [await lone.done(lone.variant(number)) for number in range(2)]
    found = [await lone.store.result(job.id) for job in jobs]
    lone.backend.gate.clear()
    waiting = await lone.submit(lone.variant(2))
    await lone.stop()
    ledger_of(lone).unlink()
    lone.start()
    assert [job.id for job in lone.store.jobs()] == [*(job.id for job in jobs), waiting.id]
    assert [await lone.store.result(job.id) for job in jobs] == found
    assert (await lone.store.artefact(jobs[0].id, "masks.npz")).is_file()
    await asyncio.wait_for(lone.store.job(waiting.id).finished.wait(), 30)
    assert lone.store.job(waiting.id).state == "done"
    await lone.restart()
    assert len(lone.store.jobs()) == len(jobs) + 1


async def test_a_clip_is_kept_that_came_after_its_ledger_was_saved(lone: Keeper) -> None:
    first = await lone.done()
    await lone.stop()
    saved = shutil.copy(ledger_of(lone), lone.settings.clip_dir.parent / "backup")
    lone.start()
    later, half = await lone.done(lone.variant(1)), await lone.store.open(None)
    half.upload.write_bytes(lone.clip)
    half_folder = lone.settings.clip_dir / "c_abcdefghijklmnop"
    shutil.copytree(half.folder, half_folder)
    await lone.stop()
    shutil.copy(saved, ledger_of(lone))
    lone.start()
    assert [job.id for job in lone.store.jobs()] == [first.id, later.id]
    assert [lone.store.job(job.id).state for job in (first, later)] == ["done", "done"]
    assert not half_folder.exists()


@pytest.mark.parametrize("name", ["c_scans", "c_patients", "c_echo-archive-2026", "server-old"])
async def test_folders_of_others_are_left_alone(lone: Keeper, name: str) -> None:
    await lone.stop()
    other = lone.settings.clip_dir / name / "upload.dcm"
    other.parent.mkdir()
    other.write_bytes(lone.clip)
    lone.start()
    assert other.read_bytes() == lone.clip
    Room.passing(lone.settings.clip_dir).close()
    assert other.read_bytes() == lone.clip


def test_what_a_server_was_removing_when_it_was_killed_goes_at_the_next_start(
    tmp_path: Path,
) -> None:
    half = tmp_path / ".gone-server-abc" / "masks.npz"
    half.parent.mkdir()
    half.write_bytes(b"half of a folder")
    Room.passing(tmp_path).close()
    assert not half.parent.exists()


async def test_a_clip_that_lost_its_result_is_worked_on_anew(lone: Keeper) -> None:
    job = await lone.done()
    found, made = await lone.store.result(job.id), await lone.store.artefact(job.id, "masks.npz")
    await lone.stop()
    job.file(RESULT).unlink()
    lone.start()
    again = lone.store.job(job.id)
    await asyncio.wait_for(again.finished.wait(), 30)
    assert await lone.store.result(job.id) == found
    assert not made.exists()


async def test_a_damaged_result_is_said_to_be_so(lone: Keeper) -> None:
    job, other = await lone.done(), await lone.done(lone.variant(1))
    job.file(RESULT).write_bytes(job.file(RESULT).read_bytes()[:100])
    with pytest.raises(EchoError, match="damaged: upload it again"):
        await lone.store.result(job.id)
    found = await lone.store.result(other.id)
    again = await lone.done()
    assert (await lone.store.result(again.id))["frames"] == found["frames"]


async def test_no_file_of_a_correction_that_was_lost_is_taken_for_the_next_ones(
    lone: Keeper,
) -> None:
    job = await lone.done()
    await lone.store.edit(job.id, RESTORED)
    stale = await lone.store.artefact(job.id, "frames.csv")
    stale.write_text("of the correction that was lost")
    await lone.stop()
    job.file(RESULT).unlink()
    lone.start()
    await lone.store.edit(job.id, RESTORED)
    made = await lone.store.artefact(job.id, "frames.csv")
    assert made.name == stale.name
    assert made.read_text().startswith("seq,")


async def test_what_is_left_of_a_removal_that_was_cut_short_is_removed(lone: Keeper) -> None:
    await lone.stop()
    left = [lone.settings.clip_dir / name for name in (".gone-c_abcdefghijklmnop", ".coming-abc")]
    for path in left:
        path.mkdir()
        (path / "upload").touch()
    lone.start()
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no ledger at all" * 999, "cannot be read .* clips whose files are there are taken up"),
        (None, "cannot be used"),
    ],
)
async def test_a_ledger_that_cannot_be_opened_costs_no_clip(
    lone: Keeper, content: bytes | None, said: str
) -> None:
    job = await lone.done()
    await lone.stop()
    kept = ledger_of(lone).rename(lone.settings.clip_dir.parent / "kept")
    if content is None:
        ledger_of(lone).mkdir()
    else:
        ledger_of(lone).write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        lone.start()
    assert job.file(RESULT).is_file()
    shutil.rmtree(ledger_of(lone)) if content is None else ledger_of(lone).unlink()
    kept.rename(ledger_of(lone))
    lone.start()


async def test_a_ledger_that_was_cut_short_costs_no_clip(lone: Keeper) -> None:
    job = await lone.done()
    await lone.stop()
    whole = ledger_of(lone).read_bytes()
    ledger_of(lone).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingsError, match=r"clips\.sqlite3 in GDKVM_CLIP_DIR cannot be"):
        lone.start()
    assert job.file(RESULT).is_file()
    ledger_of(lone).write_bytes(whole)
    with sqlite3.connect(ledger_of(lone)) as rows:
        assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    lone.start()
