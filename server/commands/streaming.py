"""A file streamed to a server through the client package, as a cart would."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import gdkvm_client
from gdkvm_client import Beat, Dropped, Frame, Hello, Result, Summary, stream_blocking
from model import counted
from server.commands.terminal import CommandError, Terminal
from server.export.words import ef_headline, ef_lines, sentence
from server.ingest import Clip, open_clip
from server.study import APICAL_VIEWS

STREAM_PATH = "/v1/stream"


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What to stream, and to whom.

    Attributes:
        url: of the server, with or without ``/v1/stream``.
        realtime: at the pace of acquisition, the newest frame first served; else as fast as the
            server takes frames, none lost.
        key: API key, None where the server wants none.
    """

    path: Path
    url: str
    view: str | None = None
    realtime: bool = False
    key: str | None = None


def stream_clip(request: StreamRequest, terminal: Terminal) -> Summary:
    """Stream a clip and say what comes back, beat by beat.

    Raises:
        EchoError: the file cannot be opened, or the server refuses.
    """
    with open_clip(request.path) as clip, client_errors():
        started = time.monotonic()
        hello = hello_of(clip, request)
        events = stream_blocking(
            websocket_url(request.url),
            frames_of(clip),
            hello,
            realtime=request.realtime,
            key=request.key,
        )
        with terminal.progress("Streaming") as bar:
            summary = _follow(events, terminal, lambda done: bar.show(done, clip.frame_count))
        elapsed_s = time.monotonic() - started
    for line in summary_lines(summary):
        terminal.say(line)
    answered = f"{counted(summary.results, 'frame')} answered, {summary.dropped} dropped"
    terminal.say(f"{answered}, {summary.results / elapsed_s:.0f} per second")
    return summary


def hello_of(clip: Clip, request: StreamRequest) -> Hello:
    """Declare a clip's frames as what they are.

    Raises:
        CommandError: the file names a view that has no ejection fraction.
    """
    region, policy = clip.sight, _policy(request)
    box = None if region is None else (region.top, region.left, region.height, region.width)
    view = request.view or clip.view
    if view is not None and view not in APICAL_VIEWS:
        raise CommandError(
            "view_not_apical",
            f"the file says that it shows {view}, which has no ejection fraction; --view A4C or "
            "A2C streams it where that is wrong",
        )
    return Hello(
        size=clip.size,
        view=view,
        spacing_mm=clip.spacing_mm,
        region=box,
        mask_encoding="none",
        policy=policy,
    )


def _policy(request: StreamRequest) -> Literal["latest", "every"]:
    return "latest" if request.realtime else "every"


def frames_of(clip: Clip) -> Iterator[Frame]:
    """Turn decoded frames into what the client sends: the sector, without the text beside it.

    Raises:
        CommandError: colour lies over the image; of grey frames the server could not tell.
    """
    for frame in clip.frames:
        if clip.colour_overlay:
            raise CommandError(
                "colour_overlay",
                "the clip shows colour Doppler, under which no ejection fraction can be measured; "
                "it is not streamed",
            )
        yield Frame.of_pixels(frame.seq, frame.time_us, clip.seen(frame).pixels_HW)


def websocket_url(url: str) -> str:
    """Complete a server's address: http becomes ws, and a bare address gets the stream's path.

    Raises:
        CommandError: it is none.
    """
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
    except ValueError as error:
        raise CommandError("bad_request", f"not an address: {url}") from error
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path.strip("/") else STREAM_PATH
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _follow(
    events: Iterator[gdkvm_client.Event], terminal: Terminal, show: Callable[[int], None]
) -> Summary:
    """Read a stream to its end, saying each beat when it closes."""
    answered = 0
    for event in events:
        match event:
            case Result() | Dropped():
                answered += 1
                show(answered)
            case Beat():
                terminal.say(beat_line(event))
            case Summary():
                return event
    raise CommandError("bad_answer", "the stream ended without a summary")


def beat_line(beat: Beat) -> str:
    """Say one beat in one line."""
    name = f"Beat {beat.number + 1}" + (" (revised)" if beat.revision else "")
    name += "" if beat.is_complete else " (half of one)"
    ed, es = _instant(beat.ed_seq, beat.ed_time_ms), _instant(beat.es_seq, beat.es_time_ms)
    line = f"{name}: EF {beat.ef_percent:.0f} %, ED at {ed}, ES at {es}"
    if beat.ed_volume_ml is not None and beat.es_volume_ml is not None:
        line += f", {beat.ed_volume_ml:.0f} to {beat.es_volume_ml:.0f} ml"
    return line + (f". {sentence(beat.reasons, 'Not counted: ')}" if beat.reasons else "")


def _instant(seq: int, time_ms: float | None) -> str:
    return f"frame {seq}" if time_ms is None else f"frame {seq} ({time_ms / 1000:.2f} s)"


def summary_lines(summary: Summary) -> list[str]:
    """Say the EF, or why none is given."""
    lines = ef_lines(summary.ef)
    if summary.ef.state != "measured":
        return [f"No EF is given: {lines[0][0].lower()}{lines[0][1:]}"]
    return [f"EF {ef_headline(summary.ef)}, {'; '.join(lines)}"]


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn the client package's errors into a command's.

    Raises:
        CommandError: with the same code and message.
    """
    try:
        yield
    except gdkvm_client.GdkvmError as error:
        raise CommandError(error.code, error.message) from error
