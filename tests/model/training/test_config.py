import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import WeightsError
from model.training.config import TrainConfig

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_of_settings_is_read_and_the_rest_are_defaults(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "run.toml"
    text = 'data = "camus"\nsteps = 40\nlearning_rate = 1e-3\nfreeze_norm = true\n'
    path.write_text(text, encoding=encoding)
    config = TrainConfig.read(path)
    assert config == replace(TrainConfig("camus"), steps=40, learning_rate=0.001, freeze_norm=True)


@given(data=TEXTS, start=TEXTS, rate=st.floats(1e-12, 1e3), freeze=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_beside_the_weights_reads_back_the_same(
    tmp_path: Path, data: str, start: str, rate: float, freeze: bool
) -> None:
    config = TrainConfig(
        data, start=start, learning_rate=rate, freeze_norm=freeze, seed=3, widths=(8, 8, 16, 24)
    )
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.read(path) == config
    assert tomllib.loads(config.to_toml())["data"] == data


def test_a_whole_number_is_taken_where_a_fraction_may_stand(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('data = "camus"\nclip_norm = 2\n')
    assert TrainConfig.read(path).clip_norm == 2.0
    assert TrainConfig.read(path).to_toml() == TrainConfig("camus", clip_norm=2.0).to_toml()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('data = "a"\nlerning_rate = 0.1\nstepz = 3', "lerning_rate, stepz"),
        ("steps = 3", "data"),
        ('data = "a"\nsteps = "many"', "steps"),
        ('data = "a"\nsteps = 1.5', "steps"),
        ('data = "a"\nsteps = true', "steps"),
        ('data = "a"\nfreeze_norm = 1', "freeze_norm"),
        ("data = 3", "data"),
        ('data = "a"\nsteps = 0', "steps"),
        ('data = "a"\nbatch = -1', "batch"),
        ('data = "a"\ncheckpoint_every = 0', "checkpoint_every"),
        ('data = "a"\nburst_share = 1.5', "burst_share"),
        ('data = "a"\nema_decay = -0.1', "ema_decay"),
        ('data = "a"\nlearning_rate = nan', "learning_rate"),
        ('data = "a"\nlearning_rate = inf', "learning_rate"),
        ('data = "a"\nlearning_rate = -1e-3', "learning_rate"),
        ('data = "a"\nclip_norm = 0', "clip_norm"),
        ('data = "a"\nseed = -3', "seed"),
        ('data = "a"\nwarmup_steps = -1', "warmup_steps"),
        ('data = "a"\nweight_decay = -0.1', "weight_decay"),
        ('data = "a"\nwidths = [8, 8, 8]', "widths"),
        ('data = "a"\nwidths = [8, 8, 8, 1.5]', "widths"),
        ('data = "a"\nwidths = "8, 8, 8, 8"', "widths"),
        ('data = "a"\nnetwork_size = 100', "network_size"),
        ('data = "a"\ndevice = "tpu"', "cpu, cuda"),
        ('data = "a"\nfolds = 2\nfold = 2', "fold"),
        ('data = "a"\nworkers = 0', "workers"),
        ('data = "a"\nsoft_share = -0.5', "soft_share"),
        ('data = "a"\nmean_share = 1.5', "mean_share"),
        ('data = "a', "cannot read"),
    ],
)
def test_a_setting_that_no_run_can_have_is_refused_and_named(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(WeightsError) as refusal:
        TrainConfig.read(path)
    assert named in refusal.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.toml"):
        TrainConfig.read(tmp_path / "nowhere.toml")
