import csv
from pathlib import Path

import numpy as np
import pytest

from model.errors import FrameError
from model.training.sets import open_set
from model.training.sets.echonet import draw_tracing
from tests.model.training.sets.writing import (
    LARGE,
    SMALL,
    box_tracing,
    save_avi,
    write_echonet,
    write_echonet_set,
)


def test_echonet_is_known_by_its_tables_and_split_by_its_list(tmp_path: Path) -> None:
    found = open_set(write_echonet_set(tmp_path))
    found.check()
    assert {study.name: study.split for study in found.studies} == {
        "0X1": "train",
        "0X2": "valid",
        "0X3": "test",
    }
    summary = found.summary()
    assert summary["structures"] == ["lv"]
    assert summary["splits"]["train"]["labelled_frames"] == 2


def test_the_chords_of_a_box_fill_the_box() -> None:
    labels = draw_tracing(tuple(tuple(c) for c in box_tracing(30, 60, 20, 70)), (112, 112))  # type: ignore[misc]
    expected = np.zeros((112, 112), np.uint8)
    expected[20:71, 30:61] = 1
    np.testing.assert_array_equal(labels, expected)


def test_a_tracing_holds_the_pixels_inside_its_outline_and_on_it() -> None:
    # A triangle from (50, 10) to (43, 60) and (60, 60). By Pick's theorem A + B / 2 + 1 pixels lie
    # in it: area 425, and 1 + 17 + 10 of them on its sides, the greatest common divisors.
    axis, apex, base = (51.0, 10.0, 51.0, 60.0), (50.0, 10.0, 50.0, 10.0), (43.0, 60.0, 60.0, 60.0)
    assert draw_tracing((axis, apex, base), (112, 112)).sum() == 425 + 28 / 2 + 1


def test_of_a_frame_that_is_traced_twice_the_first_tracing_counts(tmp_path: Path) -> None:
    again = box_tracing(31, 61, 21, 71)
    videos = {
        "0X1": ("TRAIN", {1: [*LARGE, *again], 5: [*SMALL, *SMALL]}),
        "0X2": ("VAL", {2: SMALL, 6: LARGE}),
    }
    found = open_set(write_echonet(tmp_path, videos))
    assert "2 frames traced again" in found.notes[0]
    (study,) = found.of_split("train")
    assert [int(labels.sum()) for labels in study.read(False).labels] == [31 * 51, 21 * 36]


@pytest.mark.parametrize(("name", "frames"), [("0X1", 5), ("0X2", 5), ("0X3", 8)])
def test_the_larger_cavity_is_diastole_whatever_the_order(
    tmp_path: Path, name: str, frames: int
) -> None:
    found = open_set(write_echonet_set(tmp_path))
    (study,) = (each for each in found.studies if each.name == name)
    recording = study.read(True)
    assert len(recording.images) == frames
    assert recording.labelled == (0, frames - 1)
    areas = [int(labels.sum()) for labels in recording.labels]
    assert areas == [31 * 51, 21 * 36]
    assert recording.spacing_mm is None
    assert len(study.read(False).images) == 2


def test_videos_without_two_tracings_are_left_out_and_named(tmp_path: Path) -> None:
    videos = {
        "0X1": ("TRAIN", {1: LARGE, 5: SMALL}),
        "0X4": ("TRAIN", {}),
        "0X5": ("VAL", {3: LARGE}),
    }
    found = open_set(write_echonet(tmp_path, videos))
    found.check()
    assert [study.name for study in found.studies] == ["0X1"]
    assert found.notes[0].endswith("0X4, 0X5")


def test_tables_that_excel_saved_are_read(tmp_path: Path) -> None:
    write_echonet_set(tmp_path)
    for name in ("FileList.csv", "VolumeTracings.csv"):
        saved_as("utf-8-sig", tmp_path / name)
    assert len(open_set(tmp_path).studies) == 3


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def saved_as(encoding: str, path: Path, more: str = "") -> None:
    path.write_text(path.read_text() + more, encoding=encoding)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "VolumeTracings.csv").unlink(), "VolumeTracings.csv is missing"),
        (lambda root: (root / "FileList.csv").unlink(), "FileList.csv is missing"),
        (lambda root: (root / "FileList.csv").write_text("a,b\n"), "lacks the columns FileName"),
        (
            lambda root: saved_as("utf-16", root / "FileList.csv"),
            "FileList.csv is no text in UTF-8",
        ),
        (
            lambda root: saved_as("cp1252", root / "VolumeTracings.csv", "\xe9"),
            "VolumeTracings.csv is no text in UTF-8",
        ),
        (
            lambda root: saved_as("utf-8", root / "VolumeTracings.csv", '"' + "1\n" * 70_000),
            "VolumeTracings.csv line 38 is no line of a table",
        ),
        (lambda root: (root / "Videos/0X2.avi").unlink(), "0X2.avi is missing"),
        (lambda root: cut(root / "Videos/0X2.avi"), "0X2.avi is cut off"),
        (lambda root: (root / "Videos/0X2.avi").write_text("no film"), "0X2.avi is no AVI"),
        (lambda root: (root / "Videos/0X2.avi").write_bytes(b""), "0X2.avi is empty"),
    ],
)
def test_what_is_missing_or_cut_off_is_named(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    write_echonet_set(tmp_path)
    damage(tmp_path)
    with pytest.raises(FrameError) as refusal:
        open_set(tmp_path).check()
    assert said in refusal.value.message


def test_a_table_that_breaks_off_in_a_line_is_named(tmp_path: Path) -> None:
    write_echonet_set(tmp_path)
    with (tmp_path / "VolumeTracings.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["0X3.avi", "12.5", "3"])
    with pytest.raises(FrameError, match="line 38 is cut off"):
        open_set(tmp_path).check()


def test_a_table_that_breaks_off_behind_a_long_axis_is_named(tmp_path: Path) -> None:
    write_echonet(tmp_path, {"0X1": ("TRAIN", {1: LARGE, 5: SMALL[:1]})})
    with pytest.raises(FrameError, match="tracing of 0X1 frame 5 is cut off"):
        open_set(tmp_path).check()


def test_a_video_shorter_than_its_list_or_tracings_say_is_named(tmp_path: Path) -> None:
    write_echonet_set(tmp_path)
    save_avi(tmp_path / "Videos" / "0X1.avi", [np.full((112, 96), 80, np.uint8)] * 3)
    (study,) = open_set(tmp_path).of_split("train")
    with pytest.raises(FrameError, match=r"0X1\.avi holds 3 frames where 8"):
        study.read(False)


def test_a_video_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_echonet_set(tmp_path)
    path = tmp_path / "Videos" / "0X1.avi"
    path.write_bytes(path.read_bytes()[:12] + bytes(path.stat().st_size - 12))
    (study,) = open_set(tmp_path).of_split("train")
    with pytest.raises(FrameError, match=r"0X1\.avi"):
        study.read(False)
