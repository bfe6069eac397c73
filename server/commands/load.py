"""Many live sessions at once against one server, each at its pace, seen from the client."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from rich.table import Table

from gdkvm_client import Dropped, Frame, GdkvmError, Hello, Result, stream
from model import counted
from server.commands.terminal import CommandError, Terminal

if sys.platform != "win32":
    import uvloop

Found = TypeVar("Found")

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
STAGES = ("queue", "decode", "infer", "measure", "total")


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server.

    Attributes:
        url: of ``/v1/stream``.
        size: rows and columns of the frames.
        images: JPEG frames, sent over and over.
        sessions: opened at once.
        fps: frames a second of each.
        seconds: how long.
        key: API key, None where the server wants none.
        is_declared: each says its rate at ``hello``, and may be refused for it.
    """

    url: str
    size: tuple[int, int]
    images: Sequence[bytes]
    sessions: int
    fps: float
    seconds: float
    key: str | None = None
    is_declared: bool = True

    @property
    def count(self) -> int:
        """Frames of each session."""
        return max(1, round(self.seconds * self.fps))


@dataclass(slots=True)
class Answers:
    """What came back.

    Attributes:
        times_ms: from when a frame was sent, or should have been where its sender was held back,
            to after its result was read.
        stages_ms: what the server says of the same frames: queue, decode, infer, measure, total.
        drops: dropped frames by reason.
        refusals: sessions that were not admitted, by code.
        losses: sessions that began and did not reach their summary, by code.
        elapsed_s: of the whole run.
    """

    times_ms: list[float] = field(default_factory=list)
    stages_ms: list[tuple[float, ...]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    @property
    def dropped(self) -> int:
        """Frames that were not segmented."""
        return self.drops.total()

    @property
    def refused(self) -> int:
        """Sessions that were not admitted."""
        return self.refusals.total()


def run_lightly(measuring: Coroutine[Any, Any, Found]) -> Found:
    """Run what puts a load on a server: often it is at work on the processors that it measures."""
    if sys.platform == "win32":
        return asyncio.run(measuring)
    return uvloop.run(measuring)


async def run_load(load: Load) -> Answers:
    """Open the sessions, their frames spread evenly over a period, and stream for a while."""
    answers = Answers()
    started_s = time.perf_counter()
    offsets_s = [number / load.fps / load.sessions for number in range(load.sessions)]
    await asyncio.gather(*(_session(load, offset_s, answers) for offset_s in offsets_s))
    answers.elapsed_s = time.perf_counter() - started_s
    return answers


async def _session(load: Load, offset_s: float, answers: Answers) -> None:
    fps = load.fps if load.is_declared else None
    hello = Hello(load.size, "jpeg", fps=fps, policy="latest")
    sent_s: dict[int, float] = {}
    try:
        async for event in stream(load.url, _frames(load, offset_s, sent_s), hello, key=load.key):
            match event:
                case Result(seq=seq, stages_ms=stages):
                    answers.times_ms.append(1000 * (time.perf_counter() - sent_s[seq]))
                    answers.stages_ms.append(tuple(getattr(stages, name) for name in STAGES))
                case Dropped(reason=reason):
                    answers.drops[reason] += 1
    except GdkvmError as error:
        # Frames are asked for once the server has said ready.
        (answers.losses if sent_s else answers.refusals)[error.code] += 1


async def _frames(load: Load, offset_s: float, sent_s: dict[int, float]) -> AsyncIterator[Frame]:
    """One session's frames, each when it is due; note in ``sent_s`` when each was."""
    begun_s = time.perf_counter() + offset_s
    for seq in range(load.count):
        due_s = begun_s + seq / load.fps
        is_held_back = due_s <= time.perf_counter()
        await asyncio.sleep(due_s - time.perf_counter())
        sent_s[seq] = due_s if is_held_back else time.perf_counter()
        yield Frame(seq, round(seq * 1e6 / load.fps), load.images[seq % len(load.images)])


def measure_server(load: Load, terminal: Terminal) -> None:
    """Put a load on a server, and say what came of it.

    Raises:
        CommandError: no session was admitted; with the code of the refusal.
    """
    with terminal.progress("Streaming"):
        answers = run_lightly(run_load(load))
    if answers.refused == load.sessions:
        code = answers.refusals.most_common(1)[0][0]
        raise CommandError(code, f"{load.url} admitted no session")
    report = document(load, answers)
    terminal.give(report)
    if not terminal.as_json:
        terminal.words.print(_table(report))


def document(load: Load, answers: Answers) -> dict[str, Any]:
    """Make the document of `gdkvm bench server --json`; what was not measured is null."""
    period_ms = 1000 / load.fps
    has_times = bool(answers.times_ms)
    latency = {
        _name(each): round(float(np.percentile(answers.times_ms, each)), 3) if has_times else None
        for each in PERCENTILES
    }
    in_time = sum(each <= period_ms for each in answers.times_ms)
    medians = np.median(answers.stages_ms, axis=0).round(3).tolist() if has_times else []
    return {
        "url": load.url,
        "fps": load.fps,
        "seconds": load.seconds,
        "sessions": {
            "asked": load.sessions,
            "refused": answers.refused,
            "lost": answers.losses.total(),
            "codes": dict(answers.refusals + answers.losses),
        },
        "frames": {
            "results": len(answers.times_ms),
            "dropped": answers.dropped,
            "reasons": dict(answers.drops),
            "in_time_share": round(in_time / len(answers.times_ms), 5) if has_times else None,
            "per_second": round(len(answers.times_ms) / answers.elapsed_s, 1),
        },
        "latency_ms": latency,
        "stages_ms": dict(zip(STAGES, medians, strict=False)),
    }


def _name(percentile: float) -> str:
    return f"p{percentile:g}".replace(".", "")


def _table(report: dict[str, Any]) -> Table:
    sessions, frames = report["sessions"], report["frames"]
    asked = counted(sessions["asked"], "session")
    table = Table("figure", "value", title=f"{asked}, {report['fps']:g} frames/s")
    table.add_row("sessions refused, lost", f"{sessions['refused']}, {sessions['lost']}")
    for code, count in sessions["codes"].items():
        table.add_row(f"  {code}", str(count))
    table.add_row("frames answered", f"{frames['results']}, {frames['per_second']:.0f} a second")
    table.add_row("frames dropped", str(frames["dropped"]))
    for reason, count in frames["reasons"].items():
        table.add_row(f"  {reason}", str(count))
    if frames["in_time_share"] is not None:
        table.add_row("answered within a frame period", f"{100 * frames['in_time_share']:.1f} %")
        for name, spent_ms in report["latency_ms"].items():
            table.add_row(f"sent to read, {name}", f"{spent_ms:.1f} ms")
        for stage, spent_ms in report["stages_ms"].items():
            table.add_row(f"  {stage}, in the server, median", f"{spent_ms:.1f} ms")
    return table
