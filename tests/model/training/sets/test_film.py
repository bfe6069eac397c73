"""Films as training reads them, beside what the server makes of the same files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate

from model.errors import FrameError
from model.preprocess import find_sector, make_fit, to_network_input
from model.training.others import read_negatives
from model.training.patients import read_studies
from model.training.sets import open_set
from model.training.sets.dicom import read_seen
from model.training.sets.film import read_film
from server.ingest import open_clip
from tests.model.test_sector import drawn_fan, speckle, written_on
from tests.model.training.sets.writing import box_tracing, heart, save_avi, write_echonet
from tests.server.ingest.making import COLUMNS, ROWS, grey_cine, run, save, ultrasound
from tests.server.ingest.test_dicom_film import STREAMS, film_in_dicom
from tests.server.ingest.test_film import ENCODINGS, H264, film

COUNT = 20
FILMS = {
    name: options for name, options in ENCODINGS.items() if not name.endswith(".gif")
} | {
    "full.mp4": [*H264, "-pix_fmt", "yuvj420p"],
    "10 bits.mp4": [*ENCODINGS["hevc.mp4"], "-pix_fmt", "yuv420p10le"],
    "turned.mp4": [*H264, "-vf", "setsar=10/11"],
    "wide.mp4": [*H264, "-vf", "setsar=16/15"],
    "no shape.mp4": [*H264, "-vf", "setsar=100"],
    "limited.avi": ["-c:v", "rawvideo", "-pix_fmt", "yuv420p"],
}  # fmt: skip


def served(path: Path) -> NDArray[np.uint8]:
    with open_clip(path) as clip:
        return np.stack([frame.pixels_HW for frame in clip.frames])


def seen(path: Path) -> list[NDArray[np.uint8]]:
    """What the network sees of every frame of a clip that is served."""
    with open_clip(path) as clip:
        lumas = [clip.seen(frame).pixels_HW for frame in clip.frames]
        box = clip.sight or find_sector(lumas[0])
    assert box is not None
    return [luma[box.top : box.top + box.height, box.left : box.left + box.width] for luma in lumas]


def dicom_film(
    path: Path, stream: Path, syntax: str, pieces: int = 1, like: Dataset | None = None
) -> Path:
    even = stream.read_bytes() + b"\0" * (stream.stat().st_size % 2)
    made = like or ultrasound(np.repeat(grey_cine(COUNT)[..., None], 3, axis=3), "YBR_PARTIAL_420")
    return save(made, path, syntax, encapsulate([even], fragments_per_frame=pieces))


def turned(path: Path, degrees: int) -> Path:
    """The same film, told to be shown at an angle."""
    rotate = ["-metadata:s:v:0", f"rotate={degrees}"]
    run("ffmpeg", "-v", "error", "-i", path, "-c", "copy", *rotate, path.with_name("t.mp4"))
    return path.with_name("t.mp4")


@pytest.mark.parametrize("name", FILMS)
def test_a_film_has_the_greys_in_training_that_it_has_served(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *FILMS[name])
    path = turned(path, 90) if name == "turned.mp4" else path
    expected = served(path)
    assert np.ptp(expected) > 200
    np.testing.assert_array_equal(np.stack(read_film(path)), expected)


@pytest.mark.parametrize(
    ("name", "pieces"), [*((name, 1) for name in STREAMS), ("MPEG-2, fragmentable", 3)]
)
def test_video_inside_dicom_has_the_greys_in_training_that_it_has_served(
    tmp_path: Path, name: str, pieces: int
) -> None:
    syntax, container, options = STREAMS[name]
    stream = film(tmp_path / "stream", *options, "-f", container)
    path = dicom_film(tmp_path / "clip.dcm", stream, syntax, pieces)
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("more", [{}, {"PixelAspectRatio": [3, 4]}])
def test_pixels_of_video_inside_dicom_are_made_square_as_they_are_served(
    tmp_path: Path, more: dict[str, list[int]]
) -> None:
    path = film_in_dicom(tmp_path, "16/15", **more)
    assert served(path).shape[1:] == (ROWS, COLUMNS * 4 // 3 if more else COLUMNS * 16 // 15)
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        np.testing.assert_array_equal(image, expected)


def test_a_turned_film_inside_dicom_is_upright(tmp_path: Path) -> None:
    plain = film(tmp_path / "f.mp4", *H264)
    path = dicom_film(tmp_path / "clip.dcm", turned(plain, 180), STREAMS["H.264 in MP4"][0])
    np.testing.assert_array_equal(served(path), served(plain)[:, ::-1, ::-1])
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("is_dicom", [False, True])
def test_the_fan_of_a_film_is_looked_for_in_the_frames_that_serving_looks_at(
    tmp_path: Path, is_dicom: bool
) -> None:
    """It fills with noise later on, so that no fan is seen in frames from all over it."""
    everywhere = np.ones_like(drawn_fan(35, 35))
    shown = [drawn_fan(35, 35)] * 30 + [everywhere] * 10
    images = [speckle(inside, seed) for seed, inside in enumerate(shown)]
    path = tmp_path / "film.avi"
    save_avi(path, images)
    if is_dicom:
        run("ffmpeg", "-v", "error", "-i", path, *H264, "-f", "h264", tmp_path / "stream")
        path.unlink()
        made = ultrasound(np.repeat(np.stack(images)[..., None], 3, axis=3), "YBR_PARTIAL_420")
        path = dicom_film(tmp_path / "a", tmp_path / "stream", STREAMS["H.264 bare"][0], 1, made)
        (tmp_path / "stream").unlink()
    with open_clip(path) as clip:
        assert clip.sector is not None
    found = read_negatives(str(tmp_path))
    for image, expected in zip(found, seen(path)[::8], strict=True):
        np.testing.assert_array_equal(image, expected)


def test_a_clip_that_is_stored_as_video_is_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "one"
    images, labels = zip(*(heart(size, k) for k, size in enumerate((1.0, 0.7))), strict=True)
    made = ultrasound(np.repeat(np.stack(images)[..., None], 3, axis=3), "YBR_PARTIAL_420")
    folder.mkdir(parents=True)
    save_avi(tmp_path / "film.avi", list(images))
    stream = tmp_path / "stream"
    run("ffmpeg", "-v", "error", "-i", tmp_path / "film.avi", *H264, "-f", "h264", stream)
    clip = dicom_film(folder / "clip.dcm", stream, STREAMS["H.264 bare"][0], 1, made)
    np.savez(folder / "masks.npz", labels_THW=np.stack(labels))
    found = open_set(tmp_path)
    found.check()
    recording = found.studies[0].read(False)
    for image, expected in zip(recording.images, seen(clip), strict=True):
        np.testing.assert_array_equal(image, expected)


def test_of_an_echonet_video_training_sees_what_the_network_sees_of_it_served(
    tmp_path: Path,
) -> None:
    large, small = box_tracing(160, 220, 90, 200), box_tracing(165, 215, 100, 190)
    root = write_echonet(tmp_path, {"0X1": ("TRAIN", {1: large, 5: small})})
    images = [written_on(speckle(drawn_fan(35, 35), seed)) for seed in range(8)]
    video = root / "Videos" / "0X1.avi"
    save_avi(video, images)
    with open_clip(video) as clip:
        assert clip.sector is not None
        fit = make_fit(clip.sector.box, clip.size, 128)
        frames = [clip.seen(frame).pixels_HW for frame in clip.frames]
    (patient,) = read_studies(open_set(root).of_split("train"), 128)
    for still, frame in zip((patient.ed, patient.es), (frames[1], frames[5]), strict=True):
        seen = 255 * to_network_input(frame, fit)[0, 0]
        np.testing.assert_array_equal(still.image_HW, np.rint(seen))


def test_frames_beyond_those_that_the_header_declares_are_left_out(tmp_path: Path) -> None:
    stream = film(tmp_path / "stream", *H264, "-f", "h264")
    path = dicom_film(tmp_path / "clip.dcm", stream, STREAMS["H.264 bare"][0])
    stored = dcmread(path)
    stored.NumberOfFrames = COUNT - 5
    stored.save_as(path)
    assert len(read_seen(path)) == len(served(path)) == COUNT - 5


def test_a_film_of_another_size_than_the_header_says_is_refused(tmp_path: Path) -> None:
    stream = film(tmp_path / "stream", *H264, "-f", "h264")
    made = ultrasound(np.zeros((COUNT, 64, 80, 3), np.uint8), "YBR_PARTIAL_420")
    path = dicom_film(tmp_path / "clip.dcm", stream, STREAMS["H.264 bare"][0], 1, made)
    with pytest.raises(FrameError, match=f"64 x 80 pixels, its film has {ROWS} x {COLUMNS}"):
        read_seen(path)


@pytest.mark.parametrize("ending", ["avi", "mp4"])
def test_a_film_that_breaks_off_is_refused(tmp_path: Path, ending: str) -> None:
    options = (
        ["-c:v", "mjpeg", "-q:v", "2"] if ending == "avi" else [*H264, "-movflags", "+faststart"]
    )
    path = film(tmp_path / f"f.{ending}", *options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with open_clip(path) as clip:
        assert 0 < len(list(clip.frames)) < COUNT
    with pytest.raises(FrameError, match="cannot be decoded"):
        read_film(path)


def test_a_film_without_a_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.mp4"
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", path)
    with pytest.raises(FrameError, match=r"f\.mp4"):
        read_film(path)
