from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.config import ModelConfig
from model.errors import WeightsError
from model.network import LiveNetwork
from model.training.average import follow
from model.training.config import TrainConfig
from model.training.loop import train

COUNT = "encoder.down2.1.num_batches_tracked"


@pytest.fixture
def config(data: Path, tiny_checkpoint: Path) -> TrainConfig:
    return TrainConfig(
        str(data),
        start=str(tiny_checkpoint),
        steps=3,
        batch=2,
        warmup_steps=1,
        evaluate_every=3,
        checkpoint_every=2,
    )


@pytest.mark.parametrize(
    ("step", "decay", "keep"), [(0, 0.9, 0.1), (8, 0.9, 0.5), (10_000, 0.9, 0.9)]
)
def test_the_average_keeps_a_share_that_grows_to_the_decay(
    tiny_config: ModelConfig, step: int, decay: float, keep: float
) -> None:
    network, average = LiveNetwork(tiny_config), LiveNetwork(tiny_config)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    for parameter in average.parameters():
        torch.nn.init.zeros_(parameter)
    network.state_dict()[COUNT].fill_(42)
    follow(average, network, step, decay)
    for parameter in average.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 1 - keep))
    assert int(average.state_dict()[COUNT]) == 42


@pytest.mark.parametrize("named", [True, False])
def test_a_run_ends_with_the_mean_of_its_weights_and_of_others(
    config: TrainConfig,
    tiny_config: ModelConfig,
    tiny_checkpoint: Path,
    tmp_path: Path,
    named: bool,
) -> None:
    others = torch.load(tiny_checkpoint, weights_only=True)["average"]
    if named:
        # Not those that the run starts with.
        others = {name: value + 1 for name, value in others.items()}
        save_file(others, tmp_path / "before.safetensors")
    mean_with = str(tmp_path / "before.safetensors") if named else ""
    mixed = replace(config, mean_share=0.25, mean_with=mean_with)
    plain, mean = (
        torch.load(train(each, tiny_config, tmp_path / name), weights_only=True)
        for name, each in (("plain", config), ("mean", mixed))
    )
    for name, value in plain["average"].items():
        wanted = value
        if value.is_floating_point():
            wanted = 0.75 * value + 0.25 * others[name]
        torch.testing.assert_close(mean["average"][name], wanted)
        assert torch.equal(mean["network"][name], plain["network"][name])
    assert not torch.equal(
        mean["average"]["address.from_sensory.weight"],
        plain["average"]["address.from_sensory.weight"],
    )


@pytest.mark.parametrize("mean_with", ["none.safetensors", "cut.pt"])
def test_weights_that_cannot_be_had_for_a_mean_stop_the_run_before_it_starts(
    config: TrainConfig,
    tiny_config: ModelConfig,
    tiny_checkpoint: Path,
    tmp_path: Path,
    mean_with: str,
) -> None:
    (tmp_path / "cut.pt").write_bytes(tiny_checkpoint.read_bytes()[:5000])
    mixed = replace(config, mean_share=0.5, mean_with=str(tmp_path / mean_with))
    with pytest.raises(WeightsError, match=mean_with):
        train(mixed, tiny_config, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_weights_of_another_shape_are_no_part_of_a_mean(
    config: TrainConfig, tiny_config: ModelConfig, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    wider = replace(tiny_config, sensory_width=12)
    mixed = replace(config, start="", mean_share=0.5, mean_with=str(tiny_checkpoint))
    with pytest.raises(WeightsError, match=r"'address\.from_sensory\.weight' has shape"):
        train(mixed, wider, tmp_path / "run")


def test_a_mean_with_nothing_is_refused(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="mean_share needs mean_with"):
        train(replace(config, start="", mean_share=0.5), tiny_config, tmp_path / "run")
