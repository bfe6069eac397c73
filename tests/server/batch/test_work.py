"""One worker of an archive."""

from pathlib import Path

import pytest

import server.batch.work
from server.batch.inputs import Input
from server.batch.work import Analyst, Task
from tests.server.ingest.making import save, ultrasound
from tests.server.phantom import grey_predictor, picture


@pytest.mark.parametrize(
    ("manifest", "named", "view"),
    [
        (None, "PLAX", "PLAX"),
        (None, None, "A2C"),
        ("A4C", "PLAX", "A4C"),
        ("PLAX", None, "PLAX"),
    ],
)
def test_the_view_of_the_run_is_for_clips_of_which_neither_file_nor_manifest_says_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    manifest: str | None,
    named: str | None,
    view: str,
) -> None:
    monkeypatch.setattr(server.batch.work, "load_predictor", lambda *_, **__: grey_predictor())
    more = {} if named is None else {"ViewName": named}
    clip = save(ultrasound(picture(0)[None], **more), tmp_path / "clip")
    outcome = Analyst(Task(view="A2C"), 1).work(Input(str(clip), manifest))
    assert outcome.clip["code"] is None
    assert outcome.clip["view"] == view
    assert ("view_not_apical" in outcome.clip["ef_reasons"]) == (view == "PLAX")
