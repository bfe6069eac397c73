from pathlib import Path

import cv2
import numpy as np
import pytest

from model.errors import FrameError
from model.training.others import read_negatives
from server.ingest import open_clip
from tests.model.test_sector import drawn_fan, speckle, written_on
from tests.model.training.sets.writing import save_avi
from tests.server.ingest.making import save, ultrasound


def test_images_of_no_heart_are_read_in_order_of_name(tmp_path: Path) -> None:
    for name, level in (("b", 2), ("a", 1)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30), level, np.uint8))
    assert [int(image.max()) for image in read_negatives(str(tmp_path))] == [1, 2]
    assert read_negatives("") == []


def test_of_a_dicom_file_training_sees_what_the_network_sees_of_it_served(tmp_path: Path) -> None:
    images = np.stack([written_on(speckle(drawn_fan(35, 35), seed)) for seed in range(3)])
    path = save(ultrasound(images), tmp_path / "IM00001")
    with open_clip(path) as served:
        sight = served.sight
        assert served.sector is not None
        assert sight is not None
        seen = [served.seen(frame).pixels_HW for frame in served.frames]
    rows = slice(sight.top, sight.top + sight.height)
    columns = slice(sight.left, sight.left + sight.width)
    found = read_negatives(str(tmp_path))
    assert len(found) == 3
    for image, frame in zip(found, seen, strict=True):
        np.testing.assert_array_equal(image, frame[rows, columns])


def test_of_a_long_film_a_few_frames_from_all_over_it_are_read(tmp_path: Path) -> None:
    levels = range(40, 240, 10)
    save_avi(tmp_path / "film.avi", [np.full((64, 80), level, np.uint8) for level in levels])
    means = [float(image.mean()) for image in read_negatives(str(tmp_path))]
    assert means == pytest.approx([40, 80, 120, 160, 200], abs=3)


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30), 9, np.uint8))
    (tmp_path / "LICENSE").write_text("as you like")
    (tmp_path / "._a.png").write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "more").mkdir()
    assert [int(image.max()) for image in read_negatives(str(tmp_path))] == [9]


def test_a_folder_without_images_of_no_heart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="no PNG"):
        read_negatives(str(tmp_path))
    with pytest.raises(FrameError, match="nowhere"):
        read_negatives(str(tmp_path / "nowhere"))


def test_every_unreadable_image_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30), np.uint8))
    for name in ("b.png", "c.avi"):
        (tmp_path / name).write_text("no image")
    whole = save(ultrasound(np.zeros((2, 32, 48), np.uint8)), tmp_path / "d.dcm").read_bytes()
    (tmp_path / "d.dcm").write_bytes(whole[:-2000])
    with pytest.raises(FrameError, match=r"(?s)3 found.*b\.png.*c\.avi.*d\.dcm"):
        read_negatives(str(tmp_path))
