"""An archive of generated clips: a plain loop, `gdkvm batch` with 1 and 2 workers, and a kill -9.

    python -m benchmarks.batch [--clips 500] [--broken 0.05] [--frames 20] [--workers 1 2]

Every run is checked: each input has one row, and the tables are those of the plain loop. Clips are
uncompressed DICOM of 144 x 144; broken ones are cut short. Start-up is told apart from the work.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from server.batch.inputs import Input, list_inputs
from server.batch.rows import Row
from server.batch.work import Analyst, Task
from tests.server.phantom import phantom_clip


def make_archive(folder: Path, clips: int, broken: float, frames: int) -> None:
    """Write clips, each of its own bytes, the broken ones among them."""
    folder.mkdir()
    whole = phantom_clip(folder / "0000.dcm", frames).read_bytes()
    every = round(1 / broken) if broken else clips + 1
    for number in range(1, clips):
        content = whole[:4000] if number % every == 0 else whole
        (folder / f"{number:04d}.dcm").write_bytes(content)


def plain_loop(inputs: list[Input], threads: int) -> tuple[float, float, list[Row]]:
    """One process, one clip after the other; returns seconds to start and to work, and rows."""
    started_s = time.perf_counter()
    analyst = Analyst(Task(), threads)
    begun_s = time.perf_counter()
    rows = [analyst.work(each).clip for each in inputs]
    return begun_s - started_s, time.perf_counter() - begun_s, rows


def command(archive: Path, out: Path, workers: int) -> list[str]:
    """The command line of a run."""
    given = ["batch", str(archive), "--out", str(out), "--workers", str(workers), "--json"]
    return [sys.executable, "-m", "server.cli", *given]


def rows_of(out: Path) -> list[Row]:
    """The clips' rows, by input."""
    rows: list[Row] = pq.read_table(out / "clips.parquet").to_pylist()
    return sorted(rows, key=lambda row: str(row["input"]))


def timed(archive: Path, out: Path, workers: int, start: float) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole run, and what it says; ``start`` begins the clock."""
    done = subprocess.run(
        command(archive, out, workers), check=True, capture_output=True, text=True
    )
    return time.perf_counter() - start, json.loads(done.stdout)


def kill_and_resume(archive: Path, out: Path, workers: int, after: int) -> int:
    """Kill a run once so many rows are written, and let another finish; returns what it did."""
    first = subprocess.Popen(command(archive, out, workers), stdout=subprocess.DEVNULL)
    while first.poll() is None and _written(out) < after:
        time.sleep(0.2)
    if first.poll() is not None:
        raise SystemExit("the run ended before it could be killed: take more clips")
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, told = timed(archive, out, workers, time.perf_counter())
    return int(told["worked_on"])


def _written(out: Path) -> int:
    parts = (out / "clips.parquet").glob("part-*.parquet")
    return sum(pq.read_metadata(part).num_rows for part in parts)


def main() -> None:
    """Measure, check, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--broken", type=float, default=0.05)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        make_archive(archive, given.clips, given.broken, given.frames)
        inputs = list_inputs(str(archive), str(Path(folder) / "out"))
        cores = os.cpu_count() or 1
        start_s, work_s, expected = plain_loop(inputs, cores)
        refused = sum(row["code"] is not None for row in expected)
        print(f"{len(inputs)} clips of {given.frames} frames, {refused} refused, {cores} cores")
        print(f"plain loop: {start_s:.1f} s to start, {len(inputs) / work_s:.2f} clips/s")
        one = Path(folder) / "one"
        one.mkdir()
        shutil.copy(archive / "0000.dcm", one)
        for workers in given.workers:
            alone_s, _ = timed(one, Path(folder) / f"one{workers}", workers, time.perf_counter())
            out = Path(folder) / f"out{workers}"
            all_s, told = timed(archive, out, workers, time.perf_counter())
            assert rows_of(out) == expected, "the tables differ"
            rate = (told["rows"] - 1) / (all_s - alone_s)
            print(
                f"{workers} workers: {alone_s:.1f} s for one clip, {rate:.2f} clips/s", flush=True
            )
        out = Path(folder) / "killed"
        again = kill_and_resume(archive, out, max(given.workers), len(inputs) // 3)
        assert rows_of(out) == expected, "the tables differ after the kill"
        print(f"killed with -9 and resumed: {again} worked on again or anew, one row each")


if __name__ == "__main__":
    main()
