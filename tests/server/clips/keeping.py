"""A store of few clips, and what a test may do to it."""

import asyncio
from pathlib import Path
from typing import Any

from server.clips import ClipStore, Job
from server.metrics import Metrics
from server.settings import Settings
from tests.server.phantom import GreyBackend, grey_predictor, phantom_clip

COUNT = 6


class Keeper:
    """A store, three clips large unless said otherwise; `restart` makes the next run's."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.backend = GreyBackend()
        self.clip = phantom_clip(folder / "phantom.dcm", COUNT).read_bytes()
        self.settings = Settings(**{"clip_dir": folder / "clips", "max_clips": 3, **settings})
        self.start()

    def start(self) -> None:
        self.metrics = Metrics()
        self.store = ClipStore(self.settings, grey_predictor(self.backend), self.metrics)
        while self.backend.begun.acquire(blocking=False):
            continue  # the self-test's frames
        self.store.start()

    async def stop(self) -> None:
        """As a server stops in order."""
        self.store.leave()
        closing = asyncio.create_task(asyncio.to_thread(self.store.close))
        await asyncio.sleep(0.02)
        self.backend.gate.set()
        await asyncio.wait_for(closing, 30)

    async def restart(self) -> None:
        await self.stop()
        self.start()

    def variant(self, number: int) -> bytes:
        """The same clip in other bytes."""
        return self.clip + bytes(2 * number)

    async def submit(self, content: bytes | None = None) -> Job:
        job = await self.store.open(None)
        job.upload.write_bytes(self.clip if content is None else content)
        await self.store.submit(job, "test")
        return job

    async def done(self, content: bytes | None = None) -> Job:
        job = await self.submit(content)
        await asyncio.wait_for(job.finished.wait(), 30)
        return job

    async def wait_for_frame(self) -> None:
        assert await asyncio.to_thread(self.backend.begun.acquire, timeout=30)

    def frames_begun(self) -> int:
        """How many since this was last asked."""
        count = 0
        while self.backend.begun.acquire(blocking=False):
            count += 1
        return count

    def counted(self, name: str) -> float:
        """What one of its metrics has counted, over all labels."""
        samples = getattr(self.metrics, name).collect()[0].samples
        return float(sum(each.value for each in samples if each.name.endswith("_total")))

    def folders(self) -> set[str]:
        return {path.name for path in self.shared_folder.glob("c_*")}

    @property
    def shared_folder(self) -> Path:
        """Where clips are kept, its own folder where it shares none."""
        return Path(self.settings.clip_share or self.settings.clip_dir)

    def files_kept(self, job: Job) -> set[str]:
        """Of one clip, as they are called where they are kept."""
        return {path.name for path in (self.shared_folder / job.id).iterdir()}
