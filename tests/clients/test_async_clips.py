import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gdkvm_client import (
    AsyncClips,
    ClipRefusedError,
    Clips,
    ConnectionLostError,
    InputError,
    NotFinishedError,
    NotFoundError,
    TooBigError,
)
from server.settings import Settings
from tests.server.phantom import Served, phantom_clip, serving

COUNT = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_clip(tmp_path_factory.mktemp("clip") / "clip.dcm", COUNT)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(clip_dir=tmp_path_factory.mktemp("clips"), upload_max_bytes=1_000_000)
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        yield served


async def test_several_clips_are_analysed_at_once_as_they_are_one_by_one(
    served: Served, clip: Path
) -> None:
    async with AsyncClips(served.url) as clips:
        both = await asyncio.gather(clips.analyse(clip), clips.analyse(clip, view="A2C"))
    with Clips(served.url) as clips_one_by_one:
        wanted = [clips_one_by_one.analyse(clip, view=view).document for view in (None, "A2C")]
    assert [result.document for result in both] == wanted
    assert served.http.get("/v1/clips").json() == []


async def test_the_event_loop_goes_on_while_a_clip_takes_longer_than_the_wait(
    served: Served, clip: Path
) -> None:
    served.backend.gate.clear()
    # Called by the event loop: one that is held up would never let the clip end.
    asyncio.get_running_loop().call_later(0.3, served.backend.gate.set)
    async with AsyncClips(served.url) as clips:
        assert len((await clips.analyse(clip, wait_s=0.05)).frames) == COUNT
    assert served.http.get("/v1/clips").json() == []


async def test_a_clip_is_uploaded_followed_fetched_and_deleted(
    served: Served, clip: Path, tmp_path: Path
) -> None:
    served.backend.gate.clear()
    async with AsyncClips(served.url) as clips:
        job = await clips.upload(clip)
        with pytest.raises(NotFinishedError):
            await clips.result(job.id)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await clips.wait(job)
        served.backend.gate.set()
        done = await clips.wait(job)
        assert (done.id, done.state, done.progress) == (job.id, "done", 1.0)
        assert len((await clips.result(job.id)).frames) == COUNT
        await clips.download(job.id, "masks.npz", tmp_path / "masks.npz")
        with np.load(tmp_path / "masks.npz", allow_pickle=False) as masks:
            assert masks["labels_THW"].shape == (COUNT, 144, 144)
        await clips.delete(job.id)
        with pytest.raises(NotFoundError):
            await clips.job(job.id)
        with pytest.raises(NotFoundError):
            await clips.download(job.id, "masks.npz", tmp_path / "later.npz")
    assert os.listdir(tmp_path) == ["masks.npz"]


async def test_refusals_are_the_errors_of_the_other_client(served: Served, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("no clip")
    (tmp_path / "large").write_bytes(bytes(1_000_001))
    async with AsyncClips(served.url) as clips:
        with pytest.raises(ClipRefusedError) as refusal:
            await clips.analyse(tmp_path / "words")
        assert refusal.value.code == "not_a_clip"
        with pytest.raises(TooBigError):
            await clips.upload(tmp_path / "large")
        with pytest.raises(InputError):
            await clips.upload(tmp_path / "words", view="PLAX")
        with pytest.raises(FileNotFoundError):
            await clips.upload(tmp_path / "missing")
    async with AsyncClips("http://127.0.0.1:9") as clips:
        with pytest.raises(ConnectionLostError):
            await clips.job("c_1")
    with pytest.raises(InputError):
        await AsyncClips("nowhere").job("c_1")


def test_both_clients_offer_the_same() -> None:
    def offered(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        public = {name: method for name, method in methods if not name.startswith("_")}
        return {name: list(inspect.signature(method).parameters) for name, method in public.items()}

    plain, other = offered(Clips), offered(AsyncClips)
    assert plain["wait"].pop() == "timeout_s", "asyncio.timeout stands for it"
    assert other == plain
