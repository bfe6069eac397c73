from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import WeightsError
from model.training.config import TrainConfig
from model.training.folder import add_to_log, claim, keep_data, trim_log
from model.training.sets import open_set
from tests.model.training.hearts import draw_labels, write_still
from tests.model.training.sets.writing import write_echonet_set, write_nifti_release


def test_two_processes_never_train_into_one_folder(tmp_path: Path) -> None:
    config = TrainConfig("data")
    with (
        claim(tmp_path, config),
        pytest.raises(WeightsError, match="another process"),
        claim(tmp_path, config),
    ):
        pass
    with claim(tmp_path, config):
        pass


def test_settings_of_an_earlier_version_are_those_of_the_run(tmp_path: Path) -> None:
    # What the first version wrote, before views, frames_between and truncate_frames were there.
    (tmp_path / "config.toml").write_text('data = "data"\nsteps = 7\n')
    with claim(tmp_path, TrainConfig("data", steps=7)):
        assert "views" in (tmp_path / "config.toml").read_text()
    with (
        pytest.raises(WeightsError, match="other settings"),
        claim(tmp_path, TrainConfig("data", steps=8)),
    ):
        pass


def test_a_run_does_not_go_on_with_other_data(data: Path, tmp_path: Path) -> None:
    keep_data(tmp_path, open_set(data))
    keep_data(tmp_path, open_set(data))
    write_still(data / "train", "patient0001_4CH_ED", draw_labels(1.0), 77)
    with pytest.raises(WeightsError, match=r"changed: train/patient0001_4CH_ED"):
        keep_data(tmp_path, open_set(data))


@pytest.mark.parametrize(
    ("write", "table"),
    [
        (write_echonet_set, "VolumeTracings.csv"),
        (write_echonet_set, "FileList.csv"),
        (write_nifti_release, "database_split/subgroup_training.txt"),
    ],
)
def test_a_run_does_not_go_on_with_other_tracings_or_splits(
    tmp_path: Path, write: Callable[[Path], Path], table: str
) -> None:
    root = write(tmp_path / "data")
    keep_data(tmp_path, open_set(root))
    with (root / table).open("a") as file:
        file.write("\n")
    with pytest.raises(WeightsError, match=f"changed: {table}"):
        keep_data(tmp_path, open_set(root))


def test_lists_beside_the_folder_of_the_patients_are_kept_too(tmp_path: Path) -> None:
    root = write_nifti_release(tmp_path / "camus" / "database_nifti")
    (root / "database_split").rename(tmp_path / "camus" / "database_split")
    keep_data(tmp_path, open_set(tmp_path / "camus"))
    assert '"../database_split/subgroup_training.txt"' in (tmp_path / "data.json").read_text()


def test_the_test_patients_are_no_part_of_a_run(data: Path, tmp_path: Path) -> None:
    found = open_set(data)
    keep_data(tmp_path, replace(found, studies=tuple(found.of_split("train"))))
    assert "valid/" not in (tmp_path / "data.json").read_text()


def test_a_log_keeps_nothing_from_after_the_checkpoint(tmp_path: Path) -> None:
    trim_log(tmp_path, 3)
    for step in (2, 4, 6):
        add_to_log(tmp_path, {"step": step, "loss": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    trim_log(tmp_path, 4)
    steps = [line[9] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == ["2", "4"]
