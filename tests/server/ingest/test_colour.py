"""Colour Doppler is told from colours that are none: tints, and what scanners write around."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from server.ingest import open_clip
from server.ingest.sample import sample_path
from tests.server.ingest.making import run, save, ultrasound

LEVEL = np.linspace(0, 1, 256)
TINTS = {
    "sepia": [1.15 * LEVEL, LEVEL, 0.78 * LEVEL],
    "blue": [0.75 * LEVEL, 0.95 * LEVEL, 1.2 * LEVEL],
    "from brown to white": [LEVEL**0.6, LEVEL, LEVEL**1.8],
}


def lumas() -> NDArray[np.uint8]:
    """A real apical view, T H W."""
    with open_clip(sample_path()) as clip:
        return np.stack([frame.pixels_HW for frame in clip.frames])[:12]


def tinted(name: str) -> NDArray[np.uint8]:
    """The same as a scanner shows it that colours its greys, T H W 3."""
    table = np.stack(TINTS[name], axis=1).clip(0, 1)
    return (255 * table).round().astype(np.uint8)[lumas()]


def with_flow(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same with colour Doppler on a twentieth of the fan: to the probe red, from it blue."""
    speed = np.linspace(0.3, 1, 40)[:, None]
    flow = np.zeros((40, 40, 3))
    flow[:, :20] = np.broadcast_to([255, 90, 0], (40, 20, 3)) * speed[..., None]
    flow[:, 20:] = np.broadcast_to([0, 110, 255], (40, 20, 3)) * speed[..., None]
    rgb = rgb.copy()
    rgb[:, 100:140, 140:180] = flow.astype(np.uint8)
    return rgb


def plain(rgb: NDArray[np.uint8], path: Path) -> Path:
    return save(ultrasound(rgb, "RGB"), path)


def jpeg(rgb: NDArray[np.uint8], path: Path) -> Path:
    run("dcmcjpeg", "+eb", "+s2", "+q", "80", plain(rgb, path), path.with_suffix(".jpeg"))
    return path.with_suffix(".jpeg")


def mp4(rgb: NDArray[np.uint8], path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = rgb.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in rgb:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


Write = Callable[[NDArray[np.uint8], Path], Path]
WRITERS = [plain, jpeg, mp4]


def is_coloured(path: Path) -> bool:
    with open_clip(path) as clip:
        list(clip.frames)
        return clip.colour_overlay


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", TINTS)
def test_a_tint_of_all_greys_is_no_colour_doppler(tmp_path: Path, name: str, write: Write) -> None:
    assert not is_coloured(write(tinted(name), tmp_path / "clip"))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", TINTS)
def test_colour_doppler_is_seen_on_tinted_greys(tmp_path: Path, name: str, write: Write) -> None:
    assert is_coloured(write(with_flow(tinted(name)), tmp_path / "clip"))


@pytest.mark.parametrize("write", WRITERS)
def test_colours_around_the_fan_are_no_colour_doppler(tmp_path: Path, write: Write) -> None:
    framed = np.repeat(lumas()[..., None], 3, axis=3)
    framed[:, :24] = (36, 64, 97)  # the head of a Philips screen
    assert not is_coloured(write(framed, tmp_path / "clip"))
    assert is_coloured(write(with_flow(framed), tmp_path / "clip"))
