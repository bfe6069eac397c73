"""Video inside DICOM, compared with what the ffmpeg program decodes of the same film."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from model import Region
from server.ingest import IngestLimits
from tests.server.ingest.making import COLUMNS, ROWS, grey_cine, run, save, ultrasound
from tests.server.ingest.test_film import (
    COUNT,
    ENCODINGS,
    H264,
    decoded,
    film,
    read,
    refusal_of,
)
from tests.server.ingest.test_region import box

STREAMS = {
    "MPEG-2": ("1.2.840.10008.1.2.4.100", "mpeg2video", ["-c:v", "mpeg2video", "-q:v", "2"]),
    "MPEG-2, fragmentable": (
        "1.2.840.10008.1.2.4.100.1", "mpeg2video", ["-c:v", "mpeg2video", "-q:v", "2"],
    ),
    "MPEG-2 program stream": (
        "1.2.840.10008.1.2.4.101", "mpeg", ["-c:v", "mpeg2video", "-q:v", "2"],
    ),
    "H.264 bare": ("1.2.840.10008.1.2.4.102", "h264", H264),
    "H.264 in a transport stream": ("1.2.840.10008.1.2.4.103", "mpegts", H264),
    "H.264 in MP4": ("1.2.840.10008.1.2.4.104.1", "mp4", H264),
    "HEVC": ("1.2.840.10008.1.2.4.107", "hevc", ENCODINGS["hevc.mp4"]),
    "HEVC, 10 bit": (
        "1.2.840.10008.1.2.4.108", "hevc", [*ENCODINGS["hevc.mp4"], "-pix_fmt", "yuv420p10le"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pieces"), [*((name, 1) for name in STREAMS), ("MPEG-2, fragmentable", 3)]
)
def test_video_inside_dicom_has_ffmpegs_pixels_and_the_headers_times(
    tmp_path: Path, name: str, pieces: int
) -> None:
    syntax, container, options = STREAMS[name]
    stream = film(tmp_path / "stream", *options, "-f", container)
    length = stream.stat().st_size
    even = stream.read_bytes() + b"\0" * (length % 2)
    made = ultrasound(
        np.repeat(grey_cine(COUNT)[..., None], 3, axis=3), "YBR_PARTIAL_420", FrameTime="20"
    )
    path = save(made, tmp_path / "clip", syntax, encapsulate([even], fragments_per_frame=pieces))
    clip, lumas, times_us = read(path)
    assert np.abs(lumas.astype(int) - decoded(stream)).max() <= 2
    assert times_us == [20_000 * index for index in range(COUNT)]
    assert clip.time_base.source == "FrameTime"
    assert clip.time_base.duration_ms == 20 * COUNT
    assert clip.warnings == ()
    assert clip.encoding.startswith("DICOM, ")


def film_in_dicom(tmp_path: Path, ratio: str, **more: Any) -> Path:
    """A film that says this of its pixels, behind a header that says something too."""
    stream = film(tmp_path / "stream", *H264, "-vf", f"setsar={ratio}", "-f", "h264")
    even = stream.read_bytes() + b"\0" * (stream.stat().st_size % 2)
    colours = np.repeat(grey_cine(COUNT)[..., None], 3, axis=3)
    made = ultrasound(colours, "YBR_PARTIAL_420", **more)
    return save(made, tmp_path / "clip", "1.2.840.10008.1.2.4.102", encapsulate([even]))


@pytest.mark.parametrize(
    "more",
    [
        {"SequenceOfUltrasoundRegions": [box((0, 0, COLUMNS - 1, ROWS - 1))]},
        {"PixelAspectRatio": [1, 1]},
    ],
)
def test_a_film_in_dicom_keeps_its_pixels_whose_shape_the_header_tells(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    clip, lumas, _ = read(film_in_dicom(tmp_path, "16/15", **more))
    assert clip.warnings == ("pixels_not_square",)
    assert np.abs(lumas.astype(int) - decoded(tmp_path / "stream")).max() <= 2


@pytest.mark.parametrize(
    ("ratio", "more", "columns", "region"),
    [
        ("16/15", {}, COLUMNS * 16 // 15, None),
        ("1", {"PixelAspectRatio": [3, 4]}, COLUMNS * 4 // 3, None),
        ("16/15", {"PixelAspectRatio": [3, 4]}, COLUMNS * 4 // 3, None),
        (
            "2",
            {"SequenceOfUltrasoundRegions": [box((4, 2, 59, 45), units=0)]},
            2 * COLUMNS,
            Region(top=2, left=8, height=44, width=112),
        ),
    ],
)
def test_a_film_in_dicom_without_pixel_size_is_made_square_as_its_header_has_it_or_it_says(
    tmp_path: Path, ratio: str, more: dict[str, Any], columns: int, region: Region | None
) -> None:
    clip, lumas, _ = read(film_in_dicom(tmp_path, ratio, **more))
    size = (ROWS, columns)
    assert "pixels_made_square" in clip.warnings
    assert (clip.size, lumas.shape[1:], clip.region) == (size, size, region)
    shown = tmp_path / "shown.avi"
    scaled = ["-vf", f"scale={columns}:{ROWS}:flags=bilinear", *ENCODINGS["grey.avi"]]
    run("ffmpeg", "-v", "error", "-i", tmp_path / "stream", *scaled, shown)
    assert np.abs(lumas.astype(int) - decoded(shown, size)).mean() < 1.5


@pytest.mark.parametrize(
    ("container", "source"), [("h264", None), ("mpegts", "Container"), ("mp4", "Container")]
)
def test_without_times_in_the_header_only_a_container_knows_them(
    tmp_path: Path, container: str, source: str | None
) -> None:
    stream = film(tmp_path / "stream", *H264, "-f", container).read_bytes()
    made = ultrasound(
        np.repeat(grey_cine(COUNT)[..., None], 3, axis=3), "YBR_PARTIAL_420", FrameTime=None
    )
    path = save(
        made, tmp_path / "clip", "1.2.840.10008.1.2.4.102", [stream + b"\0" * (len(stream) % 2)]
    )
    clip, _, times_us = read(path)
    assert clip.time_base.source == source
    assert times_us == [40_000 * index if source else None for index in range(COUNT)]


@pytest.mark.parametrize(
    ("declared", "found", "warning"),
    [(COUNT - 5, COUNT - 5, "extra_pixel_data"), (COUNT + 5, COUNT, "truncated_frames")],
)
def test_video_of_another_length_than_declared_is_a_warning(
    tmp_path: Path, declared: int, found: int, warning: str
) -> None:
    stream = film(tmp_path / "stream", *H264, "-f", "h264").read_bytes()
    made = ultrasound(
        np.repeat(grey_cine(COUNT)[..., None], 3, axis=3),
        "YBR_PARTIAL_420",
        NumberOfFrames=declared,
    )
    path = save(
        made, tmp_path / "clip", "1.2.840.10008.1.2.4.102", [stream + b"\0" * (len(stream) % 2)]
    )
    clip, lumas, _ = read(path)
    assert len(lumas) == found
    assert clip.warnings == (warning,)


def test_video_that_declares_more_frames_than_allowed_is_refused_before_any_is_counted(
    tmp_path: Path,
) -> None:
    stream = film(tmp_path / "stream", *H264, "-f", "h264").read_bytes()
    made = ultrasound(
        np.repeat(grey_cine(COUNT)[..., None], 3, axis=3),
        "YBR_PARTIAL_420",
        NumberOfFrames=IngestLimits().frames + 1,
    )
    path = save(
        made, tmp_path / "clip", "1.2.840.10008.1.2.4.102", [stream + b"\0" * (len(stream) % 2)]
    )
    assert refusal_of(path) == "too_many_frames"


def test_video_of_another_size_than_the_header_says_is_refused(tmp_path: Path) -> None:
    stream = film(tmp_path / "stream", *H264, "-f", "h264").read_bytes()
    made = ultrasound(np.zeros((COUNT, 64, 64, 3), np.uint8), "YBR_PARTIAL_420")
    path = save(
        made, tmp_path / "clip", "1.2.840.10008.1.2.4.102", [stream + b"\0" * (len(stream) % 2)]
    )
    assert refusal_of(path) == "malformed_header"
