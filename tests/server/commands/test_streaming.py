from pathlib import Path

import pytest

from gdkvm_client import Beat, EjectionFraction, Summary
from gdkvm_client.errors import BusyError
from model import Region
from server.commands.streaming import (
    StreamRequest,
    beat_line,
    client_errors,
    frames_of,
    hello_of,
    summary_lines,
    websocket_url,
)
from server.commands.terminal import CommandError, code_of
from server.ingest import Clip, TimeBase, open_clip, sample_path
from tests.server.phantom import phantom_clip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/v1/stream"),
        ("https://echo.example", "wss://echo.example/v1/stream"),
        ("ws://h:1/v1/stream", "ws://h:1/v1/stream"),
        ("wss://h/behind/a/proxy", "wss://h/behind/a/proxy"),
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/stream"),
        ("http://[::1]:8000/", "ws://[::1]:8000/v1/stream"),
    ],
)
def test_an_address_is_completed(given: str, wanted: str) -> None:
    assert websocket_url(given) == wanted


def clip_of(region: Region | None, view: str | None) -> Clip:
    return Clip(
        frames=iter(()), frame_count=0, size=(48, 64), spacing_mm=(0.3, 0.5), region=region,
        time_base=TimeBase(None, None), view=view, encoding="none",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("request_view", "clip_view", "view"),
    [("A2C", "A4C", "A2C"), (None, "A4C", "A4C"), ("A4C", "PLAX", "A4C"), (None, None, None)],
)
def test_hello_declares_the_clip_as_what_it_is(
    request_view: str | None, clip_view: str | None, view: str | None
) -> None:
    request = StreamRequest(sample_path(), "ws://h", request_view)
    hello = hello_of(clip_of(Region(1, 2, 30, 40), clip_view), request)
    assert (hello.size, hello.spacing_mm, hello.region) == ((48, 64), (0.3, 0.5), (1, 2, 30, 40))
    assert (hello.view, hello.policy) == (view, "every")
    assert hello_of(clip_of(None, None), request).region is None


@pytest.mark.parametrize("view", ["PLAX", "PSAX", "A3C"])
def test_a_clip_of_a_view_without_an_ef_is_not_streamed(view: str) -> None:
    request = StreamRequest(sample_path(), "ws://h")
    with pytest.raises(CommandError, match=f"the file says that it shows {view}") as caught:
        hello_of(clip_of(None, view), request)
    assert code_of(caught.value) == "view_not_apical"


def test_a_clip_with_colour_doppler_is_not_streamed_in_grey(tmp_path: Path) -> None:
    with open_clip(phantom_clip(tmp_path / "grey.dcm", count=24)) as clip:
        assert len(list(frames_of(clip))) == 24
    with open_clip(phantom_clip(tmp_path / "flow.dcm", count=24, flow=True)) as clip:
        frames = frames_of(clip)
        with pytest.raises(CommandError, match="colour Doppler") as caught:
            next(frames)
    assert code_of(caught.value) == "colour_overlay"


def test_a_live_pace_may_lose_frames_and_no_other() -> None:
    request = StreamRequest(sample_path(), "ws://h", realtime=True)
    assert hello_of(clip_of(None, None), request).policy == "latest"


def beat(**more: object) -> Beat:
    values: dict[str, object] = {
        "number": 0, "revision": 0, "ed_seq": 3, "es_seq": 14, "ed_time_ms": 100.0,
        "es_time_ms": 466.7, "ed_volume_ml": 94.0, "es_volume_ml": 34.6, "ef_percent": 63.2,
        "fac_percent": 45.0, "is_complete": True, "reasons": (), **more,
    }  # fmt: skip
    return Beat(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (beat(), "Beat 1: EF 63 %, ED at frame 3 (0.10 s), ES at frame 14 (0.47 s), 94 to 35 ml"),
        (
            beat(ed_volume_ml=None, es_volume_ml=None, ed_time_ms=None, es_time_ms=None),
            "Beat 1: EF 63 %, ED at frame 3, ES at frame 14",
        ),
        (
            beat(number=4, revision=1, reasons=("some_new_reason",), ed_volume_ml=None),
            "Beat 5 (revised): EF 63 %, ED at frame 3 (0.10 s), ES at frame 14 (0.47 s). "
            "Not counted: some new reason.",
        ),
    ],
)
def test_a_beat_is_one_line(told: Beat, line: str) -> None:
    assert beat_line(told) == line


def test_a_summary_gives_the_ef_or_says_why_not() -> None:
    measured = EjectionFraction("measured", 55.0, (50.0, 60.0), "disks", 2, 75.0, 100.0, 45.0, ())
    withheld = EjectionFraction(
        "withheld", None, None, "none", 0, None, None, None, ("no_left_ventricle",)
    )
    (said,) = summary_lines(Summary("s", 1, 0, (), measured))
    assert said.startswith("EF 55 %, 50 to 60 % (90 % interval); 2 beats, 75 per minute")
    (said,) = summary_lines(Summary("s", 1, 0, (), withheld))
    assert said == "No EF is given: no left ventricle is seen."


def test_the_clients_errors_keep_their_code_and_sentence() -> None:
    with pytest.raises(CommandError) as refusal, client_errors():
        raise BusyError("full", "try later", True)
    assert (code_of(refusal.value), refusal.value.message) == ("full", "try later")
