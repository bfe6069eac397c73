import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pycocotools import mask as coco

from server.artefacts import ARTEFACTS, Material
from server.export.plot import HEIGHT, WIDTH, Curve, draw_curve, ticks
from server.export.schema import clip_result_schema
from server.export.words import FIGURES, ef_headline, reason_in_words
from tests.server.export.test_segmentation import labels_of


def made(material: Material, name: str, folder: Path) -> Path:
    ARTEFACTS[name].write(folder / name, material)
    return folder / name


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_another_library_reads_the_coco_masks(heart: Material, tmp_path: Path) -> None:
    document = json.loads(made(heart, "masks.json", tmp_path).read_text())
    labels = labels_of(heart)
    assert [image["id"] for image in document["images"]] == list(range(1, len(labels) + 1))
    assert [each["name"] for each in document["categories"]] == ["lv", "myocardium", "atrium"]
    assert document["annotations"]
    found = np.zeros_like(labels)
    for each in document["annotations"]:
        inside = coco.decode(each["segmentation"]).astype(bool)
        assert each["area"] == inside.sum()
        assert each["bbox"] == coco.toBbox(each["segmentation"]).tolist()
        found[each["image_id"] - 1][inside] = each["category_id"]
    np.testing.assert_array_equal(found, labels)


def test_the_table_has_a_line_a_frame_with_what_the_result_says(
    heart: Material, tmp_path: Path
) -> None:
    with made(heart, "frames.csv", tmp_path).open(newline="") as file:
        lines = list(csv.DictReader(file))
    frames, beats = heart.study.document["frames"], heart.study.document["beats"]
    assert len(lines) == len(frames)
    for line, frame in zip(lines, frames, strict=True):
        assert float(line["time_ms"]) == pytest.approx(frame["time_ms"], abs=0.001)
        assert float(line["lv_volume_ml"]) == pytest.approx(frame["lv"]["volume_ml"], abs=0.01)
        assert line["quality"] == frame["quality"]["state"]
    ends = {int(line["seq"]) for line in lines if "ED" in line["event"]}
    assert ends == {beat["ed_seq"] for beat in beats}


@pytest.mark.parametrize("which", ["heart", "nothing"])
def test_results_keep_to_the_published_schema_and_it_describes_all_of_them(
    which: str, request: pytest.FixtureRequest
) -> None:
    schema = clip_result_schema()
    Draft202012Validator.check_schema(schema)
    document = request.getfixturevalue(which).study.document
    closed = json.loads(
        json.dumps(schema).replace('"additionalProperties": true', '"additionalProperties": false')
    )
    assert closed != schema
    Draft202012Validator(closed).validate(json.loads(json.dumps(document)))
    broken = {**document, "ef": {**document["ef"], "percent": "55"}}
    assert not Draft202012Validator(schema).is_valid(broken)


class Reader(HTMLParser):
    """Collects what a page loads and says."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset"}]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("which", ["heart", "nothing"])
def test_the_page_stands_alone_and_says_the_ef_or_why_not(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    material = request.getfixturevalue(which)
    page = Reader()
    text = made(material, "report.html", tmp_path).read_text()
    page.feed(text)
    ef = material.study.findings.ef
    assert all(place.startswith("data:image/") for place in page.loads)
    assert "script" not in page.tags
    assert "url(" not in text
    assert ef_headline(ef) in page.words
    assert "For research use only" in page.words
    # That it is one beat stands there as a number.
    for code in set(ef.reasons) - {"single_beat"}:
        assert reason_in_words(code) in page.words.lower()
    for beat in material.study.document["beats"]:
        assert f"{beat['ef_percent']:.1f}" in page.words
    for figure in material.study.document["figures"]:
        assert FIGURES[figure["name"]].lower() in page.words.lower()
        value = figure["value"]
        said = reason_in_words(figure["reason"]) if value is None else f"{value:.3g} "
        assert said in page.words
    # Lang et al. 2015, table 4.
    assert ("EF 52 to 72 % in men, 54 to 74 % in women" in page.words) == (ef.percent is not None)


def test_a_curve_runs_through_its_values() -> None:
    curve = Curve("Volume, <ml>", [0.0, 10.0, None, 10.0], [True] * 4, [0.0, 1.0, 2.0, 3.0], "s")
    drawn = draw_curve(curve)
    # From the left axis (52) to the right margin (14), thirds apart; the gap is not bridged.
    thirds = (WIDTH - 52 - 14) / 3
    assert f"M52.0 {HEIGHT - 34:.1f}L{52 + thirds:.1f} " in drawn
    assert f"M{WIDTH - 14:.1f} " in drawn
    assert "Volume, &lt;ml&gt;" in drawn
    assert draw_curve(Curve("", [None], [True], [0.0], "s")) == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (41, 99, [40, 60, 80, 100]),
        (0.1, 0.52, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    ],
)
def test_ticks_are_round_and_enclose_the_range(
    low: float, high: float, expected: list[float]
) -> None:
    assert ticks(low, high, 5) == expected
