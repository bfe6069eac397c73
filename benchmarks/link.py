"""A live stream over a bad link: what 100 ms of delay, loss and cuts do to its answers.

    python -m benchmarks.link [--fps 30] [--seconds 30] [--cuts 5]

Streams the sample clip in one session of the Python client to a server of this machine's own: once
straight, once over ``tests/e2e/link.py`` (50 ms each way, 2 % of the segments 200 ms late with all
that is behind them), and once over the same with the line cut again and again. Prints one line
each: answers, drops, times from sent to read, and sessions lost.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from server.commands.bench import jpegs_of, size_of
from server.commands.load import Load, document, run_load
from server.commands.local import local_server
from tests.e2e.link import Link, bad_link


@contextlib.asynccontextmanager
async def cutting(link: Link | None, pause_s: float | None) -> AsyncIterator[None]:
    """Cut a link again and again as long as the block lasts."""

    async def cut() -> None:
        while link is not None and pause_s is not None:
            await asyncio.sleep(pause_s)
            link.cut()

    task = asyncio.create_task(cut())
    try:
        yield
    finally:
        task.cancel()


async def measure(load: Load, link: Link | None = None, pause_s: float | None = None) -> str:
    """Stream once; returns what came of it, in a line."""
    async with cutting(link, pause_s):
        answers = await run_load(load)
    told = document(load, answers)
    frames, latency = told["frames"], told["latency_ms"]
    missing = load.count - frames["results"] - frames["dropped"]
    return (
        f"{frames['results']} results, {frames['dropped']} dropped, {missing} unanswered; "
        f"p50 {latency['p50']:.0f} ms, p90 {latency['p90']:.0f} ms, p99 {latency['p99']:.0f} ms, "
        f"worst {latency['p100']:.0f} ms; sessions lost: {told['sessions']['lost']}"
    )


def main() -> None:
    """Stream over each line in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--cuts", type=int, default=5)
    given = parser.parse_args()
    images = jpegs_of(None)
    with local_server({"GDKVM_CAPACITY_FPS": "10000"}) as address:
        port = urlsplit(address).port
        assert port is not None

        def load(at: int) -> Load:
            url = f"ws://127.0.0.1:{at}/v1/stream"
            return Load(url, size_of(images), images, 1, given.fps, given.seconds)

        print("straight:", asyncio.run(measure(load(port))), flush=True)
        with bad_link(port) as link:
            print("bad link:", asyncio.run(measure(load(link.port))), flush=True)
            pause_s = given.seconds / (given.cuts + 1)
            print("and cuts:", asyncio.run(measure(load(link.port), link, pause_s)), flush=True)


if __name__ == "__main__":
    main()
