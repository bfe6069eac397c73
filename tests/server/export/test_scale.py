"""Pixels that are not square are drawn as they are, wherever people look at a clip."""

import base64
import re
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from server.artefacts import ARTEFACTS
from tests.server.export.conftest import analyse
from tests.server.ingest.making import save, ultrasound
from tests.server.phantom import FRAME_MS, SIDE_PX, TISSUE, whole_image_region

BRIGHT = 200


def square_clip(path: Path, tall: int, wide: int) -> Path:
    """A clip that shows a square: 48 shortest pixel sides each way."""
    region = whole_image_region()
    region.PhysicalDeltaY, region.PhysicalDeltaX = 0.08 * tall, 0.08 * wide
    frames_THW = np.full((12, SIDE_PX, SIDE_PX), TISSUE, np.uint8)
    frames_THW[:, 40 : 40 + 48 // tall, 50 : 50 + 48 // wide] = BRIGHT
    made = ultrasound(frames_THW, FrameTime=str(FRAME_MS), SequenceOfUltrasoundRegions=[region])
    return save(made, path)


def seen_in(path: Path) -> NDArray[Any]:
    """The first picture in a file, as grey levels."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as film:
            assert film.streams.video[0].sample_aspect_ratio in (None, 0, 1)
            return next(film.decode(video=0)).to_ndarray(format="gray")
    if path.suffix == ".dcm":
        made = dcmread(path)
        assert "PixelAspectRatio" not in made, "1 to 1 where it is not told: PS3.3 C.7.6.3.1.7"
        return made.pixel_array[0, ..., 1]
    held = path.read_bytes()
    if path.suffix == ".html":
        found = re.search(rb"base64,([A-Za-z0-9+/=]+)", held)
        assert found is not None
        held = base64.b64decode(found[1])
    shown_HW = cv2.imdecode(np.frombuffer(held, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown_HW is not None
    return shown_HW


@pytest.mark.parametrize(
    "name", ["overlay.mp4", "still.png", "report.html", "secondary-capture.dcm"]
)
@pytest.mark.parametrize(("tall", "wide"), [(1, 1), (2, 1), (1, 2)])
def test_a_square_is_shown_as_a_square(tmp_path: Path, name: str, tall: int, wide: int) -> None:
    material = analyse(square_clip(tmp_path / "square.dcm", tall, wide))
    ARTEFACTS[name].write(tmp_path / name, material)
    bright_HW = (seen_in(tmp_path / name) > (TISSUE + BRIGHT) / 2).astype(np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(bright_HW)
    width, height = max(boxes[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]], key=np.prod)
    assert width > 50
    assert height / width == pytest.approx(1, abs=0.04)


def test_masks_stay_on_the_grid_of_the_clip(tmp_path: Path) -> None:
    material = analyse(square_clip(tmp_path / "square.dcm", 2, 1))
    ARTEFACTS["seg.dcm"].write(tmp_path / "seg.dcm", material)
    made = dcmread(tmp_path / "seg.dcm")
    assert (made.Rows, made.Columns) == (SIDE_PX, SIDE_PX)
