"""One worker of an archive."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import server.batch.work
from server.batch.inputs import Input, list_inputs
from server.batch.parts import Parts
from server.batch.places import open_place
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


def test_a_file_whose_name_is_no_text_has_a_row_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.batch.work, "load_predictor", lambda *_, **__: grey_predictor())
    folder = tmp_path / "archive"
    folder.mkdir()
    # "Müller.dcm" as an old disk has it, in Latin-1.
    clip = Path(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.dcm"))
    save(ultrasound(picture(0)[None]), tmp_path / "clip").rename(clip)
    (wanted,) = list_inputs(str(folder), "elsewhere")
    outcome = Analyst(Task(has_masks=True), 1).work(wanted)
    parts = Parts(open_place(str(tmp_path / "out")))
    parts.add(outcome)
    parts.flush()
    parts.close()
    (row,) = pq.read_table(tmp_path / "out" / "clips.parquet").to_pylist()
    assert (row["input"], row["code"]) == (f"{folder}/M\\xfcller.dcm", None)
    assert (tmp_path / "out" / "masks" / row["masks"]).is_file()
    assert wanted.name in parts.done
