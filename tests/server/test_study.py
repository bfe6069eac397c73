import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from model import FrameError
from server.errors import EngineError
from server.ingest import IngestError, IngestLimits, open_clip
from server.protocol import FrameHeader, Hello
from server.session import Arrival, Session
from server.study import Study, analyse_clip, write_masks, write_study_overlay
from tests.server.ingest.making import grey_cine, save, ultrasound
from tests.server.phantom import (
    BEAT_FRAMES,
    EF_PERCENT,
    FRAME_MS,
    SIDE_PX,
    SPACING_MM,
    ed_volume_ml,
    grey_predictor,
    phantom_clip,
    shrink_of,
    true_labels,
)

COUNT = 3 * BEAT_FRAMES + 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_clip(tmp_path_factory.mktemp("clip") / "phantom.dcm")


@pytest.fixture(scope="module")
def study(clip: Path) -> Study:
    return analyse_clip(clip, grey_predictor())


def shape_of(value: Any) -> Any:
    """Keys all the way down; of a list, those of its first entry."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shape_of(value[0])]
    return "value"


def test_the_document_has_the_fields_that_scripts_rely_on(study: Study) -> None:
    assert shape_of(study.document) == {
        "clip": {
            "frames": "value",
            "size": "value",
            "spacing_mm": "value",
            "time_base": {"source": "value", "duration_ms": "value"},
            "view": "value",
            "warnings": "value",
        },
        "ef": dict.fromkeys(
            [
                "state", "percent", "interval", "method", "beats", "heart_rate_bpm", "edv_ml",
                "esv_ml", "reasons",
            ],
            "value",
        ),
        "beats": [
            dict.fromkeys(["ed_seq", "es_seq", "ef_percent", "is_complete", "reasons"], "value")
        ],
        "frames": [
            {
                "seq": "value",
                "time_ms": "value",
                "lv": dict.fromkeys(["area_px", "area_cm2", "length_cm", "volume_ml"], "value"),
                "quality": {"state": "value", "reasons": "value"},
            }
        ],
        "figures": [
            dict.fromkeys(["name", "value", "unit", "method", "beats", "reason"], "value")
        ],
        "disks": {
            "unit": "value",
            "ed": {"length": "value", "diameters": "value"},
            "es": {"length": "value", "diameters": "value"},
        },
        "r_waves": "value",
        "normal_ranges": {
            "version": "value",
            "source": "value",
            "note": "value",
            "ranges": [dict.fromkeys(["name", "unit", "men", "women"], "value")],
        },
        "revision": "value",
        "edits": "value",
        "model": dict.fromkeys(["name", "version", "sha256", "precision"], "value"),
    }  # fmt: skip


def test_the_document_says_what_the_file_says(study: Study) -> None:
    document = study.document
    assert document["clip"]["frames"] == len(document["frames"]) == COUNT
    assert document["clip"]["size"] == [SIDE_PX, SIDE_PX]
    assert document["clip"]["spacing_mm"] == pytest.approx([SPACING_MM, SPACING_MM])
    assert document["clip"]["time_base"]["source"] == "FrameTime"
    assert document["clip"]["time_base"]["duration_ms"] == pytest.approx(COUNT * FRAME_MS)
    assert [frame["seq"] for frame in document["frames"]] == list(range(COUNT))
    assert [frame["time_ms"] for frame in document["frames"]] == [40 * i for i in range(COUNT)]
    assert document["model"] == {
        "name": "grey",
        "version": "1.2.3",
        "sha256": "ab" * 32,
        "precision": None,
    }


def test_a_phantom_is_as_large_as_its_formula_says(study: Study) -> None:
    for index in (0, 5, 10, 20, 27):
        lv, shrink = study.document["frames"][index]["lv"], shrink_of(index)
        assert lv["area_px"] == pytest.approx((true_labels(index) == 1).sum(), rel=0.01)
        assert lv["volume_ml"] == pytest.approx(ed_volume_ml() * shrink**3, rel=0.03)
        assert lv["length_cm"] == pytest.approx(70 * shrink * SPACING_MM / 10, rel=0.03)


def test_a_phantom_empties_as_much_as_its_formula_says(study: Study) -> None:
    ef, beats = study.document["ef"], study.document["beats"]
    assert ef["state"] == "measured"
    assert ef["percent"] == pytest.approx(EF_PERCENT, abs=1.5)
    assert ef["interval"][0] < EF_PERCENT < ef["interval"][1]
    assert ef["edv_ml"] == pytest.approx(ed_volume_ml(), rel=0.03)
    assert ef["heart_rate_bpm"] == pytest.approx(60_000 / (BEAT_FRAMES * FRAME_MS), rel=0.02)
    assert [(beat["ed_seq"], beat["es_seq"]) for beat in beats if beat["is_complete"]] == [
        (20, 30),
        (40, 50),
    ]


def test_the_document_is_json_that_every_parser_takes(study: Study, tmp_path: Path) -> None:
    blank = save(ultrasound(np.zeros((4, 64, 64), np.uint8), FrameTime=None), tmp_path / "blank")
    for document in (study.document, analyse_clip(blank, grey_predictor()).document):
        assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_what_is_unknown_is_null_with_a_reason(tmp_path: Path) -> None:
    blank = save(ultrasound(np.zeros((4, 64, 64), np.uint8), FrameTime=None), tmp_path / "blank")
    document = analyse_clip(blank, grey_predictor()).document
    assert document["clip"]["spacing_mm"] is None
    assert document["clip"]["time_base"] == {"source": None, "duration_ms": None}
    assert document["clip"]["view"] is None
    assert document["ef"]["state"] == "withheld"
    assert document["ef"]["percent"] is document["ef"]["interval"] is None
    assert "no_left_ventricle" in document["ef"]["reasons"]
    for frame in document["frames"]:
        assert frame["time_ms"] is frame["lv"] is None
        assert frame["quality"]["state"] == "fail"
        assert frame["quality"]["reasons"]


def test_colour_over_the_image_withholds_the_ef_and_says_so(tmp_path: Path) -> None:
    document = analyse_clip(phantom_clip(tmp_path / "c", flow=True), grey_predictor()).document
    assert document["ef"]["state"] == "withheld"
    assert document["ef"]["percent"] is None
    assert document["ef"]["reasons"][0] == "colour_overlay"


@pytest.mark.parametrize(("view", "state"), [("A2C", "measured"), ("PLAX", "withheld")])
def test_disks_are_for_apical_views_alone(clip: Path, view: str, state: str) -> None:
    document = analyse_clip(clip, grey_predictor(), view=view).document
    assert (document["clip"]["view"], document["ef"]["state"]) == (view, state)
    assert ("view_not_apical" in document["ef"]["reasons"]) == (state == "withheld")


def test_a_clip_and_a_stream_of_its_frames_are_the_same(clip: Path, study: Study) -> None:
    labels: list[bytes] = []
    analyse_clip(clip, grey_predictor(), labels=labels)
    with open_clip(clip) as opened:
        region = opened.region
        assert region is not None
        hello = Hello(
            type="hello", size=opened.size, codec="gray8", spacing_mm=opened.spacing_mm,
            region=(region.top, region.left, region.height, region.width), mask_encoding="none",
        )  # fmt: skip
        session = Session(hello, grey_predictor())
        answers = []
        for frame in opened.frames:
            header = FrameHeader("gray8", frame.seq, frame.time_us, frame.pixels_HW.size)
            arrival = Arrival(header, memoryview(frame.pixels_HW.tobytes()), 0.0)
            answers.append(json.loads(session.answer(arrival).messages[0]))
    summary = json.loads(session.summary()[-1])
    assert summary["ef"] == study.document["ef"]
    for answer, frame_document in zip(answers, study.document["frames"], strict=True):
        assert answer["lv"] == frame_document["lv"]
        assert answer["quality"] == frame_document["quality"]
    shared = ("ed_seq", "es_seq", "is_complete", "reasons")
    assert [[beat[key] for key in shared] for beat in summary["beats"]] == [
        [beat[key] for key in shared] for beat in study.document["beats"]
    ]


def test_progress_is_told_after_every_frame(clip: Path) -> None:
    told: list[tuple[int, int | None]] = []
    analyse_clip(clip, grey_predictor(), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, COUNT) for done in range(1, COUNT + 1)]


def test_whoever_is_told_of_progress_may_stop_the_work(clip: Path) -> None:
    told: list[int] = []

    def stop(done: int, _: int | None) -> None:
        told.append(done)
        if done == 3:
            raise FrameError("enough")

    with pytest.raises(FrameError, match="enough"):
        analyse_clip(clip, grey_predictor(), progress=stop)
    assert told == [1, 2, 3]


def test_limits_are_those_of_the_caller(clip: Path) -> None:
    with pytest.raises(IngestError) as refusal:
        analyse_clip(clip, grey_predictor(), limits=IngestLimits(frames=COUNT - 1))
    assert refusal.value.code == "too_many_frames"


def test_masks_open_in_numpy_as_what_the_phantom_is(clip: Path, tmp_path: Path) -> None:
    labels: list[bytes] = []
    found = analyse_clip(clip, grey_predictor(), labels=labels)
    write_masks(tmp_path / "masks.npz", found, labels)
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as masks:
        labels_THW = masks["labels_THW"]
        assert (labels_THW.shape, labels_THW.dtype) == ((COUNT, SIDE_PX, SIDE_PX), np.uint8)
        assert masks["structures"].tolist() == ["lv", "myocardium", "atrium"]
        assert masks["time_ms_T"].tolist() == [40.0 * index for index in range(COUNT)]
    for index in (0, 10, 33):
        differing = labels_THW[index] != true_labels(index)
        assert differing.mean() < 0.002


def test_masks_of_unknown_times_say_nan(tmp_path: Path) -> None:
    cine = save(ultrasound(grey_cine(), FrameTime=None), tmp_path / "cine")
    labels: list[bytes] = []
    found = analyse_clip(cine, grey_predictor(), labels=labels)
    write_masks(tmp_path / "masks.npz", found, labels)
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as masks:
        assert np.isnan(masks["time_ms_T"]).all()
        assert len(masks["time_ms_T"]) == len(masks["labels_THW"]) == 3


def test_an_overlay_of_another_file_is_refused(study: Study, tmp_path: Path) -> None:
    other = save(ultrasound(grey_cine()), tmp_path / "other")
    with pytest.raises(EngineError):
        write_study_overlay(tmp_path / "overlay.mp4", other, study)
    assert list(tmp_path.glob("overlay*")) == []


@pytest.mark.parametrize(
    ("told_bpm", "told_ms", "warns"),
    [
        ("75", FRAME_MS, False),
        ("90", FRAME_MS, False),
        ("0", FRAME_MS, False),
        (None, 5 / 3 * FRAME_MS, False),
        ("75", 5 / 3 * FRAME_MS, True),
        ("75", 3 / 5 * FRAME_MS, True),
    ],
)
def test_a_header_that_tells_another_heart_rate_warns(
    tmp_path: Path, told_bpm: str | None, told_ms: float, warns: bool
) -> None:
    # The phantom beats 75 times a minute: once in 20 frames of 40 ms.
    made = dcmread(phantom_clip(tmp_path / "clip.dcm"))
    made.FrameTime = f"{told_ms:.3f}"
    if told_bpm is not None:
        made.HeartRate = told_bpm
    made.save_as(tmp_path / "told.dcm")
    document = analyse_clip(tmp_path / "told.dcm", grey_predictor()).document
    assert document["ef"]["percent"] == pytest.approx(EF_PERCENT, abs=2)
    assert document["ef"]["heart_rate_bpm"] == pytest.approx(75 * FRAME_MS / told_ms, rel=0.03)
    assert ("heart_rates_disagree" in document["clip"]["warnings"]) == warns
