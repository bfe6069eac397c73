"""One server for all tests that leave it as it was."""

from collections.abc import Iterator

import pytest

from server.settings import Settings
from tests.server.phantom import Served, phantom_clip, serving
from tests.server.routes.asking import COUNT, LIMIT, STUDY_LIMIT, WAIT


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return phantom_clip(tmp_path_factory.mktemp("phantom") / "phantom.dcm", COUNT).read_bytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("clips")
    settings = Settings(clip_dir=folder, upload_max_bytes=LIMIT, study_max_bytes=STUDY_LIMIT)
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        yield served
    assert list(folder.glob("c_*")) == []


@pytest.fixture
def stored(served: Served, clip: bytes) -> Iterator[str]:
    """Address of a clip that is done; whatever the test does, it is still there afterwards."""
    answer = served.http.post("/v1/clips", params=WAIT, content=clip)
    place, document = answer.headers["Location"], answer.json()
    others = {job["id"] for job in served.http.get("/v1/clips").json()}
    yield place
    kept = served.http.get(f"{place}/result")
    if kept.status_code != 404:
        assert kept.json() == document
        assert {job["id"] for job in served.http.get("/v1/clips").json()} == others
        served.http.delete(place)
