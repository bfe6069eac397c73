"""The decoder process: complex decoders, run where a crash or a bomb hurts nobody.

Started as a script by `sandbox`, with one JSON document as its argument. It bounds its own memory
and computing time before it looks at a byte, writes no file and opens none. Of this project it
takes one file alone, by its path (`model.pictures.LIBRARIES`), and of the decoders' libraries only
the one that is asked for, so that it starts fast.

Every answer is a line of JSON, ``{"planes": [[dtype, shape], …], …}`` or ``{"error": text}``, and
then the planes' bytes.
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from runpy import run_path
from typing import Any, BinaryIO, TypeAlias

try:
    import resource
except ImportError:  # Windows has no such bounds
    resource = None  # type: ignore[assignment]

COLOUR_PROBE_EVERY = 8
"""As `model.pictures.COLOUR_LOOK_FRAMES`: those are looked at."""
_FULL_RANGE = 2

_OPTIONS = {"gif": {"default_delay": "0"}}
"""Of FFmpeg's demuxers: a GIF without delays would be given ten frames a second."""

Plane: TypeAlias = tuple[str, tuple[int, ...], Any]
"""numpy's name of the samples' type, the shape, and the bytes."""

Answer: TypeAlias = tuple[dict[str, Any], list[Plane]]


def main() -> None:
    """Do the job of the command line's argument."""
    job = json.loads(sys.argv[1])
    _bound(job["memory_bytes"], job["cpu_s"])
    out = sys.stdout.buffer
    try:
        answers = _film(job) if job["kind"] == "film" else _images(job, sys.stdin.buffer)
        for facts, planes in answers:
            _send(out, facts, planes)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:  # noqa: BLE001  # whatever a decoder throws is the answer
        _send(out, {"error": type(error).__name__}, [])


def _bound(memory_bytes: int, cpu_s: int) -> None:
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _send(out: BinaryIO, facts: dict[str, Any], planes: list[Plane]) -> None:
    described = [[dtype, shape] for dtype, shape, _ in planes]
    out.write(json.dumps({**facts, "planes": described}).encode() + b"\n")
    for _, _, samples in planes:
        out.write(samples)
    out.flush()


def _images(job: dict[str, Any], requests: BinaryIO) -> Iterator[Answer]:
    """Decode compressed frames one by one, as they are asked for."""
    decode = run_path(job["libraries"])["decode"]
    for line in requests:
        wanted = json.loads(line)
        payload = requests.read(wanted["bytes"])
        try:
            yield {}, [decode(payload, wanted)]
        except Exception as error:  # noqa: BLE001  # the next frame may be whole
            yield {"error": type(error).__name__}, []


def _film(job: dict[str, Any]) -> Iterator[Answer]:
    """Decode a film from standard input: its facts first, then every frame in order."""
    demuxer = job["demuxer"]
    options = _OPTIONS.get(demuxer, {})
    with import_module("av").open(sys.stdin.buffer, format=demuxer, options=options) as container:
        if not container.streams.video:
            yield {"error": "no_pixels"}, []
            return
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.width * context.height > job["max_pixels"]:
            yield {"error": "too_large"}, []
            return
        stream.thread_type = "AUTO"
        told = False
        hidden: list[int | None] = []
        frames = _whole_frames(container, stream, hidden)
        if job["drops_last"]:
            frames = _all_but_last(frames)
        for index, frame in enumerate(frames):
            if frame is None:
                yield {"is_cut": True} if told else {"error": "no whole picture"}, []
                return
            if not told:
                yield _facts(stream, frame), []
                told = True
            yield _frame(frame, with_colours=index % COLOUR_PROBE_EVERY == 0)
        yield {"hidden": len(hidden)} if told else {"error": "no_pixels"}, []


def _whole_frames(container: Any, stream: Any, hidden: list[int | None]) -> Iterator[Any]:
    """Decode frames up to the first one that is broken; None stands for that one.

    Args:
        container: a film.
        stream: of it.
        hidden: takes the times of packets that an edit hides, though others need them.
    """
    try:
        for packet in container.demux(stream):
            if packet.is_discard:
                hidden.append(packet.pts)
            if packet.is_corrupt:  # cut by the end of the file: hide it, and end what came before
                yield from _unbroken(stream.decode(None))
                break
            for frame in stream.decode(packet):
                if frame.is_corrupt:
                    yield None
                    return
                yield frame
        else:
            return
    except import_module("av").FFmpegError:
        pass
    yield None


def _all_but_last(frames: Iterator[Any]) -> Iterator[Any]:
    """Hold the last frame back; None stands for it."""
    for frame, following in pairwise(frames):
        if following is None:
            break
        yield frame
    yield None


def _unbroken(frames: Any) -> Iterator[Any]:
    for frame in frames:
        if frame.is_corrupt:
            return
        yield frame


def _facts(stream: Any, first: Any) -> dict[str, Any]:
    """Say what is known of a film once its first frame is decoded."""
    rate = stream.average_rate
    duration = stream.duration
    return {
        "codec": stream.codec_context.name,
        "size": (first.height, first.width),
        "pixel_width": float(stream.sample_aspect_ratio or 1),
        "turns": _turns(first),
        "frames": stream.frames or None,
        "fps": float(rate) if rate else None,
        "duration_ms": float(1000 * duration * stream.time_base) if duration else None,
    }


def _turns(frame: Any) -> int:
    """Quarter turns to the left that set a frame upright."""
    return round(frame.rotation / 90) % 4


def _frame(frame: Any, *, with_colours: bool) -> Answer:
    """Take luma as it is stored where there is such a plane, and colours where asked."""
    is_stored = _has_luma(frame)
    facts = {
        "time_us": _time_us(frame),
        "is_full_range": not is_stored or _is_full_range(frame),
        "columns": frame.width,
        "turns": _turns(frame),
    }
    planes = [_plane(frame if is_stored else frame.reformat(format="gray"))]
    if with_colours:
        planes.append(_plane(frame.reformat(format="rgb24")))
    return facts, planes


def _plane(frame: Any) -> Plane:
    """Take the first plane, with what stands to the right of its pixels."""
    plane = frame.planes[0]
    shape = (plane.height, plane.line_size)
    return "|u1", shape, memoryview(plane)[: plane.height * plane.line_size]


def _time_us(frame: Any) -> int | None:
    if frame.pts is None or not frame.time_base:
        return None
    return round(1_000_000 * frame.pts * frame.time_base)


def _is_full_range(frame: Any) -> bool:
    return frame.color_range == _FULL_RANGE or frame.format.name.startswith(("yuvj", "gray"))


def _has_luma(frame: Any) -> bool:
    """Whether the first plane is 8-bit luma as it is, its rows from the top."""
    name = frame.format.name
    is_luma = name.startswith(("yuv", "nv", "gray")) and frame.format.components[0].bits == 8
    is_packed = name.startswith("yuyv")
    return is_luma and not is_packed and frame.planes[0].line_size > 0


if __name__ == "__main__":
    main()
