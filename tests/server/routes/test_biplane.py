"""``POST /v1/biplane`` on a running server, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.settings import Settings
from tests.server.phantom import EF_PERCENT, Served, ed_volume_ml, phantom_clip, serving
from tests.server.routes.asking import assert_problem


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    """A server with the phantom as four-chamber, two-chamber and unnamed view."""
    content = phantom_clip(tmp_path_factory.mktemp("phantom") / "phantom.dcm").read_bytes()
    settings = Settings(clip_dir=tmp_path_factory.mktemp("clips"))
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        names = {}
        for view in ("A4C", "A2C", ""):
            params = {"wait_s": 60} | ({"view": view} if view else {})
            answer = served.http.post("/v1/clips", params=params, content=content)
            assert answer.status_code == 200, answer.text
            names[view] = answer.headers["Location"].rsplit("/", 1)[1]
        yield served, names


def ask(views: tuple[Served, dict[str, str]], a4c: str, a2c: str) -> httpx.Response:
    served, names = views
    body = {"a4c": names.get(a4c, a4c), "a2c": names.get(a2c, a2c)}
    return served.http.post("/v1/biplane", json=body)


def test_two_views_of_the_phantom_have_its_volume_and_its_ef(
    views: tuple[Served, dict[str, str]],
) -> None:
    answer = ask(views, "A4C", "A2C")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["ef"]["method"] == "biplane"
    assert document["ef"]["percent"] == pytest.approx(EF_PERCENT, abs=2)
    assert document["ef"]["edv_ml"] == pytest.approx(ed_volume_ml(), rel=0.04)
    assert document["stroke_volume_ml"] == pytest.approx(
        ed_volume_ml() * EF_PERCENT / 100, rel=0.06
    )
    assert document["differences"] == {
        "ed_length_percent": 0.0, "es_length_percent": 0.0, "ef_points": 0.0,
    }  # fmt: skip
    assert document["views"]["a2c"]["view"] == "A2C"
    assert document["normal_ranges"]["version"]


def test_a_clip_without_a_named_view_is_taken_at_the_callers_word(
    views: tuple[Served, dict[str, str]],
) -> None:
    assert ask(views, "A4C", "").status_code == 200


def test_what_cannot_be_brought_together_is_refused_in_words(
    views: tuple[Served, dict[str, str]],
) -> None:
    assert "A2C" in assert_problem(ask(views, "A2C", "A4C"), 422, "bad_measurement")
    assert_problem(ask(views, "A4C", "A4C"), 400, "bad_request")
    assert_problem(ask(views, "A4C", "c_nowhere"), 404, "not_found")
    served, names = views
    bodies: tuple[object, ...] = ({"a4c": names["A4C"]}, {"a4c": 1, "a2c": 2}, [], {"x": 1})
    for body in bodies:
        assert_problem(served.http.post("/v1/biplane", json=body), 400, "bad_request")


def test_a_view_without_an_ef_withholds_the_biplane_one(
    views: tuple[Served, dict[str, str]], tmp_path: Path
) -> None:
    served, _ = views
    still = phantom_clip(tmp_path / "still.dcm", 3).read_bytes()
    answer = served.http.post("/v1/clips", params={"wait_s": 60, "view": "A2C"}, content=still)
    name = answer.headers["Location"].rsplit("/", 1)[1]
    document = ask(views, "A4C", name).json()
    assert document["ef"]["state"] == "withheld"
    assert document["ef"]["percent"] is None
    assert document["ef"]["reasons"][0] == "a2c_not_measured"
    assert document["stroke_volume_ml"] is None


def test_a_clips_result_names_every_figure_with_unit_and_method(
    views: tuple[Served, dict[str, str]],
) -> None:
    served, names = views
    document = served.http.get(f"/v1/clips/{names['A4C']}/result").json()
    figures = {figure["name"]: figure for figure in document["figures"]}
    stroke_ml = ed_volume_ml() * EF_PERCENT / 100
    assert figures["stroke_volume"]["value"] == pytest.approx(stroke_ml, rel=0.06)
    # A beat of 20 frames of 40 ms is one of 75 a minute.
    assert figures["cardiac_output"]["value"] == pytest.approx(stroke_ml * 0.075, rel=0.06)
    assert all(each["unit"] and each["method"] for each in figures.values())
    assert all((each["value"] is None) == bool(each["reason"]) for each in figures.values())
    assert document["disks"]["unit"] == "mm"
    assert len(document["disks"]["ed"]["diameters"]) == 20
    assert document["r_waves"] is None
