from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from server.ingest import sample_path
from server.settings import Settings
from tests.server.phantom import Served, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(clip_dir=tmp_path_factory.mktemp("clips"))
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        yield served


def test_the_sample_is_described_as_its_header_says(served: Served) -> None:
    header = pydicom.dcmread(sample_path(), stop_before_pixels=True)
    facts = served.http.get("/sample.json").json()
    assert facts["frames"] == int(header.NumberOfFrames)
    assert facts["size"] == [header.Rows, header.Columns]
    assert facts["frame_time_ms"] == pytest.approx(float(header.FrameTime))
    assert facts["spacing_mm"] is None  # its calibration is of another size of image


def test_every_frame_of_the_sample_is_the_one_of_the_file(served: Served) -> None:
    decoded = pydicom.dcmread(sample_path()).pixel_array.astype(np.float64)
    for index in (0, 17, 29):
        answer = served.http.get(f"/sample/{index}.jpg")
        assert answer.headers["Content-Type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert np.abs(picture[..., ::-1] - decoded[index]).mean() < 2


@pytest.mark.parametrize("index", ["30", "99999999999999999999"])
def test_there_is_no_frame_beyond_the_last(served: Served, index: str) -> None:
    answer = served.http.get(f"/sample/{index}.jpg")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_frame_has_a_number(served: Served) -> None:
    answer = served.http.get("/sample/first.jpg")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/index.html", "text/html"),
        ("/gdkvm.js", "text/javascript"),
        ("/page.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_of_the_page_comes_with_the_type_that_a_browser_needs(
    served: Served, path: str, kind: str
) -> None:
    answer = served.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].partition(";")[0] == kind


def test_every_module_that_the_page_imports_is_there(served: Served) -> None:
    folder = Path(__file__).resolve().parents[3] / "clients" / "web"
    names = [path.name for path in folder.glob("*.js")]
    assert len(names) > 3
    for name in names:
        assert served.http.get(f"/{name}").content == (folder / name).read_bytes()


@pytest.mark.parametrize("path", ["/nothing.js", "/../pyproject.toml", "/%2e%2e/%2e%2e/README.md"])
def test_nothing_else_is_served(served: Served, path: str) -> None:
    answer = served.http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["Content-Type"] == "application/problem+json"
