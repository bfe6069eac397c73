"""Where a live frame's time goes, stage by stage, from its last byte received to its answer sent.

    python -m benchmarks.stages [--fps 30] [--seconds 20] [--sessions 1] [--watch]

Serves the sample clip from this process to a client in another one, with a clock around every
stage. Prints medians and 99th percentiles as a Markdown table, what all but the network costs, and
what the server used of the processor; with `--watch`, which costs something itself, how long the
event loop was blocked, while clips are uploaded and operators' pages fetched too.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import model.predictor
import server.analysis
import server.session
from benchmarks.loop_watch import LoopWatch
from gdkvm_client import Clips, GdkvmError
from model import BeatTracker
from server.commands.bench import jpegs_of, size_of
from server.commands.load import Load, run_lightly, run_load
from server.commands.serving import DrainingServer, hold_up_nobody, warm_up
from server.ingest import sample_path
from server.payload import PayloadDecoder
from server.protocol import Result
from server.session import Session
from server.settings import Settings
from server.stream import FrameSocket

WARM_UP_FRAMES = 60
BOTHER_S = 0.5
CLIENT = "import sys; from benchmarks.stages import send; send(*map(float, sys.argv[1:]))"

Times = defaultdict[str, list[float]]

STAGES: dict[str, tuple[Any, str]] = {
    "JPEG to luma": (PayloadDecoder, "luma"),
    "crop and scale": (model.predictor, "to_network_input"),
    "outlines, axis, disks, quality": (server.analysis, "measure_frame"),
    "beats": (BeatTracker, "push"),
    "labels on the source grid": (server.session, "to_source_labels"),
    "runs": (server.session, "Runs"),
    "mask encoding": (server.session, "encode_mask"),
    "JSON": (Result, "to_json"),
}
"""What is called once a frame, by the name of the row, beside the network."""


def timed(times: Times, row: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, its time noted."""

    def run(*values: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
            return work(*values, **named)
        finally:
            times[row].append(time.perf_counter() - began_s)

    return run


@contextmanager
def clocks(times: Times) -> Iterator[None]:
    """Put a clock around every stage."""
    answer, tell = Session.answer, FrameSocket.answer

    def answered(session: Session, arrival: Any) -> Any:
        began_s = time.perf_counter()
        times["wait for a worker"].append(began_s - arrival.received_s)
        found = answer(session, arrival)
        times["_answered"].append(time.perf_counter())
        times["_worker"].append(times["_answered"][-1] - began_s)
        return found

    async def told(socket: FrameSocket, found: Any, received_s: float | None = None) -> None:
        began_s = time.perf_counter()
        await tell(socket, found, received_s)
        ended_s = time.perf_counter()
        if received_s is not None:
            times["back to the event loop"].append(began_s - times["_answered"][-1])
            times["write, count"].append(ended_s - began_s)
            times["_whole"].append(ended_s - received_s)

    with patch.object(Session, "answer", answered), patch.object(FrameSocket, "answer", told):
        patches = [
            patch.object(owner, name, timed(times, row, getattr(owner, name)))
            for row, (owner, name) in STAGES.items()
        ]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()


def send(port: float, sessions: float, fps: float, seconds: float) -> None:
    """The client's side, in a process of its own."""
    images = jpegs_of(None)
    url = f"ws://127.0.0.1:{port:.0f}/v1/stream"
    answers = run_lightly(run_load(Load(url, size_of(images), images, int(sessions), fps, seconds)))
    found: dict[str, float] = {"dropped": answers.dropped, "refused": answers.refused}
    if answers.times_ms:
        found |= {f"p{p}": float(np.percentile(answers.times_ms, p)) for p in (50, 99)}
    print(json.dumps(found))


def serve(options: argparse.Namespace, folder: Path, times: Times) -> tuple[LoopWatch, float]:
    """Serve until the client has left; returns the event loop's lags and the processor's time."""
    store = str(folder / "sessions.sqlite")
    settings = Settings(
        port=0, clip_dir=folder, snapshot_store=store, capacity_fps=1e6, max_sessions=256
    )
    server = DrainingServer(settings)
    predictor = next(iter(server.parts.engine.predictors.values()))
    predictor.backend.step = timed(times, "network", predictor.backend.step)  # type: ignore[method-assign]
    print(predictor.choice and predictor.choice.why)
    asyncio.run(warm_up(server.app))
    hold_up_nobody()
    watch = LoopWatch()
    used_s = 0.0

    def client() -> None:
        nonlocal used_s
        while not server.started:
            time.sleep(0.01)
        if options.watch:
            loop = server.servers[0].get_loop()
            asyncio.run_coroutine_threadsafe(watch.begin(), loop).result()
        # The self-test went by the clocks too.
        times.clear()
        port = str(server.servers[0].sockets[0].getsockname()[1])
        load = [port, *map(str, (options.sessions, options.fps, options.seconds))]
        began_s = time.process_time()
        if options.watch:
            threading.Thread(target=bother, args=(int(port), server), daemon=True).start()
        subprocess.run([sys.executable, "-c", CLIENT, *load], check=True, env=os.environ)
        used_s = time.process_time() - began_s
        server.should_exit = True

    asking = threading.Thread(target=client)
    asking.start()
    server.run()
    asking.join()
    return watch, used_s


def bother(port: int, server: DrainingServer) -> None:
    """Upload a clip and fetch what operators look at, over and over."""
    address = f"http://127.0.0.1:{port}"
    while not server.should_exit:
        with suppress(OSError, GdkvmError):
            visit(address)
        time.sleep(BOTHER_S)


def visit(address: str) -> None:
    """All of it once."""
    for path in ("metrics", "readyz", "v1/sessions", "v1/clips", ""):
        with urllib.request.urlopen(f"{address}/{path}", timeout=10) as answer:
            answer.read()
    with Clips(address) as clips:
        clips.analyse(sample_path())


def table(times: Times) -> Iterator[str]:
    """The rows, in the order in which a frame meets them."""
    kept = {row: 1000 * np.array(each[WARM_UP_FRAMES:]) for row, each in times.items()}
    yield "| stage | median ms | 99th percentile ms |"
    yield "| --- | --- | --- |"
    rows = ["wait for a worker", *list(STAGES)[:2], "network", *list(STAGES)[2:]]
    for row in [*rows, "back to the event loop", "write, count"]:
        yield line(row, kept[row])
    parts = sum(kept[row] for row in ("network", *STAGES))
    yield line("the worker's other steps", kept["_worker"] - parts)
    yield line("**whole, last byte received to answer sent**", kept["_whole"])
    yield line("**whole without the network**", kept["_whole"] - kept["network"])


def line(row: str, times_ms: Any) -> str:
    """One row."""
    return f"| {row} | {np.median(times_ms):.3f} | {np.percentile(times_ms, 99):.3f} |"


def main() -> None:
    """Print the table and what the event loop says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--watch", action="store_true")
    options = parser.parse_args()
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, clocks(times):
        watch, used_s = serve(options, Path(folder), times)
    if options.sessions == 1:
        print("\n".join(table(times)))
    frames = len(times["_whole"])
    print(f"{frames} frames, processor {1000 * used_s / frames:.2f} ms a frame")
    if options.watch:
        print(watch)


if __name__ == "__main__":
    main()
