"""This machine measured: backends, the published network, live streams and an upload."""

import os
import platform
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from gdkvm_client import Clips, Frame, Hello, Result, stream_blocking
from model import EchoError, load_predictor
from server.commands.load import Load, run_lightly, run_load
from server.commands.local import local_server
from server.commands.streaming import client_errors, websocket_url
from server.commands.terminal import Terminal
from server.ingest import open_clip, sample_path
from server.settings import Settings

WARM_UP_FRAMES, FAST_FRAMES, PACED_FRAMES = 60, 600, 150
PACED_FPS = 30.0
_STAGES = ("queue", "decode", "infer", "measure", "total")

BACKENDS: tuple[Literal["openvino", "onnxruntime", "torch"], ...] = (
    "openvino", "onnxruntime", "torch",
)  # fmt: skip
SESSIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LOAD_S = 4.0
MOST_IMAGES = 300
"""Frames of a clip that a load repeats."""

IN_TIME_MS = 33.3
_UNLIMITED = {"GDKVM_CAPACITY_FPS": "1000000", "GDKVM_MAX_SESSIONS": "128"}


def run_bench(terminal: Terminal) -> None:
    """Measure and say what came out; what cannot be measured here is null, and the words say why.

    Raises:
        EchoError: the server did not start, or failed.
    """
    images = jpegs_of(None)
    with client_errors(), terminal.progress("Measuring") as bar:
        bar.show(0, 6)
        choice = backend_choice()
        bar.show(1, 6)
        base = base_figures(terminal)
        with local_server(_UNLIMITED) as address:
            bar.show(2, 6)
            _stream(address, images, WARM_UP_FRAMES, realtime=False)
            fps, _ = _stream(address, images, FAST_FRAMES, realtime=False)
            bar.show(3, 6)
            _, stages_ms = _stream(address, images, PACED_FRAMES, realtime=True)
            bar.show(4, 6)
            sessions = sessions_held(address, images)
            bar.show(5, 6)
            warm_ms = _upload_ms(address)
            with urllib.request.urlopen(f"{address}/metrics") as answer:
                blocked = blocked_share(answer.read().decode())
    report = document(fps, stages_ms, warm_ms)
    report["base"] = base
    report["live"] |= {"sessions_at_30": sessions, "loop_late_share": blocked}
    report["choice"] = choice
    terminal.give(report)
    if not terminal.as_json:
        terminal.words.print(_table(report))
        terminal.say(f"The server runs on {choice['why']}.")


def backend_choice() -> dict[str, Any]:
    """What the server chooses, why, and how fast each backend of this machine is."""
    threads, settings = os.cpu_count() or 1, Settings()
    chosen = load_predictor(
        backend=settings.backend, threads=threads, streams=None, precision=settings.precision
    ).choice
    assert chosen is not None
    trials = list(chosen.trials)
    for name in BACKENDS:
        if name != chosen.backend:
            try:
                other = load_predictor(backend=name, threads=threads, streams=None).choice
            except EchoError:
                continue
            trials += other.trials if other else ()
    return {"why": chosen.why, "trials": [asdict(trial) for trial in trials]}


def base_figures(terminal: Terminal) -> dict[str, float | None]:
    """The figures of the published network, null where torch is not installed."""
    try:
        from server.commands.bench_base import measure_base
    except ModuleNotFoundError as error:
        terminal.say(f"gdkvm-base is not measured: {error.name} is not installed")
        return dict.fromkeys(("fps", "eager_fps", "ratio", "peak_fraction"))
    return dict(measure_base(os.cpu_count() or 1))


def sessions_held(address: str, images: list[bytes]) -> int:
    """Sessions at 30 frames a second of which 99 in 100 frames come in time and none is dropped."""
    held = 0
    for sessions in SESSIONS:
        load = Load(websocket_url(address), size_of(images), images, sessions, PACED_FPS, LOAD_S)
        answers = run_lightly(run_load(load))
        is_whole = not answers.dropped and not answers.refused and bool(answers.times_ms)
        if not is_whole or np.percentile(answers.times_ms, 99) > IN_TIME_MS:
            break
        held = sessions
    return held


def blocked_share(metrics: str) -> float:
    """Share of the event loop's wake-ups that came more than 5 ms late, from /metrics."""
    name = "gdkvm_event_loop_lag_seconds"
    in_time = re.search(rf'^{name}_bucket{{le="0.005"}} (\S+)$', metrics, re.MULTILINE)
    count = re.search(rf"^{name}_count (\S+)$", metrics, re.MULTILINE)
    assert in_time is not None
    assert count is not None
    return round(1.0 - float(in_time[1]) / max(1.0, float(count[1])), 5)


def size_of(images: list[bytes]) -> tuple[int, int]:
    """Rows and columns of the first frame."""
    pixels_HW = cv2.imdecode(np.frombuffer(images[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels_HW is not None
    return pixels_HW.shape[0], pixels_HW.shape[1]


def jpegs_of(path: Path | None) -> list[bytes]:
    """The first frames of a clip, or of the sample, as JPEG, as a cart would send them."""
    with open_clip(path or sample_path()) as clip:
        frames = islice(clip.frames, MOST_IMAGES)
        return [cv2.imencode(".jpg", frame.pixels_HW)[1].tobytes() for frame in frames]


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
    hello = Hello(size_of(images), "jpeg", fps=PACED_FPS)
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
    table.add_row("sessions at 30 frames/s, 99 % within 33.3 ms", str(live["sessions_at_30"]))
    table.add_row("event loop more than 5 ms late", f"{100 * live['loop_late_share']:.2f} %")
    if report["base"]["fps"] is not None:
        base = report["base"]
        table.add_row("gdkvm-base, eager torch", f"{base['eager_fps']:.1f} frames/s")
        table.add_row("gdkvm-base, exported", f"{base['fps']:.1f} frames/s, {base['ratio']:.1f}x")
        table.add_row("  of this machine's peak", f"{100 * base['peak_fraction']:.0f} %")
    for trial in report["choice"]["trials"]:
        name = f"{trial['backend']}, {trial['precision']}, streams: {trial['streams']}"
        table.add_row(f"  {name}", f"{trial['fps']:.0f} frames/s, alone {trial['alone_ms']:.1f} ms")
    for stage, spent_ms in live["stages_ms"].items():
        table.add_row(f"  {stage}", f"{spent_ms:.2f} ms")
    table.add_row("upload of the sample clip, warm", f"{report['clip']['warm_ms']:.0f} ms")
    return table
