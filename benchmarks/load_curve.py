"""What more sessions cost: answers in time, waiting, drops, refusals and memory against the load.

    python -m benchmarks.load_curve [--fps 15 30 60] [--sessions 1 2 4 8 16 32 64] [--seconds 6]
                                    [--all] [--settings GDKVM_STREAMS=1 ...]

Serves from a process of its own and streams the sample clip from this one. A session that the
server cannot hold at its rate is refused at `hello`; with `--all` no session says its rate, none is
refused, and what the server cannot do shows as dropped frames. Beside the times that a client sees,
the table has the most frames that waited for a worker and the oldest unanswered frame, looked up
four times a second.
"""

import argparse
import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from server.commands.bench import jpegs_of, machine, size_of
from server.commands.load import Answers, Load, run_lightly, run_load
from server.commands.local import local_server
from server.commands.streaming import websocket_url

LOOK_S = 0.25
REST_S = 1.0
HEAD = (
    "| frames/s each | sessions asked | refused | answers/s | dropped | p50 ms | p99 ms | p99.9 ms "
    "| within a frame period | most waiting | oldest ms | memory MB |\n" + "| --- " * 12 + "|"
)


@dataclass(slots=True)
class Waits:
    """The worst that was seen of a server while it was under load.

    Attributes:
        frames: that waited for a worker.
        oldest_ms: age of the oldest unanswered frame.
        memory_mb: resident.
    """

    frames: float = 0.0
    oldest_ms: float = 0.0
    memory_mb: float = 0.0


def figure(metrics: str, name: str) -> float:
    """Read one value of a metrics page."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def look(address: str, waits: Waits) -> None:
    """Ask a server once."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    waiting = figure(metrics, 'gdkvm_jobs_waiting{kind="frame"}')
    oldest_ms = 1000 * figure(metrics, "gdkvm_oldest_frame_seconds")
    memory_mb = figure(metrics, "process_resident_memory_bytes") / 1e6
    waits.frames = max(waits.frames, waiting)
    waits.oldest_ms = max(waits.oldest_ms, oldest_ms)
    waits.memory_mb = max(waits.memory_mb, memory_mb)


async def watch(address: str, waits: Waits) -> None:
    """Ask a server for ever."""
    while True:
        await asyncio.to_thread(look, address, waits)
        await asyncio.sleep(LOOK_S)


async def put(load: Load, address: str) -> tuple[Answers, Waits]:
    """Put a load on a server, and see what waits there."""
    waits = Waits()
    watching = asyncio.create_task(watch(address, waits))
    answers = await run_load(load)
    watching.cancel()
    return answers, waits


def row(load: Load, answers: Answers, waits: Waits) -> str:
    """One line of the table."""
    frames = len(answers.times_ms) + answers.dropped
    shown = ["", "", "", ""]
    if answers.times_ms:
        shown = [f"{each:.1f}" for each in np.percentile(answers.times_ms, (50, 99, 99.9))]
        in_time = np.mean(np.array(answers.times_ms) <= 1000 / load.fps)
        shown.append(f"{100 * in_time:.1f} %")
    cells = [
        f"{load.fps:g}",
        str(load.sessions),
        str(answers.refused),
        f"{len(answers.times_ms) / load.seconds:.0f}",
        f"{100 * answers.dropped / max(1, frames):.1f} %",
        *shown,
        f"{waits.frames:.0f}",
        f"{waits.oldest_ms:.0f}",
        f"{waits.memory_mb:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def curve(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the table, each as soon as it is measured."""
    images = jpegs_of(None)
    given = dict(each.split("=", 1) for each in options.settings)
    wanted = {"GDKVM_MAX_SESSIONS": str(max(options.sessions)), **given}
    with local_server(wanted) as address:
        url = websocket_url(address)
        for fps in options.fps:
            for sessions in options.sessions:
                load = Load(
                    url,
                    size_of(images),
                    images,
                    sessions,
                    fps,
                    options.seconds,
                    is_declared=not options.all,
                )
                yield row(load, *run_lightly(put(load, address)))
                time.sleep(REST_S)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", type=float, nargs="+", default=[15.0, 30.0, 60.0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--settings", nargs="*", default=[])
    options = parser.parse_args()
    print(machine())
    print(HEAD)
    for line in curve(options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
