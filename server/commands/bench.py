"""This machine measured: one live stream through a server of its own, and one upload."""

import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from gdkvm_client import Clips, Frame, Hello, Result, stream_blocking
from server.commands.local import local_server
from server.commands.streaming import client_errors, websocket_url
from server.commands.terminal import Terminal
from server.ingest import open_clip, sample_path

WARM_UP_FRAMES, FAST_FRAMES, PACED_FRAMES = 60, 600, 150
PACED_FPS = 30.0
_STAGES = ("queue", "decode", "infer", "measure", "total")


def run_bench(terminal: Terminal) -> None:
    """Measure and say what came out; what is not measured yet is null.

    Raises:
        EchoError: the server did not start, or failed.
    """
    images = sample_images()
    with client_errors(), local_server() as address, terminal.progress("Measuring") as bar:
        bar.show(0, 4)
        _stream(address, images, WARM_UP_FRAMES, realtime=False)
        bar.show(1, 4)
        fps, _ = _stream(address, images, FAST_FRAMES, realtime=False)
        bar.show(2, 4)
        _, stages_ms = _stream(address, images, PACED_FRAMES, realtime=True)
        bar.show(3, 4)
        warm_ms = _upload_ms(address)
    report = document(fps, stages_ms, warm_ms)
    terminal.give(report)
    if not terminal.as_json:
        terminal.words.print(_table(report))


def sample_images() -> list[bytes]:
    """The sample clip's frames as JPEG, as a cart would send them."""
    with open_clip(sample_path()) as clip:
        return [cv2.imencode(".jpg", frame.pixels_HW)[1].tobytes() for frame in clip.frames]


def _frames(images: list[bytes], count: int) -> Iterator[Frame]:
    for seq, payload in enumerate(islice(cycle(images), count)):
        yield Frame(seq, round(seq * 1e6 / PACED_FPS), payload)


def _stream(
    address: str, images: list[bytes], count: int, *, realtime: bool
) -> tuple[float, NDArray[np.float64]]:
    """Stream the clip over and over.

    Returns:
        Frames per second, and the stages of every frame in milliseconds: T x stages.
    """
    pixels_HW = cv2.imdecode(np.frombuffer(images[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels_HW is not None
    hello = Hello((pixels_HW.shape[0], pixels_HW.shape[1]), "jpeg", fps=PACED_FPS)
    url, frames = websocket_url(address), _frames(images, count)
    started = time.perf_counter()
    events = list(stream_blocking(url, frames, hello, realtime=realtime))
    elapsed_s = time.perf_counter() - started
    results = [event for event in events if isinstance(event, Result)]
    rows = [[getattr(result.stages_ms, stage) for stage in _STAGES] for result in results]
    return len(results) / elapsed_s, np.array(rows)


def _upload_ms(address: str) -> float:
    """How long the second upload of the sample clip takes until its result is there."""
    path = sample_path()
    with Clips(address) as clips:
        clips.analyse(path)
        started = time.perf_counter()
        clips.analyse(path)
        return 1000 * (time.perf_counter() - started)


def document(fps: float, stages_ms: NDArray[np.float64], warm_ms: float) -> dict[str, Any]:
    """Make the document of `gdkvm bench --json`.

    Args:
        fps: frames per second of one stream as fast as the server takes it.
        stages_ms: T x stages of a stream at 30 frames per second.
        warm_ms: time of a warm upload.
    """
    infer_T, total_T = stages_ms[:, _STAGES.index("infer")], stages_ms[:, _STAGES.index("total")]
    medians = dict(zip(_STAGES, np.median(stages_ms, axis=0).round(3).tolist(), strict=True))
    return {
        "base": dict.fromkeys(("fps", "eager_fps", "ratio", "peak_fraction")),
        "live": {
            "fps": round(fps, 1),
            "infer_ms": medians["infer"],
            "own_ms": round(float(np.median(total_T - infer_T)), 3),
            "sessions_at_30": None,
            "p99_ms": round(float(np.percentile(total_T, 99)), 3),
            "stages_ms": medians,
        },
        "clip": {"warm_ms": round(warm_ms, 1)},
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "openvino": version("openvino"),
    }


def _processor() -> str:
    """The processor's name where Linux tells it."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _table(report: dict[str, Any]) -> Table:
    live = report["live"]
    table = Table("figure", "value", title=f"{report['machine']['processor']}")
    table.add_row("one stream, as fast as it goes", f"{live['fps']:.0f} frames/s")
    table.add_row("network, median", f"{live['infer_ms']:.2f} ms")
    table.add_row("all but the network, median", f"{live['own_ms']:.2f} ms")
    table.add_row("a frame at 30 frames/s, 99th percentile", f"{live['p99_ms']:.2f} ms")
    for stage, spent_ms in live["stages_ms"].items():
        table.add_row(f"  {stage}", f"{spent_ms:.2f} ms")
    table.add_row("upload of the sample clip, warm", f"{report['clip']['warm_ms']:.0f} ms")
    return table
