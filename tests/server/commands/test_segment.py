import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from typer.testing import CliRunner, Result

import server.commands.segment
from server.artefacts import ARTEFACTS
from server.cli import app
from server.commands.segment import folders_of
from server.export.film import open_film
from server.study import analyse_clip
from tests.server.phantom import grey_predictor, phantom_clip

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
COUNT = 6


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return phantom_clip(tmp_path / "clip (1) [bold] [x] ä.dcm", COUNT)


@pytest.fixture(autouse=True)
def _phantoms_predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.commands.segment, "load_predictor", lambda threads: grey_predictor())


def segment(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["segment", *map(str, words)])


def test_json_is_the_one_document_of_the_clip_and_nothing_else(clip: Path) -> None:
    done = segment(clip, "--json")
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == analyse_clip(clip, grey_predictor()).document
    assert done.stderr == ""


def test_the_view_is_what_the_caller_says(clip: Path) -> None:
    assert json.loads(segment(clip, "--json", "--view", "A2C").stdout)["clip"]["view"] == "A2C"


def test_people_are_told_the_frames_and_the_ef_or_why_there_is_none(clip: Path) -> None:
    done = segment(clip)
    assert done.exit_code == 0
    head, words = done.stdout.splitlines()
    assert head == f"{clip.name}: 6 frames of 144 x 144"
    assert words.startswith("  No EF is given: ")


def test_people_are_told_a_measured_ef_with_its_interval(tmp_path: Path) -> None:
    done = segment(phantom_clip(tmp_path / "whole.dcm", 65))
    assert done.stdout.splitlines()[1].startswith("  EF 50 %, ")
    assert "90 % interval" in done.stdout


def test_files_are_written_into_the_folder_that_is_named(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a folder [1]" / "below"
    printed = json.loads(segment(clip, "--out", out, "--json").stdout)
    assert {path.name for path in out.iterdir()} == {"result.json", "masks.npz", *ARTEFACTS}
    assert json.loads((out / "result.json").read_text()) == printed
    with np.load(out / "masks.npz", allow_pickle=False) as masks:
        assert masks["labels_THW"].shape == (COUNT, 144, 144)


def test_people_are_told_which_files_a_film_cannot_have_and_why(tmp_path: Path) -> None:
    with open_film(tmp_path / "clip.mp4", 64, 64) as film:
        for index in range(COUNT):
            film.add(np.full((64, 64, 3), 40 + index, np.uint8), index / 25, 1 / 25)
    done = segment(tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert done.exit_code == 0
    missing = set(ARTEFACTS) - {path.name for path in (tmp_path / "out").iterdir()}
    assert missing == {"seg.dcm", "seg-labelmap.dcm", "sr.dcm", "sr-1500.dcm"}
    masks, figures = done.stderr.splitlines()
    assert masks.startswith("clip.mp4: no seg.dcm or seg-labelmap.dcm: ")
    assert figures.startswith("clip.mp4: no sr.dcm or sr-1500.dcm: ")
    assert all("no DICOM object" in line for line in (masks, figures))


REFUSED = [
    ("CT_small.dcm", "unsupported_modality"),
    ("MR_truncated.dcm", "unsupported_modality"),
    ("test-SR.dcm", "no_pixels"),
    ("no_meta.dcm", "malformed_header"),
    ("README.txt", "not_a_clip"),
    ("missing.dcm", "not_found"),
    (".", "system"),
]


@pytest.mark.parametrize(("name", "code"), REFUSED)
def test_a_refusal_is_one_document_with_its_code(name: str, code: str) -> None:
    done = segment(PYDICOM_FILES / name, "--json")
    assert done.exit_code == 1
    assert done.stdout.count("\n") == 1
    (error,) = json.loads(done.stdout).values()
    assert set(error) == {"code", "message"}
    assert error["code"] == code
    assert len(error["message"]) > 10


@pytest.mark.parametrize(("name", "code"), REFUSED)
def test_a_refusal_is_said_to_people_on_standard_error(name: str, code: str) -> None:
    done = segment(PYDICOM_FILES / name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Not done: ")
    assert f"({code})" in done.stderr


def test_a_name_with_brackets_is_said_as_it_is(tmp_path: Path) -> None:
    missing = tmp_path / "no [1] [bold] [/x].dcm"
    assert f"there is no {missing} (not_found)" in segment(missing).stderr


def test_a_bad_file_among_several_does_not_stop_the_others(clip: Path, tmp_path: Path) -> None:
    bad, missing = PYDICOM_FILES / "CT_small.dcm", tmp_path / "missing.dcm"
    done = segment(bad, clip, missing, clip, "--json", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout.count("\n") == 1
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert [each["path"] for each in found] == [str(path) for path in (bad, clip, missing, clip)]
    codes = [each.get("error", {}).get("code") for each in found]
    assert codes == ["unsupported_modality", None, "not_found", None]
    document = analyse_clip(clip, grey_predictor()).document
    assert found[1] == found[3] == {"path": str(clip), **document}
    assert "2 of 4 clips" in done.stderr
    written = sorted(path.parent.name for path in (tmp_path / "out").glob("*/overlay.mp4"))
    assert written == [clip.stem, f"{clip.stem}-2"]


def test_people_are_told_which_of_several_files_was_refused(clip: Path) -> None:
    done = segment(PYDICOM_FILES / "CT_small.dcm", clip)
    assert done.exit_code == 1
    assert "CT_small.dcm: " in done.stdout
    assert "(unsupported_modality)" in done.stdout
    assert f"{clip.name}: 6 frames" in done.stdout


def test_clips_of_the_same_name_are_not_written_over_each_other() -> None:
    paths = [Path("a/x.dcm"), Path("b/x.dcm"), Path("b/x.mp4"), Path("y.dcm"), Path("x-2.dcm")]
    folders = folders_of(paths, Path("out"))
    assert folders[0] == Path("out/x")
    assert len(set(folders)) == len(paths)
    assert folders_of(paths[:1], Path("out")) == [Path("out")]


def test_a_full_disk_is_said_with_the_code_that_the_server_has_for_it(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nowhere(*_: object) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"half")

    monkeypatch.setattr(server.commands.segment, "write_masks", write_nowhere)
    done = segment(clip, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "storage_full"
