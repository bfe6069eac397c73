import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner, Result

from model.training.board import Board
from model.training.config import TrainConfig
from server.cli import app
from tests.model.training.hearts import write_patient

SMALL = """
network_size = 32
widths = [4, 4, 8, 8]
steps = 2
batch = 2
warmup_steps = 1
evaluate_every = 1
"""


def gdkvm(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a data set and a file of settings."""
    monkeypatch.chdir(tmp_path)
    write_patient(tmp_path / "data" / "train", "patient0001", 1)
    write_patient(tmp_path / "data" / "valid", "patient0002", 2)
    (tmp_path / "run.toml").write_text(SMALL)
    return tmp_path


def test_what_lies_in_a_folder_is_said(folder: Path) -> None:
    done = gdkvm("train", "--data", folder / "data", "--check")
    assert done.exit_code == 0
    assert "A4C PNG stills, masks of lv, myocardium, atrium" in done.stdout
    assert not (folder / "runs").exists()


def test_json_tells_the_counts_and_nothing_else(folder: Path) -> None:
    done = gdkvm("train", "--data", folder / "data", "--check", "--json")
    splits = json.loads(done.stdout)["data"]["splits"]
    assert splits["train"] == {
        "patients": 1,
        "views": {"4CH": 1, "2CH": 0},
        "labelled_frames": 2,
    }


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_every_broken_file_is_named_and_nothing_starts(folder: Path, check: tuple[str]) -> None:
    cut = folder / "data" / "valid" / "patient0002_4CH_ES.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    mask = folder / "data" / "train" / "patient0001_4CH_ED_gt.png"
    mask.write_bytes(b"no picture")
    done = gdkvm("train", "run.toml", "--data", "data", *check)
    assert done.exit_code == 1
    assert "patient0002_4CH_ES.png is missing, cut off or no PNG" in done.stderr
    assert "patient0001_4CH_ED_gt.png is missing, cut off or no PNG" in done.stderr
    assert not list(folder.glob("runs/*/checkpoint.pt"))


def test_missing_files_are_named_all_at_once(folder: Path) -> None:
    for path in list((folder / "data").glob("*/*_gt.png"))[:3]:
        path.unlink()
    done = gdkvm("train", "--data", "data")
    assert done.exit_code == 1
    assert done.stderr.count("_gt.png is missing") == 3
    assert not (folder / "runs").exists()


def test_runs_without_a_folder_get_new_ones_and_can_go_on(folder: Path) -> None:
    for run in ("runs/1", "runs/2"):
        done = gdkvm("train", "run.toml", "--data", "data", "--tensorboard")
        assert done.exit_code == 0, done.stderr
        assert f"Done: {run}/checkpoint.pt" in done.stdout
        assert "step 2: loss" in done.stdout
        assert list((folder / run / "tensorboard").glob("events.out.tfevents.*"))
    assert TrainConfig.read(folder / "runs/1/config.toml").steps == 2
    told = json.loads((folder / "runs/1/data.json").read_text())
    assert told["layout"] == "A4C PNG stills"
    assert len(told["sha256"]) == 8
    before = (folder / "runs/1/checkpoint.pt").read_bytes()
    done = gdkvm("train", "--out", "runs/1", "--json")
    assert json.loads(done.stdout)["checkpoint"] == "runs/1/checkpoint.pt"
    assert (folder / "runs/1/checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("has_bfloat16", "bf16", "is_told"),
    [(True, "false", True), (True, "true", False), (False, "false", False)],
)
def test_who_could_train_in_half_of_the_time_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, bf16: str, is_told: bool
) -> None:
    monkeypatch.setattr("server.commands.training.has_bfloat16", lambda: has_bfloat16)
    (folder / "run.toml").write_text(f"{SMALL}bf16 = {bf16}\n")
    done = gdkvm("train", "run.toml", "--data", "data")
    assert ("bf16 = true" in done.stdout) == is_told


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.add({"step": 3, "loss": 0.5, "s": 9, "lv_ed": 0.875})
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert sorted(read.Tags()["scalars"]) == ["dice/lv_ed", "loss"]
    (event,) = read.Scalars("dice/lv_ed")
    assert (event.step, event.value) == (3, 0.875)


def test_a_folder_without_a_run_says_what_is_wanted(folder: Path) -> None:
    done = gdkvm("train", "--out", "nothing")
    assert done.exit_code == 1
    assert "--data PATH" in done.stderr
