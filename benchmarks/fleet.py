"""Live sessions on replicas of Ray Serve: what Ray adds to a frame, and how soon sessions go on.

    python -m benchmarks.fleet [--sessions 20] [--frames 40] [--fps 1] [--single 300]

First one stream at 30 frames/s through plain `gdkvm serve`, then through `gdkvm serve --ray` with
one replica: time from sending a frame to having its answer, and of it all that the server's own
clock does not see (line, proxies, client); and the processor time of each process, for a frame and
idle. RAY_SERVE_ENABLE_HA_PROXY=1 puts HAProxy in the place of Ray's own proxy. Then many sessions
on two replicas: one is killed with -9, then all are replaced; every session must end with the
masks, beats and EF of an undisturbed one. The time to resume runs from a client's noticing the cut
or `drain` to another's `ready`.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from gdkvm_client import Hello, Result, StreamClient
from server.ingest import SampleClip, read_sample
from tests.e2e.chaos import Print, fingerprint, frames_of
from tests.e2e.fleet import Replicas, fleet, redis_server
from tests.e2e.serving import serving

SETTINGS = {"threads": 1, "streams": 1, "capacity_fps": 10_000, "max_sessions": 64}

SETTLE_S = 5.0


class TimedClient(StreamClient):
    """Notes how long each resumption took."""

    took_s: list[float]

    async def _resume(self) -> None:
        started_s = time.perf_counter()
        await super()._resume()
        self.took_s.append(time.perf_counter() - started_s)


async def one_stream(url: str, clip: SampleClip, count: int) -> None:
    """Time one stream at the clip's own pace, a frame at a time."""
    whole_ms, outside_ms = [], []
    async with StreamClient(url, Hello(clip.size, "jpeg", policy="every")) as client:
        begun_s = time.perf_counter()
        for frame in frames_of(clip, count):
            await asyncio.sleep(max(0.0, begun_s + frame.seq / 30 - time.perf_counter()))
            sent_s = time.perf_counter()
            await client.send(frame)
            while not isinstance(event := await anext(client), Result):
                pass
            whole_ms.append(1000 * (time.perf_counter() - sent_s))
            outside_ms.append(whole_ms[-1] - event.stages_ms.total)
    print(f"  whole answer     {spread(whole_ms[10:])}")
    print(f"  outside replica  {spread(outside_ms[10:])}", flush=True)


def used_ms(store: str) -> Counter[str]:
    """Processor time so far of every process that was given this store, by what it is."""
    used = Counter[str]()
    mark, tick_ms = f"GDKVM_SNAPSHOT_STORE={store}".encode(), 1000 / os.sysconf("SC_CLK_TCK")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (process / "environ").read_bytes():
                continue
            words = (process / "stat").read_text().rpartition(")")[2].split()
            name = (process / "cmdline").read_bytes().partition(b"\0")[0].decode()
        except OSError:
            continue
        # An actor is called by what it is doing just now, behind a dot.
        used[Path(name).name.partition(".")[0]] += round(
            (int(words[11]) + int(words[12])) * tick_ms
        )
    return used


def watched(url: str, store: str, clip: SampleClip, count: int) -> None:
    """Time one stream, and tell what it and idling cost each process."""
    # HAProxy takes over from Ray's own proxy a little after the first replica is ready.
    time.sleep(SETTLE_S)
    before = used_ms(store)
    time.sleep(SETTLE_S)
    idle = used_ms(store)
    asyncio.run(one_stream(url, clip, count))
    after = used_ms(store)
    for name, all_ms in after.items():
        frame_ms, idle_ms = (all_ms - idle[name]) / count, (idle[name] - before[name]) / SETTLE_S
        print(f"  {name}: {frame_ms:.1f} ms of a processor a frame; idle {idle_ms:.0f} ms/s")


def spread(values: Sequence[float]) -> str:
    """Median and 99th percentile."""
    middle, late = np.percentile(values, [50, 99])
    return f"median {middle:.1f}, p99 {late:.1f} ms"


async def play(url: str, clip: SampleClip, count: int, fps: float) -> tuple[Print, list[float]]:
    """One session at a pace; returns what it was told, and how long each resumption took."""
    async with TimedClient(url, Hello(clip.size, "jpeg", policy="every")) as client:
        client.took_s = []

        async def send() -> None:
            for frame in frames_of(clip, count):
                await client.send(frame)
                await asyncio.sleep(1 / fps)
            await client.finish()

        sender = asyncio.create_task(send())
        prints = [fingerprint(event) async for event in client]
        await sender
        return prints, client.took_s


async def hand_over(
    served: Replicas, clip: SampleClip, sessions: int, count: int, fps: float
) -> None:
    """Kill one replica under load, then replace all, and compare."""
    undisturbed, _ = await play(served.url, clip, count, 1000)
    whole_s = count / fps
    async with asyncio.TaskGroup() as group:
        players = [group.create_task(play(served.url, clip, count, fps)) for _ in range(sessions)]
        await asyncio.sleep(whole_s / 4)
        before = served.pids()
        served.kill_one()
        await asyncio.sleep(whole_s / 4)
        served.roll_out()
        await asyncio.to_thread(
            served.until, lambda: len(served.pids()) == 2 and not served.pids() & before
        )
    found = [player.result() for player in players]
    different = sum(prints != undisturbed for prints, _ in found)
    took_ms = [1000 * took_s for _, all_s in found for took_s in all_s]
    print(f"{sessions} sessions at {fps:g} frames/s, {count} frames: 0 lost, {different} different")
    print(
        f"  {len(took_ms)} resumptions, time to resume {spread(took_ms)}, worst {max(took_ms):.0f}"
    )


def main() -> None:
    """Measure, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--single", type=int, default=300)
    given = parser.parse_args()
    clip = read_sample()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        store = stack.enter_context(redis_server(folder))
        with serving(folder, snapshot_store=store, **SETTINGS) as plain:
            print("plain uvicorn, one stream at 30 frames/s")
            watched(plain.url, store, clip, given.single)
        with fleet(folder, store, 1, **SETTINGS) as single:
            print("Ray Serve, one replica, one stream at 30 frames/s")
            watched(single.url, store, clip, given.single)
        if given.sessions:
            with fleet(folder, store, 2, **SETTINGS) as served:
                asyncio.run(hand_over(served, clip, given.sessions, given.frames, given.fps))


if __name__ == "__main__":
    main()
