"""Clips whose results another version of the server told, or one of another precision."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.clips import Job, Wanted
from server.clips.job import RESULT
from server.clips.making import OtherFindingsError
from tests.server.clips.keeping import Keeper

RESTORED = Wanted(0, None, None, None)


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    await keeper.stop()


async def told_by_another(keeper: Keeper, part: str, **changes: Any) -> tuple[Job, dict[str, Any]]:
    """A clip whose result another version told, with these changes in one part of it."""
    job = await keeper.done()
    document = json.loads(job.file(RESULT).read_bytes())
    document[part] |= changes
    job.file(RESULT).write_text(json.dumps(document))
    await keeper.restart()
    return keeper.store.job(job.id), document


@pytest.mark.parametrize(
    ("part", "changes"),
    [("ef", {"state": "measured", "percent": 61.5}), ("clip", {"size": [144, 192]})],
)
async def test_nothing_is_made_of_a_clip_that_tells_of_other_figures(
    lone: Keeper, part: str, changes: dict[str, Any]
) -> None:
    job, told = await told_by_another(lone, part, **changes)
    for name in ("report.html", "sr.dcm", "frames.csv", "masks.npz", "pictures.zip"):
        with pytest.raises(OtherFindingsError, match="another version of the server"):
            await lone.store.artefact(job.id, name)
    with pytest.raises(OtherFindingsError, match="upload it again"):
        await lone.store.edit(job.id, RESTORED)
    assert await lone.store.result(job.id) == told


async def test_a_clip_that_tells_of_other_figures_is_worked_on_anew_where_it_comes_again(
    lone: Keeper,
) -> None:
    job, told = await told_by_another(lone, "ef", reasons=[])
    with pytest.raises(OtherFindingsError):
        await lone.store.artefact(job.id, "report.html")
    again = await lone.done()
    assert (await lone.store.result(again.id))["ef"]["reasons"] != told["ef"]["reasons"]
    assert (await lone.store.artefact(again.id, "report.html")).is_file()


async def test_a_correction_alone_finds_out_too(lone: Keeper) -> None:
    job, told = await told_by_another(lone, "ef", reasons=[])
    with pytest.raises(OtherFindingsError):
        await lone.store.edit(job.id, RESTORED)
    assert await lone.store.result(job.id) == told


async def test_the_precision_that_brings_the_figures_back_is_named(lone: Keeper) -> None:
    job, document = await told_by_another(lone, "model", precision="bf16")
    assert (await lone.store.artefact(job.id, "frames.csv")).is_file()
    document["ef"]["reasons"] = []
    job.file(RESULT).write_text(json.dumps(document))
    with pytest.raises(OtherFindingsError, match="set GDKVM_PRECISION=bf16, or upload"):
        await lone.store.artefact(job.id, "report.html")


async def test_files_are_made_of_a_result_that_tells_less_than_this_version(lone: Keeper) -> None:
    job = await lone.done()
    document = json.loads(job.file(RESULT).read_bytes())
    del document["ef"]["method"], document["model"]["precision"], document["edits"]
    job.file(RESULT).write_text(json.dumps(document))
    await lone.restart()
    assert (await lone.store.artefact(job.id, "report.html")).is_file()
    assert (await lone.store.edit(job.id, RESTORED))["revision"] == 1


async def test_an_equal_upload_in_another_precision_is_worked_on_anew(lone: Keeper) -> None:
    await lone.done()
    lone.frames_begun()
    lone.store._works.name = lone.store._works.name.replace("/None", "/bf16")
    await lone.done()
    assert lone.frames_begun()
