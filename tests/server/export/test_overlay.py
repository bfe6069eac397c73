import json
import subprocess
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from model import Beat, EjectionFraction, Fit, Frame, Mask, Quality, Reading, Region, measure_frame
from server.export.overlay import Findings, Layout, MeasuredFrame, write_overlay
from server.export.pen import STRUCTURE_COLOURS

ROWS, COLUMNS = 120, 160
COUNT = 12
CENTRE_ROW, CENTRE_COLUMN = 60.0, 80.0
MEASURED = EjectionFraction(
    "measured", 57.2, (52.1, 62.3), 44.0, "single_beat", 1, 63.0, 146.0, 62.0, ("single_beat",)
)
WITHHELD = EjectionFraction(
    "withheld", None, None, None, "none", 0, None, None, None, ("no_complete_beat",)
)
BEAT = Beat(0, 0, 0, 6, 0.0, 300.0, 146.0, 62.0, 57.2, 44.0, True, ())
UNSEEN = Reading(None, {}, Quality("fail", ("no_left_ventricle",)), 0.1)


def ellipse_frame(seq: int, time_us: int | None) -> Frame:
    return Frame(seq, time_us, np.full((ROWS, COLUMNS), 40, np.uint8))


def half_axes(seq: int) -> tuple[float, float]:
    """A ventricle that shrinks until the middle of the clip and grows again."""
    squeeze = 1.0 - 0.3 * np.sin(np.pi * seq / COUNT)
    return 36.0 * squeeze, 20.0 * squeeze


def ellipse_reading(seq: int) -> Reading:
    rows, columns = np.mgrid[0:160, 0:160]
    high, wide = half_axes(seq)
    radius = np.hypot((rows - 20 - CENTRE_ROW) / high, (columns - CENTRE_COLUMN) / wide)
    lv = 1 / (1 + np.exp((radius - 1) * 30))
    maps = np.stack([lv, np.zeros_like(lv), np.zeros_like(lv)]).astype(np.float32)
    region = Region(0, 0, ROWS, COLUMNS)
    fit = Fit(1.0, 1.0, 20.0, 0.0, region, (ROWS, COLUMNS), 160)
    return measure_frame(Mask(maps, fit, 0.99), (0.5, 0.5))


def clip(times_us: list[int] | None = None, count: int = COUNT) -> tuple[list[Frame], Findings]:
    times: list[int | None] = [*times_us] if times_us else [None] * count
    frames = [ellipse_frame(seq, time) for seq, time in enumerate(times)]
    measured = [MeasuredFrame(seq, time, ellipse_reading(seq)) for seq, time in enumerate(times)]
    return frames, Findings(measured, [BEAT], MEASURED, "A4C")


def probe(path: Path) -> dict[str, str]:
    fields = "codec_name,profile,pix_fmt,width,height,nb_frames,duration"
    command = ["ffprobe", "-v", "error", "-show_entries", f"stream={fields}", "-of", "json"]
    try:
        done = subprocess.run([*command, str(path)], capture_output=True, check=True, text=True)
    except FileNotFoundError:
        pytest.skip("ffprobe is not installed")
    (stream,) = json.loads(done.stdout)["streams"]
    return dict(stream)


def decode(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    with av.open(str(path)) as container:
        return [
            (float(picture.time), np.asarray(picture.to_ndarray(format="rgb24"), np.uint8))
            for picture in container.decode(video=0)
        ]


def test_the_film_is_what_every_browser_plays(tmp_path: Path) -> None:
    write_overlay(tmp_path / "overlay.mp4", *clip([50_000 * seq for seq in range(COUNT)]))
    found = probe(tmp_path / "overlay.mp4")
    layout = Layout.of(ROWS, COLUMNS)
    assert (found["codec_name"], found["profile"], found["pix_fmt"]) == ("h264", "High", "yuv420p")
    assert (int(found["width"]), int(found["height"])) == (layout.width, layout.height)
    assert found["nb_frames"] == str(COUNT)
    assert float(found["duration"]) == pytest.approx(COUNT * 0.050, abs=0.002)


def test_the_film_can_be_played_before_it_is_wholly_loaded(tmp_path: Path) -> None:
    write_overlay(tmp_path / "overlay.mp4", *clip())
    film = (tmp_path / "overlay.mp4").read_bytes()
    assert film.index(b"moov") < film.index(b"mdat")


def test_uneven_frame_times_are_kept(tmp_path: Path) -> None:
    times_us = [1_000_000, 1_020_000, 1_090_000, 1_100_000]
    write_overlay(tmp_path / "overlay.mp4", *clip(times_us))
    shown = [time for time, _ in decode(tmp_path / "overlay.mp4")]
    assert shown == pytest.approx([0.0, 0.02, 0.09, 0.1], abs=1e-4)


def test_frames_a_microsecond_apart_are_each_shown(tmp_path: Path) -> None:
    times_us = [0, 33_333, 33_334, 33_335, 66_667]
    write_overlay(tmp_path / "overlay.mp4", *clip(times_us))
    assert probe(tmp_path / "overlay.mp4")["nb_frames"] == str(len(times_us))
    shown = [time for time, _ in decode(tmp_path / "overlay.mp4")]
    assert shown == pytest.approx([time_us / 1e6 for time_us in times_us], abs=3 / 90_000)


def test_times_that_leap_away_are_taken_for_unknown(tmp_path: Path) -> None:
    far_us = 1_000_000 * 2**31 // 90_000  # what a sample's 32-bit duration holds, ISO 14496-12
    for times_us in ([0, 33_333, far_us // 2 - 10**6], [0, 33_333, far_us]):
        write_overlay(tmp_path / "overlay.mp4", *clip(times_us))
        assert probe(tmp_path / "overlay.mp4")["nb_frames"] == "3"


def test_a_clip_of_unknown_frame_rate_is_shown_at_30_per_second(tmp_path: Path) -> None:
    write_overlay(tmp_path / "overlay.mp4", *clip())
    shown = [time for time, _ in decode(tmp_path / "overlay.mp4")]
    assert shown == pytest.approx([seq / 30 for seq in range(COUNT)], abs=1e-4)


@pytest.mark.parametrize("seq", [0, 6])
def test_the_outline_is_drawn_where_the_ventricle_is(tmp_path: Path, seq: int) -> None:
    write_overlay(tmp_path / "overlay.mp4", *clip())
    picture = decode(tmp_path / "overlay.mp4")[seq][1].astype(int)
    high, wide = half_axes(seq)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    edge = np.column_stack(
        [CENTRE_ROW + high * np.sin(angles), CENTRE_COLUMN + wide * np.cos(angles)]
    )
    xs, ys = np.round(Layout.of(ROWS, COLUMNS).to_canvas(edge.astype(np.float32))).astype(int).T
    blue = picture[ys, xs]
    assert np.abs(blue - STRUCTURE_COLOURS["lv"]).max(axis=1).mean() < 60
    beyond = CENTRE_COLUMN + (edge[:, 1] - CENTRE_COLUMN) * 1.3
    around = np.column_stack([CENTRE_ROW + (edge[:, 0] - CENTRE_ROW) * 1.3, beyond])
    xs, ys = np.round(Layout.of(ROWS, COLUMNS).to_canvas(around.astype(np.float32))).astype(int).T
    inside = ys < Layout.of(ROWS, COLUMNS).image.y + Layout.of(ROWS, COLUMNS).image.height
    assert np.abs(picture[ys[inside], xs[inside]] - 40).max() < 12


@pytest.mark.parametrize(("rows", "columns"), [(121, 161), (16, 16), (1080, 1920), (601, 301)])
def test_every_source_size_gives_even_sides_and_a_whole_image(rows: int, columns: int) -> None:
    layout = Layout.of(rows, columns)
    assert layout.width % 2 == layout.height % 2 == 0
    assert layout.image.x >= 0
    assert layout.image.x + layout.image.width <= layout.width
    assert layout.image.y + layout.image.height < layout.height
    assert layout.image.width / layout.image.height == pytest.approx(columns / rows, rel=0.01)
    assert max(layout.image.width, layout.image.height) <= 1200


def test_source_corners_land_on_the_corners_of_the_image() -> None:
    layout = Layout.of(ROWS, COLUMNS)
    corners = np.array([[-0.5, -0.5], [ROWS - 0.5, COLUMNS - 0.5]], np.float32)
    box = layout.image
    expected = [[box.x - 0.5, box.y - 0.5], [box.x + box.width - 0.5, box.y + box.height - 0.5]]
    np.testing.assert_allclose(layout.to_canvas(corners), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_clip_without_a_ventricle_still_becomes_a_film(tmp_path: Path, count: int) -> None:
    frames = [ellipse_frame(seq, None) for seq in range(count)]
    measured = [MeasuredFrame(seq, None, UNSEEN) for seq in range(count)]
    write_overlay(tmp_path / "overlay.mp4", frames, Findings(measured, [], WITHHELD))
    assert len(decode(tmp_path / "overlay.mp4")) == count


def test_frames_that_cannot_be_measured_interrupt_the_curve_but_not_the_film(
    tmp_path: Path,
) -> None:
    frames, findings = clip()
    measured = list(findings.frames)
    measured[3] = MeasuredFrame(3, None, UNSEEN)
    write_overlay(tmp_path / "overlay.mp4", frames, Findings(measured, [BEAT], WITHHELD))
    assert len(decode(tmp_path / "overlay.mp4")) == COUNT


def test_frames_are_not_kept_once_they_are_drawn(tmp_path: Path) -> None:
    alive: list[weakref.ref[NDArray[np.uint8]]] = []
    most_alive = 0

    def one_by_one() -> Iterator[Frame]:
        nonlocal most_alive
        for seq in range(COUNT):
            frame = ellipse_frame(seq, None)
            alive.append(weakref.ref(frame.pixels_HW))
            yield frame
            del frame
            most_alive = max(most_alive, sum(each() is not None for each in alive))

    write_overlay(tmp_path / "overlay.mp4", one_by_one(), clip()[1])
    assert most_alive <= 2


def test_a_film_that_breaks_off_leaves_no_file_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[Frame]:
        yield from clip()[0][:3]
        raise OSError("the file went away")

    with pytest.raises(OSError, match="went away"):
        write_overlay(tmp_path / "overlay.mp4", broken(), clip()[1])
    assert list(tmp_path.iterdir()) == []
