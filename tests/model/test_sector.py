"""The fan in a picture: found where there is one; what lies outside it the network never sees."""

import io
import math
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model import Region, Sector, find_fan
from server.ingest import open_clip
from server.ingest.sample import read_sample
from tests.server.ingest.making import run, save, ultrasound

ROWS, COLUMNS = 300, 400
APEX, DEPTH_PX = (20.0, 190.0), 250.0


def drawn_fan(left_deg: float, right_deg: float) -> NDArray[np.bool_]:
    """A fan by its definition in polar coordinates."""
    row, col = np.mgrid[:ROWS, :COLUMNS]
    angle = np.degrees(np.arctan2(col - APEX[1], row - APEX[0]))
    reach = np.hypot(col - APEX[1], row - APEX[0])
    return (angle >= -left_deg) & (angle <= right_deg) & (reach <= DEPTH_PX)


def speckle(inside: NDArray[np.bool_], seed: int = 1) -> NDArray[np.uint8]:
    """Fully developed speckle where ``inside``, black elsewhere."""
    noise = np.random.default_rng(seed).rayleigh(50, inside.shape)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.where(inside, np.clip(smooth, 0, 255), 0).astype(np.uint8)


def written_on(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with text in its corners and an ECG below, as scanners write them."""
    written = picture.copy()
    for at in [(2, 14), (2, 30), (330, 14), (330, 290)]:
        cv2.putText(written, "MI 1.3", at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    col = np.arange(10, 120)
    wave = 280 - 15 * np.exp(-(((col - 60) / 3) ** 2))
    cv2.polylines(written, [np.stack([col, wave], 1).astype(np.int32)], False, 255, 1)
    return written


@pytest.mark.parametrize(("left_deg", "right_deg"), [(40, 40), (30, 30), (45, 30), (20, 38)])
def test_a_fan_is_found_with_its_apex_angles_and_depth(left_deg: float, right_deg: float) -> None:
    found = find_fan([written_on(speckle(drawn_fan(left_deg, right_deg)))], None)
    assert found is not None
    assert math.degrees(found.left_rad) == pytest.approx(left_deg, abs=2)
    assert math.degrees(found.right_rad) == pytest.approx(right_deg, abs=2)
    assert found.apex_col == pytest.approx(APEX[1], abs=4)
    assert found.apex_row + found.depth_px == pytest.approx(APEX[0] + DEPTH_PX, abs=10)


def test_the_fan_holds_the_tissue_and_neither_text_nor_ecg() -> None:
    fan = drawn_fan(35, 35)
    picture = written_on(speckle(fan))
    found = find_fan([picture], None)
    assert found is not None
    assert np.count_nonzero(found.inside & fan) >= 0.995 * np.count_nonzero(fan)
    assert not picture[found.inside & ~fan].any()


@pytest.mark.parametrize("background", [16, 30, 240])
def test_a_fan_on_a_grey_screen_is_found_and_seen_on_black(background: int) -> None:
    fan = drawn_fan(35, 35)
    picture = np.where(fan, speckle(fan), background).astype(np.uint8)
    found = find_fan([picture], None)
    assert found is not None
    assert math.degrees(found.left_rad) == pytest.approx(35, abs=2)
    assert found.apex_row + found.depth_px == pytest.approx(APEX[0] + DEPTH_PX, abs=10)
    seen = found.seen(picture)
    assert not seen[~fan].any()
    is_apart = np.abs(picture.astype(int) - background) > 2
    np.testing.assert_array_equal(seen[fan & is_apart], picture[fan & is_apart])


@pytest.mark.parametrize("scale", [1, 3])
def test_the_fan_less_its_margin_ends_where_the_probe_saw_no_further(scale: int) -> None:
    picture = np.kron(speckle(drawn_fan(35, 35)), np.ones((scale, scale), np.uint8))
    found = find_fan([picture], None)
    assert found is not None
    ends_px = scale * (APEX[0] + DEPTH_PX)
    less_px = found.apex_row + found.depth_px - found.margin_px
    assert ends_px - 4 * scale <= less_px <= ends_px


def test_what_one_frame_leaves_dark_another_one_shows() -> None:
    fan = drawn_fan(40, 40)
    col = np.arange(COLUMNS)[None]
    halves = [speckle(fan & (col < 200)), speckle(fan & (col >= 180))]
    assert find_fan(halves[:1], None) is None
    assert find_fan(halves, None) is not None


def a_box() -> NDArray[np.uint8]:
    inside = np.zeros((ROWS, COLUMNS), np.bool_)
    inside[40:260, 80:320] = True
    return speckle(inside)


def a_toolbar() -> NDArray[np.uint8]:
    """A bar along the top of a program's window, and nothing below it."""
    screen_HW = np.zeros((480, 640), np.uint8)
    screen_HW[:90] = 150
    return screen_HW


def a_zoomed_picture() -> NDArray[np.uint8]:
    return speckle(np.ones((ROWS, COLUMNS), np.bool_))


@pytest.mark.parametrize(
    "picture", [a_box(), a_zoomed_picture(), np.zeros_like(a_box()), a_toolbar()]
)
def test_where_there_is_no_fan_none_is_found(picture: NDArray[np.uint8]) -> None:
    assert find_fan([picture], None) is None


def as_video(
    pictures: list[NDArray[np.uint8]], codec: str, **options: str
) -> list[NDArray[np.uint8]]:
    """The pictures as they come back from a video of theirs."""
    file = io.BytesIO()
    film: Any = av.open(file, "w", format="mp4")
    track = film.add_stream(codec, rate=30, options=options)
    track.height, track.width = pictures[0].shape
    track.pix_fmt = "yuv420p"
    for picture in pictures:
        film.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
    film.mux(track.encode())
    film.close()
    file.seek(0)
    shown: Any = av.open(file)
    return [frame.to_ndarray(format="gray") for frame in shown.decode(video=0)]


@pytest.mark.parametrize(
    ("codec", "options"),
    [("mpeg2video", {}), ("libx264", {"crf": "30"}), ("libx264", {"crf": "23"})],
)
def test_a_fan_whose_outline_a_video_codec_frayed_is_that_of_the_clip_before(
    codec: str, options: dict[str, str]
) -> None:
    jpegs = read_sample().jpegs[::6]
    pictures = [
        np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
        for jpeg in jpegs
    ]
    before, after = (
        find_fan(pictures, None),
        find_fan(as_video(pictures, codec, **options), None),
    )
    assert before is not None
    assert after is not None
    both = np.count_nonzero(before.inside & after.inside)
    assert 2 * both / (before.inside.sum() + after.inside.sum()) > 0.96


def test_the_fan_ends_with_the_declared_region() -> None:
    region = Region(20, 30, 250, 330)
    found = find_fan([written_on(speckle(drawn_fan(35, 35)))], region)
    assert found is not None
    outside = found.inside.copy()
    outside[20:270, 30:360] = False
    assert not outside.any()
    assert found.box.top >= 20


def cine() -> NDArray[np.uint8]:
    return np.stack([written_on(speckle(drawn_fan(35, 35), seed)) for seed in range(3)])


def native(tmp_path: Path) -> Path:
    return save(ultrasound(cine()), tmp_path / "clip")


def film(tmp_path: Path) -> Path:
    (tmp_path / "raw").write_bytes(cine().tobytes())
    run(
        "ffmpeg", "-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{COLUMNS}x{ROWS}", "-r", "25",
        "-i", tmp_path / "raw", "-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p",
        tmp_path / "clip.mp4",
    )  # fmt: skip
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("make", [native, film])
def test_the_network_sees_the_fan_of_a_clip_and_the_clip_keeps_its_pictures(
    tmp_path: Path, make: Any
) -> None:
    with open_clip(make(tmp_path)) as clip:
        frames = list(clip.frames)
        assert isinstance(clip.sector, Sector)
        assert clip.sight == clip.sector.box
        for frame, whole in zip(frames, cine(), strict=True):
            assert np.abs(frame.pixels_HW.astype(int) - whole).mean() < 8
            seen = clip.seen(frame).pixels_HW
            assert not seen[~clip.sector.inside].any()
            assert np.array_equal(seen[clip.sector.inside], frame.pixels_HW[clip.sector.inside])


@pytest.mark.parametrize("stem", ["patient0200", "patient0230", "patient0259"])
def test_the_fan_of_published_apical_images_covers_what_was_annotated(
    shared_dir: Path, stem: str
) -> None:
    folder = shared_dir / "data/ultrasound/camus/a4c-256/valid"
    picture = cv2.imread(str(folder / f"{stem}_4CH_ED.png"), cv2.IMREAD_GRAYSCALE)
    mask = cv2.imread(str(folder / f"{stem}_4CH_ED_gt.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert mask is not None
    found = find_fan([np.asarray(picture, np.uint8)], None)
    assert found is not None
    # the experts drew some walls on beyond the sector, where the picture is black
    assert not ((mask > 0) & (picture > 12) & ~found.inside).any()
