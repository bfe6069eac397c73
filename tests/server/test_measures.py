"""How far a pixel is from the edge of what a clip shows."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from model import Region, find_fan
from model.measure.figures import BORDER_PX, BORDER_SHARE
from server.ingest import Clip, open_clip
from server.ingest.clip import TimeBase
from server.measures import edge_px
from tests.model.test_sector import APEX, DEPTH_PX, drawn_fan, speckle
from tests.server.ingest.making import save, ultrasound


def test_the_edge_of_a_fan_is_where_the_probe_saw_no_further(tmp_path: Path) -> None:
    path = save(ultrasound(np.stack([speckle(drawn_fan(38, 38))] * 2)), tmp_path / "fan")
    with open_clip(path) as clip:
        assert clip.sector is not None
        edge_px_HW = edge_px(clip)
    for degrees in (-20, 0, 20):
        for depth_px in (150.0, 200.0, 240.0):
            row = APEX[0] + depth_px * np.cos(np.radians(degrees))
            col = APEX[1] + depth_px * np.sin(np.radians(degrees))
            side_px = depth_px * np.sin(np.radians(38 - abs(degrees)))
            wanted = min(DEPTH_PX - depth_px, side_px)
            assert edge_px_HW[round(row), round(col)] == pytest.approx(wanted, abs=6)
    assert edge_px_HW[0, 0] < 0


@pytest.mark.parametrize("region", [None, Region(10, 20, 30, 40)])
def test_without_a_fan_it_is_the_edge_of_the_region_or_of_the_image(region: Region | None) -> None:
    clip = Clip(
        frames=iter(()), frame_count=0, size=(60, 80), spacing_mm=None, region=region,
        time_base=TimeBase(None, None), view=None, encoding="none",
    )  # fmt: skip
    box = region or Region(0, 0, 60, 80)
    edge_px_HW = edge_px(clip)
    row, col = np.mgrid[:60, :80]
    sides = [row - box.top, col - box.left]
    sides += [box.top + box.height - 1 - row, box.left + box.width - 1 - col]
    wanted = np.minimum.reduce(sides)
    is_inside = wanted >= 0
    np.testing.assert_allclose(edge_px_HW[is_inside], wanted[is_inside], atol=0.01)
    assert (edge_px_HW[~is_inside] < 0).all()


def test_atria_that_a_real_fan_cuts_off_are_those_that_run_along_black(shared_dir: Path) -> None:
    """Expert outlines at end systole; what CAMUS's images show is not black anywhere inside."""
    folder = shared_dir / "data/ultrasound/camus/a4c-256/valid"
    told: list[bool] = []
    true: list[bool] = []
    for path in sorted(folder.glob("*_ES.png"))[:16]:
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        labels = cv2.imread(str(path.with_name(f"{path.stem}_gt.png")), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        assert labels is not None
        shown = cv2.morphologyEx(np.minimum(picture, 1), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        lines, _ = cv2.findContours(
            (labels == 3).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cols, rows = max(lines, key=len)[:, 0].T
        clip = Clip(
            frames=iter(()), frame_count=0, size=(256, 256), spacing_mm=None, region=None,
            time_base=TimeBase(None, None), view=None, encoding="none",
            sector=find_fan([np.asarray(picture, np.uint8)], None),
        )  # fmt: skip
        beyond_px = cv2.distanceTransform(np.pad(shown, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 1
        for found, edges in ((told, edge_px(clip)), (true, beyond_px[1:-1, 1:-1])):
            found.append(bool(np.mean(edges[rows, cols] < BORDER_PX) > BORDER_SHARE))
    assert 4 < sum(true) < 12
    assert told == true
