import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.errors import FrameError
from model.frame import STRUCTURES, Frame, Mask, Region
from model.postprocess import to_source_labels
from model.predictor import Predictor, StreamState
from model.preprocess import make_fit, to_network_input
from model.training.evaluate import evaluate, read_annotated, reference_mask
from model.training.report import write_report
from tests.model.training.hearts import draw_labels, write_index, write_patient


def test_the_stills_of_the_split_are_read_with_their_spacing(data: Path) -> None:
    stills = read_annotated(data)
    assert [(each.patient, each.phase) for each in stills] == [
        ("patient0003", "ed"),
        ("patient0003", "es"),
    ]
    assert {each.mm_per_px for each in stills} == {0.8}
    index = data / "index.csv"
    index.write_text(index.read_text(), encoding="utf-8-sig")  # as Excel saves "CSV UTF-8"
    assert len(read_annotated(data)) == 2
    write_patient(data / "test", "patient0009", 9)
    write_index(data, [("test", "patient0009", "ED", "0.5"), ("valid", "patient0003", "ED", "0.8")])
    assert [each.patient for each in read_annotated(data)] == ["patient0009"]  # test goes first


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("no_index", "index.csv"),
        ("no_split", "valid"),
        ("no_column", "mm_per_px"),
        ("utf-16", "no text in UTF-8"),
        ("cp1252", "no text in UTF-8"),
        ("never_ends", "line 6 is no line of a table"),
        ("no_number", "line 2"),
        ("negative", "line 2"),
        ("phase", "line 2"),
        ("missing", "patient0003_4CH_ES"),
        ("unequal", "patient0003_4CH_ES"),
        ("labels", "patient0003_4CH_ES"),
        ("empty", "all"),
    ],
)
def test_a_folder_that_is_not_in_the_layout_is_refused_and_the_fault_is_named(
    data: Path, damage: str, named: str
) -> None:
    mask = data / "valid" / "patient0003_4CH_ES_gt.png"
    index = data / "index.csv"
    rows = {
        "no_number": ("valid", "patient0003", "ED", "?"),
        "negative": ("valid", "patient0003", "ED", "-1"),
        "phase": ("valid", "patient0003", "EX", "0.8"),
        "empty": ("train", "patient0001", "ED", "0.8"),
    }
    if damage == "no_index":
        index.unlink()
    elif damage == "no_split":
        (data / "valid").rename(data / "validation")
    elif damage == "no_column":
        index.write_text("split,patient,phase\nvalid,patient0003,ED\n")
    elif damage in ("utf-16", "cp1252"):
        index.write_text(f"{index.read_text()}valid,Jos\xe9,ED,0.8\n", encoding=damage)
    elif damage == "never_ends":
        index.write_text(f'{index.read_text()}"' + "valid\n" * 30_000)
    elif damage == "missing":
        mask.unlink()
    elif damage == "unequal":
        cv2.imwrite(str(mask), draw_labels(1.0)[1:])
    elif damage == "labels":
        cv2.imwrite(str(mask), draw_labels(1.0) * 60)
    else:
        write_index(data, [rows[damage]])
    with pytest.raises(FrameError) as refusal:
        read_annotated(data)
    assert named in refusal.value.message


@pytest.mark.parametrize("size", [(96, 96), (80, 96), (96, 70)])
def test_an_annotation_as_a_mask_says_what_was_annotated(data: Path, size: tuple[int, int]) -> None:
    still = read_annotated(data)[0]
    labels_HW = still.labels_HW[: size[0], : size[1]]
    mask = reference_mask(replace(still, labels_HW=labels_HW))
    np.testing.assert_array_equal(to_source_labels(mask), labels_HW)


class Oracle(Predictor):
    """Answers every still with its annotation, drawn on a network's grid of another size."""

    def __init__(self, predictor: Predictor, data: Path) -> None:
        super().__init__(predictor.model, predictor.backend)
        self.truth = {each.image_HW.tobytes(): each.labels_HW for each in read_annotated(data)}

    def step(self, frame: Frame, state: StreamState) -> tuple[Mask, StreamState]:
        labels_HW = self.truth[frame.pixels_HW.tobytes()]
        size = labels_HW.shape[0], labels_HW.shape[1]
        fit = make_fit(Region(0, 0, *size), size, 144)
        maps = [(labels_HW == k + 1).astype(np.uint8) * 255 for k in range(len(STRUCTURES))]
        stacked = np.stack([to_network_input(each, fit)[0, 0] for each in maps])
        return Mask(stacked, fit, 1.0), state


def test_the_annotations_themselves_score_nearly_full_marks(
    data: Path, tiny_predictor: Predictor
) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate(
        data,
        predictor=Oracle(tiny_predictor, data),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    for name in STRUCTURES:
        assert report[name]["all"]["dice"] > 0.97
        assert report[name]["all"]["hd95_mm"] <= 0.8  # one pixel
    assert report["ef"]["pairs"] == 1
    assert report["ef"]["mae"] < 2.0
    assert report["patients"] == 1
    assert report["weights"]["sha256"] == tiny_predictor.model.sha256
    json.dumps(report, allow_nan=False)


def test_weights_that_know_nothing_still_give_a_whole_report(
    data: Path, tiny_predictor: Predictor
) -> None:
    report = evaluate(data, predictor=tiny_predictor)
    json.dumps(report, allow_nan=False)
    for name in STRUCTURES:
        assert set(report[name]) == {"ed", "es", "all"}
        assert {"dice", "iou", "hd95_mm", "asd_mm", "ci95"} <= set(report[name]["all"])
    assert {"mae", "rmse", "r", "bias", "beyond_15", "ci95"} <= set(report["ef"])


def test_what_the_index_says_beside_the_spacing_is_kept(data: Path) -> None:
    write_patient(data / "test", "patient0009", 9)
    for still in (data / "test").glob("patient0009_4CH_ED*.png"):
        shutil.copy(still, still.with_name(still.name.replace("4CH", "2CH")))
    (data / "index.csv").write_text(
        "split,patient,view,phase,mm_per_px,quality,ef_percent\n"
        "test,patient0009,4CH,ED,0.5,good,61.5\n"
        "test,patient0009,2CH,ED,0.5,poor,\n"
    )
    first, second = read_annotated(data)
    assert (first.view, first.quality, first.stated_ef) == ("4CH", "good", 61.5)
    assert (second.view, second.quality, second.stated_ef) == ("2CH", "poor", None)


@pytest.mark.parametrize("rest", ["5CH,ED,0.5,", "4CH,ED,0.5,110", "4CH,ED,0.5,x"])
def test_a_view_or_an_ef_that_cannot_be_is_refused_with_its_line(data: Path, rest: str) -> None:
    (data / "valid").rename(data / "test")
    head = "split,patient,view,phase,mm_per_px,ef_percent"
    (data / "index.csv").write_text(f"{head}\ntest,p,{rest}\n")
    with pytest.raises(FrameError, match="line 2"):
        read_annotated(data)


def test_the_page_of_an_evaluation_needs_nothing_else_and_shows_every_patient_it_names(
    data: Path, tiny_predictor: Predictor, tmp_path: Path
) -> None:
    write_patient(data / "valid", "patient0004", 4)
    rows = [("valid", f"patient000{n}", phase, "0.8") for n in (3, 4) for phase in ("ED", "ES")]
    write_index(data, rows)
    oracle = Oracle(tiny_predictor, data)
    page = tmp_path / "report.html"
    write_report(evaluate(data, predictor=oracle), data, oracle, page)
    text = page.read_text()
    assert not re.search(r"(src|href)=.(?!data:|#)", text)
    pictures = re.findall(
        r"alt='(patient\d+ E[DS]), Dice (\d\.\d+)' src='data:image/png;base64,", text
    )
    assert sorted(name for name, _ in pictures) == [
        "patient0003 ED", "patient0003 ES", "patient0004 ED", "patient0004 ES",
    ]  # fmt: skip
    assert all(float(dice) > 0.97 for _, dice in pictures)
    assert "<svg" in text
