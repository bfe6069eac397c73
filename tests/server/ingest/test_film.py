"""Films by FFmpeg's encoders, compared with what the ffmpeg program decodes."""

import re
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from server.ingest import Clip, IngestError, IngestLimits, open_clip
from tests.server.ingest.making import (
    COLUMNS,
    ROWS,
    coloured_cine,
    grey_cine,
    run,
    tool,
)

COUNT = 20
SIZE = f"{COLUMNS}x{ROWS}"
H264 = ["-c:v", "libx264", "-bf", "2", "-crf", "12"]


def read(path: Path) -> tuple[Clip, NDArray[np.uint8], list[int | None]]:
    with open_clip(path) as clip:
        frames = list(clip.frames)
    return clip, np.array([frame.pixels_HW for frame in frames]), [f.time_us for f in frames]


def refusal_of(path: Path, limits: IngestLimits | None = None) -> str:
    with pytest.raises(IngestError) as refusal, open_clip(path, limits) as clip:
        list(clip.frames)
    return refusal.value.code


def film(path: Path, *options: str, rgb: NDArray[np.uint8] | None = None, rate: int = 25) -> Path:
    """Encode a cine, the grey one where no colours are given, with the ffmpeg program."""
    if rgb is None:
        rgb = np.repeat(grey_cine(COUNT)[..., None], 3, axis=3)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", SIZE, "-r", str(rate), "-i", "-"]
    command = [tool("ffmpeg"), "-v", "error", *source, *options, str(path)]
    subprocess.run(command, input=rgb.tobytes(), check=True)
    return path


def decoded(path: Path, size: tuple[int, int] = (ROWS, COLUMNS)) -> NDArray[np.uint8]:
    """Luma in full range, as the ffmpeg program decodes it: T H W."""
    command = [tool("ffmpeg"), "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, *size)


ENCODINGS = {
    "h264.mp4": H264,
    "h264-444.mp4": [*H264, "-pix_fmt", "yuv444p"],
    "mpeg4.mov": ["-c:v", "mpeg4", "-q:v", "2"],
    "hevc.mp4": ["-c:v", "libx265", "-crf", "12", "-x265-params", "log-level=none"],
    "mjpeg.avi": ["-c:v", "mjpeg", "-q:v", "2"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-q:v", "2"],
    "raw.avi": ["-c:v", "rawvideo", "-pix_fmt", "bgr24"],
    "grey.avi": ["-c:v", "rawvideo", "-pix_fmt", "gray"],
    "grey.gif": ["-pix_fmt", "gray"],
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_film_has_the_pixels_and_times_that_ffmpeg_decodes(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *ENCODINGS[name])
    clip, lumas, times_us = read(path)
    assert len(lumas) == COUNT
    assert np.abs(lumas.astype(int) - decoded(path)).max() <= 2
    assert times_us == [40_000 * index for index in range(COUNT)]
    assert clip.time_base.source == "Container"
    assert clip.size == (ROWS, COLUMNS)
    assert (clip.region, clip.spacing_mm, clip.view) == (None, None, None)
    assert not clip.colour_overlay
    assert clip.warnings == ()


@pytest.mark.parametrize("name", ["h264.mp4", "raw.avi"])
def test_colour_in_a_film_is_seen(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *ENCODINGS[name], rgb=coloured_cine(COUNT))
    assert read(path)[0].colour_overlay


def test_an_uncompressed_film_has_the_pixels_that_went_in(tmp_path: Path) -> None:
    path = film(tmp_path / "raw.avi", *ENCODINGS["raw.avi"])
    assert np.abs(read(path)[1].astype(int) - grey_cine(COUNT)).max() <= 1


def test_full_range_video_is_not_stretched_again(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4", *H264, "-pix_fmt", "yuvj420p")
    assert np.abs(read(path)[1].astype(int) - decoded(path)).max() <= 2


def turned(path: Path, degrees: int) -> Path:
    """The same film, to be turned to the left when it is shown."""
    there = path.with_name("turned.mp4")
    turn = ["-c", "copy", "-metadata:s:v:0", f"rotate={degrees}"]
    run("ffmpeg", "-v", "error", "-i", path, *turn, there)
    return there


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_film_is_turned_upright_as_ffmpeg_turns_it(tmp_path: Path, degrees: int) -> None:
    plain = film(tmp_path / "plain.mp4", *H264)
    path = turned(plain, degrees)
    size = (ROWS, COLUMNS) if degrees == 180 else (COLUMNS, ROWS)
    clip, lumas, _ = read(path)
    assert clip.size == size
    expected = decoded(path, size)
    assert not np.array_equal(expected, decoded(plain).reshape(expected.shape))
    assert np.abs(lumas.astype(int) - expected).max() <= 2


def uneven(path: Path, times_ms: list[int]) -> Path:
    """A film whose frames have the given time stamps."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = COLUMNS, ROWS, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time_ms, pixels in zip(times_ms, grey_cine(len(times_ms)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_uneven_time_stamps_are_kept(tmp_path: Path) -> None:
    times_ms = [0, 33, 83, 100, 166, 200, 233, 300]
    _, _, times_us = read(uneven(tmp_path / "f.mp4", times_ms))
    assert times_us == [1000 * time_ms for time_ms in times_ms]


def test_a_gif_without_delays_has_no_times(tmp_path: Path) -> None:
    path = film(tmp_path / "f.gif")
    assert read(path)[0].time_base.source == "Container"
    delays = re.compile(rb"(!\xf9\x04.)..", re.DOTALL)  # of the graphic control extension
    plain, count = delays.subn(rb"\1\0\0", path.read_bytes())
    assert count == COUNT
    path.write_bytes(plain)
    clip, _, times_us = read(path)
    assert times_us == [None] * COUNT
    assert (clip.time_base.source, clip.warnings) == (None, ())


def test_time_starts_with_the_first_frame(tmp_path: Path) -> None:
    _, _, times_us = read(uneven(tmp_path / "f.mp4", [500, 540, 580]))
    assert times_us == [0, 40_000, 80_000]


@pytest.mark.parametrize("rate", [1, 1000])
def test_a_rate_no_scanner_has_leaves_the_time_unknown(tmp_path: Path, rate: int) -> None:
    clip, _, times_us = read(film(tmp_path / "f.mp4", *H264, rate=rate))
    assert clip.time_base.source is None
    assert set(times_us) == {None}
    assert clip.warnings == ("time_base_implausible",)


@pytest.mark.parametrize(
    ("ratio", "columns"), [("16/15", COLUMNS * 16 // 15), ("10/11", COLUMNS * 10 // 11)]
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_pixels_that_are_not_square_are_made_so_as_players_do(
    tmp_path: Path, ratio: str, columns: int, is_turned: bool
) -> None:
    path, size = film(tmp_path / "f.mp4", *H264, "-vf", f"setsar={ratio}"), (ROWS, columns)
    shown, filters = tmp_path / "shown.avi", "scale=iw*sar:ih:flags=bilinear,setsar=1"
    if is_turned:
        size, filters = size[::-1], filters + ",transpose=cclock"
    run("ffmpeg", "-v", "error", "-i", path, "-vf", filters, *ENCODINGS["grey.avi"], shown)
    if is_turned:
        path = turned(path, 90)
    clip, lumas, _ = read(path)
    assert clip.warnings == ("pixels_made_square",)
    assert (clip.size, lumas.shape[1:]) == (size, size)
    assert np.abs(lumas.astype(int) - decoded(shown, size)).mean() < 1.5


def test_pixels_of_a_shape_that_none_has_are_taken_as_squares(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4", *H264, "-vf", "setsar=100")
    clip, lumas, _ = read(path)
    assert (clip.warnings, clip.size) == ((), (ROWS, COLUMNS))
    assert np.abs(lumas.astype(int) - decoded(path)).max() <= 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("f.mp4", ["-c:v", "mpeg4", "-q:v", "2", "-movflags", "+faststart"]),
        ("f.avi", ["-c:v", "mjpeg", "-q:v", "2"]),
        ("f.gif", []),
    ],
)
def test_a_cut_film_gives_its_first_frames_and_a_warning(
    tmp_path: Path, name: str, options: list[str]
) -> None:
    path = film(tmp_path / name, *options)
    whole = read(path)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    clip, lumas, _ = read(path)
    assert 0 < len(lumas) < COUNT
    assert np.array_equal(lumas, whole[: len(lumas)])
    assert "truncated_frames" in clip.warnings


def test_a_film_that_was_trimmed_is_whole(tmp_path: Path) -> None:
    """What stands before its new beginning stays in the file, since other frames need it."""
    whole, path = film(tmp_path / "f.mp4", *H264, "-g", str(COUNT)), tmp_path / "trimmed.mp4"
    run("ffmpeg", "-v", "error", "-ss", "0.3", "-i", whole, "-c", "copy", path)
    clip, lumas, times_us = read(path)
    assert 0 < len(lumas) < COUNT
    assert np.abs(lumas.astype(int) - decoded(path)).max() <= 2
    assert (clip.warnings, times_us[0]) == ((), 0)


def test_a_film_without_its_index_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4", *H264)
    path.write_bytes(path.read_bytes()[:500])
    assert refusal_of(path) == "decode_failed"


def test_a_film_of_sound_alone_has_no_pixels(tmp_path: Path) -> None:
    path = tmp_path / "f.mp4"
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", path)
    assert refusal_of(path) == "no_pixels"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (IngestLimits(frames=COUNT - 1), "too_many_frames"),
        (IngestLimits(frame_pixels=ROWS * COLUMNS - 1), "too_large"),
        (IngestLimits(decoded_bytes=ROWS * COLUMNS * 3 * COUNT - 1), "too_large"),
        (IngestLimits(decoder_bytes=30 << 20), "decode_failed"),
    ],
)
def test_each_limit_of_films_holds(tmp_path: Path, limits: IngestLimits, code: str) -> None:
    assert refusal_of(film(tmp_path / "f.mp4", *H264), limits) == code


def test_a_film_left_half_read_ends_its_process(tmp_path: Path) -> None:
    with open_clip(film(tmp_path / "f.mp4", *H264)) as clip:
        assert next(clip.frames).seq == 0
    with pytest.raises(StopIteration):
        next(clip.frames)
